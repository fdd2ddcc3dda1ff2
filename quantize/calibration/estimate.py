"""Estimate, before it starts, how long each phase of a calibration takes on this machine.

The work is counted in floating-point operations from the shapes. A short measurement gives the
operations per second.
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
from quantize.calibration.calibrate import HOLD_OUT_EVERY, MAX_INPUTS
from quantize.calibration.evaluation import MAX_SHARE_OF_CALIBRATION, MIN_MEASURING_FLOPS
from quantize.calibration.gptq import Calibration

_PROBE = 2048
"""Rows and columns of the matrix product that is timed: large enough for all cores, and short."""
_TOKENS = 120
"""Tokens of a question and its answer in the built-in samples."""
_OTHER_FLOPS = 7e4
"""Work of rounding one weight outside matrix products (the search for its scale, the steps of each
column), as the operations that take the same time. Measured: 0.40 s for a million weights on a core
that does 180 GFLOP/s."""

_RUN_S = 0.006
"""Seconds that a block takes for each sample in addition to its matrix products: reading and
writing activations, starting kernels. Measured on the demo model, whose products take almost no
time."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating-point operations of each phase of a calibration, and how often blocks run.

    forward    running the samples through the blocks, twice
    hessians   the Hessians of all matrices, in float32
    rounding   choosing codes and scales, in float32
    measuring  the whole model on held-out samples, in float32
    runs       of a block on a sample, in the forward phase and while measuring
    """

    forward: float
    hessians: float
    rounding: float
    measuring: float
    runs: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of each phase."""

    forward_s: float
    rounding_s: float
    measuring_s: float

    @property
    def seconds(self) -> float:
        return self.forward_s + self.rounding_s + self.measuring_s

    def __str__(self) -> str:
        return (
            f"{format_seconds(self.seconds)} ({format_seconds(self.forward_s)} to run the samples, "
            f"{format_seconds(self.rounding_s)} to round, "
            f"{format_seconds(self.measuring_s)} to evaluate)"
        )


def estimate(work: Work, device: torch.device, dtype: torch.dtype) -> Estimate:
    """Return the seconds that work takes, from a measurement of a second or two on a CPU."""
    plain = flops_per_s(device, torch.float32)
    forward = plain if dtype == torch.float32 else flops_per_s(device, dtype)
    return Estimate(
        forward_s=work.forward / forward + work.hessians / plain + work.runs[0] * _RUN_S,
        rounding_s=work.rounding / plain,
        measuring_s=work.measuring / plain + work.runs[1] * _RUN_S,
    )


def flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Return the speed of a product of two square matrices: the best of three runs."""
    one = torch.ones((_PROBE, _PROBE), device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):  # the first run also starts threads
        began = time.perf_counter()
        (one @ one).sum().item()
        best = min(best, time.perf_counter() - began)
    return 2.0 * _PROBE**3 / best


@dataclass(frozen=True, kw_only=True)
class SampleCounts:
    """How many samples there are.

    samples   all
    shown     samples with a picture
    pictures  distinct pictures
    """

    samples: int
    shown: int
    pictures: int


def count_work(
    config: ModelConfig, counts: SampleCounts, how: Calibration, *, budget: bool
) -> Work:
    """Return the operations of a calibration.

    budget  whether units are measured too, for a byte budget
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
        inputs = _inputs(spec, config, counts)
        products += 2.0 * spec.numel * inputs
        hessians += 2.0 * spec.shape[1] ** 2 * min(inputs, MAX_INPUTS)
    vision = config.vision
    attention = 4.0 * vision.num_positions**2 * vision.hidden_size * vision.num_hidden_layers
    passes = products + attention * counts.pictures
    held_out = passes / HOLD_OUT_EVERY
    # A variant that changes one matrix is computed from that matrix to the end: half of the model
    # on average. The evaluation measures coarser units where that takes too long.
    units = min(
        held_out * len(linears) / 2, max(MIN_MEASURING_FLOPS, MAX_SHARE_OF_CALIBRATION * passes)
    )
    blocks = vision.num_hidden_layers + 1 + config.num_hidden_layers
    once = blocks * counts.samples
    # Forms of the whole model that go through all blocks on the held-out samples.
    forms = 3 + (2 + units / held_out if budget else 0)
    return Work(
        runs=(2 * once, round(forms * once / HOLD_OUT_EVERY)),
        forward=2 * passes,
        hessians=hessians,
        rounding=sum(rounding_flops(spec.shape, how) for spec in linears),
        measuring=3 * held_out + (2 * held_out + units if budget else 0.0),
    )


def rounding_flops(shape: tuple[int, ...], how: Calibration) -> float:
    """Return the operations of rounding a matrix.

    The inverse factor (a Cholesky factorisation and a triangular inverse), half a product for GPTQ,
    one product for each descent, and the rest per weight.
    """
    rows, columns = shape
    factor = (1 / 3 + 2 / 3) * columns**3
    products = 2.0 * rows * columns**2 * (0.5 * how.gptq + how.descents)
    return factor * how.gptq + products + _OTHER_FLOPS * rows * columns


def _inputs(spec: TensorSpec, config: ModelConfig, counts: SampleCounts) -> int:
    vision = config.vision
    if spec.part is Part.VISION:
        return counts.pictures * vision.num_positions
    if spec.part is Part.PROJECTOR:
        return counts.pictures * vision.image_tokens
    if spec.part is Part.VISION_EXPERT:
        return counts.shown * vision.image_tokens
    return counts.samples * _TOKENS
