"""Dense matrices: one number per weight, in the compute dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.dense import TorchLinear
from cogvlm2_lite.weights.kernels.interface import Kernel, KernelList
from cogvlm2_lite.weights.kernels.scratch import Scratch


def _torch_alone() -> KernelList[Tensor]:
    return KernelList(TorchLinear())


def _unused() -> Scratch:
    return Scratch(torch.device("cpu"))


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseWeight:
    """A matrix that is not quantized; with torch's kernel the reference for all kinds.

    weight   [out_features, in_features], contiguous; may be a view of a memory-mapped file
    kernels  by default only torch's, which needs no scratch
    """

    weight: Tensor
    kernels: KernelList[Tensor] = field(default_factory=_torch_alone)
    scratch: Scratch = field(default_factory=_unused)
    kind: str = "dense"

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x @ weight.T + bias; see StoredWeight."""
        kernel = self._kernel(x.numel() // x.shape[-1], x.dtype)
        return kernel.multiply(x, self.weight, bias, self.scratch)

    def multiply_in_bytes(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return `multiply`: a dense matrix has no products of bytes."""
        return self.multiply(x, bias)

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Multiply each x by the kernel for a single row; see StoredWeight."""
        kernel = self._kernel(1, xs[0].dtype)
        return kernel.multiply_each(xs, self.weight, bias, self.scratch)

    def _kernel(self, rows: int, dtype: torch.dtype) -> Kernel[Tensor]:
        height, columns = self.weight.shape
        return self.kernels.first(rows, height, columns, 0, dtype)

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """Return y @ weight; see StoredWeight."""
        return y @ self.weight.to(y.dtype)

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Return the matrix in a dtype; the stored tensor itself if it already has this dtype."""
        return self.weight.to(to)
