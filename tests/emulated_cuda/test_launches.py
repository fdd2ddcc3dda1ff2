"""Kernels, copies and waits of each phase of the 19B model: numbers that may only fall.

They are counted on the emulated GPU with the real shapes. What torch launches for an operation is
in kernels.py. On a fast GPU a decode step is bound by the number of its kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import pytest
from torch import Tensor

from cogvlm2_lite.model.decoder import DecoderBlock, Step
from tests.emulated_cuda.model_19b import session
from tests.emulated_cuda.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What a phase may start.

    kernels  without graphs; a graph replays the same kernels
    copies   over the bus, without weights
    waits    of the host for the device, without those of loading weights and those for an event,
             which leave two blocks queued
    """

    kernels: int
    copies: int
    waits: int


GOLDEN = {
    "encode": Golden(kernels=1943, copies=1, waits=1),
    "picture": Golden(kernels=2729, copies=5, waits=6),
    "100 text": Golden(kernels=780, copies=3, waits=3),
    "1000 text": Golden(kernels=2348, copies=3, waits=3),
    "decode": Golden(kernels=717, copies=4, waits=1),
}
"""Lower a number here when the program needs less. A change that raises one needs a reason."""

COPIES_OF_A_LOAD = 453
"""Copies to the device for all weights, of 1,221 tensors in 194 units: one for each 32 MiB."""


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Answer two questions with all weights resident and without graphs."""
    with session(24, graphs=False) as asked:
        cache = asked.model.runtime.new_cache()
        asked.load()
        asked.picture(cache, "loading ")
        cache.release()
        asked.picture(cache)
        for tokens in (100, 1000):
            length = cache.length
            asked.text(cache, tokens, f"{tokens} ")
            if tokens == 100:
                asked.decode(cache, 2)
            cache.truncate(length)
        return asked.machine.trace


def counted(trace: Trace, phase: str) -> Golden:
    work = trace.phases[phase]
    return Golden(
        kernels=sum(work.kernels.values()),
        copies=sum(work.copies.values()),
        waits=sum(n for what, n in work.syncs.items() if what != "event.synchronize"),
    )


@pytest.mark.parametrize("phase", GOLDEN)
def test_a_phase_starts_what_it_is_known_to_start(trace: Trace, phase: str) -> None:
    found, known = counted(trace, phase), GOLDEN[phase]
    kernels = trace.phases[phase].kernels.most_common()
    assert found.kernels <= known.kernels, f"more kernels: {kernels}"
    assert found.copies <= known.copies, trace.phases[phase].copies
    assert found.waits <= known.waits, trace.phases[phase].syncs
    assert found == known, "fewer: lower the number in GOLDEN"


def test_a_decode_step_waits_only_for_its_token(trace: Trace) -> None:
    assert trace.phases["decode"].syncs == {"stream.synchronize": 1}


def test_all_weights_need_as_many_copies_as_is_known(trace: Trace) -> None:
    uploads = [*trace.uploads.items(), *((n, trace.phases[n]) for n in ("load",))]
    found = sum(work.copies["to the device"] for _, work in uploads)
    assert found == COPIES_OF_A_LOAD


def test_questions_without_a_new_picture_load_nothing(trace: Trace) -> None:
    for phase in GOLDEN:
        assert not trace.uploads[phase].copies


def test_an_extra_kernel_in_each_layer_is_seen() -> None:
    attend = DecoderBlock.attend

    def slower(self: DecoderBlock, qkv: Tensor, step: Step) -> Tensor:
        return attend(self, qkv, step) * 1

    with patch.object(DecoderBlock, "attend", slower), session(24, graphs=False) as asked:
        cache = asked.model.runtime.new_cache()
        asked.text(cache, 10)
        asked.decode(cache, 2)
        found = counted(asked.machine.trace, "decode")
    assert found.kernels == GOLDEN["decode"].kernels + 32
