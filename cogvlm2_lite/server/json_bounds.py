"""Bounds JSON before it is parsed: the parser makes an object of every value and holds the GIL.

The scan reads the bytes in pieces with NumPy. A piece in the middle of a long string, such as a
picture, costs little. Up to the first error in the text, the scan and the parser agree on what is
a string; after it, the parser reads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.text import Text

MOST_VALUES = 100_000
"""Far more than any conversation or schema has; the parser needs 20 ms for them."""
MOST_DEPTH = 128

_PIECE = 1 << 20
_QUOTE, _BACKSLASH = ord('"'), ord("\\")


def check_bounds(text: bytes | bytearray) -> None:
    """Raise ApiError 400 for JSON with more than MOST_VALUES values or MOST_DEPTH levels."""
    data = np.frombuffer(text, np.uint8)
    place = _Place()
    values, level = 1, 0
    for start in range(0, len(data), _PIECE):
        end = min(start + _PIECE, len(data))
        if place.inside and data[end - 1] != _BACKSLASH and text.find(_QUOTE, start, end) < 0:
            place.escaped = False
            continue  # faster than _marks for the middle of a picture
        marks = _marks(data[start:end], place)
        if not len(marks):
            continue
        values += int(np.count_nonzero(_STARTS_VALUE[marks]))
        if values > MOST_VALUES:
            raise ApiError(
                400,
                Text(
                    "The JSON of the request has more than {most} values. Send fewer.",
                    most=MOST_VALUES,
                ),
            )
        levels = level + np.cumsum(_STEP[marks])
        if levels.max() > MOST_DEPTH:
            raise ApiError(
                400,
                Text(
                    "The JSON of the request is nested too deeply: more than {most} levels.",
                    most=MOST_DEPTH,
                ),
            )
        level = int(levels[-1])


@dataclass
class _Place:
    """Where a piece begins.

    inside   in a string
    escaped  after a backslash that escapes the next character
    """

    inside: bool = False
    escaped: bool = False


def _marks(piece: NDArray[np.uint8], place: _Place) -> NDArray[np.uint8]:
    """Return the commas and brackets of a piece that are not in strings."""
    quotes = piece == _QUOTE
    _remove_escaped(quotes, piece, place)
    if not quotes.any():
        return piece[_IS_MARK[piece]] if not place.inside else piece[:0]
    inside = np.logical_xor.accumulate(quotes)
    if place.inside:
        inside = ~inside
    place.inside = bool(inside[-1])
    return piece[_IS_MARK[piece] & ~inside]


def _remove_escaped(quotes: NDArray[np.bool_], piece: NDArray[np.uint8], place: _Place) -> None:
    """Unmark the quotes that a backslash escapes."""
    if place.escaped:
        quotes[0] = False
    slashes = np.flatnonzero(piece == _BACKSLASH)
    if place.escaped and len(slashes) and slashes[0] == 0:
        slashes = slashes[1:]  # it is escaped itself
    place.escaped = False
    if not len(slashes):
        return
    # In a run of backslashes every second one is escaped; an odd run escapes what follows it.
    first = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
    lengths = np.diff(first, append=len(slashes))
    after = slashes[first] + lengths
    escaped = after[lengths % 2 == 1]
    place.escaped = bool(len(escaped)) and int(escaped[-1]) == len(piece)
    quotes[escaped[:-1] if place.escaped else escaped] = False


def _is_one_of(letters: bytes) -> NDArray[np.bool_]:
    """Return a table of which bytes are among some letters."""
    return np.isin(np.arange(256), list(letters))


_IS_MARK = _is_one_of(b",[]{}")
_STARTS_VALUE = _is_one_of(b",[{")
_STEP = _is_one_of(b"[{").astype(np.int64) - _is_one_of(b"]}").astype(np.int64)
