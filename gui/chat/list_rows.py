"""Draws the rows of the list of conversations: a small picture, the title and the date."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from PySide6.QtCore import QCoreApplication, QModelIndex, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QIcon, QImage, QPainter, QPixmap
from PySide6.QtWidgets import (
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
)

from gui import theme
from gui.background.thumbnails import Thumbnails
from gui.chat.dates import short_date
from gui.data.history import PICTURES, Summary

ID = Qt.ItemDataRole.UserRole
"""The role of a conversation's number."""
ROW = Qt.ItemDataRole.UserRole + 1
"""The role of a row's Summary."""
_Role = Qt.ItemDataRole
_SIDE = 36
_PADDING = 9
_GAP = 9
_MOST_KEPT = 400


class ConversationItem(QListWidgetItem):
    """A row of the list. Its texts are made when they are needed: the list may be long."""

    def __init__(self, row: Summary) -> None:
        super().__init__()
        self._row = row

    def show_row(self, row: Summary) -> None:
        """Show another conversation. The list must be drawn again."""
        self._row = row

    def data(self, role: int) -> Any:
        """Return what Qt or the painter asks for."""
        row = self._row
        if role == ROW:
            return row
        if role == ID:
            return row.id
        if role == _Role.ToolTipRole:
            return row.title
        if role == _Role.DecorationRole:
            return theme.icon("pin") if row.pinned else None
        if role in (_Role.DisplayRole, _Role.EditRole, _Role.AccessibleTextRole):
            title = row.title or QCoreApplication.translate("Sidebar", "New conversation")
            accessible = role == _Role.AccessibleTextRole
            return f"{title}, {short_date(row.changed)}" if accessible else title
        return None


class RowPainter(QStyledItemDelegate):
    """Draws rows. The small picture of a row is decoded when the row is first seen.

    folder  of the conversations; None: they are in memory and have no small pictures
    """

    def __init__(self, view: QListWidget, folder: Path | None) -> None:
        super().__init__(view)
        self._view = view
        self._folder = folder / PICTURES if folder is not None else None
        self._images: OrderedDict[str, QPixmap | None] = OrderedDict()
        self._thumbnails = Thumbnails(self)
        self._thumbnails.ready.connect(self._ready)

    def close(self) -> None:
        """Stop decoding."""
        self._thumbnails.close()

    def image(self, picture: str) -> QPixmap | None:
        """Return the small picture with this name; None while it is not there."""
        if not picture or self._folder is None:
            return None
        if picture not in self._images:
            self._images[picture] = None
            while len(self._images) > _MOST_KEPT:
                self._images.popitem(last=False)
            self._thumbnails.request(self._folder / picture)
        return self._images[picture]

    def _ready(self, path: str, image: QImage) -> None:
        name = Path(path).name
        if image.isNull() or name not in self._images:
            return
        side = round(_SIDE * self._view.devicePixelRatioF())
        square = min(image.width(), image.height())
        middle = QRect(0, 0, square, square)
        middle.moveCenter(image.rect().center())
        small = image.copy(middle).scaled(
            QSize(side, side),
            Qt.AspectRatioMode.IgnoreAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        drawn = QPixmap.fromImage(small)
        drawn.setDevicePixelRatio(self._view.devicePixelRatioF())
        self._images[name] = drawn
        self._view.viewport().update()

    def sizeHint(  # noqa: N802 - Qt's name
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> QSize:
        """Return room for the picture, and for two lines of text."""
        lines = QFontMetrics(self._view.font()).height() + _small(self._view.font())[1].height()
        return QSize(0, max(_SIDE, lines) + 2 * _PADDING)

    def initStyleOption(  # noqa: N802 - Qt's name
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Let the style draw only the ground."""
        super().initStyleOption(option, index)
        option.text, option.icon = "", QIcon()

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        """Draw a row."""
        super().paint(painter, option, index)
        row = index.data(ROW)
        if not isinstance(row, Summary):
            return
        colours = theme.current()
        ink, soft = colours.ink, colours.soft
        if option.state & QStyle.StateFlag.State_Selected:
            ink = soft = colours.chosen_ink
        painter.save()
        room = option.rect.adjusted(_PADDING, _PADDING - 1, -_PADDING, 1 - _PADDING)
        left_to_right = option.direction is Qt.LayoutDirection.LeftToRight
        if row.picture:
            self._draw_picture(painter, row.picture, room, left_to_right)
            cut = _SIDE + _GAP
            room.adjust(cut if left_to_right else 0, 0, 0 if left_to_right else -cut, 0)
        align = Qt.AlignmentFlag.AlignLeading
        title = QFontMetrics(option.font).elidedText(
            index.data(), Qt.TextElideMode.ElideRight, room.width()
        )
        painter.setFont(option.font)
        painter.setPen(QColor(ink))
        painter.drawText(room, align | Qt.AlignmentFlag.AlignTop, title)
        font, metrics = _small(option.font)
        painter.setFont(font)
        painter.setPen(QColor(soft))
        painter.drawText(room, align | Qt.AlignmentFlag.AlignBottom, short_date(row.changed))
        if row.pinned:
            side = metrics.height()
            x = room.right() - side if left_to_right else room.left()
            place = QRect(x, room.bottom() - side, side, side)
            theme.icon("pin", soft).paint(painter, place)
        painter.restore()

    def _draw_picture(
        self, painter: QPainter, picture: str, room: QRect, left_to_right: bool
    ) -> None:
        place = QRect(0, 0, _SIDE, _SIDE)
        place.moveCenter(room.center())
        if left_to_right:
            place.moveLeft(room.left())
        else:
            place.moveRight(room.right())
        found = self.image(picture)
        if found is not None:
            painter.drawPixmap(place, found)
        else:
            theme.icon("picture", theme.current().soft).paint(painter, place.adjusted(8, 8, -8, -8))
        painter.setPen(QColor(theme.current().line))
        painter.drawRect(place)


def _small(font: QFont) -> tuple[QFont, QFontMetrics]:
    """Return the font of the date, and its metrics."""
    small = QFont(font)
    small.setPointSizeF(max(7.0, 0.8 * font.pointSizeF()))
    return small, QFontMetrics(small)
