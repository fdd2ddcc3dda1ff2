"""Random 4-bit matrices, and the values that they stand for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.nf4 import (
    FP4_LEVELS,
    dequantize_reference,
    expand_scales,
    quantize_nf4,
)
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.storage.nf4 import FourBitWeight, place_four_bit


def rounds_inputs() -> bool:
    """Return whether products with 4-bit matrices round float32 inputs to integers here."""
    kernels = choose_kernels(torch.device("cpu"), torch.float32)
    return kernels.four_bit.first(1, 64, 64, 64, torch.float32).name == "integer"


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def make_matrix(
    rows: int, columns: int, *, group: int = 64, double_quant: bool = True, fp4: bool = False
) -> FourBitMatrix:
    weight = random(rows, columns) * 0.02
    made = quantize_nf4(weight, group=group, double_quant=double_quant)
    return replace(made, quant_type="fp4", levels=torch.tensor(FP4_LEVELS)) if fp4 else made


def plain_matrix(matrix: FourBitMatrix, dtype: torch.dtype = torch.float32) -> Tensor:
    """The reference: what the codes and scales mean, in plain torch."""
    scales = matrix.absmax
    if matrix.nested_absmax is not None and matrix.nested_map is not None:
        scales = expand_scales(
            scales, matrix.nested_absmax, matrix.nested_map, matrix.nested_offset
        )
    out = torch.empty(matrix.rows, matrix.columns, dtype=dtype)
    return dequantize_reference(
        matrix.codes, scales, levels=matrix.levels, group=matrix.group, out=out
    )


def make_four_bit(
    matrix: FourBitMatrix, kernels: KernelChoice, *, packed: bool = False
) -> FourBitWeight:
    return place_four_bit(matrix, kernels, Scratch(torch.device("cpu")), packed=packed)
