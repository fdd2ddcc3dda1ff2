"""How the engine's process says that it is alive and getting on, and when it is taken for hung.

A process can hang in two ways: nothing of it runs any more, or one call never returns (a driver
that waits for its card). Against the first, a thread sends a beat every second; against the
second, the beat says for how long the work has stood still. No torch: both sides import this.
"""

from __future__ import annotations

from dataclasses import dataclass

HEARTBEAT_S = 1.0
"""Between two beats."""

FIRST_STEP_S = 900.0
"""For a step of a kind that was never seen to end: a first one reads weights from a slow disk."""

LEAST_STEP_S = 120.0
"""No step is taken for hung sooner: a computer that swaps is slow, and comes back."""

TIMES_THE_LONGEST = 20.0
"""How much longer than the longest step of its kind so far a step may take."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the owner waits for a sign of life.

    silence_s  without any message, once the model is loaded
    loading_s  while it is being loaded: importing libraries from a slow disk stops all threads
    """

    silence_s: float = 120.0
    loading_s: float = 900.0


class StepTimer:
    """Measures how long the step under way has taken, by looking at a counter now and then.

    Time is counted in looks: a computer that sleeps makes none, so waking up is no hang.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._kind = ""
        self._busy = False
        self._longest: dict[str, float] = {}
        self.stalled_s = 0.0

    def look(self, kind: str, steps: int, *, busy: bool) -> None:
        """Look at the work; must be called every HEARTBEAT_S.

        kind   of the step under way: steps of one kind take about as long as each other
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
        """Return the longest step of a kind that ended, in seconds; None when none has."""
        return self._longest.get(kind)

    @property
    def plausible_s(self) -> float:
        """How long the step under way may take."""
        longest = self.longest_s(self._kind)
        if longest is None:
            return FIRST_STEP_S
        return max(LEAST_STEP_S, TIMES_THE_LONGEST * longest)
