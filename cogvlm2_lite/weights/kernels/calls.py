"""Arguments of C functions. They must be checked here, because the functions do not check them."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor


def require(tensor: Tensor, dtype: torch.dtype, count: int) -> None:
    """Assert that a CPU tensor is contiguous, of this type, and has at least `count` numbers."""
    assert tensor.is_cpu
    assert tensor.dtype == dtype, f"{tensor.dtype} is not {dtype}"
    assert tensor.is_contiguous()
    assert tensor.numel() >= count, f"{tensor.numel()} elements, {count} needed"


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Return the address of a tensor's numbers; NULL for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def longs(*numbers: int) -> tuple[ctypes.c_longlong, ...]:
    """Return integers as 64-bit C arguments."""
    return tuple(ctypes.c_longlong(number) for number in numbers)
