"""The dialog that lists the keyboard shortcuts."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication, QSize, Qt
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFrame,
    QGridLayout,
    QLabel,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from gui.translatable import QT_TRANSLATE_NOOP


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A row of the list.

    keys   as QKeySequence reads them
    text   what they do
    shown  how they are shown, where that is shorter than all of them
    """

    keys: tuple[str, ...]
    text: str
    shown: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Keys that work in one place. title: where"""

    title: str
    rows: tuple[Keys, ...]


def _row(text: str, *keys: str, shown: str = "") -> Keys:
    return Keys(keys=keys, text=text, shown=shown)


WINDOW = Group(
    title=QT_TRANSLATE_NOOP("Keys", "Everywhere"),
    rows=(
        _row(
            QT_TRANSLATE_NOOP("Keys", "Show a page"),
            *(f"Alt+{number}" for number in range(1, 9)),
            shown="Alt+1 … Alt+8",
        ),
        _row(QT_TRANSLATE_NOOP("Keys", "Paste a picture or text"), "Ctrl+V"),
        _row(
            QT_TRANSLATE_NOOP("Keys", "Larger or smaller text"),
            "Ctrl++", "Ctrl+=", "Ctrl+-",
            shown="Ctrl++ / Ctrl+-",
        ),
        _row(QT_TRANSLATE_NOOP("Keys", "Text in its usual size"), "Ctrl+0"),
        _row(QT_TRANSLATE_NOOP("Keys", "Settings"), "Ctrl+,"),
        _row(QT_TRANSLATE_NOOP("Keys", "Show these shortcuts"), "F1"),
        _row(QT_TRANSLATE_NOOP("Keys", "Close a menu, settings or a question"), "Esc"),
        _row(QT_TRANSLATE_NOOP("Keys", "Quit"), "Ctrl+Q"),
    ),
)  # fmt: skip
CHAT = Group(
    title=QT_TRANSLATE_NOOP("Keys", "Chat"),
    rows=(
        _row(QT_TRANSLATE_NOOP("Keys", "Send the question"), "Enter"),
        _row(QT_TRANSLATE_NOOP("Keys", "New line"), "Shift+Enter"),
        _row(QT_TRANSLATE_NOOP("Keys", "Stop the answer, or close a message"), "Esc"),
        _row(QT_TRANSLATE_NOOP("Keys", "New conversation"), "Ctrl+N"),
        _row(QT_TRANSLATE_NOOP("Keys", "Open a picture"), "Ctrl+O"),
        _row(QT_TRANSLATE_NOOP("Keys", "Capture a part of the screen"), "Ctrl+Shift+S"),
        _row(QT_TRANSLATE_NOOP("Keys", "Answer again"), "Ctrl+R"),
        _row(QT_TRANSLATE_NOOP("Keys", "Copy the last answer"), "Ctrl+Shift+C"),
        _row(QT_TRANSLATE_NOOP("Keys", "Go to the question field"), "Ctrl+L"),
        _row(QT_TRANSLATE_NOOP("Keys", "Search in conversations"), "Ctrl+F"),
    ),
)
LIST = Group(
    title=QT_TRANSLATE_NOOP("Keys", "List of conversations"),
    rows=(
        _row(QT_TRANSLATE_NOOP("Keys", "From the search to the list"), "Down"),
        _row(QT_TRANSLATE_NOOP("Keys", "Clear the search"), "Esc"),
        _row(QT_TRANSLATE_NOOP("Keys", "Rename the conversation"), "F2"),
        _row(QT_TRANSLATE_NOOP("Keys", "Delete the conversation"), "Del"),
        _row(QT_TRANSLATE_NOOP("Keys", "Restore the deleted conversation"), "Ctrl+Z"),
    ),
)
PICTURE = Group(
    title=QT_TRANSLATE_NOOP("Keys", "The picture, after a click on it"),
    rows=(
        _row(QT_TRANSLATE_NOOP("Keys", "Larger or smaller"), "+", "=", "-", "_", shown="+ / -"),
        _row(QT_TRANSLATE_NOOP("Keys", "Fit the whole picture"), "0"),
        _row(QT_TRANSLATE_NOOP("Keys", "100 %: a pixel is a pixel of the screen"), "1"),
        _row(
            QT_TRANSLATE_NOOP("Keys", "Move the picture"),
            "Left", "Right", "Up", "Down",
            shown="← → ↑ ↓",
        ),
        _row(QT_TRANSLATE_NOOP("Keys", "Up by a screen"), "PgUp"),
        _row(QT_TRANSLATE_NOOP("Keys", "Down by a screen"), "PgDown", "Space"),
        _row(QT_TRANSLATE_NOOP("Keys", "To the upper left corner, or to the lower edge"),
             "Home", "End"),
        _row(QT_TRANSLATE_NOOP("Keys", "The whole screen, or back"), "F", "F11"),
        _row(QT_TRANSLATE_NOOP("Keys", "Begin a rectangle, to ask about a part"), "P"),
        _row(
            QT_TRANSLATE_NOOP("Keys", "Move the rectangle; with Ctrl by one pixel"),
            "Left", "Right", "Up", "Down", "Ctrl+Left", "Ctrl+Right", "Ctrl+Up", "Ctrl+Down",
            shown="← → ↑ ↓",
        ),
        _row(
            QT_TRANSLATE_NOOP("Keys", "Change its size; with Ctrl by one pixel"),
            "Shift+Left", "Shift+Right", "Shift+Up", "Shift+Down",
            "Ctrl+Shift+Left", "Ctrl+Shift+Right", "Ctrl+Shift+Up", "Ctrl+Shift+Down",
            shown="Shift+← → ↑ ↓",
        ),
        _row(QT_TRANSLATE_NOOP("Keys", "Ask about the part in the rectangle"), "Enter"),
        _row(
            QT_TRANSLATE_NOOP("Keys", "Cancel the rectangle, or leave the whole screen"), "Esc"
        ),
    ),
)  # fmt: skip
CAPTURE = Group(
    title=QT_TRANSLATE_NOOP("Keys", "While a part of the screen is captured"),
    rows=(
        _row(QT_TRANSLATE_NOOP("Keys", "Capture the whole screen"), "Enter"),
        _row(QT_TRANSLATE_NOOP("Keys", "Cancel"), "Esc"),
    ),
)
EDITING = Group(
    title=QT_TRANSLATE_NOOP("Keys", "While a question or a batch answer is changed"),
    rows=(
        _row(QT_TRANSLATE_NOOP("Keys", "Begin, in the table of answers"), "F2"),
        _row(QT_TRANSLATE_NOOP("Keys", "Ask the changed question, or save the answer"), "Enter"),
        _row(QT_TRANSLATE_NOOP("Keys", "New line"), "Shift+Enter"),
        _row(QT_TRANSLATE_NOOP("Keys", "Leave it as it was"), "Esc"),
    ),
)
GROUPS = (WINDOW, CHAT, LIST, PICTURE, CAPTURE, EDITING)


class ShortcutDialog(QDialog):
    """All keyboard shortcuts of the window."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(QCoreApplication.translate("Keys", "Keyboard shortcuts"))
        column = QVBoxLayout(self)
        self.area = QScrollArea()
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setProperty("kind", "clear")
        self.area.setWidgetResizable(True)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setAccessibleName(self.windowTitle())
        self.area.setWidget(_list())
        column.addWidget(self.area, 1)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        column.addWidget(buttons)
        self._set_size()

    def _set_size(self) -> None:
        """Show the list in its whole width, and of its length what the screen has room for."""
        letters = self.fontMetrics().averageCharWidth()
        around = QSize(24, 0) + QSize(self.area.verticalScrollBar().sizeHint().width(), 0)
        wanted = QSize(62 * letters, 44 * self.fontMetrics().lineSpacing()) + around
        self.resize(wanted.boundedTo(self.screen().availableSize() * 0.85))


def _list() -> QWidget:
    made = QWidget()
    grid = QGridLayout(made)
    grid.setHorizontalSpacing(32)
    grid.setColumnStretch(1, 1)
    for group in GROUPS:
        title = QLabel(QCoreApplication.translate("Keys", group.title))
        title.setProperty("kind", "heading")
        title.setWordWrap(True)
        title.setContentsMargins(0, 12 if grid.count() else 0, 0, 0)
        grid.addWidget(title, grid.rowCount(), 0, 1, 2)
        for row in group.rows:
            at = grid.rowCount()
            keys = QLabel(row.shown or " / ".join(row.keys))
            text = QLabel(QCoreApplication.translate("Keys", row.text))
            text.setWordWrap(True)
            grid.addWidget(keys, at, 0, Qt.AlignmentFlag.AlignTop)
            grid.addWidget(text, at, 1, Qt.AlignmentFlag.AlignTop)
    grid.setRowStretch(grid.rowCount(), 1)
    return made
