"""All weights of a GPU in one allocation: how they get there, and what stays where it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
import torch

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.backends import cuda, pinned
from cogvlm2_lite.backends.base import HostCopy
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.events import Finished, Replanned
from cogvlm2_lite.memory import work
from cogvlm2_lite.memory.plan import RESERVE_BYTES
from cogvlm2_lite.memory.slab import lay_out
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.slots import WeightSlot
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Machine, Order
from tests.emulated_cuda.test_engine import Known, known, opened, text
from tests.helpers.answers import picture

__all__ = ["known"]

RING = 1 << 14


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "RING_BYTES", RING)
    monkeypatch.setattr(work, "KERNEL_SCRATCH_BYTES", 1 << 14)


class Uploads:
    """Counts what the machine does for each unit that is loaded to a GPU."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._fill = WeightLoader.fill_unit
        self.copies: list[tuple[int, int]] = []
        """Copies to the device and bytes, for each unit."""
        self.allocations: list[int] = []

    def fill_unit(
        self,
        loader: WeightLoader,
        slots: Sequence[WeightSlot],
        begin: int | None,
        kept: HostCopy | None = None,
    ) -> int:
        copies, allocations = self._machine.launches["copy to device"], self._machine.allocations
        filled = self._fill(loader, slots, begin, kept)
        if begin is not None:
            self.copies.append((self._machine.launches["copy to device"] - copies, filled))
            self.allocations.append(self._machine.allocations - allocations)
        return filled


def test_a_unit_is_one_stream_of_ring_buffers_and_allocates_nothing(known: Known) -> None:
    with emulated_cuda() as machine:
        uploads = Uploads(machine)
        model = opened(known.folder, known.budget(0.2))
        with patch.object(WeightLoader, "fill_unit", lambda *args: uploads.fill_unit(*args)):
            for phase in (Phase.PREFILL_IMAGE, Phase.DECODE, Phase.PREFILL_IMAGE):
                with model.runtime.residency.phase(phase):
                    for _ in model.runtime.residency.walk(model.runtime.parts.decoder.blocks):
                        pass  # nothing is computed: what happens is done by uploads
        assert len(uploads.copies) > 20
        for copies, nbytes in uploads.copies:
            assert copies == -(-nbytes // RING)
        assert set(uploads.allocations[1:]) == {0}


def moving(known: Known) -> int:
    """Return a budget with which decoding streams nothing, but a picture takes its weights out."""
    for share in range(1, 100):
        model = opened(known.folder, known.budget(share / 100))
        (device,) = model.plan.devices
        decode, encode = device.phase(Phase.DECODE), device.phase(Phase.ENCODE)
        used = {unit.key for unit in decode.resident if unit.part in decode.parts}
        if not decode.streamed and used - encode.resident_keys:
            return known.budget(share / 100)
    raise AssertionError("there is no such budget")


def addresses(model: Model) -> list[int]:
    found = []
    for block in model.runtime.parts.decoder.blocks:
        for slot in block.slots():
            if "language" in slot.name and slot.name.endswith(".weight"):
                stored: Any = slot.stored
                found.append(stored.weight.data_ptr())
    return found


def test_weights_of_decoding_come_back_to_their_addresses(known: Known) -> None:
    with emulated_cuda(order=Order.LATE):
        model = opened(known.folder, moving(known))
        residency = model.runtime.residency

        def ready() -> bool:
            return residency.is_ready

        assert not ready()
        first = text(model)
        version, before = residency.version, addresses(model)
        assert ready()
        with residency.phase(Phase.ENCODE):
            assert not ready()
        with residency.phase(Phase.DECODE):
            assert not ready(), "a picture took weights out: no graph may run"
        assert text(model) == first
        assert ready()
        assert residency.version == version
        assert addresses(model) == before
        residency.release()
        assert not ready()
        assert text(model) == first
        assert residency.version != version


def test_a_slab_that_does_not_fit_leaves_everything_as_it_was(known: Known) -> None:
    with emulated_cuda() as machine:
        model = opened(known.folder, known.budget(0.5))
        residency, (arena,) = model.runtime.residency, model.runtime.arenas
        held = machine.held[0]
        machine.foreign_bytes[0] = machine.total_bytes - held - 1024
        blocks = model.runtime.parts.decoder.blocks
        for _ in range(2):
            with pytest.raises(torch.OutOfMemoryError), residency.phase(Phase.DECODE):
                next(residency.walk(blocks))
            assert (residency.loaded, arena.held_bytes, machine.held[0]) == ({}, 0, held)
        machine.foreign_bytes[0] = 0
        assert text(model) == known.texts[0]


def test_a_smaller_plan_has_a_smaller_slab(known: Known) -> None:
    with emulated_cuda(order=Order.LATE) as machine:
        model = opened(known.folder)
        assert text(model) == known.texts[0]
        (arena,) = model.runtime.arenas
        before, slab = machine.held[0], lay_out(model.plan.devices[0]).nbytes
        assert arena.held_bytes >= slab
        model.replanner.replan()
        assert machine.held[0] <= before - slab
        assert text(model) == known.texts[0]
        smaller = lay_out(model.plan.devices[0]).nbytes
        assert smaller < slab
        assert machine.held[0] <= before - slab + smaller + 4096


def test_torch_refuses_what_is_beyond_the_budget_and_its_reserve(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows the driver would never refuse it, but move it to RAM."""
    monkeypatch.setattr(cuda, "_moves_memory_to_ram", lambda: True)
    with emulated_cuda() as machine:
        model = opened(known.folder, known.budget(0.5))
        text(model)
        room = known.budget(0.5) + RESERVE_BYTES - machine.held[0]
        for size in (room - (1 << 20), room + (1 << 20)):
            with ExitStack() as stack:
                if size > room:
                    stack.enter_context(pytest.raises(torch.OutOfMemoryError))
                torch.empty(size, dtype=torch.uint8, device="cuda")
        assert machine.held[0] < machine.total_bytes / 2


def test_without_pinned_memory_the_answer_is_the_same_and_nothing_is_planned_again(
    known: Known,
) -> None:
    sampling = Sampling(max_new_tokens=8, repetition_guard=False)
    with emulated_cuda(order=Order.LATE) as machine:
        model = opened(known.folder, known.budget(0.2))
        machine.refuses_pinned = True
        events = list(model.answer("What?", picture(1), sampling=sampling))
        assert not any(isinstance(event, Replanned) for event in events)
        assert isinstance(events[-1], Finished)
        assert events[-1].text == known.texts[0]
        machine.refuses_pinned = False
        assert text(model) == known.texts[0]
        loader = model.runtime.residency._loaders[0]
        assert all(buffer.is_pinned for buffer in loader._upload._ring)  # type: ignore[attr-defined]


def test_what_every_token_streams_is_read_from_the_files_once(known: Known) -> None:
    packed: list[int] = []
    pack = pinned._pack

    def counted(buffer: torch.Tensor, *rest: Any) -> None:
        packed.append(buffer.numel())
        pack(buffer, *rest)

    with emulated_cuda(order=Order.LATE), patch.object(pinned, "_pack", counted):
        model = opened(known.folder, known.budget(0))
        (device,) = model.plan.devices
        assert set(device.pinned) == set(device.phase(Phase.DECODE).streamed)
        assert text(model) == known.texts[0]
        residency, blocks = model.runtime.residency, model.runtime.parts.decoder.blocks
        packed.clear()
        streamed = residency.streamed_bytes
        for _ in range(2):
            with residency.phase(Phase.DECODE):
                for _ in residency.walk(blocks):
                    pass
        assert residency.streamed_bytes > streamed
        assert packed == []
        residency.release()
        assert text(model) == known.texts[0]
        assert packed


def test_a_graph_survives_pictures_that_take_weights_out(known: Known) -> None:
    sampling = Sampling(max_new_tokens=8, repetition_guard=False)

    def answers(model: Model) -> list[str]:
        found = []
        for number in (1, 2, 3, 1):
            *_, last = model.answer("What?", picture(number), sampling=sampling)
            assert isinstance(last, Finished)
            found.append(last.text)
        return found

    with emulated_cuda(order=Order.LATE):
        expected = answers(opened(known.folder))
        model = opened(known.folder, moving(known))
        assert answers(model) == expected
        assert model.runtime.graphs is not None
        assert model.runtime.graphs.captures == 1
        assert model.runtime.graphs.replays > 20
