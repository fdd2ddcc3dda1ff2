"""The questions and answers of a conversation, with buttons for each."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.chat.answer import Answer
from gui.data.state import Conversation, Status, Turn


class TurnView(QWidget):
    """One question with its answer and buttons.

    again, edit  (turn id)
    resume       (turn id) continue the answer where it stopped
    choose       (turn id) show another branch
    """

    again = Signal(int)
    edit = Signal(int)
    resume = Signal(int)
    choose = Signal(int)

    def __init__(self, turn: Turn, siblings: list[int]) -> None:
        super().__init__()
        self.turn = turn
        self._last = True
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        asked = QFrame()
        asked.setProperty("kind", "asked")
        inner = QHBoxLayout(asked)
        inner.setContentsMargins(14, 10, 14, 10)
        self.question = QLabel(turn.question)
        self.question.setTextFormat(Qt.TextFormat.PlainText)
        self.question.setWordWrap(True)
        self.question.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.question.setAccessibleName(self.tr("Question"))
        inner.addWidget(self.question)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(asked, 4)
        column.addLayout(row)
        self.answer = Answer()
        column.addWidget(self.answer)
        self.notes = QLabel()
        self.notes.setProperty("kind", "soft")
        self.notes.setWordWrap(True)
        column.addWidget(self.notes)
        self.error = QLabel()
        self.error.setProperty("kind", "bad")
        self.error.setWordWrap(True)
        column.addWidget(self.error)
        foot = QHBoxLayout()
        foot.setSpacing(2)
        self._tools = [
            self._tool(foot, "copy", self.tr("Copy as text"), self._copy),
            self._tool(foot, "markdown", self.tr("Copy as Markdown"), self._copy_markdown),
            self._tool(foot, "again", self.tr("Answer again"), lambda: self.again.emit(turn.id)),
            self._tool(foot, "edit", self.tr("Edit the question"), lambda: self.edit.emit(turn.id)),
        ]
        self.continue_button = QPushButton(self.tr("Continue"))
        self.continue_button.setIcon(theme.icon("continue"))
        self.continue_button.setProperty("kind", "quiet")
        self.continue_button.setToolTip(self.tr("Continue the answer where it stopped"))
        self.continue_button.clicked.connect(lambda: self.resume.emit(turn.id))
        foot.addWidget(self.continue_button)
        if len(siblings) > 1:
            at = siblings.index(turn.id)
            self._branch(foot, "previous", self.tr("Earlier version"), siblings, at - 1)
            foot.addWidget(QLabel(f"{at + 1}/{len(siblings)}"))
            self._branch(foot, "next", self.tr("Later version"), siblings, at + 1)
        foot.addStretch(1)
        column.addLayout(foot)
        self.stats = QLabel()
        self.stats.setProperty("kind", "soft")
        self.stats.setWordWrap(True)
        column.addWidget(self.stats)
        self.show_turn(turn)

    def show_turn(self, turn: Turn) -> None:
        """Show the current state of a turn."""
        self.turn = turn
        waiting = turn.status is Status.WAITING and not turn.answer
        self.answer.show_text(self.tr("*thinking…*") if waiting else turn.answer)
        self.notes.setText("\n".join(turn.notes))
        self.notes.setVisible(bool(turn.notes))
        problem = turn.error
        if turn.status is Status.INTERRUPTED:
            problem = self.tr("The program ended during this answer. Answer again?")
        self.error.setText(problem)
        self.error.setVisible(bool(problem))
        for tool in self._tools:
            tool.setVisible(turn.status.is_over)
        self.continue_button.setVisible(turn.is_cut and self._last)
        self.stats.setText(self._stats())

    def set_last(self, last: bool) -> None:
        """Set whether this is the last turn: only its answer can be continued."""
        self._last = last
        self.continue_button.setVisible(self.turn.is_cut and last)

    def _stats(self) -> str:
        stats = self.turn.stats
        if stats is None:
            return ""
        text = self.tr(
            "{tokens} tokens, {rate:.1f} tokens/s; picture {encode:.2f} s, "
            "reading {prefill:.2f} s, answering {decode:.2f} s"
        ).format(
            tokens=stats.completion_tokens,
            rate=stats.tokens_per_s,
            encode=stats.encode_s,
            prefill=stats.prefill_s,
            decode=stats.decode_s,
        )
        if self.turn.status is Status.STOPPED:
            return text + self.tr("; stopped")
        return text + (self.tr("; length limit reached") if self.turn.is_cut else "")

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.answer.toPlainText())

    def _copy_markdown(self) -> None:
        QGuiApplication.clipboard().setText(self.turn.answer.strip())

    def _branch(self, row: QHBoxLayout, icon: str, text: str, siblings: list[int], to: int) -> None:
        button = self._tool(row, icon, text, lambda: self.choose.emit(siblings[to]))
        button.setEnabled(0 <= to < len(siblings))

    def _tool(self, row: QHBoxLayout, icon: str, text: str, do: Callable[[], None]) -> QToolButton:
        button = QToolButton()
        button.setIcon(theme.icon(icon))
        button.setIconSize(QSize(16, 16))
        button.setToolTip(text)
        button.setAccessibleName(text)
        button.setProperty("kind", "quiet")
        button.clicked.connect(lambda: do())
        row.addWidget(button)
        return button


class Transcript(QScrollArea):
    """All turns of the branch that is shown. Signals as in TurnView."""

    again = Signal(int)
    edit = Signal(int)
    resume = Signal(int)
    choose = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setProperty("kind", "clear")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(self.tr("Conversation"))
        self._views: dict[int, TurnView] = {}
        self._follow = True
        self.verticalScrollBar().rangeChanged.connect(self._stay_at_end)
        self.verticalScrollBar().valueChanged.connect(self._note_place)
        self.show_conversation(None)

    def show_conversation(self, conversation: Conversation | None) -> None:
        """Show a conversation from the start."""
        body = QWidget()
        outer = QHBoxLayout(body)
        outer.setContentsMargins(24, 24, 24, 24)
        self._column = QVBoxLayout()
        self._column.setSpacing(28)
        self._column.addStretch(1)
        self._views = {}
        for turn in conversation.path() if conversation else ():
            assert conversation is not None
            self._add(turn, [other.id for other in conversation.siblings(turn)])
        outer.addStretch(1)
        outer.addLayout(self._column, 12)
        outer.addStretch(1)
        self.setWidget(body)
        self._follow = True
        QTimer.singleShot(0, self._stay_at_end)

    def show_new(self, conversation: Conversation, turn: Turn) -> None:
        """Show a turn that was just asked.

        It is added to the shown turns if it continues them, because building a long conversation
        again would block the window.
        """
        if [*self._views, turn.id] != [shown.id for shown in conversation.path()]:
            self.show_conversation(conversation)
            return
        self._add(turn, [other.id for other in conversation.siblings(turn)])
        self._follow = True
        QTimer.singleShot(0, self._stay_at_end)

    def _add(self, turn: Turn, siblings: list[int]) -> None:
        for before in self._views.values():
            before.set_last(False)
        view = TurnView(turn, siblings)
        view.again.connect(self.again)
        view.edit.connect(self.edit)
        view.resume.connect(self.resume)
        view.choose.connect(self.choose)
        self._column.insertWidget(self._column.count() - 1, view)
        self._views[turn.id] = view

    def show_turn(self, turn: Turn) -> None:
        """Update one turn."""
        if turn.id in self._views:
            self._views[turn.id].show_turn(turn)

    def view_of(self, turn_id: int) -> TurnView:
        """Return the view of a turn that is shown."""
        return self._views[turn_id]

    def _note_place(self, value: int) -> None:
        self._follow = value >= self.verticalScrollBar().maximum() - 24

    def _stay_at_end(self) -> None:
        if self._follow:
            self.verticalScrollBar().setValue(self.verticalScrollBar().maximum())
