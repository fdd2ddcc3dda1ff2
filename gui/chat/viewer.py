"""Shows a picture of any size: zoom, pan, parts, and the whole screen.

The picture comes as levels, each of half the size of the one before. The level that is drawn has at
most twice as many pixels as the screen, so a picture of 100 megapixels is drawn as fast as a small
one, and without moire. At 100 % one pixel of the picture is one pixel of the screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import (
    QEvent,
    QMargins,
    QPoint,
    QPointF,
    QRect,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import (
    QCloseEvent,
    QColor,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QNativeGestureEvent,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import (
    QAbstractScrollArea,
    QFrame,
    QGestureEvent,
    QPinchGesture,
    QVBoxLayout,
    QWidget,
)

from gui import theme

STEP = 1.25
"""Factor of one step of the zoom."""
_LARGEST = 16.0
"""Largest zoom: a pixel of the picture is 16 pixels wide."""
_LARGEST_OF_PART = 4.0
"""Largest zoom that shows a part: pixels of a very small part say nothing."""
_BLOCKS_FROM = 3.0
"""From this zoom on, pixels are drawn as squares and not blurred."""
_LEAST_DRAG = 6
"""A shorter drag, in pixels of the screen, is a click."""
LEAST_PART = 8
"""Smallest side of a part in pixels of the picture."""
_KEY_STEP = 48
"""How far an arrow key pans, in pixels of the screen."""


class Viewer(QAbstractScrollArea):
    """A picture that can be zoomed and moved, and a tool that draws a rectangle on it.

    zoomed   (zoom) in pixels of the screen per pixel of the picture
    drawn    (rectangle) the user chose a part, in pixels of the picture
    escaped  Esc, and there is nothing here that it cancels
    full     the user wants to enter or leave the full screen
    tool_ended  the tool for parts was switched off by the user

    Dragging moves the picture. With the tool for parts, or with Shift, it draws a rectangle.

    keeps_escape  Esc is never passed on to shortcuts
    """

    zoomed = Signal(float)
    drawn = Signal(QRect)
    escaped = Signal()
    full = Signal()
    tool_ended = Signal()

    def __init__(self, *, keeps_escape: bool = False) -> None:
        super().__init__()
        self._keeps_escape = keeps_escape
        self._levels: list[QImage] = []
        self._zoom = 1.0
        self._fitted = True
        self._margins = QMargins()
        self._parts: list[QRect] = []
        self._draft = QRect()
        self._choosing = False
        self._pressed: QPoint | None = None
        self._drawing = False
        self._last = QPoint()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setProperty("kind", "clear")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.viewport().setMouseTracking(True)
        self.viewport().grabGesture(Qt.GestureType.PinchGesture)
        for bar in (self.horizontalScrollBar(), self.verticalScrollBar()):
            bar.setSingleStep(_KEY_STEP)
        self._set_cursor()

    # --- what is shown ---------------------------------------------------------------------------

    def show_levels(self, levels: Sequence[QImage], *, keep: bool = False) -> None:
        """Show a picture, or nothing.

        levels  the full picture, and smaller copies of it
        keep    keep the zoom and the place, for example if the pixels were replaced
        """
        self._levels = list(levels)
        self._parts, self._draft = [], QRect()
        if self._fitted or not keep:
            self.fit()
        else:
            self._lay_out()

    def show_parts(self, parts: Sequence[QRect]) -> None:
        """Mark parts of the picture; the rest is darker."""
        self._parts = list(parts)
        self._draft = QRect()
        self.viewport().update()

    def set_margins(self, margins: QMargins) -> None:
        """Set how much of each edge other widgets cover."""
        if margins != self._margins:
            self._margins = margins
            self._refit()

    @property
    def picture_size(self) -> QSize:
        return self._levels[0].size() if self._levels else QSize()

    @property
    def zoom(self) -> float:
        """Pixels of the screen per pixel of the picture."""
        return self._zoom

    @property
    def fitted(self) -> bool:
        return self._fitted

    def fit(self) -> None:
        """Fit the picture to the view, also when the view changes its size."""
        self._fitted = True
        if not self._levels:
            self._lay_out()
            return
        room = self._room() * self._ratio()
        size = self.picture_size
        self._zoom = max(1e-6, min(room.width() / size.width(), room.height() / size.height()))
        self._lay_out()

    def set_zoom(self, zoom: float, at: QPointF | None = None) -> None:
        """Change the zoom within its bounds, and keep the point `at` of the view in its place."""
        if not self._levels:
            return
        at = QPointF(self.viewport().rect().center()) if at is None else at
        before = self.to_picture(at)
        self._fitted = False
        self._zoom = min(max(zoom, self._lowest()), self._highest())
        self._lay_out()
        after = self.from_picture(before)
        self._scroll_by(after - at)

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        """Multiply the zoom."""
        self.set_zoom(self._zoom * factor, at)

    def pan(self, x: float, y: float) -> None:
        """Move the view over the picture, in pixels of the screen."""
        self._scroll_by(QPointF(x, y))

    def show_rectangle(self, place: QRect) -> None:
        """Zoom to a part of the picture."""
        if not self._levels or place.isEmpty():
            return
        room = self._room() * self._ratio()
        zoom = min(room.width() / place.width(), room.height() / place.height())
        self.set_zoom(min(zoom / 1.1, _LARGEST_OF_PART))
        middle = QPointF(place.center()) + QPointF(0.5, 0.5)
        self._scroll_by(self.from_picture(middle) - QPointF(self.viewport().rect().center()))

    # --- geometry --------------------------------------------------------------------------------

    def to_picture(self, point: QPointF) -> QPointF:
        """Return the point of the picture that is drawn at a point of the view."""
        scale = self._zoom / self._ratio()
        return (point - self._origin()) / scale

    def from_picture(self, point: QPointF) -> QPointF:
        """Return where a point of the picture is drawn in the view."""
        scale = self._zoom / self._ratio()
        return point * scale + self._origin()

    def _ratio(self) -> float:
        return self.devicePixelRatioF()

    def _room(self) -> QSize:
        """Return the room that nothing covers, without scroll bars."""
        return self.maximumViewportSize().shrunkBy(self._margins).expandedTo(QSize(1, 1))

    def _content(self) -> QSize:
        """Return the size of the picture in the view's units, with the covered margins."""
        scale = self._zoom / self._ratio()
        size = self.picture_size
        return QSize(
            math.floor(size.width() * scale + 1e-6), math.floor(size.height() * scale + 1e-6)
        ).grownBy(self._margins)

    def _origin(self) -> QPointF:
        """Return where the picture's first pixel is drawn, on a pixel of the screen."""
        content, view = self._content(), self.viewport().size()
        x = max(0, view.width() - content.width()) / 2 + self._margins.left()
        y = max(0, view.height() - content.height()) / 2 + self._margins.top()
        x -= self.horizontalScrollBar().value()
        y -= self.verticalScrollBar().value()
        ratio = self._ratio()
        return QPointF(round(x * ratio) / ratio, round(y * ratio) / ratio)

    def _lowest(self) -> float:
        room, size = self._room() * self._ratio(), self.picture_size
        fits = min(room.width() / size.width(), room.height() / size.height())
        return min(fits, 1.0)

    def _highest(self) -> float:
        room, size = self._room() * self._ratio(), self.picture_size
        return max(_LARGEST, min(room.width() / size.width(), room.height() / size.height()))

    def _refit(self) -> None:
        if self._fitted:
            self.fit()
        else:
            self._lay_out()

    def _lay_out(self) -> None:
        """Set the scroll bars to the size of the picture."""
        content, view = self._content(), self.maximumViewportSize()
        if self._fitted or not self._levels:
            content = QSize()
        wide, tall = content.width() > view.width(), content.height() > view.height()
        for needed, bar, length, page in (
            (wide, self.horizontalScrollBar(), content.width(), self.viewport().width()),
            (tall, self.verticalScrollBar(), content.height(), self.viewport().height()),
        ):
            bar.setRange(0, max(0, length - page) if needed else 0)
            bar.setPageStep(page)
        self.viewport().update()
        self._set_cursor()
        self.zoomed.emit(self._zoom)

    def _scroll_by(self, by: QPointF) -> None:
        across, down = self.horizontalScrollBar(), self.verticalScrollBar()
        across.setValue(across.value() + round(by.x()))
        down.setValue(down.value() + round(by.y()))
        self.viewport().update()

    # --- the tool for parts ----------------------------------------------------------------------

    @property
    def choosing(self) -> bool:
        """Whether dragging draws a rectangle."""
        return self._choosing

    def set_choosing(self, choosing: bool) -> None:
        """Switch the tool for parts on or off."""
        self._choosing = choosing and bool(self._levels)
        if not self._choosing:
            self._draft, self._drawing = QRect(), False
            self._pressed = None
        self._set_cursor()
        self.viewport().update()

    def begin_by_keys(self) -> None:
        """Start a rectangle in the middle of what is visible; keys move and resize it."""
        if not self._levels:
            return
        self.set_choosing(True)
        seen = self._visible()
        size = QSize(max(LEAST_PART, seen.width() // 2), max(LEAST_PART, seen.height() // 2))
        place = QRect(QPoint(), size.boundedTo(self.picture_size))
        place.moveCenter(seen.center())
        self._draft = self._parts[0] if len(self._parts) == 1 else self._inside(place)
        self.setFocus()
        self.viewport().update()

    def _visible(self) -> QRect:
        """Return the visible pixels of the picture."""
        first = self.to_picture(QPointF(0, 0))
        last = self.to_picture(QPointF(self.viewport().width(), self.viewport().height()))
        return QRect(first.toPoint(), last.toPoint()).intersected(
            QRect(QPoint(), self.picture_size)
        )

    def _inside(self, place: QRect) -> QRect:
        """Return a rectangle moved and cut so that it lies in the picture."""
        size = self.picture_size
        width = min(max(place.width(), LEAST_PART), size.width())
        height = min(max(place.height(), LEAST_PART), size.height())
        x = min(max(place.x(), 0), size.width() - width)
        y = min(max(place.y(), 0), size.height() - height)
        return QRect(x, y, width, height)

    def _draft_key(self, event: QKeyEvent) -> bool:
        """Move, resize, take or cancel the rectangle. Returns False for another key."""
        moves = {
            Qt.Key.Key_Left: (-1, 0),
            Qt.Key.Key_Right: (1, 0),
            Qt.Key.Key_Up: (0, -1),
            Qt.Key.Key_Down: (0, 1),
        }
        key = Qt.Key(event.key())
        if key in moves:
            step = max(1, round(self._visible().width() / 40))
            if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
                step = 1
            x, y = (step * way for way in moves[key])
            place = QRect(self._draft)
            if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
                place.setSize(place.size() + QSize(x, y))
            else:
                place.translate(x, y)
            self._draft = self._inside(place)
            self.viewport().update()
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._take_draft()
        else:
            return False
        return True

    def _take_draft(self) -> None:
        place = self._draft
        self._draft, self._drawing, self._pressed = QRect(), False, None
        self.viewport().update()
        if not place.isEmpty():
            self.drawn.emit(self._inside(place))

    def _cancel(self) -> bool:
        """Cancel the rectangle, then the tool. Returns False if there was nothing to cancel."""
        if self._drawing or not self._draft.isEmpty():
            self._draft, self._drawing, self._pressed = QRect(), False, None
            self.viewport().update()
            return True
        if self._choosing:
            self.set_choosing(False)
            self.tool_ended.emit()
            return True
        return False

    def _draw_to(self, point: QPoint) -> None:
        assert self._pressed is not None
        first = self.to_picture(QPointF(self._pressed))
        last = self.to_picture(QPointF(point))
        left, right = sorted((first.x(), last.x()))
        top, bottom = sorted((first.y(), last.y()))
        place = QRect(
            QPoint(math.floor(left + 0.5), math.floor(top + 0.5)),
            QSize(round(right - left), round(bottom - top)),
        )
        self._draft = place.intersected(QRect(QPoint(), self.picture_size))
        self.viewport().update()

    # --- drawing ---------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the visible part of the level that fits the zoom, and the chosen parts."""
        if not self._levels:
            return
        with QPainter(self.viewport()) as painter:
            scale = self._zoom / self._ratio()
            origin = self._origin()
            whole = QRectF(
                origin.x(),
                origin.y(),
                self.picture_size.width() * scale,
                self.picture_size.height() * scale,
            )
            exposed = whole.intersected(QRectF(event.rect()))
            if not exposed.isEmpty():
                self._draw_picture(painter, whole, exposed)
            self._draw_parts(painter, whole)

    def _draw_picture(self, painter: QPainter, whole: QRectF, exposed: QRectF) -> None:
        """Draw the exposed pixels of the best level."""
        full = self.picture_size
        level = next(
            (
                level
                for level in reversed(self._levels)
                if level.width() >= full.width() * self._zoom - 1e-6
            ),
            self._levels[0],
        )
        across, down = whole.width() / level.width(), whole.height() / level.height()
        left = max(0, math.floor((exposed.left() - whole.left()) / across))
        top = max(0, math.floor((exposed.top() - whole.top()) / down))
        right = min(level.width(), math.ceil((exposed.right() - whole.left()) / across))
        bottom = min(level.height(), math.ceil((exposed.bottom() - whole.top()) / down))
        source = QRectF(left, top, right - left, bottom - top)
        target = QRectF(
            whole.left() + left * across,
            whole.top() + top * down,
            source.width() * across,
            source.height() * down,
        )
        smooth = self._zoom < _BLOCKS_FROM and self._zoom != 1.0
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, smooth)
        painter.drawImage(target, level, source)

    def _draw_parts(self, painter: QPainter, whole: QRectF) -> None:
        """Draw everything but the parts darker, and their outlines with their numbers."""
        places = [self._draft] if not self._draft.isEmpty() else self._parts
        if not places:
            return
        outlines = [
            QRectF(
                self.from_picture(QPointF(place.topLeft())),
                self.from_picture(QPointF(place.topLeft() + _corner(place))),
            )
            for place in places
        ]
        outside = QPainterPath()
        outside.addRect(whole)
        inside = QPainterPath()
        for outline in outlines:
            one = QPainterPath()
            one.addRect(outline)
            inside = inside.united(one)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        painter.fillPath(outside.subtracted(inside), QColor(0, 0, 0, 120))
        accent = QColor(theme.current().accent)
        for number, outline in enumerate(outlines, start=1):
            painter.setPen(QPen(QColor("white"), 3))
            painter.drawRect(outline)
            painter.setPen(QPen(accent, 1.5))
            painter.drawRect(outline)
            if len(outlines) > 1:
                _draw_label(painter, outline.topLeft() + QPointF(6, 6), str(number))
        if not self._draft.isEmpty():
            label = f"{self._draft.width()} × {self._draft.height()}"
            _draw_label(painter, outlines[0].topLeft() + QPointF(6, 6), label)

    # --- events ----------------------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        """Keep Esc for what it cancels here: the page uses it to stop the answer."""
        if event.type() is QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            busy = self._drawing or self._choosing or not self._draft.isEmpty()
            busy = busy or self._keeps_escape
            if event.key() == Qt.Key.Key_Escape and busy:
                event.accept()
                return True
        return super().event(event)

    def viewportEvent(self, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Zoom with two fingers on a touch pad or a touch screen."""
        if isinstance(event, QNativeGestureEvent):
            if event.gestureType() is Qt.NativeGestureType.ZoomNativeGesture:
                self.zoom_by(1 + event.value(), event.position())
                return True
        elif isinstance(event, QGestureEvent):
            pinch = event.gesture(Qt.GestureType.PinchGesture)
            if isinstance(pinch, QPinchGesture):
                middle = QPointF(self.viewport().mapFromGlobal(pinch.centerPoint().toPoint()))
                self.zoom_by(pinch.scaleFactor(), middle)
                event.accept(pinch)
                return True
        return super().viewportEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Zoom with the wheel; pan with two fingers on a touch pad, with Shift or sideways."""
        if not self._levels:
            event.ignore()
            return
        event.accept()
        zooms = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        pixels, angle = event.pixelDelta(), event.angleDelta()
        if not zooms and not pixels.isNull():
            self._scroll_by(-QPointF(pixels))
        elif not zooms and (shift or not angle.y()):
            self._scroll_by(-QPointF(angle.y() if shift and angle.y() else angle.x(), 0) / 2)
        else:
            self.zoom_by(STEP ** (angle.y() / 120), event.position())

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Begin to move the picture, or to draw a rectangle."""
        left = event.button() is Qt.MouseButton.LeftButton
        if not self._levels or not (left or event.button() is Qt.MouseButton.MiddleButton):
            return
        self.setFocus(Qt.FocusReason.MouseFocusReason)
        self._pressed = self._last = event.position().toPoint()
        shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        self._drawing = left and (self._choosing or shift)
        self._set_cursor()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Move the picture, or draw the rectangle."""
        if self._pressed is None:
            return
        point = event.position().toPoint()
        if self._drawing:
            self._draw_to(point)
        else:
            self._scroll_by(QPointF(self._last - point))
        self._last = point

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Take the rectangle."""
        if self._pressed is None:
            return
        far = (event.position().toPoint() - self._pressed).manhattanLength() >= _LEAST_DRAG
        if self._drawing and far and not self._draft.isEmpty():
            self._draw_to(event.position().toPoint())
            self._take_draft()
        elif self._drawing:
            self._draft = QRect()
            self.viewport().update()
        self._pressed, self._drawing = None, False
        self._set_cursor()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Change between the whole picture and 100 %."""
        if event.button() is not Qt.MouseButton.LeftButton or self._choosing:
            return
        if self._fitted:
            self.set_zoom(1.0, event.position())
        else:
            self.fit()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Zoom, pan, and move a rectangle by keys."""
        if not self._draft.isEmpty() and self._draft_key(event):
            return
        modifiers = event.modifiers() & ~(
            Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.KeypadModifier
        )
        if not self._levels or modifiers:
            super().keyPressEvent(event)
            return
        view = self.viewport().size()
        pans = {
            Qt.Key.Key_Left: (-_KEY_STEP, 0),
            Qt.Key.Key_Right: (_KEY_STEP, 0),
            Qt.Key.Key_Up: (0, -_KEY_STEP),
            Qt.Key.Key_Down: (0, _KEY_STEP),
            Qt.Key.Key_PageUp: (0, -view.height() * 9 // 10),
            Qt.Key.Key_PageDown: (0, view.height() * 9 // 10),
            Qt.Key.Key_Space: (0, view.height() * 9 // 10),
            Qt.Key.Key_Home: (-1_000_000, -1_000_000),
            Qt.Key.Key_End: (0, 1_000_000),
        }
        key = Qt.Key(event.key())
        if key in pans:
            self.pan(*pans[key])
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            self.zoom_by(STEP)
        elif key in (Qt.Key.Key_Minus, Qt.Key.Key_Underscore):
            self.zoom_by(1 / STEP)
        elif key == Qt.Key.Key_0:
            self.fit()
        elif key == Qt.Key.Key_1:
            self.set_zoom(1.0)
        elif key == Qt.Key.Key_P:
            self.begin_by_keys()
        elif key in (Qt.Key.Key_F, Qt.Key.Key_F11):
            self.full.emit()
        elif key == Qt.Key.Key_Escape:
            if not self._cancel():
                self.escaped.emit()
                event.ignore()
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Keep the picture fitted."""
        super().resizeEvent(event)
        self._refit()

    def scrollContentsBy(self, x: int, y: int) -> None:  # noqa: N802 - Qt's name
        """Draw the picture at its new place."""
        self.viewport().update()

    def _set_cursor(self) -> None:
        moved = self._pressed is not None and not self._drawing
        if self._choosing:
            shape = Qt.CursorShape.CrossCursor
        elif moved:
            shape = Qt.CursorShape.ClosedHandCursor
        elif self._levels and not self._fitted:
            shape = Qt.CursorShape.OpenHandCursor
        else:
            shape = Qt.CursorShape.ArrowCursor
        self.viewport().setCursor(shape)


class FullScreen(QWidget):
    """A window with the picture on the whole screen. Esc, F or F11 closes it.

    closed  it was closed
    """

    closed = Signal()

    def __init__(self, levels: Sequence[QImage], parts: Sequence[QRect], near: QWidget) -> None:
        super().__init__(None, Qt.WindowType.Window)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setProperty("kind", "page")
        self.setWindowTitle(near.window().windowTitle())
        self.setAccessibleName(self.tr("The picture on the whole screen"))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self.viewer = Viewer(keeps_escape=True)
        self.viewer.setAccessibleName(self.tr("The picture of this conversation"))
        self.viewer.escaped.connect(self.close)
        self.viewer.full.connect(self.close)
        column.addWidget(self.viewer)
        self.setGeometry(near.screen().geometry())
        self.viewer.show_levels(levels)
        self.viewer.show_parts(parts)
        self.showFullScreen()
        self.activateWindow()
        self.viewer.setFocus()

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """Report the end."""
        self.closed.emit()
        super().closeEvent(event)


def _corner(place: QRect) -> QPoint:
    """Return the offset of a rectangle's end: QRect.bottomRight() is one pixel before it."""
    return QPoint(place.width(), place.height())


def _draw_label(painter: QPainter, at: QPointF, text: str) -> None:
    """Draw a short text on a dark ground."""
    room = QRectF(painter.fontMetrics().boundingRect(text)).adjusted(-6, -3, 6, 3)
    room.moveTopLeft(at)
    painter.fillRect(room, QColor(0, 0, 0, 170))
    painter.setPen(QColor("white"))
    painter.drawText(room, Qt.AlignmentFlag.AlignCenter, text)
