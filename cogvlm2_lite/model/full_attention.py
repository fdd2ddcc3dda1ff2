"""Attention without a mask, for the vision tower: the fastest implementation on each device.

`reference` defines the right result. The others have the same signature:

q, k, v  [batch, heads, tokens, head_dim]
Returns  [batch, heads, tokens, head_dim], scale head_dim^-0.5
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.backends.base import Backend
from cogvlm2_lite.backends.registry import backend_of

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

CHUNK = 256
"""Queries per matrix product. 128 to 512 are equally fast; 256 x 9217 scores take 4.7 MB."""


@dataclass(frozen=True, kw_only=True)
class AttentionChoice:
    """An implementation of attention, and why it was chosen; `doctor` shows the reason."""

    name: str
    reason: str
    attend: Attend


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return torch's own attention."""
    return F.scaled_dot_product_attention(q, k, v)


def chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention computed as matrix products over chunks of queries.

    The scores are rounded to the tensors' type. At head_dim 112 this is 1.6 to 2.4 times as fast
    as torch's CPU kernel with AVX512-BF16, and takes 1.5 times as long with AMX. Its error against
    float32 is 0.0047 (relative Frobenius norm), torch's is 0.0023; the rounding step of bfloat16 is
    0.0039.
    """
    tokens, scale = q.shape[2], q.shape[3] ** -0.5
    out = torch.empty_like(v)
    scores = q.new_empty((min(CHUNK, tokens), tokens))
    heads = zip(*(t.flatten(0, 1) for t in (q, k, v, out)), strict=True)
    for queries, keys, values, target in heads:
        # They are read once per chunk of queries, 36 times for a picture: contiguous is faster.
        scaled, columns, rows = queries * scale, keys.T.contiguous(), values.contiguous()
        for start in range(0, tokens, CHUNK):
            part = scores[: min(CHUNK, tokens - start)]
            torch.mm(scaled[start : start + CHUNK], columns, out=part)
            torch.softmax(part, -1, out=part)
            torch.mm(part, rows, out=target[start : start + CHUNK])
    return out


WAYS: Mapping[str, Attend] = {"torch SDPA": reference, "chunked matmul": chunked}
"""The implementations that a backend may name without measuring."""


def choose_full_attention(
    device: torch.device, dtype: torch.dtype, backend: Backend | None = None
) -> AttentionChoice:
    """Return the attention to use on a device.

    backend  the backend that decides; None: that of the device
    """
    backend = backend or backend_of(device)
    if backend.measures_attention:
        return _fastest(device, dtype)
    name, reason = backend.full_attention(dtype)
    return AttentionChoice(name=name, reason=reason, attend=WAYS[name])


def _fastest(device: torch.device, dtype: torch.dtype) -> AttentionChoice:
    """Return the faster of torch's attention and xformers', if installed, on a real head shape."""
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError:
        return AttentionChoice(
            name="torch SDPA", reason="xformers is not installed", attend=reference
        )

    def xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # xformers takes [batch, tokens, heads, head_dim].
        out: Tensor = memory_efficient_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return out.transpose(1, 2)

    sample = torch.randn((1, 16, 4096, 112), device=device, dtype=dtype)
    try:
        ratio = _seconds(xformers, sample) / _seconds(reference, sample)
    except (NotImplementedError, RuntimeError) as error:
        reason = f"xformers can't serve this GPU: {str(error).splitlines()[0]}"
        return AttentionChoice(name="torch SDPA", reason=reason, attend=reference)
    reason = f"xformers takes {ratio:.2f} times the time of torch SDPA on this GPU"
    if ratio < 0.95:
        return AttentionChoice(name="xformers", reason=reason, attend=xformers)
    return AttentionChoice(name="torch SDPA", reason=reason, attend=reference)


def _seconds(attend: Attend, sample: Tensor) -> float:
    """Return the time of the fastest of five runs after a warm-up."""
    backend = backend_of(sample.device)
    times = []
    for _ in range(6):
        backend.synchronize(sample.device)
        began = time.perf_counter()
        attend(sample, sample, sample)
        backend.synchronize(sample.device)
        times.append(time.perf_counter() - began)
    return min(times[1:])
