"""Quantized matrices in their stored layout, with their tensors on one device."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache, cached_property
from math import gcd

import torch
from torch import Tensor

from cogvlm2_lite.weights.catalog import INT8_GROUP
from cogvlm2_lite.weights.kernels.calls import pointer, require

SCALE_GROUP = 256
"""Scales that share one float32 in double quantization."""

MOST_LEVEL = 8191
"""The largest level as an integer: see integer.h."""


class _Matrix(ctypes.Structure):
    """`Matrix` in matrix.h."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("codes", "levels", "scales", "scale_codes", "outer_scales", "scale_map")
        ),
        *((name, ctypes.c_longlong) for name in ("rows", "columns", "group")),
        ("scale_offset", ctypes.c_float),
        ("level_step", ctypes.c_float),
        ("integer_levels", ctypes.c_void_p),
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class FourBitMatrix:
    """A matrix in NF4 or FP4, in bitsandbytes' layout: groups may span rows.

    rows, columns, group  group is the number of weights that share a scale
    quant_type     the name of its levels: "nf4" or "fp4"
    codes          [numel / 2 rounded up, 1] uint8, high half first, row after row
    absmax         [groups] float32, or uint8 with double quantization
    levels         [16] float32
    nested_absmax  [groups / 256 rounded up] float32; None without double quantization
    nested_map     [256] float32, the values of the 8-bit codes; None without
    nested_offset  added to each looked-up scale
    offset         the same as a float32 scalar on the device, for bitsandbytes; None without
    """

    rows: int
    columns: int
    group: int
    quant_type: str
    codes: Tensor
    absmax: Tensor
    levels: Tensor
    nested_absmax: Tensor | None = None
    nested_map: Tensor | None = None
    nested_offset: float = 0.0
    offset: Tensor | None = None

    @property
    def nbytes(self) -> int:
        pieces = (self.codes, self.absmax, self.levels, self.nested_absmax, self.nested_map)
        return sum(piece.nbytes for piece in pieces if piece is not None)

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def row_multiple(self) -> int:
        """A new group (and a new byte, as groups are even) starts at each multiple of this row."""
        return row_multiple(self.columns, self.group)

    @property
    def groups(self) -> int:
        return self.absmax.numel()

    def part(self, start: int, end: int) -> tuple[Tensor, slice]:
        """Return the codes of rows from `start` to `end`, and where their scales are.

        start  a multiple of row_multiple
        """
        first, last = start * self.columns, end * self.columns
        groups = slice(first // self.group, -(-last // self.group))
        return self.codes[first // 2 : -(-last // 2)], groups

    @property
    def address(self) -> int:
        """Address of the C struct; only on the CPU, and with whole groups in each row."""
        return ctypes.addressof(self._struct)

    @cached_property
    def _struct(self) -> _Matrix:
        """The C struct, checked and built once instead of for every token."""
        groups = self.rows * self.columns // self.group
        nested = self.nested_absmax is not None
        require(self.codes, torch.uint8, self.rows * self.columns // 2)
        require(self.absmax, torch.uint8 if nested else torch.float32, groups)
        require(self.levels, torch.float32, 16)
        if nested:
            assert self.nested_absmax is not None
            assert self.nested_map is not None
            require(self.nested_absmax, torch.float32, -(-groups // SCALE_GROUP))
            require(self.nested_map, torch.float32, 256)
        integers, step = integer_levels(tuple(self.levels.tolist()))
        return _Matrix(
            codes=pointer(self.codes),
            levels=pointer(self.levels),
            scales=pointer(None if nested else self.absmax),
            scale_codes=pointer(self.absmax if nested else None),
            outer_scales=pointer(self.nested_absmax),
            scale_map=pointer(self.nested_map),
            rows=self.rows,
            columns=self.columns,
            group=self.group,
            scale_offset=self.nested_offset,
            level_step=step,
            integer_levels=pointer(integers),
        )


@cache
def integer_levels(levels: tuple[float, ...]) -> tuple[Tensor, float]:
    """Return levels as integers [16] int16, and the value of 1.

    The largest level becomes the integer, from half of MOST_LEVEL on, with which the largest
    rounding error is smallest: 3e-5 of the largest level for NF4, none for FP4. The tensor is
    cached, so its address stays valid.
    """
    exact = torch.tensor(levels, dtype=torch.float64)
    most = float(exact.abs().max())
    if most == 0:
        return torch.zeros(len(levels), dtype=torch.int16), 0.0
    highest = torch.arange(MOST_LEVEL // 2 + 1, MOST_LEVEL + 1, dtype=torch.float64).view(-1, 1)
    scaled = exact / most * highest
    errors = ((scaled - scaled.round()).abs() / highest).amax(dim=1)
    best = int(errors.argmin())
    return scaled[best].round().to(torch.int16), most / float(highest[best])


def row_multiple(columns: int, group: int) -> int:
    """Return the number of rows after which groups that span rows end together with a row."""
    return group // gcd(group, columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Matrix:
    """A blockwise int8 matrix (layout: weights/catalog.py).

    codes   [rows, columns] int8
    scales  [rows, columns / 64 rounded up] float32; each row starts with a new group
    """

    codes: Tensor
    scales: Tensor
    group: int = INT8_GROUP
    row_multiple: int = 1

    @property
    def rows(self) -> int:
        return self.codes.shape[0]

    @property
    def columns(self) -> int:
        return self.codes.shape[1]

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def address(self) -> int:
        """Address of the C struct; only on the CPU, and with whole groups in each row."""
        return ctypes.addressof(self._struct)

    @cached_property
    def _struct(self) -> _Matrix:
        """The C struct, checked and built once instead of for every token."""
        require(self.codes, torch.int8, self.rows * self.columns)
        require(self.scales, torch.float32, self.rows * self.columns // self.group)
        return _Matrix(
            codes=pointer(self.codes),
            scales=pointer(self.scales),
            rows=self.rows,
            columns=self.columns,
            group=self.group,
            level_step=1.0,
        )
