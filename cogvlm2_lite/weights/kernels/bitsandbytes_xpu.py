"""bitsandbytes' SYCL kernels for 4-bit matrices on an Intel GPU. Nothing here has run on one.

They multiply one row at a time; for more rows bitsandbytes dequantizes the whole matrix, which is
done here in parts instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.bitsandbytes_cuda import CudaKernel
from cogvlm2_lite.weights.kernels.interface import Fill
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix
from cogvlm2_lite.weights.kernels.scales import fill_in_windows
from cogvlm2_lite.weights.kernels.scratch import Scratch


class XpuKernel(CudaKernel):
    """The same operator as on an NVIDIA GPU, for a single row."""

    name = "xpu"

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for one row of whole groups; see Kernel."""
        return rows == 1 and columns % group == 0


class XpuDequantizer:
    """Dequantizes through bitsandbytes, which has no operator here that writes into a buffer."""

    def takes(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True: it supports every matrix and floating dtype."""
        return True

    def filler(self, matrix: FourBitMatrix, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows; see Dequantizer."""

        def fill(codes: Tensor, absmax: Tensor, out: Tensor) -> None:
            out.copy_(
                torch.ops.bitsandbytes.dequantize_4bit(
                    codes.view(-1, 1),
                    absmax,
                    matrix.group,
                    matrix.quant_type,
                    list(out.shape),
                    out.dtype,
                )
            )

        return fill_in_windows(matrix, _expand, scratch, fill)


def _expand(
    absmax: Tensor, nested_absmax: Tensor, nested_map: Tensor, offset: float, out: Tensor
) -> None:
    """Fill `out` [groups] float32, see Expand."""
    scales: Tensor = torch.ops.bitsandbytes.dequantize_blockwise(
        absmax, nested_absmax, nested_map, SCALE_GROUP, torch.float32
    )
    out.copy_(scales.add_(offset))
