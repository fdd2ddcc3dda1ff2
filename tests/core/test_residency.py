"""Streamed or resident, with memory or without: the same answer, and never a byte too many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from cogvlm2_lite.architectures.architecture import Part, Phase
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.errors import DeviceError, DoesNotFitError, EngineError
from cogvlm2_lite.events import Event, Finished, ImageEncoded, Replanned, TextDelta
from cogvlm2_lite.memory.arena import Arena, OutOfBudgetError
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.memory.residency import Residency
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.slots import Linear, WeightSlot
from quantize.command import main as quantize
from tests.helpers.answers import picture
from tests.helpers.arenas import FailingArena
from tests.helpers.folders import random_folder

KINDS = ("bf16", "nf4", "int8")
SHORT = Sampling(max_new_tokens=6)
HISTORY = [("a?", "first answer"), ("b?", "second")]
PLENTY = 1 << 30


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    found = {"bf16": random_folder(root / "bf16")}
    for kind, options in (("nf4", []), ("int8", ["--keep", "*=int8"])):
        found[kind] = root / kind
        command = [str(found["bf16"]), str(found[kind]), *options, "--lm-head", kind, "--json"]
        assert quantize(command) == 0
    return found


def open_with(
    folder: Path,
    *budgets: int,
    dtype: str = "bfloat16",
    arenas: Sequence[Arena] | None = None,
) -> Model:
    named = [
        DeviceBudget(device=f"cpu:{i}", in_ram=True, device_bytes=n) for i, n in enumerate(budgets)
    ]
    return open_model(folder, compute=choose_compute("cpu", dtype), budgets=named, arenas=arenas)


def smallest(folder: Path, devices: int = 1) -> int:
    """The smallest budget per device that a plan exists for."""
    low, high = 0, PLENTY
    while high - low > 1:
        middle = (low + high) // 2
        try:
            open_with(folder, *[middle] * devices)
            high = middle
        except DoesNotFitError:
            low = middle
    return high


def ask(model: Model, seed: int | None = 1) -> list[Event]:
    image = picture(seed) if seed else None
    return list(model.answer("What?", image, HISTORY, sampling=SHORT))


def text(events: Sequence[Event]) -> str:
    last = events[-1]
    assert isinstance(last, Finished)
    return last.text


def budgets_between(folder: Path, devices: int = 1) -> Iterator[int]:
    low = smallest(folder, devices)
    high = max(d.peak_bytes for d in open_with(folder, *[PLENTY] * devices).plan.devices)
    yield from sorted({low + (high - low) * step // 5 for step in range(6)})


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_budget_gives_the_same_answer(
    folders: dict[str, Path], kind: str, devices: int
) -> None:
    folder = folders[kind]
    resident = open_with(folder, PLENTY)
    expected = [text(ask(resident, seed)) for seed in (1, None, 2)]
    assert len(set(expected)) == 3
    assert resident.runtime.residency.streamed_bytes == 0
    streamed = 0
    for budget in budgets_between(folder, devices):
        model = open_with(folder, *[budget] * devices)
        assert [text(ask(model, seed)) for seed in (1, None, 2)] == expected
        for arena in model.runtime.arenas:
            assert arena.peak_bytes <= budget
        streamed = max(streamed, model.runtime.residency.streamed_bytes)
    assert streamed > 0


def test_the_smallest_budget_keeps_only_norms(folders: dict[str, Path]) -> None:
    model = open_with(folders["nf4"], smallest(folders["nf4"]))
    tightest = min(model.plan.devices[0].phases, key=lambda p: model.plan.peak_bytes - p.peak_bytes)
    assert {unit.part for unit in tightest.resident} == {Part.NORMS}
    assert text(ask(model)) == text(ask(open_with(folders["nf4"], PLENTY)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_are_equal_to_the_bit(folders: dict[str, Path], dtype: str) -> None:
    ids = torch.tensor([[500, *range(40, 80)]])
    for kind in KINDS:
        tight, wide = (
            open_with(folders[kind], budget, dtype=dtype).forward(ids)
            for budget in (smallest(folders[kind]) * 2, PLENTY)
        )
        assert torch.equal(tight, wide)


def test_a_text_question_never_brings_vision_weights_in(folders: dict[str, Path]) -> None:
    model = open_with(folders["nf4"], PLENTY)
    ask(model, None)
    held = model.runtime.residency.resident_bytes
    assert held[Part.VISION] == held[Part.PROJECTOR] == held[Part.VISION_EXPERT] == 0
    assert held[Part.LANGUAGE_EXPERT] > 0


def test_a_phase_holds_what_its_plan_says(folders: dict[str, Path]) -> None:
    folder = folders["nf4"]
    for budget in budgets_between(folder):
        model = open_with(folder, budget)
        ask(model)
        held = {k for k, n in model.runtime.residency.loaded.items() if n}
        planned = model.plan.devices[0].phase(Phase.DECODE).resident_keys
        assert {key for key in held if key[0] is not Part.EMBEDDING} <= planned | {
            unit.key for unit in model.plan.devices[0].phase(Phase.DECODE).streamed
        }


def test_the_arena_is_empty_when_everything_is_released(folders: dict[str, Path]) -> None:
    model = open_with(folders["nf4"], smallest(folders["nf4"]) + 100_000)
    ask(model)
    model.engine.slots[0].cache.release()
    model.engine.pictures.clear()
    model.runtime.residency.release()
    assert [arena.held_bytes for arena in model.runtime.arenas] == [0]


def test_kept_pictures_stay_within_the_budget_and_leave_when_memory_runs_out(
    folders: dict[str, Path],
) -> None:
    folder = folders["nf4"]
    peak = open_with(folder, PLENTY).plan.peak_bytes
    ask(wide := open_with(folder, PLENTY))
    one = wide.engine.pictures.nbytes
    arena = FailingArena()
    model = open_with(folder, peak + one * 5 // 2, arenas=[arena])
    assert model.plan.picture_cache_bytes == one * 5 // 2
    expected = [text(ask(model, seed)) for seed in (1, 2, 3)]
    assert model.engine.pictures.nbytes == 2 * one
    assert arena.peak_bytes <= peak + one * 5 // 2
    arena.fail_at = arena.requests + 1
    assert any(isinstance(event, Replanned) for event in ask(model, 4))
    assert model.engine.pictures.nbytes <= model.plan.picture_cache_bytes < 2 * one
    assert [text(ask(model, seed)) for seed in (1, 2, 3)] == expected


def test_a_picture_that_memory_has_no_room_for_is_only_not_kept(folders: dict[str, Path]) -> None:
    ask(wide := open_with(folders["nf4"], PLENTY))
    one = wide.engine.pictures.nbytes

    class Full(Arena):
        def take(self, nbytes: int) -> None:
            if nbytes == one:
                raise OutOfBudgetError("taken by another program")
            super().take(nbytes)

    model = open_with(folders["nf4"], PLENTY, arenas=[Full()])
    events = ask(model)
    assert text(events) == text(ask(wide))
    assert not any(isinstance(event, Replanned) for event in events)
    assert model.engine.pictures.nbytes == 0


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_memory_that_runs_out_anywhere_never_changes_the_answer(
    folders: dict[str, Path], share: float
) -> None:
    folder = folders["nf4"]
    low = smallest(folder)
    full = open_with(folder, PLENTY).plan.peak_bytes
    budget = int(low + (full - low) * share)
    counting = FailingArena()
    expected = ask(open_with(folder, budget, arenas=[counting]))
    assert counting.requests > 20
    # Every other allocation; the two budgets take turns.
    places = range(1 + int(share), counting.requests + 1, 2)
    recovered = 0
    for fail_at in places:
        arena = FailingArena(fail_at)
        model = open_with(folder, budget, arenas=[arena])
        events = ask(model)
        told = [event for event in events if isinstance(event, Replanned)]
        assert text(events) == text(expected)
        if not told:  # it was the place of a picture, which is then only not kept
            assert model.engine.pictures.nbytes == 0
            continue
        assert len(told) == 1
        assert "Memory ran out" in told[0].text
        assert told[0].budget_bytes[0] < budget
        # What was shown stays shown: the deltas are one text, said once.
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == text(expected)
        # The engine goes on, with the tighter plan.
        assert text(ask(model)) == text(expected)
        recovered += 1
    assert recovered >= len(places) - 1


def test_memory_that_keeps_running_out_ends_in_one_sentence(folders: dict[str, Path]) -> None:
    class Vanishing(FailingArena):
        def take(self, nbytes: int) -> None:
            self.requests += nbytes > 0
            if nbytes > 0 and self.requests > 30:
                raise OutOfBudgetError("gone")
            Arena.take(self, nbytes)

    model = open_with(folders["nf4"], PLENTY, arenas=[Vanishing()])
    with pytest.raises((DoesNotFitError, OutOfBudgetError)):
        ask(model)


def test_a_gpu_that_vanishes_ends_in_one_sentence(folders: dict[str, Path]) -> None:
    class Lost(FailingArena):
        def take(self, nbytes: int) -> None:
            self.requests += nbytes > 0
            if self.requests > 30:
                raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile ...")
            Arena.take(self, nbytes)

    model = open_with(folders["nf4"], PLENTY, arenas=[arena := Lost()])
    with pytest.raises(DeviceError) as caught:
        ask(model)
    assert caught.value.message == (
        "The GPU stopped working during the computation: CUDA error: unspecified launch failure."
    )
    assert "--device cpu" in caught.value.hint
    arena.requests = 31
    with pytest.raises(DeviceError, match="stopped working"):
        list(open_with(folders["nf4"], PLENTY, arenas=[arena]).warm_up())


def test_memory_that_the_driver_refuses_is_planned_around(folders: dict[str, Path]) -> None:
    """The driver's own calls tell of it with its number, not with torch's type."""
    expected = text(ask(open_with(folders["nf4"], PLENTY)))

    class Refusing(FailingArena):
        def take(self, nbytes: int) -> None:
            self.requests += nbytes > 0
            if nbytes > 0 and self.requests == 30:
                error = torch.AcceleratorError("CUDA error: out of memory")
                error.error_code = 2  # type: ignore[attr-defined]
                raise error
            Arena.take(self, nbytes)

    events = ask(open_with(folders["nf4"], PLENTY, arenas=[Refusing()]))
    assert any(isinstance(event, Replanned) for event in events)
    assert text(events) == expected


def test_a_new_picture_is_encoded_where_the_old_cache_was(folders: dict[str, Path]) -> None:
    model = open_with(folders["nf4"], PLENTY)
    ask(model, 1)
    for event in model.answer("What?", picture(2), HISTORY, sampling=SHORT):
        if isinstance(event, ImageEncoded):
            break
    assert model.engine.slots[0].cache.nbytes == 0


def test_weights_of_another_size_than_planned_are_refused(folders: dict[str, Path]) -> None:
    # Not by an assertion: `python -O` would go on with a wrong account.
    class Head:
        def slots(self) -> list[WeightSlot]:
            return [Linear("lm_head.weight", 8, 8)]

    class Short:
        uses_slab = False

        def reserve(self, nbytes: int) -> None:
            pass

        def fill_unit(self, slots: Sequence[WeightSlot], *place: object) -> int:
            return 1

        def read_ahead(self, slots: Sequence[WeightSlot]) -> None:
            pass

        def clear(self, slots: Sequence[WeightSlot]) -> None:
            pass

    plan = open_with(folders["bf16"], PLENTY).plan
    arena = Arena()
    keys = {"lm_head.weight": (Part.LM_HEAD, None)}
    residency = Residency([Short()], keys, [Head()], plan, [arena])
    with (
        pytest.raises(EngineError, match="does not match the weights: lm_head has 1 bytes"),
        residency.phase(Phase.DECODE),
    ):
        next(residency.walk([Head()]))
    assert arena.held_bytes == 0
