"""Emulated tensors without memory, for models that are larger than this computer.

Tensors up to SMALL bytes have numbers, as long as these come from other small tensors: positions,
indices, masks of a row, tables. All others only have a shape, on torch's meta device. What the
program reads of such a tensor gets a stand-in: 0, or "equal".

What a GPU's operations allocate on the side is allocated here too: `attention` and `gemm_4bit`
take the decisions that torch and bitsandbytes take on a GPU of compute capability 8.9 with 24
multiprocessors (an RTX 4060).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tests.emulated_cuda.trees import map_tensors, tensors_in

aten = torch.ops.aten

SMALL = 1 << 16
META = torch.device("meta")

_MASK_ALIGNMENT = 8
"""The memory-efficient attention needs rows of a mask to start at multiples of it."""

layouts: dict[Any, Any] = {}
"""What operations return for shapes: torch's own computation of it takes 0.1 to 0.8 ms."""


def plain(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on raw tensors, past all emulation."""
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        return func(*args, **kwargs)


def is_small(tensor: Tensor) -> bool:
    """Return whether a tensor has numbers, if it has memory of its own."""
    return tensor.untyped_storage().nbytes() <= SMALL


def has_numbers(tensor: Tensor) -> bool:
    """Return whether a raw tensor has numbers."""
    return not tensor.is_meta


def layout(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor of the same shape and strides without memory."""
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=dtype or tensor.dtype, device=META
    )


def empty_like(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a new raw tensor for a copy of another one, with numbers if it is small."""
    made: Tensor = plain(aten.empty_like.default, (layout(tensor),), {"dtype": dtype})
    return torch.zeros_like(made, device="cpu") if is_small(made) else made


def compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return what an operation that changes nothing returns: numbers, or only shapes."""
    given = tensors_in((args, kwargs))
    if given and all(map(has_numbers, given)):
        result = plain(func, args, kwargs)
        ours = {t.untyped_storage()._cdata for t in given}
        return map_tensors(lambda t: _shrunk(t, ours), result)
    if func in (aten._local_scalar_dense.default, aten.item.default):
        return plain(func, (torch.zeros((), dtype=given[0].dtype),), {})
    if func is aten.equal.default:
        return True
    if func is aten.is_nonzero.default:
        return False
    shapes = map_tensors(lambda t: layout(t) if has_numbers(t) else t, (args, kwargs))
    args, kwargs = _without_masks(func, shapes[0]), shapes[1]
    if "device" in kwargs:
        kwargs = {**kwargs, "device": META}
    if given and not func.is_view and func not in (aten.reshape.default, aten.alias.default):
        return _computed(func, args, kwargs)
    result = plain(func, args, kwargs)
    if not given and isinstance(result, Tensor) and is_small(result):
        return plain(func, args, {**kwargs, "device": torch.device("cpu")})
    return result


def _shrunk(tensor: Tensor, ours: set[int]) -> Tensor:
    is_new = tensor.untyped_storage()._cdata not in ours
    return layout(tensor) if is_new and not is_small(tensor) else tensor


def _without_masks(func: Any, args: Any) -> Any:
    """Replace bool indices by as many numbers as they could select at most."""
    if func is not aten.index.Tensor:
        return args
    masks = (torch.bool, torch.uint8)
    indices = [
        torch.empty(i.numel(), dtype=torch.int64, device=META)
        if i is not None and i.dtype in masks
        else i
        for i in args[1]
    ]
    return (args[0], indices)


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    """Return new tensors in the shapes of an operation's results."""
    given: list[Tensor] = []
    key = (func, describe(args, given), describe(kwargs, given))
    if key not in layouts:
        result = plain(func, args, kwargs)
        owned = {t.untyped_storage()._cdata for t in tensors_in((args, kwargs))}
        views = any(t.untyped_storage()._cdata in owned for t in tensors_in(result))
        layouts[key] = None if views else result
    known = layouts[key]
    if known is None:
        return plain(func, args, kwargs)
    return map_tensors(layout, known)


def describe(value: Any, found: list[Any]) -> Any:
    """Return a hashable description of arguments, and add their tensors to `found`."""
    if isinstance(value, Tensor):
        found.append(value)
        return (value.shape, value.stride(), value.dtype)
    kind = type(value)
    if kind is list or kind is tuple:
        return tuple([describe(each, found) for each in value])
    if kind is dict:
        return tuple([(name, describe(each, found)) for name, each in value.items()])
    return (value,) if kind is float else value


# --- operations with several kernels, or memory on the side ---------------------------------------


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return scaled_dot_product_attention as torch computes it on an NVIDIA GPU.

    Without a mask it takes flash attention, which returns the sums of the softmax too; with a mask
    the memory-efficient one, for which a bool mask is converted in three kernels, and padded if its
    rows are not aligned. float32 always takes the memory-efficient one.
    """
    from tests.emulated_cuda import tensors

    batch, heads, tokens, _ = query.shape
    width = value.shape[3]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            seen, hidden = (query.new_full((), number) for number in (0.0, -torch.inf))
            attn_mask = torch.where(attn_mask, seen, hidden)
        if any(step % _MASK_ALIGNMENT for step in attn_mask.stride()[:-1]):
            keys = attn_mask.shape[-1]
            more = _MASK_ALIGNMENT - keys % _MASK_ALIGNMENT
            attn_mask = aten.constant_pad_nd(attn_mask, [0, more], 0.0)[..., :keys]
    flash = attn_mask is None and query.dtype != torch.float32
    sums = query.new_empty((batch, heads, tokens), dtype=torch.float32) if flash else None
    tensors.count(query, "flash attention" if flash else "memory-efficient attention")
    out = query.new_empty((batch, tokens, heads, width)).transpose(1, 2)
    del sums, attn_mask
    return out


@functools.cache
def fused_rule() -> Any:
    """Return the module with bitsandbytes' own rule for its fused 4-bit product.

    The product asks the same module, if it was imported.
    """
    import bitsandbytes  # noqa: F401

    with patch.object(torch._C, "_cuda_getCurrentRawStream", lambda index: 0, create=True):
        from bitsandbytes.backends.cuda import ops
    vars(ops)["_gpu_dispatch_props"] = lambda index: (24, 8, 9)
    return ops


def gemm_4bit(
    x: Tensor,
    codes: Tensor,
    shape: Sequence[int],
    absmax: Tensor,
    group: int,
    quant_type: str,
    bias: Tensor | None = None,
    absmax_8bit: Tensor | None = None,
    absmax_code: Tensor | None = None,
    absmax_offset: Tensor | None = None,
) -> Tensor:
    """Return bitsandbytes' product with a 4-bit matrix as on a GPU.

    It is fused for few rows. For more, the whole matrix is dequantized in front of torch's product.
    """
    from tests.emulated_cuda import tensors

    rules, (rows, columns) = fused_rule(), shape
    count = x.numel() // columns
    if (
        count <= rules._gemm_4bit_custom_max_m
        and columns % group == 0
        and rules._gemm_4bit_use_custom_fn(0, x.dtype, count, rows, columns)
    ):
        tensors.count(x, "bitsandbytes gemm_4bit")
        fused: Tensor = x.new_empty((*x.shape[:-1], rows))
        return fused
    if absmax_8bit is not None:
        assert absmax_offset is not None
        tensors.count(x, "bitsandbytes dequantize_blockwise")
        scales = torch.empty_like(absmax_8bit, dtype=torch.float32)
        scales = scales + absmax_offset  # alive until the matrix is dequantized
    tensors.count(x, "bitsandbytes dequantize_4bit")
    weight = x.new_empty((rows, columns))
    return torch.nn.functional.linear(x, weight, bias)


def rms_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Return torch's rms_norm as on a GPU: one kernel, unless the weight has another type."""
    from tests.emulated_cuda import tensors

    if weight is not None and weight.dtype != x.dtype:
        normed: Tensor = aten.rms_norm(x, normalized_shape, weight, eps)
        return normed
    tensors.count(x, "rms_norm")
    _rstd = x.new_empty((*x.shape[: -len(normalized_shape)], 1), dtype=torch.float32)
    return torch.empty_like(x)
