"""The banner above the question field: what happened, and a button for what helps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.announce import announce
from gui.flow import FlowLayout


class MessageKind(Enum):
    """How bad it is; the value is the `kind` that the stylesheet uses."""

    INFO = "notice"
    WARNING = "warning"
    ERROR = "error"


_LEAST_LETTERS = 40
"""The text has at least the width of so many letters, or the buttons are below it."""
_AROUND_TEXT = 130
"""Pixels of a row that the icon, the button that closes it, and the margins take."""
_ICONS = {MessageKind.INFO: "about", MessageKind.WARNING: "warning", MessageKind.ERROR: "warning"}


@dataclass(frozen=True, kw_only=True)
class _Message:
    text: str
    kind: MessageKind
    cause: str
    button: str
    memory: bool


class _Mark(QWidget):
    """A small icon in the colours that the theme has when it is painted."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self.setFixedSize(18, 18)

    def show_icon(self, name: str) -> None:
        """Show another icon."""
        self._name = name
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the icon."""
        with QPainter(self) as painter:
            theme.icon(self._name).paint(painter, self.rect())


class Banner(QWidget):
    """Messages of three kinds; the newest is shown, and it goes when its cause goes.

    shown    a message appeared
    restart  the user wants to start the engine, or to open the model, again
    memory   the user wants to choose another budget
    """

    shown = Signal()
    restart = Signal()
    memory = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._messages: list[_Message] = []
        self.frame = QFrame()
        row = QHBoxLayout(self.frame)
        row.setContentsMargins(12, 8, 8, 8)
        self._icon = _Mark()
        row.addWidget(self._icon)
        self._text = QLabel()
        self._text.setTextFormat(Qt.TextFormat.PlainText)  # a file name may look like HTML
        self._text.setWordWrap(True)
        self._texts = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._texts.addWidget(self._text, 1)
        row.addLayout(self._texts, 1)
        buttons = FlowLayout()
        self._texts.addLayout(buttons)
        self.memory_button = QPushButton(self.tr("Choose the memory"))
        self.memory_button.setAccessibleName(self.tr("Choose the memory"))
        self.memory_button.clicked.connect(self.memory)
        buttons.addWidget(self.memory_button)
        self.restart_button = QPushButton(self.tr("Restart"))
        self.restart_button.setAccessibleName(self.tr("Restart the engine"))
        self.restart_button.clicked.connect(self.restart)
        buttons.addWidget(self.restart_button)
        close = QToolButton()
        close.setIcon(theme.icon("close"))
        close.setProperty("kind", "quiet")
        close.setAccessibleName(self.tr("Close the message"))
        close.setToolTip(self.tr("Close the message"))
        close.clicked.connect(self.dismiss)
        row.addWidget(close)
        around = QVBoxLayout(self)
        around.setContentsMargins(24, 0, 24, 0)
        around.addWidget(self.frame)
        self.hide()

    @property
    def text(self) -> str:
        return self._text.text()

    def show_message(
        self,
        text: str,
        *,
        kind: MessageKind = MessageKind.ERROR,
        cause: str = "",
        restart: bool = False,
        again: bool = False,
        memory: bool = False,
    ) -> None:
        """Show a message. It replaces the one with the same cause.

        cause    a word for `clear`
        restart  show the button that restarts the engine
        again    show it as a button that tries to open the model again
        memory   show the button that leads to the budget
        """
        button = ("again" if again else "restart") if restart or again else ""
        message = _Message(text=text, kind=kind, cause=cause, button=button, memory=memory)
        if self._messages[-1:] == [message]:
            return
        self._messages = [m for m in self._messages if m.cause != cause]
        self._messages.append(message)
        self._draw()
        self.shown.emit()
        announce(self, text, urgent=kind is MessageKind.ERROR)

    def clear(self, *causes: str) -> None:
        """Remove the messages with these causes."""
        self._messages = [m for m in self._messages if m.cause not in causes]
        self._draw()

    def has(self, cause: str) -> bool:
        """Return whether there is a message with this cause."""
        return any(message.cause == cause for message in self._messages)

    def dismiss(self) -> None:
        """Remove the message that is shown; the one before is shown again."""
        self._messages = self._messages[:-1]
        self._draw()

    def _draw(self) -> None:
        if not self._messages:
            self.hide()
            return
        message = self._messages[-1]
        self._text.setText(message.text)
        name = self.tr("Try again") if message.button == "again" else self.tr("Restart")
        full = self.tr("Restart the engine") if message.button == "restart" else name
        self.restart_button.setText(name)
        self.restart_button.setAccessibleName(full)
        self.restart_button.setVisible(bool(message.button))
        self.memory_button.setVisible(message.memory)
        self._icon.show_icon(_ICONS[message.kind])
        if self.frame.property("kind") != message.kind.value:
            self.frame.setProperty("kind", message.kind.value)
            self.frame.style().unpolish(self.frame)
            self.frame.style().polish(self.frame)
        self.show()
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Put the buttons next to the text, or below it where that leaves little room."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        shown = [b for b in (self.memory_button, self.restart_button) if b.isVisibleTo(self)]
        taken = sum(button.sizeHint().width() for button in shown) + _AROUND_TEXT
        least = _LEAST_LETTERS * self.fontMetrics().averageCharWidth()
        direction = QBoxLayout.Direction
        narrow = bool(shown) and self.width() - taken < least
        self._texts.setDirection(direction.TopToBottom if narrow else direction.LeftToRight)
