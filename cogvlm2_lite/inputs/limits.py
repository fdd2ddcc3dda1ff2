"""How large a picture file may be. Without Pillow: options and messages need the numbers, too."""

from __future__ import annotations

from dataclasses import dataclass

from cogvlm2_lite.units import MIB

MOST_ON_SHEET = 9
"""Pictures on one sheet. More would be too small: of nine, each has 448 of the 1344 pixels."""


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """Limits that are checked before anything is decoded.

    The defaults accept the 108-megapixel pictures of phones and reject decompression bombs.
    """

    max_file_bytes: int = 512 * MIB
    max_pixels: int = 130_000_000


DEFAULT_LIMITS = ImageLimits()
