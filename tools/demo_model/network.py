"""The released architecture, small, as a training forward pass over packed questions.

Weights live in a flat dictionary under the released tensor names. One picture is followed by
several independent conversations ("blocks"): a mask keeps each block to the picture prefix and
itself, and positions restart in every block, so each block computes exactly what it would alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
ROPE_BASE = 500000.0


@dataclass(frozen=True, kw_only=True)
class Dims:
    """Sizes of the demo model; every linear reads a multiple of 64 values (NF4 groups)."""

    image_side: int = 112
    patch_side: int = 14
    vision_hidden: int = 192
    vision_mlp: int = 768
    vision_layers: int = 5
    vision_heads: int = 4
    hidden: int = 192
    mlp: int = 384
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    vocab: int = 704
    max_positions: int = 2048

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_side // self.patch_side

    @property
    def patches(self) -> int:
        """Patches of a picture."""
        return self.grid**2

    @property
    def image_tokens(self) -> int:
        """Tokens of a picture in the decoder, without boi and eoi."""
        return self.patches // 4

    @property
    def head_dim(self) -> int:
        """Width of one decoder head."""
        return self.hidden // self.heads

    @property
    def qkv_rows(self) -> int:
        """Rows of the decoder's fused query, key and value weight."""
        return self.hidden + 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The text of a batch.

    ids        [batch, text tokens] int64
    positions  [batch, text tokens] int64
    mask       [batch, 1, all tokens, all tokens] 0 or -inf; all = [boi, patches, bos, eoi, text]
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor


def weight_shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    """Name and shape of every trained tensor, in the released layout."""
    wide, deep = dims.hidden, dims.vision_hidden
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (dims.vocab, wide)}
    for layer in range(dims.layers):
        at = f"model.layers.{layer}"
        shapes[f"{at}.input_layernorm.weight"] = (wide,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (wide,)
        for expert in ("language", "vision"):
            shapes[f"{at}.self_attn.{expert}_expert_query_key_value.weight"] = (
                dims.qkv_rows, wide)  # fmt: skip
            shapes[f"{at}.self_attn.{expert}_expert_dense.weight"] = (wide, wide)
            for part in ("gate_proj", "up_proj"):
                shapes[f"{at}.mlp.{expert}_mlp.{part}.weight"] = (dims.mlp, wide)
            shapes[f"{at}.mlp.{expert}_mlp.down_proj.weight"] = (wide, dims.mlp)
        shapes[f"{at}.self_attn.vision_expert_query_key_value.bias"] = (dims.qkv_rows,)
    shapes |= {
        "model.norm.weight": (wide,),
        "lm_head.weight": (dims.vocab, wide),
        "model.vision.boi": (1, 1, wide),
        "model.vision.eoi": (1, 1, wide),
    }
    at = "model.vision.patch_embedding"
    shapes |= {
        f"{at}.proj.weight": (deep, 3, dims.patch_side, dims.patch_side),
        f"{at}.proj.bias": (deep,),
        f"{at}.cls_embedding": (1, deep),
        f"{at}.position_embedding.weight": (dims.patches + 1, deep),
        "model.vision.conv.weight": (deep, deep, 2, 2),
        "model.vision.conv.bias": (deep,),
    }
    for layer in range(dims.vision_layers):
        at = f"model.vision.transformer.layers.{layer}"
        for part, rows, columns in (
            ("attention.query_key_value", 3 * deep, deep),
            ("attention.dense", deep, deep),
            ("mlp.fc1", dims.vision_mlp, deep),
            ("mlp.fc2", deep, dims.vision_mlp),
        ):
            shapes[f"{at}.{part}.weight"] = (rows, columns)
            shapes[f"{at}.{part}.bias"] = (rows,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{norm}.weight"] = (deep,)
            shapes[f"{at}.{norm}.bias"] = (deep,)
    at = "model.vision.linear_proj"
    return shapes | {
        f"{at}.linear_proj.weight": (wide, deep),
        f"{at}.norm1.weight": (wide,),
        f"{at}.norm1.bias": (wide,),
        f"{at}.gate_proj.weight": (dims.mlp, wide),
        f"{at}.dense_h_to_4h.weight": (dims.mlp, wide),
        f"{at}.dense_4h_to_h.weight": (wide, dims.mlp),
    }


def first_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Starting value of one tensor, float32.

    Small patch weights and half-sized norms in the vision tower: it has no norm before
    attention, and a large residual stream saturates the softmax within a few hundred steps.
    """
    if name.endswith("position_embedding.weight"):
        return 0.5 * _grid_waves(shape[0] - 1, shape[1])
    if name.endswith(("norm.weight", "norm1.weight")):
        return torch.full(shape, 0.5 if ".transformer." in name else 1.0)
    if name.endswith(".bias"):
        return torch.zeros(shape)
    noise = torch.randn(shape, generator=generator)
    if (len(shape) == 2 and "embed" in name) or name.endswith((".boi", ".eoi")):
        return 0.3 * noise if name.startswith("model.embed") else 0.02 * noise
    fan_in = math.prod(shape[1:])
    scale = 0.25 if "patch_embedding" in name else 0.1 if name.startswith("lm_head") else 0.7
    return noise * scale / math.sqrt(fan_in)


def _grid_waves(patches: int, width: int) -> Tensor:
    """Sine and cosine waves over rows and columns: [patches + 1, width], row 0 (cls) is zero."""
    side = math.isqrt(patches)
    rates = 1.0 / 30.0 ** (torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side).unsqueeze(1) * rates
    waves = torch.cat((angle.sin(), angle.cos()), 1)
    rows = waves.repeat_interleave(side, 0)
    columns = waves.repeat(side, 1)
    return torch.cat((torch.zeros(1, width), torch.cat((rows, columns), 1)))


def inverse_frequencies(dims: Dims) -> Tensor:
    """RoPE frequencies as stored in the checkpoint: [head_dim / 2] bfloat16."""
    exponent = torch.arange(0, dims.head_dim, 2, dtype=torch.float32) / dims.head_dim
    return (1.0 / ROPE_BASE**exponent).to(torch.bfloat16)


def rope_table(dims: Dims, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines built in the model's dtype, as released: [positions, head_dim / 2]."""
    phase = torch.outer(torch.arange(count).to(dtype), inverse_frequencies(dims).to(dtype))
    return phase.cos(), phase.sin()


def encode_patches(weights: Weights, dims: Dims, patches: Tensor) -> Tensor:
    """Run the vision tower.

    patches  [batch, patches, 3 * patch_side**2] normalised pixels
    Returns  [batch, patches, vision_hidden], cls dropped
    """
    at = "model.vision.patch_embedding"
    x = functional.linear(
        patches, weights[f"{at}.proj.weight"].flatten(1), weights[f"{at}.proj.bias"]
    )
    cls = weights[f"{at}.cls_embedding"].expand(len(x), 1, -1)
    x = torch.cat((cls, x), 1) + weights[f"{at}.position_embedding.weight"]
    for layer in range(dims.vision_layers):
        x = _vision_layer(weights, dims, f"model.vision.transformer.layers.{layer}", x)
    return x[:, 1:]


def _vision_layer(weights: Weights, dims: Dims, at: str, x: Tensor) -> Tensor:
    """One layer; the norms sit on the branch outputs."""
    batch, tokens, width = x.shape
    qkv = _linear(weights, f"{at}.attention.query_key_value", x)
    q, k, v = qkv.view(batch, tokens, 3, dims.vision_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
    branch = _linear(weights, f"{at}.attention.dense", mixed)
    x = x + _layer_norm(weights, f"{at}.input_layernorm", branch, 1e-6)
    inner = functional.gelu(_linear(weights, f"{at}.mlp.fc1", x))
    branch = _linear(weights, f"{at}.mlp.fc2", inner)
    return x + _layer_norm(weights, f"{at}.post_attention_layernorm", branch, 1e-6)


def project(weights: Weights, dims: Dims, x: Tensor) -> Tensor:
    """Join 2x2 patches and go through the gated projector: [batch, image tokens, hidden]."""
    batch, half = len(x), dims.grid // 2
    x = x.view(batch, half, 2, half, 2, -1).permute(0, 1, 3, 5, 2, 4)
    kernel, bias = weights["model.vision.conv.weight"], weights["model.vision.conv.bias"]
    x = functional.linear(x.reshape(batch, half * half, -1), kernel.flatten(1), bias)
    at = "model.vision.linear_proj"
    x = functional.linear(x, weights[f"{at}.linear_proj.weight"])
    x = functional.gelu(_layer_norm(weights, f"{at}.norm1", x, 1e-5))
    gate = functional.silu(functional.linear(x, weights[f"{at}.gate_proj.weight"]))
    inner = gate * functional.linear(x, weights[f"{at}.dense_h_to_4h.weight"])
    return functional.linear(inner, weights[f"{at}.dense_4h_to_h.weight"])


def decode(
    weights: Weights, dims: Dims, features: Tensor, packed: Packed, bos: int
) -> tuple[Tensor, Tensor]:
    """Run the decoder over picture and text.

    features  [batch, image tokens, hidden] from `project`
    Returns   [batch, text tokens, hidden] twice: normalised before lm_head, and raw after
              half of the layers
    """
    table = weights["model.embed_tokens.weight"]
    batch = len(packed.ids)
    boi, eoi = (weights[f"model.vision.{name}"].expand(batch, 1, -1) for name in ("boi", "eoi"))
    start = table[bos].expand(batch, 1, -1)
    picture = torch.cat((boi, features), 1)
    text = torch.cat((start, eoi, functional.embedding(packed.ids, table)), 1)
    fixed = torch.tensor([1] + [2] * dims.image_tokens + [0, 3])
    positions = torch.cat((fixed.expand(batch, -1), packed.positions), 1)
    cos, sin = (part[positions].unsqueeze(2) for part in rope_table(dims, 128, text.dtype))
    for layer in range(dims.layers):
        at = f"model.layers.{layer}"
        picture, text = _decoder_layer(weights, dims, at, (picture, text), (cos, sin), packed.mask)
        if layer == dims.layers // 2 - 1:
            middle = text[:, 2:]
    return _rms_norm(text[:, 2:], weights["model.norm.weight"]), middle


Streams = tuple[Tensor, Tensor]


def _decoder_layer(
    weights: Weights, dims: Dims, at: str, streams: Streams, rope: Streams, mask: Tensor
) -> Streams:
    """One layer over the picture (vision expert) and the rest (language expert).

    streams  [batch, picture tokens, hidden] and [batch, other tokens, hidden]
    rope     cosines and sines, [batch, all tokens, 1, head_dim / 2] each
    """
    norm = weights[f"{at}.input_layernorm.weight"]
    experts = ("vision", "language")
    qkv = torch.cat([
        _linear(weights, f"{at}.self_attn.{expert}_expert_query_key_value", _rms_norm(x, norm))
        for expert, x in zip(experts, streams, strict=True)
    ], 1)  # fmt: skip
    mixed = _attend(dims, qkv, rope, mask, streams[0].shape[1])
    norm = weights[f"{at}.post_attention_layernorm.weight"]
    out = []
    for expert, x, heads in zip(experts, streams, mixed, strict=True):
        x = x + _linear(weights, f"{at}.self_attn.{expert}_expert_dense", heads)
        h = _rms_norm(x, norm)
        mlp = f"{at}.mlp.{expert}_mlp"
        gate, up = (_linear(weights, f"{mlp}.{part}", h) for part in ("gate_proj", "up_proj"))
        inner = functional.silu(gate) * up
        out.append(x + _linear(weights, f"{mlp}.down_proj", inner))
    return out[0], out[1]


def _attend(dims: Dims, qkv: Tensor, rope: Streams, mask: Tensor, picture: int) -> Streams:
    """Attention of both streams; the picture sees only itself and bos, just behind it."""
    batch, tokens, _ = qkv.shape
    heads = dims.heads + dims.kv_heads
    split = heads * dims.head_dim
    turned = _rotate(qkv[..., :split].view(batch, tokens, heads, -1), rope)
    q = turned[:, :, : dims.heads].view(batch, tokens, dims.kv_heads, -1, dims.head_dim)
    k = turned[:, :, dims.heads :].permute(0, 2, 3, 1)
    v = qkv[..., split:].view(batch, tokens, dims.kv_heads, -1).transpose(1, 2)
    mixed = []
    for rows, keys in ((slice(0, picture), picture + 1), (slice(picture, tokens), tokens)):
        queries = q[:, rows].permute(0, 2, 3, 1, 4) * dims.head_dim**-0.5
        shape = queries.shape
        scores = queries.flatten(2, 3) @ k[..., :keys]
        scores = scores.unflatten(2, shape[2:4]) + mask[:, :, None, rows, :keys]
        found = scores.softmax(-1).flatten(2, 3) @ v[:, :, :keys]
        mixed.append(found.view(shape).permute(0, 3, 1, 2, 4).flatten(2))
    return mixed[0], mixed[1]


def _rotate(x: Tensor, rope: Streams) -> Tensor:
    cos, sin = rope
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _layer_norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return functional.layer_norm(x, weight.shape, weight, bias, eps)


def _rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)
    return (weight * wide).to(x.dtype)
