"""Reads the fields of a config class from config.json; the class declares types and bounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.text import Text

T = TypeVar("T")

# Keys that every Hugging Face config may carry and that do not change what a model computes.
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


def read_fields(
    raw: Mapping[str, Any], kind: type[Any], where: str, *, given: Collection[str] = ()
) -> dict[str, Any]:
    """Return the fields of a config class from `raw`, checked against the class's types.

    given  fields that the caller reads itself

    Raises CheckpointError for an unknown key (it may change the results), for a missing field
    without a default, and for a value of another type or out of bounds.
    """
    wanted = {f.name: f for f in fields(kind) if f.name not in given}
    unknown = sorted(set(raw) - set(wanted) - _NEUTRAL_KEYS)
    if unknown:
        raise CheckpointError(
            "{where} has unknown keys: {names}.",
            hint="They may change the results. Check that this is a CogVLM2 image model.",
            where=where,
            names=", ".join(unknown),
        )
    missing = [n for n, f in wanted.items() if n not in raw and f.default is MISSING]
    if missing:
        raise CheckpointError(
            "{where} lacks {names}.", where=where, names=", ".join(sorted(missing))
        )
    types = get_type_hints(kind, include_extras=True)
    return {n: read_value(raw[n], types[n], f"{where}: {n}") for n in wanted if n in raw}


def read_value(value: Any, kind: Any, what: str) -> Any:
    """Return a JSON value converted to the type `kind`, which may be Annotated with bounds.

    4096.0 counts as an integer, because JSON does not distinguish the two. Raises CheckpointError.
    """
    whole = isinstance(value, float) and value.is_integer() and _base(kind) is int
    try:
        return msgspec.convert(int(value) if whole else value, kind)
    except msgspec.ValidationError:
        raise CheckpointError(
            "{key} must be {expected}, not {value!r}.",
            key=what,
            expected=_wanted(kind),
            value=value,
        ) from None


def _base(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _wanted(kind: Any) -> Text:
    """Return a description of the values that a type accepts."""
    base = _base(kind)
    if base is str:
        return Text("a string")
    if base not in (int, float):
        return Text("an id or a list of ids")
    bounds = next(m for m in kind.__metadata__ if isinstance(m, msgspec.Meta))
    if base is int:
        return Text("a whole number from {least} to {most}", least=bounds.ge, most=bounds.le)
    return Text("a number from {least} to {most}", least=bounds.ge, most=bounds.le)
