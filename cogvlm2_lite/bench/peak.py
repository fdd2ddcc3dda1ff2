"""Measures the peak memory of this process since a reset."""

from __future__ import annotations

import torch

from cogvlm2_lite.backends.registry import backend_of


class PeakMemory:
    """Measures one device: the allocated bytes of a GPU, or the resident pages on a CPU.

    Memory that was in use at the start is not counted.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._backend = backend_of(device)
        self._begin = self._highest = self._now()
        self.reset()

    def reset(self) -> None:
        """Start a new peak."""
        self._highest = self._now()
        self._backend.reset_peak(self._device)

    def look(self) -> None:
        """Record the memory in use now; not every system records the peak itself."""
        if self._backend.uses_ram:
            self._highest = max(self._highest, self._now())

    @property
    def nbytes(self) -> int:
        """The peak since the last reset."""
        self.look()
        return max(self._highest, self._backend.peak_bytes(self._device)) - self._begin

    def _now(self) -> int:
        return self._backend.held_bytes(self._device)
