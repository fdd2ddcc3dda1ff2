"""Products with inputs of 8 bits (bytes.c): faster, and less exact than all others.

They are used only for matrices whose `Linear.input_bits` is 8.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.calls import require
from cogvlm2_lite.weights.kernels.gemv import fits
from cogvlm2_lite.weights.kernels.interface import as_rows, as_single
from cogvlm2_lite.weights.kernels.library import Library
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.scratch import Scratch

_VOID, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong


class ByteKernel:
    """Rows times a 4-bit or int8 matrix as products of bytes (bytes.h).

    512 inputs of a row share a step, and 512 weights of a row of the matrix, too. The result of a
    row has the same bits with every level of instructions, and does not depend on the other rows or
    on the number of threads. A row with an infinity or NaN becomes NaN. Relative Frobenius error
    against the exact product: about 0.01 for inputs with a normal distribution; where a few inputs
    are 50 times as large as the others, those others lose most of their digits.
    """

    name = "bytes"

    def __init__(self, library: Library) -> None:
        self.level = library.level
        self._product = library.functions.byte_product
        self._product.argtypes = [_VOID, _INT, _INT, _VOID, _LONG, _VOID, _VOID, _INT]

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for whole groups per row, and any number of rows; see Kernel."""
        return fits(columns, group)

    def multiply(
        self, x: Tensor, matrix: FourBitMatrix | Int8Matrix, bias: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Return x @ matrix.T + bias, rounded once; see Kernel."""
        wide = x.dtype != torch.bfloat16
        flat = (x.float() if wide else x).contiguous()
        assert flat.is_cpu
        assert flat.shape[-1] == matrix.columns
        assert fits(matrix.columns, matrix.group)
        if bias is not None:
            bias = bias.float().contiguous()
            require(bias, torch.float32, matrix.rows)
        out = torch.empty(*x.shape[:-1], matrix.rows, dtype=flat.dtype)
        failed = self._product(
            matrix.address, self.level, wide, flat.data_ptr(), flat.numel() // matrix.columns,
            None if bias is None else bias.data_ptr(), out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError
        return out.to(x.dtype)

    def multiply_each(
        self,
        xs: Sequence[Tensor],
        matrix: FourBitMatrix | Int8Matrix,
        bias: Tensor | None,
        scratch: Scratch,
    ) -> list[Tensor]:
        """Multiply all rows in one call: they do not depend on each other."""
        return as_single(self.multiply(as_rows(xs), matrix, bias, scratch))
