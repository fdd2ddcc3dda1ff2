"""Projects patches of a grid that do not overlap: convolutions whose stride is their size."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Project = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Projects each patch of a grid:

grid     [batch, channels, height, width]
kernel   [out, channels, size, size]; height and width are multiples of size
bias     [out]
Returns  [batch, patches, out], patches row by row
"""


def convolved(grid: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Return the projections by torch's convolution: the reference."""
    return F.conv2d(grid, kernel, bias, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)


def multiplied(grid: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Return the projections by one matrix product."""
    batch, channels, height, width = grid.shape
    size = kernel.shape[-1]
    rows, columns = height // size, width // size
    # [batch, channels, rows, size, columns, size] -> [batch, rows, columns, channels, size, size]
    split = grid.reshape(batch, channels, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
    patches = split.reshape(batch, rows * columns, channels * size * size)
    return F.linear(patches, kernel.flatten(1), bias)
