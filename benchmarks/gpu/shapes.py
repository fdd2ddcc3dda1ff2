"""Shapes of the 19B model that are measured one by one, and tiny ones for a rehearsal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """One call of torch's attention.

    queries, keys  numbers of tokens
    visible        keys that the mask allows; None: no mask
    """

    heads: int
    queries: int
    keys: int
    head_dim: int
    causal: bool = False
    visible: int | None = None

    def describe(self) -> str:
        """Return the shape as text."""
        kind = "causal" if self.causal else "mask" if self.visible is not None else "no mask"
        return f"{self.heads} heads, {self.queries} x {self.keys}, width {self.head_dim}, {kind}"

    def tensors(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return random queries, keys and values."""
        generator = torch.Generator().manual_seed(1)
        q, k, v = (
            torch.randn(
                (1, self.heads, tokens, self.head_dim), generator=generator, dtype=torch.float32
            ).to(device, dtype)
            for tokens in (self.queries, self.keys, self.keys)
        )
        return q, k, v

    def mask(self, device: str) -> Tensor | None:
        """Return the mask [1, 1, queries, keys]."""
        if self.visible is None:
            return None
        keys = torch.arange(self.keys, device=device)
        return (keys < self.visible)[None, None, None].expand(1, 1, self.queries, self.keys)


def attention_shapes(*, tiny: bool) -> Mapping[str, AttentionShape]:
    """Return the four kinds of attention of the 19B model."""
    picture, prompt, text, cache, width, tower = (
        (40, 24, 8, 32, 16, 16) if tiny else (9217, 2306, 256, 2560, 128, 112)
    )
    heads, members = (2, 2) if tiny else (16, 8)
    return {
        "tower": AttentionShape(heads=heads, queries=picture, keys=picture, head_dim=tower),
        "picture prefill": AttentionShape(
            heads=members, queries=prompt, keys=prompt, head_dim=width, causal=True
        ),
        "text prefill": AttentionShape(
            heads=members, queries=text, keys=cache, head_dim=width, visible=cache - 3
        ),
        "decode": AttentionShape(
            heads=members, queries=4, keys=cache, head_dim=width, visible=cache - 3
        ),
    }
