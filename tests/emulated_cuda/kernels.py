"""How many kernels torch launches on a GPU for an operation.

Most operations are one kernel; views and uninitialised tensors are none, and neither is anything
with no elements. The exceptions are in `_KERNELS`, from the sources of torch (ATen/native/cuda)
and bitsandbytes. Copies over the bus and memsets are not kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

EMPTY = (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)
"""Operations that allocate and compute nothing."""

_NONE = (
    aten.record_stream.default,
    aten.set_.source_Storage,
    aten.lift_fresh.default,
    aten.detach.default,
    aten.alias.default,
    aten._local_scalar_dense.default,  # a copy from the device
)

PRODUCTS = (
    aten.mm.default,
    aten.mm.out,
    aten.addmm.default,
    aten.addmm.out,
    aten.addmm_.default,
    aten.bmm.default,
    aten.linear.default,
    aten.matmul.default,
)
"""Operations that call cuBLAS."""

NONZERO = 3
"""Counting, a copy of the count to the host, and writing the indices (CUB)."""


def _index(args: tuple[Any, ...]) -> int:
    """A bool index is converted to numbers first."""
    masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
    return 1 + NONZERO * len(masks)


def _addmm(args: tuple[Any, ...]) -> int:
    """The bias is part of cuBLASLt's product, or copied into the result before it.

    cuBLASLt takes a bias of one dimension with more than one column, and a contiguous result.
    """
    bias, out = args[0], args[3] if len(args) > 3 else None
    fused = bias.dim() == 1 and bias.is_contiguous() and args[2].shape[1] > 1
    if out is not None:
        fused = fused and out.is_contiguous()
        return 1 if fused or out is bias else 2
    return 1 if fused else 2


_KERNELS: Mapping[Any, int | Callable[[tuple[Any, ...]], int]] = {
    aten.index.Tensor: _index,
    aten.index_put_.default: _index,
    aten.index_put.default: lambda args: 1 + _index(args),
    aten.addmm.default: _addmm,
    aten.addmm.out: _addmm,
    aten.nonzero.default: NONZERO,
    # The image is rearranged for cuDNN, and the bias is added after it.
    aten.convolution.default: 2,
    # A copy, then the change in place.
    aten.masked_fill.Scalar: 2,
    aten.masked_fill.Tensor: 2,
    aten.index_fill.int_Scalar: 2,
    aten.index_copy.default: 2,
    aten.index_add.default: 2,
    aten.scatter.src: 2,
    aten.scatter.value: 2,
    # Filling with a value, then copying the tensor into it.
    aten.constant_pad_nd.default: 2,
    # A list of 128,256 numbers: radix sort in 8 passes, with indices; and what gathers its results.
    aten.sort.default: 12,
    aten.sort.stable: 12,
    aten.topk.default: 6,
    aten.cumsum.default: 2,
    aten._unique2.default: 8,
    # Exponential times, division and the place of the largest.
    aten.multinomial.default: 3,
}


def count_kernels(func: Any, args: tuple[Any, ...], results: list[Tensor]) -> int:
    """Return how many kernels an operation launches that does not return views.

    results  the tensors that it writes
    """
    if func in EMPTY or func in _NONE:
        return 0
    if results and not any(prod(t.shape) for t in results):
        return 0
    found = _KERNELS.get(func, 1)
    return found if isinstance(found, int) else found(args)
