"""CogVLM2: cogvlm2-llama3-chat-19B and cogvlm2-llama3-chinese-chat-19B.

An EVA2-CLIP-E vision tower without its last layer, a projector, and a Llama 3 decoder in which
every projection exists twice: for image tokens (vision expert) and for all others (language
expert). The tensors are the released layout, 1221 of them for the 19B model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from cogvlm2_lite.architectures.architecture import (
    Architecture,
    ModelConfig,
    Part,
    Phase,
    Released,
    Role,
    Template,
    TensorSpec,
    TokenIds,
    VisionConfig,
)
from cogvlm2_lite.architectures.fields import read_fields, read_value
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.text import Text

_RELEASED_19B: Mapping[str, Any] = MappingProxyType({
    "architectures": ["CogVLMForCausalLM"],
    "vision_config": {
        "dropout_prob": 0.0, "hidden_act": "gelu", "in_channels": 3, "num_hidden_layers": 63,
        "hidden_size": 1792, "patch_size": 14, "num_heads": 16, "intermediate_size": 15360,
        "layer_norm_eps": 1e-6, "num_positions": 9217, "image_size": 1344,
    },
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "vocab_size": 128256, "template_version": "chat",
    "initializer_range": 0.02, "use_cache": True, "bos_token_id": 128000,
    "eos_token_id": [128001, 128009], "pad_token_id": 128002,
})  # fmt: skip

_DECODER = frozenset({Part.LANGUAGE_EXPERT, Part.NORMS, Part.EMBEDDING})

_PHASES: Mapping[Phase, frozenset[Part]] = MappingProxyType({
    Phase.ENCODE: frozenset({Part.VISION, Part.PROJECTOR}),
    Phase.PREFILL_IMAGE: _DECODER | {Part.VISION_EXPERT},
    Phase.PREFILL_TEXT: _DECODER,
    Phase.DECODE: _DECODER | {Part.LM_HEAD},
    Phase.LEARN: frozenset(Part),  # less what a run does not need, see Training.unused_parts
})  # fmt: skip
"""Decoding never needs the vision experts: no image token is generated. The first token's logits
belong to decoding: prefill returns hidden states and needs no lm_head."""

_KEEP_ORDER = (
    Part.NORMS,
    Part.LM_HEAD,
    Part.LANGUAGE_EXPERT,
    Part.VISION_EXPERT,
    Part.PROJECTOR,
    Part.VISION,
)
"""Parts that every token needs come before those that every picture needs. lm_head comes before the
layers, because it is the largest single unit and so the slowest to stream. The embedding is not
listed: a step reads a few of its rows directly from the mapped file."""

_TEMPLATES = MappingProxyType({
    "chat": Template(
        question="Question: {question} Answer:", past="Question: {question} Answer: {answer}\n"
    ),
    "vqa": Template(
        question="Question: {question} Short answer:",
        past="Question: {question} Short answer: {answer}\n",
    ),
    "base": Template(question="{question}"),
})  # fmt: skip
"""The Chinese model uses the same English words."""


# --- config.json ----------------------------------------------------------------------------------


def _parse(architecture: Architecture, raw: Mapping[str, Any], where: str) -> ModelConfig:
    """Return the checked numbers of a config.json.

    The released file lacks two of them (`num_multi_query_heads` and `tie_word_embeddings`); their
    defaults are those of the released configuration class.
    """
    values = dict(raw)
    vision = values.pop("vision_config", None)
    if not isinstance(vision, dict):
        raise CheckpointError(
            "{where} has no vision_config, so this is not a CogVLM2 image model.",
            hint="CogVLM2 Lite runs cogvlm2-llama3-chat-19B and cogvlm2-llama3-chinese-chat-19B.",
            where=where,
        )
    end = values.pop("eos_token_id", None)
    if values.pop("tie_word_embeddings", False):
        raise CheckpointError("{where} has tied word embeddings, which CogVLM2 lacks.", where=where)
    config = ModelConfig(
        architecture=architecture,
        vision=VisionConfig(**read_fields(vision, VisionConfig, f"{where}: vision_config")),
        eos_token_ids=read_value(
            end if isinstance(end, list) else [end], TokenIds, f"{where}: eos_token_id"
        ),
        **read_fields(
            values, ModelConfig, where, given=("architecture", "vision", "eos_token_ids")
        ),
    )
    _check_shapes(config, where)
    return config


def _check_shapes(config: ModelConfig, where: str) -> None:
    """Raise CheckpointError for inconsistent numbers, before any buffer is allocated from them."""
    vision, heads, templates = config.vision, config.num_attention_heads, tuple(_TEMPLATES)
    ids = (config.bos_token_id, config.pad_token_id, *config.eos_token_ids)
    rules = {
        Text("in_channels must be 3, for red, green and blue"): vision.in_channels == 3,
        Text("a picture must have at least 2 x 2 patches"): vision.grid >= 2,
        Text("num_positions must be {count}: the patches and CLS", count=vision.grid**2 + 1): (
            vision.num_positions == vision.grid**2 + 1
        ),
        Text("vision hidden_size must be a multiple of num_heads"): (
            vision.hidden_size % vision.num_heads == 0
        ),
        Text("hidden_size must be a multiple of num_attention_heads"): (
            config.hidden_size % heads == 0
        ),
        Text("hidden_size / num_attention_heads must be even, because RoPE turns pairs"): (
            config.head_dim % 2 == 0
        ),
        Text("num_attention_heads must be a multiple of num_multi_query_heads"): (
            heads % config.num_multi_query_heads == 0
        ),
        Text("hidden_act must be gelu in the vision tower and silu in the decoder"): (
            vision.hidden_act == "gelu" and config.hidden_act == "silu"
        ),
        Text("template_version must be one of {names}", names=", ".join(templates)): (
            config.template_version in templates
        ),
        Text("token ids must be below vocab_size, {count}", count=config.vocab_size): (
            max(ids) < config.vocab_size
        ),
    }  # fmt: skip
    for rule, holds in rules.items():
        if not holds:
            raise CheckpointError("{where} is not valid: {why}.", where=where, why=rule)


# --- tensors --------------------------------------------------------------------------------------


def _tensors(config: ModelConfig) -> Iterator[TensorSpec]:
    yield from _vision(config)
    yield from _projector(config)
    yield _spec("model.embed_tokens.weight", _table(config), Part.EMBEDDING, Role.TABLE)
    for layer in range(config.num_hidden_layers):
        yield from _decoder_block(config, layer)
    yield _spec("model.norm.weight", (config.hidden_size,), Part.NORMS, Role.NORM)
    yield _spec("lm_head.weight", _table(config), Part.LM_HEAD, Role.LINEAR)


def _spec(
    name: str, shape: tuple[int, ...], part: Part, role: Role, block: int | None = None
) -> TensorSpec:
    decodes = role is Role.LINEAR and part in _PHASES[Phase.DECODE]
    return TensorSpec(name=name, shape=shape, part=part, role=role, block=block, decodes=decodes)


def _table(config: ModelConfig) -> tuple[int, int]:
    return (config.vocab_size, config.hidden_size)


def _vision(config: ModelConfig) -> Iterator[TensorSpec]:
    v, part = config.vision, Part.VISION
    width = v.hidden_size
    stem = "model.vision.patch_embedding"
    kernel = (width, v.in_channels, v.patch_size, v.patch_size)
    yield _spec(f"{stem}.proj.weight", kernel, part, Role.CONV)
    yield _spec(f"{stem}.proj.bias", (width,), part, Role.BIAS)
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
            yield _spec(f"{base}.{name}.bias", (rows,), part, Role.BIAS, layer)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield _spec(f"{base}.{norm}.weight", (width,), part, Role.NORM, layer)
            yield _spec(f"{base}.{norm}.bias", (width,), part, Role.BIAS, layer)


def _projector(config: ModelConfig) -> Iterator[TensorSpec]:
    width, hidden, inner = config.vision.hidden_size, config.hidden_size, config.intermediate_size
    part, base = Part.PROJECTOR, "model.vision"
    yield _spec(f"{base}.conv.weight", (width, width, 2, 2), part, Role.CONV)
    yield _spec(f"{base}.conv.bias", (width,), part, Role.BIAS)
    glu = f"{base}.linear_proj"
    yield _spec(f"{glu}.linear_proj.weight", (hidden, width), part, Role.LINEAR)
    yield _spec(f"{glu}.norm1.weight", (hidden,), part, Role.NORM)
    yield _spec(f"{glu}.norm1.bias", (hidden,), part, Role.BIAS)
    yield _spec(f"{glu}.gate_proj.weight", (inner, hidden), part, Role.LINEAR)
    yield _spec(f"{glu}.dense_h_to_4h.weight", (inner, hidden), part, Role.LINEAR)
    yield _spec(f"{glu}.dense_4h_to_h.weight", (hidden, inner), part, Role.LINEAR)
    yield _spec(f"{base}.boi", (1, 1, hidden), part, Role.TABLE)
    yield _spec(f"{base}.eoi", (1, 1, hidden), part, Role.TABLE)


def _decoder_block(config: ModelConfig, layer: int) -> Iterator[TensorSpec]:
    base = f"model.layers.{layer}"
    hidden, inner = config.hidden_size, config.intermediate_size
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield _spec(f"{base}.{norm}.weight", (hidden,), Part.NORMS, Role.NORM, layer)
    frequencies = f"{base}.self_attn.rotary_emb.inv_freq"
    yield _spec(frequencies, (config.head_dim // 2,), Part.NORMS, Role.FREQUENCIES, layer)
    for expert, part in (("language", Part.LANGUAGE_EXPERT), ("vision", Part.VISION_EXPERT)):
        qkv = f"{base}.self_attn.{expert}_expert_query_key_value"
        yield _spec(f"{qkv}.weight", (config.qkv_rows, hidden), part, Role.LINEAR, layer)
        if expert == "vision":  # the language expert's projection has no bias
            yield _spec(f"{qkv}.bias", (config.qkv_rows,), part, Role.BIAS, layer)
        dense = f"{base}.self_attn.{expert}_expert_dense.weight"
        yield _spec(dense, (hidden, hidden), part, Role.LINEAR, layer)
        mlp = f"{base}.mlp.{expert}_mlp"
        yield _spec(f"{mlp}.gate_proj.weight", (inner, hidden), part, Role.LINEAR, layer)
        yield _spec(f"{mlp}.up_proj.weight", (inner, hidden), part, Role.LINEAR, layer)
        yield _spec(f"{mlp}.down_proj.weight", (hidden, inner), part, Role.LINEAR, layer)


COGVLM2 = Architecture(
    name="CogVLMForCausalLM",
    parse=_parse,
    tensors=_tensors,
    phases=_PHASES,
    keep_order=_KEEP_ORDER,
    templates=_TEMPLATES,
    pictures_per_conversation=1,
    released=Released(word="19b", title="CogVLM2 19B in 4 bits", raw=_RELEASED_19B),
)
