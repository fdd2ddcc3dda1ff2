"""Turn the numbers of a tensor into the bytes of its pieces, a run of rows at a time.

All arithmetic of a conversion without calibration is here. The bytes do not depend on the size of
the runs or on the threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.errors import ConversionError
from cogvlm2_lite.weights.catalog import NF4_GROUP
from cogvlm2_lite.weights.header import DTYPE_BYTES
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, nest_scales, quantize_rows
from cogvlm2_lite.weights.reader import TORCH_DTYPES
from cogvlm2_lite.weights.zeros import Runs, find_runs
from quantize.calibration.calibrate import CalibratedWeights
from quantize.int8 import round_int8
from quantize.merge import BLOCK_ROWS, Pairs, add_pair
from quantize.merged_rounding import keep_directions
from quantize.plain_rows import PlainRows, row_bytes, row_multiple
from quantize.recipe import PlannedTensor, quant_state_text
from quantize.source import SourceFiles


@dataclass(frozen=True, kw_only=True)
class Run:
    """Some rows of one tensor, which one thread processes at a time."""

    tensor: PlannedTensor
    begin: int
    """Offset of the first byte in the source's piece."""
    count: int
    """Source bytes."""
    first: int = 0
    """The first row, of a tensor whose numbers change."""
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the numbers of a run come from.

    plain       reads and dequantizes rows of the source
    calibrated  what a calibration decided; None: round to nearest
    pairs       of the adapter that is merged, by the name of the matrix
    """

    files: SourceFiles
    plain: PlainRows
    calibrated: CalibratedWeights | None = None
    pairs: Pairs = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """The result of a run."""

    run: Run
    weight: memoryview
    """Bytes of the "weight" piece."""
    scales: Tensor | None
    """One float32 per group of the run; None for a dense tensor."""
    zeros: Runs | None = None
    """The runs of zeros in the source's bytes; None if they are not searched for here."""


def split_into_runs(tensor: PlannedTensor, run_bytes: int) -> Iterator[Run]:
    """Split a tensor into runs of about `run_bytes`, of whole rows if its numbers change.

    A run of 4-bit codes has no more numbers than one of 16-bit weights.
    """
    source, piece = tensor.source, tensor.source.pieces["weight"]
    if tensor.copied:
        for begin in range(0, piece.nbytes, run_bytes):
            yield Run(tensor=tensor, begin=begin, count=min(run_bytes, piece.nbytes - begin))
        return
    height = source.spec.shape[0]
    columns = source.spec.numel // height
    multiple = max(row_multiple(source), BLOCK_ROWS if tensor.touched else 1)
    width = columns * (DTYPE_BYTES[piece.dtype] if source.kind == "dense" else 2)
    step = max(run_bytes // width // multiple, 1) * multiple
    for first in range(0, height, step):
        rows = min(step, height - first)
        begin = row_bytes(source, first)
        count = row_bytes(source, first + rows) - begin
        yield Run(tensor=tensor, begin=begin, count=count, first=first, rows=rows)


def round_run(run: Run, inputs: Inputs) -> Rounded:
    """Read a run, add the adapter and round it, or return what a calibration decided for it.

    Raises CheckpointError if it can't be read, ConversionError for a weight that is infinite or not
    a number.
    """
    tensor, source = run.tensor, run.tensor.source
    if inputs.calibrated is not None:
        decided = _calibrated_run(run, inputs.calibrated)
        if decided is not None:
            return decided
    data = inputs.files.read(tensor.name, source.pieces["weight"], run.begin, run.count)
    zeros = find_runs(data) if source.kind == "dense" else None
    if tensor.copied:
        return Rounded(run=run, weight=memoryview(data), scales=None, zeros=zeros)
    weight = inputs.plain.rows(source, data, run.first, run.rows)
    pair = inputs.pairs.get(tensor.name)
    if pair is not None:
        add_pair(weight, pair, run.first)
    if tensor.kind == "dense":
        weight = weight.to(TORCH_DTYPES[tensor.pieces["weight"].dtype])
        if tensor.source.spec.role is Role.LINEAR:
            _check_finite(weight, run)
        return Rounded(run=run, weight=_bytes(weight.view(torch.uint8)), scales=None, zeros=zeros)
    _check_finite(weight, run)
    if pair is not None and tensor.kind == "nf4" and source.quant is not None:
        weight = keep_directions(weight, pair)
    codes, scales = (
        quantize_rows(weight, group=NF4_GROUP) if tensor.kind == "nf4" else round_int8(weight)
    )
    return Rounded(run=run, weight=codes.numpy().data, scales=scales.view(-1), zeros=zeros)


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


def companions(
    tensor: PlannedTensor, scales: list[Tensor], files: SourceFiles
) -> dict[str, memoryview]:
    """Return the bytes of every piece but "weight", after all runs of a tensor are rounded.

    scales  of all runs in order; empty for a dense or copied tensor
    files   has the pieces of a copied tensor
    """
    if tensor.copied:
        stored = tensor.source.pieces
        return {
            role: memoryview(files.read(tensor.name, stored[role], 0, stored[role].nbytes))
            for role in tensor.pieces
            if role != "weight"
        }
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
    raise ConversionError(
        "{tensor} would have {value} at row {row}, column {column} with the adapter in it."
        if run.tensor.touched
        else "{tensor} has {value} at row {row}, column {column}, so it can't be rounded.",
        hint="The adapter's values are too large, or {file} is damaged: copy or download it again."
        if run.tensor.touched
        else "The checkpoint is damaged. Copy or download {file} again.",
        tensor=run.tensor.name,
        value=weight[row, column].item(),
        row=run.first + row,
        column=column,
        file=run.tensor.source.pieces["weight"].file.name,
    )
