"""Our own multiplication of many rows on processors with AMX, written in C (gemm_amx.c)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.built import built_kernel
from cogvlm2_lite.weights.kernels.calls import longs, pointer, require
from cogvlm2_lite.weights.kernels.scratch import Scratch

_UNIT = 64
_FEWEST_ROWS = 17
"""Fewer rows are multiplied as fast by gemv.c, which rounds no weight."""
_MOST_THREADS = 64
"""Each has sums of its own, and all of them together have 12 MiB."""


class TileKernels:
    """The function of the library, with every size checked before it is called."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._library.tiles_room.restype = ctypes.c_longlong

    def takes(self, rows: int, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Say whether `four_bit` multiplies this, and is the fastest to do it."""
        whole = columns % group == 0 and group % _UNIT == 0
        return whole and dtype == torch.bfloat16 and rows >= _FEWEST_ROWS

    def room_bytes(self, rows: int, *, columns: int, threads: int) -> int:
        """Give how much room `four_bit` needs while it works."""
        return int(self._library.tiles_room(*longs(columns, rows), threads))

    def four_bit(
        self,
        x: Tensor,
        codes: Tensor,
        scales: Tensor,
        levels: Tensor,
        bias: Tensor | None,
        *,
        group: int,
        scratch: Scratch,
    ) -> Tensor:
        """Give x @ weight.T + bias for a 4-bit matrix.

        x        [rows, in_features] bfloat16
        codes    uint8, two per byte, high half first, row after row
        scales   float32, one per group
        levels   [16] float32
        bias     [out_features] bfloat16
        scratch  has room for up to 28 MiB, and not "scales"
        Returns  [rows, out_features] bfloat16. Weights are rounded to bfloat16, sums are float32. A
                 result depends on its own row and column alone, not on how many rows or threads
                 there are.
        """
        rows, columns = x.shape
        flat = x.contiguous()
        features = codes.numel() * 2 // columns
        threads = min(torch.get_num_threads(), _MOST_THREADS)
        require(flat, torch.bfloat16, rows * columns)
        require(codes, torch.uint8, features * columns // 2)
        require(scales, torch.float32, features * columns // group)
        require(levels, torch.float32, 16)
        if bias is not None:
            require(bias, torch.bfloat16, features)
        size = self.room_bytes(rows, columns=columns, threads=threads)
        room = scratch.take("plain", (size,), torch.uint8)
        out = torch.empty(rows, features, dtype=torch.bfloat16)
        self._library.tiles_four_bit(
            *longs(features, columns, group), pointer(codes), pointer(levels), pointer(scales),
            pointer(flat), *longs(rows), pointer(bias), pointer(out), pointer(room), threads,
        )  # fmt: skip
        return out


def open_tiles() -> TileKernels | None:
    """Load the library that was built with the package; None without it or without AMX."""
    file = built_kernel()
    if file is None:
        return None
    library = ctypes.CDLL(str(file))
    return TileKernels(library) if library.tiles_work() else None
