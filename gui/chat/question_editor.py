"""The field in which a question that was asked is changed, inside its bubble."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QKeyEvent, QTextCursor
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from gui.translation import fill

_FEWEST_LINES, _MOST_LINES = 2, 12


class QuestionEditor(QWidget):
    """A text field with "Ask" and "Cancel". Enter asks, Shift+Enter starts a line, Esc cancels.

    asked      (text)
    cancelled  the question is to stay as it is
    changed    the text changed
    grown      the height changed
    """

    asked = Signal(str)
    cancelled = Signal()
    changed = Signal()
    grown = Signal()

    def __init__(self, text: str, later: int, parent: QWidget | None = None) -> None:
        """Make the editor. later: the number of questions that followed this one."""
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 4)
        column.setSpacing(6)
        self.text = QPlainTextEdit(text)
        self.text.setAccessibleName(self.tr("Change the question"))
        self.text.setTabChangesFocus(True)
        self.text.installEventFilter(self)
        self.text.textChanged.connect(self._text_changed)
        column.addWidget(self.text)
        self.note = QLabel()
        self.note.setProperty("kind", "soft")
        self.note.setWordWrap(True)
        texts = {1: self.tr("The later question stays with the version before this one.")}
        several = self.tr("The {count} later questions stay with the version before this one.")
        self.note.setText(texts.get(later, fill(several, count=later)))
        column.addWidget(self.note)
        self.note.setVisible(later > 0)
        row = QHBoxLayout()
        row.addStretch(1)
        self.cancel_button = QPushButton(self.tr("Cancel"))
        self.cancel_button.clicked.connect(self.cancelled)
        self.ask_button = QPushButton(self.tr("Ask"))
        self.ask_button.setProperty("kind", "main")
        self.ask_button.clicked.connect(self._ask)
        row.addWidget(self.cancel_button)
        row.addWidget(self.ask_button)
        column.addLayout(row)
        self._set_height()

    def begin(self) -> None:
        """Focus the end of the text."""
        self.text.moveCursor(QTextCursor.MoveOperation.End)
        self.text.setFocus()

    @property
    def focus_chain(self) -> list[QWidget]:
        """The widgets that Tab reaches, in order."""
        return [self.text, self.cancel_button, self.ask_button]

    def _ask(self) -> None:
        text = self.text.toPlainText().strip()
        if text:
            self.asked.emit(text)

    def _text_changed(self) -> None:
        self.ask_button.setEnabled(bool(self.text.toPlainText().strip()))
        self._set_height()
        self.changed.emit()

    def _set_height(self) -> None:
        document = self.text.document()
        lines = min(max(round(document.size().height()), _FEWEST_LINES), _MOST_LINES)
        high = lines * self.text.fontMetrics().lineSpacing() + 2 * round(document.documentMargin())
        high += 14  # padding and border of the style
        if high != self.text.height():
            self.text.setFixedHeight(high)
            self.grown.emit()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Ask with Enter and cancel with Esc."""
        if watched is self.text and isinstance(event, QKeyEvent):
            if event.type() is QEvent.Type.ShortcutOverride and event.key() == Qt.Key.Key_Escape:
                event.accept()  # else Esc would stop the running answer
                return True
            if event.type() is not QEvent.Type.KeyPress:
                return False
            if event.key() == Qt.Key.Key_Escape:
                self.cancelled.emit()
                return True
            broken = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not broken:
                self._ask()
                return True
        return super().eventFilter(watched, event)
