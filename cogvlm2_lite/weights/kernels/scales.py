"""The float32 scales of a 4-bit matrix; they may be stored in 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.nf4 import expand_scales
from cogvlm2_lite.weights.kernels.scratch import Scratch

Expand = Callable[[Tensor, Tensor, Tensor, float, Tensor], None]
"""Fills its last argument, [groups] float32; the other arguments are those of nf4.expand_scales."""


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
