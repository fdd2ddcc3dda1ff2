"""The interface of a kernel: one way to multiply the matrices of one storage kind.

A new kernel is one file with a class that has these methods, and one line in `choice.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.scratch import Scratch

M = TypeVar("M")
"""The class of a storage kind's matrices: FourBitMatrix, Int8Matrix, or Tensor."""

Given = TypeVar("Given", contravariant=True)

Fill = Callable[[int, int, Tensor], None]
"""Dequantizes rows; called with the first row, the last row + 1 and the tensor to fill."""

_CACHED_ROWS = 64


class Kernel(Protocol[Given]):
    """One way to multiply, on one device."""

    @property
    def name(self) -> str:
        """Its name in `doctor` and `bench`."""

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True if the kernel supports this and is fast for it.

        rows     of the inputs
        height   rows of the matrix
        columns  of the matrix
        group    weights that share a scale; 0 for a dense matrix
        dtype    of the inputs
        """

    def multiply(self, x: Tensor, matrix: Given, bias: Tensor | None, scratch: Scratch) -> Tensor:
        """Return x @ matrix.T + bias.

        x        [..., in_features]
        bias     [out_features] or None
        Returns  [..., out_features], dtype of x
        """

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: Given, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Return x @ matrix.T + bias for each x, bit-identical to `multiply` of it alone.

        xs  one row each, [1, 1, in_features]. A kernel whose results don't depend on the number of
            rows computes them in one call (`as_rows`, `as_single`).
        """


class Dequantizer(Protocol[Given]):
    """One way to dequantize a matrix, on one device."""

    def takes(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True if it can dequantize such a matrix into this dtype."""

    def filler(self, matrix: Given, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows; valid until scratch "scales" is taken again."""


class Quantized(Protocol):
    """The common interface of quantized matrices.

    rows, columns  its shape
    group          weights that share a scale
    row_multiple   a new group starts at every row that is a multiple of this; dequantizing must
                   start at such a row
    """

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def group(self) -> int: ...
    @property
    def row_multiple(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def device(self) -> torch.device: ...


Q = TypeVar("Q", bound=Quantized)


class Dequantizers(Generic[Q]):
    """Dequantizers in order of preference; the last one supports everything."""

    def __init__(self, *dequantizers: Dequantizer[Q]) -> None:
        self._dequantizers = dequantizers

    def filler(self, matrix: Q, dtype: torch.dtype, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows into this dtype, see Dequantizer.filler."""
        for dequantizer in self._dequantizers:
            if dequantizer.takes(columns=matrix.columns, group=matrix.group, dtype=dtype):
                return dequantizer.filler(matrix, scratch)
        raise AssertionError(f"nothing dequantizes a group of {matrix.group} into {dtype}")


class KernelList(Generic[M]):
    """The kernels for one storage kind in order of preference; the last one supports everything."""

    def __init__(self, *kernels: Kernel[M]) -> None:
        self.kernels = kernels
        self._found: dict[tuple[int, int, int, int, torch.dtype], Kernel[M]] = {}

    def first(
        self, rows: int, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> Kernel[M]:
        """Return the first kernel that supports this, see Kernel.takes.

        Cached for few rows: decoding needs the same few shapes for every token.
        """
        key = (rows, height, columns, group, dtype)
        kernel = self._found.get(key)
        if kernel is None:
            kernel = self._search(*key)
            if rows <= _CACHED_ROWS:
                self._found[key] = kernel
        return kernel

    def _search(
        self, rows: int, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> Kernel[M]:
        for kernel in self.kernels:
            if kernel.takes(rows, height=height, columns=columns, group=group, dtype=dtype):
                return kernel
        raise AssertionError(f"no kernel takes {rows} rows of {dtype}")


def as_rows(xs: Sequence[Tensor]) -> Tensor:
    """Return rows of [1, 1, features] each as one tensor [rows, features]."""
    return torch.cat([x.view(1, x.shape[-1]) for x in xs])


def as_single(rows: Tensor) -> list[Tensor]:
    """Return the inverse of `as_rows`: [rows, features] -> [1, 1, features] each."""
    return [row.view(1, 1, -1) for row in rows]
