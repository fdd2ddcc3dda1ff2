"""Multiply by a matrix that is made plain a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.scratch import Scratch

CHUNK_BYTES = 8 << 20
"""Plain weights at a time: enough for an efficient multiplication, few enough for the cache."""


def chunk_rows(rows: int, columns: int, itemsize: int, multiple: int) -> int:
    """Give how many rows to make plain at a time: about CHUNK_BYTES, a multiple of `multiple`."""
    fitting = CHUNK_BYTES // max(columns * itemsize, 1)
    return min(rows, max(1, fitting // multiple) * multiple)


def multiply_in_chunks(
    x: Tensor,
    bias: Tensor | None,
    *,
    out_features: int,
    step: int,
    fill: Callable[[int, int, Tensor], None],
    scratch: Scratch,
) -> Tensor:
    """Give x @ weight.T + bias for a weight of which `fill` makes any rows plain.

    x     [..., in_features]
    step  rows of the weight at a time
    fill  called with first row, last row + 1 and a tensor [rows, in_features] to fill
    """
    columns = x.shape[-1]
    flat = x.reshape(-1, columns)
    out = torch.empty(flat.shape[0], out_features, dtype=x.dtype)
    for start in range(0, out_features, step):
        end = min(start + step, out_features)
        plain = scratch.take("plain", (end - start, columns), x.dtype)
        fill(start, end, plain)
        if bias is None:
            torch.mm(flat, plain.t(), out=out[:, start:end])
        else:
            torch.addmm(bias[start:end], flat, plain.t(), out=out[:, start:end])
    return out.view(*x.shape[:-1], out_features)
