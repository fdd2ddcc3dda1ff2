"""Arenas that run out of memory when a test wants it."""

from __future__ import annotations

from cogvlm2_lite.memory.arena import Arena, OutOfBudgetError


class FailingArena(Arena):
    """An arena in which one request fails, as if another program had just taken the memory."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.requests = 0
        self.fail_at = fail_at

    def take(self, nbytes: int) -> None:
        if nbytes > 0:
            self.requests += 1
            if self.requests == self.fail_at:
                raise OutOfBudgetError("taken by another program")
        super().take(nbytes)
