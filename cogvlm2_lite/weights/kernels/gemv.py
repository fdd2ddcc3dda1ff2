"""Products with 4-bit and int8 matrices: of integers (integer.c), or in float32 (gemv.c).

They read the stored layout of the matrices, so decoding needs no second copy of them. gemv.c also
has a dequantizer, which is bit-identical to the reference.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.calls import require
from cogvlm2_lite.weights.kernels.interface import Fill, as_rows, as_single
from cogvlm2_lite.weights.kernels.library import AMX, AVX512, Library
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.scratch import Scratch

_VOID, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
_UNIT = 64
_WIDEST = 65536
_MOST_ROWS_WITH_AMX = 32
"""Up to this many rows of bfloat16 the products of integers are chosen on a CPU with AMX. Our AMX
GEMM is faster from about 25 rows on, but its rows have other bits than alone."""
_MOST_FLOAT_ROWS = 16
"""The same for float32. torch was limited to AVX2, and the kernel was still 1.24 times as fast."""


class IntegerKernel:
    """Rows times a 4-bit or int8 matrix as products of integers (integer.h).

    The inputs become integers of 13 bits with one power of two per 64 inputs, and levels become
    integers of 14 bits; sums of 64 products are exact. The result of a row has the same bits with
    every level of instructions, and does not depend on the other rows or on the number of threads.
    A row with an infinity or NaN becomes NaN. Relative Frobenius error against the exact product:
    below 0.003 in bfloat16, below 3e-4 in float32.
    """

    name = "integer"

    def __init__(self, library: Library) -> None:
        self.level = library.level
        self._product = library.functions.integer_product
        self._product.argtypes = [_VOID, _INT, _INT, _VOID, _LONG, _VOID, _INT]

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for whole groups per row; see Kernel.

        With AVX512-BF16 only for bfloat16: there float32 is computed only if it was asked for.
        Without it these products are faster than those of float32, and their error is below that of
        bfloat16. With AMX only for few rows.
        """
        if not fits(columns, group):
            return False
        if self.level < AVX512:
            return True
        return dtype == torch.bfloat16 and (self.level < AMX or rows <= _MOST_ROWS_WITH_AMX)

    def multiply(
        self, x: Tensor, matrix: FourBitMatrix | Int8Matrix, bias: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Return x @ matrix.T + bias; see Kernel."""
        wide = x.dtype != torch.bfloat16
        flat = (x.float() if wide else x).contiguous()
        assert flat.is_cpu
        assert flat.shape[-1] == matrix.columns
        assert fits(matrix.columns, matrix.group)
        out = torch.empty(*x.shape[:-1], matrix.rows, dtype=flat.dtype)
        failed = self._product(
            matrix.address, self.level, wide, flat.data_ptr(), flat.numel() // matrix.columns,
            out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError
        out = out.to(x.dtype)
        return out if bias is None else out.add_(bias)

    def multiply_each(
        self,
        xs: Sequence[Tensor],
        matrix: FourBitMatrix | Int8Matrix,
        bias: Tensor | None,
        scratch: Scratch,
    ) -> list[Tensor]:
        """Multiply all rows in one call: they do not depend on each other."""
        return as_single(self.multiply(as_rows(xs), matrix, bias, scratch))


class GemvKernel:
    """Few rows times a 4-bit matrix, computed in float32.

    A row's result does not depend on the other rows or on the number of threads. Relative Frobenius
    error against the reference: below 1e-5.
    """

    name = "gemv"

    def __init__(self, library: Library) -> None:
        self._gemv = library.functions.gemv_four_bit
        self._gemv.argtypes = [_VOID, _VOID, _LONG, _VOID, _INT]

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for few rows that are not bfloat16, and whole groups per row; see Kernel."""
        few = dtype != torch.bfloat16 and rows <= _MOST_FLOAT_ROWS
        return few and fits(columns, group)

    def multiply(
        self, x: Tensor, matrix: FourBitMatrix, bias: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Return x @ matrix.T + bias; see Kernel."""
        flat = x.float().contiguous()
        assert flat.is_cpu
        assert flat.shape[-1] == matrix.columns
        out = torch.empty(*x.shape[:-1], matrix.rows)
        failed = self._gemv(
            matrix.address, flat.data_ptr(), flat.numel() // matrix.columns, out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError
        out = out.to(x.dtype)
        return out if bias is None else out.add_(bias)

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: FourBitMatrix, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Multiply all rows in one call: they do not depend on each other."""
        return as_single(self.multiply(as_rows(xs), matrix, bias, scratch))


class GemvDequantizer:
    """The dequantizer of gemv.c: float32, and bfloat16 with AVX512."""

    def __init__(self, library: Library) -> None:
        self.level = library.level
        self._dequantize = library.functions.dequantize_four_bit
        self._dequantize.argtypes = [_VOID, _INT, _LONG, _LONG, _VOID, _INT]

    def takes(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True for whole groups per row and a supported dtype; see Dequantizer."""
        if dtype == torch.bfloat16:
            return fits(columns, group) and self.level >= AVX512
        return fits(columns, group) and dtype == torch.float32

    def filler(self, matrix: FourBitMatrix, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows; see Dequantizer. It needs no scratch."""
        return lambda start, end, out: self.dequantize(matrix, start, out)

    def dequantize(self, matrix: FourBitMatrix, start: int, out: Tensor) -> None:
        """Fill `out` [rows, in_features] with rows from `start` on, as dequantize_reference does.

        out  contiguous float32 or bfloat16; bit-identical to the reference
        """
        rows, columns = out.shape
        assert columns == matrix.columns
        assert 0 <= start <= start + rows <= matrix.rows
        require(out, out.dtype, rows * columns)
        self._dequantize(
            matrix.address, out.dtype == torch.float32, start, start + rows, out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip


def fits(columns: int, group: int) -> bool:
    """Return True if each row has whole groups, and each group whole units of the C functions."""
    return columns % group == 0 and group % _UNIT == 0 and columns <= _WIDEST
