"""Preset questions: the built-in ones, and those that the user saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QTextCursor
from PySide6.QtWidgets import QMenu, QPlainTextEdit, QToolButton

from gui import theme
from gui.data.settings import Preferences
from gui.translatable import QT_TRANSLATE_NOOP

PRESETS = (
    (
        QT_TRANSLATE_NOOP("Presets", "Describe"),
        QT_TRANSLATE_NOOP("Presets", "Describe this image in detail."),
    ),
    (
        QT_TRANSLATE_NOOP("Presets", "Read all text"),
        QT_TRANSLATE_NOOP("Presets", "Read all text in this image and write it as Markdown."),
    ),
    (
        QT_TRANSLATE_NOOP("Presets", "Table to CSV"),
        QT_TRANSLATE_NOOP("Presets", "Write the table in this image as CSV."),
    ),
    (
        QT_TRANSLATE_NOOP("Presets", "Fields as JSON"),
        QT_TRANSLATE_NOOP("Presets", "Extract all fields of this document as JSON."),
    ),
    (
        QT_TRANSLATE_NOOP("Presets", "Explain the chart"),
        QT_TRANSLATE_NOOP("Presets", "Explain what this chart shows."),
    ),
    (
        QT_TRANSLATE_NOOP("Presets", "Translate"),
        QT_TRANSLATE_NOOP("Presets", "Translate all text in this image into English."),
    ),
)


def put_question(field: QPlainTextEdit, question: str) -> None:
    """Put a question into a field in one step that can be undone.

    A preset that is there is replaced; a text that the user wrote stays above.
    """
    own = field.toPlainText()
    presets = {"", *(_translate(text) for _, text in PRESETS), question}
    cursor = QTextCursor(field.document())
    if own.strip() in presets:
        cursor.select(QTextCursor.SelectionType.Document)
    else:
        cursor.movePosition(QTextCursor.MoveOperation.End)
        question = question if own.endswith("\n") else f"\n{question}"
    cursor.insertText(question)
    field.moveCursor(QTextCursor.MoveOperation.End)
    field.setFocus()


class PresetButton(QToolButton):
    """A button with a menu of questions.

    use      called with the chosen question
    current  returns the text of the question field, to save it as a preset
    """

    def __init__(
        self, settings: Preferences, use: Callable[[str], None], current: Callable[[], str]
    ) -> None:
        super().__init__()
        self._settings, self._use, self._current = settings, use, current
        self.setIcon(theme.icon("presets"))
        self.setText(QCoreApplication.translate("Presets", "Presets"))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setProperty("kind", "quiet")
        self.setAccessibleName(QCoreApplication.translate("Presets", "Question presets"))
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self)
        menu.aboutToShow.connect(partial(self._fill, menu))
        self.setMenu(menu)
        self._fill(menu)

    def _fill(self, menu: QMenu) -> None:
        """Fill the menu each time it opens: another page may have saved a question."""
        menu.clear()
        for name, text in PRESETS:
            menu.addAction(_translate(name), partial(self._use, _translate(text)))
        own = self._settings.get("presets")
        if own:
            menu.addSeparator()
        for question in own:
            menu.addAction(question[:50], partial(self._use, question))
        menu.addSeparator()
        menu.addAction(
            QCoreApplication.translate("Presets", "Save this question as a preset"), self.save
        )

    def save(self) -> None:
        """Save the question in the field as a preset."""
        question, own = self._current().strip(), self._settings.get("presets")
        if question and question not in own:
            self._settings.set("presets", [*own, question])


def _translate(text: str) -> str:
    return QCoreApplication.translate("Presets", text)
