"""Prints everything that the command line shows to a user.

Answers and results go to standard output, remarks and progress to standard error, so that
`cogvlm2-lite ask ... > answer.txt` writes only the answer to the file.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from cogvlm2_lite.cli.streams import put
from cogvlm2_lite.errors import OutputError
from cogvlm2_lite.file_names import valid_text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DIM, _BOLD, _PLAIN, _CLEAR_LINE = "\x1b[2m", "\x1b[1m", "\x1b[0m", "\r\x1b[K"
_SAVE, _RESTORE, _REST_OF_LINE = "\x1b7", "\x1b8", "\x1b[K"
_SHARE_STEP = 0.1
_X_SERVER_S = 2.0
"""Seconds in which an X server on another computer must take a connection."""


class Console:
    """Standard output and standard error, with styles where they are terminals.

    Control characters are removed from everything that is printed: neither a file name nor a
    model's answer may control the terminal.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self._status = ""
        self._aside = ""
        self._column: int | None = 0  # after what was written to standard output; None: unknown
        self._printed_remarks: set[str] = set()
        self._next_share = 0.0

    @property
    def is_interactive(self) -> bool:
        """Whether standard output is a terminal and not a file or a pipe."""
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
        text = _printable(text)
        self._column = _column_after(self._column, text)
        put(self.out, text)

    def line(self, text: str = "") -> None:
        """Print a line to standard output."""
        self.write(text + "\n")

    def heading(self, text: str) -> None:
        """Print a line in bold."""
        self.status("")
        text = _printable(text)
        put(self.out, f"{_BOLD}{text}{_PLAIN}\n" if self.has_styles else f"{text}\n")

    def remark(self, text: str) -> None:
        """Print a line that is not part of the result, to standard error."""
        self.status("")
        text = _printable(text)
        self._note(f"{_DIM}{text}{_PLAIN}\n" if self.has_styles else f"{text}\n")

    def remark_once(self, text: str) -> None:
        """Print a remark unless it was printed before."""
        if text not in self._printed_remarks:
            self._printed_remarks.add(text)
            self.remark(text)

    def status(self, text: str) -> None:
        """Show the current work in a line that the next output replaces; only on a terminal."""
        if not self._shows_status or text == self._status:
            return
        width = shutil.get_terminal_size().columns - 1
        if self._aside:
            self._aside = ""
            self._note(_REST_OF_LINE)
            if not text:
                self._status = ""
                return
        self._status = text
        self._note(f"{_CLEAR_LINE}{_printable(text)[:width]}")

    def aside(self, short: str, text: str) -> None:
        """Show what is going on in the middle of a line; the next output replaces it.

        short  is shown after what was written, if there is room for it in the line
        text   is shown as a status if standard output is not on the terminal, too
        """
        if not self.is_interactive:
            self.status(text)
            return
        if not self._shows_status or short == self._aside:
            return
        width, column = shutil.get_terminal_size().columns, self._column
        # A cursor behind the last column is still in this line, and clearing would clear a letter.
        if column is None or (column and (column - 1) % width + 1 + len(short) >= width):
            return
        self._status = self._aside = short
        self._note(f"{_SAVE}{_REST_OF_LINE}{_DIM}{_printable(short)}{_PLAIN}{_RESTORE}")

    def progress(self, text: str, share: float) -> None:
        """Show the progress of long work: a status line on a terminal, else about ten lines.

        share  of the work that is done, 0 to 1; it drops when other work begins
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
        """Show a status while the block runs, and clear it afterwards."""
        self.status(text)
        try:
            yield
        finally:
            self.status("")

    def error(self, message: str, hint: str = "") -> None:
        """Print what went wrong and what to do next, to standard error."""
        self.status("")
        self._note(f"Error: {_printable(message)}\n" + (f"  {_printable(hint)}\n" if hint else ""))

    def preview(self, picture: str) -> None:
        """Print the escape sequences of `cli.preview`, unfiltered."""
        put(self.out, picture)

    def flush(self) -> None:
        """Write what a library has left in the buffer of standard output."""
        put(self.out, "")

    def _note(self, text: str) -> None:
        """Write to standard error. If that fails, the result on standard output still counts."""
        with suppress(BrokenPipeError, OutputError):
            put(self.err, text)


def _column_after(column: int | None, text: str) -> int | None:
    """Return the columns from the start of the line to the end of a text written at a column."""
    _, newline, rest = text.rpartition("\n")
    if "\t" in rest or (column is None and not newline):
        return None
    wide = sum(unicodedata.east_asian_width(letter) in "FW" for letter in rest)
    return (0 if newline or column is None else column) + len(rest) + wide


def _printable(text: str) -> str:
    return valid_text(_CONTROL.sub("", text))


def _terminal_has_styles() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    # On Windows, only Windows Terminal interprets escape sequences without extra setup.
    return os.name != "nt" or "WT_SESSION" in os.environ


INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def has_desktop() -> bool:
    """Return whether a window can be opened here."""
    if sys.platform in ("win32", "darwin"):
        return True
    if os.environ.get("WAYLAND_DISPLAY"):
        return True
    display = os.environ.get("DISPLAY", "")
    return bool(display) and _x_server_answers(display)


def _x_server_answers(display: str) -> bool:
    """Return whether the X server of DISPLAY takes connections; True for a form not known here.

    The variable may name a server that has ended, for example in a shell that outlived its
    session. Qt would abort then.
    """
    parts = re.fullmatch(r"(?:unix)?([^/]*):(\d{1,5})(?:\.\d+)?", display)
    if parts is None:
        return True
    import socket  # takes time that other commands need not spend

    host, number = parts[1].strip("[]"), int(parts[2])
    try:
        if host:
            socket.create_connection((host, 6000 + number), timeout=_X_SERVER_S).close()
            return True
    except (OSError, OverflowError):
        return False
    file = f"/tmp/.X11-unix/X{number}"
    for name in (f"\0{file}", file):
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.connect(name)
            return True
    return False
