"""The dialog that lists the keyboard shortcuts."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QDialog, QDialogButtonBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from gui.translatable import QT_TRANSLATE_NOOP

KEYS = (
    ("Enter", QT_TRANSLATE_NOOP("Keys", "Send the question")),
    ("Shift+Enter", QT_TRANSLATE_NOOP("Keys", "New line")),
    ("Esc", QT_TRANSLATE_NOOP("Keys", "Stop the answer, or close a message")),
    ("Ctrl+N", QT_TRANSLATE_NOOP("Keys", "New conversation")),
    ("Ctrl+O", QT_TRANSLATE_NOOP("Keys", "Open a picture")),
    ("Ctrl+Shift+S", QT_TRANSLATE_NOOP("Keys", "Capture a part of the screen")),
    ("Ctrl+V", QT_TRANSLATE_NOOP("Keys", "Paste a picture or text")),
    ("Ctrl+R", QT_TRANSLATE_NOOP("Keys", "Answer again")),
    ("Ctrl+Shift+C", QT_TRANSLATE_NOOP("Keys", "Copy the last answer")),
    ("Ctrl+F", QT_TRANSLATE_NOOP("Keys", "Search in conversations")),
    ("Down", QT_TRANSLATE_NOOP("Keys", "From the search to the list")),
    ("F2", QT_TRANSLATE_NOOP("Keys", "Rename the conversation in the list")),
    ("Del", QT_TRANSLATE_NOOP("Keys", "Delete the conversation in the list")),
    ("Ctrl+Z", QT_TRANSLATE_NOOP("Keys", "Restore the deleted conversation, in the list")),
    ("Ctrl+L", QT_TRANSLATE_NOOP("Keys", "Go to the question field")),
    ("Alt+1 … Alt+6", QT_TRANSLATE_NOOP("Keys", "Show a page")),
    ("Ctrl++ / Ctrl+-", QT_TRANSLATE_NOOP("Keys", "Larger or smaller text")),
    ("Ctrl+,", QT_TRANSLATE_NOOP("Keys", "Settings")),
    ("F1", QT_TRANSLATE_NOOP("Keys", "Show these shortcuts")),
    ("Ctrl+Q", QT_TRANSLATE_NOOP("Keys", "Quit")),
)


class ShortcutDialog(QDialog):
    """All keyboard shortcuts of the window."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(QCoreApplication.translate("Keys", "Keyboard shortcuts"))
        column = QVBoxLayout(self)
        form = QFormLayout()
        form.setHorizontalSpacing(32)
        for keys, text in KEYS:
            label = QLabel(keys)
            label.setProperty("kind", "heading")
            form.addRow(label, QLabel(QCoreApplication.translate("Keys", text)))
        column.addLayout(form)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        column.addWidget(buttons)
