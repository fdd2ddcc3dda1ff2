"""Dense matrices, multiplied by torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from cogvlm2_lite.weights.kernels.scratch import Scratch


class TorchLinear:
    """torch's own multiplication: the reference for all kinds."""

    name = "torch"

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True: torch supports everything."""
        return True

    def multiply(self, x: Tensor, matrix: Tensor, bias: Tensor | None, scratch: Scratch) -> Tensor:
        """Return x @ matrix.T + bias; see Kernel."""
        if x.dtype == torch.bfloat16 and x.numel() == x.shape[-1] and x.is_cpu:
            with _without_onednn():
                return F.linear(x, matrix, bias)
        return F.linear(x, matrix, bias)

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: Tensor, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Multiply one by one: torch's product of several rows may have other last bits."""
        return [self.multiply(x, matrix, bias, scratch) for x in xs]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Make torch use its own kernels instead of oneDNN's.

    For one row of bfloat16 they read a matrix 1.4 to 2 times as fast: 15 to 21 GB/s on one core,
    while oneDNN's kernels, made for many rows, reach 11. The switch affects the whole process;
    another thread that multiplies at the same time gets the same result at another speed.
    """
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)
