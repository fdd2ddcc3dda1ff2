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

    codes   [rows, columns] int8
    scales  [rows, columns / 64 rounded up] float32
    """
    rows, columns = codes.shape
    if columns % INT8_GROUP == 0:
        groups = (rows, columns // INT8_GROUP, INT8_GROUP)
        product = codes.view(groups) * scales.unsqueeze(2)
        out.view(groups).copy_(product)
        return out
    wide = scales.repeat_interleave(INT8_GROUP, dim=1)[:, :columns]
    return out.copy_(codes * wide)
