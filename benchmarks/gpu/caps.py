"""Steps "cap16" to "cap4": the model where another process leaves only so many GiB of the card.

Memory is real here: the plan reads what is free, modules of CUDA that are loaded later take their
part, and memory runs out when the other process takes it. On a card that is smaller than a cap the
step has no results but the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.ballast import Ballast, BallastProcess, EmulatedBallast
from benchmarks.gpu.model import (
    Asked,
    ask,
    check_bits,
    describe_plan,
    load,
    open_random,
    picture,
    planned_bytes,
    resident_values,
    sizes,
)
from benchmarks.gpu.resident import long_answers
from benchmarks.gpu.work import Run
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.events import Event, Prefilled, Progress
from cogvlm2_lite.memory.inventory import unit_sizes
from cogvlm2_lite.memory.plan import RESERVE_BYTES, Workload, plan_memory
from cogvlm2_lite.units import GIB, MIB
from cogvlm2_lite.weights.catalog import Catalog

_LONG_S = 25.0
"""Long answers are left out if less time is left."""

_STREAMED = ("cap6", "cap4")
"""The caps of a rehearsal whose plans stream weights."""

_WITH_LONG_ANSWERS = ("cap8", "cap4")
"""The caps of a rehearsal with all answers."""


def measure(run: Run) -> None:
    """Measure one cap."""
    gib = int(run.name.removeprefix("cap"))
    leave = emulated_cap(run) if run.rehearse else gib * GIB
    run.put(cap_bytes=leave)
    with ballast(run, leave) as other:
        run.put(free_bytes=other.free_bytes)
        if other.free_bytes < leave - 64 * MIB:
            run.put(skipped=f"only {other.free_bytes / GIB:.1f} GiB of the card are free")
            return
        answers(run, other, leave)


def ballast(run: Run, leave: int) -> Ballast:
    """Return what holds the rest of the card."""
    if run.machine is None:
        return BallastProcess(leave)
    return EmulatedBallast(run.machine, leave, fails=run.name not in _STREAMED)


def emulated_cap(run: Run) -> int:
    """Return the bytes of a rehearsal's card: the smallest caps stream, the others do not."""
    model, catalog = open_random(run)
    more = 0 if run.name in _STREAMED else 64 * MIB
    return int(run.machine.held[0]) + RESERVE_BYTES + least_bytes(model, catalog) + more


def least_bytes(model: Model, catalog: Catalog) -> int:
    """Return the smallest budget for which there is a plan."""
    config, itemsize = catalog.config, model.compute.dtype.itemsize
    sizes = unit_sizes(catalog, itemsize=itemsize, packed=False)
    workload = Workload(context=model.plan.context, itemsize=itemsize)
    budget = model.plan.devices[0].budget
    low, high = 0, model.plan.peak_bytes
    while high - low > high // 256:
        middle = (low + high) // 2
        try:
            plan_memory(config, sizes, [replace(budget, device_bytes=middle)], workload)
            high = middle
        except DoesNotFitError:
            low = middle
    return high


def answers(run: Run, other: Ballast, cap: int) -> None:
    """Open the model in what is free; measure answers, and let memory run out."""
    size = sizes(run)
    model, catalog = open_random(run)
    least = least_bytes(model, catalog)
    run.put(
        least_bytes=least, plan=describe_plan(model), streams=model.plan.streams, load_s=load(model)
    )
    # 1. The bits and the peaks of a new picture. It also loads what CUDA loads late.
    first = ask(model, image=picture(1), tokens=size.bits, bits=True, watch=True)
    known = resident_values(run)
    check_bits(run, "picture", first.bits, known.get("bits"))
    run.put(bits=first.bits, planned=planned_bytes(model), peaks=peaks(first, cap))
    if first.replans:
        run.put(replans=first.replans, budgets=first.budgets)
    # 2. The speed.
    fast = ask(model, image=picture(2), tokens=size.tokens)
    run.put(answer=fast.as_dict(), decode_tokens_per_s=fast.tokens_per_s)
    # 3. Memory runs out in the middle of an answer.
    recovered = run.attempt("recovery", lambda: recovery(model, other, least, run)) or {}
    for phase, found in recovered.items():
        check_bits(run, f"memory ran out in {phase}", found["bits"], first.bits)
    # 4. Long answers, if there is time.
    if run.name in _WITH_LONG_ANSWERS if run.rehearse else run.left_s > _LONG_S:
        long = run.attempt("long_answers", lambda: long_answers(model, run)) or {}
        for name, found in long.items():
            expected = (known.get("long_answers") or {}).get(name) or {}
            check_bits(run, name, found["bits"], expected.get("bits"))
    else:
        run.put(long_answers={"skipped": f"{run.left_s:.0f} s were left"})


def peaks(asked: Asked, cap: int) -> dict[str, dict[str, int]]:
    """Return the peaks of each phase; `device_bytes` includes CUDA's context and modules."""
    return {
        name: {
            "allocated_bytes": lap.allocated_bytes,
            "reserved_bytes": lap.reserved_bytes,
            "device_bytes": cap - lap.free_bytes,
        }
        for name, lap in asked.laps.items()
    }


def recovery(model: Model, other: Ballast, least: int, run: Run) -> dict[str, Any]:
    """Let the other process take free memory: while a picture is encoded, and after prefill.

    least  the smallest budget of a plan; so much stays for the model, and a little for the gaps
           between its tensors
    """
    keep = least + (least // 8 if run.rehearse else RESERVE_BYTES)
    return {
        "encode": _disturbed(model, other, keep, run, _is_first_block),
        "decode": _disturbed(model, other, keep, run, lambda e: isinstance(e, Prefilled)),
    }


def _is_first_block(event: Event) -> bool:
    return isinstance(event, Progress) and event.phase == "encode" and event.done == 1


def _disturbed(
    model: Model, other: Ballast, keep: int, run: Run, when: Callable[[Event], bool]
) -> dict[str, Any]:
    """Ask while the other process takes memory after an event; return what happened.

    keep  bytes that the model may still use, with what it holds now
    """
    taken: list[int] = []

    def take(event: Event) -> None:
        if not taken and when(event):
            # torch keeps freed memory: it must go back to the driver before it can be taken.
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            before = torch.cuda.mem_get_info()[0]
            other.take(max(0, keep - torch.cuda.memory_reserved()))
            taken.append(before - torch.cuda.mem_get_info()[0])

    try:
        asked = ask(model, image=picture(1), tokens=sizes(run).bits, bits=True, on_event=take)
    finally:
        other.give()
    return {
        "taken_bytes": sum(taken),
        "replans": asked.replans,
        "budgets": asked.budgets,
        "bits": asked.bits,
        "same": asked.bits == run.values["bits"],
    }
