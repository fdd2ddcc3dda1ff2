"""The two normalisations, in the precision of the released model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.weights.slots import Vector


class RMSNorm:
    """x / rms(x) * weight, computed in float32 and cast to the dtype of x at the end.

    Llama casts before it multiplies by the weight; the released CogVLM2 does not. The results
    differ in bfloat16 (huggingface/transformers#28196).
    """

    def __init__(self, name: str, width: int, eps: float) -> None:
        self.weight = Vector(f"{name}.weight", (width,))
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width], dtype of x."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight.tensor * normed).to(x.dtype)

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
