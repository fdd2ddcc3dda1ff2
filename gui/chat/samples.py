"""The sample pictures of the demo model as buttons: each asks a question about its picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QIcon, QImage, QPixmap, QResizeEvent
from PySide6.QtWidgets import QGridLayout, QToolButton, QWidget

from cogvlm2_lite.demo.shipped import SamplePicture, sample_pictures
from cogvlm2_lite.errors import CogVLM2LiteError
from gui.context import Context
from gui.translation import is_chinese

_SIDE = 84
_COLUMN = 190
"""Least width of a column, in pixels; larger letters need more."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture, its small image, and a question about it."""

    path: Path
    image: QImage
    question: str


def read_samples(*, chinese: bool) -> list[Sample]:
    """Read the sample pictures, each with a question in this language. Raises CheckpointError."""
    return [
        Sample(
            path=picture.path,
            image=QImage(str(picture.path)).scaled(
                2 * _SIDE,
                2 * _SIDE,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            ),
            question=_question(picture, chinese=chinese),
        )
        for picture in sample_pictures()
    ]


def _question(picture: SamplePicture, *, chinese: bool) -> str:
    """Return the first question that needs no earlier one, in the language if there is one."""
    first = [asked.question for asked in picture.questions if not asked.history]
    return next((text for text in first if text.isascii() is not chinese), first[0])


class SampleGrid(QWidget):
    """A button for each sample picture.

    chosen  (path, question)
    """

    chosen = Signal(object, str)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.buttons: list[QToolButton] = []
        self._columns = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(8)
        chinese = is_chinese(context.settings.get("language"))
        work = partial(read_samples, chinese=chinese)
        context.tasks.run(work, self._show, self._leave_out, self)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Use as many columns as there is room for."""
        super().resizeEvent(event)
        self._place()

    def _show(self, samples: list[Sample]) -> None:
        for sample in samples:
            button = QToolButton()
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
            button.setIcon(QIcon(QPixmap.fromImage(sample.image)))
            button.setIconSize(QSize(_SIDE, _SIDE))
            button.setText(in_two_lines(sample.question))
            button.setSizePolicy(
                button.sizePolicy().Policy.Expanding, button.sizePolicy().Policy.Fixed
            )
            button.clicked.connect(partial(self.chosen.emit, sample.path, sample.question))
            self.buttons.append(button)
        self._columns = 0
        self._place()

    def _leave_out(self, error: CogVLM2LiteError) -> None:
        """Show nothing: this installation has no samples."""
        self.hide()

    def _place(self) -> None:
        if not self.buttons:
            return
        widest = max(_COLUMN, *(button.sizeHint().width() for button in self.buttons))
        room = self.width() + self._grid.spacing()
        fitting = room // (widest + self._grid.spacing())
        columns = 3 if fitting >= 3 else max(1, min(fitting, 2))
        if columns != self._columns:
            self._columns = columns
            for number, button in enumerate(self.buttons):
                self._grid.addWidget(button, number // columns, number % columns)


def in_two_lines(text: str) -> str:
    """Return a long text with a line break at the space that is nearest to its middle.

    Chinese, which has no spaces, is broken between two letters.
    """
    spaces = [at for at, letter in enumerate(text) if letter == " "]
    if not spaces and len(text) >= 8 and not text.isascii():
        middle = (len(text) + 1) // 2
        return f"{text[:middle]}\n{text[middle:]}"
    if len(text) < 20 or not spaces:
        return text
    at = min(spaces, key=lambda space: abs(2 * space - len(text)))
    return f"{text[:at]}\n{text[at + 1 :]}"
