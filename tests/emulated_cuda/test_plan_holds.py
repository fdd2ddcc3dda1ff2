"""The memory plan holds on a GPU: shown with the 19B model's real shapes, for many budgets.

Questions are asked once with all weights resident, and every allocation is traced. What is computed
depends on no budget. So for each budget the product's residency loads and releases weights through
the same steps, and the traced allocations are made between them (Session.repeat). A model of
torch's allocator (allocator.py) then has what is allocated and what the driver gives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from unittest.mock import patch

import pytest

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.plan import MemoryPlan, PhasePlan
from cogvlm2_lite.memory.work import PREFILL_CHUNK
from cogvlm2_lite.units import GIB, MIB
from tests.emulated_cuda.allocator import (
    CachingAllocator,
    OutOfDeviceMemoryError,
    Usage,
    replay,
)
from tests.emulated_cuda.model_19b import Session, session
from tests.emulated_cuda.trace import Event

BUDGETS = [24, 16, 12, 8, 6, 4]
"""GiB that are free, as with --vram."""

ROUNDING_BYTES = MIB
"""Each of 1,221 tensors is rounded up to 512 bytes; the plan has their real sizes."""

FRAGMENTED_BYTES = 150 * MIB
"""What may be reserved beyond what is allocated, at their peaks. It may only fall."""


def ask_all(asked: Session) -> None:
    """Ask about a picture twice, then a text that fills the context, then about two others."""
    asked.ask("100", 100, picture=1)
    asked.ask("1000", 1000, picture=1)
    asked.ask("8000", 8000)
    asked.ask("second picture", 1000, picture=2)
    asked.ask("third picture", 100, picture=3)


Record = Callable[[bool], Sequence[Event]]


@pytest.fixture(scope="module")
def record() -> Record:
    """Return the trace of all questions with all weights resident.

    Its argument is MemoryPlan.caches_stay: the one property of a plan that changes what else is
    allocated.
    """

    @functools.cache
    def recorded(caches_stay: bool) -> Sequence[Event]:
        with patch.object(MemoryPlan, "caches_stay", caches_stay), session(24) as asked:
            ask_all(asked)
            return asked.machine.trace.events

    return recorded


@dataclass(frozen=True, kw_only=True)
class Case:
    """A budget, its plan, and the allocations of all questions."""

    gib: float
    plan: MemoryPlan
    events: Sequence[Event]

    def usage(self, *, coalesces: bool = True, expandable: bool = False) -> dict[str, Usage]:
        """Return what each phase needs; raises OutOfDeviceMemoryError above the limit."""
        limit = int(self.gib * GIB)
        return replay(
            self.events,
            CachingAllocator(limit_bytes=limit, coalesces=coalesces, expandable=expandable),
        )


@pytest.fixture(scope="module")
def cases(record: Record) -> Callable[[int], Case]:
    """Return the cases by budget; budgets with the same plan share a trace."""
    known: dict[tuple[PhasePlan, ...], Sequence[Event]] = {}

    @functools.cache
    def case(gib: int) -> Case:
        with session(gib) as asked:
            plan = asked.model.plan
        phases = plan.devices[0].phases
        if phases not in known:
            recorded = record(plan.caches_stay)
            with session(gib) as asked:
                asked.repeat(recorded)
                known[phases] = asked.machine.trace.events
        return Case(gib=gib, plan=plan, events=known[phases])

    return case


def excesses(case: Case, plan: MemoryPlan | None = None) -> list[str]:
    """Return where more was allocated than the plan has."""
    found = []
    for name, usage in case.usage().items():
        _, in_plan, phase = name.partition(": ")
        if not in_plan:
            continue
        (planned,) = (p for p in (plan or case.plan).devices[0].phases if p.phase.value == phase)
        weights = planned.weight_bytes + planned.spare_bytes
        limits = {
            "all": (usage.requested, planned.peak_bytes + ROUNDING_BYTES),
            "activations": (usage.by_label.get("", 0), planned.scratch_bytes),
            "cache": (usage.by_label.get("cache", 0), planned.cache_bytes),
            "weights": (usage.by_label.get("weights", 0), weights + ROUNDING_BYTES),
        }
        found += [
            f"{name}, {what}: {nbytes / MIB:.1f} MiB, planned {limit / MIB:.1f}"
            for what, (nbytes, limit) in limits.items()
            if nbytes > limit
        ]
    return found


def with_less_scratch(plan: MemoryPlan, phase: Phase, nbytes: int) -> MemoryPlan:
    """Return a plan that forgets something that a phase needs."""
    device = plan.devices[0]
    phases = tuple(
        replace(p, scratch_bytes=p.scratch_bytes - nbytes) if p.phase is phase else p
        for p in device.phases
    )
    return replace(plan, devices=(replace(device, phases=phases),))


# Budgets of a group share a trace, which takes long to record: so each group is one test.
@pytest.mark.parametrize("budgets", [BUDGETS[:3], BUDGETS[3:]], ids=["24 to 12 GiB", "8 to 4 GiB"])
def test_the_plan_holds(cases: Callable[[int], Case], budgets: Sequence[int]) -> None:
    for gib in budgets:
        case = cases(gib)
        # 1. No phase allocates more than its plan.
        assert excesses(case) == [], gib
        # 2. The driver gives no more than the budget and its reserve, and little of it is unused.
        usage = list(case.usage().values())
        reserved = max(each.reserved for each in usage)
        unused = reserved - max(each.allocated for each in usage)
        assert reserved <= gib * GIB
        assert FRAGMENTED_BYTES - 20 * MIB <= unused <= FRAGMENTED_BYTES, gib
        # 3. Less is unused with expandable segments.
        expandable = list(case.usage(expandable=True).values())
        reserved = max(each.reserved for each in expandable)
        assert reserved - max(each.allocated for each in expandable) < 90 * MIB, gib
        # 4. Unused memory is never returned to the driver in order to request other.
        assert sum(each.flushes for each in (*usage, *expandable)) == 0, gib


def test_after_three_answers_the_driver_is_hardly_called_for_a_picture(
    cases: Callable[[int], Case],
) -> None:
    usage = cases(8).usage()
    calls = {name: each.driver_calls for name, each in usage.items() if name.startswith("third")}
    assert sum(calls.values()) < 30, calls  # the cache was freed, and a graph is captured again


def test_a_trace_that_is_put_together_is_that_of_the_whole_run(record: Record) -> None:
    recorded = record(False)
    first = recorded[: next(i for i, e in enumerate(recorded) if e.phase == "1000")]
    found = []
    for repeats in (True, False):
        with session(6) as asked:
            if repeats:
                asked.repeat(first)
            else:
                asked.ask("100", 100, picture=1)
            found.append(Case(gib=6, plan=asked.model.plan, events=asked.machine.trace.events))
    assert found[0].usage() == found[1].usage()


# --- other settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kv", "context"), [(KVKind.INT8, 2048), (KVKind.INT4, 1024)], ids=str)
def test_keys_and_values_of_fewer_bits_stay_within_the_plan(kv: KVKind, context: int) -> None:
    with session(24, kv=kv, context=context) as asked:
        asked.ask("text", context - 48)
        case = Case(gib=24, plan=asked.model.plan, events=asked.machine.trace.events)
    assert excesses(case) == []


# --- controls: faults that must be seen -----------------------------------------------------------


def test_a_plan_without_the_mask_is_seen(cases: Callable[[int], Case]) -> None:
    case = cases(24)
    mask = PREFILL_CHUNK * 8192
    plan = with_less_scratch(case.plan, Phase.PREFILL_TEXT, mask)
    assert {text.partition(":")[0] for text in excesses(case, plan)} == {"8000"}


def test_a_plan_without_the_dequantized_rows_is_seen(cases: Callable[[int], Case]) -> None:
    case = cases(6)
    plan = with_less_scratch(case.plan, Phase.ENCODE, 24 * MIB)
    assert {text.partition(", ")[0].partition(": ")[2] for text in excesses(case, plan)} == {
        "encode"
    }


def test_an_allocator_that_never_joins_blocks_is_seen(cases: Callable[[int], Case]) -> None:
    case = cases(6)
    with pytest.raises(OutOfDeviceMemoryError):
        case.usage(coalesces=False)
