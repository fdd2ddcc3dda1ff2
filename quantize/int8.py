"""int8, our own storage kind: 8 bits per weight and one scale for every 64 columns of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.weights.catalog import INT8_GROUP

_INT8_MAX = 127


def round_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix rounded to 8 bits, with one scale for every 64 columns of a row.

    weight  [rows, columns] floating, columns a multiple of 64
    Returns codes [rows, columns] int8 in -127 to 127, and scales [rows, columns / 64] float32;
            value = code * scale, where a scale is the largest magnitude of its group / 127
    """
    rows, columns = weight.shape
    groups = weight.float().view(rows, -1, INT8_GROUP)
    scales = groups.abs().amax(dim=-1) / _INT8_MAX
    # A group of zeros has the scale 0; its codes are 0 with any divisor.
    divisors = torch.where(scales == 0, torch.ones_like(scales), scales)
    codes = (groups / divisors.unsqueeze(-1)).round_().clamp_(-_INT8_MAX, _INT8_MAX)
    return codes.to(torch.int8).view(rows, columns), scales


def int8_values(weight: Tensor) -> Tensor:
    """Return a matrix rounded to int8 and dequantized, [rows, columns] float32."""
    codes, scales = round_int8(weight)
    return codes.float() * scales.repeat_interleave(INT8_GROUP, dim=1)
