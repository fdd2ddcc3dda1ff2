"""A picture file with several pages."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

COLORS = ((255, 255, 255), (200, 30, 30), (30, 30, 200))


def three_pages() -> bytes:
    """Return a TIFF file with a white, a red and a blue page of 30 x 20 pixels."""
    pages = [Image.new("RGB", (30, 20), color) for color in COLORS]
    for page in pages:
        page.paste("black", (20, 10, 30, 20))
    out = io.BytesIO()
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    return out.getvalue()


def save_three_pages(folder: Path) -> Path:
    """Write `three_pages` into a folder and return its path."""
    path = folder / "scan.tif"
    path.write_bytes(three_pages())
    return path
