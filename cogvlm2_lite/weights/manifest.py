"""The manifest of a quantized folder: the storage kind and the hashes of every tensor.

It is written last, so a folder with a manifest is complete. `docs/format.md` describes it. It does
not depend on time, path or machine: the same source and settings produce the same manifest. No
torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.header import parse_json_object, printable

MANIFEST_NAME = "cogvlm2_lite_manifest.json"
FORMAT_VERSION = 1

_MAX_BYTES = 16 * MIB
_DAMAGED = "The manifest is damaged. Copy it again, or run quantize again."


Count = Annotated[int, Meta(ge=0)]
"""Bytes."""


class FileRecord(Struct, frozen=True, kw_only=True):
    """A small file of the folder: config, index, tokenizer."""

    nbytes: Count
    sha256: str


class ShardRecord(Struct, frozen=True, kw_only=True):
    """A safetensors file; the hashes of its pieces are in the tensors' records."""

    nbytes: Count
    header_sha256: str
    """Hash of the length field and the header: all bytes before the first piece."""


class TensorRecord(Struct, frozen=True, kw_only=True):
    """The stored form of one tensor of the architecture."""

    kind: str
    """Storage kind: "dense", "nf4" or "int8"."""
    shard: str
    """File name."""
    sha256: Mapping[str, str]
    """By role as in catalog.py: "weight", "absmax", "quant_map" and so on."""


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `verify` needs to find a changed byte, and the source and settings of the folder."""

    tool: str
    """Program and version that wrote the folder."""
    source: Mapping[str, str]
    """Fingerprint of the checkpoint that was converted."""
    settings: Mapping[str, Any]
    """The options that affect the bytes."""
    files: Mapping[str, FileRecord]
    shards: Mapping[str, ShardRecord]
    tensors: Mapping[str, TensorRecord]

    def to_bytes(self) -> bytes:
        """Return the content of the manifest file: JSON, in the order of the tensors."""
        content = {"format_version": FORMAT_VERSION, **msgspec.to_builtins(self)}
        return (json.dumps(content, indent=1) + "\n").encode()


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder; None if it has none.

    Raises CheckpointError if the manifest is damaged or of an unknown format version.
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
        manifest = msgspec.convert(content, Manifest)
        named = {tensor.shard for tensor in manifest.tensors.values()}
        for name in (*manifest.files, *manifest.shards, *named):
            _check_file_name(name)
    except ValueError as error:  # msgspec's is one
        raise CheckpointError(
            "{file} is not a manifest of version {known}: {why}.",
            hint=_DAMAGED,
            file=file,
            known=FORMAT_VERSION,
            why=printable(str(error)),
        ) from error
    return manifest


def _check_file_name(name: str) -> None:
    """Reject names with a path: the manifest must not make a program read outside its folder."""
    if not name or name in (".", "..") or any(c in name for c in "/\\:\0"):
        raise ValueError(f"{name!r} is not a plain file name")
