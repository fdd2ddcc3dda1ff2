"""Blockwise int8: one float32 scale per 64 columns of a row, value = code * scale."""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.weights.catalog import INT8_GROUP
from cogvlm2_lite.weights.kernels.interface import Fill
from cogvlm2_lite.weights.kernels.matrix import Int8Matrix
from cogvlm2_lite.weights.kernels.scratch import Scratch


class Int8Dequantizer:
    """Dequantizes blockwise int8 with torch, on any device."""

    def takes(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True: it supports every matrix and floating dtype."""
        return True

    def filler(self, matrix: Int8Matrix, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows; see Dequantizer."""

        def fill(start: int, end: int, out: Tensor) -> None:
            dequantize_int8(matrix.codes[start:end], matrix.scales[start:end], out)

        return fill


def dequantize_int8(codes: Tensor, scales: Tensor, out: Tensor) -> Tensor:
    """Fill and return `out` [rows, columns], a floating dtype, with code * scale.

    The product is computed in float32 and rounded once. On a GPU this is one kernel without a
    temporary: 3 bytes are moved per weight to fill bfloat16, 11 with a float32 product in memory.
    The multiplication reads 2 more, which may still be in the cache (dequantize.gpu_chunks).

    codes   [rows, columns] int8
    scales  [rows, columns / 64 rounded up] float32
    """
    rows, columns = codes.shape
    whole = columns // INT8_GROUP
    if whole:
        parts = (codes[:, : whole * INT8_GROUP], out[:, : whole * INT8_GROUP])
        given, target = (part.view(rows, whole, INT8_GROUP) for part in parts)
        torch.mul(given, scales[:, :whole].unsqueeze(2), out=target)
    if columns % INT8_GROUP:
        rest = slice(whole * INT8_GROUP, columns)
        torch.mul(codes[:, rest], scales[:, whole:], out=out[:, rest])
    return out
