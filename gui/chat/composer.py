"""The field for the question, with presets, answer settings and the engine's state."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPlainTextEdit,
    QProgressBar,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.worker.client import EngineState
from gui import theme
from gui.chat.chip import PictureChip
from gui.chat.progress import Phase, describe
from gui.chat.sampling import SamplingButton
from gui.chat.several import SeveralFiles
from gui.data.settings import Preferences
from gui.presets import PresetButton, put_question

_LEAST_FIELD, _AROUND_FIELD = 64, 10
"""Height of the field in pixels: at least, and what its document adds to its lines."""


class Composer(QWidget):
    """The question field with its buttons and the status line.

    asked    the user sent the question
    stopped  the user stopped the answer, or the wait for the picture

    add_menu has the ways to give a picture; the page fills it
    """

    asked = Signal()
    stopped = Signal()

    def __init__(self, settings: Preferences) -> None:
        super().__init__()
        self._busy = False
        self._waiting = False
        self._state = EngineState.STOPPED
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 8, 24, 12)
        column.setSpacing(6)
        card = QFrame()
        card.setProperty("kind", "card")
        inner = QVBoxLayout(card)
        inner.setContentsMargins(12, 10, 10, 8)
        self.chip, self.several = PictureChip(), SeveralFiles()
        inner.addWidget(self.several)
        inner.addWidget(self.chip)
        self.text = QPlainTextEdit()
        self.text.setProperty("kind", "clear")
        self.text.setPlaceholderText(self.tr("Ask about the picture"))
        self.text.setAccessibleName(self.tr("Your question"))
        self.text.setTabChangesFocus(True)
        self.text.installEventFilter(self)
        self.text.textChanged.connect(self._draw)
        entry = QWidget()  # the field with its buttons
        entry.setProperty("together", True)
        lower = QVBoxLayout(entry)
        lower.setContentsMargins(0, 0, 0, 0)
        lower.addWidget(self.text)
        self._row = row = QHBoxLayout()
        self.add_menu = QMenu(self)
        self.add_menu.setObjectName("add")
        row.addWidget(self._make_add_button())
        self.presets = PresetButton(settings, self.use, self.text.toPlainText)
        row.addWidget(self.presets)
        self.sampling = SamplingButton(settings)
        row.addWidget(self.sampling)
        row.addStretch(1)
        self.send_button = QToolButton()
        self.send_button.setIconSize(QSize(20, 20))
        self.send_button.clicked.connect(
            lambda: self.stopped.emit() if self._busy or self._waiting else self.asked.emit()
        )
        row.addWidget(self.send_button)
        lower.addLayout(row)
        inner.addWidget(entry)
        column.addWidget(card)
        column.addLayout(self._make_foot())

    def _make_add_button(self) -> QToolButton:
        button = QToolButton()
        button.setIcon(theme.icon("picture"))
        button.setProperty("kind", "quiet")
        button.setToolTip(self.tr("Add a picture"))
        button.setAccessibleName(self.tr("Add a picture"))
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setMenu(self.add_menu)
        return button

    def _make_foot(self) -> QVBoxLayout:
        self.status = QLabel()
        self.status.setWordWrap(True)  # else a long one makes the conversation wider
        self.status.setProperty("kind", "soft")
        self.status.setAccessibleDescription(self.tr("What the engine is doing"))
        self.progress = QProgressBar()
        self.progress.setAccessibleName(self.tr("Progress"))
        place = self.progress.sizePolicy()
        place.setRetainSizeWhenHidden(True)  # nothing moves when it appears
        self.progress.setSizePolicy(place)
        self.progress.hide()
        foot = QVBoxLayout()
        foot.setSpacing(4)
        foot.addWidget(self.progress)
        foot.addWidget(self.status)
        return foot

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Fit the buttons to the width."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Fit the field and the buttons to the letters."""
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self._fit()

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return a small width: the buttons leave their texts out."""
        return QSize(0, super().minimumSizeHint().height())

    def _fit(self) -> None:
        """Give the field two lines, and show the texts of the buttons as far as there is room."""
        two_lines = 2 * self.text.fontMetrics().lineSpacing()
        self.text.setFixedHeight(max(_LEAST_FIELD, two_lines + _AROUND_FIELD))
        kind = Qt.ToolButtonStyle
        buttons = (self.presets, self.sampling)
        for button in buttons:
            button.setToolButtonStyle(kind.ToolButtonTextBesideIcon)
        for button in buttons:
            if self._row.minimumSize().width() > self._row.geometry().width():
                button.setToolButtonStyle(kind.ToolButtonIconOnly)
                self._row.invalidate()

    def use(self, question: str) -> None:
        """Put a question into the field."""
        put_question(self.text, question)

    def show_state(self, state: EngineState, *, busy: bool, waiting: bool = False) -> None:
        """Show the engine's state.

        busy     an answer is being generated
        waiting  the question is asked as soon as its picture is ready
        """
        self._state, self._busy, self._waiting = state, busy, waiting
        self.text.setReadOnly(waiting)
        self._draw()
        if waiting and not busy:
            self.progress.hide()
            self.status.setText(
                self.tr("Waiting for the picture…")
                if state is EngineState.READY
                else self.tr("Waiting for the model. The question is asked when it is loaded.")
            )
        elif not busy:
            self.progress.hide()
            self.status.setText(
                {
                    EngineState.READY: self.tr("Ready"),
                    EngineState.LOADING: self.tr("Loading the model…"),
                    EngineState.EMPTY: self.tr("The model is unloaded."),
                    EngineState.DEAD: self.tr("The engine has stopped."),
                    EngineState.STOPPED: self.tr("No model is open."),
                }[state]
            )

    def show_progress(self, phase: Phase) -> None:
        """Show how far the answer is."""
        self.status.setText(describe(phase))
        share = phase.share if phase.name != "decode" else None
        self.progress.setRange(0, 1000 if share is not None else 0)
        self.progress.setValue(round(1000 * (share or 0.0)))
        self.progress.setVisible(phase.name != "decode")

    def _draw(self) -> None:
        stops = self._busy or self._waiting
        self.send_button.setIcon(theme.icon("stop" if stops else "send"))
        text = self.tr("Stop (Esc)") if stops else self.tr("Send (Enter)")
        self.send_button.setToolTip(text)
        self.send_button.setAccessibleName(text)
        question = bool(self.text.toPlainText().strip())
        self.send_button.setEnabled(stops or question)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Send with Enter (Shift+Enter starts a new line)."""
        if watched is self.text and isinstance(event, QKeyEvent):
            if event.type() is not QEvent.Type.KeyPress:
                return False
            enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
            broken = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            if enter and not broken:
                self.asked.emit()
                return True
        return super().eventFilter(watched, event)
