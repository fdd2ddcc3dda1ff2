"""Our CUDA kernels for few rows, as kernels of the lists in `weights/kernels/choice.py`.

A row's result does not depend on how many rows go with it. So up to 8 answers read the weights
once, and each has the bits that it has alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cogvlm2_lite.weights.catalog import INT8_GROUP
from cogvlm2_lite.weights.kernels.cuda.operators import MOST_INPUTS
from cogvlm2_lite.weights.kernels.interface import as_rows, as_single
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.scratch import Scratch

M = TypeVar("M", FourBitMatrix, Int8Matrix, Tensor)

_COLUMNS = 256  # a warp reads four groups at a time
_GROUP = 64


class _FewRows(ABC, Generic[M]):
    """Multiplies 1 to 8 rows."""

    name = "own"
    group = _GROUP

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for 1 to 8 rows of 16-bit numbers and whole tiles; see Kernel."""
        halves = dtype in (torch.bfloat16, torch.float16)
        return rows <= MOST_INPUTS and columns % _COLUMNS == 0 and group == self.group and halves

    def multiply(self, x: Tensor, matrix: M, bias: Tensor | None, scratch: Scratch) -> Tensor:
        """Return x @ matrix.T + bias; see Kernel."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        out = self._product(rows, matrix, bias)
        return out.view(*x.shape[:-1], out.shape[-1])

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: M, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Multiply up to 8 rows in one call; see Kernel."""
        if len(xs) == 1:  # no row has to be gathered
            return [self.multiply(xs[0], matrix, bias, scratch)]
        parts = (xs[i : i + MOST_INPUTS] for i in range(0, len(xs), MOST_INPUTS))
        return [y for part in parts for y in as_single(self._product(as_rows(part), matrix, bias))]

    @abstractmethod
    def _product(self, x: Tensor, matrix: M, bias: Tensor | None) -> Tensor:
        """Return x @ matrix.T + bias for x [rows, in_features]."""


class OwnFourBit(_FewRows[FourBitMatrix]):
    """NF4 and FP4.

    The levels are rounded to the 16-bit type, and nothing else of the weights; the reference rounds
    each weight. Relative Frobenius error against exact weights: 0.0023 in bfloat16 and 0.0003 in
    float16, where the reference has 0.0026 and 0.0003.
    """

    def _product(self, x: Tensor, matrix: FourBitMatrix, bias: Tensor | None) -> Tensor:
        nested = matrix.nested_absmax
        out: Tensor = torch.ops.cogvlm2_lite.stored_product(
            x, matrix.codes, matrix.absmax, nested,
            None if nested is None else matrix.nested_map,
            matrix.levels, matrix.nested_offset, bias, matrix.rows,
        )  # fmt: skip
        return out


class OwnInt8(_FewRows[Int8Matrix]):
    """Blockwise int8: codes are exact in 16 bits, and scales multiply sums in float32."""

    group = INT8_GROUP

    def _product(self, x: Tensor, matrix: Int8Matrix, bias: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.cogvlm2_lite.stored_product(
            x, matrix.codes, matrix.scales, None, None, None, 0.0, bias, matrix.rows
        )
        return out


class OwnDense(_FewRows[Tensor]):
    """Matrices of 16-bit numbers."""

    group = 0

    def _product(self, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.cogvlm2_lite.stored_product(
            x, matrix, None, None, None, None, 0.0, bias, matrix.shape[0]
        )
        return out
