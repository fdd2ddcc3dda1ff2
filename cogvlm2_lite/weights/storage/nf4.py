"""4-bit matrices in bitsandbytes' layout: NF4, and FP4, which differs only in its 16 levels.

The reference dequantizes with torch and calls F.linear.
"""

from __future__ import annotations

from cogvlm2_lite.weights.footprint import can_pack
from cogvlm2_lite.weights.kernels.choice import KernelChoice
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.storage.quantized import QuantizedWeight

FourBitWeight = QuantizedWeight[FourBitMatrix]


def place_four_bit(
    matrix: FourBitMatrix, kernels: KernelChoice, scratch: Scratch, *, packed: bool = False
) -> FourBitWeight:
    """Return a weight around a matrix, with a packed copy if asked for and possible."""
    copy = None
    if packed and kernels.pack and can_pack(matrix.rows, matrix.columns, matrix.group):
        copy = kernels.pack(matrix)
    return QuantizedWeight(
        kind=matrix.quant_type,
        matrix=matrix,
        kernels=kernels.four_bit.preferring(copy) if copy else kernels.four_bit,
        scratch=scratch,
        packed=copy,
    )
