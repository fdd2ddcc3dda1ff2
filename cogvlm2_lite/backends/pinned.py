"""Uploads weights from host memory to a GPU while the GPU computes.

The tensors of a unit lie one behind the other on the GPU. Their bytes are copied from the mapped
file into a ring of two pinned buffers, and from there over the bus on a separate stream: one copy
for each buffer, however many tensors it holds. The thread that uploads waits for its copies, so a
unit is on the GPU when it was filled; the thread that computes waits only for the block that it
needs next.

Units that are streamed for every token have a copy in pinned memory instead, where RAM allows: to
copy them from the mapped file first takes longer than the bus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite.backends.base import HostCopy, Outgoing, Upload
from cogvlm2_lite.backends.device import ALIGNMENT, PINNED_CHUNK, aligned

RING_BYTES = PINNED_CHUNK
"""Size of one pinned buffer: the CPU fills one while the other is copied over the bus."""

_MEMORY_ALLOCATION = 2
"""cudaErrorMemoryAllocation; HIP has the same number."""

assert RING_BYTES % ALIGNMENT == 0


@dataclass(frozen=True, kw_only=True)
class _Buffer:
    """One buffer of the ring.

    memory     [RING_BYTES] uint8
    free       the event after the last copy from it
    is_pinned  False if there was no pinned memory
    """

    memory: Tensor
    free: Any
    is_pinned: bool


class PinnedUpload(Upload):
    """Uploads to one GPU; a context manager around everything that one `fill` does."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module: Any = torch.get_device_module(device)  # torch.cuda or torch.xpu
        self._stream = self._module.Stream(device)
        self._context = self._module.stream(self._stream)
        self._computed = self._module.Event()
        self._ring: list[_Buffer] = []
        self._turn = 1

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
        # Pinned memory may be there again at the next upload.
        self._ring = [buffer for buffer in self._ring if buffer.is_pinned]

    def send(
        self,
        pieces: Sequence[Outgoing],
        room: Tensor | None = None,
        kept: HostCopy | None = None,
    ) -> list[Tensor]:
        """Return copies of CPU tensors on the GPU, in one range of memory; see Upload."""
        ends = list(accumulate(aligned(piece.nbytes) for piece in pieces))
        total = ends[-1] if ends else 0
        begins = [end - aligned(piece.nbytes) for end, piece in zip(ends, pieces, strict=True)]
        if room is None:
            room = torch.empty(total, dtype=torch.uint8, device=self._device)
        for number, begin in enumerate(range(0, total, RING_BYTES)):
            end = min(begin + RING_BYTES, total)
            if kept is not None and number == len(kept.chunks) and not kept.is_full:
                memory, is_pinned = pinned_or_ordinary(end - begin)
                kept.is_full = not is_pinned
                if is_pinned:
                    _pack(memory, pieces, begins, begin, end)
                    kept.chunks.append(memory)
            if kept is not None and number < len(kept.chunks):
                room[begin:end].copy_(kept.chunks[number], non_blocking=True)
                continue
            buffer = self._next_buffer()
            _pack(buffer.memory, pieces, begins, begin, end)
            room[begin:end].copy_(buffer.memory[: end - begin], non_blocking=True)
            buffer.free.record(self._stream)
        return [
            room[begin : begin + piece.nbytes].view(piece.dtype).view(piece.tensor.shape)
            for begin, piece in zip(begins, pieces, strict=True)
        ]

    def wait_for_computing(self) -> None:
        """Let later copies wait until no computation that is queued now reads weights any more.

        The GPU waits, not the host.
        """
        self._computed.record(self._module.current_stream(self._device))
        self._stream.wait_event(self._computed)

    def _next_buffer(self) -> _Buffer:
        """Return a buffer whose last copy has ended."""
        if len(self._ring) < 2:
            self._ring.append(self._new_buffer())
            return self._ring[-1]
        self._turn = 1 - self._turn
        buffer = self._ring[self._turn]
        buffer.free.synchronize()
        return buffer

    def _new_buffer(self) -> _Buffer:
        memory, is_pinned = pinned_or_ordinary(RING_BYTES)
        return _Buffer(memory=memory, free=self._module.Event(), is_pinned=is_pinned)


def _pack(
    buffer: Tensor, pieces: Sequence[Outgoing], begins: Sequence[int], begin: int, end: int
) -> None:
    """Write the bytes from `begin` to `end` of pieces that lie one behind the other.

    begins  the first byte of each piece
    """
    for at, piece in zip(begins, pieces, strict=True):
        first, last = max(at, begin), min(at + piece.nbytes, end)
        if first < last:
            size = piece.dtype.itemsize
            source = piece.tensor.reshape(-1)[(first - at) // size : (last - at) // size]
            buffer[first - begin : last - begin].view(piece.dtype).copy_(source)


def pinned_or_ordinary(nbytes: int) -> tuple[Tensor, bool]:
    """Return uint8 [nbytes], pinned if the system allows it, and whether it is pinned.

    The driver refuses pinned memory long before RAM is full, and less video memory would not help.
    A copy from ordinary memory is slower.
    """
    try:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True), True
    except RuntimeError as error:
        if not is_refused(error):
            raise
        return torch.empty(nbytes, dtype=torch.uint8), False


def pinned_or_same(tensor: Tensor) -> Tensor:
    """Return a pinned copy of a CPU tensor; the tensor itself if there is no pinned memory."""
    try:
        return tensor.pin_memory()
    except RuntimeError as error:
        if not is_refused(error):
            raise
        return tensor


def is_refused(error: Exception) -> bool:
    """Return whether the driver had no memory, by its error number, which torch keeps."""
    code = getattr(error, "error_code", None)
    return isinstance(error, torch.AcceleratorError) and code == _MEMORY_ALLOCATION
