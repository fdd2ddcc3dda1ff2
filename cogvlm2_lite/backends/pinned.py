"""Uploads weights from host memory to a GPU while the GPU computes.

Bytes are copied from the mapped file into a ring of two pinned buffers, and from there over the bus
on a separate stream. The thread that uploads waits for its copies, so a weight is on the GPU when
`fill` returns; the thread that computes waits only for the block that it needs next.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite.backends.base import Upload

RING_BYTES = 32 << 20
"""Size of one pinned buffer: the CPU fills one while the other is copied over the bus."""


class PinnedUpload(Upload):
    """Uploads to one GPU; a context manager around everything that one `fill` does."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module: Any = torch.get_device_module(device)  # torch.cuda or torch.xpu
        self._stream = self._module.Stream(device)
        self._context = self._module.stream(self._stream)
        self._ring: list[tuple[Tensor, Any]] = []
        self._turn = 0

    def __enter__(self) -> PinnedUpload:
        self._context.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.__exit__(kind, error, trace)
        self._stream.synchronize()

    def send(self, piece: Tensor) -> Tensor:
        """Return a copy of a CPU tensor on the GPU."""
        there = torch.empty(piece.shape, dtype=piece.dtype, device=self._device)
        source, target = (t.view(-1).view(torch.uint8) for t in (piece, there))
        for begin in range(0, source.numel(), RING_BYTES):
            part = source[begin : begin + RING_BYTES]
            buffer, free = self._next_buffer()
            buffer[: part.numel()].copy_(part)
            target[begin : begin + RING_BYTES].copy_(buffer[: part.numel()], non_blocking=True)
            free.record(self._stream)
        return there

    def wait_for_computing(self) -> None:
        """Wait until no queued computation reads weights any more.

        Must be called before a weight's memory is released: the memory belongs to the upload's
        stream, which does not wait for kernels that still read it.
        """
        self._module.current_stream(self._device).synchronize()

    def _next_buffer(self) -> tuple[Tensor, Any]:
        """Return a pinned buffer whose last copy has ended, and the event for its next copy."""
        if len(self._ring) < 2:
            buffer = torch.empty(RING_BYTES, dtype=torch.uint8, pin_memory=True)
            self._ring.append((buffer, self._module.Event()))
            return self._ring[-1]
        self._turn = 1 - self._turn
        buffer, free = self._ring[self._turn]
        free.synchronize()
        return buffer, free
