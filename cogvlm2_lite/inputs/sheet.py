"""Puts several pictures on one sheet, because the model takes one picture per conversation.

The sheet is as large as the picture that the released models see, so nothing on it is scaled again.
Each picture keeps its shape, and its number stands above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.inputs.image import OpenedImage, open_image, opened_image
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS, MOST_ON_SHEET, ImageLimits
from cogvlm2_lite.inputs.visible import squashed
from cogvlm2_lite.text import Text

_SIDE = 1344
_BAND = 52
"""Height of the strip with the number."""
_LETTERS = 46
_GAP = 8
"""Between a picture and the border of its cell."""
_GROUND = (198, 198, 198)
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture file, and the page or frame to read; None: the one that open_image chooses."""

    data: bytes
    page: int | None = None


def open_sheet(
    files: Sequence[PictureFile], *, upright: bool = True, limits: ImageLimits = DEFAULT_LIMITS
) -> OpenedImage:
    """Return a sheet with the pictures of two to MOST_ON_SHEET files, numbered from 1.

    The notices name the picture that they are about. Raises ImageError for the first picture that
    can't be opened, with its number.
    """
    assert 2 <= len(files) <= MOST_ON_SHEET
    pictures: list[Image.Image] = []
    notices: list[Text] = []
    for number, file in enumerate(files, 1):
        try:
            opened = open_image(file.data, upright=upright, page=file.page, limits=limits)
        except ImageError as error:
            raise ImageError(
                "Picture {number}: {why}", hint=error.hint, number=number, why=error.message
            ) from error
        shape = squashed(opened.width, opened.height)  # on a sheet it keeps its shape
        found = [notice for notice in opened.notices if notice != shape]
        notices += [Text("Picture {number}: {why}", number=number, why=text) for text in found]
        # Reduced at once, so that not all of them are in memory in full size.
        pictures.append(_fitted(Image.fromarray(opened.rgb), _SIDE, _SIDE, enlarge=False))
    return opened_image(
        np.array(_drawn(pictures)),
        format="memory",
        original_size=(_SIDE, _SIDE),
        name=Text("The sheet of pictures"),
        notices=tuple(notices),
    )


def _drawn(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return the sheet: cells of one size, row by row."""
    columns = _best_columns([picture.size for picture in pictures])
    rows = ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (_SIDE, _SIDE), _GROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LETTERS)
    width, height = _room(columns, rows)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left, top = column * _SIDE // columns, row * _SIDE // rows
        fitted = _fitted(picture, width, height, enlarge=True)
        x = left + _GAP + (width - fitted.width) // 2
        y = top + _BAND + (height - fitted.height) // 2
        # The number is directly above its picture, also if the picture is smaller than the cell.
        draw.rectangle((x, y - _BAND + _GAP, x + _BAND, y - 1), fill=_PAPER)
        draw.text(
            (x + _BAND / 2, y - (_BAND - _GAP) / 2),
            str(index + 1),
            font=font,
            fill=_INK,
            anchor="mm",
            stroke_width=1,
        )
        sheet.paste(fitted, (x, y))
    for column in range(1, columns):
        x = column * _SIDE // columns
        draw.line((x, 0, x, _SIDE), fill=_INK, width=2)
    for row in range(1, rows):
        y = row * _SIDE // rows
        draw.line((0, y, _SIDE, y), fill=_INK, width=2)
    return sheet


def _room(columns: int, rows: int) -> tuple[int, int]:
    """Return the width and height that a picture has in its cell."""
    return _SIDE // columns - 2 * _GAP, _SIDE // rows - _BAND - _GAP


def _best_columns(sizes: Sequence[tuple[int, int]]) -> int:
    """Return the number of columns with which the pictures are largest, all together."""

    def area(columns: int) -> float:
        width, height = _room(columns, ceil(len(sizes) / columns))
        scales = [min(width / w, height / h) for w, h in sizes]
        return sum(s * s * w * h for s, (w, h) in zip(scales, sizes, strict=True))

    return max(range(1, len(sizes) + 1), key=area)


def _fitted(picture: Image.Image, width: int, height: int, *, enlarge: bool) -> Image.Image:
    """Return a picture that is scaled into a rectangle; its shape stays the same."""
    scale = min(width / picture.width, height / picture.height)
    if scale >= 1 and not enlarge:
        return picture
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.BICUBIC)
