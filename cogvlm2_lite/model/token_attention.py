"""Attention of one token per sequence, for decoding: the fastest implementation on each device.

torch's own attention (`full_attention.reference`) defines the right result; the queries of a group
take the place of tokens. The C kernel has the same signature:

q        [batch, kv_heads, group, head_dim], a group of query heads shares a key/value head
k, v     [batch, kv_heads, keys, head_dim]
Returns  [batch, kv_heads, group, head_dim], scale head_dim^-0.5
"""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.model.full_attention import AttentionChoice, reference
from cogvlm2_lite.weights.kernels.attention import TokenAttentionKernel
from cogvlm2_lite.weights.kernels.library import open_library


def choose_token_attention(
    device: torch.device, dtype: torch.dtype, head_dim: int
) -> AttentionChoice:
    """Return the fastest implementation for a device."""
    reason = "the default"
    if backend_of(device).uses_ram:
        try:
            kernel = TokenAttentionKernel(open_library())
        except OSError as error:
            reason = str(error)
        else:
            if kernel.takes(head_dim=head_dim, dtype=dtype):
                return _checked(kernel, head_dim)
            reason = "our C kernel needs bfloat16, AVX512-BF16 and heads of 128"
    return AttentionChoice(name="torch SDPA", reason=reason, attend=reference)


def _checked(kernel: TokenAttentionKernel, head_dim: int) -> AttentionChoice:
    """Return the C kernel if its result on a small example is right, else torch's attention."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.stack([kernel.attend(*sequence) for sequence in zip(q, k, v, strict=True)])

    sample = torch.sin(torch.arange(3 * 2 * 300 * head_dim) * 0.37).to(torch.bfloat16)
    q, k, v = sample.view(3, 1, 2, 300, head_dim)
    right = reference(q[:, :, :4].float(), k.float(), v.float())
    if torch.allclose(attend(q[:, :, :4], k, v).float(), right, rtol=0.02, atol=0.002):
        reason = "our C kernel was built, and the CPU has AVX512-BF16"
        return AttentionChoice(name="C kernel", reason=reason, attend=attend)
    reason = "our C kernel gives other numbers than it should"
    return AttentionChoice(name="torch SDPA", reason=reason, attend=reference)
