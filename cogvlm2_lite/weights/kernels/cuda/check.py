"""Self-test of our CUDA kernels on the user's card, against exact arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.cuda.kernels import OwnDense, OwnFourBit, OwnInt8
from cogvlm2_lite.weights.kernels.cuda.operators import MOST_INPUTS
from cogvlm2_lite.weights.kernels.int8 import dequantize_int8
from cogvlm2_lite.weights.kernels.interface import Kernel
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.nf4 import dequantize_reference, quantize_nf4
from cogvlm2_lite.weights.kernels.scratch import Scratch

_ROWS, _COLUMNS, _GROUP = 40, 2304, 64
"""The last block of rows is not full, and one warp has twice the work of the others."""


def check_kernels(device: torch.device, dtype: torch.dtype) -> None:
    """Compile the kernels and multiply with each kind of matrix.

    Raises OSError with the reason if they can't be compiled or a result is wrong.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        raise OSError("our CUDA kernels compute in bfloat16 and float16")
    # No random numbers: every start checks the same.
    weight = (torch.arange(_ROWS * _COLUMNS) * 1201 % 4093 / 2046.5 - 1).view(_ROWS, -1) / 50
    four_bit = quantize_nf4(weight, group=_GROUP, double_quant=False)
    exact = dequantize_reference(
        four_bit.codes, four_bit.absmax, levels=four_bit.levels, group=_GROUP,
        out=torch.empty(_ROWS, _COLUMNS),
    )  # fmt: skip
    codes = (weight * 6000).to(torch.int8)
    scales = torch.linspace(0.001, 0.01, _ROWS * _COLUMNS // _GROUP).view(_ROWS, -1)
    int8 = dequantize_int8(codes, scales, torch.empty(_ROWS, _COLUMNS))
    dense = weight.to(dtype)
    try:
        ours = FourBitMatrix(
            rows=_ROWS, columns=_COLUMNS, group=_GROUP, quant_type="nf4",
            codes=four_bit.codes.to(device), absmax=four_bit.absmax.to(device),
            levels=four_bit.levels.to(device),
        )  # fmt: skip
        _check(OwnFourBit(), ours, exact, dtype)
        own_int8 = Int8Matrix(codes=codes.to(device), scales=scales.to(device))
        _check(OwnInt8(), own_int8, int8, dtype)
        _check(OwnDense(), dense.to(device), dense, dtype)
    except RuntimeError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise OSError(f"our CUDA kernels don't run here: {first_line}") from error


def _check(kernel: Kernel[Any], matrix: Any, exact: Tensor, dtype: torch.dtype) -> None:
    """Raise OSError if a result is wrong, or a row's result depends on the other rows."""
    x = (
        (torch.arange(MOST_INPUTS * _COLUMNS) * 7 % 2003 / 1001.5 - 1)
        .view(MOST_INPUTS, -1)
        .to(dtype)
    )
    scratch = Scratch(matrix.device)
    there = x.to(matrix.device)
    together = kernel.multiply(there, matrix, None, scratch)
    alone = torch.cat([kernel.multiply(row[None], matrix, None, scratch) for row in there])
    expected = x.double() @ exact.double().t()
    error = (together.cpu().double() - expected).norm() / expected.norm()
    if not error < 0.01 or not torch.equal(together, alone):
        raise OSError("our CUDA kernels give other numbers than they should")
