"""Dequantizes 4-bit matrices with torch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.interface import Fill
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.nf4 import dequantize_by_byte
from cogvlm2_lite.weights.kernels.scales import Expand, expand_with_torch, fill_in_windows
from cogvlm2_lite.weights.kernels.scratch import Scratch


class TorchDequantizer:
    """Supports every matrix and floating dtype; the slowest dequantizer."""

    def __init__(self, expand: Expand = expand_with_torch) -> None:
        self._expand = expand

    def takes(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True; see Dequantizer."""
        return True

    def filler(self, matrix: FourBitMatrix, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows; see Dequantizer."""

        def fill(codes: Tensor, absmax: Tensor, out: Tensor) -> None:
            dequantize_by_byte(codes, absmax, levels=matrix.levels, group=matrix.group, out=out)

        return fill_in_windows(matrix, self._expand, scratch, fill)
