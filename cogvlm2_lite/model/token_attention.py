"""Attention of one token per sequence, as decoding does it: the fastest way each device has.

`reference` defines the right result. The other has the same signature:

q        [batch, kv_heads, group, head_dim], a group of query heads shares a key/value head
k, v     [batch, kv_heads, keys, head_dim]
Returns  [batch, kv_heads, group, head_dim], scale head_dim^-0.5
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.model.full_attention import Attend
from cogvlm2_lite.weights.kernels.attention import TokenAttentionKernel
from cogvlm2_lite.weights.kernels.library import open_library


@dataclass(frozen=True, kw_only=True)
class TokenAttention:
    """One way to attend, and why it was chosen; `doctor` shows the reason."""

    name: str
    reason: str
    attend: Attend


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's own attention: the queries of a group stand in for rows of tokens."""
    return F.scaled_dot_product_attention(q, k, v)


def choose_token_attention(
    device: torch.device, dtype: torch.dtype, head_dim: int
) -> TokenAttention:
    """Return the fastest way for a device."""
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
    return TokenAttention(name="torch SDPA", reason=reason, attend=reference)


def _checked(kernel: TokenAttentionKernel, head_dim: int) -> TokenAttention:
    """Return the C kernel if it gives the right numbers on a small example, else torch."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.stack([kernel.attend(*sequence) for sequence in zip(q, k, v, strict=True)])

    sample = torch.sin(torch.arange(3 * 2 * 300 * head_dim) * 0.37).to(torch.bfloat16)
    q, k, v = sample.view(3, 1, 2, 300, head_dim)
    right = reference(q[:, :, :4].float(), k.float(), v.float())
    if torch.allclose(attend(q[:, :, :4], k, v).float(), right, rtol=0.02, atol=0.002):
        reason = "our C kernel was built, and the CPU has AVX512-BF16"
        return TokenAttention(name="C kernel", reason=reason, attend=attend)
    reason = "our C kernel gives other numbers than it should"
    return TokenAttention(name="torch SDPA", reason=reason, attend=reference)
