"""Attention of many queries, for the vision tower and prefill: the fastest on each device.

`reference` defines the right result. The others have the same signature:

q, k, v  [batch, heads, tokens, head_dim]
Returns  [batch, heads, tokens, head_dim], scale head_dim^-0.5

There is no mask: prefill has a function of its own (`AttentionChoice.causal`), if any.
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
from cogvlm2_lite.model.causal_attention import CausalAttend
from cogvlm2_lite.weights.kernels.attention_many import ManyQueriesKernel, open_many_queries
from cogvlm2_lite.weights.kernels.library import open_library

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

TILES, VECTORS = "AMX kernel", "AVX512 kernel"
"""The names of our C kernels, in a backend's answer."""

CHUNK = 256
"""Queries per matrix product. 128 to 512 are equally fast; 256 x 9217 scores take 4.7 MB."""


@dataclass(frozen=True, kw_only=True)
class AttentionChoice:
    """An implementation of attention, and why it was chosen; `doctor` shows the reason.

    attend  for the vision tower
    causal  for prefill; None: torch's attention, see attention.py
    """

    name: str
    reason: str
    attend: Attend
    causal: CausalAttend | None = None


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return torch's own attention."""
    return F.scaled_dot_product_attention(q, k, v)


def chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention computed as matrix products over chunks of queries.

    The scores are rounded to the tensors' type. At head_dim 112 this is 1.6 to 2.4 times as fast
    as torch's CPU kernel with AVX512-BF16. Its error against
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
    if name in (TILES, VECTORS):
        return _checked(name, reason)
    return AttentionChoice(name=name, reason=reason, attend=WAYS[name])


def _checked(name: str, reason: str) -> AttentionChoice:
    """Return our C kernel if it works and is right on a small example, else torch's attention."""
    other = _by_torch if name == TILES else _by_chunks
    try:
        kernel = open_many_queries(open_library(), amx=name == TILES)
    except OSError as error:
        return other(str(error))
    if kernel is None:
        return other(f"our {name} is switched off, or the system does not permit it")
    if not all(_is_right(kernel, head_dim) for head_dim in (112, 128)):
        return other(f"our {name} gives other numbers than it should")

    def takes(q: Tensor) -> bool:
        # It has no backward pass.
        return kernel.takes(head_dim=q.shape[3], dtype=q.dtype) and not q.requires_grad

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not takes(q):
            return reference(q, k, v)
        return kernel.attend(q, k, v, causal=False).transpose(1, 2)

    def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        if not takes(q):
            return None
        return kernel.attend(q, k, v, causal=True).flatten(2)

    return AttentionChoice(name=name, reason=reason, attend=attend, causal=causal)


def _is_right(kernel: ManyQueriesKernel, head_dim: int) -> bool:
    """Return whether two query heads of 41 tokens after 100 others have the right results."""
    # No random numbers and no sine: torch's sine may differ from call to call (model/rotary.py).
    sample = torch.arange(4 * 141 * head_dim) * 1201 % 4093 / 2046.5 - 1
    heads = sample.to(torch.bfloat16).view(1, 4, 141, head_dim)
    q, k, v = heads[:, :2, 100:], heads[:, 2:3], heads[:, 3:]
    visible = torch.arange(141) <= torch.arange(100, 141).unsqueeze(1)
    wide_k, wide_v = (each.float().expand(-1, 2, -1, -1) for each in (k, v))
    right = F.scaled_dot_product_attention(q.float(), wide_k, wide_v, visible)
    out = kernel.attend(q, k, v, causal=True).transpose(1, 2).float()
    return float((out - right).norm() / right.norm()) < 0.01  # False if it is not a number


def _by_torch(reason: str) -> AttentionChoice:
    return AttentionChoice(name="torch SDPA", reason=reason, attend=reference)


def _by_chunks(reason: str) -> AttentionChoice:
    return AttentionChoice(name="chunked matmul", reason=reason, attend=chunked)


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
