"""Estimate, before it starts, how long each phase of a calibration takes on this machine.

The work is counted from the shapes: floating-point operations, and on a GPU also the operations of
torch that are started, which take their time however small they are. A short measurement gives the
floating-point operations per second.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from cogvlm2_lite.architectures.architecture import (
    ModelConfig,
    Part,
    Role,
    TensorSpec,
    expected_tensors,
)
from cogvlm2_lite.backends.base import Backend
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.units import format_seconds
from cogvlm2_lite.weights.catalog import NF4_GROUP
from quantize.calibration.batched import (
    LAUNCHES_PER_BLOCK,
    OPERATIONS_PER_COLUMN,
    rounded_together,
)
from quantize.calibration.calibrate import (
    ACTIVATIONS,
    HOLD_OUT_EVERY,
    MAX_INPUTS,
    SPARE_RAM_BYTES,
)
from quantize.calibration.evaluation import MAX_SHARE_OF_CALIBRATION, MIN_MEASURING_FLOPS
from quantize.calibration.gptq import (
    BLOCK,
    ORIGINAL,
    SEARCHED,
    SEARCHED_FEW_LAUNCHES,
    Calibration,
)
from quantize.recipe import BY_GRADIENT

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

_LAUNCH_S = 1e-5
"""Seconds in which the host starts one operation on a GPU. 1,551 of a decode step take 15 ms on a
fast desktop and 25 ms on a slower computer; no GPU was there to measure it."""
_NODE_S = 2.5e-6
"""Seconds of a small operation in a CUDA graph: 2.2 to 2.9 us, not measured either."""
_RUN_LAUNCHES = 120
"""Operations that a block starts for a sample; a decoder layer with two experts starts 115."""
_SEARCH_LAUNCHES = 750
"""Operations that search the scales of a piece: 30 trials of 25."""
_SEPARATE_OPERATIONS = 19
"""Operations for a column of one matrix in one pass, where matrices are not rounded together."""

_OPENS_MLP = {"gate_proj", "up_proj", "dense_h_to_4h", "fc1"}
_CLOSES_MLP = {"down_proj", "dense_4h_to_h", "fc2"}
_SHARES = {"up_proj", "dense_h_to_4h"}
"""Matrices that have the inputs, and the Hessian, of the gate."""


@dataclass(frozen=True, kw_only=True)
class Launches:
    """Operations of torch that rounding starts.

    launched  one by one
    nodes     in graphs
    """

    launched: float = 0.0
    nodes: float = 0.0

    @property
    def seconds(self) -> float:
        return self.launched * _LAUNCH_S + self.nodes * _NODE_S


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating-point operations of each phase of a calibration, and how often blocks run.

    forward    running the samples through the blocks, twice or in two streams
    hessians   the Hessians of all matrices, in float32
    rounding   choosing codes and scales, in float32
    weighing   the weights of tokens, in float32
    measuring  the whole model on held-out samples, in float32
    units      the part of it that measures units for a byte budget
    runs       of a block on a sample, in the forward phase and while measuring
    together   operations that rounding starts if matrices are rounded together
    separate   the same if they are not
    """

    forward: float
    hessians: float
    rounding: float
    measuring: float
    weighing: float = 0.0
    units: float = 0.0
    runs: tuple[int, int] = (0, 0)
    together: Launches = Launches()
    separate: Launches = Launches()


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
    return seconds_of(work, forward, plain, backend_of(device))


def seconds_of(work: Work, flops: float, float32_flops: float, backend: Backend) -> Estimate:
    """Return the seconds that work takes at these speeds of matrix products.

    On a GPU the host starts operations while the GPU computes, so running the samples takes the
    longer of both. Rounding waits for each of its small operations.
    """
    launched = [0.0 if backend.uses_ram else runs * _RUN_LAUNCHES * _LAUNCH_S for runs in work.runs]
    started = work.together if backend.launches_kernels else work.separate
    return Estimate(
        forward_s=max(
            work.forward / flops + (work.hessians + work.weighing) / float32_flops, launched[0]
        )
        + work.runs[0] * _RUN_S,
        rounding_s=work.rounding / float32_flops + (0 if backend.uses_ram else started.seconds),
        measuring_s=max(work.measuring / float32_flops, launched[1]) + work.runs[1] * _RUN_S,
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
    linears, two_streams = _linears(config), how.targets == ORIGINAL
    products = again = hessians = 0.0
    for spec in linears:
        inputs = _inputs(spec, config, counts)
        products += 2.0 * spec.numel * inputs
        used = min(inputs, MAX_INPUTS)
        shared = two_streams and _name(spec) in _SHARES
        hessians += 2.0 * spec.shape[1] ** 2 * used * (0 if shared else 1 + two_streams)
        if two_streams and _name(spec) in _OPENS_MLP:
            again += 2 * 2.0 * spec.numel * used  # for the inputs of the matrix after it
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
        runs=((4 if two_streams else 2) * once, round(forms * once / HOLD_OUT_EVERY)),
        forward=2 * passes + again,
        # Forward, again with gradients, and backward to the activations.
        weighing=3 * (passes - held_out) if how.token_weights == BY_GRADIENT else 0.0,
        hessians=hessians,
        rounding=sum(rounding_flops(spec.shape, how) for spec in linears),
        together=_launches_together(linears, how),
        separate=_launches_separate(linears, how),
        measuring=3 * held_out + (2 * held_out + units if budget else 0.0),
        units=units if budget else 0.0,
    )


def _launches_together(linears: Sequence[TensorSpec], how: Calibration) -> Launches:
    """Count what `batched.BatchRounder` starts."""
    passes, launched, nodes = how.gptq + how.descents, 0.0, 0.0
    for layer in _by_round(linears) if how.targets == ORIGINAL else _by_layer(linears):
        for batch in rounded_together([spec.shape for spec in layer]):
            rows, columns = layer[batch[0]].shape
            nodes += OPERATIONS_PER_COLUMN * passes * columns
            launched += LAUNCHES_PER_BLOCK * passes * len(batch) * -(-columns // BLOCK)
            pieces = -(-len(batch) * rows * columns // SEARCHED_FEW_LAUNCHES)
            launched += _SEARCH_LAUNCHES * pieces
    return Launches(launched=launched, nodes=nodes)


def _launches_separate(linears: Sequence[TensorSpec], how: Calibration) -> Launches:
    """Count what `gptq.round_matrix` starts for each matrix."""
    columns = sum(spec.shape[1] for spec in linears)
    pieces = sum(-(-spec.numel // SEARCHED) for spec in linears)
    steps = _SEPARATE_OPERATIONS * (how.gptq + how.descents) * columns
    return Launches(launched=steps + _SEARCH_LAUNCHES * pieces)


def _by_layer(linears: Sequence[TensorSpec]) -> list[list[TensorSpec]]:
    """Return the matrices of each layer: both experts of a decoder layer are in it."""
    found: dict[tuple[bool, int | None], list[TensorSpec]] = {}
    for spec in linears:
        in_tower = spec.part in (Part.VISION, Part.PROJECTOR)
        found.setdefault((in_tower, spec.block), []).append(spec)
    return list(found.values())


def _by_round(linears: Sequence[TensorSpec]) -> list[list[TensorSpec]]:
    """Return the matrices that are rounded at the same time, see `steps.py`."""
    found: dict[tuple[object, ...], list[TensorSpec]] = {}
    for spec in linears:
        name = _name(spec)
        in_tower = spec.part in (Part.VISION, Part.PROJECTOR)
        step: object = "MLP" if name in _OPENS_MLP else name
        if name in _CLOSES_MLP:  # one expert after the other
            step = spec.part
        found.setdefault((in_tower, spec.block, step), []).append(spec)
    return list(found.values())


def _name(spec: TensorSpec) -> str:
    """Return the short name of a matrix, which is the same for both experts."""
    return spec.name.removesuffix(".weight").rsplit(".", 1)[-1].split("_expert_")[-1]


def scratch_bytes(
    config: ModelConfig, counts: SampleCounts, dtype: torch.dtype, work: Work, how: Calibration
) -> int:
    """Return the bytes on the disk that a calibration needs at most until it is finished.

    The activations between two blocks are there several times, and twice for all forms of the model
    that are measured; codes and scales stay to the end. The Hessians of a layer are on the disk if
    there is no RAM for them.
    """
    linears, vision = _linears(config), config.vision
    in_tower = counts.pictures * vision.num_positions * vision.hidden_size
    in_decoder = counts.shown * vision.image_tokens + counts.samples * _TOKENS
    numbers = max(in_tower, in_decoder * config.hidden_size)
    results = sum(spec.numel // 2 + 4 * spec.numel // NF4_GROUP for spec in linears)
    hessians = max(sum(4 * s.shape[1] ** 2 for s in layer) for layer in _by_layer(linears))
    if how.targets == ORIGINAL:
        # With a shift for each Hessian.
        hessians = max(sum(8 * s.shape[1] ** 2 for s in some) for some in _by_round(linears))
    if psutil.virtual_memory().available >= 2 * hessians + SPARE_RAM_BYTES:
        hessians = 0
    # Forms of the model at a time, as a multiple of all samples. A form that changes one matrix is
    # computed from there on, half of the model on average.
    forms = max(3 / HOLD_OUT_EVERY, 2 * work.units / max(work.forward / 2, 1.0))
    measured = int(2 * 4 * numbers * forms)
    activations = ACTIVATIONS[how.targets] * dtype.itemsize * numbers
    weighing = 0
    if how.token_weights == BY_GRADIENT:
        # All inputs of one picture and its questions in float32, and a number for each token.
        picture = vision.num_positions * vision.hidden_size * vision.num_hidden_layers
        text = vision.image_tokens + _TOKENS * -(-counts.samples // max(counts.pictures, 1))
        words = text * config.hidden_size * config.num_hidden_layers
        rows = sum(_inputs(spec, config, counts) for spec in linears)
        weighing = 4 * (4 * (picture + words) + rows)
    return results + max(activations + hessians + weighing, measured)


def rounding_flops(shape: tuple[int, ...], how: Calibration) -> float:
    """Return the operations of rounding a matrix.

    The inverse factor (a Cholesky factorisation and a triangular inverse), half a product for GPTQ,
    one product for each descent, the shift to the original's outputs, and the rest per weight.
    """
    rows, columns = shape
    factor = (1 / 3 + 2 / 3) * columns**3
    products = 2.0 * rows * columns**2 * (0.5 * how.gptq + how.descents)
    shift = 0.0
    if how.targets == ORIGINAL:  # a Cholesky factor, a product and two triangular solves
        shift = columns**3 / 3 + 4.0 * rows * columns**2
    return factor * how.gptq + products + shift + _OTHER_FLOPS * rows * columns


def _linears(config: ModelConfig) -> list[TensorSpec]:
    """Return the matrices that are calibrated."""
    return [
        spec
        for spec in expected_tensors(config).values()
        if spec.role is Role.LINEAR
        and spec.part is not Part.LM_HEAD
        and spec.shape[1] % NF4_GROUP == 0
    ]


def _inputs(spec: TensorSpec, config: ModelConfig, counts: SampleCounts) -> int:
    vision = config.vision
    if spec.part is Part.VISION:
        return counts.pictures * vision.num_positions
    if spec.part is Part.PROJECTOR:
        return counts.pictures * vision.image_tokens
    if spec.part is Part.VISION_EXPERT:
        return counts.shown * vision.image_tokens
    return counts.samples * _TOKENS
