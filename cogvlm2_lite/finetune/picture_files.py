"""What training needs of each picture, on the disk, so that it is computed once.

    KIND-NAME.tensors   features of a picture, or keys and values of a prefix

The name is a hash of the picture and of everything that affects the numbers: model, number type,
RoPE mode, device and kernels. Features take 18 MiB for the 19B model and save the encoding; a
prefix takes 288 MiB and saves its prefill. So prefixes only get what all features leave.

Every epoch needs all pictures, so nothing is replaced: once the limit is reached, or the disk is
full, nothing is added. A file that is not as it was written is deleted and made again. Everything
in the folder can be computed again.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

FEATURES, PREFIX = "features", "prefix"
_SHARE_OF_DISK = 0.2
"""Of the free bytes, without a size given."""
_OLD_SECONDS = 3600.0
_CHECK = struct.Struct("<QI")
"""At the end of a file: its bytes before this, and their CRC-32."""


class PictureFiles:
    """Tensors of pictures in a folder.

    identity   everything but the picture that affects the numbers
    max_bytes  limit for all files in the folder together
    """

    def __init__(self, folder: Path, identity: str, max_bytes: int) -> None:
        self._folder, self._identity, self._max_bytes = folder, identity, max_bytes
        self._reserved = 0
        self._closed = False
        for old in folder.glob("*.tmp"):  # of a process that was killed, not of another run
            with suppress(OSError):
                if time.time() - old.stat().st_mtime > _OLD_SECONDS:
                    old.unlink()
        self.held_bytes = sum(_size(file) for file in folder.glob("*.tensors"))

    def reserve(self, pictures: int, nbytes: int) -> None:
        """Keep room for the features of so many pictures, nbytes each, before any prefix."""
        held = sum(_size(file) for file in self._folder.glob(f"{FEATURES}-*.tensors"))
        self._reserved = max(0, pictures * nbytes - held)

    def has(self, kind: str, picture: str) -> bool:
        """Return whether there is a file for a picture, damaged or not."""
        return self._file(kind, picture).is_file()

    def get(self, kind: str, picture: str) -> list[Tensor] | None:
        """Return the tensors of a picture in their order, or None if they are not here."""
        file = self._file(kind, picture)
        try:
            data = file.read_bytes()
        except OSError:
            return None
        found = _read(data)
        if found is None:
            self._delete(file)
        return found

    def put(self, kind: str, picture: str, tensors: Sequence[Tensor]) -> None:
        """Write the tensors of a picture if there is room for them."""
        file = self._file(kind, picture)
        nbytes = sum(tensor.nbytes for tensor in tensors)
        reserved = self._reserved if kind == PREFIX else 0
        if self._closed or self.held_bytes + reserved + nbytes > self._max_bytes or file.exists():
            return
        content = {f"{n:05d}": t.detach().contiguous().cpu() for n, t in enumerate(tensors)}
        data = safetensors.torch.save(content)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.write(_CHECK.pack(len(data), zlib.crc32(data)))
            temporary.replace(file)
        except OSError:  # the disk is full; what is in the folder can still be read
            self._closed = True
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            return
        self.held_bytes += len(data) + _CHECK.size
        if kind == FEATURES:
            self._reserved = max(0, self._reserved - nbytes)

    def _file(self, kind: str, picture: str) -> Path:
        name = hashlib.sha256(f"{self._identity}\n{picture}".encode()).hexdigest()
        return self._folder / f"{kind}-{name[:40]}.tensors"

    def _delete(self, file: Path) -> None:
        self.held_bytes -= _size(file)
        with suppress(OSError):
            file.unlink(missing_ok=True)


def default_limit(free_bytes: int) -> int:
    """Return the limit without a size given, from the free bytes of the disk."""
    return int(free_bytes * _SHARE_OF_DISK)


def _read(data: bytes) -> list[Tensor] | None:
    """Return the tensors of a file's content, or None if it is damaged."""
    body = memoryview(data)[: -_CHECK.size]
    try:
        length, check = _CHECK.unpack_from(data, len(body))
        if length != len(body) or check != zlib.crc32(body):
            return None
        tensors = safetensors.torch.load(bytes(body))
    except (struct.error, SafetensorError):
        return None
    return [tensors[name] for name in sorted(tensors)]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
