"""Our own multiplication of a few rows, and making matrices plain for many, written in C (gemv.c).

Installing the package builds it if a C compiler is there; without one everything works as before,
slower. It reads 4-bit matrices as they are stored, so decoding needs no second copy of them.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.built import built_kernel
from cogvlm2_lite.weights.kernels.calls import longs, pointer, require

_VOID, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
_UNIT = 64
_HEAD_DIM = 128
_WIDEST = 65536
_AVX512_LEVEL = 2
_MAX_ROWS, _MAX_WIDE_ROWS = {1: 16, _AVX512_LEVEL: 24}, 16
"""Up to so many rows (of bfloat16 by level, of float32) it is at least as fast as making matrices
plain and letting torch multiply: measured on layers of the real shapes with one thread, float32
with torch held to AVX2, where it was still 1.24 times as fast at 16."""


class _Matrix(ctypes.Structure):
    """`Matrix` in gemv.c."""

    _fields_ = [
        *((name, _VOID) for name in ("codes", "levels", "plain", "scale_codes", "outer", "map")),
        *((name, _LONG) for name in ("rows", "columns", "group")),
        ("offset", ctypes.c_float),
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredMatrix:
    """The stored pieces of one 4-bit matrix on one device.

    rows, columns, group  group counts the weights that share a scale
    codes          [numel / 2 rounded up] uint8, high half first, row after row
    absmax         [groups] float32, or uint8 when the scales are quantized themselves
    levels         [16] float32
    nested_absmax, nested_map, nested_offset   as in kernels/nf4.NF4Arrays
    """

    rows: int
    columns: int
    group: int
    codes: Tensor
    absmax: Tensor
    levels: Tensor
    nested_absmax: Tensor | None = None
    nested_map: Tensor | None = None
    nested_offset: float = 0.0

    @property
    def address(self) -> int:
        """Where the matrix stands as C takes it; in memory, with whole groups in each row."""
        return ctypes.addressof(self._laid_out)

    @cached_property
    def _laid_out(self) -> _Matrix:
        """Check the pieces and lay them out: once, not for every token."""
        groups = self.rows * self.columns // self.group
        nested = self.nested_absmax is not None
        require(self.codes, torch.uint8, self.rows * self.columns // 2)
        require(self.absmax, torch.uint8 if nested else torch.float32, groups)
        require(self.levels, torch.float32, 16)
        if nested:
            assert self.nested_absmax is not None
            assert self.nested_map is not None
            require(self.nested_absmax, torch.float32, -(-groups // 256))
            require(self.nested_map, torch.float32, 256)
        return _Matrix(
            codes=pointer(self.codes),
            levels=pointer(self.levels),
            plain=pointer(None if nested else self.absmax),
            scale_codes=pointer(self.absmax if nested else None),
            outer=pointer(self.nested_absmax),
            map=pointer(self.nested_map),
            rows=self.rows,
            columns=self.columns,
            group=self.group,
            offset=self.nested_offset,
        )


class RowKernels:
    """The functions of the library, with every size checked before it is called.

    level  of the processor's instructions: 1 for AVX2, 2 for AVX512 with VNNI and BF16 too
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._four_bit = library.rows_four_bit
        self._four_bit.argtypes = [_VOID, _INT, _INT, _VOID, _LONG, _VOID, _INT]
        self._dequantize = library.rows_dequantize
        self._dequantize.argtypes = [_VOID, _INT, _LONG, _LONG, _VOID, _INT]
        self.level = int(library.rows_level())

    def takes(self, rows: int, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Say whether `four_bit` multiplies this, and is faster than dequantizing.

        rows  of the inputs; columns and group are the matrix's
        """
        if not _fits(columns, group):
            return False
        return rows <= (_MAX_ROWS[self.level] if dtype == torch.bfloat16 else _MAX_WIDE_ROWS)

    def takes_dense(self, rows: int, *, columns: int, dtype: torch.dtype) -> bool:
        """Say whether `dense` multiplies this, and is the fastest to do it."""
        return (
            self.level == _AVX512_LEVEL
            and dtype == torch.bfloat16
            and columns % _UNIT == 0
            and rows == 1
        )

    def four_bit(self, x: Tensor, matrix: StoredMatrix) -> Tensor:
        """Give x @ weight.T for a 4-bit matrix.

        x        [..., in_features] float32, bfloat16 or float16
        Returns  [..., out_features] in x's dtype. Bfloat16 inputs are multiplied as whole numbers
                 of 14 bits with one exponent for each 64, levels as such of 15 bits; everything
                 else is float32. A row's result does not depend on the other rows, nor on the
                 number of threads. A row with an infinity or NaN becomes NaN.
        """
        wide = x.dtype != torch.bfloat16
        flat = (x.float() if wide else x).contiguous()
        assert flat.device.type == "cpu"
        assert flat.shape[-1] == matrix.columns
        out = torch.empty(*x.shape[:-1], matrix.rows, dtype=flat.dtype)
        failed = self._four_bit(
            matrix.address, self.level, wide, flat.data_ptr(), flat.numel() // matrix.columns,
            out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError
        return out.to(x.dtype)

    def can_dequantize(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Say whether `dequantize` makes such a matrix plain in this dtype."""
        if dtype == torch.bfloat16:
            return _fits(columns, group) and self.level == _AVX512_LEVEL
        return _fits(columns, group) and dtype == torch.float32

    def dequantize(self, matrix: StoredMatrix, start: int, out: Tensor) -> None:
        """Fill `out` [rows, in_features] with rows from `start` on, as dequantize_reference does.

        out  contiguous float32 or bfloat16; equal to the reference to the bit
        """
        rows, columns = out.shape
        assert columns == matrix.columns
        assert 0 <= start <= start + rows <= matrix.rows
        require(out, out.dtype, rows * columns)
        self._dequantize(
            matrix.address, out.dtype == torch.float32, start, start + rows, out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip

    def dense(self, x: Tensor, weight: Tensor) -> Tensor:
        """Give x @ weight.T for a plain bfloat16 matrix.

        x [rows, in_features], weight [out_features, in_features], both bfloat16; summed in float32
        """
        (rows, columns), features = x.shape, weight.shape[0]
        flat = x.contiguous()
        require(flat, torch.bfloat16, rows * columns)
        require(weight, torch.bfloat16, features * columns)
        out = torch.empty(rows, features)
        self._library.rows_dense(
            *longs(features, columns), pointer(weight), pointer(flat), *longs(rows),
            pointer(out), torch.get_num_threads(),
        )  # fmt: skip
        return out.to(x.dtype)

    def takes_attention(self, *, head_dim: int, dtype: torch.dtype) -> bool:
        """Say whether `attend` computes this."""
        return self.level == _AVX512_LEVEL and dtype == torch.bfloat16 and head_dim == _HEAD_DIM

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Give the attention of one token: softmax(q @ k.T / sqrt(head_dim)) @ v, per head.

        q        [kv_heads, group, head_dim] bfloat16; a group shares its head's keys and values
        k, v     [kv_heads, keys, head_dim] bfloat16, one or more keys; a head's rows lie together
        Returns  [kv_heads, group, head_dim] bfloat16, everything in between float32. Heads do not
                 depend on each other, nor on the number of threads.
        """
        heads, group, width = q.shape
        keys, stride = k.shape[1], k.stride(0)
        flat = q.contiguous()
        require(flat, torch.bfloat16, heads * group * _HEAD_DIM)
        for rows in (k, v):
            assert rows.device.type == "cpu"
            assert rows.dtype == torch.bfloat16
            assert rows.shape == (heads, keys, width) == (heads, keys, _HEAD_DIM)
            assert rows.stride() == (stride, _HEAD_DIM, 1)
        assert keys > 0
        out = torch.empty(heads, group, width)
        self._library.rows_attend(
            *longs(heads, group, keys, stride), pointer(flat), pointer(k), pointer(v),
            ctypes.c_float(width**-0.5), pointer(out), torch.get_num_threads(),
        )  # fmt: skip
        return out.to(q.dtype)


def _fits(columns: int, group: int) -> bool:
    """Say whether rows hold whole groups, and groups whole units of the C functions."""
    return columns % group == 0 and group % _UNIT == 0 and columns <= _WIDEST


def open_rows() -> RowKernels:
    """Load the library that was built with the package.

    Raises OSError with the reason when there is none, or none for this processor.
    """
    file = built_kernel()
    if file is None:
        raise OSError(
            "our C kernel was not built: no C compiler when the package was installed, or its "
            "sources changed since (then install it again)"
        )
    kernels = RowKernels(ctypes.CDLL(str(file)))
    if kernels.level == 0:
        raise OSError("our C kernel needs a processor with AVX2")
    return kernels
