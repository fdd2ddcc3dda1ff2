"""Cuts a very tall or wide picture into square parts, which the model sees without distortion."""

from __future__ import annotations

from math import ceil

import numpy as np

from cogvlm2_lite.inputs.image import OpenedImage, opened_image

_OVERLAP = 1 / 8
"""The smallest part of a tile that the next one repeats: a line of text is whole in one of them."""


def tiles(opened: OpenedImage) -> list[OpenedImage]:
    """Return squares that cover a picture along its longer side, in reading order.

    Each has the length of the shorter side and overlaps the next one by an eighth or more. The
    first starts where the picture does, the last ends where it does. A picture that is at most one
    and a half times as long as its shorter side is returned as it is, alone.
    """
    boxes = tile_boxes(opened.width, opened.height)
    if len(boxes) == 1:
        return [opened]
    return [
        opened_image(
            opened.rgb[y : y + height, x : x + width],
            format=opened.format,
            original_size=(width, height),
            name=opened.name,
            page=opened.page,
            pages=opened.pages,
        )
        for x, y, width, height in boxes
    ]


def tile_boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Return the places (x, y, width, height) of the tiles of a picture of this size."""
    side, length = sorted((width, height))
    if length <= 1.5 * side:
        return [(0, 0, width, height)]
    overlap = int(side * _OVERLAP)
    count = ceil((length - overlap) / (side - overlap))
    starts = map(int, np.linspace(0, length - side, count).round())
    return [(0, at, side, side) if height > width else (at, 0, side, side) for at in starts]
