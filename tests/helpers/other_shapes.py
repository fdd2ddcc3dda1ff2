"""Checkpoints of other shapes than the golden one, with random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.helpers.independent_model import layout

TABLES = ("embed_tokens.weight", "position_embedding.weight")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One checkpoint: its numbers, and how it is stored.

    vision   image side, patch side, hidden, heads, layers, intermediate
    decoder  hidden, heads, kv heads (None: left out of config.json), layers, intermediate
    """

    vision: tuple[int, int, int, int, int, int]
    decoder: tuple[int, int, int | None, int, int]
    dtype: torch.dtype
    shards: int = 1
    four_bit: bool = False

    def config(self) -> dict[str, Any]:
        image, patch, width, heads, layers, wide = self.vision
        hidden, query_heads, kv_heads, blocks, inner = self.decoder
        config = {
            "vision_config": {
                "image_size": image, "patch_size": patch, "hidden_size": width,
                "num_heads": heads, "num_hidden_layers": layers, "intermediate_size": wide,
                "in_channels": 3, "num_positions": (image // patch) ** 2 + 1,
                "layer_norm_eps": 1e-4, "hidden_act": "gelu", "dropout_prob": 0.0,
            },
            "hidden_size": hidden, "num_attention_heads": query_heads,
            "num_hidden_layers": blocks, "intermediate_size": inner, "hidden_act": "silu",
            "rms_norm_eps": 1e-4, "max_position_embeddings": 96, "vocab_size": 90,
            "bos_token_id": 80, "eos_token_id": [81, 89], "pad_token_id": 82,
        }  # fmt: skip
        if kv_heads is not None:
            config["num_multi_query_heads"] = kv_heads
        return config


SHAPES = {
    # 5 x 5 patches, of which the projector merges 4 x 4; one key/value head; widths of no group.
    "an odd grid in float32": Shape(
        vision=(70, 14, 48, 3, 3, 40), decoder=(80, 5, 1, 3, 72), dtype=torch.float32, shards=3
    ),
    # As many key/value heads as the released config.json does not name; the tower's head size.
    "the default of 8 key/value heads in bfloat16": Shape(
        vision=(28, 7, 224, 2, 2, 96), decoder=(256, 16, None, 2, 64), dtype=torch.bfloat16
    ),
    # One inner image token; pixels beyond the last whole patch; as many key/value as query heads.
    "a grid of three in float16": Shape(
        vision=(25, 8, 40, 5, 1, 56), decoder=(144, 3, 3, 2, 100), dtype=torch.float16, shards=2
    ),
    "long heads in bfloat16": Shape(
        vision=(36, 6, 64, 4, 2, 64), decoder=(224, 2, 2, 1, 130), dtype=torch.bfloat16, shards=2
    ),
    "4-bit with groups across rows": Shape(
        vision=(28, 7, 96, 2, 2, 64),
        decoder=(96, 4, 2, 2, 160),
        dtype=torch.bfloat16,
        four_bit=True,
    ),
}


def random_weights(shape: Shape) -> dict[str, Tensor]:
    """Return a checkpoint in which every tensor matters, in the type it is stored in."""
    random = torch.Generator().manual_seed(7)
    weights = {}
    for name, size in layout(shape.config()).items():
        noise = torch.randn(size, generator=random, dtype=torch.float64)
        if name.endswith("inv_freq"):
            # Near the formula, but not on it, and another one in every layer.
            exponent = torch.arange(size[0], dtype=torch.float64) / size[0]
            noise = 500_000.0**-exponent * (1 + 0.05 * noise.clamp(-2, 2))
        elif len(size) == 1 and name.endswith("weight"):
            noise = 1 + 0.3 * noise
        elif len(size) > 1 and size[0] > 1 and not name.endswith(TABLES):
            noise = noise / math.sqrt(math.prod(size[1:]))
        weights[name] = noise.to(shape.dtype)
    return weights
