"""A quantized matrix, multiplied by the first kernel of its list that supports the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from cogvlm2_lite.weights.footprint import CHUNK_NUMBERS, WHOLE_NUMBERS
from cogvlm2_lite.weights.kernels.dequantize import QuantizedKernels
from cogvlm2_lite.weights.kernels.interface import Kernel, Q
from cogvlm2_lite.weights.kernels.packed import PackedKernel
from cogvlm2_lite.weights.kernels.scratch import Scratch


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedWeight(Generic[Q]):
    """A StoredWeight around a quantized matrix. Each kernel states its tolerance.

    packed  the kernel with a second, packed copy of the matrix, first in the list; None: no copy
    """

    kind: str
    matrix: Q
    kernels: QuantizedKernels[Q]
    scratch: Scratch
    packed: PackedKernel | None = None

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes + (self.packed.nbytes if self.packed else 0)

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x @ matrix.T + bias; see StoredWeight."""
        matrix = self.matrix
        kernel = self._kernel(x.numel() // matrix.columns, x.dtype)
        return kernel.multiply(x, matrix, bias, self.scratch)

    def multiply_in_bytes(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x @ matrix.T + bias with inputs of 8 bits; see StoredWeight."""
        matrix, kernel = self.matrix, self.kernels.in_bytes
        if kernel is None or not kernel.takes(
            x.numel() // matrix.columns,
            height=matrix.rows,
            columns=matrix.columns,
            group=matrix.group,
            dtype=x.dtype,
        ):
            return self.multiply(x, bias)
        return kernel.multiply(x, matrix, bias, self.scratch)

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Multiply each x by the kernel for a single row; see StoredWeight."""
        kernel = self._kernel(1, xs[0].dtype)
        return kernel.multiply_each(xs, self.matrix, bias, self.scratch)

    def _kernel(self, rows: int, dtype: torch.dtype) -> Kernel[Q]:
        matrix = self.matrix
        return self.kernels.first(rows, matrix.rows, matrix.columns, matrix.group, dtype)

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """Return y @ matrix; see StoredWeight.

        A matrix of a layer is dequantized as a whole. A larger one, lm_head, is dequantized in
        float32 a few rows at a time; the products are added up in float32 and rounded once.
        """
        matrix = self.matrix
        if matrix.rows * matrix.columns <= WHOLE_NUMBERS:
            return y @ self.dequantize(y.dtype)
        rows = y.reshape(-1, matrix.rows)
        total = rows.new_zeros((rows.shape[0], matrix.columns), dtype=torch.float32)
        fill = self.kernels.dequantizers.filler(matrix, torch.float32, self.scratch)
        multiple = matrix.row_multiple
        step = max(1, CHUNK_NUMBERS // matrix.columns // multiple) * multiple
        for start in range(0, matrix.rows, step):
            end = min(start + step, matrix.rows)
            part = total.new_empty((end - start, matrix.columns))
            fill(start, end, part)
            total.addmm_(rows[:, start:end].to(torch.float32), part)
        return total.to(y.dtype).view(*y.shape[:-1], matrix.columns)

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Return the dequantized matrix [out_features, in_features]."""
        matrix = self.matrix
        out = torch.empty(matrix.rows, matrix.columns, dtype=to, device=matrix.device)
        return self.dequantize_into(out)

    def dequantize_into(self, out: Tensor) -> Tensor:
        """Dequantize into `out` [out_features, in_features], contiguous, floating; return it."""
        fill = self.kernels.dequantizers.filler(self.matrix, out.dtype, self.scratch)
        fill(0, self.matrix.rows, out)
        return out
