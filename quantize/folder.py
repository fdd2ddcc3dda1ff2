"""The small files of the result: the index, config.json, and the files copied from the source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.folders.explain import INDEX_NAME
from quantize.recipe import TO_BF16, Recipe
from quantize.source import companion_files, raw_config


def describe_folder(source: Path, recipe: Recipe) -> dict[str, bytes]:
    """Return the content of every file of the result except shards and manifest, by name."""
    return {
        "config.json": _json(_config(source, recipe)),
        INDEX_NAME: _json(_index(recipe)),
        **{file.name: file.read_bytes() for file in companion_files(source)},
    }


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _index(recipe: Recipe) -> dict[str, Any]:
    pieces = [
        (piece, shard.name)
        for shard in recipe.shards
        for tensor in shard.tensors
        for piece in tensor.pieces.values()
    ]
    return {
        "metadata": {"total_size": sum(piece.nbytes for piece, _ in pieces)},
        "weight_map": {piece.name: shard for piece, shard in sorted(pieces, key=_piece_name)},
    }


def _piece_name(entry: tuple[Any, str]) -> str:
    name: str = entry[0].name
    return name


def _config(source: Path, recipe: Recipe) -> dict[str, Any]:
    """Return the source's config.json with the additions of a 4-bit folder.

    auto_map is removed: it names Python files that are not copied, and a reader that follows it
    would download and run them. torch_dtype is added if it is missing: without it transformers
    before 5 would expand the 16-bit tensors to 32 bits.
    """
    content = raw_config(source)
    content.pop("auto_map", None)
    if recipe.settings.matrices == TO_BF16:
        content["dtype" if "dtype" in content else "torch_dtype"] = recipe.source_dtype
    if "dtype" not in content:
        content.setdefault("torch_dtype", recipe.source_dtype)
    if recipe.settings.merges:
        return _merged_config(content, recipe)
    content["quantization_config"] = _quantization(recipe)
    return content


def _merged_config(content: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return the config with the source's quantization, if the result has one.

    If a matrix changed its storage kind, the list of those that are not 4-bit is rewritten.
    """
    if all(tensor.kind == "dense" for tensor in recipe.tensors):
        content.pop("quantization_config", None)
    elif any(tensor.kind != tensor.source.kind for tensor in recipe.tensors):
        content["quantization_config"] = {
            **content.get("quantization_config", {}),
            "llm_int8_skip_modules": _not_four_bit(recipe),
        }
    return content


def _quantization(recipe: Recipe) -> dict[str, Any]:
    """Return the quantization_config that transformers reads before the weights.

    llm_int8_skip_modules is always set: if it were null, transformers would skip lm_head, which is
    wrong for a 4-bit lm_head.
    """
    return {
        "_load_in_4bit": True,
        "_load_in_8bit": False,
        "bnb_4bit_compute_dtype": recipe.source_dtype,
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": recipe.settings.double_quant,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "llm_int8_skip_modules": _not_four_bit(recipe),
        "llm_int8_threshold": 6.0,
        "load_in_4bit": True,
        "load_in_8bit": False,
        "quant_method": "bitsandbytes",
    }


def _not_four_bit(recipe: Recipe) -> list[str]:
    """Return the names of all linear modules that are not 4-bit."""
    linears = (t for t in recipe.tensors if t.source.spec.role is Role.LINEAR)
    return [t.name.removesuffix(".weight") for t in linears if t.kind not in ("nf4", "fp4")]
