"""Multiply by a matrix that is made plain a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.scratch import Scratch

_CPU_CHUNK_BYTES = 4 << 20
"""Enough for an efficient multiplication, few enough for the cache: measured from 1 to 16 MiB at 1
to 2306 rows of x, 4 MiB is the best or within 3 % of it."""

_GPU_CHUNK_BYTES = 64 << 20


def multiply_in_chunks(
    x: Tensor,
    bias: Tensor | None,
    *,
    out_features: int,
    multiple: int,
    fill: Callable[[int, int, Tensor], None],
    scratch: Scratch,
) -> Tensor:
    """Give x @ weight.T + bias for a weight of which `fill` makes any rows plain.

    x         [..., in_features]
    multiple  the rows to be filled start at a multiple of this
    fill      called with first row, last row + 1 and a tensor [rows, in_features] to fill
    """
    columns = x.shape[-1]
    flat = x.reshape(-1, columns)
    out = x.new_empty(flat.shape[0], out_features)
    chunk_bytes = _CPU_CHUNK_BYTES if x.device.type == "cpu" else _GPU_CHUNK_BYTES
    fitting = chunk_bytes // (columns * x.dtype.itemsize)
    step = max(1, fitting // multiple) * multiple
    for start in range(0, out_features, step):
        end = min(start + step, out_features)
        plain = scratch.take("plain", (end - start, columns), x.dtype)
        fill(start, end, plain)
        if bias is None:
            torch.mm(flat, plain.t(), out=out[:, start:end])
        else:
            torch.addmm(bias[start:end], flat, plain.t(), out=out[:, start:end])
    return out.view(*x.shape[:-1], out_features)
