"""Turn the numbers of a tensor into the bytes of its pieces, a run of rows at a time.

All arithmetic of a conversion without calibration is here. The bytes do not depend on the size of
the runs or on the threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cogvlm2_lite.errors import ConversionError
from cogvlm2_lite.weights.catalog import NF4_GROUP
from cogvlm2_lite.weights.header import DTYPE_BYTES
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, nest_scales, quantize_rows
from cogvlm2_lite.weights.zeros import Runs, find_runs
from quantize.calibration.calibrate import CalibratedWeights
from quantize.int8 import round_int8
from quantize.recipe import TORCH_NAMES, PlannedTensor, quant_state_text
from quantize.source import SourceFiles


@dataclass(frozen=True, kw_only=True)
class Run:
    """Some rows of one tensor, which one thread processes at a time."""

    tensor: PlannedTensor
    begin: int
    """Offset of the first byte in the source's piece."""
    count: int
    """Source bytes."""


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """The result of a run."""

    run: Run
    weight: memoryview
    """Bytes of the "weight" piece."""
    scales: Tensor | None
    """One float32 per group of the run; None for a dense tensor."""
    zeros: Runs | None = None
    """The runs of zeros in the source's bytes; None if a calibration has read them before."""


def split_into_runs(tensor: PlannedTensor, run_bytes: int) -> Iterator[Run]:
    """Split a tensor into runs of about `run_bytes`, of whole rows if its numbers are rounded."""
    piece = tensor.source.pieces["weight"]
    step = run_bytes
    if tensor.kind != "dense":
        row = piece.shape[1] * DTYPE_BYTES[piece.dtype]
        step = max(run_bytes // row, 1) * row
    for begin in range(0, piece.nbytes, step):
        yield Run(tensor=tensor, begin=begin, count=min(step, piece.nbytes - begin))


def round_run(run: Run, files: SourceFiles, calibrated: CalibratedWeights | None = None) -> Rounded:
    """Read a run and round it to nearest, or return what a calibration decided for it.

    Raises CheckpointError if it can't be read, ConversionError for a weight that is infinite or not
    a number.
    """
    tensor = run.tensor
    piece = tensor.source.pieces["weight"]
    if calibrated is not None and (decided := _calibrated_run(run, calibrated)) is not None:
        return decided
    data = files.read(tensor.name, piece, run.begin, run.count)
    if tensor.kind == "dense":
        return Rounded(run=run, weight=memoryview(data), scales=None, zeros=find_runs(data))
    dtype = getattr(torch, TORCH_NAMES[piece.dtype])
    weight = torch.frombuffer(data, dtype=dtype).view(-1, piece.shape[1])
    _check_finite(weight, run)
    codes, scales = (
        quantize_rows(weight, group=NF4_GROUP) if tensor.kind == "nf4" else round_int8(weight)
    )
    return Rounded(
        run=run, weight=codes.numpy().data, scales=scales.view(-1), zeros=find_runs(data)
    )


def _calibrated_run(run: Run, calibrated: CalibratedWeights) -> Rounded | None:
    """Return a run of a calibrated matrix or a corrected bias; None if there is none."""
    tensor, piece = run.tensor, run.tensor.source.pieces["weight"]
    if tensor.kind == "dense":
        bias = calibrated.bias(tensor.name)
        if bias is None:
            return None
        raw = bias.view(torch.uint8).numpy().data.cast("B")
        return Rounded(run=run, weight=raw[run.begin : run.begin + run.count], scales=None)
    if tensor.kind != "nf4":
        return None
    found = calibrated.matrix(tensor.name)
    if found is None:
        return None
    codes, scales = found
    first = run.begin // DTYPE_BYTES[piece.dtype]
    count = run.count // DTYPE_BYTES[piece.dtype]
    return Rounded(
        run=run,
        weight=codes.flatten()[first // 2 : (first + count) // 2].numpy().data,
        scales=scales[first // NF4_GROUP : (first + count) // NF4_GROUP],
    )


def companions(tensor: PlannedTensor, scales: list[Tensor]) -> dict[str, memoryview]:
    """Return the bytes of every piece but "weight", after all runs of a tensor are rounded.

    scales  of all runs in order; empty for a dense tensor
    """
    if tensor.kind == "dense":
        return {}
    joined = torch.cat(scales)
    if tensor.kind == "int8":
        return {"scale": _bytes(joined)}
    found = {"quant_map": _bytes(torch.tensor(NF4_LEVELS, dtype=torch.float32))}
    offset = None
    if "nested_absmax" in tensor.pieces:
        nested = nest_scales(joined)
        offset, joined = nested.nested_offset, nested.absmax
        found["nested_quant_map"] = _bytes(nested.nested_map)
        found["nested_absmax"] = _bytes(nested.nested_absmax)
    found["absmax"] = _bytes(joined)
    text = quant_state_text(tensor.source, nested_offset=offset).encode()
    # JSON may end in spaces. They fix the length, so every offset in the file is known in advance.
    padded = text.ljust(tensor.pieces["quant_state"].nbytes)
    found["quant_state"] = memoryview(padded)
    return found


def _bytes(values: Tensor) -> memoryview:
    return values.contiguous().numpy().data.cast("B")


def _check_finite(weight: Tensor, run: Run) -> None:
    """Raise ConversionError with the position of the first weight that is NaN or infinite."""
    low, high = torch.aminmax(weight)
    if torch.isfinite(low) and torch.isfinite(high):
        return
    row, column = torch.nonzero(~torch.isfinite(weight))[0].tolist()
    row_bytes = run.count // weight.shape[0]
    raise ConversionError(
        "{tensor} has {value} at row {row}, column {column}, so it can't be rounded.",
        hint="The checkpoint is damaged. Copy or download {file} again.",
        tensor=run.tensor.name,
        value=weight[row, column].item(),
        row=run.begin // row_bytes + row,
        column=column,
        file=run.tensor.source.pieces["weight"].file.name,
    )
