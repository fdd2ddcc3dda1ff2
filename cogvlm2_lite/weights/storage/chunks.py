"""Multiply by a matrix that is made plain a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.scratch import Scratch

# Plain weights at a time, measured from 1 to 32 MiB. For few rows of x they had better stay in the
# cache; for many, each chunk costs another pass over x (4 MiB was 25 % slower than 16 for 14336
# columns).
_FEW_ROWS = 48
_FEW_ROWS_BYTES = 4 << 20
_MANY_ROWS_BYTES = 16 << 20
_GPU_BYTES = 24 << 20  # memory/work.py counts on no more


def multiply_in_chunks(
    x: Tensor,
    bias: Tensor | None,
    *,
    out_features: int,
    multiple: int,
    fill: Callable[[int, int, Tensor], None],
    scratch: Scratch,
    each: bool = False,
) -> Tensor:
    """Give x @ weight.T + bias for a weight of which `fill` makes any rows plain.

    x         [..., in_features]
    multiple  the rows to be filled start at a multiple of this
    fill      called with first row, last row + 1 and a tensor [rows, in_features] to fill
    each      multiply row by row of x: torch's product of several may differ in the last bit
    """
    columns = x.shape[-1]
    flat = x.reshape(-1, columns)
    out = x.new_empty(flat.shape[0], out_features)
    step = _chunk_rows(flat[:1] if each else flat, multiple)
    for start in range(0, out_features, step):
        end = min(start + step, out_features)
        plain = scratch.take("plain", (end - start, columns), x.dtype)
        fill(start, end, plain)
        part = out[:, start:end]
        height = 1 if each else max(1, flat.shape[0])
        for row in range(0, flat.shape[0], height):
            rows, target = flat[row : row + height], part[row : row + height]
            if bias is None:
                torch.mm(rows, plain.t(), out=target)
            else:
                torch.addmm(bias[start:end], rows, plain.t(), out=target)
    return out.view(*x.shape[:-1], out_features)


def _chunk_rows(x: Tensor, multiple: int) -> int:
    """Give how many rows of the weight to make plain at a time, a multiple of `multiple`."""
    size = _FEW_ROWS_BYTES if x.shape[0] <= _FEW_ROWS else _MANY_ROWS_BYTES
    if x.device.type != "cpu":
        size = _GPU_BYTES
    fitting = size // (x.shape[1] * x.dtype.itemsize)
    return max(1, fitting // multiple) * multiple
