"""GEMM: many rows times a 4-bit matrix on processors with AMX, written in C (gemm_amx.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.calls import longs, pointer, require
from cogvlm2_lite.weights.kernels.interface import as_rows, as_single
from cogvlm2_lite.weights.kernels.library import AMX, Library
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.scales import Expand, float_scales
from cogvlm2_lite.weights.kernels.scratch import Scratch

_UNIT = 64
_FEWEST_ROWS = 33
"""Fewer rows are products of integers, whose rows have the same bits as alone."""
_MOST_THREADS = 64
"""Each thread has its own sums, and all of them together have 12 MiB."""


class GemmAmxKernel:
    """Many rows of bfloat16 times a 4-bit matrix.

    Weights are rounded to bfloat16; sums are float32. A result depends only on its own row and
    column, not on the number of rows or threads.
    """

    name = "gemm_amx"

    def __init__(self, library: Library, expand: Expand) -> None:
        self._functions = library.functions
        self._functions.gemm_amx_room.restype = ctypes.c_longlong
        self._expand = expand

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for many rows of bfloat16 and whole groups per row; see Kernel."""
        whole = columns % group == 0 and group % _UNIT == 0
        return whole and dtype == torch.bfloat16 and rows >= _FEWEST_ROWS

    def room_bytes(self, rows: int, *, columns: int, threads: int) -> int:
        """Return the bytes of scratch that `multiply` needs besides "scales", up to 28 MiB."""
        return int(self._functions.gemm_amx_room(*longs(columns, rows), threads))

    def multiply(
        self, x: Tensor, matrix: FourBitMatrix, bias: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Return x @ matrix.T + bias in bfloat16; see Kernel."""
        columns = matrix.columns
        scales = float_scales(matrix, self._expand, scratch)
        flat = x.reshape(-1, columns).contiguous()
        rows = flat.shape[0]
        threads = min(torch.get_num_threads(), _MOST_THREADS)
        require(flat, torch.bfloat16, rows * columns)
        require(scales, torch.float32, matrix.rows * columns // matrix.group)
        if bias is not None:
            require(bias, torch.bfloat16, matrix.rows)
        size = self.room_bytes(rows, columns=columns, threads=threads)
        room = scratch.take("weights", (size,), torch.uint8)
        out = torch.empty(rows, matrix.rows, dtype=torch.bfloat16)
        self._functions.gemm_amx_four_bit(
            ctypes.c_void_p(matrix.address), pointer(scales), pointer(flat), *longs(rows),
            pointer(bias), pointer(out), pointer(room), threads,
        )  # fmt: skip
        return out.view(*x.shape[:-1], matrix.rows)

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: FourBitMatrix, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Multiply all rows in one call: they do not depend on each other."""
        return as_single(self.multiply(as_rows(xs), matrix, bias, scratch))


def open_gemm_amx(library: Library, expand: Expand) -> GemmAmxKernel | None:
    """Return the kernel; None if the CPU has no AMX or the system does not permit its use."""
    return GemmAmxKernel(library, expand) if library.level >= AMX else None
