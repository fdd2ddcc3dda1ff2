"""Pictures' key/value prefixes on disk, so that they need not be encoded again after a restart.

One safetensors file per picture, 288 MiB for the 19B model. The size of the folder is limited; the
least recently used file goes first. A file that can't be read is deleted and the picture is encoded
again: everything in the folder can be recomputed.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from cogvlm2_lite.model.kv_cache import KVCache, KVPrefix


class PictureStore:
    """Prefixes of one model's pictures in a folder.

    folder     may be shared by several models
    identity   everything but the picture that affects the numbers: model, number type, RoPE mode,
               activations, device and kernels
    max_bytes  limit for all files in the folder together
    """

    def __init__(self, folder: Path, identity: str, max_bytes: int) -> None:
        self._folder = folder
        self._identity = identity
        self._max_bytes = max_bytes

    def get(self, picture: str, cache: KVCache, tokens: int) -> KVPrefix | None:
        """Return the prefix of a picture, or None if there is none that fits the cache."""
        path = self._path(picture)
        if not path.exists():
            return None
        try:
            tensors = safetensors.torch.load_file(path)
            os.utime(path)
        except (OSError, SafetensorError):
            self._remove(path)
            return None
        parts = {
            name: tuple(tensors[key] for key in sorted(tensors) if key.startswith(name))
            for name in ("keys", "values")
        }
        prefix = KVPrefix(keys=parts["keys"], values=parts["values"])
        if not cache.fits(prefix, tokens):
            self._remove(path)
            return None
        return prefix

    def put(self, picture: str, prefix: KVPrefix) -> None:
        """Write a prefix, under a temporary name first. A full disk is not an error here."""
        path = self._path(picture)
        if path.exists() or not self._make_room(prefix.nbytes):
            return
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tensors = {
                f"{name}.{number}": part.contiguous()
                for name, parts in (("keys", prefix.keys), ("values", prefix.values))
                for number, part in enumerate(parts)
            }
            safetensors.torch.save_file(tensors, temporary)
            temporary.replace(path)
        except (OSError, SafetensorError):
            self._remove(temporary)

    def _path(self, picture: str) -> Path:
        name = hashlib.sha256(f"{self._identity}\n{picture}".encode()).hexdigest()
        return self._folder / f"{name[:40]}.safetensors"

    def _make_room(self, nbytes: int) -> bool:
        """Delete the least recently used files until `nbytes` more fit; False if they never do."""
        if nbytes > self._max_bytes:
            return False
        files = []
        for path in self._folder.glob("*.safetensors") if self._folder.is_dir() else ():
            with suppress(OSError):  # another program may just have removed it
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        held = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if held + nbytes <= self._max_bytes:
                break
            self._remove(path)
            held -= size
        return True

    def _remove(self, path: Path) -> None:
        with suppress(OSError):
            path.unlink(missing_ok=True)
