"""The released model once more, written from its description alone, in float64 and word by word.

Nothing of the product is imported here, and nothing is fast: one prompt, one matrix at a time, no
cache, masks written as loops. Where product and this page differ, one of them is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
"""The checkpoint's tensors by name, in any floating type."""


class Independent:
    """A model of one checkpoint.

    config   what its config.json says
    weights  what its safetensors files hold
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self.config = config
        self.vision: Mapping[str, Any] = config["vision_config"]
        self.weights = {name: tensor.double() for name, tensor in weights.items()}
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config.get("num_multi_query_heads", 8)
        self.head_dim: int = config["hidden_size"] // self.heads

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name]

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if f"{name}.bias" in self.weights else y

    def layer_norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred**2).mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + eps) * self[f"{name}.weight"] + self[f"{name}.bias"]

    def rms_norm(self, x: Tensor, name: str) -> Tensor:
        square = (x**2).mean(-1, keepdim=True)
        return self[f"{name}.weight"] * (x / torch.sqrt(square + self.config["rms_norm_eps"]))

    # --- the picture ------------------------------------------------------------------------------

    def features(self, pixels: Tensor) -> Tensor:
        """Encode a picture [channels, height, width] -> [image tokens with boi and eoi, hidden]."""
        x = self.vision_layers(self.patches(pixels.double()))[1:]
        tokens = torch.stack(self.merged(x))
        h = self.linear(tokens, "model.vision.linear_proj.linear_proj")
        h = gelu(self.layer_norm(h, "model.vision.linear_proj.norm1", 1e-5))
        gate = silu(self.linear(h, "model.vision.linear_proj.gate_proj"))
        up = self.linear(h, "model.vision.linear_proj.dense_h_to_4h")
        y = self.linear(gate * up, "model.vision.linear_proj.dense_4h_to_h")
        return torch.cat((self["model.vision.boi"][0], y, self["model.vision.eoi"][0]))

    @property
    def side(self) -> int:
        return int(self.vision["image_size"] // self.vision["patch_size"])

    def patches(self, pixels: Tensor) -> Tensor:
        stem, size = "model.vision.patch_embedding", self.vision["patch_size"]
        kernel = self[f"{stem}.proj.weight"].flatten(1)
        rows = [self[f"{stem}.cls_embedding"][0]]
        for y in range(self.side):
            for x in range(self.side):
                patch = pixels[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
                rows.append(kernel @ patch.flatten() + self[f"{stem}.proj.bias"])
        return torch.stack(rows) + self[f"{stem}.position_embedding.weight"]

    def vision_layers(self, x: Tensor) -> Tensor:
        width, heads = self.vision["hidden_size"], self.vision["num_heads"]
        eps, d = self.vision["layer_norm_eps"], width // heads
        for layer in range(self.vision["num_hidden_layers"]):
            base = f"model.vision.transformer.layers.{layer}"
            qkv = self.linear(x, f"{base}.attention.query_key_value")
            attended = torch.cat(
                [
                    attend(*(qkv[:, p * width + h * d : p * width + (h + 1) * d] for p in range(3)))
                    for h in range(heads)
                ],
                dim=1,
            )
            branch = self.linear(attended, f"{base}.attention.dense")
            x = x + self.layer_norm(branch, f"{base}.input_layernorm", eps)
            branch = self.linear(gelu(self.linear(x, f"{base}.mlp.fc1")), f"{base}.mlp.fc2")
            x = x + self.layer_norm(branch, f"{base}.post_attention_layernorm", eps)
        return x

    def merged(self, x: Tensor) -> list[Tensor]:
        """Merge 2x2 patches; an odd last row and column are left out, as a convolution does."""
        kernel, bias = self["model.vision.conv.weight"], self["model.vision.conv.bias"]
        tokens = []
        for y in range(self.side // 2):
            for column in range(self.side // 2):
                token = bias.clone()
                for dy in range(2):
                    for dx in range(2):
                        patch = x[(2 * y + dy) * self.side + 2 * column + dx]
                        token += kernel[:, :, dy, dx] @ patch
                tokens.append(token)
        return tokens

    # --- the words --------------------------------------------------------------------------------

    def logits(
        self,
        ids: Sequence[int],
        types: Sequence[int],
        features: Tensor | None = None,
        given_positions: Sequence[int] | None = None,
    ) -> Tensor:
        """Score every position of a prompt, [tokens, vocab]."""
        x = self["model.embed_tokens.weight"][list(ids)].clone()
        places = [i for i, kind in enumerate(types) if kind == 1]
        if features is not None:
            x[places] = features
        where = positions(types) if given_positions is None else given_positions
        experts = ["vision" if seen else "language" for seen in vision_experts(types)]
        for layer in range(self.config["num_hidden_layers"]):
            base = f"model.layers.{layer}"
            h = self.rms_norm(x, f"{base}.input_layernorm")
            h = self.self_attention(h, f"{base}.self_attn", experts, where)
            x = x + self.routed(h, experts, f"{base}.self_attn.{{}}_expert_dense")
            h = self.rms_norm(x, f"{base}.post_attention_layernorm")
            mlp = f"{base}.mlp.{{}}_mlp"
            gate = silu(self.routed(h, experts, f"{mlp}.gate_proj"))
            up = self.routed(h, experts, f"{mlp}.up_proj")
            x = x + self.routed(gate * up, experts, f"{mlp}.down_proj")
        return self.linear(self.rms_norm(x, "model.norm"), "lm_head")

    def routed(self, x: Tensor, experts: Sequence[str], name: str) -> Tensor:
        return torch.stack(
            [self.linear(row, name.format(who)) for row, who in zip(x, experts, strict=True)]
        )

    def self_attention(
        self, x: Tensor, base: str, experts: Sequence[str], where: Sequence[int]
    ) -> Tensor:
        qkv = self.routed(x, experts, f"{base}.{{}}_expert_query_key_value")
        d, group = self.head_dim, self.heads // self.kv_heads
        parts = [qkv[:, i * d : (i + 1) * d] for i in range(self.heads + 2 * self.kv_heads)]
        angles = torch.tensor(where).double()[:, None] * self[f"{base}.rotary_emb.inv_freq"]
        out = []
        for head in range(self.heads):
            key = parts[self.heads + head // group]
            value = parts[self.heads + self.kv_heads + head // group]
            turned = rotate(parts[head], angles), rotate(key, angles)
            out.append(attend(*turned, value, causal=True))
        return torch.cat(out, dim=1)

    def greedy(
        self, ids: Sequence[int], types: Sequence[int], features: Tensor | None, steps: int
    ) -> list[int]:
        """Take the most likely token again and again, computing everything each time."""
        ids, types, chosen = list(ids), list(types), []
        for _ in range(steps):
            chosen.append(int(self.logits(ids, types, features)[-1].argmax()))
            ids.append(chosen[-1])
            types.append(0)
        return chosen


def positions(types: Sequence[int]) -> list[int]:
    """Number the tokens: boi and eoi count like text, all between them share one number."""
    last = len(types) - 1
    counts = [
        kind == 0 or i in (0, last) or types[i - 1] == 0 or types[i + 1] == 0
        for i, kind in enumerate(types)
    ]
    numbers = [0]
    for i in range(1, len(types)):
        numbers.append(numbers[-1] + (1 if counts[i] or counts[i - 1] else 0))
    return numbers


def vision_experts(types: Sequence[int]) -> list[bool]:
    """A token is the vision expert's when it and its right neighbour are a picture's."""
    return [kind == 1 and [*types, 0][i + 1] == 1 for i, kind in enumerate(types)]


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """One head, [tokens, head_dim] each."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    if causal:
        for i in range(len(scores)):
            scores[i, i + 1 :] = -math.inf
    shares = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
    return shares / shares.sum(dim=1, keepdim=True) @ v


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_dim / 2) of [tokens, head_dim]."""
    half = x.shape[1] // 2
    x0, x1 = x[:, :half], x[:, half:]
    cos, sin = torch.cos(angles), torch.sin(angles)
    return torch.cat((x0 * cos - x1 * sin, x0 * sin + x1 * cos), dim=1)


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def layout(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """List name and shape of every tensor of a checkpoint, as the released one names them."""
    vision, hidden, inner = (
        config["vision_config"],
        config["hidden_size"],
        config["intermediate_size"],
    )
    width, wide, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    head_dim = hidden // config["num_attention_heads"]
    rows = hidden + 2 * config.get("num_multi_query_heads", 8) * head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config["vocab_size"], hidden),
    }
    for n in range(config["num_hidden_layers"]):
        base = f"model.layers.{n}"
        shapes[f"{base}.input_layernorm.weight"] = (hidden,)
        shapes[f"{base}.post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{base}.self_attn.rotary_emb.inv_freq"] = (head_dim // 2,)
        shapes[f"{base}.self_attn.vision_expert_query_key_value.bias"] = (rows,)
        for who in ("language", "vision"):
            shapes[f"{base}.self_attn.{who}_expert_query_key_value.weight"] = (rows, hidden)
            shapes[f"{base}.self_attn.{who}_expert_dense.weight"] = (hidden, hidden)
            shapes[f"{base}.mlp.{who}_mlp.gate_proj.weight"] = (inner, hidden)
            shapes[f"{base}.mlp.{who}_mlp.up_proj.weight"] = (inner, hidden)
            shapes[f"{base}.mlp.{who}_mlp.down_proj.weight"] = (hidden, inner)
    stem, glu = "model.vision.patch_embedding", "model.vision.linear_proj"
    shapes[f"{stem}.proj.weight"] = (width, vision["in_channels"], patch, patch)
    shapes[f"{stem}.proj.bias"] = (width,)
    shapes[f"{stem}.cls_embedding"] = (1, width)
    shapes[f"{stem}.position_embedding.weight"] = (vision["num_positions"], width)
    for n in range(vision["num_hidden_layers"]):
        base = f"model.vision.transformer.layers.{n}"
        for name, out, into in (
            ("attention.query_key_value", 3 * width, width),
            ("attention.dense", width, width),
            ("mlp.fc1", wide, width),
            ("mlp.fc2", width, wide),
        ):
            shapes[f"{base}.{name}.weight"] = (out, into)
            shapes[f"{base}.{name}.bias"] = (out,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{base}.{name}.weight"] = shapes[f"{base}.{name}.bias"] = (width,)
    shapes["model.vision.conv.weight"] = (width, width, 2, 2)
    shapes["model.vision.conv.bias"] = (width,)
    shapes[f"{glu}.linear_proj.weight"] = (hidden, width)
    shapes[f"{glu}.norm1.weight"] = shapes[f"{glu}.norm1.bias"] = (hidden,)
    shapes[f"{glu}.gate_proj.weight"] = shapes[f"{glu}.dense_h_to_4h.weight"] = (inner, hidden)
    shapes[f"{glu}.dense_4h_to_h.weight"] = (hidden, inner)
    shapes["model.vision.boi"] = shapes["model.vision.eoi"] = (1, 1, hidden)
    return shapes
