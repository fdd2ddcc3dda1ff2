"""Several files at once: the choice in the composer, and a conversation for each picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QToolButton, QVBoxLayout

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import escape_line
from gui import theme
from gui.background.decoder import decode
from gui.chat.chip import plain_label
from gui.chat.dropped import read_file
from gui.flow import FlowLayout
from gui.translation import error_text, fill

MOST_CONVERSATIONS = 20
"""With more files, only a batch is offered and not one conversation for each."""


@dataclass(frozen=True, kw_only=True)
class ReadPictures:
    """Pictures as (name, name in the history), and an error message for each other file."""

    pictures: tuple[tuple[str, str], ...]
    errors: tuple[str, ...]


def read_pictures(files: Sequence[Path], save: Callable[[bytes], str]) -> ReadPictures:
    """Read files, decode each in a child process to check that it is a picture, and save them.

    save  saves the bytes of a picture file and returns its name in the history
    """
    pictures: list[tuple[str, str]] = []
    errors: list[str] = []
    for file in files:
        try:
            data = read_file(file)
            decode(data)
            saved = save(data)
        except CogVLM2LiteError as error:
            name = escape_line(file.name)
            named = "" if name in error.message else f"{name}: "
            errors.append(f"{named}{error_text(error)}")
        else:
            pictures.append((file.name, saved))
    return ReadPictures(pictures=tuple(pictures), errors=tuple(errors))


class SeveralFiles(QFrame):
    """The choice after several files were given: the model takes one picture per conversation.

    each   (paths) one conversation for each
    batch  (paths) one question about all of them
    """

    each = Signal(list)
    batch = Signal(list)

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("kind", "notice")
        self._files: list[Path] = []
        column = QVBoxLayout(self)
        column.setContentsMargins(10, 6, 8, 6)
        column.setSpacing(4)
        head, row = QHBoxLayout(), FlowLayout()
        self.text = plain_label()
        self.text.setWordWrap(True)
        head.addWidget(self.text, 1)
        close = QToolButton()
        close.setIcon(theme.icon("close"))
        close.setProperty("kind", "quiet")
        close.setToolTip(self.tr("Use none of them"))
        close.setAccessibleName(self.tr("Use none of them"))
        close.clicked.connect(self.hide)
        head.addWidget(close)
        self.each_button = QPushButton(self.tr("One conversation for each"))
        self.each_button.clicked.connect(lambda: self._choose(self.each.emit))
        self.batch_button = QPushButton(self.tr("One question about all of them"))
        self.batch_button.clicked.connect(lambda: self._choose(self.batch.emit))
        for button in (self.each_button, self.batch_button):
            button.setAccessibleName(button.text())
            row.addWidget(button)
        column.addLayout(head)
        column.addLayout(row)
        self.hide()

    def show_files(self, files: Sequence[Path]) -> None:
        """Ask what to do with several files."""
        self._files = list(files)
        text = self.tr("{count} files. The model takes one picture per conversation.")
        self.text.setText(fill(text, count=len(files)))
        self.each_button.setVisible(len(files) <= MOST_CONVERSATIONS)
        self.show()

    def _choose(self, choose: Callable[[list[Path]], object]) -> None:
        self.hide()
        choose(self._files)
