"""Draws a picture in the terminal, as coloured half blocks."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from cogvlm2_lite.inputs.image import OpenedImage

WIDTH = 40
"""Columns; a character is about twice as tall as wide, so one cell shows two pixels."""


def shows_colours() -> bool:
    """Return whether the terminal reports 24-bit colours."""
    return os.environ.get("COLORTERM") in ("truecolor", "24bit") or "WT_SESSION" in os.environ


def draw(image: OpenedImage, *, width: int = WIDTH) -> str:
    """Return a picture as lines of text with 24-bit colours, at most `width` columns wide."""
    scale = width / max(image.width, image.height)
    columns = max(1, round(image.width * scale))
    rows = max(2, round(image.height * scale / 2) * 2)
    small = np.asarray(Image.fromarray(image.rgb).resize((columns, rows), Image.Resampling.BOX))
    lines = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        cells = [
            f"\x1b[38;2;{a};{b};{c};48;2;{d};{e};{f}m▀"
            for (a, b, c), (d, e, f) in zip(upper, lower, strict=True)
        ]
        lines.append("  " + "".join(cells) + "\x1b[0m\n")
    return "".join(lines)
