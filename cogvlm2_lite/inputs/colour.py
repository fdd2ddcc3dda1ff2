"""Converts colors to sRGB, which the model was trained on, by the profile in a picture.

Without the conversion, a picture of a wide-gamut camera is too pale, and one with an unusual
profile has wrong colors. A profile that amounts to sRGB changes no bit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

_SAME = 2
"""Profiles whose result is this near to the values themselves are sRGB, up to rounding."""
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


class BrokenProfileError(Exception):
    """A color profile that can't be used for its picture."""


@dataclass(frozen=True, kw_only=True)
class Primaries:
    """CIE x and y of white, red, green and blue."""

    white: tuple[float, float]
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]


_D65 = (0.3127, 0.3290)
SRGB = Primaries(white=_D65, red=(0.64, 0.33), green=(0.30, 0.60), blue=(0.15, 0.06))
PRIMARIES = {
    1: SRGB,
    4: Primaries(white=(0.310, 0.316), red=(0.67, 0.33), green=(0.21, 0.71), blue=(0.14, 0.08)),
    5: Primaries(white=_D65, red=(0.64, 0.33), green=(0.29, 0.60), blue=(0.15, 0.06)),
    6: Primaries(white=_D65, red=(0.63, 0.34), green=(0.31, 0.595), blue=(0.155, 0.07)),
    7: Primaries(white=_D65, red=(0.63, 0.34), green=(0.31, 0.595), blue=(0.155, 0.07)),
    9: Primaries(white=_D65, red=(0.708, 0.292), green=(0.17, 0.797), blue=(0.131, 0.046)),
    11: Primaries(white=(0.314, 0.351), red=(0.68, 0.32), green=(0.265, 0.69), blue=(0.15, 0.06)),
    12: Primaries(white=_D65, red=(0.68, 0.32), green=(0.265, 0.69), blue=(0.15, 0.06)),
}
"""Color primaries by their numbers in ITU-T H.273."""


def convert_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture with its colors in sRGB; the same picture if they already are.

    image    mode L, RGB or CMYK
    Raises BrokenProfileError if the profile is damaged or of another kind of colors.
    """
    space, transform = _transform(profile)
    if space == "RGB" and image.mode == "L":
        if transform is None:
            return image
        image = image.convert("RGB")
    if image.mode != space:
        raise BrokenProfileError(f"a profile for {space}, a picture in {image.mode}")
    if transform is None:
        return image
    try:
        return transform.apply(image)
    except (ImageCms.PyCMSError, ValueError, OSError) as error:
        raise BrokenProfileError(str(error)) from error


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode of pictures that a profile is for, and its conversion; None for sRGB."""
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = _SPACES.get(opened.profile.xcolor_space.strip(), "")
        if not space:
            raise BrokenProfileError("a profile for another kind of colors")
        # Perceptual, without compensation of black, as browsers do it. littleCMS would compensate
        # for its own profile of sRGB, which has version 4.
        target = ImageCms.ImageCmsProfile(BytesIO(profile_of(SRGB, 0)))
        transform = ImageCms.ImageCmsTransform(
            opened, target, space, "RGB", ImageCms.Intent.PERCEPTUAL
        )
        return space, None if _changes_nothing(transform, space) else transform
    except (ImageCms.PyCMSError, ValueError, OSError, TypeError) as error:
        raise BrokenProfileError(str(error)) from error


def _changes_nothing(transform: ImageCms.ImageCmsTransform, space: str) -> bool:
    """Return whether all colors stay as they are, tried with a grid of them."""
    if space == "CMYK":
        return False
    if space == "L":
        values = np.arange(256, dtype=np.uint8)[None]
        before = np.repeat(values[..., None], 3, axis=2)
    else:
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        values = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        before = values
    after = np.asarray(transform.apply(Image.fromarray(values)))
    return bool(np.abs(after.astype(int) - before).max() <= _SAME)


def profile_of(primaries: Primaries, gamma: float) -> bytes:
    """Return a color profile (ICC.1:2001) of primaries and a gamma.

    gamma  the exponent that makes values linear; 0: the curve of sRGB
    Raises BrokenProfileError for primaries without a solution.
    """
    columns = _adapted_primaries(primaries)
    curve = _curve(gamma)
    tags = [(b"wtpt", _xyz((0.9642, 1.0, 0.8249)))]
    tags += [(name, _xyz(columns[:, i])) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    directory, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        directory += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s4sI4s4sQI3I", start + len(body), b"", 0x02400000, b"mntr", b"RGB ",
        b"XYZ ", bytes(12), b"acsp", b"", 0, b"", b"", 0, 0, 0xF6D6, 0x10000, 0xD32D,
    )  # fmt: skip
    return head.ljust(128, b"\0") + directory + body


def is_srgb(primaries: Primaries, gamma: float) -> bool:
    """Return whether primaries and the curve of sRGB (a gamma of 0) mean sRGB.

    A gamma of 2.2 does not: browsers show dark colors darker then.
    """
    known = (SRGB.white, SRGB.red, SRGB.green, SRGB.blue)
    given = (primaries.white, primaries.red, primaries.green, primaries.blue)
    near = all(
        abs(a - b) < 0.002
        for k, g in zip(known, given, strict=True)
        for a, b in zip(k, g, strict=True)
    )
    return near and gamma == 0


def _adapted_primaries(primaries: Primaries) -> np.ndarray:
    """Return XYZ of red, green and blue as columns, for the white of D50 (Bradford)."""
    points = (primaries.red, primaries.green, primaries.blue, primaries.white)
    if any(y <= 0 for _, y in points):
        raise BrokenProfileError("impossible primaries")
    red, green, blue, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in points)
    columns = np.stack([red, green, blue], axis=1)
    try:
        columns = columns * np.linalg.solve(columns, white)
        ratio = (_BRADFORD @ _D50) / (_BRADFORD @ white)
        return np.asarray(np.linalg.solve(_BRADFORD, np.diag(ratio) @ _BRADFORD @ columns))
    except np.linalg.LinAlgError as error:
        raise BrokenProfileError("impossible primaries") from error


def _xyz(values: object) -> bytes:
    numbers = np.rint(np.asarray(values, dtype=float) * 65536)
    if not (np.abs(numbers) < 1 << 31).all():
        raise BrokenProfileError("impossible primaries")
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(int(n) for n in numbers))


def _curve(gamma: float) -> bytes:
    values = np.linspace(0, 1, 4096)
    if gamma:
        linear = values**gamma
    else:
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    table = np.rint(linear * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(table)) + table.tobytes()


_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
