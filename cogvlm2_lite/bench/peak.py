"""How much memory this process really holds, at its highest since a reset."""

from __future__ import annotations

import torch

from cogvlm2_lite.backends.registry import backend_of


class PeakMemory:
    """Watches one device: a GPU's allocated bytes, or the pages of this process on the CPU.

    What was held when watching began is not counted.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._backend = backend_of(device)
        self._begin = self._highest = self._now()
        self.reset()

    def reset(self) -> None:
        """Begin a new peak."""
        self._highest = self._now()
        self._backend.reset_peak(self._device)

    def look(self) -> None:
        """Note what is held now: not every system records the peak of its RAM itself."""
        if self._backend.uses_ram:
            self._highest = max(self._highest, self._now())

    @property
    def nbytes(self) -> int:
        """The most that was held since the last reset."""
        self.look()
        return max(self._highest, self._backend.peak_bytes(self._device)) - self._begin

    def _now(self) -> int:
        return self._backend.held_bytes(self._device)
