"""The manifest of a quantized folder: what every tensor is stored as, and what its bytes hash to.

It is written last, so a folder that has one is complete. `docs/format.md` describes it for readers.
Nothing in it depends on the time, the place or the machine: the same source and settings give the
same manifest. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.header import parse_json_object, printable

MANIFEST_NAME = "cogvlm2_lite_manifest.json"
FORMAT_VERSION = 1

_MAX_BYTES = 16 * MIB
_DAMAGED = "The manifest is damaged. Copy it again, or run quantize again."


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A small file of the folder: config, index, tokenizer."""

    nbytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """A safetensors file; the hashes of its pieces stand with their tensors."""

    nbytes: int
    header_sha256: str
    """Of the length field and the header, the file's first bytes up to the first piece."""


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """One tensor of the architecture as it is stored."""

    kind: str
    """Storage kind: "dense", "nf4" or "int8"."""
    shard: str
    """File name."""
    sha256: Mapping[str, str]
    """By piece: "weight", "absmax", "quant_map" and so on, the roles of catalog.py."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything `verify` needs to find a changed byte, and what the folder was made from."""

    tool: str
    """Program and version that wrote the folder."""
    source: Mapping[str, str]
    """Fingerprint of the checkpoint that was converted."""
    settings: Mapping[str, Any]
    """The options that decided the bytes."""
    files: Mapping[str, FileRecord]
    shards: Mapping[str, ShardRecord]
    tensors: Mapping[str, TensorRecord]

    def to_bytes(self) -> bytes:
        """Return the content of the manifest file: JSON, in the order of the tensors."""
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        return (json.dumps(content, indent=1) + "\n").encode()


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder; None when it has none.

    Raises CheckpointError when there is one that is damaged or of an unknown format version.
    """
    file = folder / MANIFEST_NAME
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise CheckpointError(
                "{file} has more than 16 MiB, so it is not a manifest.", file=file
            )
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(
            "{file} can't be read: {why}.", file=file, why=error.strerror or error
        ) from error
    content = parse_json_object(raw, where=str(file))
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            "{file} has format version {format!r}; this program knows version {known}.",
            hint="Update CogVLM2 Lite, or run quantize again with this version.",
            file=file,
            format=version,
            known=FORMAT_VERSION,
        )
    try:
        return _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "{file} is not a manifest of version {known}: {why}.",
            hint=_DAMAGED,
            file=file,
            known=FORMAT_VERSION,
            why=printable(str(error)),
        ) from error


def _parse(content: Mapping[str, Any]) -> Manifest:
    """Build a Manifest; KeyError, TypeError or ValueError say what does not fit."""
    unknown = content.keys() - set(Manifest.__dataclass_fields__)
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]}")
    return Manifest(
        tool=_text(content["tool"]),
        source={_text(k): _text(v) for k, v in _mapping(content["source"]).items()},
        settings=dict(_mapping(content["settings"])),
        files={
            _file_name(name): FileRecord(nbytes=_count(f["nbytes"]), sha256=_text(f["sha256"]))
            for name, f in _mapping(content["files"]).items()
        },
        shards={
            _file_name(name): ShardRecord(
                nbytes=_count(s["nbytes"]), header_sha256=_text(s["header_sha256"])
            )
            for name, s in _mapping(content["shards"]).items()
        },
        tensors={
            _text(name): TensorRecord(
                kind=_text(t["kind"]),
                shard=_file_name(t["shard"]),
                sha256={_text(k): _text(v) for k, v in _mapping(t["sha256"]).items()},
            )
            for name, t in _mapping(content["tensors"]).items()
        },
    )


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a count of bytes")
    return value


def _file_name(value: Any) -> str:
    """Accept a plain name only: the manifest must not make a program read outside its folder."""
    name = _text(value)
    if not name or name in (".", "..") or any(c in name for c in "/\\:\0"):
        raise ValueError(f"{name!r} is not a plain file name")
    return name
