"""The numbers of a CogVLM2 model, read from its config.json.

The released config.json leaves two of them out (`num_multi_query_heads` and `tie_word_embeddings`);
their defaults are those of the released configuration class. The RoPE base is in no file: the
released code has it as a constant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cogvlm2_lite.errors import CheckpointError

ROPE_THETA = 500_000.0
PROJECTOR_NORM_EPS = 1e-5
"""LayerNorm eps inside the projector: torch's default in the released code, in no config."""

RELEASED_19B: Mapping[str, Any] = MappingProxyType({
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
"""config.json of cogvlm2-llama3-chat-19B, without the entries for its remote code. With it the
memory of the real model can be planned before its 39 GB are downloaded."""

_MOST = 2**24
"""No size or count of a config.json may be above it: 64 times the largest of the 19B model."""
_MOST_LAYERS = 1024
"""So that a damaged count can't make the list of expected tensors endless."""

# Keys that every Hugging Face config may carry and that do not change what this model computes.
_NEUTRAL_KEYS = frozenset({
    "architectures", "auto_map", "model_type", "initializer_range", "use_cache", "torch_dtype",
    "dtype", "transformers_version", "_name_or_path", "name_or_path", "quantization_config",
    "dropout_prob", "chunk_size_feed_forward", "output_attentions", "output_hidden_states",
    "return_dict", "is_encoder_decoder", "is_decoder", "id2label", "label2id", "problem_type",
    "_commit_hash", "_attn_implementation", "_attn_implementation_autoset", "attn_implementation",
    "torchscript", "use_bfloat16", "pruned_heads", "add_cross_attention", "tokenizer_class",
    "cross_attention_hidden_size", "tie_encoder_decoder", "prefix", "sep_token_id",
    "decoder_start_token_id", "task_specific_params", "finetuning_task",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Shape of the vision tower (EVA2-CLIP-E without its last layer)."""

    image_size: int
    patch_size: int
    in_channels: int
    hidden_size: int
    num_heads: int
    num_hidden_layers: int
    intermediate_size: int
    layer_norm_eps: float
    num_positions: int
    hidden_act: str = "gelu"

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size // self.patch_size

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def image_tokens(self) -> int:
        """Tokens one picture costs in the decoder: the 2x2-downsampled grid, boi and eoi."""
        return (self.grid // 2) ** 2 + 2


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and token ids of a whole model."""

    vision: VisionConfig
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    bos_token_id: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    num_multi_query_heads: int = 8
    hidden_act: str = "silu"
    template_version: str = "chat"

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused projection: all query heads, then key heads, then value heads."""
        return (self.num_attention_heads + 2 * self.num_multi_query_heads) * self.head_dim

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of key/value cache per token in a 2-byte type (128 KiB for the 19B model)."""
        return 2 * self.num_hidden_layers * self.num_multi_query_heads * self.head_dim * 2


def read_config(folder: Path) -> ModelConfig:
    """Read and check `config.json` of a model folder.

    Raises CheckpointError when the file is missing, is not JSON, lacks a number, or holds a key or
    a value this program does not know: guessing would give wrong answers silently.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            "{folder} has no config.json, so it is not a model folder.",
            hint="Give the folder that holds config.json and the .safetensors files.",
            folder=folder,
        ) from None
    except RecursionError:
        raise CheckpointError("{path} is nested too deeply.", path=path) from None
    except (OSError, ValueError) as error:
        raise CheckpointError("{path} can't be read: {why}.", path=path, why=error) from error
    if not isinstance(raw, dict):
        raise CheckpointError("{path} does not hold a JSON object.", path=path)
    return parse_config(raw, where=str(path))


def parse_config(raw: Mapping[str, Any], *, where: str = "config.json") -> ModelConfig:
    """Turn the content of a config.json into a checked ModelConfig; errors as in read_config."""
    values = dict(raw)
    vision_raw = values.pop("vision_config", None)
    if not isinstance(vision_raw, dict):
        raise CheckpointError(
            "{where} has no vision_config, so this is not a CogVLM2 image model.",
            hint="CogVLM2 Lite runs cogvlm2-llama3-chat-19B and cogvlm2-llama3-chinese-chat-19B.",
            where=where,
        )
    eos = values.pop("eos_token_id", None)
    eos_ids = tuple(eos) if isinstance(eos, list) else (eos,)
    if not all(type(i) is int for i in eos_ids) or not eos_ids:
        raise CheckpointError(
            "{where}: eos_token_id must be an id or a list of ids, not {eos!r}.",
            where=where,
            eos=eos,
        )
    if values.pop("tie_word_embeddings", False):
        raise CheckpointError("{where}: tied word embeddings are not part of CogVLM2.", where=where)
    config = ModelConfig(
        vision=VisionConfig(**_take(vision_raw, VisionConfig, f"{where}: vision_config")),
        eos_token_ids=eos_ids,
        **_take(values, ModelConfig, where, given={"vision", "eos_token_ids"}),
    )
    _check_shapes(config, where)
    return config


def _take(
    raw: Mapping[str, Any], kind: type[Any], where: str, given: set[str] | None = None
) -> dict[str, Any]:
    """Pick the fields of a config class out of raw JSON, refusing what is missing or unknown."""
    wanted = {f.name: f for f in fields(kind) if f.name not in (given or set())}
    unknown = sorted(set(raw) - set(wanted) - _NEUTRAL_KEYS)
    if unknown:
        raise CheckpointError(
            "{where} holds keys this program does not know: {names}.",
            hint="They may change the results. Check that this is a CogVLM2 image model.",
            where=where,
            names=", ".join(unknown),
        )
    taken = {}
    for name, field in wanted.items():
        if name not in raw:
            continue
        taken[name] = _checked(raw[name], str(field.type), f"{where}: {name}")
    required = {n for n, f in wanted.items() if n not in taken and f.default is MISSING}
    if required:
        raise CheckpointError(
            "{where} lacks {names}.", where=where, names=", ".join(sorted(required))
        )
    return taken


def _checked(value: Any, kind: str, what: str) -> Any:
    """Give a value of the type that a field wants: "int", "float" or "str"."""
    if kind == "str":
        if not isinstance(value, str):
            raise CheckpointError("{what} must be text, not {value!r}.", what=what, value=value)
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise CheckpointError(
            "{what} must be a number of 0 or more, not {value!r}.", what=what, value=value
        )
    if value > _MOST:
        raise CheckpointError(
            "{what} is {value}; more than {most} is refused.", what=what, value=value, most=_MOST
        )
    if kind == "int" and value != int(value):
        raise CheckpointError(
            "{what} must be a whole number, not {value!r}.", what=what, value=value
        )
    return int(value) if kind == "int" else value


def _check_shapes(config: ModelConfig, where: str) -> None:
    """Refuse numbers that do not fit together, before any of them sizes a buffer."""
    vision = config.vision
    sizes = (
        vision.image_size, vision.patch_size, vision.num_heads, vision.num_hidden_layers,
        config.num_attention_heads, config.num_multi_query_heads, config.num_hidden_layers,
        config.vocab_size, config.hidden_size, vision.hidden_size, config.intermediate_size,
        vision.intermediate_size, config.max_position_embeddings,
    )  # fmt: skip
    if min(sizes) == 0:
        raise CheckpointError("{where}: sizes and counts must be positive.", where=where)
    layers = max(vision.num_hidden_layers, config.num_hidden_layers)
    rules = {
        f"there may be {_MOST_LAYERS} layers, not {layers}": layers <= _MOST_LAYERS,
        "in_channels must be 3, for red, green and blue": vision.in_channels == 3,
        "a picture must have 2 x 2 patches or more": vision.grid >= 2,
        "num_positions must be the patches and one CLS row": vision.num_positions
        == vision.grid**2 + 1,
        "vision hidden_size must divide by num_heads": vision.hidden_size
        % vision.num_heads == 0,
        "hidden_size must divide by num_attention_heads": config.hidden_size
        % config.num_attention_heads == 0,
        "hidden_size / num_attention_heads must be even, for RoPE turns pairs": config.head_dim
        % 2 == 0,
        "num_attention_heads must divide by num_multi_query_heads": config.num_attention_heads
        % config.num_multi_query_heads == 0,
        "hidden_act must be gelu in the vision tower and silu in the decoder": (
            vision.hidden_act == "gelu" and config.hidden_act == "silu"
        ),
        "template_version must be chat, vqa or base": config.template_version
        in ("chat", "vqa", "base"),
        "token ids must lie in the vocabulary": all(
            0 <= i < config.vocab_size
            for i in (config.bos_token_id, config.pad_token_id, *config.eos_token_ids)
        ),
    }  # fmt: skip
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise CheckpointError("{where}: {first}.", where=where, first=broken[0])
