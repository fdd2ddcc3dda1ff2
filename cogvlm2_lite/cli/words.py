"""Reads what a person typed, pasted or piped: texts in any encoding, and names of files."""

from __future__ import annotations

import locale
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.places import expand_home
from cogvlm2_lite.text import Text

_MOST_SHOWN = 60
_ANSI_C = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "v": "\v"}


def as_text(word: str) -> str:
    """Return an argument as text.

    Python decodes it with the encoding of the locale; bytes that do not fit become surrogates.
    Such a word is decoded again as UTF-8, and then with the encoding that the locale names, even if
    this computer does not have the locale.

    Raises UsageError if no encoding fits: the model must not get a question with "?" in it.
    """
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return _decoded(word)
    return word


def line_as_text(line: str) -> str:
    """Return a line of standard input as text; see `as_text`. A byte-order mark is left out.

    Raises UsageError also for UTF-16, which programs on Windows write to pipes.
    """
    if "\0" in line:
        raise _undecodable(
            line, hint=Text("It seems to be UTF-16. Save the text as UTF-8 and try again.")
        )
    return as_text(line).removeprefix("\ufeff")


def _decoded(word: str) -> str:
    with suppress(UnicodeEncodeError):  # a surrogate that is not a byte: half a character
        raw = os.fsencode(word)
        for encoding in _encodings():
            with suppress(UnicodeDecodeError, LookupError):
                return raw.decode(encoding)
    raise _undecodable(
        word,
        hint=Text("Use UTF-8, or set LC_ALL to the encoding of the text, such as zh_CN.GBK."),
    )


def _encodings() -> Iterator[str]:
    """Yield the encodings to try: UTF-8, then those that the system and the environment name."""
    yield "utf-8"
    yield locale.getencoding()
    yield os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    name = next(filter(None, names), "")
    yield locale.normalize(name).partition(".")[2].partition("@")[0]


def _undecodable(word: str, *, hint: str) -> UsageError:
    return UsageError(
        "The text '{text}' can't be read: it is neither UTF-8 nor in the encoding of the locale.",
        hint=hint,
        text=escape_line(word[:_MOST_SHOWN]),
    )


def dropped_path(text: str) -> Path:
    """Return the path of a file name that was typed, or pasted by a terminal after a drag and drop.

    Handles quotation marks, backslashes (not on Windows), file: addresses, ~ and blanks around the
    name. A file that has exactly the typed name is preferred.
    """
    paths = [expand_home(reading) for reading in _readings(text)]
    return next((path for path in paths if os.path.lexists(path)), paths[-1])


def looks_like_path(line: str) -> bool:
    """Return whether a line can only be the path of a file: an address, or from the root."""
    return re.match(r"(?i)['\"]?(file:|[a-z]:[/\\]|/[^/\s]*/)", line.strip()) is not None


def file_in(line: str) -> Path | None:
    """Return the file if the line is only the path of one, as after a drag and drop; else None."""
    if not re.search(r"[/\\]|\.\w{2,5}['\"]?\s*$", line):
        return None
    try:
        path = dropped_path(line)
        return path if path.is_file() else None
    except (OSError, ValueError):  # not a valid file name
        return None


def _readings(text: str) -> Iterator[str]:
    """Yield what a typed name may mean: first exactly as typed, the most probable one last."""
    yield text
    text = text.strip()
    yield text
    plain = _unquoted(text)
    yield plain
    match = re.match(r"(?i)file:(?://(?:localhost)?(?=/))?(?=/)", plain)
    if match:
        yield _from_address(plain[match.end() :])


def _unquoted(text: str) -> str:
    """Return a name without the quotation marks and backslashes of a shell."""
    if os.name == "nt":
        text = text.removeprefix("& ").strip()  # PowerShell
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    ansi = re.fullmatch(r"\$'((?:[^'\\]|\\.)*)'", text, re.DOTALL)
    if ansi:
        return os.fsdecode(_ansi_c(ansi[1]))
    if not re.search(r"[\\'\"]", text):
        return text
    try:
        words = shlex.split(text)
    except ValueError:  # an unmatched quotation mark is part of the name
        return text.replace("\\ ", " ")
    return words[0] if len(words) == 1 else text.replace("\\ ", " ")


def _ansi_c(text: str) -> bytes:
    """Return the bytes of $'...' in bash and zsh, which they use for line breaks and raw bytes."""

    def decoded(found: re.Match[str]) -> str:
        code = found[1]
        if code[0] == "x":
            return os.fsdecode(bytes([int(code[1:], 16)]))
        if code[0].isdecimal():
            return os.fsdecode(bytes([int(code, 8) & 0xFF]))
        return _ANSI_C.get(code, code)

    return os.fsencode(re.sub(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)", decoded, text))


def _from_address(path: str) -> str:
    """Return the path of a file: address, whose special characters are written as %20."""
    path = os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogateescape")))
    return path.lstrip("/") if re.match(r"/[A-Za-z]:", path) else path
