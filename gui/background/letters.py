"""Measures how high the letters in a picture are, and cuts a picture so that they can be read."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from gui.background.decoder import DecodedPicture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_HEIGHT = 8
"""Letters that are lower than about this many pixels can't be read by the model."""
_WINDOW = 512
_MOST_WINDOWS = 12
_HIGHEST = 120
_SHARP = 0.12
"""Least step at the edges of letters, as a share of their contrast: a smooth picture has less."""
_LEAST_LETTERS = 25
"""Fewer shapes may be anything."""


def letter_height(found: DecodedPicture) -> float | None:
    """Return the height in pixels of capital letters in a picture; None without clear text.

    Windows with the most detail are split into lines at empty rows, and lines into letters at empty
    columns. Text has many letters of about one height; a photo has not.
    """
    import numpy as np

    grey = _grey(found)
    heights: list[int] = []
    for top, left in _windows(grey):
        heights += _letters(grey[top : top + _WINDOW, left : left + _WINDOW])
    if len(heights) < _LEAST_LETTERS:
        return None
    low, middle, high = np.percentile(heights, [20, 50, 80])
    if high > 2.2 * low or middle < 3:
        return None
    return float(np.percentile(heights, 70))


def reading_parts(
    width: int, height: int, letters: float | None, side: int
) -> list[tuple[int, int, int, int]]:
    """Return overlapping parts (x, y, width, height) of a picture, in reading order.

    A tall or wide picture is cut along its longer side as `ask --tiles` does it. Another one is cut
    into a grid, fine enough for its letters. One part, the whole, if no cut is needed.

    letters  their height in pixels; None if it is not known
    side     of the model's input
    """
    from cogvlm2_lite.inputs.tiles import tile_boxes

    boxes = tile_boxes(width, height)
    if len(boxes) > 1 or letters is None:
        return boxes
    seen = letters * side / max(width, height)
    count = min(3, max(1, ceil(LEAST_HEIGHT / seen)))
    return [(x, y, w, h) for y, h in _spans(height, count) for x, w in _spans(width, count)]


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """Return `count` (start, length) that cover a length and overlap by an eighth."""
    if count == 1:
        return [(0, length)]
    part = min(length, ceil(length / (count - (count - 1) / 8)))
    return [(round((length - part) * n / (count - 1)), part) for n in range(count)]


def _grey(found: DecodedPicture) -> NDArray[np.uint8]:
    import numpy as np

    rgb = np.frombuffer(found.rgb, np.uint8).reshape(found.height, found.width, 3)
    return rgb[..., 1]  # green is close to the brightness, and costs no memory


def _windows(grey: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return the corners of the windows with the most detail."""
    import numpy as np

    height, width = grey.shape
    found = []
    for top in range(0, height, _WINDOW):
        for left in range(0, width, _WINDOW):
            # Every fourth row is enough to compare windows.
            some = grey[top : top + _WINDOW : 4, left : left + _WINDOW].astype(np.int16)
            detail = float(np.abs(np.diff(some, axis=1)).mean()) if some.shape[1] > 1 else 0.0
            found.append((detail, top, left))
    return [(top, left) for _, top, left in sorted(found, reverse=True)[:_MOST_WINDOWS]]


def _letters(window: NDArray[np.uint8]) -> list[int]:
    """Return the heights of the letters in a window."""
    import numpy as np

    ground = np.median(window)
    distance = np.abs(window.astype(np.int16) - np.int16(ground))
    strongest = float(np.percentile(distance, 99.5))
    if strongest < 40:
        return []
    ink = distance > strongest / 2
    if not 0.005 < ink.mean() < 0.45:
        return []
    steps = np.abs(np.diff(distance, axis=1))[ink[:, 1:] != ink[:, :-1]]
    if not len(steps) or steps.mean() < _SHARP * strongest:
        return []
    heights = []
    for top, bottom in _runs(ink.any(axis=1)):
        # A line that is cut by the edge of the window has no full letters.
        if top == 0 or bottom == len(ink) or not 4 <= bottom - top <= _HIGHEST:
            continue
        line = ink[top:bottom]
        for left, right in _runs(line.any(axis=0)):
            rows = np.flatnonzero(line[:, left:right].any(axis=1))
            high = int(rows[-1] - rows[0] + 1)
            # No dots, commas, dashes and rules.
            if high >= 0.35 * (bottom - top) and 0.1 * high <= right - left <= 2.5 * high:
                heights.append(high)
    return heights


def _runs(values: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (start, end) of the runs of True."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate(([0], values.view(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
