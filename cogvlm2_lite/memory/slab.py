"""The layout of a GPU's weights: one allocation, the slab, in which every unit has its place.

Units are kept in one fixed order, and each phase keeps a prefix of it (memory/plan.py). So the
place of a kept unit is the sum of the sizes before it, the same in all phases. Behind the prefix of
a phase are its stream buffers. They overlap units that only other phases keep, which are not in
memory then:

    decode   [norms | lm_head | language experts ... | vision experts 1 to 9 |            ]
    prefill  [norms | lm_head | language experts ... | 1 | 2 | 3 | buffer | buffer        ]

Nothing is allocated or freed while the engine runs, and no weight of decoding ever moves. No torch
here; `WeightLoader` holds the allocation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.memory.inventory import UnitKey, step_of
from cogvlm2_lite.memory.plan import DevicePlan, PhasePlan

Step = tuple[int, int]
"""A step of a phase (inventory.step_of)."""


@dataclass(frozen=True, kw_only=True)
class PhaseLayout:
    """The places of one phase's units.

    homes     first byte of each unit that the phase keeps
    buffers   first byte of each stream buffer
    streamed  step of each streamed unit, and its first byte in the buffer of that step
    """

    homes: Mapping[UnitKey, int]
    buffers: tuple[int, ...]
    streamed: Mapping[UnitKey, tuple[Step, int]]


@dataclass(frozen=True, kw_only=True)
class SlabLayout:
    """The size of a device's slab, and the places in it. Layouts of equal plans are equal."""

    nbytes: int
    phases: Mapping[Phase, PhaseLayout]


def lay_out(device: DevicePlan) -> SlabLayout:
    """Return the layout of a device's weights."""
    return SlabLayout(
        nbytes=max(plan.weight_bytes for plan in device.phases),
        phases={plan.phase: _lay_out_phase(plan) for plan in device.phases},
    )


def _lay_out_phase(plan: PhasePlan) -> PhaseLayout:
    begins = accumulate((unit.nbytes for unit in plan.resident), initial=0)
    homes = {unit.key: begin for unit, begin in zip(plan.resident, begins, strict=False)}
    filled: dict[Step, int] = {}
    streamed: dict[UnitKey, tuple[Step, int]] = {}
    for unit in plan.streamed:
        step = step_of(unit)
        begin = filled.get(step, 0)
        streamed[unit.key] = (step, begin)
        filled[step] = begin + unit.nbytes
    size = max(filled.values(), default=0)
    buffers = tuple(plan.resident_bytes + number * size for number in range(plan.depth))
    return PhaseLayout(homes=homes, buffers=buffers, streamed=streamed)


class Slab:
    """The units that are in a slab now, and their places.

    It only counts. A place may be written again as soon as its unit was released and no queued
    computation reads it any more.
    """

    def __init__(self, layout: SlabLayout) -> None:
        self.layout = layout
        self._phase: Phase | None = None
        self._steps: list[Step | None] = []
        """The step that each stream buffer of the phase holds."""
        self._in_buffer: dict[UnitKey, int] = {}
        """The stream buffer of each streamed unit."""

    def enter(self, phase: Phase) -> None:
        """Begin a phase. Everything that it does not keep at its home must have been released."""
        assert not self._in_buffer, "streamed units of another phase are still in memory"
        self._phase = phase
        self._steps = [None] * len(self._layout.buffers)

    @property
    def _layout(self) -> PhaseLayout:
        assert self._phase is not None, "no phase has begun"
        return self.layout.phases[self._phase]

    def take(self, key: UnitKey) -> int:
        """Return the first byte of the place for a unit that is loaded now."""
        layout = self._layout
        if key in layout.homes:
            return layout.homes[key]
        step, begin = layout.streamed[key]
        if step not in self._steps:
            assert None in self._steps, "every stream buffer is in use"
            self._steps[self._steps.index(None)] = step
        number = self._steps.index(step)
        self._in_buffer[key] = number
        return layout.buffers[number] + begin

    def release(self, key: UnitKey) -> None:
        """Count a unit as released; its buffer is free when it holds no other unit."""
        number = self._in_buffer.pop(key, None)
        if number is not None and number not in self._in_buffer.values():
            self._steps[number] = None

    @property
    def streamed(self) -> frozenset[UnitKey]:
        """The units in stream buffers."""
        return frozenset(self._in_buffer)
