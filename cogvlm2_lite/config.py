"""Reads config.json: the architecture of a model folder and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cogvlm2_lite.architectures import ARCHITECTURES
from cogvlm2_lite.architectures.architecture import Architecture, ModelConfig
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.architectures.others import other_model
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.folders.contents import (
    message_in_place,
    server_message,
    unreadable_json,
)
from cogvlm2_lite.folders.explain import CONFIG_NAME, explain_no_config
from cogvlm2_lite.text import marked

_RUNS = marked(
    "CogVLM2 Lite runs cogvlm2-llama3-chat-19B, cogvlm2-llama3-chinese-chat-19B and models "
    "fine-tuned from them."
)


def read_config(folder: Path) -> ModelConfig:
    """Return the checked content of a model folder's config.json.

    Raises CheckpointError when the file is missing, is not JSON, lacks a number, or holds a key or
    an unknown value: guessing could silently give wrong answers. It also names another model, a
    folder above the model's, and a download that has not finished.
    """
    path = folder / CONFIG_NAME
    content = b""
    try:
        content = path.read_bytes()
        raw = msgspec.json.decode(content)
    except FileNotFoundError:
        raise explain_no_config(folder) from None
    except RecursionError:
        raise CheckpointError("{file} is nested too deeply.", file=path) from None
    except msgspec.DecodeError as error:
        raise unreadable_json(path, content, error) from error
    except OSError as error:
        raise CheckpointError("{file} can't be read: {why}.", file=path, why=error) from error
    if not isinstance(raw, dict):
        raise CheckpointError("{file} does not contain a JSON object.", file=path)
    if message := server_message(raw):
        raise message_in_place(path, message)
    return parse_config(raw, where=str(path))


def parse_config(raw: Mapping[str, Any], *, where: str = CONFIG_NAME) -> ModelConfig:
    """Return the content of a config.json as a checked ModelConfig; errors as in read_config."""
    architecture = _architecture_of(raw, where)
    _check_quantization(raw.get("quantization_config"), where)
    try:
        return architecture.parse(architecture, raw, where)
    except CheckpointError as error:
        names = _names(raw)
        if not names or any(name in ARCHITECTURES for name in names):
            raise
        raise CheckpointError(
            "{where}: this is {name}, which CogVLM2 Lite does not run. {why}",
            hint=_RUNS,
            where=where,
            name=", ".join(names)[:80],
            why=error.message,
        ) from error


def _architecture_of(raw: Mapping[str, Any], where: str) -> Architecture:
    """Return the architecture that config.json names, or CogVLM2 if the name is unknown.

    Copies and fine-tuned models omit or change the name. CogVLM2's checks of keys and tensors
    reject other models. Raises CheckpointError for a known other model.
    """
    known = (ARCHITECTURES.get(name) for name in _names(raw))
    found = next((architecture for architecture in known if architecture), COGVLM2)
    if found is COGVLM2 and (other := other_model(raw)):
        raise CheckpointError(
            "{where}: this is {name}, which CogVLM2 Lite does not run.",
            hint=_RUNS,
            where=where,
            name=other,
        )
    return found


def _check_quantization(how: object, where: str) -> None:
    """Raise CheckpointError for weights that another program quantized in its own way."""
    if not isinstance(how, Mapping):
        return
    method = how.get("quant_method", "bitsandbytes")
    if method == "bitsandbytes" and how.get("load_in_8bit") is not True:
        return
    raise CheckpointError(
        "{where}: the weights are quantized with {method}, which CogVLM2 Lite can't read.",
        hint="Use the released 16-bit checkpoint, a folder that quantize wrote, or a 4-bit folder "
        "of bitsandbytes.",
        where=where,
        method="bitsandbytes, 8 bits" if method == "bitsandbytes" else str(method)[:40],
    )


def _names(raw: Mapping[str, Any]) -> list[str]:
    names = raw.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []
