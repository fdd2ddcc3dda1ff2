"""What the composer shows of the picture for the next question."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QPixmap, QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.background.attachments import Attachment, AttachmentState
from gui.chat.drafts import Draft
from gui.translation import fill, translate

_SIDE = 40
_AROUND_TEXT = 120
"""Pixels of a row that the image, the button and the margins take."""
_NARROW_LETTERS = 52
"""Below the width of so many letters, the choice is in a column."""


class Spinner(QWidget):
    """An arc that turns while something is being read."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedSize(_SIDE, _SIDE)
        self._angle = 0
        self._timer = QTimer(self)
        self._timer.setInterval(80)
        self._timer.timeout.connect(self._turn)

    def set_running(self, running: bool) -> None:
        """Start or stop turning."""
        if running:
            self._timer.start()
        else:
            self._timer.stop()

    def _turn(self) -> None:
        self._angle = (self._angle - 30) % 360
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the arc."""
        with QPainter(self) as painter:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(QColor(theme.current().accent), 3))
            painter.drawArc(QRectF(9, 9, _SIDE - 18, _SIDE - 18), 16 * self._angle, 16 * 270)


class PictureChip(QFrame):
    """The picture for the next question.

    removed    the user removed it
    undone     the user wants the picture back that it replaced
    new_chosen (bool) a second picture starts a new conversation, or is asked about in this one
    """

    removed = Signal()
    undone = Signal()
    new_chosen = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("kind", "notice")
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(4)
        row = QHBoxLayout()
        row.setSpacing(8)
        self._spinner, self.thumbnail = Spinner(), QLabel()
        self.thumbnail.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._left = QStackedWidget()
        self._left.setFixedSize(_SIDE, _SIDE)
        self._left.addWidget(self._spinner)
        self._left.addWidget(self.thumbnail)
        row.addWidget(self._left)
        texts = QVBoxLayout()
        texts.setSpacing(0)
        self.name, self.text = plain_label(), plain_label()
        self.name.setProperty("kind", "heading")
        self.name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.text.setWordWrap(True)
        texts.addWidget(self.name)
        texts.addWidget(self.text)
        row.addLayout(texts, 1)
        self.undo = _quiet_button(self.tr("Undo"), self.undone.emit)
        texts.addWidget(self.undo, alignment=Qt.AlignmentFlag.AlignLeft)
        self.remove_button = QToolButton()
        self.remove_button.setIcon(theme.icon("close"))
        self.remove_button.setProperty("kind", "quiet")
        self.remove_button.setToolTip(self.tr("Remove the picture"))
        self.remove_button.setAccessibleName(self.tr("Remove the picture"))
        self.remove_button.clicked.connect(self.removed)
        row.addWidget(self.remove_button, alignment=Qt.AlignmentFlag.AlignTop)
        column.addLayout(row)
        column.addWidget(self._make_choice())
        self.hide()

    def _make_choice(self) -> QWidget:
        self.choice = QWidget()
        self._choices = row = QHBoxLayout(self.choice)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        label = QLabel(self.tr("Ask about it in"))
        label.setProperty("kind", "soft")
        row.addWidget(label)
        self.new_button = QToolButton()
        self.new_button.setText(self.tr("a new conversation"))
        self.here_button = QToolButton()
        self.here_button.setText(self.tr("this conversation"))
        self.here_button.setToolTip(
            self.tr("The earlier answers stay, although they are about the other picture.")
        )
        group = QButtonGroup(self.choice)
        for button in (self.new_button, self.here_button):
            button.setCheckable(True)
            button.setProperty("kind", "choice")
            button.setAccessibleName(f"{label.text()} {button.text()}")
            group.addButton(button)
            row.addWidget(button)
        self.new_button.clicked.connect(lambda: self.new_chosen.emit(True))
        self.here_button.clicked.connect(lambda: self.new_chosen.emit(False))
        row.addStretch(1)
        return self.choice

    def show_draft(self, draft: Draft, *, new: bool) -> None:
        """Show the given picture of a draft. new: a second picture starts a new conversation."""
        given, replaced = draft.given, draft.replaced
        self.setVisible(given is not None or replaced is not None)
        failed = given is not None and given.state is AttachmentState.FAILED
        self.choice.setVisible(draft.is_second and not failed)
        (self.new_button if new else self.here_button).setChecked(True)
        self.undo.setVisible(replaced is not None)
        self._left.setVisible(given is not None)
        self.remove_button.setVisible(given is not None)
        if given is not None:
            self._show_given(given, replaced)
        elif replaced is not None:
            self._spinner.set_running(False)
            self._show_texts("", fill(self.tr("{name} was removed."), name=replaced.name))
            self.undo.setAccessibleName(fill(self.tr("Undo: use {name}"), name=replaced.name))

    def _show_given(self, given: Attachment, replaced: Attachment | None) -> None:
        state = given.state
        self._spinner.set_running(state is AttachmentState.READING)
        self._left.setCurrentWidget(
            self._spinner if state is AttachmentState.READING else self.thumbnail
        )
        self.thumbnail.setPixmap(_pixmap(given, self.devicePixelRatioF()))
        text = ""
        if state is AttachmentState.READING:
            text = self.tr("Reading the picture…")
        elif state is AttachmentState.FAILED:
            text = translate(given.error)
        elif replaced is not None:
            text = fill(self.tr("It replaces {name}."), name=replaced.name)
        if replaced is not None:
            self.undo.setAccessibleName(fill(self.tr("Undo: use {name}"), name=replaced.name))
        self.text.setProperty("kind", "bad" if state is AttachmentState.FAILED else "soft")
        self.text.style().polish(self.text)
        self._show_texts(given.name, text)

    def _show_texts(self, name: str, text: str) -> None:
        self.name.setToolTip(name)
        self.name.setVisible(bool(name))
        self.text.setText(text)
        self.text.setVisible(bool(text))
        self.setAccessibleName(fill(self.tr("Picture for the next question: {name}"), name=name))
        self.setAccessibleDescription(text)
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Fit the texts and the choice to the width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        narrow = self.width() < self.fontMetrics().averageCharWidth() * _NARROW_LETTERS
        direction = QBoxLayout.Direction
        self._choices.setDirection(direction.TopToBottom if narrow else direction.LeftToRight)
        width = max(self.width() - _AROUND_TEXT, 40)
        name, metrics = self.name.toolTip(), self.name.fontMetrics()
        self.name.setText(metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, width))
        self.text.setMinimumHeight(0)  # heightForWidth returns at least that
        self.text.setFixedHeight(max(self.text.heightForWidth(width), 0))


def plain_label() -> QLabel:
    """Return a label that shows its text as it is."""
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)  # a file name may look like HTML
    return label


def _quiet_button(text: str, do: Callable[[], object]) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setProperty("kind", "quiet")
    button.clicked.connect(lambda: do())
    return button


def _pixmap(attachment: Attachment, scale: float) -> QPixmap:
    """Return the thumbnail, or the icon of a picture that can't be read."""
    if attachment.thumbnail.isNull():
        return theme.icon("picture").pixmap(24, 24)
    side = round(_SIDE * scale)
    pixels = QPixmap.fromImage(attachment.thumbnail).scaled(
        QSize(side, side),
        Qt.AspectRatioMode.KeepAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
    pixels.setDevicePixelRatio(scale)
    return pixels
