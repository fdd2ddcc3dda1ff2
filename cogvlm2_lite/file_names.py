"""File names that are not UTF-8 or contain control characters, as text that can be read back.

A file name on Linux is any bytes. Python keeps bytes that are not UTF-8 as lone surrogates, which
neither JSON parsers nor UTF-8 files accept. Here each of these bytes becomes a backslash, an x and
two hexadecimal digits, and a backslash that would look like the start of such an escape is escaped
itself. So every name has one form, and no two names share a form. Other names stay as they are.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

_AMBIGUOUS = re.compile(r"\\(?=x[0-9a-f]{2}|u[0-9a-f]{4})")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Control characters, separators of lines, and marks that reverse the direction of text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_JSON_CONTROL = re.compile(r"[\x7f-\x9f\u2028\u2029]")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))")


def escape_name(name: str) -> str:
    """Return a file name or path as valid Unicode text, to be read by `unescape_name`."""
    return _SURROGATE.sub(_escape, _AMBIGUOUS.sub(r"\\x5c", name))


def escape_line(name: str) -> str:
    """Return a file name or path as one line: as escape_name, and without control characters."""
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name  # of thousands of names, nearly all
    return _CONTROL.sub(_escape, escape_name(name))


def unescape_name(text: str) -> str:
    """Return the name that `escape_name` or `escape_line` was called with."""
    return _ESCAPE.sub(_unescape, text)


def valid_text(text: str) -> str:
    """Return a text for people as valid Unicode: lone surrogates are escaped."""
    return _SURROGATE.sub(_escape, text)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON, in one line without an indent. Lone surrogates are escaped.

    The JSON is valid UTF-8, strict parsers accept it and it has no control characters. Names that
    are to be read back must go through escape_name before.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    text = _JSON_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return _SURROGATE.sub(lambda found: "\\" + _escape(found), text)


def cut_name(name: str, most_bytes: int) -> str:
    """Return the longest beginning of a file name that takes at most this many bytes on disk."""
    while len(os.fsencode(name)) > most_bytes:
        name = name[:-1]
    return name


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as os.fsdecode keeps it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def _unescape(found: re.Match[str]) -> str:
    if found[2]:
        return chr(int(found[2], 16))
    code = int(found[1], 16)
    return chr(code if code < 0x80 else 0xDC00 + code)
