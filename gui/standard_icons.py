"""The icons of Qt's own dialogs, in colours that are seen in every theme.

Qt draws arrows and other signs in black, whatever is behind them, and icon themes of a desktop may
be made for a light background only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QColor, QIcon, QImage, QPainter, QPixmap
from PySide6.QtWidgets import QProxyStyle, QStyle, QStyleOption, QWidget

_LEAST = 3.0
"""Contrast of a sign with its background (WCAG 2.2, 1.4.11)."""
_SHARE = 0.2
"""An icon is seen if so much of it has this contrast."""
_MEASURED = QSize(16, 16)
_SIZES = [QSize(side, side) for side in (16, 24, 32, 48, 64)]


@dataclass(frozen=True, kw_only=True)
class IconColours:
    """Colours of a theme: what is behind icons, and a sign, also where it is disabled."""

    ground: str
    ink: str
    soft: str


class IconStyle(QProxyStyle):
    """Fusion with standard icons that are seen.

    colours  returns those of the theme that is applied now
    """

    def __init__(self, colours: Callable[[], IconColours]) -> None:
        super().__init__("Fusion")
        self._colours = colours
        self._made: dict[tuple[QStyle.StandardPixmap, IconColours], QIcon] = {}

    def standardIcon(  # noqa: N802 - Qt's name
        self,
        kind: QStyle.StandardPixmap,
        /,
        option: QStyleOption | None = None,
        widget: QWidget | None = None,
    ) -> QIcon:
        """Return an icon that is drawn in the colours of the theme, if its own are not seen."""
        colours = self._colours()
        key = kind, colours
        if key not in self._made:
            plain = super().standardIcon(kind, option, widget)
            self._made[key] = plain if plain.isNull() else _dressed(plain, colours)
        return self._made[key]

    def standardPixmap(  # noqa: N802 - Qt's name
        self,
        kind: QStyle.StandardPixmap,
        /,
        opt: QStyleOption | None = None,
        widget: QWidget | None = None,
    ) -> QPixmap:
        """Return the same in the size that Qt has it in."""
        plain = super().standardPixmap(kind, opt or QStyleOption(), widget)
        colours = self._colours()
        if plain.isNull() or _is_seen(plain.toImage(), QColor(colours.ground)):
            return plain
        return _outline(plain, colours.ink)


def _dressed(plain: QIcon, colours: IconColours) -> QIcon:
    """Return an icon as it is, or in one colour if it is not seen on the ground of the theme."""
    if _is_seen(plain.pixmap(_MEASURED).toImage(), QColor(colours.ground)):
        return plain
    made = QIcon()
    for size in plain.availableSizes() or _SIZES:
        for state in (QIcon.State.Off, QIcon.State.On):
            for mode, colour in (
                (QIcon.Mode.Normal, colours.ink),
                (QIcon.Mode.Disabled, colours.soft),
            ):
                pixels = plain.pixmap(size, QIcon.Mode.Normal, state)
                made.addPixmap(_outline(pixels, colour), mode, state)
    return made


def _outline(plain: QPixmap, colour: str) -> QPixmap:
    """Return what is drawn of an icon, in one colour."""
    drawn = QPixmap(plain.size())
    drawn.setDevicePixelRatio(plain.devicePixelRatio())
    drawn.fill(Qt.GlobalColor.transparent)
    with QPainter(drawn) as painter:
        painter.drawPixmap(0, 0, plain)
        painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceIn)
        painter.fillRect(drawn.rect(), QColor(colour))
    return drawn


def _is_seen(image: QImage, ground: QColor) -> bool:
    """Return whether enough of an icon stands out from its background."""
    small = image.scaled(
        _MEASURED,
        Qt.AspectRatioMode.IgnoreAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
    behind, seen, drawn = _luminance(ground), 0.0, 0.0
    for y in range(small.height()):
        for x in range(small.width()):
            pixel = small.pixelColor(x, y)
            low, high = sorted((_luminance(pixel), behind))
            drawn += pixel.alphaF()
            if (high + 0.05) / (low + 0.05) >= _LEAST:
                seen += pixel.alphaF()
    return seen >= _SHARE * drawn


def _luminance(colour: QColor) -> float:
    """Return the relative luminance of WCAG 2.2."""
    parts = (colour.redF(), colour.greenF(), colour.blueF())
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
