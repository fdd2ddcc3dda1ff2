"""Tensors in compressed files: goldens take less room in the repository."""

from __future__ import annotations

import lzma
from pathlib import Path

from safetensors.torch import load
from torch import Tensor


def load_packed(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors.xz file."""
    return load(lzma.decompress(file.read_bytes()))
