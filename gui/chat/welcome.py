"""The page of an empty conversation with the first steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.chat.samples import SampleGrid, in_two_lines
from gui.context import Context, is_demo

_MARGIN = 24
_AROUND_TEXT = 40
"""Pixels of a button that its edge and padding take."""


class Welcome(QScrollArea):
    """The first steps for a new user; later the sample pictures, and a hint.

    demo, folder, convert, memory  the user chose this step
    sample                         (path, question) the user chose a sample picture
    left                           the button that has the focus is about to be hidden
    """

    demo = Signal()
    folder = Signal()
    convert = Signal()
    memory = Signal()
    sample = Signal(object, str)
    left = Signal()

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._buttons: list[QPushButton] = []
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setProperty("kind", "clear")
        self.setAccessibleName(self.tr("First steps"))
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(_MARGIN, 20, _MARGIN, 20)
        column.setSpacing(10)
        column.addStretch(1)
        title = theme.Title(self.tr("Ask about a picture"))
        title.setAlignment(Qt.AlignmentFlag.AlignCenter)
        title.setWordWrap(True)
        column.addWidget(title)
        self._text = self._label(column, "soft", centred=True)
        self._steps = QWidget()
        steps = QVBoxLayout(self._steps)
        self.demo_button = self._step(steps, self.tr("Try the small demo model"), self.demo.emit)
        self.demo_button.setProperty("kind", "main")
        self._step(steps, self.tr("Open a model folder"), self.folder.emit)
        column.addWidget(self._steps)
        self._demo_title = self._label(column, "heading")
        self._demo_title.setText(self.tr("Try it with a sample picture"))
        self.knows = self._label(column, "soft")
        self.knows.setText(
            self.tr(
                "The demo model (11 MB) is part of this program. It knows only drawn pictures "
                "like these: flat shapes, signs with capital letters or digits, and bar charts, "
                "in English and Chinese. About photographs and everything else its answers are "
                "wrong."
            )
        )
        self.samples = SampleGrid(context)
        self.samples.chosen.connect(self.sample)
        column.addWidget(self.samples)
        self._real = QWidget()
        real = QVBoxLayout(self._real)
        real.setContentsMargins(0, 8, 0, 0)
        self._label(real, "heading").setText(self.tr("The real model: CogVLM2 19B"))
        self.get = self._label(real, "soft")
        self.get.setText(
            self.tr(
                "It reads photographs, documents and diagrams. Download the folder "
                "cogvlm2-llama3-chat-19B (English) or cogvlm2-llama3-chinese-chat-19B (English "
                "and Chinese), 39 GB, for example from the pages of THUDM on Hugging Face or "
                "ModelScope. This program downloads nothing. Then convert the folder once to "
                "4 bits (12 GB) on the page Convert. The page Memory shows how it would run on "
                "this computer, without the download."
            )
        )
        self.get.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self._step(real, self.tr("Convert a downloaded checkpoint"), self.convert.emit)
        self._step(real, self.tr("See what it needs on this computer"), self.memory.emit)
        column.addWidget(self._real)
        column.addStretch(1)
        self.setWidget(body)

    def show_model(self, folder: Path | None) -> None:
        """Show the first steps, or what the open model can do. folder: None without a model"""
        small = folder is None or is_demo(folder)
        focused = QApplication.focusWidget()
        if folder is not None and focused is not None and self._steps.isAncestorOf(focused):
            self.left.emit()  # Qt would focus the next button, and scroll to it
        self._steps.setVisible(folder is None)
        self.knows.setVisible(small)
        self._real.setVisible(small)
        self._text.setText(
            self.tr("Everything stays on this computer. First choose a model.")
            if folder is None
            else self.tr("Drop a picture anywhere in this window and write a question below.")
        )

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Fit the buttons to the width."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Fit the buttons to the letters."""
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self._fit()

    def _fit(self) -> None:
        """Break the texts of buttons that are too wide: the page can't be scrolled sideways."""
        room = self.viewport().width() - 2 * _MARGIN
        for button in self._buttons:
            text = button.accessibleName()
            fits = self.fontMetrics().horizontalAdvance(text) + _AROUND_TEXT <= room
            button.setText(text if fits else in_two_lines(text))

    def scroll_to_top(self) -> None:
        """Show the first lines."""
        self.verticalScrollBar().setValue(0)

    def _label(self, column: QVBoxLayout, kind: str, *, centred: bool = False) -> QLabel:
        label = QLabel()
        label.setWordWrap(True)
        label.setProperty("kind", kind)
        label.setTextFormat(Qt.TextFormat.PlainText)
        if centred:
            label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column.addWidget(label)
        return label

    def _step(self, column: QVBoxLayout, text: str, do: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.setAccessibleName(text)
        button.setMinimumWidth(280)
        button.clicked.connect(lambda: do())
        self._buttons.append(button)
        column.addWidget(button, alignment=Qt.AlignmentFlag.AlignHCenter)
        return button
