"""Cuts, turns, scales and encodes the pixels of a decoded picture.

These functions take long for large pictures, so they are called on threads. They import Pillow when
they are called, to keep the start of the window short.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from PySide6.QtGui import QImage

from gui.background.decoder import DecodedPicture
from gui.data.state import Part

if TYPE_CHECKING:
    from PIL import Image

    from cogvlm2_lite.inputs.image import OpenedImage

MODEL_SIDE = 1344
"""Side of the model's input in pixels."""
_SMALLEST_LEVEL = 512
"""Longest side of the smallest copy that is made for showing a picture."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """A picture and copies of it, each of half the size of the one before.

    images  the first one has all pixels
    pixels  memory that the images use
    """

    images: tuple[QImage, ...]
    pixels: bytes = field(repr=False)


def levels(found: DecodedPicture, quarters: int = 0) -> Levels:
    """Return the levels of a picture that is turned to the right by so many quarters.

    A copy is the mean of 2 by 2 pixels, so a picture that is shown smaller has no moire.
    """
    image = _turn(_image(found), quarters)
    # Qt uses the memory of the decoder's answer, unless the pixels had to be moved.
    pixels = found.rgb if quarters % 4 == 0 else image.tobytes()
    images = [_qt_image(image.size, pixels)]
    while max(image.size) > _SMALLEST_LEVEL:
        image = image.reduce(2)
        small = image.convert("RGBA").tobytes("raw", "BGRA")
        form = QImage.Format.Format_RGB32  # Qt draws it twice as fast
        images.append(QImage(small, image.width, image.height, 4 * image.width, form).copy())
    return Levels(images=tuple(images), pixels=pixels)


def cut(found: DecodedPicture, part: Part | None) -> OpenedImage:
    """Return a part of the full-size pixels, turned as the part says; None is the whole."""
    import numpy as np

    from cogvlm2_lite.inputs.image import opened_image

    image = _cut(found, part)
    return opened_image(np.asarray(image), format="memory", original_size=image.size, name="")


def png_of(found: DecodedPicture, part: Part | None) -> bytes:
    """Return a part, or the whole picture, as a PNG file."""
    store = BytesIO()
    _cut(found, part).save(store, "PNG", compress_level=1)
    return store.getvalue()


def image_of(found: DecodedPicture, part: Part | None) -> QImage:
    """Return a part, or the whole picture, as an image with memory of its own."""
    image = _cut(found, part)
    return _qt_image(image.size, image.tobytes()).copy()


def as_model_sees(found: DecodedPicture, part: Part | None) -> QImage:
    """Return a part, or the whole picture, as the square that the model gets.

    The engine resizes with the same function.
    """
    from cogvlm2_lite.inputs.image import resize_pixels

    square = resize_pixels(cut(found, part), MODEL_SIDE)
    return _qt_image((MODEL_SIDE, MODEL_SIDE), square.tobytes()).copy()


def _image(found: DecodedPicture) -> Image.Image:
    from PIL import Image

    return Image.frombuffer("RGB", (found.width, found.height), found.rgb, "raw", "RGB", 0, 1)


def _qt_image(size: tuple[int, int], rgb: bytes) -> QImage:
    return QImage(rgb, *size, 3 * size[0], QImage.Format.Format_RGB888)


def _cut(found: DecodedPicture, part: Part | None) -> Image.Image:
    image = _image(found)
    if part is None:
        return image
    box = (part.x, part.y, part.x + part.width, part.y + part.height)
    return _turn(image.crop(box), part.rotation)


def _turn(image: Image.Image, quarters: int) -> Image.Image:
    from PIL import Image

    turns = {
        1: Image.Transpose.ROTATE_270,  # Pillow turns to the left
        2: Image.Transpose.ROTATE_180,
        3: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(quarters % 4)
    return image if turn is None else image.transpose(turn)
