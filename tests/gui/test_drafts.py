"""What is typed and not asked: it belongs to its conversation, and a question changes in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton

from gui.chat.question_editor import QuestionEditor
from gui.chat.transcript import TurnView
from gui.data.history import History, Unsent
from tests.helpers.desk import Desk, Script


def view_of(desk: Desk, place: int) -> TurnView:
    conversation = desk.chat.conversation
    assert conversation is not None
    return desk.chat.transcript.view_of(conversation.path()[place].id)


def edit(desk: Desk, place: int) -> QuestionEditor:
    """Press the button that changes a question."""
    view = view_of(desk, place)
    [button] = [
        b for b in view.findChildren(QAbstractButton) if b.accessibleName() == "Edit the question"
    ]
    button.click()
    assert view.editor is not None
    return view.editor


def three_questions(desk: Desk) -> None:
    desk.open_demo()
    for question in ("One?", "Two?", "Three?"):
        desk.ask(question)


def open_row(desk: Desk, row: int) -> None:
    desk.chat.list.itemClicked.emit(desk.chat.list.item(row))


def test_a_question_changes_in_its_bubble_and_the_later_ones_are_kept(desk: Desk) -> None:
    three_questions(desk)
    desk.chat.composer.setPlainText("my draft")
    editor = edit(desk, 0)
    assert desk.chat.composer.toPlainText() == "my draft"
    assert not view_of(desk, 0).question.isVisible()
    assert editor.note.text() == "The 2 later questions stay with the version before this one."
    assert editor.height() >= editor.sizeHint().height()
    for widget in (editor.ask_button, editor.cancel_button):
        assert widget.height() >= widget.minimumSizeHint().height()
    editor.text.setPlainText("Uno?")
    QTest.keyClick(editor.text, Qt.Key.Key_Return)
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    conversation = desk.chat.conversation
    assert conversation is not None
    assert [turn.question for turn in conversation.path()] == ["Uno?"]
    view = view_of(desk, 0)
    assert view.versions.text() == "Version 1 has 2 later questions."
    assert view.editor is None
    assert desk.chat.composer.toPlainText() == "my draft"
    desk.chat.transcript.choose.emit(min(conversation.turns))
    assert [turn.question for turn in conversation.path()] == ["One?", "Two?", "Three?"]
    assert not view_of(desk, 0).versions.text()


def test_a_change_can_be_cancelled_by_button_and_by_escape(desk: Desk) -> None:
    three_questions(desk)
    for cancel in (
        lambda e: e.cancel_button.click(),
        lambda e: QTest.keyClick(e.text, Qt.Key.Key_Escape),
    ):
        editor = edit(desk, 1)
        editor.text.setPlainText("something else")
        cancel(editor)
        view = view_of(desk, 1)
        assert view.editor is None
        assert view.question.text() == "Two?"
        assert view.question.isVisible()
    conversation = desk.chat.conversation
    assert conversation is not None
    assert len(conversation.turns) == 3


def test_an_empty_change_is_not_asked_and_a_busy_engine_keeps_it(
    desk: Desk, script: Script
) -> None:
    three_questions(desk)
    editor = edit(desk, 1)
    editor.text.setPlainText("  ")
    assert not editor.ask_button.isEnabled()
    QTest.keyClick(editor.text, Qt.Key.Key_Return)
    editor.text.setPlainText("Due?")
    script.hold = True
    desk.chat.composer.setPlainText("Four?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.chat.busy)
    QTest.keyClick(editor.text, Qt.Key.Key_Return)
    assert "is kept" in desk.chat.message
    assert editor.text.toPlainText() == "Due?"
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    script.hold = False
    editor.ask_button.click()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    conversation = desk.chat.conversation
    assert conversation is not None
    assert [turn.question for turn in conversation.path()] == ["One?", "Due?"]


def test_each_conversation_has_its_own_draft(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("First?")
    desk.chat.composer.setPlainText("about the first")
    desk.chat.start_new()
    assert desk.chat.composer.toPlainText() == ""
    desk.chat.composer.setPlainText("about a new one")
    open_row(desk, 0)
    assert desk.chat.composer.toPlainText() == "about the first"
    desk.chat.start_new()
    assert desk.chat.composer.toPlainText() == "about a new one"
    desk.ask("Second?")
    assert desk.chat.composer.toPlainText() == ""
    desk.chat.start_new()
    assert desk.chat.composer.toPlainText() == ""
    open_row(desk, 1)
    assert desk.chat.composer.toPlainText() == "about the first"


def test_drafts_and_changes_are_there_after_a_restart(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path)
    three_questions(desk)
    desk.chat.composer.setPlainText("half a question")
    edit(desk, 1).text.setPlainText("half a change")
    desk.chat.start_new()
    desk.chat.composer.setPlainText("a new question")
    desk.program.close()
    again = open_desk(tmp_path)
    assert again.chat.composer.toPlainText() == "a new question"
    open_row(again, 0)
    assert again.chat.composer.toPlainText() == "half a question"
    editor = view_of(again, 1).editor
    assert editor is not None
    assert editor.text.toPlainText() == "half a change"
    editor.cancel_button.click()
    again.chat.start_new()
    open_row(again, 0)
    assert view_of(again, 1).editor is None


def test_what_is_typed_is_on_disk_soon(desk: Desk, tmp_path: Path) -> None:
    desk.chat.composer.setPlainText("typed")

    def saved() -> bool:
        with History(tmp_path / "data") as history:
            return history.unsent(0) == Unsent(text="typed")

    desk.qtbot.waitUntil(saved, timeout=5000)


def test_a_deleted_conversation_comes_back_with_its_draft(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("First?")
    desk.chat.composer.setPlainText("draft")
    conversation = desk.chat.conversation
    assert conversation is not None
    desk.chat.delete(conversation.id)
    assert desk.chat.composer.toPlainText() == ""
    desk.chat.undo.click()
    open_row(desk, 0)
    assert desk.chat.composer.toPlainText() == "draft"


def test_a_preset_loses_no_text_and_is_one_step_back(desk: Desk) -> None:
    menu = desk.chat.presets.menu()

    def choose(text: str) -> None:
        [action] = [a for a in menu.actions() if a.text() == text]
        action.trigger()

    composer = desk.chat.composer
    composer.setPlainText("The left plate only.")
    choose("Table to CSV")
    assert composer.toPlainText() == ("The left plate only.\nWrite the table in this image as CSV.")
    composer.undo()
    assert composer.toPlainText() == "The left plate only."
    composer.clear()
    choose("Describe")
    choose("Table to CSV")  # a preset that was not changed is replaced
    assert composer.toPlainText() == "Write the table in this image as CSV."
