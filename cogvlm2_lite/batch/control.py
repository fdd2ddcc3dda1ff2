"""Pause, go on and stop: what one thread says to another that asks about many pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Control:
    """What the person wants now. A pause begins after the pictures under way, a stop at once."""

    def __init__(self) -> None:
        self._going = threading.Event()
        self._going.set()
        self._stopped = False

    @property
    def paused(self) -> bool:
        return not self._going.is_set()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def pause(self) -> None:
        """Hold before the next picture; the model stays in memory."""
        if not self._stopped:
            self._going.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._going.set()

    def stop(self) -> None:
        """End within one token; the answers under way are not kept."""
        self._stopped = True
        self._going.set()

    def wait(self) -> None:
        """Return when there is no pause."""
        self._going.wait()

    def obey(self, lines: Iterable[str]) -> None:
        """Do what lines say: `pause`, `resume` or `stop`. Their end stops too: the owner has gone,
        and nobody would see the answers."""
        orders = {"pause": self.pause, "resume": self.resume, "stop": self.stop}
        for line in lines:
            order = orders.get(line.strip())
            if order is not None:
                order()
        self.stop()
