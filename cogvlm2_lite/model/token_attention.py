"""Attention of one token per sequence, for decoding: the fastest implementation on each device.

`reference`, torch's own attention, defines the right result; the queries of a group take the place
of tokens. The others have the same signature:

q        [batch, kv_heads, group, head_dim], a group of query heads shares a key/value head
k, v     [batch, kv_heads, keys, head_dim]
mask     [batch or 1, 1, 1, keys] bool, True where a key may be seen, or what is added to the scores
         in the dtype of q (`key_bias`); None: no mask
Returns  [batch, kv_heads, group, head_dim], scale head_dim^-0.5
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.weights.kernels.attention import TokenAttentionKernel
from cogvlm2_lite.weights.kernels.library import open_library

TokenAttend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]

HIDDEN = -30_000.0
"""Added to the scores of keys that must not be seen. The softmax gives them exactly 0, and a part
of the keys in which none may be seen is still defined, as it is not with -inf."""

_BLOCK = 128
"""Keys that torch's memory-efficient kernel reads at a time. A part has one block or two."""
_MOST_PARTS = 32


@dataclass(frozen=True, kw_only=True)
class TokenAttentionChoice:
    """An implementation, and why it was chosen; `doctor` shows the reason.

    kernel  the C kernel, if it was chosen: it computes several tokens of a sequence in one call
    """

    name: str
    reason: str
    attend: TokenAttend
    kernel: TokenAttentionKernel | None = None


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return torch's own attention."""
    if mask is not None:
        mask = mask.expand(-1, -1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, mask)


def key_bias(slot: Tensor, keys: int, dtype: torch.dtype) -> Tensor:
    """Return the mask of a token at `slot` [1] int64, which sees the keys up to itself.

    Returns [1, 1, 1, keys]: what is added to its scores. A layer needs no conversion, which for a
    bool mask are three operations.
    """
    hidden = torch.arange(keys, device=slot.device) > slot
    return (hidden.to(dtype) * HIDDEN)[None, None, None]


def split_keys(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention, computed for parts of the keys that are merged; for GPUs.

    torch's kernel for a masked attention runs one block of threads per head, eight for the 19B
    model, and each reads all keys in turn. Parts take the place of sequences here, so that a GPU
    reads with many blocks at once.
    """
    batch, heads, group = q.shape[:3]
    keys, width = k.shape[2:]
    if mask is None or mask.dtype != q.dtype or batch != 1:
        return reference(q, k, v, mask)
    # 1. Parts of equal size: the last one is filled up if the cache was cut at its limit.
    size = _BLOCK if keys <= _BLOCK * _MOST_PARTS else 2 * _BLOCK
    missing = -keys % size
    if missing:
        k, v = (F.pad(each, (0, 0, 0, missing)) for each in (k, v))
        mask = F.pad(mask, (0, missing), value=HIDDEN)
    parts = (keys + missing) // size
    # [1, kv_heads, parts * size, head_dim] -> [parts, kv_heads, size, head_dim], without a copy
    k, v = (each.view(heads, parts, size, width).transpose(0, 1) for each in (k, v))
    bias = mask.view(parts, 1, 1, size).expand(-1, heads, group, -1)
    # 2. The attention of each part, and the logarithm of the sum of its exponentials.
    found, sums, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q.expand(parts, -1, -1, -1), k, v, bias, True
    )
    # 3. Their mean, weighted by the sums, in float32. torch pads the sums of a head.
    shares = torch.softmax(sums[:, :, :group], dim=0)
    merged: Tensor = (found * shares.unsqueeze(-1)).sum(0)
    return merged.to(q.dtype).unsqueeze(0)


def choose_token_attention(
    device: torch.device, dtype: torch.dtype, head_dim: int
) -> TokenAttentionChoice:
    """Return the fastest implementation for a device."""
    reason = "the default"
    backend = backend_of(device)
    if backend.launches_kernels:
        return _checked_split(device, dtype, head_dim)
    if backend.uses_ram:
        try:
            kernel = TokenAttentionKernel(open_library())
        except OSError as error:
            reason = str(error)
        else:
            if kernel.takes(head_dim=head_dim, dtype=dtype):
                return _checked(kernel, head_dim, dtype)
            reason = "our C kernel needs float32, or bfloat16, AVX512-BF16 and heads of 128"
    return _by_torch(reason)


def _by_torch(reason: str) -> TokenAttentionChoice:
    return TokenAttentionChoice(name="torch SDPA", reason=reason, attend=reference)


def _checked(
    kernel: TokenAttentionKernel, head_dim: int, dtype: torch.dtype
) -> TokenAttentionChoice:
    """Return the C kernel if its result on a small example is right, else torch's attention."""

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None or q.requires_grad or k.requires_grad:
            return reference(q, k, v, mask)
        return torch.stack([kernel.attend(*sequence) for sequence in zip(q, k, v, strict=True)])

    sample = torch.arange(3 * 2 * 300 * head_dim) * 1201 % 4093 / 2046.5 - 1
    q, k, v = sample.to(dtype).view(3, 1, 2, 300, head_dim)
    right = reference(q[:, :, :4].float(), k.float(), v.float())
    if torch.allclose(attend(q[:, :, :4], k, v).float(), right, rtol=0.02, atol=0.002):
        uses = "AVX512-BF16" if dtype == torch.bfloat16 else "AVX2"
        reason = f"our C kernel was built, and the CPU has {uses}"
        return TokenAttentionChoice(name="C kernel", reason=reason, attend=attend, kernel=kernel)
    return _by_torch("our C kernel gives other numbers than it should")


def _checked_split(device: torch.device, dtype: torch.dtype, head_dim: int) -> TokenAttentionChoice:
    """Return `split_keys` if its result on a small example is right, else torch's attention.

    torch's function for parts is a private one, which another version may change.
    """
    keys, seen = 8 * _BLOCK, 3 * _BLOCK + 5  # parts are seen whole, in part, and not at all
    sample = torch.arange(2 * 2 * keys * head_dim) * 1201 % 4093 / 2046.5 - 1
    k, v = sample.view(2, 1, 2, keys, head_dim)
    # Sums and values change from part to part, and in the other direction in the second head: a
    # part with a wrong share, or of another head, changes the result.
    rising = torch.linspace(0.1, 2, keys)
    ramps = torch.stack((rising, rising.flip(0))).view(1, 2, keys, 1)
    q, k, v = (each.to(dtype) for each in (2 * k[:, :, 7:11], k * ramps, v + ramps))
    right = reference(q.float(), k[:, :, :seen].float(), v[:, :, :seen].float())
    try:
        q, k, v = (each.to(device) for each in (q, k, v))
        mask = key_bias(torch.tensor([seen - 1], device=device), keys, dtype)
        out = split_keys(q, k, v, mask).float().cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        if isinstance(error, RuntimeError) and backend_of(device).is_out_of_memory(error):
            raise
        first_line = str(error).strip().partition("\n")[0]
        return _by_torch(f"attention over parts of the keys does not work here: {first_line}")
    if not float((out - right).norm() / right.norm()) < 0.01:  # also if it is not a number
        return _by_torch("attention over parts of the keys gives other numbers than it should")
    return TokenAttentionChoice(
        name="split keys",
        reason="torch SDPA reads all keys of a head with one block of threads",
        attend=split_keys,
    )
