"""The question about the user's text files that a batch would overwrite."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QFrame, QLabel, QPushButton, QVBoxLayout

from cogvlm2_lite.batch.texts import Existing
from cogvlm2_lite.file_names import escape_line
from gui.announce import announce
from gui.flow import FlowLayout
from gui.translation import fill


class OwnFilesQuestion(QFrame):
    """The question in the page, above the table, until it is answered. It blocks nothing.

    answered      (Existing)
    other_folder  the answers are to be written somewhere else
    cancelled     nothing is to be started
    """

    answered = Signal(object)
    other_folder = Signal()
    cancelled = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("kind", "notice")
        column = QVBoxLayout(self)
        self.text = QLabel()
        self.text.setTextFormat(Qt.TextFormat.PlainText)  # a folder's name may look like HTML
        self.text.setWordWrap(True)
        column.addWidget(self.text)
        row = FlowLayout()
        column.addLayout(row)
        self.buttons: dict[Existing, QPushButton] = {}
        for existing, text, help_ in (
            (
                Existing.KEEP,
                self.tr("Keep them"),
                self.tr("The answers are in answers.jsonl and in the table only"),
            ),
            (Existing.APPEND, self.tr("Add at their end"), ""),
            (Existing.PREPEND, self.tr("Add at their start"), ""),
            (Existing.OVERWRITE, self.tr("Replace them"), ""),
            (
                Existing.SKIP,
                self.tr("Skip their pictures"),
                self.tr("Nothing is asked about pictures that have such a file"),
            ),
        ):
            button = QPushButton(text)
            button.setToolTip(help_)
            button.clicked.connect(partial(self._answer, existing))
            row.addWidget(button)
            self.buttons[existing] = button
        self.folder_button = QPushButton(self.tr("Other folder…"))
        self.folder_button.clicked.connect(self.other_folder)
        row.addWidget(self.folder_button)
        self.cancel_button = QPushButton(self.tr("Cancel"))
        self.cancel_button.clicked.connect(self._cancel)
        row.addWidget(self.cancel_button)
        self.hide()

    def ask(self, count: int, folder: str, before: Existing) -> None:
        """Ask about so many files.

        before  the answer that was given last; its button has the focus
        """
        one = self.tr(
            "1 text file in {folder} is yours: this program did not write it, or it was edited "
            "since. What should happen to it?"
        )
        more = self.tr(
            "{count} text files in {folder} are yours: this program did not write them, or they "
            "were edited since. What should happen to them?"
        )
        text = fill(one if count == 1 else more, count=count, folder=escape_line(folder))
        self.text.setText(text)
        self.show()
        self.buttons[before].setFocus(Qt.FocusReason.OtherFocusReason)
        announce(self, text)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Cancel with Esc."""
        if event.key() == Qt.Key.Key_Escape:
            self._cancel()
        else:
            super().keyPressEvent(event)

    def _answer(self, existing: Existing) -> None:
        self.hide()
        self.answered.emit(existing)

    def _cancel(self) -> None:
        self.hide()
        self.cancelled.emit()
