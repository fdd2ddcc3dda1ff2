"""Stand-ins for operators that torch has only for GPUs: other code, with the same interface."""

from __future__ import annotations

import torch
from torch import Tensor

_PADDING = 32
"""torch pads the logarithms of a head to a multiple of this, with infinity."""


def efficient_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what torch's memory-efficient attention returns; q, k, v [batch, heads, tokens, dim].

    Computed in float32, with the probabilities rounded to the type of the tensors as the kernel
    does. It refuses what the kernel refuses, and its result has the kernel's layout.
    """
    assert dropout_p == 0
    assert not is_causal
    batch, heads, tokens, _ = q.shape
    keys = k.shape[2]
    for each in (q, k, v):
        assert each.stride(3) == 1
        assert each.shape[:2] == (batch, heads)
        assert all(stride * each.itemsize % 16 == 0 for stride in each.stride()[:3])
        assert each.data_ptr() % 16 == 0
    scores = q.float() @ k.float().transpose(2, 3) * (scale or q.shape[3] ** -0.5)
    if bias is not None:
        assert bias.shape == (batch, heads, tokens, keys)
        assert bias.dtype == q.dtype
        assert bias.stride(3) == 1
        assert all(stride * bias.itemsize % 16 == 0 for stride in bias.stride()[:3])
        scores += bias
    most = scores.amax(3, keepdim=True)
    weights = (scores - most).exp()
    sums = weights.sum(3, keepdim=True)
    out = (weights.to(q.dtype).float() @ v.float() / sums).to(q.dtype)
    logarithms = torch.full((batch, heads, -(-tokens // _PADDING) * _PADDING), float("inf"))
    logarithms[:, :, :tokens] = (most + sums.log())[..., 0]
    # Tokens before heads, in memory.
    out = out.transpose(1, 2).contiguous().transpose(1, 2)
    return out, logarithms if compute_log_sumexp else logarithms[:, :, :0].clone(), *_seeds()


def _seeds() -> tuple[Tensor, Tensor]:
    return torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the norm as torch's kernel rounds it: in float32, and once at the end."""
    wide = x.float()
    scale = torch.rsqrt((wide * wide).mean(-1, keepdim=True) + eps)
    return (weight.float() * (scale * wide)).to(x.dtype)


_libraries: list[torch.library.Library] = []


def add_operators() -> None:
    """Define the stand-ins, once per process."""
    if _libraries:
        return
    aten = torch.library.Library("aten", "IMPL")
    aten.impl(
        "_scaled_dot_product_efficient_attention",
        lambda *args, **options: efficient_attention(*args, **options),  # a test may replace it
        "CPU",
    )
    own = torch.library.Library("emulated_cuda", "DEF")
    own.define("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor")
    own.impl("rms_norm", rms_norm, "CPU")
    _libraries.extend((aten, own))
