"""Capture a part of the screen as a picture, where the desktop allows it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QPoint, QRect, Qt, QTimer
from PySide6.QtGui import (
    QColor,
    QGuiApplication,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QScreen,
)
from PySide6.QtWidgets import QWidget

from gui import theme

_HIDING_MS = 250
"""Time for the desktop to draw what was behind the window."""
_LEAST = 8
"""Smallest side in pixels; a smaller rectangle is taken for a click."""


def can_capture(platform: str | None = None) -> bool:
    """Return True if programs may capture the screen. On Wayland only the desktop may."""
    return not (platform or QGuiApplication.platformName()).startswith("wayland")


class Capture(QObject):
    """One capture: hides the window, shows a still image of each screen, and returns a part of it.

    done  called with the image, or with None if the user cancelled
    grab  returns the pixels of a screen
    """

    def __init__(
        self,
        window: QWidget,
        done: Callable[[QImage | None], None],
        grab: Callable[[QScreen], QPixmap] = lambda screen: screen.grabWindow(0),
    ) -> None:
        super().__init__(window)
        self._window, self._done, self._grab = window, done, grab
        self.overlays: list[Overlay] = []
        window.hide()
        QTimer.singleShot(_HIDING_MS, self._show)

    def _show(self) -> None:
        shots = [(screen, self._grab(screen)) for screen in QGuiApplication.screens()]
        for screen, shot in shots:
            if not shot.isNull():
                self.overlays.append(Overlay(screen, shot, self._end))
        if not self.overlays:
            self._end(None)

    def _end(self, image: QImage | None) -> None:
        for overlay in self.overlays:
            overlay.close()
            overlay.deleteLater()
        self.overlays.clear()
        self._window.show()
        self._window.raise_()
        self._window.activateWindow()
        self._done(image)
        self.deleteLater()


class Overlay(QWidget):
    """A still image of a screen to draw a rectangle on. Enter takes all of it, Esc cancels."""

    def __init__(
        self, screen: QScreen, shot: QPixmap, end: Callable[[QImage | None], None]
    ) -> None:
        super().__init__(None, Qt.WindowType.FramelessWindowHint | Qt.WindowType.Tool)
        self.setWindowFlag(Qt.WindowType.WindowStaysOnTopHint)
        self.setAccessibleName(self.tr("Choose a part of the screen"))
        self._shot, self._end = shot, end
        self._from: QPoint | None = None
        self.chosen = QRect()
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setGeometry(screen.geometry())
        self.showFullScreen()
        self.activateWindow()
        self.setFocus()

    def take(self, chosen: QRect) -> None:
        """Return a part in the screen's own pixels, whatever its scale factor."""
        scale = self._shot.devicePixelRatio()
        pixels = QRect(
            round(chosen.x() * scale),
            round(chosen.y() * scale),
            round(chosen.width() * scale),
            round(chosen.height() * scale),
        )
        part = self._shot.toImage().copy(pixels)
        part.setDevicePixelRatio(1.0)
        self._end(part)

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Start a rectangle."""
        if event.button() is Qt.MouseButton.LeftButton:
            self._from = event.position().toPoint()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the rectangle."""
        if self._from is not None:
            self.chosen = QRect(self._from, event.position().toPoint()).normalized()
            self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Take the part inside the rectangle."""
        self._from = None
        if min(self.chosen.width(), self.chosen.height()) >= _LEAST:
            self.take(self.chosen)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Take the whole screen, or cancel."""
        if event.key() == Qt.Key.Key_Escape:
            self._end(None)
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.take(self.rect())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the screen darker outside of the rectangle."""
        with QPainter(self) as painter:
            painter.drawPixmap(self.rect(), self._shot)
            painter.fillRect(self.rect(), QColor(0, 0, 0, 110))
            if not self.chosen.isEmpty():
                painter.save()
                painter.setClipRect(self.chosen)
                painter.drawPixmap(self.rect(), self._shot)
                painter.restore()
                painter.setPen(QPen(QColor(theme.current().accent), 2))
                painter.drawRect(self.chosen)
                return
            painter.setPen(QColor("white"))
            painter.drawText(
                self.rect(),
                Qt.AlignmentFlag.AlignCenter,
                self.tr("Draw a rectangle. Enter captures the whole screen, Esc cancels."),
            )
