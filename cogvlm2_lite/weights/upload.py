"""Brings weights from host memory to a GPU while the GPU computes.

Bytes go from the mapped file into a small ring of pinned buffers, and from there over the bus on a
stream of their own. The thread that uploads waits for its copies, so a weight that was filled is
there; the thread that computes never waits for one that it does not need.
"""

from __future__ import annotations

import threading
from types import TracebackType

import torch
from torch import Tensor

RING_BYTES = 32 << 20
"""One pinned buffer. Two of them: one is filled by the processor while the bus empties the other."""

_SMALL_BYTES = 64 << 10


class Upload:
    """Uploads to one GPU; a context manager around everything that one `fill` does.

    Memory of weights is allocated on the upload's stream, so it comes back to that stream when a
    weight is taken out, and could be overwritten while a kernel still reads it. `note_use` marks
    what has been queued for computing, and the next upload waits for the mark.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._context = torch.cuda.stream(self._stream)
        self._lock = threading.RLock()
        self._used: torch.cuda.Event | None = None
        self._ring: list[tuple[Tensor, torch.cuda.Event]] = []
        self._turn = 0

    def note_use(self) -> None:
        """Remember that everything queued on the computing stream may read the weights."""
        self._used = torch.cuda.current_stream(self._device).record_event()

    def __enter__(self) -> Upload:
        self._lock.acquire()
        if self._used is not None:
            self._used.synchronize()
        self._context.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.__exit__(kind, error, trace)
        try:
            self._stream.synchronize()
        finally:
            self._lock.release()

    def send(self, piece: Tensor) -> Tensor:
        """Copy a CPU tensor to the GPU through the pinned ring; small ones directly."""
        if piece.nbytes < _SMALL_BYTES:
            return piece.to(self._device)
        there = torch.empty(piece.shape, dtype=piece.dtype, device=self._device)
        source, target = (t.view(-1).view(torch.uint8) for t in (piece, there))
        for begin in range(0, source.numel(), RING_BYTES):
            part = source[begin : begin + RING_BYTES]
            buffer, free = self._next_buffer()
            buffer[: part.numel()].copy_(part)
            target[begin : begin + RING_BYTES].copy_(buffer[: part.numel()], non_blocking=True)
            free.record(self._stream)
        return there

    def _next_buffer(self) -> tuple[Tensor, torch.cuda.Event]:
        """Give a pinned buffer whose last copy has ended, and the event to mark its next with."""
        if len(self._ring) < 2:
            buffer = torch.empty(RING_BYTES, dtype=torch.uint8, pin_memory=True)
            self._ring.append((buffer, torch.cuda.Event()))
            return self._ring[-1]
        self._turn = 1 - self._turn
        buffer, free = self._ring[self._turn]
        free.synchronize()
        return buffer, free
