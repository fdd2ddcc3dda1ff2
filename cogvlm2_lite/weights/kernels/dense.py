"""Plain matrices on the CPU, where torch's first choice is not the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_onednn() -> Iterator[None]:
    """Let torch use its own kernels instead of oneDNN's.

    For one row of bfloat16 they read a matrix 1.4 to 2 times as fast: 15 to 21 GB/s on one core
    where oneDNN's, made for many rows, reach 11. The switch is one of the whole process; another
    thread that multiplied in between would get the same result, only at another speed.
    """
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)
