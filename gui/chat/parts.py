"""Where a part lies on a picture that is turned, and in words. No widgets here."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication, QRect, QSize

from gui.data.state import Part, Turn
from gui.translation import fill


def turned_size(size: QSize, quarters: int) -> QSize:
    """Return the size of a picture after so many quarter turns."""
    return size.transposed() if quarters % 2 else size


def to_turned(place: QRect, size: QSize, quarters: int) -> QRect:
    """Return where a rectangle of an upright picture lies after quarter turns to the right.

    size  of the upright picture
    """
    x, y, width, height = place.x(), place.y(), place.width(), place.height()
    across, down = size.width(), size.height()
    for _ in range(quarters % 4):
        x, y, width, height, across, down = down - y - height, x, height, width, down, across
    return QRect(x, y, width, height)


def to_upright(place: QRect, size: QSize, quarters: int) -> QRect:
    """Return the reverse of to_turned. size: of the upright picture."""
    return to_turned(place, turned_size(size, quarters), -quarters)


def rectangle(part: Part) -> QRect:
    """Return the rectangle of a part on the upright picture."""
    return QRect(part.x, part.y, part.width, part.height)


def part_of(place: QRect, page: int | None, rotation: int) -> Part:
    """Return the part with a rectangle of the upright picture."""
    return Part(
        x=place.x(),
        y=place.y(),
        width=place.width(),
        height=place.height(),
        page=page,
        rotation=rotation % 4,
    )


def is_whole(part: Part, size: QSize) -> bool:
    """Return whether a part is the whole picture, which may be turned."""
    return rectangle(part) == QRect(0, 0, size.width(), size.height())


def describe_turn(turn: Turn) -> str:
    """Return a text for what a question is about, with the name of the file."""
    text = describe(turn.parts, turn.page)
    if not turn.file:
        return text
    return fill(QCoreApplication.translate("Parts", "{part} ({file})"), part=text, file=turn.file)


def describe(parts: Sequence[Part], page: int | None = None) -> str:
    """Return a text for the parts that a question is about. page: of the whole picture"""
    if not parts:
        text = QCoreApplication.translate("Parts", "The whole picture")
        return text + (_page(page) if page is not None else "")
    if len(parts) > 1:
        text = QCoreApplication.translate("Parts", "{count} overlapping parts of the picture")
        return fill(text, count=len(parts))
    part = parts[0]
    text = fill(
        QCoreApplication.translate(
            "Parts", "Part of the picture: {width} × {height} pixels at ({x}, {y})"
        ),
        width=part.width,
        height=part.height,
        x=part.x,
        y=part.y,
    )
    if part.page is not None:
        text += _page(part.page)
    if part.rotation:
        degrees = 90 * part.rotation
        text += fill(QCoreApplication.translate("Parts", ", turned by {degrees}°"), degrees=degrees)
    return text


def _page(page: int) -> str:
    return fill(QCoreApplication.translate("Parts", ", page {page}"), page=page)
