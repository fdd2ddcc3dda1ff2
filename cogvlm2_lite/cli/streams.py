"""Prepares standard input, output and error: closed ones, full disks, broken pipes, encodings."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from cogvlm2_lite.errors import OutputError


def prepare_streams() -> bool:
    """Make the three standard streams usable; return whether standard output was closed.

    A closed stream is replaced by the null device. Otherwise the next file that is opened would get
    its number, and output of a library would be written into that file.
    """
    closed = sys.stdout is None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _null_device(number))
    _keep_bytes(sys.stdin)
    for stream in (sys.stdout, sys.stderr):
        _use_utf8(stream)
    return closed


def put(stream: TextIO, text: str) -> None:
    """Write a text at once. Raises BrokenPipeError if the reader is gone, OutputError otherwise.

    After an error the stream leads to the null device: Python would report the error again at exit.
    """
    try:
        if text:  # a full disk reports an error even for an empty text
            stream.write(text)
        stream.flush()
    except BrokenPipeError:
        silence(stream)
        raise
    except OSError as error:
        silence(stream)
        raise OutputError(
            "The output can't be written: {why}.",
            hint="Check the disk and the file that standard output is redirected to.",
            why=error.strerror,
        ) from error


def silence(stream: TextIO) -> None:
    """Send what is written to a stream from now on to the null device."""
    with suppress(OSError, ValueError):  # a stream in memory has no number
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def _null_device(number: int) -> TextIO:
    """Open the null device as file descriptor `number`; child processes inherit it."""
    handle = os.open(os.devnull, os.O_RDWR)
    if handle == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(handle, number)
        os.close(handle)
    return open(number, "w" if number else "r", encoding="utf-8", closefd=False)


def _keep_bytes(stream: TextIO) -> None:
    """Decode as Python decodes arguments; bytes that do not fit stay as surrogates (cli/words.py).

    So a line of standard input can be the name of any file.
    """
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")


def _use_utf8(stream: TextIO) -> None:
    """Use UTF-8 whatever the code page is (Windows: often cp1252), except on a POSIX terminal.

    A terminal shows the encoding of its locale. Characters that can't be encoded are written as
    escapes instead of raising an error.
    """
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is None:
        return
    if os.name != "nt" and stream.isatty() and stream.encoding.lower() not in ("ascii", "us-ascii"):
        reconfigure(errors="backslashreplace")
    else:
        reconfigure(encoding="utf-8", errors="backslashreplace")
