"""The list of conversations: search, rename, pin, export, delete and restore."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QEvent, QObject, QPoint, Qt, Signal
from PySide6.QtGui import QAction, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QInputDialog,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import escape_line
from gui import theme
from gui.chat.list_rows import ID, ConversationItem, RowPainter
from gui.context import Context
from gui.data.export import KINDS, export
from gui.data.history import HistoryError, Summary, search_file
from gui.data.import_json import read_export
from gui.data.state import Conversation
from gui.save_dialog import Target, ask_for_target
from gui.translation import error_text, fill


class Sidebar(QWidget):
    """The list of conversations with its buttons.

    selected       (id) the user chose a conversation
    new_requested  the user wants a new conversation
    renamed        (id, title)
    deleted        (id)
    failed         (message)
    told           (message) something was done that is not seen

    is_answering  returns True for the conversation that is being answered
    """

    selected = Signal(int)
    new_requested = Signal()
    renamed = Signal(int, str)
    deleted = Signal(int)
    failed = Signal(str)
    told = Signal(str)

    def __init__(self, context: Context, is_answering: Callable[[int], bool]) -> None:
        super().__init__()
        self._context = context
        self._is_answering = is_answering
        self._shown: int | None = None
        self._deleted: list[int] = []
        self._places: dict[int, int] = {}
        self._search_number = 0
        self.setObjectName("conversations")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        column = QVBoxLayout(self)
        column.setContentsMargins(10, 14, 10, 10)
        column.setSpacing(8)
        self.new_button = QPushButton(self.tr("New conversation"))
        self.new_button.setIcon(theme.icon("plus"))
        self.new_button.setAccessibleName(self.tr("New conversation"))
        self.new_button.clicked.connect(self.new_requested)
        column.addWidget(self.new_button)
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search"))
        self.search.setClearButtonEnabled(True)
        self.search.setAccessibleName(self.tr("Search in conversations"))
        self.search.textChanged.connect(lambda _: self.reload())
        self.search.installEventFilter(self)
        column.addWidget(self.search)
        self.list = self._make_list()
        self._add_keys()
        column.addWidget(self.list, 1)
        self.import_button = QPushButton(self.tr("Import…"))
        self.import_button.setProperty("kind", "quiet")
        self.import_button.setToolTip(self.tr("Import a conversation that was exported as JSON"))
        self.import_button.clicked.connect(self._ask_for_import)
        column.addWidget(self.import_button)
        self.undo = QPushButton(self.tr("Undo delete"))
        self.undo.setAccessibleName(self.tr("Undo delete"))
        self.undo.clicked.connect(self._restore_deleted)
        self.undo.hide()
        column.addWidget(self.undo)

    def _make_list(self) -> QListWidget:
        made = QListWidget()
        made.setAccessibleName(self.tr("Conversations"))
        made.setFrameShape(QFrame.Shape.NoFrame)
        made.setProperty("kind", "clear")
        made.setUniformItemSizes(True)  # else every row is measured after each change
        self._painter = RowPainter(made, self._context.history.folder)
        made.setItemDelegate(self._painter)
        made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        made.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        made.customContextMenuRequested.connect(self._menu)
        made.itemClicked.connect(self._chosen)
        made.itemActivated.connect(self._chosen)
        return made

    def shut_down(self) -> None:
        """Stop decoding small pictures."""
        self._painter.close()

    def _add_keys(self) -> None:
        """Let keys do in the list what its menu does."""
        for keys, do in (
            (QKeySequence.StandardKey.Delete, self._delete_current),
            ("F2", self._rename_current),
            (QKeySequence.StandardKey.Undo, self._restore_deleted),
        ):
            action = QAction(self.list)
            action.setShortcut(QKeySequence(keys))
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            action.triggered.connect(lambda _=False, do=do: do())
            self.list.addAction(action)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Go from the search to the list with Down, and clear the search with Esc."""
        if watched is not self.search or not isinstance(event, QKeyEvent):
            return super().eventFilter(watched, event)
        if event.type() is QEvent.Type.ShortcutOverride and event.key() == Qt.Key.Key_Escape:
            if self.search.text():
                event.accept()  # else Esc would stop the answer
                return True
        elif event.type() is QEvent.Type.KeyPress:
            if event.key() == Qt.Key.Key_Escape and self.search.text():
                self.search.clear()
                return True
            if event.key() == Qt.Key.Key_Down and self.list.count():
                if self.list.currentRow() < 0:
                    self.list.setCurrentRow(0)
                self.list.setFocus(Qt.FocusReason.TabFocusReason)
                return True
        return False

    def set_current(self, shown: int | None) -> None:
        """Highlight the conversation that is shown."""
        self._shown = shown
        if shown is None:
            self.list.clearSelection()
        elif shown in self._places:
            self.list.setCurrentRow(self._places[shown])

    def reload(self) -> None:
        """Read the list again. A long search goes on in a thread, and its result follows."""
        self._search_number += 1
        number, search = self._search_number, self.search.text()
        history = self._context.history
        try:
            rows = history.list_soon(search)
        except HistoryError as error:
            self._show([])
            self.failed.emit(error_text(error))
            return
        if rows is not None:
            self._show(rows)
            return
        assert history.folder is not None

        def failed(error: CogVLM2LiteError) -> None:
            if number == self._search_number:
                self.failed.emit(error_text(error))

        def found(rows: list[Summary]) -> None:
            if number == self._search_number:
                self._show(rows)

        stopped = lambda: number != self._search_number  # noqa: E731
        self._context.tasks.run(
            partial(search_file, history.folder, search, stopped), found, failed, self
        )

    def _show(self, rows: Sequence[Summary]) -> None:
        self._places = {row.id: place for place, row in enumerate(rows)}
        self.list.setUpdatesEnabled(False)
        # What is there already is used again: making an item costs more than changing one.
        have = self.list.count()
        while have > len(rows):
            have -= 1
            self.list.takeItem(have)
        for place, row in enumerate(rows):
            item = self.list.item(place) if place < have else None
            if isinstance(item, ConversationItem):
                item.show_row(row)
            else:
                self.list.addItem(ConversationItem(row))
        self.list.setUpdatesEnabled(True)
        self.list.clearSelection()
        self.list.setCurrentRow(self._places.get(self._shown, -1) if self._shown else -1)

    def delete(self, conversation_id: int) -> None:
        """Delete a conversation; the button below the list restores it."""
        if self._is_answering(conversation_id):
            self.failed.emit(
                self.tr("This conversation is still writing an answer. Stop it first.")
            )
            return
        if not self._guard(lambda: self._context.history.delete(conversation_id)):
            return
        self._deleted.append(conversation_id)
        self._show_undo()
        self.deleted.emit(conversation_id)
        self.reload()

    def export_to(self, conversation_id: int, target: Path) -> None:
        """Write a conversation to a new file, as Markdown if its name has no suffix.

        Raises HistoryError or SaveError.
        """
        write = self._exporting(conversation_id, Target(file=_with_suffix(target)))
        write()

    def export_soon(self, conversation_id: int, target: Target) -> None:
        """Do the same on a thread; `failed` reports an error."""
        saved = fill(
            self.tr("The conversation was saved as {file}."), file=escape_line(str(target.file))
        )
        try:
            write = self._exporting(conversation_id, target)
        except HistoryError as error:
            self.failed.emit(error_text(error))
            return
        self._context.tasks.run(write, lambda _: self.told.emit(saved), self._show_error, self)

    def _exporting(self, conversation_id: int, target: Target) -> Callable[[], None]:
        """Return the function that writes a conversation. Raises HistoryError."""
        history = self._context.history
        conversation = history.load(conversation_id)

        def write() -> None:
            picture = history.picture(conversation.picture) if conversation.picture else b""
            export(conversation, picture, target.file, target.how)

        return write

    def import_from(self, source: Path) -> None:
        """Import a conversation on a thread, and show it; `failed` reports an error."""
        history = self._context.history

        def read() -> tuple[Conversation, str]:
            taken = read_export(source)
            saved = history.save_picture(taken.picture) if taken.picture else ""
            return taken.conversation, saved

        def show(taken: tuple[Conversation, str]) -> None:
            foreign, saved = taken
            try:
                kept = history.import_conversation(foreign, saved=saved)
            except HistoryError as error:
                self.failed.emit(error_text(error))
                return
            self.reload()
            self.selected.emit(kept.id)

        self._context.tasks.run(read, show, self._show_error, self)

    def _show_error(self, error: CogVLM2LiteError) -> None:
        self.failed.emit(error_text(error))

    def _ask_for_import(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, self.tr("Import a conversation"), "", "JSON (*.json)"
        )
        if name:
            self.import_from(Path(name))

    def _chosen(self, item: QListWidgetItem) -> None:
        self.selected.emit(item.data(ID))

    def _menu(self, place: QPoint) -> None:
        item = self.list.itemAt(place)
        if item is None:
            return
        conversation_id = item.data(ID)
        menu = QMenu(self)
        rename = menu.addAction(
            self.tr("Rename"), partial(self._rename, conversation_id, item.text())
        )
        menu.addAction(self.tr("Pin or unpin"), partial(self._pin, conversation_id))
        menu.addAction(self.tr("Export…"), partial(self._export, conversation_id, item.text()))
        delete = menu.addAction(self.tr("Delete"), partial(self.delete, conversation_id))
        for action, keys in ((rename, "F2"), (delete, "Del")):
            action.setShortcut(QKeySequence(keys))  # only shown here; the list has the keys
            action.setShortcutVisibleInContextMenu(True)
        menu.exec(self.list.mapToGlobal(place))

    def _rename(self, conversation_id: int, title: str) -> None:
        text, sure = QInputDialog.getText(self, self.tr("Rename"), self.tr("Title"), text=title)
        if sure and text.strip():
            if self._guard(lambda: self._context.history.rename(conversation_id, text.strip())):
                self.renamed.emit(conversation_id, text.strip())
            self.reload()

    def _pin(self, conversation_id: int) -> None:
        history = self._context.history
        self._guard(lambda: history.pin(conversation_id, not history.load(conversation_id).pinned))
        self.reload()

    def _export(self, conversation_id: int, title: str) -> None:
        target = ask_for_target(
            self,
            self._context.settings,
            title=self.tr("Export the conversation"),
            name=title,
            kinds=KINDS,
        )
        if target is not None:
            self.export_soon(conversation_id, target)

    def _delete_current(self) -> None:
        """Delete the row with the focus, and show the one that takes its place."""
        row = self.list.currentRow()
        if row < 0:
            return
        before = len(self._deleted)
        self.delete(self.list.item(row).data(ID))
        if len(self._deleted) > before and self.list.count():
            row = min(row, self.list.count() - 1)
            self.list.setCurrentRow(row)
            self.selected.emit(self.list.item(row).data(ID))
        self.list.setFocus()

    def _rename_current(self) -> None:
        item = self.list.currentItem()
        if item is not None:
            self._rename(item.data(ID), item.text())

    def _restore_deleted(self) -> None:
        """Restore the conversation that was deleted last; the next call restores the one before."""
        if not self._deleted:
            return
        conversation_id = self._deleted[-1]
        if not self._guard(lambda: self._context.history.restore(conversation_id)):
            return
        self._deleted.pop()
        self._show_undo()
        self.reload()
        self.selected.emit(conversation_id)

    def _show_undo(self) -> None:
        count = len(self._deleted)
        text = self.tr("Undo delete")
        if count > 1:
            text = fill(self.tr("Undo delete ({count})"), count=count)
        self.undo.setText(text)
        self.undo.setAccessibleName(text)
        self.undo.setVisible(count > 0)

    def _guard(self, work: Callable[[], object]) -> bool:
        """Return True if `work` succeeded; emit the message of a HistoryError."""
        try:
            work()
        except HistoryError as error:
            self.failed.emit(error_text(error))
            return False
        return True


def _with_suffix(target: Path) -> Path:
    return target if target.suffix else target.with_suffix(".md")
