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
    side, length = sorted((opened.width, opened.height))
    if length <= 1.5 * side:
        return [opened]
    overlap = int(side * _OVERLAP)
    count = ceil((length - overlap) / (side - overlap))
    starts = np.linspace(0, length - side, count).round().astype(int)
    tall = opened.height > opened.width
    return [
        opened_image(
            opened.rgb[start : start + side] if tall else opened.rgb[:, start : start + side],
            format=opened.format,
            original_size=(side, side),
            name=opened.name,
            page=opened.page,
            pages=opened.pages,
        )
        for start in map(int, starts)
    ]
