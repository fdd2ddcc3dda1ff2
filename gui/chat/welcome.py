"""The page of an empty conversation with the first steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QFrame,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.chat.samples import SampleGrid
from gui.context import Context, is_demo


class Welcome(QScrollArea):
    """The first steps for a new user; later the sample pictures, and a hint.

    demo, folder, convert, memory  the user chose this step
    sample                         (path, question) the user chose a sample picture
    """

    demo = Signal()
    folder = Signal()
    convert = Signal()
    memory = Signal()
    sample = Signal(object, str)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setProperty("kind", "clear")
        self.setAccessibleName(self.tr("First steps"))
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(24, 20, 24, 20)
        column.setSpacing(10)
        column.addStretch(1)
        title = theme.Title(self.tr("Ask about a picture"))
        title.setAlignment(Qt.AlignmentFlag.AlignCenter)
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
        self._steps.setVisible(folder is None)
        self.knows.setVisible(small)
        self._real.setVisible(small)
        self._text.setText(
            self.tr("Everything stays on this computer. First choose a model.")
            if folder is None
            else self.tr("Drop a picture anywhere in this window and write a question below.")
        )

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
        column.addWidget(button, alignment=Qt.AlignmentFlag.AlignHCenter)
        return button
