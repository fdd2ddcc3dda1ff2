"""bitsandbytes' CUDA kernels for 4-bit matrices on an NVIDIA GPU.

They read the stored layout; no packed copy is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.interface import Fill
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix
from cogvlm2_lite.weights.kernels.scratch import Scratch

FUSED_MAX_ROWS = 1536
"""Above it bitsandbytes dequantizes the whole matrix: 1 GiB of scratch for the 19B's lm_head."""


class CudaKernel:
    """bitsandbytes' fused multiplication.

    Relative Frobenius error against the reference: 0.004 in bfloat16, 0.001 in float16, 1e-5 in
    float32 (the same weights, summed in another order).
    """

    name = "cuda"

    def takes(self, rows: int, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True for whole groups per row and up to FUSED_MAX_ROWS rows; see Kernel.

        bitsandbytes warns and uses its slow path if groups cross rows.
        """
        return rows <= FUSED_MAX_ROWS and columns % group == 0

    def multiply(
        self, x: Tensor, matrix: FourBitMatrix, bias: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Return x @ matrix.T + bias; see Kernel."""
        nested = matrix.nested_absmax
        out: Tensor = torch.ops.bitsandbytes.gemm_4bit(
            x,
            matrix.codes.view(-1, 1),
            [matrix.rows, matrix.columns],
            matrix.absmax if nested is None else nested,
            matrix.group,
            matrix.quant_type,
            bias,
            None if nested is None else matrix.absmax,
            None if nested is None else matrix.nested_map,
            matrix.offset,
        )
        return out

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: FourBitMatrix, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Multiply one by one: bitsandbytes has another kernel for several rows than for one."""
        return [self.multiply(x, matrix, bias, scratch) for x in xs]


class CudaDequantizer:
    """Dequantizes through bitsandbytes on the GPU."""

    def takes(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True: it supports every matrix and floating dtype."""
        return True

    def filler(self, matrix: FourBitMatrix, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows; see Dequantizer."""
        scales = nested_scales(matrix)

        def fill(start: int, end: int, out: Tensor) -> None:
            codes, absmax = matrix.part(scales, start, end)
            torch.ops.bitsandbytes.dequantize_4bit.out(
                codes.view(-1, 1),
                absmax,
                matrix.group,
                matrix.quant_type,
                list(out.shape),
                out.dtype,
                out=out,
            )

        return fill


def nested_scales(matrix: FourBitMatrix) -> Tensor:
    """Return the scales of all groups in float32."""
    if matrix.nested_absmax is None:
        return matrix.absmax
    assert matrix.offset is not None
    scales: Tensor = torch.ops.bitsandbytes.dequantize_blockwise(
        matrix.absmax, matrix.nested_absmax, matrix.nested_map, SCALE_GROUP, torch.float32
    )
    return scales.add_(matrix.offset)
