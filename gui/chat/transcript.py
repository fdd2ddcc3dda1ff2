"""The questions and answers of a conversation, with buttons for each.

Only what is seen, and a little more, has widgets: a conversation of a hundred long answers opens as
fast as a short one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PySide6.QtCore import QEvent, QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.chat.answer import Answer
from gui.chat.blocks import escape_markdown, has_table
from gui.chat.copying import copy_answer, copy_table, show_copied
from gui.chat.dates import long_date, short_date
from gui.chat.question_editor import QuestionEditor
from gui.chat.turn_picture import PictureSource, TurnPicture
from gui.controls import tool_button
from gui.data.rendering import tables
from gui.data.state import Conversation, Stats, Status, Turn
from gui.pages.frame import plain_label
from gui.translation import fill, sentences

_MARGIN = 24
_LINE = 80
"""Letters in a line at most: the eye loses its place in longer ones."""
_TURN_SPACING = 28
_SPACING = 8
_SLICE_S = 0.02
"""Widgets are made for so long at a time; between, the window handles other events."""


class TurnView(QWidget):
    """One question with its answer and buttons.

    again        (turn id)
    edited       (turn id, new text of the question)
    table_wanted (turn id, place) save a table of the answer
    typed        a question that is being changed has another text
    left         a question is no longer changed, and the focus needs another place
    resume       (turn id) continue the answer where it stopped
    choose       (turn id) show another branch
    wanted       (parts) show large what the question is about
    grown        its height changed
    """

    again = Signal(int)
    edited = Signal(int, str)
    table_wanted = Signal(int, int)
    typed = Signal()
    left = Signal()
    resume = Signal(int)
    choose = Signal(int)
    wanted = Signal(tuple)
    grown = Signal()

    def __init__(
        self,
        turn: Turn,
        siblings: list[int],
        parent: QWidget | None = None,
        *,
        lazy: bool = False,
        pictures: PictureSource | None = None,
        later: Callable[[int], int] = lambda turn: 0,
    ) -> None:
        """Make the view.

        later     returns how many questions follow a turn
        lazy      the parts of the answer are made when they are seen
        pictures  for a small picture of what the question is about; None: without it
        """
        super().__init__(parent)
        self.turn = turn
        self.editor: QuestionEditor | None = None
        self._later = later
        self._last = True
        self._doing = ""
        self.picture: TurnPicture | None = None
        self._head = self._make_head(turn, pictures)
        self.answer = Answer(self, lazy=lazy)
        self._foot = self._make_foot(turn, siblings)
        self.show_turn(turn)
        self.answer.grown.connect(self._answer_grown)

    def _make_head(self, turn: Turn, pictures: PictureSource | None) -> QWidget:
        head = QWidget(self)
        row = QHBoxLayout(head)
        row.setContentsMargins(0, 0, 0, 0)
        asked = QFrame()
        asked.setProperty("kind", "asked")
        inner = QVBoxLayout(asked)
        inner.setContentsMargins(14, 10, 14, 6)
        inner.setSpacing(4)
        if pictures is not None:
            self.picture = TurnPicture(pictures, turn, asked)
            self.picture.wanted.connect(self.wanted)
            inner.addWidget(self.picture, alignment=Qt.AlignmentFlag.AlignLeading)
        self._bubble = inner
        self.question = QLabel(turn.question)
        self.question.setTextFormat(Qt.TextFormat.PlainText)
        self.question.setWordWrap(True)
        self.question.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.question.setAccessibleDescription(self.tr("Question"))
        inner.addWidget(self.question)
        when = theme.SmallPrint(short_date(turn.created))
        when.setToolTip(long_date(turn.created))
        inner.addWidget(when, alignment=Qt.AlignmentFlag.AlignTrailing)
        if not turn.created:
            when.hide()
        row.addStretch(1)
        row.addWidget(asked, 4)
        return head

    def _make_foot(self, turn: Turn, siblings: list[int]) -> QWidget:
        foot = QWidget(self)
        column = QVBoxLayout(foot)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(_SPACING)
        self.notes = self._line(column, "soft")
        self.error = self._line(column, "bad")
        row = QHBoxLayout()
        row.setSpacing(2)
        self._tools = [
            self._tool(row, "copy", self.tr("Copy as text"), self.copy),
            self._tool(row, "markdown", self.tr("Copy as Markdown"), self._copy_markdown),
            self._tool(row, "again", self.tr("Answer again"), lambda: self.again.emit(turn.id)),
            self._tool(row, "edit", self.tr("Edit the question"), self.start_edit),
        ]
        self.table_button = self._tool(row, "table", self.tr("Copy or save a table"), lambda: None)
        self.table_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.table_button)
        menu.aboutToShow.connect(self._fill_table_menu)
        self.table_button.setMenu(menu)
        self.continue_button = QPushButton(self.tr("Continue"))
        self.continue_button.setIcon(theme.icon("continue"))
        self.continue_button.setProperty("kind", "quiet")
        self.continue_button.setToolTip(
            self.tr("Ask about the parts that have no answer yet")
            if len(turn.parts) > 1
            else self.tr("Continue the answer where it stopped")
        )
        self.continue_button.clicked.connect(lambda: self.resume.emit(turn.id))
        row.addWidget(self.continue_button)
        if len(siblings) > 1:
            at = siblings.index(turn.id)
            self._branch(row, "previous", self.tr("Earlier version"), siblings, at - 1)
            row.addWidget(QLabel(f"{at + 1}/{len(siblings)}"))
            self._branch(row, "next", self.tr("Later version"), siblings, at + 1)
        row.addStretch(1)
        column.addLayout(row)
        self.versions = self._line(column, "soft")
        self.versions.setText(self._others_with_more(siblings))
        self.versions.setVisible(bool(self.versions.text()))
        self.stats = self._line(column, "soft")
        return foot

    def _others_with_more(self, siblings: list[int]) -> str:
        """Return which other versions of the turn have questions after them."""
        others = {
            place: count
            for place, number in enumerate(siblings, 1)
            if number != self.turn.id and (count := self._later(number))
        }
        return sentences(
            *(
                fill(self.tr("Version {number} has 1 later question."), number=place)
                if count == 1
                else fill(
                    self.tr("Version {number} has {count} later questions."),
                    number=place,
                    count=count,
                )
                for place, count in others.items()
            )
        )

    def start_edit(self, text: str | None = None) -> None:
        """Change the question in its bubble. text: what was typed before; None: the question."""
        if self.editor is None:
            editor = QuestionEditor(
                self.turn.question if text is None else text, self._later(self.turn.id)
            )
            editor.asked.connect(lambda text: self.edited.emit(self.turn.id, text))
            editor.cancelled.connect(self.end_edit)
            editor.changed.connect(self.typed)
            editor.grown.connect(self._answer_grown)
            self._bubble.insertWidget(self._bubble.indexOf(self.question) + 1, editor)
            self.question.hide()
            editor.show()  # now: its layout would show it later, and it would have no height yet
            self.editor = editor
            self._answer_grown()
            self.typed.emit()
        if text is None:
            self.editor.begin()

    def end_edit(self) -> None:
        """Show the question as it is; what was typed is dropped."""
        if self.editor is not None:
            editor, self.editor = self.editor, None
            focus = QApplication.focusWidget()
            focused = focus is not None and editor.isAncestorOf(focus)
            editor.hide()
            self._bubble.removeWidget(editor)
            editor.deleteLater()
            self.question.show()
            self._answer_grown()
            self.typed.emit()
            if focused:  # or Qt moves the focus out of the page
                self.left.emit()

    def _line(self, column: QVBoxLayout, kind: str) -> QLabel:
        label = plain_label(kind=kind)
        column.addWidget(label)
        return label

    def fit(self, width: int) -> int:
        """Lay everything out for a width in pixels and return the height."""
        y = _fit(self._head, width) + _SPACING
        self.answer.move(0, y)
        y += self.answer.fit(width) + _SPACING
        self._foot.move(0, y)
        y += _fit(self._foot, width)
        self.resize(width, y)
        return y

    def reveal(self, top: int, bottom: int, room: int) -> bool:
        """Make a part of the answer that is between two heights. Arguments as for Answer."""
        y = self.answer.y()
        return self.answer.reveal(top - y, bottom - y, room)

    @property
    def in_use(self) -> bool:
        """Whether it has the focus, selected or changed text, which would be lost with it."""
        if self.editor is not None:
            return True
        focus = QGuiApplication.focusObject()
        if isinstance(focus, QWidget) and self.isAncestorOf(focus):
            return True
        return self.question.hasSelectedText() or self.answer.has_selection

    @property
    def leaves(self) -> list[QWidget]:
        """Its parts that exist now, from top to bottom."""
        return [self._head, *self.answer.made, self._foot]

    @property
    def focus_chain(self) -> list[QWidget]:
        """The widgets that Tab reaches, in order."""
        tools = self._foot.findChildren(QAbstractButton)
        head = [self.picture] if self.picture is not None else []
        asked = [self.question] if self.editor is None else self.editor.focus_chain
        return [*head, *asked, *self.answer.focus_chain, *tools]

    def _answer_grown(self) -> None:
        self.fit(self.width())
        self.grown.emit()

    def show_turn(self, turn: Turn) -> None:
        """Show the current state of a turn."""
        self.turn = turn
        self._show_answer()
        self.notes.setText("\n".join(turn.notes))
        self.notes.setVisible(bool(turn.notes))
        problem = turn.error
        if turn.status is Status.INTERRUPTED:
            problem = self.tr("The program ended during this answer. Answer again?")
        self.error.setText(problem)
        self.error.setVisible(bool(problem))
        for tool in self._tools:
            tool.setVisible(turn.status.is_over)
        self.table_button.setVisible(turn.status.is_over and has_table(turn.answer))
        self.continue_button.setVisible(turn.is_cut and self._last)
        self.stats.setText(self._stats())
        self.stats.setVisible(bool(self.stats.text()))

    def show_waiting(self, text: str) -> None:
        """Show what the engine is doing, as long as there is no text of the answer."""
        if text != self._doing:
            self._doing = text
            self._show_answer()

    def _show_answer(self) -> None:
        waiting = self.turn.status is Status.WAITING and not self.turn.answer
        doing = escape_markdown(self._doing) or self.tr("Preparing…")
        self.answer.show_text(f"*{doing}*" if waiting else self.turn.answer)

    def set_last(self, last: bool) -> None:
        """Set whether this is the last turn: only its answer can be continued."""
        self._last = last
        self.continue_button.setVisible(self.turn.is_cut and last)

    def _stats(self) -> str:
        stats, adapter = self.turn.stats, self.turn.adapter
        with_adapter = fill(self.tr("Adapter: {name}."), name=adapter) if adapter else ""
        return sentences(with_adapter, self._counts(stats) if stats is not None else "")

    def _counts(self, stats: Stats) -> str:
        text = fill(
            self.tr(
                "{tokens} tokens, {rate:.1f} tokens/s; picture {encode:.2f} s, "
                "reading {prefill:.2f} s, answering {decode:.2f} s"
            ),
            tokens=stats.completion_tokens,
            rate=stats.tokens_per_s,
            encode=stats.encode_s,
            prefill=stats.prefill_s,
            decode=stats.decode_s,
        )
        if self.turn.status is Status.STOPPED:
            return text + self.tr("; stopped")
        return text + (self.tr("; length limit reached") if self.turn.is_limited else "")

    def copy(self) -> None:
        """Copy the answer as text and as HTML."""
        copy_answer(self.turn.answer)
        show_copied(self._tools[0])

    def _copy_markdown(self) -> None:
        QGuiApplication.clipboard().setText(self.turn.answer.strip())
        show_copied(self._tools[1])

    def _fill_table_menu(self) -> None:
        menu = self.table_button.menu()
        menu.clear()
        found = tables(self.turn.answer)
        for number, rows in enumerate(found, 1):
            name = fill(self.tr("Table {number}"), number=number) if len(found) > 1 else ""
            copy, save = self.tr("Copy the table"), self.tr("Save as CSV…")
            if name:
                copy, save = f"{name}: {copy}", f"{name}: {save}"
            menu.addAction(copy, partial(self._copy_table, rows))
            menu.addAction(save, partial(self.table_wanted.emit, self.turn.id, number - 1))

    def _copy_table(self, rows: list[list[str]]) -> None:
        copy_table(rows)
        show_copied(self.table_button)

    def _branch(self, row: QHBoxLayout, icon: str, text: str, siblings: list[int], to: int) -> None:
        button = self._tool(row, icon, text, lambda: self.choose.emit(siblings[to]))
        button.setEnabled(0 <= to < len(siblings))

    def _tool(self, row: QHBoxLayout, icon: str, text: str, do: Callable[[], None]) -> QToolButton:
        button = tool_button(icon, text, do, 16)
        row.addWidget(button)
        return button


@dataclass(eq=False)
class _Row:
    """A turn of the transcript.

    later     returns how many questions follow a turn
    pictured  its bubble shows what it is about
    view      None while it is not seen
    """

    turn: Turn
    siblings: list[int]
    height: int
    pictured: bool
    later: Callable[[int], int]
    view: TurnView | None = None


class Transcript(QScrollArea):
    """All turns of the branch that is shown. Signals as in TurnView."""

    again = Signal(int)
    edited = Signal(int, str)
    table_wanted = Signal(int, int)
    typed = Signal()
    left = Signal()
    resume = Signal(int)
    choose = Signal(int)
    wanted = Signal(tuple)

    def __init__(self) -> None:
        super().__init__()
        self.pictures = PictureSource(self)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setProperty("kind", "clear")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(self.tr("Conversation"))
        self._rows: list[_Row] = []
        self._has_picture = False
        self._follow = True
        self._arranging = False
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self._arrange)
        self.verticalScrollBar().valueChanged.connect(self._scrolled)
        self.show_conversation(None)

    def show_conversation(self, conversation: Conversation | None) -> None:
        """Show a conversation; its end is seen first. A question that is being changed stays."""
        editing = self.editing
        self._arranging = True  # the new body has another height
        self._body = QWidget()
        self.setWidget(self._body)
        self._rows = []
        self._has_picture = bool(conversation and conversation.picture)
        for turn in conversation.path() if conversation else ():
            assert conversation is not None
            self._add(turn, conversation)
        self._arranging = False
        self._follow = True
        self._arrange()
        if editing is not None:
            self.start_edit(*editing)

    def show_new(self, conversation: Conversation, turn: Turn) -> None:
        """Show a turn that was just asked.

        It is added to the shown turns if it continues them, so that these keep their widgets.
        """
        self._has_picture = bool(conversation.picture)
        shown = [row.turn.id for row in self._rows]
        if [*shown, turn.id] != [wanted.id for wanted in conversation.path()]:
            self.show_conversation(conversation)
            return
        self._add(turn, conversation)
        self._follow = True
        self._arrange()

    def show_turn(self, turn: Turn) -> None:
        """Update one turn."""
        for row in self._rows:
            if row.turn.id == turn.id:
                row.turn = turn
                if row.view is not None:
                    self._arranging = True  # once, when all its parts are updated
                    row.view.show_turn(turn)
                    self._arranging = False
                self._arrange()

    def show_waiting(self, turn_id: int, text: str) -> None:
        """Show what the engine is doing for a turn without an answer yet."""
        for row in self._rows:
            if row.turn.id == turn_id and row.view is not None:
                row.view.show_waiting(text)

    def view_of(self, turn_id: int) -> TurnView:
        """Return the view of a turn, with its complete answer."""
        (row,) = (row for row in self._rows if row.turn.id == turn_id)
        view = self._view(row)
        _ = view.answer.parts
        self._arrange()
        return view

    @property
    def editing(self) -> tuple[int, str] | None:
        """The number of the turn whose question is being changed, and the text so far."""
        for view in self.views:
            if view.editor is not None:
                return view.turn.id, view.editor.text.toPlainText()
        return None

    def start_edit(self, turn_id: int, text: str | None = None) -> None:
        """Change a question in its bubble, if it is shown. text: what was typed before."""
        self.end_edit()
        for row in self._rows:
            if row.turn.id == turn_id:
                self._view(row).start_edit(text)
                self._arrange()

    def end_edit(self) -> None:
        """Show all questions as they are."""
        for view in self.views:
            view.end_edit()

    @property
    def busy(self) -> bool:
        """Whether widgets of what is seen, or parts of its texts, are still to be made."""
        return self._later.isActive() or any(view.answer.busy for view in self.views)

    @property
    def views(self) -> list[TurnView]:
        """The views that exist now."""
        return [row.view for row in self._rows if row.view is not None]

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Lay the turns out for the new width."""
        super().resizeEvent(event)
        self._arrange()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Lay the turns out for another font or style."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._later.start()

    def _add(self, turn: Turn, conversation: Conversation) -> None:
        siblings = [other.id for other in conversation.siblings(turn)]
        if self._rows and self._rows[-1].view is not None:
            self._rows[-1].view.set_last(False)
        letters = len(turn.question) + len(turn.answer)
        before = self._rows[-1].turn if self._rows else None
        again = before is not None and _sources(before) == _sources(turn) and not turn.parts
        pictured = self._has_picture and not again
        self._rows.append(_Row(turn, siblings, 150 + letters // 3, pictured, conversation.later))

    def _view(self, row: _Row) -> TurnView:
        """Return the view of a row; make it if there is none."""
        if row.view is None:
            view = TurnView(
                row.turn,
                row.siblings,
                self._body,
                lazy=True,
                pictures=self.pictures if row.pictured else None,
                later=row.later,
            )
            view.set_last(row is self._rows[-1])
            view.again.connect(self.again)
            view.edited.connect(self.edited)
            view.typed.connect(self.typed)
            view.left.connect(self.left)
            view.table_wanted.connect(self.table_wanted)
            view.resume.connect(self.resume)
            view.choose.connect(self.choose)
            view.wanted.connect(self.wanted)
            view.show()
            row.view, row.height = view, view.fit(self._width())
            view.grown.connect(self._arrange)
        return row.view

    def _width(self) -> int:
        """Return the width of a turn in pixels."""
        room = (self.viewport().width() - 2 * _MARGIN) * 12 // 14
        return max(min(room, _LINE * self.fontMetrics().averageCharWidth()), 100)

    def _arrange(self) -> None:
        """Give every turn its place, and make and remove widgets as they are seen or not.

        What is read stays where it is on the screen: the end, or else the topmost part.
        """
        if self._arranging:
            return
        self._arranging = True
        end = time.monotonic() + _SLICE_S
        anchor = None if self._follow else self._anchor()
        self._place(anchor)
        made = False
        while self._make_next():
            made = True
            self._place(anchor)
            if time.monotonic() > end:
                self._later.start()
                break
        if made:
            self._set_tab_order()
        self._arranging = False

    def _set_tab_order(self) -> None:
        """Let Tab go from top to bottom, in whatever order the widgets were made."""
        before: QWidget = self
        for view in self.views:
            for widget in view.focus_chain:
                QWidget.setTabOrder(before, widget)
                before = widget

    def _place(self, anchor: tuple[QWidget, int] | None) -> None:
        width, y = self._width(), _MARGIN
        left = (self.viewport().width() - width) // 2
        body, bar = self._body, self.verticalScrollBar()
        places = []
        for row in self._rows:
            if row.view is not None:
                row.height = row.view.fit(width)
                places.append((row.view, y))
            y += row.height + _TURN_SPACING
        high = y - _TURN_SPACING + _MARGIN
        body.resize(self.viewport().width(), max(high, self.viewport().height()))
        for view, place in places:
            view.move(left, place)
        if self._follow:
            bar.setValue(bar.maximum())
        elif anchor is not None:
            part, shown_at = anchor
            bar.setValue(part.mapTo(body, QPoint(0, 0)).y() - shown_at)

    def _anchor(self) -> tuple[QWidget, int] | None:
        """Return the first part that is seen, and its distance from the upper edge."""
        value = self.verticalScrollBar().value()
        for view in self.views:
            if view.y() + view.height() <= value:
                continue
            for part in view.leaves:
                at = part.mapTo(self._body, QPoint(0, 0)).y() - value
                if at + part.height() > 0:
                    return part, at
        return None

    def _make_next(self) -> bool:
        """Make one widget that is seen or nearly seen; returns whether there was one.

        The nearest ones come first, because the time for this is limited.
        """
        room = self.viewport().height()
        value = self.verticalScrollBar().value()
        return self._reveal(value, value + room, 2 * room) or self._reveal(
            value - room // 2, value + room + room // 2, 3 * room // 2
        )

    def _reveal(self, top: int, bottom: int, room: int) -> bool:
        y = _MARGIN
        for row in self._rows:
            seen = y < bottom and y + row.height > top
            if seen:
                made = row.view is None
                view = self._view(row)
                if view.reveal(top - y, bottom - y, room) or made:
                    return True
            elif row.view is not None:
                far = y > bottom + room or y + row.height < top - room
                if far and not row.view.in_use:
                    row.view.hide()
                    row.view.deleteLater()
                    row.view = None
            y += row.height + _TURN_SPACING
        return False

    def _scrolled(self, value: int) -> None:
        if self._arranging:
            return
        self._follow = value >= self.verticalScrollBar().maximum() - 24
        self._arrange()


def _sources(turn: Turn) -> tuple[object, ...]:
    """Return what a question is about."""
    return turn.parts, turn.page, turn.file


def _fit(box: QWidget, width: int) -> int:
    """Give a widget with a layout this width, and the height that it needs; return the height."""
    layout = box.layout()
    assert layout is not None
    layout.activate()
    height = layout.heightForWidth(width) if layout.hasHeightForWidth() else box.sizeHint().height()
    box.resize(width, height)
    return height
