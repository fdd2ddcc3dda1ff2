"""Blockwise int8 matrices (layout: weights/catalog.py).

The same plain weights reach the multiplication as in the reference, so results differ from it only
by the order of summation: relative Frobenius error below 0.003 in bfloat16, 1e-5 in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.int8 import dequantize_int8
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.slots import as_rows, as_single
from cogvlm2_lite.weights.storage.chunks import multiply_in_chunks


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Weight:
    """A blockwise int8 matrix.

    codes   [out_features, in_features] int8
    scales  [out_features, in_features / 64 rounded up] float32
    """

    codes: Tensor
    scales: Tensor
    scratch: Scratch
    kind: str = "int8"

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Give x @ weight.T + bias; see StoredWeight and the tolerance above."""
        return self._multiply(x, bias)

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Make each chunk plain once for all rows; see StoredWeight."""
        return as_single(self._multiply(as_rows(xs), bias, each=True))

    def _multiply(self, x: Tensor, bias: Tensor | None, *, each: bool = False) -> Tensor:
        def fill(start: int, end: int, out: Tensor) -> None:
            dequantize_int8(self.codes[start:end], self.scales[start:end], out)

        rows = self.codes.shape[0]
        return multiply_in_chunks(
            x, bias, out_features=rows, multiple=1, fill=fill, scratch=self.scratch, each=each
        )

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Give the plain matrix [out_features, in_features]."""
        out = torch.empty(self.codes.shape, dtype=to, device=self.codes.device)
        return dequantize_int8(self.codes, self.scales, out)
