"""Up to 32 rows times a dense matrix, written in C (dense.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.calls import require
from cogvlm2_lite.weights.kernels.interface import as_rows, as_single
from cogvlm2_lite.weights.kernels.library import AMX, AVX512, Library
from cogvlm2_lite.weights.kernels.scratch import Scratch

_VOID, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
_UNIT = 64
_MOST_ROWS = 32
_PAIR_OF_TILES = 32
"""With AMX so many rows of the matrix are multiplied at a time."""

_WIDE, _BY_AVX512, _BY_AMX = 0, 1, 2
"""The methods of dense.c."""


class DenseRows:
    """A few rows times a dense matrix in bfloat16 (AVX512 or AMX) or float32 (AVX2).

    The matrix is read once for up to 32 rows. Sums are float32. A row's result does not depend on
    the other rows or on the number of threads.
    """

    name = "dense"

    def __init__(self, library: Library) -> None:
        self.level = library.level
        self._product = library.functions.dense_rows
        self._product.argtypes = [_LONG, _LONG, _VOID, _VOID, _LONG, _VOID, _INT, _INT]

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for few rows of bfloat16 (with AVX512) or float32; see Kernel."""
        if rows > _MOST_ROWS or columns % _UNIT:
            return False
        return dtype == torch.float32 or (dtype == torch.bfloat16 and self.level >= AVX512)

    def multiply(self, x: Tensor, matrix: Tensor, bias: Tensor | None, scratch: Scratch) -> Tensor:
        """Return x @ matrix.T + bias; see Kernel."""
        features, columns = matrix.shape
        flat = x.reshape(-1, columns).contiguous()
        rows = flat.shape[0]
        require(flat, x.dtype, rows * columns)
        require(matrix, x.dtype, features * columns)
        sums = torch.empty(rows, features)
        failed = self._product(
            features, columns, matrix.data_ptr(), flat.data_ptr(), rows, sums.data_ptr(),
            self._method(features, x.dtype), torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError
        out = sums.to(x.dtype)
        return (out if bias is None else out + bias).view(*x.shape[:-1], features)

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: Tensor, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Multiply all rows in one call: they do not depend on each other."""
        return as_single(self.multiply(as_rows(xs), matrix, bias, scratch))

    def _method(self, height: int, dtype: torch.dtype) -> int:
        if dtype == torch.float32:
            return _WIDE
        return _BY_AMX if self.level == AMX and height >= _PAIR_OF_TILES else _BY_AVX512
