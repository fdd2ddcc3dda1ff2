"""A rotation that spreads a large number of a vector over all of them."""

from __future__ import annotations

import torch
from torch import Tensor


def hadamard(x: Tensor) -> Tensor:
    """Return the rows of x [..., width] times an orthonormal Hadamard matrix, in the type of x.

    The matrix is symmetric, so it is its own inverse. A width that is no power of two is split into
    the largest powers of two, each with a matrix of its own: 48 into 32 and 16. The result is
    computed in float32 with sums and differences of numbers, so that the bits of a row do not
    depend on the other rows, or on the number of threads.
    """
    y = x.to(torch.float32, copy=True)
    begin, left = 0, x.shape[-1]
    while left:
        width = 1 << (left.bit_length() - 1)
        part = y[..., begin : begin + width]
        step = 1
        while step < width:
            first, second = part.view(*x.shape[:-1], -1, 2, step).unbind(-2)
            total = first + second
            torch.sub(first, second, out=second)
            first.copy_(total)
            step *= 2
        part *= width**-0.5
        begin, left = begin + width, left - width
    return y.to(x.dtype)
