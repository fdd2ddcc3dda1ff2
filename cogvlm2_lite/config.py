"""Reads config.json: the architecture of a model folder and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cogvlm2_lite.architectures import ARCHITECTURES
from cogvlm2_lite.architectures.architecture import Architecture, ModelConfig
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.errors import CheckpointError


def read_config(folder: Path) -> ModelConfig:
    """Return the checked content of a model folder's config.json.

    Raises CheckpointError when the file is missing, is not JSON, lacks a number, or holds a key or
    an unknown value: guessing could silently give wrong answers.
    """
    path = folder / "config.json"
    try:
        raw = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            "{folder} has no config.json, so it is not a model folder.",
            hint="Choose the folder that contains config.json and the .safetensors files.",
            folder=folder,
        ) from None
    except RecursionError:
        raise CheckpointError("{file} is nested too deeply.", file=path) from None
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError("{file} can't be read: {why}.", file=path, why=error) from error
    if not isinstance(raw, dict):
        raise CheckpointError("{file} does not contain a JSON object.", file=path)
    return parse_config(raw, where=str(path))


def parse_config(raw: Mapping[str, Any], *, where: str = "config.json") -> ModelConfig:
    """Return the content of a config.json as a checked ModelConfig; errors as in read_config."""
    architecture = _architecture_of(raw)
    return architecture.parse(architecture, raw, where)


def _architecture_of(raw: Mapping[str, Any]) -> Architecture:
    """Return the architecture that config.json names, or CogVLM2 if the name is unknown.

    Copies and fine-tuned models omit or change the name. CogVLM2's checks of keys and tensors
    reject other models.
    """
    names = raw.get("architectures")
    known = (ARCHITECTURES.get(str(name)) for name in (names if isinstance(names, list) else ()))
    return next((architecture for architecture in known if architecture), COGVLM2)
