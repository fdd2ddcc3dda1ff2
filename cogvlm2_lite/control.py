"""Pauses, resumes and stops long work from another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Control:
    """The requested state of a batch or an evaluation.

    A pause begins when the answers in progress are done, a stop at once.
    """

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
        """Pause before the next question; the model stays in memory."""
        if not self._stopped:
            self._going.clear()

    def resume(self) -> None:
        """End a pause."""
        self._going.set()

    def stop(self) -> None:
        """Stop within one token; answers in progress are discarded."""
        self._stopped = True
        self._going.set()

    def wait(self) -> None:
        """Block while the work is paused."""
        self._going.wait()

    def follow(self, lines: Iterable[str]) -> None:
        """Carry out the commands `pause`, `resume` and `stop`, one per line.

        The end of the lines means stop: the program that sends them has ended.
        """
        commands = {"pause": self.pause, "resume": self.resume, "stop": self.stop}
        for line in lines:
            command = commands.get(line.strip())
            if command is not None:
                command()
        self.stop()
