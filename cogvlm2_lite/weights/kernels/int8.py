"""Blockwise int8: one float32 scale per 64 columns of a row, value = code * scale."""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.errors import ConversionError
from cogvlm2_lite.weights.catalog import INT8_GROUP

_CHUNK = 1 << 18


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix, or any rows of one, to int8.

    weight   [rows, columns] float32, float16 or bfloat16 on CPU
    Returns  codes [rows, columns] int8 from -127 to 127 and scales [rows, columns / 64 rounded up]
             float32, the largest magnitude of each group / 127. Scratch: a few MiB.
    Raises ConversionError when a weight is infinite or not a number.
    """
    rows, columns = weight.shape
    groups = -(-columns // INT8_GROUP)
    codes = torch.empty(rows, columns, dtype=torch.int8)
    scales = torch.empty(rows, groups, dtype=torch.float32)
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        plain = weight[start : start + step].to(torch.float32)
        if columns % INT8_GROUP:
            plain = torch.nn.functional.pad(plain, (0, groups * INT8_GROUP - columns))
        plain = plain.view(-1, groups, INT8_GROUP)
        scale = plain.abs().amax(dim=2) / 127
        if not torch.isfinite(scale).all():
            raise ConversionError(
                "A weight is infinite or not a number, so this matrix can't be rounded to 8 bits.",
                hint="The checkpoint is damaged. Copy or download it again.",
            )
        # The smallest normal number: a group of zeros, or of less than int8 can tell from zero.
        inverse = 1 / scale.clamp(min=torch.finfo(torch.float32).tiny)
        rounded = (plain * inverse.unsqueeze(2)).round_().clamp_(-127, 127)
        codes[start : start + step] = rounded.view(len(scale), -1)[:, :columns]
        scales[start : start + step] = scale
    return codes, scales


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
