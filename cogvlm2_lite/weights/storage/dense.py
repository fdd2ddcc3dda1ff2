"""Plain matrices: one number per weight, in the compute dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cogvlm2_lite.weights.kernels.dense import without_onednn
from cogvlm2_lite.weights.kernels.gemv import RowKernels
from cogvlm2_lite.weights.slots import as_rows, as_single


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseWeight:
    """A matrix that torch multiplies as it is; the reference of all kinds.

    weight  [out_features, in_features]; may be a view of a memory-mapped file
    rows    our C kernel for a single row of bfloat16 on the CPU; None without
    """

    weight: Tensor
    rows: RowKernels | None = None
    kind: str = "dense"

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Give x @ weight.T + bias; see StoredWeight."""
        inputs, columns = x.numel() // x.shape[-1], x.shape[-1]
        if (rows := self._rows_for(x)) is not None:
            out = rows.dense(x.reshape(inputs, columns), self.weight)
            out = out if bias is None else out + bias
            return out.view(*x.shape[:-1], self.weight.shape[0])
        if x.dtype == torch.bfloat16 and x.numel() == x.shape[-1] and x.device.type == "cpu":
            with without_onednn():
                return F.linear(x, self.weight, bias)
        return F.linear(x, self.weight, bias)

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Multiply rows together where the C kernel does, else one by one; see StoredWeight."""
        if (rows := self._rows_for(xs[0])) is None:
            return [self.multiply(x, bias) for x in xs]
        out = rows.dense(as_rows(xs), self.weight)
        return as_single(out if bias is None else out + bias)

    def _rows_for(self, x: Tensor) -> RowKernels | None:
        """Give our C kernel if x @ weight.T is for it."""
        takes = (
            self.rows is not None
            and x.device.type == "cpu"
            and self.weight.is_contiguous()
            and self.rows.takes_dense(x.numel() // x.shape[-1], columns=x.shape[-1], dtype=x.dtype)
        )
        return self.rows if takes else None

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Give the plain matrix; the stored tensor itself when the dtype is already right."""
        return self.weight.to(to)
