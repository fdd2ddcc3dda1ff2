"""The checkpoint that is converted: check it, identify it, and read it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from fnmatch import fnmatchcase
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, Self

from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import CheckpointError, UsageError
from cogvlm2_lite.folders.contents import HEAD_BYTES, wrong_content
from cogvlm2_lite.folders.explain import explain_file
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.header import Piece
from cogvlm2_lite.weights.identity import source_fingerprint
from cogvlm2_lite.weights.writer import drop_from_cache
from cogvlm2_lite.weights.zeros import PieceCheck, checked_roles, look_for_zeros, zeros_error

_SAMPLE_BYTES = 4096
_ZERO_SAMPLE_BYTES = 4 * MIB
"""Bytes of the source that are looked at for zeros before the work begins."""

_COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.*",
    "LICENSE*",
    "NOTICE*",
    "MODEL_LICENSE*",
    "USE_POLICY*",
)
"""Files that are copied to the result. Python files are not: a model's own code is never run."""

_MAX_COPIED_BYTES = 64 * 1024**2


def open_source(source: Path, destination: Path, *, quantized: bool = False) -> Catalog:
    """Check that one folder can be converted into the other; return the source's catalog.

    quantized  accept a source that is quantized

    Raises UsageError for an impossible pair of folders, CheckpointError for a source that is
    damaged, incomplete or already quantized.
    """
    if source.is_file():
        raise explain_file(source)
    if not source.is_dir():
        raise UsageError(
            "There is no folder {folder}.",
            hint="Choose the folder that contains config.json and the .safetensors files.",
            folder=source,
        )
    here, there = source.resolve(), destination.resolve()
    if here == there:
        raise UsageError(
            "{folder} is both the source and the destination.",
            hint="Choose a new folder for the result; the source is only read.",
            folder=source,
        )
    if there.is_relative_to(here):
        raise UsageError(
            "{folder} is inside the source {source}.",
            hint="Choose a folder outside of it; the source is only read.",
            folder=destination,
            source=source,
        )
    catalog = Catalog.open(source, read_config(source))
    kinds = sorted({t.kind for t in catalog.tensors.values()} - {"dense"})
    if not quantized and (kinds or "quantization_config" in raw_config(source)):
        raise CheckpointError(
            "{folder} is already quantized ({kinds}).",
            hint="Rounding twice loses quality: start from the released 16-bit checkpoint.",
            folder=source,
            kinds=", ".join(kinds) or Text("according to its config.json"),
        )
    for file in companion_files(source):
        if file.suffix == ".json":
            _refuse_other_content(file)
    return catalog


def _refuse_other_content(file: Path) -> None:
    """Raise CheckpointError if a file that would be copied is a web page, a pointer and so on."""
    with file.open("rb") as stream:
        found = wrong_content(file, stream.read(HEAD_BYTES), file.stat().st_size)
    if found:
        raise found


def refuse_zeros(catalog: Catalog) -> None:
    """Raise CheckpointError if a look at some pages shows zeros that a model does not have.

    The full check needs all bytes; it is made when they are rounded.
    """
    for found in look_for_zeros(catalog, most_bytes=_ZERO_SAMPLE_BYTES):
        raise found.error


def refuse_zeros_in(stored: StoredTensor, files: SourceFiles) -> None:
    """Raise CheckpointError if a tensor has zeros that a model does not have; read all of it."""
    for role in checked_roles(stored):
        check, piece = PieceCheck(stored, role), stored.pieces[role]
        for begin in range(0, piece.nbytes, 8 * MIB):
            check.add(
                files.read(stored.spec.name, piece, begin, min(8 * MIB, piece.nbytes - begin))
            )
        if problem := check.problem():
            raise zeros_error(stored.spec.name, piece.file.name, problem)


def raw_config(source: Path) -> dict[str, Any]:
    """Return config.json as it is; read_config has already checked it."""
    content: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    return content


def companion_files(source: Path) -> list[Path]:
    """Return the tokenizer, generation and licence files that are copied unchanged."""
    return sorted(
        file
        for file in source.iterdir()
        if any(fnmatchcase(file.name, pattern) for pattern in _COPIED)
        and file.is_file()
        and file.stat().st_size <= _MAX_COPIED_BYTES
    )


def identify(catalog: Catalog) -> dict[str, str]:
    """Return what identifies a source: its fingerprint, and a hash of a few bytes of every tensor.

    The fingerprint is that of the checkpoint from which the source was made, if it was.

    Two fine-tuned versions of one model have equal headers, so with the fingerprint alone the
    conversion of one could be resumed with the other. Hashing all 39 GB would take too long.
    """
    digest = hashlib.sha256()
    with SourceFiles(drop=False) as files:
        for name, tensor in catalog.tensors.items():
            piece = tensor.pieces["weight"]
            count = min(_SAMPLE_BYTES, piece.nbytes)
            middle = (piece.nbytes - count) // 2
            digest.update(files.read(name, piece, middle, count))
    fingerprint = source_fingerprint(catalog, catalog.folder)
    return {"fingerprint": fingerprint, "sample_sha256": digest.hexdigest()}


class SourceFiles:
    """Reads parts of tensors from any thread; every file is opened once.

    A context manager. It reads into new buffers instead of mapping files: the mapped pages of a
    39 GB checkpoint would count as memory of this process.
    """

    def __init__(self, *, drop: bool = True) -> None:
        """drop: remove what was read from the system's page cache."""
        self._drop = drop
        self._open: dict[Path, FileIO] = {}
        self._stack = ExitStack()
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, tensor: str, piece: Piece, begin: int, count: int) -> bytearray:
        """Return `count` bytes of a piece, starting at its byte `begin`.

        tensor  name of the tensor for error messages
        Raises CheckpointError, with file and tensor, if the file can't be read or ends early.
        """
        data = bytearray(count)
        try:
            stream = self._stream(piece.file)
            got = _read_into(stream, memoryview(data), piece.begin + begin, self._lock)
            if self._drop:
                drop_from_cache(stream.fileno(), piece.begin + begin, count)
        except OSError as error:
            raise CheckpointError(
                "{file} can't be read at {tensor}: {why}.",
                hint="The disk or the network may be failing. Finished work is kept: put a "
                "good copy of the file in its place and run the same command again.",
                file=piece.file.name,
                tensor=tensor,
                why=error.strerror or error,
            ) from error
        if got != count:
            raise CheckpointError(
                "{file} ends in the middle of {tensor}: it needs {missing} more bytes.",
                hint="The file was changed while it was read. Put the whole file back and run the "
                "same command again.",
                file=piece.file.name,
                tensor=tensor,
                missing=count - got,
            )
        return data

    def _stream(self, file: Path) -> FileIO:
        with self._lock:
            if file not in self._open:
                self._open[file] = self._stack.enter_context(FileIO(file, "rb"))
            return self._open[file]


def read_positioned(stream: FileIO, part: memoryview, position: int, lock: Lock) -> int:
    """Read from a position into a buffer; return how many bytes were read."""
    return os.preadv(stream.fileno(), [part], position)


def read_seeking(stream: FileIO, part: memoryview, position: int, lock: Lock) -> int:
    """Do the same on systems without positioned reads (Windows)."""
    with lock:
        stream.seek(position)
        return stream.readinto(part) or 0


_read_once: Callable[[FileIO, memoryview, int, Lock], int] = (
    read_positioned if hasattr(os, "preadv") else read_seeking
)


def _read_into(stream: FileIO, target: memoryview, position: int, lock: Lock) -> int:
    """Fill the target as far as the file allows; return the number of bytes read."""
    got = 0
    while got < len(target):
        count = _read_once(stream, target[got:], position + got, lock)
        if count == 0:
            break
        got += count
    return got
