"""A memory plan as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cogvlm2_lite.memory.inventory import by_part
from cogvlm2_lite.memory.plan import DevicePlan, MemoryPlan, PhasePlan
from cogvlm2_lite.units import format_bytes

Row = tuple[str, ...]


def draw_table(plan: MemoryPlan) -> str:
    """Draw a plan: per device a column for each phase, and what is streamed in it."""
    return "\n\n".join(_draw_device(device, plan.context) for device in plan.devices)


def plan_as_dict(plan: MemoryPlan) -> dict[str, Any]:
    """Give a plan as JSON-ready values, bytes throughout."""
    return {
        "context": plan.context,
        "peak_bytes": plan.peak_bytes,
        "host_part_bytes": {part.value: n for part, n in plan.host_part_bytes.items()},
        "devices": [
            {
                "device": device.budget.device,
                "budget_bytes": device.budget.device_bytes,
                "peak_bytes": device.peak_bytes,
                "phases": [_phase_as_dict(phase) for phase in device.phases],
            }
            for device in plan.devices
        ],
    }


def _phase_as_dict(plan: PhasePlan) -> dict[str, Any]:
    return {
        "phase": plan.phase.value,
        "resident_bytes": {part.value: n for part, n in by_part(plan.resident).items()},
        "streamed_bytes": {part.value: n for part, n in by_part(plan.streamed).items()},
        "buffers": plan.depth,
        "buffer_bytes": plan.buffer_bytes,
        "cache_bytes": plan.cache_bytes,
        "scratch_bytes": plan.scratch_bytes,
        "peak_bytes": plan.peak_bytes,
    }


def _draw_device(device: DevicePlan, context: int) -> str:
    title = (
        f"{device.budget.device}: {format_bytes(device.peak_bytes)} of "
        f"{format_bytes(device.budget.device_bytes)} at the peak, context {context} tokens"
    )
    return "\n".join([title, *_aligned(list(_rows(device)))])


def _rows(device: DevicePlan) -> Iterator[Row]:
    phases = device.phases
    yield ("", *(p.phase.value for p in phases))
    resident, streamed = ([by_part(p) for p in ps] for ps in _both(phases))
    for part in {part: None for sizes in resident for part in sizes}:
        yield (part.value, *(_cell(sizes.get(part, 0)) for sizes in resident))
    yield ("key/value cache", *(_cell(p.cache_bytes) for p in phases))
    yield ("scratch", *(_cell(p.scratch_bytes) for p in phases))
    if device.streams:
        yield ("stream buffers", *(_cell(p.buffer_bytes) for p in phases))
    yield ("in memory", *(_cell(p.peak_bytes) for p in phases))
    for part in {part: None for sizes in streamed for part in sizes}:
        yield (f"streamed: {part.value}", *(_cell(sizes.get(part, 0)) for sizes in streamed))


def _both(phases: tuple[PhasePlan, ...]) -> tuple[list[Any], list[Any]]:
    return [p.resident for p in phases], [p.streamed for p in phases]


def _cell(count: int) -> str:
    return format_bytes(count) if count else "-"


def _aligned(rows: list[Row]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
