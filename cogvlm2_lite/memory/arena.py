"""Accounts for the bytes of a device, and rejects an allocation above the budget.

On a GPU the driver would fail too, but later and in the middle of a kernel. On the CPU the arena
simulates video memory, so that every rule about it can be tested without a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfBudgetError(MemoryError):
    """An allocation would exceed the budget. Caught by the engine, which replans."""


class Arena:
    """The bytes in use on one device.

    limit_bytes  the budget; None: no limit
    peak_bytes   the most that was held since the last `reset_peak`
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.peak_bytes = 0
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> None:
        """Account for bytes before they are allocated; a negative number releases them.

        Raises OutOfBudgetError, and accounts for nothing, if the budget would be exceeded.
        """
        with self._lock:
            held = self.held_bytes + nbytes
            if nbytes > 0 and self.limit_bytes is not None and held > self.limit_bytes:
                raise OutOfBudgetError(
                    f"{nbytes} bytes more than the {self.held_bytes} held would pass the budget "
                    f"of {self.limit_bytes}"
                )
            self.held_bytes = held
            self.peak_bytes = max(self.peak_bytes, held)

    def release(self, nbytes: int) -> None:
        """Account for released bytes."""
        self.take(-nbytes)

    def reset_peak(self) -> None:
        """Start to record a new peak."""
        self.peak_bytes = self.held_bytes

    @contextmanager
    def holding(self, nbytes: int) -> Iterator[None]:
        """Account for bytes until the end of the context."""
        self.take(nbytes)
        try:
            yield
        finally:
            self.release(nbytes)
