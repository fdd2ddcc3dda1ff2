"""Answers: blocks, tables, links, and going on where one was cut."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QUrl
from PySide6.QtGui import QGuiApplication, QTextTable
from PySide6.QtWidgets import QMessageBox
from pytestqt.qtbot import QtBot

from cogvlm2_lite.events import FinishReason, TextDelta
from gui.chat.answer import Answer, CodeBlock, Prose
from gui.chat.blocks import Code, Text, split
from gui.data.state import Status
from tests.helpers.desk import Desk, Script


@pytest.mark.parametrize(
    ("markdown", "blocks"),
    [
        ("", []),
        ("a\n\nb", [Text(markdown="a\n\nb")]),
        ("a\n```py x\n\n  b\n```\nc", [
            Text(markdown="a"), Code(code="\n  b", language="py"), Text(markdown="c"),
        ]),
        ("```\nopen", [Code(code="open")]),
        ("~~~\n```\n~~~~", [Code(code="```")]),
        ("````\n```\n````", [Code(code="```")]),
        ("```\na\n``` b\n```", [Code(code="a\n``` b")]),
        ("``` a`b\nc", [Text(markdown="``` a`b\nc")]),
        ("    ```\nx", [Text(markdown="    ```\nx")]),
        ("``\nx", [Text(markdown="``\nx")]),
    ],
)  # fmt: skip
def test_fences_are_those_of_commonmark(markdown: str, blocks: list[object]) -> None:
    assert split(markdown) == blocks


def test_code_is_shown_as_it_is_and_copied(qtbot: QtBot) -> None:
    answer = Answer()
    qtbot.addWidget(answer)
    answer.show_text("Look:\n\n```python\nif a < b:\n    **c**\n```\nDone **now**.")
    prose, code, _ = answer.parts
    assert isinstance(code, CodeBlock)
    assert isinstance(prose, Prose)
    assert (prose.toPlainText(), code.language.text()) == ("Look:", "python")
    code.copy_button.click()
    assert QGuiApplication.clipboard().text() == "if a < b:\n    **c**"
    assert answer.toPlainText() == "Look:\n\nif a < b:\n    **c**\n\nDone now."


def test_an_answer_that_grows_keeps_what_it_shows(qtbot: QtBot) -> None:
    answer = Answer()
    qtbot.addWidget(answer)
    text = "One.\n\n```\ncode\n```\n\nTwo **and** more."
    for end in range(1, len(text) + 1):
        before = answer.parts
        answer.show_text(text[:end])
        assert answer.parts[: len(before) - 1] == before[:-1]
    whole = Answer()
    qtbot.addWidget(whole)
    whole.show_text(text)
    assert answer.toPlainText() == whole.toPlainText() == "One.\n\ncode\n\nTwo and more."


def test_tables_have_lines_and_a_head(qtbot: QtBot) -> None:
    prose = Prose()
    qtbot.addWidget(prose)
    prose.show_text("| a | b |\n|---|---:|\n| 1 | 2 |")
    (table,) = prose.document().rootFrame().childFrames()
    assert isinstance(table, QTextTable)
    assert (table.rows(), table.columns()) == (2, 2)
    assert (table.format().border(), table.format().cellPadding()) == (1, 6)
    head = table.cellAt(0, 0)
    assert head.format().background().color() != table.cellAt(1, 0).format().background().color()
    assert head.lastCursorPosition().charFormat().fontWeight() == 600


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(
        "PySide6.QtGui.QDesktopServices.openUrl", lambda url: found.append(url.toString())
    )
    return found


@pytest.mark.parametrize("agrees", [True, False])
def test_a_link_opens_only_after_its_address_was_shown(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, opened: list[str], agrees: bool
) -> None:
    shown: list[str] = []

    def ask(parent: object, title: str, text: str, *buttons: object) -> object:
        shown.append(text)
        assert opened == []
        assert buttons[-1] == QMessageBox.StandardButton.No  # Enter does not open it
        return QMessageBox.StandardButton.Yes if agrees else QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", ask)
    prose = Prose()
    qtbot.addWidget(prose)
    # A Cyrillic letter that looks like an "a": the address shows what it really is.
    prose.anchorClicked.emit(QUrl("https://ex\u0430mple.com/x"))
    assert "https://xn--exmple-4nf.com/x" in shown[0]
    assert len(opened) == agrees
    prose.anchorClicked.emit(QUrl("file:///etc/passwd"))
    prose.anchorClicked.emit(QUrl("javascript:alert(1)"))
    assert len(shown) == 1


def stop_in_the_middle(desk: Desk, script: Script) -> int:
    script.hold = True
    desk.open_demo()
    desk.chat.composer.setPlainText("Tell me")
    desk.chat.send()
    talk = desk.chat.conversation
    assert talk is not None
    desk.qtbot.waitUntil(lambda: talk.path()[0].answer == "It is **red**.")
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    return talk.path()[0].id


def test_a_stopped_answer_goes_on_from_its_tokens(desk: Desk, script: Script) -> None:
    number = stop_in_the_middle(desk, script)
    view = desk.chat.transcript.view_of(number)
    assert view.continue_button.isVisible()
    script.events = [TextDelta(text="It is **red**."), TextDelta(text=" And blue.")]
    script.hold = False
    view.continue_button.click()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    asked = desk.engine.asked[-1]
    assert (asked.continue_from, asked.continue_ids) == ("It is **red**.", (7, 8, 9))
    talk = desk.chat.conversation
    assert talk is not None
    turn = desk.program.history.load(talk.id).path()[0]
    assert (turn.id, turn.answer, turn.status) == (number, "It is **red**. And blue.", Status.DONE)
    assert view.answer.toPlainText() == "It is red. And blue."
    assert not view.continue_button.isVisible()


def test_an_engine_that_dies_while_an_answer_goes_on_loses_none_of_it(
    desk: Desk, script: Script
) -> None:
    number = stop_in_the_middle(desk, script)
    script.events = []
    desk.chat.continue_answer(number)
    desk.qtbot.waitUntil(lambda: len(desk.engine.asked) == 2)
    desk.engine.die("The engine was killed (SIGKILL).")
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    talk = desk.chat.conversation
    assert talk is not None
    turn = desk.program.history.load(talk.id).path()[0]
    assert (turn.answer, turn.status) == ("It is **red**.", Status.FAILED)
    assert turn.is_cut  # and can go on once more


def test_an_answer_goes_on_only_while_nothing_is_asked_behind_it(
    desk: Desk, script: Script
) -> None:
    number = stop_in_the_middle(desk, script)
    script.hold = False
    desk.ask("And then?")
    assert not desk.chat.transcript.view_of(number).continue_button.isVisible()
    desk.chat.continue_answer(number)
    assert not desk.chat.busy


def test_a_limit_that_ended_an_answer_is_named(desk: Desk, script: Script) -> None:
    script.ends = FinishReason.LENGTH
    desk.open_demo()
    desk.ask("Long?")
    talk = desk.chat.conversation
    assert talk is not None
    view = desk.chat.transcript.view_of(talk.path()[0].id)
    assert view.stats.text().endswith("; length limit reached")
    assert view.continue_button.isVisible()


def test_how_answers_are_made_is_chosen_beside_the_question(desk: Desk) -> None:
    from PySide6.QtWidgets import QDoubleSpinBox

    desk.open_demo()
    button = desk.chat.sampling
    assert button.text() == "Exact"
    desk.program.window.show_page("settings")
    desk.program.window.show_page("chat")
    button.click()
    assert button.popup is not None
    boxes = {box.accessibleName(): box for box in button.popup.findChildren(QDoubleSpinBox)}
    boxes["Temperature"].setValue(0.7)
    assert button.text() == "Varied 0.70"
    page = desk.program.window.page("settings")
    assert page is not None
    same = {box.accessibleName(): box for box in page.findChildren(QDoubleSpinBox)}
    assert same["Temperature"].value() == 0.7
    desk.ask("Free?")
    assert desk.engine.asked[-1].sampling.temperature == 0.7
    button.popup.reset()
    assert boxes["Temperature"].value() == 0
    assert button.text() == "Exact"
    button.popup.close()


@pytest.mark.parametrize("lazy", [False, True])
def test_every_part_follows_the_width_of_the_answer(lazy: bool, qtbot: QtBot) -> None:
    answer = Answer(lazy=lazy)
    qtbot.addWidget(answer)
    answer.resize(100, 30)
    answer.show()
    answer.show_text(
        "Some words that fill lines.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx\n```\n\nAnd more."
    )
    assert answer.parts
    for width in (300, 120, 500):
        answer.fit(width)
        assert {part.width() for part in answer.parts} == {width}
