"""Reused buffers, so that no memory is allocated for every matrix."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


class Scratch:
    """A few named buffers that grow to the largest requested size.

    Each loader has one, which all its weights share; so only one of them may multiply at a time. A
    buffer's content is lost at the next `take` of the same name.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised contiguous tensor on the device."""
        needed = prod(shape) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < needed:
            buffer = torch.empty(needed, dtype=torch.uint8, device=self._device)
            self._buffers[name] = buffer
        return buffer[:needed].view(dtype).view(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(buffer.numel() for buffer in self._buffers.values())
