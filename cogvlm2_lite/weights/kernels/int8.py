"""Blockwise int8: one float32 scale per 64 columns of a row, value = code * scale."""

from __future__ import annotations

from torch import Tensor

from cogvlm2_lite.weights.catalog import INT8_GROUP


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
