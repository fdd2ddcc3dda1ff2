"""Reused buffers, so that no memory is allocated for every matrix."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType

import torch
from torch import Tensor


class Scratch:
    """A few named buffers that grow to the largest requested size.

    Each loader has one, which all its weights share; so only one of them may multiply at a time. A
    buffer's content is lost at the next `take` of the same name.

    least_bytes  size of a buffer when it is first taken, by name. A buffer that never grows never
                 moves: a CUDA graph that was captured with it stays valid.
    """

    def __init__(
        self, device: torch.device, least_bytes: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._device, self._least_bytes = device, least_bytes
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised contiguous tensor on the device."""
        needed = prod(shape) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < needed:
            size = max(needed, self._least_bytes.get(name, 0))
            buffer = torch.empty(size, dtype=torch.uint8, device=self._device)
            self._buffers[name] = buffer
        return buffer[:needed].view(dtype).view(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(buffer.numel() for buffer in self._buffers.values())
