"""The small picture in the bubble of a question: what the question was about."""

from __future__ import annotations

from PySide6.QtCore import QObject, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QIcon, QImage, QPainter, QPen, QPixmap, QTransform
from PySide6.QtWidgets import QToolButton, QWidget

from gui import theme
from gui.background.attachments import Attachment
from gui.chat import parts as places
from gui.data.state import Part, Turn

HEIGHT = 72
_WIDEST = 150
_GAP = 8


class PictureSource(QObject):
    """The picture of the conversation that is shown, for the bubbles.

    changed  another picture is shown, or it was read
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._attachment: Attachment | None = None

    def show(self, attachment: Attachment | None) -> None:
        """Use a picture; one that is not read yet is shown when it is."""
        ready = attachment if attachment is not None and attachment.picture is not None else None
        if ready is not self._attachment:
            self._attachment = ready
            self.changed.emit()

    @property
    def size(self) -> QSize:
        """Size of the picture in pixels; empty without one."""
        found = self._attachment.picture if self._attachment is not None else None
        return QSize(found.width, found.height) if found is not None else QSize()

    def has(self, turn: Turn) -> bool:
        """Return whether the picture is the page that a question is about."""
        found = self._attachment
        if found is None:
            return False
        if turn.parts:
            return all(part.page == found.page for part in turn.parts)
        return turn.page is None or turn.page == found.page_of_several

    def whole(self) -> QImage:
        """Return the picture, upright and not larger than 1344 pixels."""
        return self._attachment.shown if self._attachment is not None else QImage()

    def cut(self, part: Part) -> QImage:
        """Return a part, turned as it says, in about the size of a thumbnail."""
        if self._attachment is None:
            return QImage()
        image, place = self._attachment.image, places.rectangle(part)
        small = self._attachment.shown
        share = small.width() / image.width()
        if max(place.width(), place.height()) * share >= _WIDEST:
            image = small
            place = QRectF(
                place.x() * share, place.y() * share, place.width() * share, place.height() * share
            ).toRect()
        return image.copy(place).transformed(QTransform().rotate(90 * part.rotation))


class TurnPicture(QToolButton):
    """The picture with the marked parts, and the part itself. A click shows it large.

    wanted  (parts) the user wants to see what the question was about
    """

    wanted = Signal(tuple)

    def __init__(self, source: PictureSource, turn: Turn, parent: QWidget) -> None:
        super().__init__(parent)
        self._source, self._turn, self._parts = source, turn, turn.parts
        text = places.describe_turn(turn)
        self.setToolTip(text)
        self.setAccessibleName(text)
        self.setProperty("kind", "quiet")
        self.setIconSize(QSize(HEIGHT, HEIGHT))
        self.clicked.connect(self._show_large)
        source.changed.connect(self._draw)
        self._draw()

    def _show_large(self) -> None:
        if self._source.has(self._turn):  # else another page would be shown
            self.wanted.emit(self._parts)

    def _draw(self) -> None:
        whole, size = self._source.whole(), self._source.size
        if whole.isNull() or not self._source.has(self._turn):
            self.setIcon(theme.icon("picture"))
            return
        images = [whole]
        part = self._parts[0] if len(self._parts) == 1 else None
        turned_whole = part is not None and places.is_whole(part, size)
        if part is not None and turned_whole:
            images = [self._source.cut(part)]
        elif part is not None:
            images.append(self._source.cut(part))
        ratio = self.devicePixelRatioF()
        small = [_scaled(image, ratio) for image in images]
        width = sum(image.width() for image in small) + round(_GAP * ratio) * (len(small) - 1)
        drawn = QPixmap(width, round(HEIGHT * ratio))
        drawn.fill(Qt.GlobalColor.transparent)
        with QPainter(drawn) as painter:
            x = 0
            for image in small:
                y = (drawn.height() - image.height()) // 2
                painter.drawImage(x, y, image)
                if image is small[0] and not turned_whole:
                    self._mark(painter, QPointF(x, y), image.width() / size.width())
                x += image.width() + round(_GAP * ratio)
        drawn.setDevicePixelRatio(ratio)
        self.setIconSize(QSize(round(width / ratio), HEIGHT))
        self.setIcon(QIcon(drawn))

    def _mark(self, painter: QPainter, at: QPointF, scale: float) -> None:
        """Draw the outlines of the parts."""
        for part in self._parts:
            place = QRectF(
                at.x() + part.x * scale,
                at.y() + part.y * scale,
                max(3.0, part.width * scale),
                max(3.0, part.height * scale),
            )
            painter.setPen(QPen(QColor("white"), 3))
            painter.drawRect(place)
            painter.setPen(QPen(QColor(theme.current().accent), 1.5))
            painter.drawRect(place)


def _scaled(image: QImage, ratio: float) -> QImage:
    """Return an image in the size of a thumbnail. A large one is reduced in two steps."""
    room = QSize(round(_WIDEST * ratio), round(HEIGHT * ratio))
    size = image.size().scaled(room, Qt.AspectRatioMode.KeepAspectRatio).expandedTo(QSize(2, 2))
    if image.width() > 4 * size.width():
        image = image.scaled(size * 4)
    return image.scaled(
        size, Qt.AspectRatioMode.IgnoreAspectRatio, Qt.TransformationMode.SmoothTransformation
    )
