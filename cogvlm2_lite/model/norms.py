"""The two normalisations, in the precision of the released model."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.weights.slots import Vector

Normalize = Callable[[Tensor, Tensor, float], Tensor]
"""Returns x / rms(x) * weight for x [..., width], weight [width] and eps, in the dtype of x."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the norm in eight operations: the reference."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (weight * normed).to(x.dtype)


_ROWS = 32
"""Rows at a time in `rms_norm_in_parts`: 0.5 MiB in float32 at a width of 4,096."""


def rms_norm_in_parts(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the norm as the reference does, with the same bits, some rows at a time.

    The eight operations then read and write a core's cache. A picture's 2,306 tokens took a fifth
    of the time that they take at once.
    """
    rows = x.reshape(-1, x.shape[-1])
    if x.requires_grad or len(rows) <= _ROWS:
        return rms_norm(x, weight, eps)
    out = torch.empty_like(rows)
    for begin in range(0, len(rows), _ROWS):
        out[begin : begin + _ROWS] = rms_norm(rows[begin : begin + _ROWS], weight, eps)
    return out.view(x.shape)


def fused_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the norm by torch's function, a single kernel on a GPU.

    The kernel computes weight * (rsqrt(mean + eps) * x) in float32 and rounds once, as the
    reference does (ATen/native/cuda/layer_norm_kernel.cu); only the order of the sum differs. With
    gradients it is the reference: a training step is not limited by launches.
    """
    if x.requires_grad:
        return rms_norm(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight=weight, eps=eps)


class RMSNorm:
    """x / rms(x) * weight, computed in float32 and cast to the dtype of x at the end.

    Llama casts before it multiplies by the weight; the released CogVLM2 does not. The results
    differ in bfloat16 (huggingface/transformers#28196).
    """

    def __init__(self, name: str, width: int, eps: float, normalize: Normalize = rms_norm) -> None:
        self.weight = Vector(f"{name}.weight", (width,))
        self.eps = eps
        self._normalize = normalize

    def __call__(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width], dtype of x."""
        return self._normalize(x, self.weight.tensor, self.eps)

    def slots(self) -> list[Vector]:
        return [self.weight]


class LayerNorm:
    """LayerNorm with weight and bias."""

    def __init__(self, name: str, width: int, eps: float) -> None:
        self.weight = Vector(f"{name}.weight", (width,))
        self.bias = Vector(f"{name}.bias", (width,))
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width], dtype of x."""
        return F.layer_norm(x, self.weight.shape, self.weight.tensor, self.bias.tensor, self.eps)

    def slots(self) -> list[Vector]:
        return [self.weight, self.bias]
