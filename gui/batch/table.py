"""The table of a batch: a picture and its answer in each row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QAbstractItemModel,
    QAbstractTableModel,
    QCoreApplication,
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QSize,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QImage, QKeyEvent, QPixmap
from PySide6.QtWidgets import QPlainTextEdit, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from gui import theme
from gui.background.thumbnails import SIDE, Thumbnails
from gui.batch.run import Row, RowState
from gui.translatable import QT_TRANSLATE_NOOP
from gui.translation import translate

THUMBNAIL_PX = SIDE // 2
_Index = QModelIndex | QPersistentModelIndex
_Role = Qt.ItemDataRole
_HEADINGS = (QT_TRANSLATE_NOOP("Batch", "Picture"), QT_TRANSLATE_NOOP("Batch", "Answer"))
_WORDS = {
    RowState.WAITING: QT_TRANSLATE_NOOP("Batch", "waiting"),
    RowState.ASKING: QT_TRANSLATE_NOOP("Batch", "in progress…"),
}


class Table(QAbstractTableModel):
    """The rows of a batch. Thumbnails are requested when a row is first shown.

    edited   (place, text) the user changed an answer
    locked   answers can't be changed, because a batch runs
    """

    edited = Signal(int, str)

    def __init__(self, parent: QObject, thumbnails: Thumbnails) -> None:
        super().__init__(parent)
        self._folder = Path()
        self._rows: list[Row] = []
        self._pixmaps: dict[str, QPixmap | None] = {}
        self.locked = False
        self._thumbnails = thumbnails
        thumbnails.ready.connect(self._show_thumbnail)

    def show_rows(self, folder: Path, rows: list[Row]) -> None:
        """Replace all rows."""
        self.beginResetModel()
        if folder != self._folder:
            self._pixmaps.clear()
        self._folder, self._rows = folder, list(rows)
        self.endResetModel()

    def show_row(self, place: int, row: Row) -> None:
        """Update one row."""
        self._rows[place] = row
        self.dataChanged.emit(self.index(place, 0), self.index(place, 1))

    def row(self, place: int) -> Row:
        """Return a row by its index."""
        return self._rows[place]

    def path(self, place: int) -> Path:
        """Return the picture file of a row."""
        return self._folder / self._rows[place].file

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's signature
        """Implement Qt's model interface."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's
        """Implement Qt's model interface."""
        return 0 if parent.isValid() else 2

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = _Role.DisplayRole
    ) -> Any:
        """Implement Qt's model interface."""
        if orientation is Qt.Orientation.Horizontal and role == _Role.DisplayRole:
            return QCoreApplication.translate("Batch", _HEADINGS[section])
        return None

    def data(self, index: _Index, role: int = _Role.DisplayRole) -> Any:
        """Implement Qt's model interface."""
        row = self._rows[index.row()]
        if index.column() == 0:
            return self._of_picture(row, role)
        if role == _Role.DisplayRole:
            return text_of(row)
        if role == _Role.EditRole:
            return row.text if row.state is RowState.ANSWERED else ""
        if role == _Role.ToolTipRole:
            return "\n".join([_answer_text(row), *map(translate, row.notices)]).strip() or None
        if role == _Role.ForegroundRole and row.state is not RowState.ANSWERED:
            colours = theme.current()
            return QColor(colours.bad if row.state is RowState.FAILED else colours.soft)
        return None

    def flags(self, index: _Index) -> Qt.ItemFlag:
        """Implement Qt's model interface."""
        flags = super().flags(index)
        if index.column() == 1 and not self.locked:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def setData(self, index: _Index, value: Any, role: int = _Role.EditRole) -> bool:  # noqa: N802 - Qt's
        """Implement Qt's model interface; the page saves the answer."""
        text = str(value).strip()
        row = self._rows[index.row()]
        before = row.text if row.state is RowState.ANSWERED else ""
        if role != _Role.EditRole or self.locked or not text or text == before:
            return False
        self.edited.emit(index.row(), text)
        return True

    def _of_picture(self, row: Row, role: int) -> Any:
        if role in (_Role.DisplayRole, _Role.ToolTipRole):
            return row.shown_name
        if role == _Role.DecorationRole:
            return self._thumbnail(row.file)
        if role == _Role.SizeHintRole:
            return QSize(3 * THUMBNAIL_PX, THUMBNAIL_PX + 12)
        return None

    def _thumbnail(self, name: str) -> QPixmap | None:
        if name not in self._pixmaps:
            self._pixmaps[name] = None
            self._thumbnails.request(self._folder / name)
        return self._pixmaps[name]

    def _show_thumbnail(self, path: str, image: QImage) -> None:
        if image.isNull() or not Path(path).is_relative_to(self._folder):
            return
        name = Path(path).relative_to(self._folder).as_posix()
        pixmap = QPixmap.fromImage(image)
        pixmap.setDevicePixelRatio(SIDE / THUMBNAIL_PX)
        self._pixmaps[name] = pixmap
        # Updating all visible rows is cheaper than searching ten thousand for the one that changed.
        self.dataChanged.emit(self.index(0, 0), self.index(len(self._rows) - 1, 0))


class AnswerEditor(QStyledItemDelegate):
    """Edits an answer in its cell. Enter saves, Shift+Enter starts a line, Esc cancels."""

    def createEditor(  # noqa: N802 - Qt's name
        self, parent: QWidget, option: QStyleOptionViewItem, index: _Index
    ) -> QWidget:
        """Return the field."""
        field = QPlainTextEdit(parent)
        field.setAccessibleName(QCoreApplication.translate("Batch", "Answer"))
        return field

    def setEditorData(self, editor: QWidget, index: _Index) -> None:  # noqa: N802 - Qt's name
        """Put the answer into the field."""
        assert isinstance(editor, QPlainTextEdit)
        editor.setPlainText(index.data(_Role.EditRole))
        editor.selectAll()

    def setModelData(  # noqa: N802 - Qt's name
        self, editor: QWidget, model: QAbstractItemModel, index: _Index
    ) -> None:
        """Pass the new answer on."""
        assert isinstance(editor, QPlainTextEdit)
        model.setData(index, editor.toPlainText(), _Role.EditRole)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Save with Enter."""
        if isinstance(watched, QPlainTextEdit) and isinstance(event, QKeyEvent):
            enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
            broken = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            if event.type() is QEvent.Type.KeyPress and enter and not broken:
                self.commitData.emit(watched)
                self.closeEditor.emit(watched)
                return True
        return super().eventFilter(watched, event)


class Filter(QSortFilterProxyModel):
    """Shows the rows that contain a text and have a state."""

    def __init__(self, parent: QObject, table: Table) -> None:
        super().__init__(parent)
        self._table = table
        self._wanted = ""
        self._states: tuple[RowState, ...] = ()
        self.setSourceModel(table)

    def show_only(self, text: str, states: tuple[RowState, ...]) -> None:
        """Show rows whose name or text contains `text`, in one of `states`; no states: all."""
        self._wanted, self._states = text.strip().casefold(), states
        self.invalidate()

    def filterAcceptsRow(self, source_row: int, source_parent: _Index) -> bool:  # noqa: N802 - Qt's
        """Implement Qt's model interface."""
        row = self._table.row(source_row)
        if self._states and row.state not in self._states:
            return False
        return not self._wanted or self._wanted in row.searched

    def shown(self) -> list[Row]:
        """Return the rows that are shown, in order."""
        return [
            self._table.row(self.mapToSource(self.index(place, 0)).row())
            for place in range(self.rowCount())
        ]


def text_of(row: Row) -> str:
    """Return the text in the column of answers."""
    if row.text or row.state not in _WORDS:
        return _answer_text(row)
    return QCoreApplication.translate("Batch", _WORDS[row.state])


def _answer_text(row: Row) -> str:
    """Return the answer, or the error in the window's language."""
    return translate(row.text) if row.state is RowState.FAILED else row.text
