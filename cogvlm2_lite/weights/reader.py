"""Reads tensors from memory-mapped safetensors files.

Nothing is read until a weight is used. What is read is in the system's page cache: the system can
free it when memory is short, and other programs with the same model open share it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.header import Piece, Shard

TORCH_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "U8": torch.uint8,
        "I8": torch.int8,
    }
)


_MADV_POPULATE_READ = 22
_POPULATE_BYTES = 8 * MIB


def map_shard(shard: Shard) -> dict[str, Tensor]:
    """Return all tensors of a file as views of it, by name.

    Raises CheckpointError if the file has changed since its header was read, or can't be read.
    """
    file = _MappedFile(shard)
    return {name: _view(file, piece) for name, piece in shard.pieces.items()}


class Reader:
    """Reads the pieces of a catalog as CPU tensors, without copying if possible.

    The tensors keep their file mapped; they must not be written to. If a file shrinks while it is
    mapped, most systems kill the process on access, so every read first checks that the file has
    not changed since the catalog was opened.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._files = {shard.file: _MappedFile(shard) for shard in catalog.shards}

    def read(self, stored: StoredTensor) -> dict[str, Tensor]:
        """Return all pieces of a tensor by role, each in its stored dtype and shape.

        4-bit codes are returned flat, [numel / 2 rounded up] uint8. Raises CheckpointError if a
        file has changed since the catalog was opened, or can't be read.
        """
        pieces = {role: self.view(piece) for role, piece in stored.pieces.items()}
        if stored.quant is not None:
            pieces["weight"] = pieces["weight"].view(-1).view(torch.uint8)
        return pieces

    def read_ahead(self, tensors: Iterable[StoredTensor]) -> None:
        """Put the pages of tensors into this process's memory, on another thread.

        On Linux a page of a file that is in the system's cache still takes a fault at its first
        use, and one that is not is read a few pages at a time. Elsewhere nothing is done.
        """
        pieces = [piece for stored in tensors for piece in stored.pieces.values()]
        views = [self.view(piece) for piece in sorted(pieces, key=lambda p: (str(p.file), p.begin))]
        if sys.platform == "linux" and views:
            threading.Thread(
                target=_populate, args=(views,), name="read ahead", daemon=True
            ).start()

    def view(self, piece: Piece) -> Tensor:
        """Return one piece as a view of its file; errors as in read."""
        return _view(self._files[piece.file], piece)


def _populate(views: Sequence[Tensor]) -> None:
    """Make the pages of mapped tensors present, in their order; stop at the first failure."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for view in views:
        # In parts: the main thread can't map memory of its own during a call.
        end = view.data_ptr() + view.nbytes
        begin = view.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        for part in range(begin, end, _POPULATE_BYTES):
            nbytes = min(_POPULATE_BYTES, end - part)
            if libc.madvise(part, nbytes, _MADV_POPULATE_READ):
                return  # a system before Linux 5.14, or a file that has changed


def _view(file: _MappedFile, piece: Piece) -> Tensor:
    dtype = TORCH_DTYPES[piece.dtype]
    flat = file.bytes(piece.begin, piece.end)
    if piece.begin % dtype.itemsize:
        flat = flat.clone()  # torch's kernels may require aligned numbers
    return flat.view(dtype).view(piece.shape)


class _MappedFile:
    """One safetensors file, mapped on first use."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._descriptor: int | None = None
        self._bytes: Tensor | None = None

    def bytes(self, begin: int, end: int) -> Tensor:
        """Return some bytes of the file as uint8, after checking that the file is unchanged."""
        try:
            if self._bytes is None or self._descriptor is None:
                self._bytes = self._map()
            else:
                self._check(os.fstat(self._descriptor))
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(
                "{file} can't be read: {why}.", file=self._shard.file, why=reason
            ) from error
        return self._bytes[begin:end]

    def _map(self) -> Tensor:
        self._descriptor = os.open(self._shard.file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._check(os.fstat(self._descriptor))
        mapped = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        return _as_tensor(mapped)

    def _check(self, status: os.stat_result) -> None:
        shard = self._shard
        if status.st_size != shard.size or status.st_mtime_ns != shard.modified_ns:
            raise CheckpointError(
                "{file} was changed while the model was in use: it had {old} bytes, now {new}.",
                hint="Wait until the file is complete, then start again.",
                file=shard.file,
                old=shard.size,
                new=status.st_size,
            )

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _as_tensor(mapped: mmap.mmap) -> Tensor:
    """Return a mapping as uint8 [bytes].

    torch warns about read-only buffers; a ctypes array at the same address is not marked as such.
    The array keeps the mapping alive, and torch keeps the array alive.
    """
    view = np.frombuffer(mapped, dtype=np.uint8)
    array = (ctypes.c_ubyte * len(view)).from_address(view.ctypes.data)
    array.mapped = view  # type: ignore[attr-defined]
    return torch.frombuffer(array, dtype=torch.uint8)
