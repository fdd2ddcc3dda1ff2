"""Which model a folder holds, as a short text that is equal for every copy of it. No torch here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.weights.adapter_names import ADAPTER_FILES
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.header import Shard
from cogvlm2_lite.weights.manifest import MANIFEST_NAME, read_manifest

_DIGITS = 16
_SAMPLE_BYTES = 4096
_SMALL_FILES = ("config.json", "tokenizer.json", MANIFEST_NAME)


def identify_model(folder: Path, adapters: Sequence[AdapterChoice] = ()) -> str:
    """Return 16 hexadecimal digits that differ for models that answer differently.

    They depend on the config, the headers, the tokenizer and the manifest, which has the hash of
    every tensor. A folder without a manifest has two models of one size told apart by a sample of
    each tensor, since reading 39 GB would take minutes. The path does not matter.

    adapters  act together on every answer, and count as a part of the model

    Raises CheckpointError for a folder that can't be opened as a model.
    """
    catalog = Catalog.open(folder, read_config(folder))
    # From the files alone: saved answers must stand when a later version reads configs otherwise.
    digest = hashlib.sha256()
    for shard in catalog.shards:
        digest.update(f"{shard.file.name} {shard.size} {shard.header_sha256}\n".encode())
    try:
        _add_files(digest, folder, _SMALL_FILES)
        if not (folder / MANIFEST_NAME).is_file():
            for shard in catalog.shards:
                _add_samples(digest, shard)
        for adapter in adapters:
            _add_files(digest, adapter.folder, ADAPTER_FILES)
            if adapter.weight != 1:
                digest.update(f"weight {adapter.weight!r}\n".encode())
    except OSError as error:
        raise CheckpointError(
            "{file} can't be read: {why}.", file=folder, why=error.strerror or error
        ) from error
    return digest.hexdigest()[:_DIGITS]


def source_fingerprint(catalog: Catalog, folder: Path) -> str:
    """Return the fingerprint of the checkpoint that a folder is, or was converted from."""
    manifest = read_manifest(folder)
    found = "" if manifest is None else manifest.source.get("fingerprint", "")
    return found or catalog.fingerprint()


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that an adapter is trained on or used with, as far as adapters depend on it.

    source     fingerprint of the checkpoint that the folder is, or was converted from
    weights    fingerprint of the weights as they are stored: it differs between roundings
    kinds      linear matrices by storage kind
    tokenizer  sha256 of tokenizer.json; "" without one
    """

    source: str
    weights: str = ""
    kinds: Mapping[str, int] = field(default_factory=dict)
    tokenizer: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the part "base" of an adapter's own file."""
        return {
            "source_fingerprint": self.source,
            "folder_fingerprint": self.weights,
            "kinds": dict(self.kinds),
            "tokenizer_sha256": self.tokenizer,
        }


def identify_base(catalog: Catalog, folder: Path) -> Base:
    """Return what an adapter of the model in a folder depends on. Reads no weights.

    Raises CheckpointError for a file that can't be read.
    """
    manifest = read_manifest(folder)
    weights = catalog.fingerprint()
    if manifest is not None:
        digest = hashlib.sha256()
        for name, record in sorted(manifest.tensors.items()):
            digest.update(f"{name} {record.kind} {sorted(record.sha256.items())}\n".encode())
        weights = digest.hexdigest()
    linears = (t for t in catalog.tensors.values() if t.spec.role is Role.LINEAR)
    tokenizer = folder / "tokenizer.json"
    try:
        content = tokenizer.read_bytes() if tokenizer.is_file() else b""
    except OSError as error:
        raise CheckpointError(
            "{file} can't be read: {why}.", file=tokenizer, why=error.strerror or error
        ) from error
    return Base(
        source=source_fingerprint(catalog, folder),
        weights=weights,
        kinds=dict(Counter(tensor.kind for tensor in linears)),
        tokenizer=hashlib.sha256(content).hexdigest() if content else "",
    )


def _add_files(digest: hashlib._Hash, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        file = folder / name
        content = file.read_bytes() if file.is_file() else b""
        digest.update(hashlib.sha256(content).digest())


def _add_samples(digest: hashlib._Hash, shard: Shard) -> None:
    """Add the middle of every tensor: fine-tuning changes all rows of a matrix that it changes."""
    with shard.file.open("rb") as stream:
        for piece in shard.pieces.values():
            length = min(piece.nbytes, _SAMPLE_BYTES)
            stream.seek(piece.begin + (piece.nbytes - length) // 2)
            digest.update(stream.read(length))
