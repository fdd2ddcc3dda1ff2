"""The memory plan: what will be in memory in each phase, known before anything is loaded.

Pure arithmetic over the catalog's sizes; no torch, no tensor is touched. Today's plan keeps every
part in memory once it has been used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cogvlm2_lite.config import ModelConfig
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.memory.phases import PARTS, Phase
from cogvlm2_lite.units import format_bytes
from cogvlm2_lite.weights.names import Part

RESERVE_BYTES = 512 * 1024**2
"""Left to torch, the tokenizer and other programs."""


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """One phase: the parts that it reads, and what it needs beside weights.

    part_bytes     bytes in memory of each part the phase touches
    cache_bytes    key/value cache at the planned context
    scratch_bytes  activations and buffers at their peak
    """

    phase: Phase
    part_bytes: Mapping[Part, int]
    cache_bytes: int
    scratch_bytes: int

    @property
    def weight_bytes(self) -> int:
        return sum(self.part_bytes.values())

    @property
    def touched_bytes(self) -> int:
        """Everything the phase reads or writes."""
        return self.weight_bytes + self.cache_bytes + self.scratch_bytes


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a device will hold.

    budget_bytes  what may be used on the device
    context       tokens the key/value cache is planned for
    """

    device: str
    budget_bytes: int
    context: int
    part_bytes: Mapping[Part, int]
    phases: tuple[PhasePlan, ...]

    @property
    def weight_bytes(self) -> int:
        return sum(self.part_bytes.values())

    @property
    def peak_bytes(self) -> int:
        """The most that is held at any time: all weights, and the dearest phase's buffers."""
        return self.weight_bytes + max(p.cache_bytes + p.scratch_bytes for p in self.phases)

    def table(self) -> str:
        """Draw the plan as text: a row per part and buffer, a column per phase."""
        rows = [("", *(p.phase.value for p in self.phases))]
        for part in self.part_bytes:
            cells = (_cell(p.part_bytes.get(part, 0)) for p in self.phases)
            rows.append((part.value, *cells))
        rows.append(("key/value cache", *(_cell(p.cache_bytes) for p in self.phases)))
        rows.append(("scratch", *(_cell(p.scratch_bytes) for p in self.phases)))
        rows.append(("used by the phase", *(_cell(p.touched_bytes) for p in self.phases)))
        summary = (
            f"{format_bytes(self.peak_bytes)} at the peak of {format_bytes(self.budget_bytes)} "
            f"free on {self.device}; every part stays in memory once used."
        )
        return f"{_aligned(rows)}\n{summary}"

    def as_dict(self) -> dict[str, Any]:
        """Give the plan as JSON-ready values, bytes throughout."""
        return {
            "device": self.device,
            "budget_bytes": self.budget_bytes,
            "context": self.context,
            "peak_bytes": self.peak_bytes,
            "phases": [
                {
                    "phase": p.phase.value,
                    "part_bytes": {part.value: n for part, n in p.part_bytes.items()},
                    "cache_bytes": p.cache_bytes,
                    "scratch_bytes": p.scratch_bytes,
                }
                for p in self.phases
            ],
        }


def plan_memory(
    config: ModelConfig,
    part_bytes: Mapping[Part, int],
    *,
    device: str,
    budget_bytes: int,
    itemsize: int,
    context: int | None = None,
) -> MemoryPlan:
    """Plan all phases of a model whose parts weigh `part_bytes` once they are in memory.

    budget_bytes  what is free on the device now
    itemsize      bytes of the compute dtype
    context       tokens to hold in the cache; the model's maximum by default

    Raises DoesNotFitError, with the missing bytes, when the peak is above the budget.
    """
    context = context or config.max_position_embeddings
    phases = tuple(_phase_plan(phase, config, part_bytes, itemsize, context) for phase in Phase)
    plan = MemoryPlan(
        device=device,
        budget_bytes=budget_bytes,
        context=context,
        part_bytes=dict(part_bytes),
        phases=phases,
    )
    missing = plan.peak_bytes + RESERVE_BYTES - budget_bytes
    if missing > 0:
        raise DoesNotFitError(
            f"The model needs {format_bytes(plan.peak_bytes)} and a reserve of "
            f"{format_bytes(RESERVE_BYTES)} on {device}, where {format_bytes(budget_bytes)} are "
            f"free: {format_bytes(missing)} are missing.",
            hint="Close other programs, or make the model smaller: cogvlm2-lite quantize SRC DST.",
        )
    return plan


def _phase_plan(
    phase: Phase, config: ModelConfig, part_bytes: Mapping[Part, int], itemsize: int, context: int
) -> PhasePlan:
    has_cache = phase is not Phase.ENCODE
    return PhasePlan(
        phase=phase,
        part_bytes={p: n for p, n in part_bytes.items() if p in PARTS[phase]},
        cache_bytes=config.kv_bytes_per_token * itemsize // 2 * context if has_cache else 0,
        scratch_bytes=_scratch_bytes(phase, config, itemsize, context),
    )


def _scratch_bytes(phase: Phase, config: ModelConfig, itemsize: int, context: int) -> int:
    """Peak of the activations: the wide MLP buffers of one block and the residual stream."""
    vision = config.vision
    if phase is Phase.ENCODE:
        width = 2 * vision.intermediate_size + 2 * vision.hidden_size
        return vision.num_positions * width * itemsize
    tokens = {
        Phase.PREFILL_IMAGE: vision.image_tokens + 1,
        Phase.PREFILL_TEXT: context,
        Phase.DECODE: 1,
    }[phase]
    # gate, up and their product; residual stream, its norm, and the routed copy.
    width = 3 * config.intermediate_size + 3 * config.hidden_size
    return tokens * width * itemsize + 2 * config.vocab_size * 4


def _cell(count: int) -> str:
    return format_bytes(count) if count else "-"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
