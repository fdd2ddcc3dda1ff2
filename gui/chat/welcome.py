"""The text for an empty conversation, and the banner for messages."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme


class Welcome(QWidget):
    """The first steps for a new user, or a hint once a model is open.

    demo, folder, convert  the user chose this step
    """

    demo = Signal()
    folder = Signal()
    convert = Signal()

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.addStretch(1)
        title = theme.Title(self.tr("Ask about a picture"))
        title.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column.addWidget(title)
        self._text = QLabel()
        self._text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._text.setWordWrap(True)
        self._text.setProperty("kind", "soft")
        column.addWidget(self._text)
        column.addSpacing(12)
        self._steps = QWidget()
        steps = QVBoxLayout(self._steps)
        self.demo_button = self._step(steps, self.tr("Try the small demo model"), self.demo.emit)
        self.demo_button.setProperty("kind", "main")
        self._step(steps, self.tr("Open a model folder"), self.folder.emit)
        self._step(steps, self.tr("Convert a downloaded checkpoint"), self.convert.emit)
        column.addWidget(self._steps)
        column.addStretch(1)

    def show_model(self, opened: bool) -> None:
        """Show the first steps, or the hint if a model is open."""
        self._steps.setVisible(not opened)
        self._text.setText(
            self.tr("Drop a picture on the right and write a question below.")
            if opened
            else self.tr("Everything stays on this computer. First choose a model.")
        )

    def _step(self, column: QVBoxLayout, text: str, do: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.setAccessibleName(text)
        button.setMinimumWidth(280)
        button.clicked.connect(lambda: do())
        column.addWidget(button, alignment=Qt.AlignmentFlag.AlignHCenter)
        return button


class Banner(QWidget):
    """A message above the composer, with a button that restarts the engine where that helps.

    restart  the user wants to restart the engine
    """

    restart = Signal()

    def __init__(self) -> None:
        super().__init__()
        frame = QFrame()
        frame.setProperty("kind", "error")
        row = QHBoxLayout(frame)
        row.setContentsMargins(12, 8, 8, 8)
        self._text = QLabel()
        self._text.setTextFormat(Qt.TextFormat.PlainText)  # a file name may look like HTML
        self._text.setWordWrap(True)
        row.addWidget(self._text, 1)
        self.restart_button = QPushButton(self.tr("Restart"))
        self.restart_button.setAccessibleName(self.tr("Restart the engine"))
        self.restart_button.clicked.connect(self.restart)
        row.addWidget(self.restart_button)
        close = QToolButton()
        close.setIcon(theme.icon("close"))
        close.setProperty("kind", "quiet")
        close.setAccessibleName(self.tr("Close the message"))
        close.setToolTip(self.tr("Close the message"))
        close.clicked.connect(self.hide)
        row.addWidget(close)
        around = QVBoxLayout(self)
        around.setContentsMargins(24, 0, 24, 0)
        around.addWidget(frame)
        self.hide()

    @property
    def text(self) -> str:
        return self._text.text()

    def show_message(self, text: str, *, restart: bool = False) -> None:
        """Show a message. restart: show the button that restarts the engine."""
        self._text.setText(text)
        self.restart_button.setVisible(restart)
        self.show()
