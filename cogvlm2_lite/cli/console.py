"""Everything the command line prints for a person goes through here.

Answers and results go to standard output, remarks and progress to standard error, so that
`cogvlm2-lite ask ... > answer.txt` holds the answer and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DIM, _BOLD, _PLAIN, _CLEAR_LINE = "\x1b[2m", "\x1b[1m", "\x1b[0m", "\r\x1b[K"
_SHARE_STEP = 0.1


class Console:
    """Two streams, and whether a person looks at them.

    Control characters in what is printed are dropped: neither a file name nor a model's answer may
    steer the terminal.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self._status = ""
        self._said: set[str] = set()
        self._next_share = 0.0

    @property
    def is_interactive(self) -> bool:
        """Whether answers are read by a person and not by a file or a pipe."""
        return self.out.isatty()

    @property
    def has_styles(self) -> bool:
        """Whether escape sequences may be used (NO_COLOR and dumb terminals forbid them)."""
        return self.out.isatty() and self.err.isatty() and _terminal_has_styles()

    @property
    def _shows_status(self) -> bool:
        return self.err.isatty() and _terminal_has_styles()

    def write(self, text: str) -> None:
        """Print a piece of text to standard output at once."""
        self.status("")
        self.out.write(_CONTROL.sub("", text))
        self.out.flush()

    def line(self, text: str = "") -> None:
        """Print a line to standard output."""
        self.write(text + "\n")

    def heading(self, text: str) -> None:
        """Print a line that stands out."""
        self.write("")
        text = _CONTROL.sub("", text)
        self.out.write(f"{_BOLD}{text}{_PLAIN}\n" if self.has_styles else f"{text}\n")
        self.out.flush()

    def remark(self, text: str) -> None:
        """Print a line that is not part of the result, to standard error."""
        self.status("")
        self.out.flush()
        text = _CONTROL.sub("", text)
        self.err.write(f"{_DIM}{text}{_PLAIN}\n" if self.has_styles else f"{text}\n")
        self.err.flush()

    def remark_once(self, text: str) -> None:
        """Print a remark unless it was printed before: what holds for every answer is said once."""
        if text not in self._said:
            self._said.add(text)
            self.remark(text)

    def status(self, text: str) -> None:
        """Show what is going on in a line that the next output replaces; only on a terminal."""
        if not self._shows_status or text == self._status:
            return
        width = shutil.get_terminal_size().columns - 1
        self._status = text
        self.err.write(f"{_CLEAR_LINE}{_CONTROL.sub('', text)[:width]}")
        self.err.flush()

    def progress(self, text: str, share: float) -> None:
        """Show how far long work is: a line that changes, or ten lines where there is no terminal.

        share  of the work that is done, 0 to 1; smaller than before when another work begins
        """
        if self._shows_status:
            self.status(text)
            return
        if share < self._next_share - _SHARE_STEP:
            self._next_share = 0.0
        if share >= self._next_share:
            self._next_share = share + _SHARE_STEP
            self.remark(text)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show a status while the block runs, also if it fails."""
        self.status(text)
        try:
            yield
        finally:
            self.status("")

    def error(self, message: str, hint: str = "") -> None:
        """Print what went wrong and what to do next, to standard error."""
        self.status("")
        self.out.flush()
        self.err.write(f"Error: {_CONTROL.sub('', message)}\n")
        if hint:
            self.err.write(f"  {_CONTROL.sub('', hint)}\n")
        self.err.flush()

    def preview(self, picture: str) -> None:
        """Print a picture drawn with escape sequences of our own making."""
        self.out.write(picture)
        self.out.flush()


def _terminal_has_styles() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    # Only Windows Terminal is sure to understand escape sequences without being asked to.
    return os.name != "nt" or "WT_SESSION" in os.environ


INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def has_desktop() -> bool:
    """Say whether a window can be shown here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
