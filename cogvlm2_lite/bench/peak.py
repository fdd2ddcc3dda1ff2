"""How much memory this process really holds, at its highest since a reset."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """Watches one device: a GPU's allocated bytes, or the pages of this process on the CPU.

    What was there when watching began is not counted.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._highest = 0
        self._begin = self._now()
        self.reset()

    def reset(self) -> None:
        """Begin a new peak."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        self._highest = self._now()
        if _RESET.exists():
            _RESET.write_text("5")

    def look(self) -> None:
        """Note what is held now; needed where the system keeps no highest value itself."""
        if self._device.type == "cpu":
            self._highest = max(self._highest, self._now())

    @property
    def nbytes(self) -> int:
        """The most that was held since the last reset."""
        if self._device.type == "cuda":
            highest: int = torch.cuda.max_memory_allocated(self._device)
            return highest - self._begin
        self.look()
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
        return max(self._highest, 1024 * int(found[1]) if found else 0) - self._begin

    def _now(self) -> int:
        if self._device.type == "cuda":
            held: int = torch.cuda.memory_allocated(self._device)
            return held
        return int(psutil.Process().memory_info().rss)
