"""Every tensor of a CogVLM2 checkpoint: its name, shape, part and block, derived from the config.

The list is the released layout (1221 tensors for the 19B model). It decides what a folder must
hold, what `quantize` may make 4-bit, and which phase needs which bytes. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import prod

from cogvlm2_lite.config import ModelConfig

NF4_GROUP = 64
"""Weights that share one scale in an NF4 matrix; bitsandbytes' default."""


class Part(Enum):
    """A group of tensors that the same phases need."""

    VISION = "vision tower"
    PROJECTOR = "projector"
    VISION_EXPERT = "vision expert"
    LANGUAGE_EXPERT = "language expert"
    NORMS = "decoder norms"
    EMBEDDING = "embedding"
    LM_HEAD = "lm_head"


class Role(Enum):
    """What a tensor is for the mathematics, which decides how it may be stored."""

    LINEAR = "linear"  # [out_features, in_features], may become NF4 or int8
    CONV = "conv"  # convolution kernels: always 16 bit
    TABLE = "table"  # embeddings, positions, boi, eoi: always 16 bit
    VECTOR = "vector"  # norm weights, biases, inv_freq: always 16 bit


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One tensor that a checkpoint of this architecture must hold."""

    name: str
    shape: tuple[int, ...]
    part: Part
    role: Role
    block: int | None = None
    """Layer index inside the vision tower or the decoder; None outside of the layers."""

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def keeps_type(self) -> bool:
        """True for what is not cast to the compute dtype when it is loaded.

        The embedding is read by rows and those are cast; the RoPE mode decides about inv_freq.
        """
        return self.part is Part.EMBEDDING or self.name.endswith("rotary_emb.inv_freq")


def expected_tensors(config: ModelConfig) -> dict[str, TensorSpec]:
    """List every tensor of the architecture, by name, in the order the model uses them."""
    return {spec.name: spec for spec in _all(config)}


def _all(config: ModelConfig) -> Iterator[TensorSpec]:
    yield from _vision(config)
    yield from _projector(config)
    yield _spec("model.embed_tokens.weight", _table(config), Part.EMBEDDING, Role.TABLE)
    for layer in range(config.num_hidden_layers):
        yield from _decoder_block(config, layer)
    yield _spec("model.norm.weight", (config.hidden_size,), Part.NORMS, Role.VECTOR)
    yield _spec("lm_head.weight", _table(config), Part.LM_HEAD, Role.LINEAR)


def _spec(
    name: str, shape: tuple[int, ...], part: Part, role: Role, block: int | None = None
) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, part=part, role=role, block=block)


def _table(config: ModelConfig) -> tuple[int, int]:
    return (config.vocab_size, config.hidden_size)


def _vision(config: ModelConfig) -> Iterator[TensorSpec]:
    v, part = config.vision, Part.VISION
    width = v.hidden_size
    stem = "model.vision.patch_embedding"
    kernel = (width, v.in_channels, v.patch_size, v.patch_size)
    yield _spec(f"{stem}.proj.weight", kernel, part, Role.CONV)
    yield _spec(f"{stem}.proj.bias", (width,), part, Role.VECTOR)
    yield _spec(f"{stem}.cls_embedding", (1, width), part, Role.TABLE)
    yield _spec(f"{stem}.position_embedding.weight", (v.num_positions, width), part, Role.TABLE)
    linears = (
        ("attention.query_key_value", 3 * width, width),
        ("attention.dense", width, width),
        ("mlp.fc1", v.intermediate_size, width),
        ("mlp.fc2", width, v.intermediate_size),
    )
    for layer in range(v.num_hidden_layers):
        base = f"model.vision.transformer.layers.{layer}"
        for name, rows, columns in linears:
            yield _spec(f"{base}.{name}.weight", (rows, columns), part, Role.LINEAR, layer)
            yield _spec(f"{base}.{name}.bias", (rows,), part, Role.VECTOR, layer)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield _spec(f"{base}.{norm}.weight", (width,), part, Role.VECTOR, layer)
            yield _spec(f"{base}.{norm}.bias", (width,), part, Role.VECTOR, layer)


def _projector(config: ModelConfig) -> Iterator[TensorSpec]:
    width, hidden, inner = config.vision.hidden_size, config.hidden_size, config.intermediate_size
    part, base = Part.PROJECTOR, "model.vision"
    yield _spec(f"{base}.conv.weight", (width, width, 2, 2), part, Role.CONV)
    yield _spec(f"{base}.conv.bias", (width,), part, Role.VECTOR)
    glu = f"{base}.linear_proj"
    yield _spec(f"{glu}.linear_proj.weight", (hidden, width), part, Role.LINEAR)
    yield _spec(f"{glu}.norm1.weight", (hidden,), part, Role.VECTOR)
    yield _spec(f"{glu}.norm1.bias", (hidden,), part, Role.VECTOR)
    yield _spec(f"{glu}.gate_proj.weight", (inner, hidden), part, Role.LINEAR)
    yield _spec(f"{glu}.dense_h_to_4h.weight", (inner, hidden), part, Role.LINEAR)
    yield _spec(f"{glu}.dense_4h_to_h.weight", (hidden, inner), part, Role.LINEAR)
    yield _spec(f"{base}.boi", (1, 1, hidden), part, Role.TABLE)
    yield _spec(f"{base}.eoi", (1, 1, hidden), part, Role.TABLE)


def _decoder_block(config: ModelConfig, layer: int) -> Iterator[TensorSpec]:
    base = f"model.layers.{layer}"
    hidden, inner = config.hidden_size, config.intermediate_size
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield _spec(f"{base}.{norm}.weight", (hidden,), Part.NORMS, Role.VECTOR, layer)
    frequencies = f"{base}.self_attn.rotary_emb.inv_freq"
    yield _spec(frequencies, (config.head_dim // 2,), Part.NORMS, Role.VECTOR, layer)
    for expert, part in (("language", Part.LANGUAGE_EXPERT), ("vision", Part.VISION_EXPERT)):
        qkv = f"{base}.self_attn.{expert}_expert_query_key_value"
        yield _spec(f"{qkv}.weight", (config.qkv_rows, hidden), part, Role.LINEAR, layer)
        if expert == "vision":  # the language expert's projection has no bias
            yield _spec(f"{qkv}.bias", (config.qkv_rows,), part, Role.VECTOR, layer)
        dense = f"{base}.self_attn.{expert}_expert_dense.weight"
        yield _spec(dense, (hidden, hidden), part, Role.LINEAR, layer)
        mlp = f"{base}.mlp.{expert}_mlp"
        yield _spec(f"{mlp}.gate_proj.weight", (inner, hidden), part, Role.LINEAR, layer)
        yield _spec(f"{mlp}.up_proj.weight", (inner, hidden), part, Role.LINEAR, layer)
        yield _spec(f"{mlp}.down_proj.weight", (hidden, inner), part, Role.LINEAR, layer)
