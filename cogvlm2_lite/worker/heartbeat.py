"""The heartbeat of the engine's process, and when the process is considered hung.

A process can hang in two ways: none of its threads runs any more, or one call never returns (a
driver that waits for its card). To detect the first, a thread sends a heartbeat every second. To
detect the second, the heartbeat contains how long the work has made no progress. No torch: both
sides import this.
"""

from __future__ import annotations

from dataclasses import dataclass

HEARTBEAT_S = 1.0
"""Seconds between two heartbeats."""

FIRST_STEP_S = 900.0
"""Limit for the first step of a kind: it may read weights from a slow disk."""

LEAST_STEP_S = 120.0
"""Lowest limit for any step: a computer that swaps is slow, but recovers."""

TIMES_THE_LONGEST = 20.0
"""Factor by which a step may exceed the longest step of its kind so far."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the owner waits for a message.

    silence_s  once the model is loaded
    loading_s  while it is being loaded: importing libraries from a slow disk blocks all threads
    """

    silence_s: float = 120.0
    loading_s: float = 900.0


class StepTimer:
    """Measures how long the current step has taken, by checking a counter of steps.

    stalled_s  seconds since the last progress; 0 if there is nothing to do

    Time is counted in checks, not by the clock: while a computer sleeps nothing is checked, so
    waking up is not taken for a hang.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._kind = ""
        self._busy = False
        self._longest: dict[str, float] = {}
        self.stalled_s = 0.0

    def look(self, kind: str, steps: int, *, busy: bool) -> None:
        """Check the work; must be called every HEARTBEAT_S.

        kind   of the current step: steps of one kind take about equally long
        steps  done so far; any change is progress
        busy   whether there is anything to do
        """
        if busy and self._busy and steps == self._steps:
            self.stalled_s += HEARTBEAT_S
            return
        if busy and self._busy:
            self._longest[self._kind] = max(self.longest_s(self._kind) or 0.0, self.stalled_s)
        self.stalled_s = 0.0
        self._steps, self._kind, self._busy = steps, kind, busy

    def longest_s(self, kind: str) -> float | None:
        """Return the longest finished step of a kind, in seconds; None if none has finished."""
        return self._longest.get(kind)

    @property
    def plausible_s(self) -> float:
        """Seconds that the current step may take."""
        longest = self.longest_s(self._kind)
        if longest is None:
            return FIRST_STEP_S
        return max(LEAST_STEP_S, TIMES_THE_LONGEST * longest)
