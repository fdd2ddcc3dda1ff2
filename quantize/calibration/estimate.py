"""How long a calibration will take on the machine at hand, phase by phase, before it starts.

The work is counted in floating-point operations from the shapes; how many of them a second has is
tried out for a moment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from cogvlm2_lite.architectures.architecture import (
    ModelConfig,
    Part,
    Role,
    TensorSpec,
    expected_tensors,
)
from cogvlm2_lite.units import format_seconds
from cogvlm2_lite.weights.catalog import NF4_GROUP
from quantize.calibration.calibrate import CHECK_EVERY, MOST_INPUTS
from quantize.calibration.gptq import Calibration
from quantize.calibration.judge import LEAST_FLOPS, MOST_OF_CALIBRATION

_PROBE = 2048
"""Rows and columns of the product that is timed: large enough for all cores, and over soon."""
_WORDS = 120
"""Tokens of a question and its answer, as the built-in samples have."""
_BESIDE_FLOPS = 7e4
"""What a weight costs beside products when it is rounded (searching its scale, the work on each
column), counted in products: 0.40 s of a core for a million weights where it does 180 GFLOP/s."""


_RUN_S = 0.006
"""What a block costs for each sample beside its products: reading and writing activations, starting
the work. Measured on the demo model, whose products cost nothing."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating-point operations of the phases of a calibration, and runs of a block on a sample.

    look     samples through the blocks, twice
    hessians Hessians of all matrices, in float32
    rounding deciding codes and scales, in float32
    measure  the whole model on samples held out, in float32
    runs     of blocks while looking, and while measuring
    """

    look: float
    hessians: float
    rounding: float
    measure: float
    runs: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of the phases."""

    look_s: float
    round_s: float
    measure_s: float

    @property
    def seconds(self) -> float:
        return self.look_s + self.round_s + self.measure_s

    def __str__(self) -> str:
        return (
            f"{format_seconds(self.seconds)} ({format_seconds(self.look_s)} to look at samples, "
            f"{format_seconds(self.round_s)} to round, {format_seconds(self.measure_s)} to measure)"
        )


def estimate(work: Work, device: torch.device, dtype: torch.dtype) -> Estimate:
    """Turn work into seconds by trying a product out; takes a second or two on a CPU."""
    plain = flops_per_s(device, torch.float32)
    look = plain if dtype == torch.float32 else flops_per_s(device, dtype)
    return Estimate(
        look_s=work.look / look + work.hessians / plain + work.runs[0] * _RUN_S,
        round_s=work.rounding / plain,
        measure_s=work.measure / plain + work.runs[1] * _RUN_S,
    )


def flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Time a product of two square matrices; the better of two."""
    one = torch.ones((_PROBE, _PROBE), device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):  # the first one also starts threads
        began = time.perf_counter()
        (one @ one).sum().item()
        best = min(best, time.perf_counter() - began)
    return 2.0 * _PROBE**3 / best


@dataclass(frozen=True, kw_only=True)
class SampleCounts:
    """How many samples there are.

    samples   all of them
    shown     those with a picture
    pictures  distinct ones
    """

    samples: int
    shown: int
    pictures: int


def count_work(config: ModelConfig, load: SampleCounts, how: Calibration, *, budget: bool) -> Work:
    """Count what a calibration computes.

    budget  units are measured, too
    """
    linears = [
        spec
        for spec in expected_tensors(config).values()
        if spec.role is Role.LINEAR
        and spec.part is not Part.LM_HEAD
        and spec.shape[1] % NF4_GROUP == 0
    ]
    products = hessians = 0.0
    for spec in linears:
        inputs = _inputs(spec, config, load)
        products += 2.0 * spec.numel * inputs
        hessians += 2.0 * spec.shape[1] ** 2 * min(inputs, MOST_INPUTS)
    vision = config.vision
    attention = 4.0 * vision.num_positions**2 * vision.hidden_size * vision.num_hidden_layers
    passes = products + attention * load.pictures
    held_out = passes / CHECK_EVERY
    # Each matrix from its place to the end: half the way on average. The judge takes coarser units
    # where that is too much.
    units = min(held_out * len(linears) / 2, max(LEAST_FLOPS, MOST_OF_CALIBRATION * passes))
    blocks = vision.num_hidden_layers + 1 + config.num_hidden_layers
    once = blocks * load.samples
    # As many forms go through all blocks on the samples held out.
    forms = 3 + (2 + units / held_out if budget else 0)
    return Work(
        runs=(2 * once, round(forms * once / CHECK_EVERY)),
        look=2 * passes,
        hessians=hessians,
        rounding=sum(rounding_flops(spec.shape, how) for spec in linears),
        measure=3 * held_out + (2 * held_out + units if budget else 0.0),
    )


def rounding_flops(shape: tuple[int, ...], how: Calibration) -> float:
    """Count what rounding a matrix costs: the factor (a factorisation, and an inverse by halves),
    half a product for compensating, one for each descent, and the search."""
    rows, columns = shape
    factor = (1 / 3 + 2 / 3) * columns**3
    products = 2.0 * rows * columns**2 * (0.5 * how.compensate + how.descents)
    return factor * how.compensate + products + _BESIDE_FLOPS * rows * columns


def _inputs(spec: TensorSpec, config: ModelConfig, load: SampleCounts) -> int:
    vision = config.vision
    if spec.part is Part.VISION:
        return load.pictures * vision.num_positions
    if spec.part is Part.PROJECTOR:
        return load.pictures * vision.image_tokens
    if spec.part is Part.VISION_EXPERT:
        return load.shown * vision.image_tokens
    return load.samples * _WORDS
