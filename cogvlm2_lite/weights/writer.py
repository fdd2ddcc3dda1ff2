"""Writes safetensors files from front to back, with every offset known before the first byte.

The layout follows from names, types and shapes alone, so the header is written first and the
tensors are appended in order, chunk by chunk. No tensor needs to be in memory as a whole, and an
incomplete file can be continued at any tensor. No torch here: data are bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Self

from cogvlm2_lite.weights.header import DTYPE_BYTES

Data = bytes | bytearray | memoryview
"""Types that can be written; memoryviews must be contiguous."""

HEADER_ALIGNMENT = 64
"""The data area starts at a multiple of this many bytes, so tensors are aligned in the file."""


@dataclass(frozen=True, kw_only=True)
class PlannedPiece:
    """One tensor of a file that will be written."""

    name: str
    dtype: str
    """A key of header.DTYPE_BYTES."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """Names, types, shapes and offsets of all tensors of one file, in file order."""

    pieces: tuple[PlannedPiece, ...]

    @cached_property
    def header(self) -> bytes:
        """The first bytes of the file: header length, then JSON padded with spaces."""
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for piece in self.pieces:
            begin, end = end, end + piece.nbytes
            entries[piece.name] = {
                "dtype": piece.dtype,
                "shape": list(piece.shape),
                "data_offsets": [begin, end],
            }
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % HEADER_ALIGNMENT)
        return len(text).to_bytes(8, "little") + text

    @cached_property
    def begins(self) -> Mapping[str, int]:
        """First byte of each piece, counted from the start of the file."""
        sizes = (piece.nbytes for piece in self.pieces)
        places = accumulate(sizes, initial=len(self.header))
        return dict(zip((piece.name for piece in self.pieces), places, strict=False))

    @cached_property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(piece.nbytes for piece in self.pieces)


class ShardWriter:
    """Appends pieces to one file in the order of its layout, and computes their hashes.

    Use it as a context manager. Raises OSError for a full disk, missing permissions and so on.
    """

    def __init__(self, file: Path, layout: ShardLayout, *, keep: int = 0) -> None:
        """Open a file for the pieces that come after its first `keep` bytes.

        file    is created if it is missing; truncated after the first `keep` bytes
        layout  the layout of the whole file
        keep    0, or the end of a piece: these bytes are already written
        """
        ends = [layout.begins[p.name] + p.nbytes for p in layout.pieces]
        self._layout = layout
        self._next = 0 if keep == 0 else 1 + max(i for i, end in enumerate(ends) if end == keep)
        self._missing = 0
        self._hash = hashlib.sha256()
        # Unbuffered: chunks are large, and a killed process must not lose written bytes.
        self._stream = file.open("r+b" if keep else "wb", buffering=0)
        self._stream.truncate(keep)
        self._stream.seek(keep)
        self._synced = keep
        if keep == 0:
            self._append(layout.header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def begin(self, name: str) -> None:
        """Start the next piece. Its name is passed to detect a wrong order."""
        assert self._missing == 0, f"{self._missing} bytes are missing before {name}"
        piece = self._layout.pieces[self._next]
        assert piece.name == name, f"{piece.name} comes before {name}"
        self._next += 1
        self._missing = piece.nbytes
        self._hash = hashlib.sha256()

    def write(self, data: Data) -> None:
        """Append bytes to the current piece."""
        view = memoryview(data).cast("B")
        assert view.nbytes <= self._missing, f"{view.nbytes - self._missing} bytes too many"
        self._append(view)
        self._hash.update(view)
        self._missing -= view.nbytes

    def end(self) -> str:
        """Finish the current piece; return its sha256 in hex."""
        assert self._missing == 0, f"{self._missing} bytes are missing"
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Wait until everything written so far is on the disk."""
        os.fsync(self._stream.fileno())
        position = self._stream.tell()
        drop_from_cache(self._stream.fileno(), self._synced, position - self._synced)
        self._synced = position

    def _append(self, data: Data) -> None:
        position = self._stream.tell()
        view = memoryview(data).cast("B")
        while view.nbytes:
            view = view[self._stream.write(view) :]
        # Linux starts to write such pages to the disk immediately, so that `sync` takes less time:
        # 0.15 s instead of 1 s for 1.9 GB (measured).
        drop_from_cache(self._stream.fileno(), position, self._stream.tell() - position)


def drop_from_cache(file_number: int, begin: int, length: int) -> None:
    """Drop bytes of a file from the system's page cache.

    Otherwise 39 GB that are read once would displace the files of other programs. Does nothing on
    systems without posix_fadvise.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file_number, begin, length, os.POSIX_FADV_DONTNEED)


def write_file_durably(file: Path, data: bytes) -> None:
    """Write a small file under a temporary name, sync it to the disk, then rename it.

    Raises OSError, and leaves nothing behind then.
    """
    temporary = file.with_name(file.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to the disk; does nothing on Windows, which can't."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
