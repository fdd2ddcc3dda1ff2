"""Draws curves with braille characters, 2 by 4 dots each, for terminals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a character, by row and column. Source: Unicode, Braille Patterns."""
_BLANK = 0x2800

Point = tuple[float, float]


def draw_curve(points: Sequence[Point], *, width: int = 60, height: int = 10) -> list[str]:
    """Return the lines of a chart, with its highest and lowest value at the left.

    points  (x, y), x growing
    width, height  in characters, without the labels
    """
    if not points:
        return []
    first, last = points[0][0], points[-1][0]
    low, high = min(y for _, y in points), max(y for _, y in points)
    columns, rows = 2 * width, 4 * height

    def place(point: Point) -> tuple[int, int]:
        x = (point[0] - first) / (last - first or 1.0)
        y = (point[1] - low) / (high - low or 1.0)
        return round(x * (columns - 1)), round((1 - y) * (rows - 1))

    cells = [[_BLANK] * width for _ in range(height)]
    for column, row in _line([place(point) for point in points]):
        cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    labels = [f"{high:.3g}", *[""] * (height - 2), f"{low:.3g}"] if height > 1 else [f"{high:.3g}"]
    margin = max(map(len, labels))
    return [
        f"{label:>{margin}} {''.join(map(chr, line))}".rstrip(chr(_BLANK))
        for label, line in zip(labels, cells, strict=True)
    ]


def _line(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return all dots of the lines between places."""
    dots = list(places[:1])
    for (x, y), (to_x, to_y) in pairwise(places):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        dots += [
            (round(x + (to_x - x) * n / steps), round(y + (to_y - y) * n / steps))
            for n in range(1, steps + 1)
        ]
    return dots
