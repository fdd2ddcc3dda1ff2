"""The float32 scales of a 4-bit matrix; they may be stored in 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.interface import Fill
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix
from cogvlm2_lite.weights.kernels.nf4 import expand_scales
from cogvlm2_lite.weights.kernels.scratch import Scratch

Expand = Callable[[Tensor, Tensor, Tensor, float, Tensor], None]
"""Fills its last argument, [groups] float32; the other arguments are those of nf4.expand_scales."""

WINDOW_GROUPS = 1 << 20
"""Scales that are held in float32 at a time, 4 MiB: more than any matrix of a layer of the 19B
model has. lm_head has 8 times as many, 31 MiB, which no plan has."""

SCALE_BYTES = 4

FillPart = Callable[[Tensor, Tensor, Tensor], None]
"""Dequantizes codes with their scales [groups] float32 into a tensor."""


def expand_with_torch(
    absmax: Tensor, nested_absmax: Tensor, nested_map: Tensor, offset: float, out: Tensor
) -> None:
    """Fill `out` [groups] float32 with torch."""
    out.copy_(expand_scales(absmax, nested_absmax, nested_map, offset))


def float_scales(matrix: FourBitMatrix, expand: Expand, scratch: Scratch | None) -> Tensor:
    """Return the scales [groups] float32.

    scratch  holds them ("scales") if they must be computed; None: allocate new memory
    """
    if matrix.nested_absmax is None:
        return matrix.absmax
    assert matrix.nested_map is not None
    shape = (matrix.absmax.numel(),)
    out = torch.empty(shape) if scratch is None else scratch.take("scales", shape, torch.float32)
    expand(matrix.absmax, matrix.nested_absmax, matrix.nested_map, matrix.nested_offset, out)
    return out


def fill_in_windows(
    matrix: FourBitMatrix, expand: Expand, scratch: Scratch, fill_part: FillPart
) -> Fill:
    """Return a function that dequantizes rows and never computes more scales than a window has.

    The scales of a window are computed when the first of its rows is dequantized, and stay in
    scratch "scales" for the rows that follow.
    """
    window = _Window(matrix, expand, scratch)
    multiple = matrix.row_multiple
    # A window may start up to SCALE_GROUP - 1 groups before a row.
    weights = (WINDOW_GROUPS - SCALE_GROUP) * matrix.group
    step = max(1, weights // matrix.columns // multiple) * multiple

    def fill(start: int, end: int, out: Tensor) -> None:
        for first in range(start, end, step):
            last = min(first + step, end)
            codes, absmax = window.part(first, last)
            fill_part(codes, absmax, out[first - start : last - start])

    return fill


class _Window:
    """Some of a matrix's scales in float32."""

    def __init__(self, matrix: FourBitMatrix, expand: Expand, scratch: Scratch) -> None:
        self._matrix, self._expand, self._scratch = matrix, expand, scratch
        self._begin = 0
        self._scales = matrix.absmax if matrix.nested_absmax is None else matrix.absmax[:0]

    def part(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the codes and scales of rows; see FourBitMatrix.part."""
        codes, groups = self._matrix.part(start, end)
        if groups.start < self._begin or groups.stop > self._begin + self._scales.numel():
            self._move(groups.start, groups.stop)
        return codes, self._scales[groups.start - self._begin : groups.stop - self._begin]

    def _move(self, first: int, last: int) -> None:
        matrix = self._matrix
        assert matrix.nested_absmax is not None
        assert matrix.nested_map is not None
        self._begin = first // SCALE_GROUP * SCALE_GROUP
        end = min(max(self._begin + WINDOW_GROUPS, last), matrix.groups)
        self._scales = self._scratch.take("scales", (end - self._begin,), torch.float32)
        self._expand(
            matrix.absmax[self._begin : end],
            matrix.nested_absmax[self._begin // SCALE_GROUP :],
            matrix.nested_map,
            matrix.nested_offset,
            self._scales,
        )
