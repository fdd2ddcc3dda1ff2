"""Which model a folder holds, as a short text that is equal for every copy of it. No torch here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.header import Shard
from cogvlm2_lite.weights.manifest import MANIFEST_NAME

_DIGITS = 16
_SAMPLE_BYTES = 4096
_SMALL_FILES = ("config.json", "tokenizer.json", MANIFEST_NAME)


def identify_model(folder: Path) -> str:
    """Return 16 hexadecimal digits that differ for models that answer differently.

    They depend on the config, the headers, the tokenizer and the manifest, which has the hash of
    every tensor. A folder without a manifest has two models of one size told apart by a sample of
    each tensor, since reading 39 GB would take minutes. The path does not matter.

    Raises CheckpointError for a folder that can't be opened as a model.
    """
    catalog = Catalog.open(folder, read_config(folder))
    # From the files alone: saved answers must stand when a later version reads configs otherwise.
    digest = hashlib.sha256()
    for shard in catalog.shards:
        digest.update(f"{shard.file.name} {shard.size} {shard.header_sha256}\n".encode())
    try:
        for name in _SMALL_FILES:
            file = folder / name
            content = file.read_bytes() if file.is_file() else b""
            digest.update(hashlib.sha256(content).digest())
        if not (folder / MANIFEST_NAME).is_file():
            for shard in catalog.shards:
                _add_samples(digest, shard)
    except OSError as error:
        raise CheckpointError(
            "{file} can't be read: {why}.", file=folder, why=error.strerror or error
        ) from error
    return digest.hexdigest()[:_DIGITS]


def _add_samples(digest: hashlib._Hash, shard: Shard) -> None:
    """Add the middle of every tensor: fine-tuning changes all rows of a matrix that it changes."""
    with shard.file.open("rb") as stream:
        for piece in shard.pieces.values():
            length = min(piece.nbytes, _SAMPLE_BYTES)
            stream.seek(piece.begin + (piece.nbytes - length) // 2)
            digest.update(stream.read(length))
