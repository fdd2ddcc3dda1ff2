"""bitsandbytes' CUDA kernels for 4-bit matrices on an NVIDIA GPU.

They read the stored layout; no packed copy is needed.

Its kernel for one to three rows checks no error, and its dequantizing kernels end the process with
`exit(1)` if CUDA has any error pending, also one that another kernel caused. Both can't be changed
here. Errors that a program survives, such as too little memory, are never pending when they are
called: every operation of torch reports and clears them, and one of torch's kernels runs before
each of bitsandbytes' (the norm of a layer, or the offset of the scales below). What is left is an
error that the GPU finds later, while it computes. The process can't use the GPU after that anyway.
It ends with a message (`backends/exit_message.py`); with `serve` and in the window only the worker
process ends, and it is started again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.interface import Fill, as_rows, as_single
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix
from cogvlm2_lite.weights.kernels.scales import fill_in_windows
from cogvlm2_lite.weights.kernels.scratch import Scratch

MAX_TOGETHER = 3
"""Up to this number of rows bitsandbytes always has the same kernel, which sums each row in the
same order whatever their number is (csrc/gemm_4bit.cu and gemm_4bit_simt.cu of version 0.50)."""

_FUSED_ROWS = 4
"""Up to this number of rows it multiplies without dequantizing the matrix, on every GPU."""


class CudaKernel:
    """bitsandbytes' fused multiplication.

    Relative Frobenius error against the reference: 0.004 in bfloat16, 0.001 in float16, 1e-5 in
    float32 (the same weights, summed in another order).

    device    where it multiplies
    together  rows that are multiplied in one call by `multiply_each`; more than one only if a
              self-test has shown that each is bit-identical to that row alone
    """

    name = "cuda"

    def __init__(self, device: torch.device, *, together: int = 1) -> None:
        self._index, self.together = device.index or 0, together

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for whole groups per row if bitsandbytes does not dequantize; see Kernel.

        It warns and uses its slow path if groups cross rows. For more rows than is fast on a GPU it
        dequantizes the whole matrix: 112 MiB for the largest one of a layer, 1 GiB for lm_head.
        """
        return columns % group == 0 and self._is_fused(rows, height, columns, dtype)

    def _is_fused(self, rows: int, height: int, columns: int, dtype: torch.dtype) -> bool:
        """Return whether bitsandbytes multiplies a matrix without dequantizing it.

        Its own function is asked. It is private: another version may lack it, or have another one.
        """
        module = sys.modules.get("bitsandbytes.backends.cuda.ops")
        ask: Callable[..., object] | None = getattr(module, "_gemm_4bit_use_custom_fn", None)
        if ask is not None:
            try:
                return ask(self._index, dtype, rows, height, columns) is True
            except TypeError:  # other arguments
                pass
        return rows <= _FUSED_ROWS

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
        """Multiply up to `together` rows per call, each of which reads the matrix once."""
        if self.together == 1 or len(xs) == 1:
            return [self.multiply(x, matrix, bias, scratch) for x in xs]
        found: list[Tensor] = []
        for start in range(0, len(xs), self.together):
            rows = as_rows(xs[start : start + self.together])
            found += as_single(self.multiply(rows, matrix, bias, scratch))
        return found


class CudaDequantizer:
    """Dequantizes through bitsandbytes on the GPU."""

    def takes(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True: it supports every matrix and floating dtype."""
        return True

    def filler(self, matrix: FourBitMatrix, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows; see Dequantizer."""

        def fill(codes: Tensor, absmax: Tensor, out: Tensor) -> None:
            torch.ops.bitsandbytes.dequantize_4bit.out(
                codes.view(-1, 1),
                absmax,
                matrix.group,
                matrix.quant_type,
                list(out.shape),
                out.dtype,
                out=out,
            )

        return fill_in_windows(matrix, _expand, scratch, fill)


def _expand(
    absmax: Tensor, nested_absmax: Tensor, nested_map: Tensor, offset: float, out: Tensor
) -> None:
    """Fill `out` [groups] float32, see Expand."""
    torch.ops.bitsandbytes.dequantize_blockwise.out(
        absmax, nested_absmax, nested_map, SCALE_GROUP, torch.float32, out
    )
    out.add_(offset)
