"""Reads a draft of an answer: a text that the answer probably resembles.

It is what OCR programs wrote about a picture, or the text layer of a PDF. Speculation proposes its
words to the model; what the model answers does not depend on it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs.failures import picture_kind
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB, format_bytes

MAX_DRAFT_BYTES = MIB
"""More text than the context of any model has room for."""

_BREAK = re.compile(r"\r\n?|\f")
"""Line breaks of other systems, and the page break that OCR programs put behind each page."""


def open_draft_text(path: Path) -> str:
    """Return the draft text of a file. Raises UsageError for a file without plain text."""
    name = escape_line(str(path))
    try:
        with path.open("rb") as stream:
            return read_draft_text(stream, name)
    except OSError as error:
        raise _unreadable(name, error) from error


def read_draft_text(stream: BinaryIO, name: str) -> str:
    """Return the draft text of a stream.

    name  of the file, for errors

    Raises UsageError for what is no text, for one that is too large, and if it can't be read.
    """
    try:
        data = stream.read(MAX_DRAFT_BYTES + 1)
    except OSError as error:
        raise _unreadable(name, error) from error
    if len(data) > MAX_DRAFT_BYTES:
        raise UsageError(
            "The draft text {file} has more than {most}.",
            hint="Use only the text of this picture.",
            file=name,
            most=format_bytes(MAX_DRAFT_BYTES),
        )
    return decode_draft_text(data, name)


def decode_draft_text(data: bytes, name: str) -> str:
    """Return the draft text of a file's bytes: UTF-8 or, with a byte order mark, UTF-16.

    Raises UsageError for bytes that are no text.
    """
    try:
        utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or data.startswith(b"%PDF-"):
        raise _no_text(data, name)
    return _BREAK.sub("\n", text).strip()


def _no_text(data: bytes, name: str) -> UsageError:
    message = "The draft text {file} is not a text file in UTF-8."
    if data.startswith(b"%PDF-"):
        hint = Text("It is a PDF file. Extract its text first, for example with pdftotext.")
    elif kind := picture_kind(data[:256]):
        hint = Text("It is a picture ({kind}). Use the text that an OCR program wrote.", kind=kind)
    else:
        hint = Text("Save it as plain text in UTF-8.")
    return UsageError(message, hint=hint, file=name)


def _unreadable(name: str, error: OSError) -> UsageError:
    return UsageError(
        "The draft text {file} can't be read: {why}.",
        hint="Check the name of the file.",
        file=name,
        why=error.strerror or error,
    )
