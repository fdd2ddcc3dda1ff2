"""Keys that do what they do elsewhere, names for screen readers, labels that belong to fields."""

from __future__ import annotations

import re

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent, QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QInputDialog,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QWidget,
)

from gui import announce
from gui.window import PAGES
from tests.helpers.desk import Desk, Script


@pytest.fixture
def three(desk: Desk) -> Desk:
    """A window in front with three conversations, the newest first: C, B, A."""
    for title in "ABC":
        kept = desk.program.history
        kept.ask(kept.create(title=title), f"About {title}?", None)
    desk.chat.reload_list()
    desk.program.window.activateWindow()
    desk.qtbot.waitUntil(lambda: QApplication.focusWidget() is not None)
    return desk


def titles(desk: Desk) -> list[str]:
    return [desk.chat.list.item(row).text() for row in range(desk.chat.list.count())]


def press(key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    focus = QApplication.focusWidget()
    assert focus is not None
    QTest.keyClick(focus, key, modifier)


# --- keys ----------------------------------------------------------------------------------------


def test_down_goes_from_the_search_to_the_list_and_escape_clears_the_search(three: Desk) -> None:
    chat = three.chat
    chat.search.setFocus()
    QTest.keyClicks(chat.search, "b?")
    assert titles(three) == ["B"]
    press(Qt.Key.Key_Down)
    assert chat.list.hasFocus()
    assert chat.list.currentRow() == 0
    press(Qt.Key.Key_Return)
    assert chat.conversation is not None
    assert chat.conversation.title == "B"
    chat.search.setFocus()
    press(Qt.Key.Key_Escape)
    assert (chat.search.text(), titles(three)) == ("", ["C", "B", "A"])
    press(Qt.Key.Key_Escape)  # nothing is left to clear
    assert chat.composer.hasFocus()


def test_delete_removes_the_row_and_shows_the_next_one(three: Desk) -> None:
    chat = three.chat
    chat.list.setFocus()
    chat.list.setCurrentRow(1)
    press(Qt.Key.Key_Return)
    press(Qt.Key.Key_Delete)
    assert titles(three) == ["C", "A"]
    assert chat.conversation is not None
    assert chat.conversation.title == "A"
    assert chat.list.hasFocus()
    press(Qt.Key.Key_Delete)
    press(Qt.Key.Key_Delete)
    assert titles(three) == []
    press(Qt.Key.Key_Delete)  # of an empty list


def test_deletions_are_undone_one_after_the_other(three: Desk) -> None:
    chat = three.chat
    chat.list.setFocus()
    chat.list.setCurrentRow(0)
    for _ in range(3):
        press(Qt.Key.Key_Delete)
    assert chat.undo.text() == "Undo delete (3)"
    chat.undo.click()
    assert titles(three) == ["A"]
    chat.list.setFocus()
    press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert titles(three) == ["B", "A"]
    assert chat.undo.text() == "Undo delete"
    chat.undo.click()
    assert titles(three) == ["C", "B", "A"]
    assert not chat.undo.isVisible()


def test_f2_renames_the_row(three: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(parent: QWidget, title: str, label: str, *, text: str) -> tuple[str, bool]:
        asked.append(text)
        return "Other", True

    monkeypatch.setattr(QInputDialog, "getText", answer)
    three.chat.list.setFocus()
    three.chat.list.setCurrentRow(2)
    press(Qt.Key.Key_F2)
    assert asked == ["A"]
    assert sorted(titles(three)) == ["B", "C", "Other"]


def test_keys_of_the_list_do_nothing_while_a_question_is_typed(three: Desk) -> None:
    chat = three.chat
    chat.list.setCurrentRow(0)
    chat.composer.setFocus()
    QTest.keyClicks(chat.composer, "ab")
    press(Qt.Key.Key_Home)
    press(Qt.Key.Key_Delete)
    press(Qt.Key.Key_F2)
    assert chat.composer.toPlainText() == "b"
    assert len(titles(three)) == 3


def test_the_last_answer_is_copied_by_key(desk: Desk, script: Script) -> None:
    desk.open_demo()
    desk.ask("First?")
    desk.ask("Second?")
    QGuiApplication.clipboard().setText("before")
    desk.program.window.activateWindow()
    desk.chat.composer.setFocus()
    desk.qtbot.waitUntil(desk.chat.composer.hasFocus)
    press(Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    assert QGuiApplication.clipboard().text().strip() == "It is red."


def test_escape_stops_first_and_then_closes_the_message(desk: Desk, script: Script) -> None:
    desk.open_demo()
    script.hold = True
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers > 0)
    desk.chat.show_message("A message.")
    desk.program.window.activateWindow()
    desk.chat.composer.setFocus()
    desk.qtbot.waitUntil(desk.chat.composer.hasFocus)
    press(Qt.Key.Key_Escape)
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    desk.chat.show_message("A message.")
    press(Qt.Key.Key_Escape)
    assert desk.chat.message == ""


# --- names ---------------------------------------------------------------------------------------


def spoken(widget: QWidget) -> str:
    found = QAccessible.queryAccessibleInterface(widget)
    assert found is not None
    return str(found.text(QAccessible.Text.Name))


def plain(text: str) -> str:
    return re.sub(r"\W+", "", text).casefold()


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_what_is_spoken_contains_what_is_written(desk: Desk, language: str) -> None:
    desk.open_demo()
    desk.ask("What is in the picture?")
    desk.chat.show_message("A message.")
    before = desk.chat
    desk.program.settings.set("language", language)
    if language != "en":
        desk.qtbot.waitUntil(lambda: desk.chat is not before, timeout=20_000)
    hidden = []
    for page in PAGES:
        desk.program.window.show_page(page.name)
        for widget in desk.program.window.findChildren(QWidget):
            if isinstance(widget, QLabel | QAbstractButton) and widget.text():
                written = plain(widget.text())
                if not widget.text().isascii() and language == "en":
                    continue  # the names of languages
                cut = "…" in widget.text() and "\n" in widget.text()  # a name that has no room
                if len(written) > 1 and not cut and written not in plain(spoken(widget)):
                    hidden.append(f"{page.name}: {widget.text()!r} is {spoken(widget)!r}")
    assert not hidden


def test_every_control_has_a_name(desk: Desk) -> None:
    desk.open_demo()
    nameless = []
    for page in PAGES:
        desk.program.window.show_page(page.name)
        shown = desk.program.window.page(page.name)
        assert shown is not None
        for widget in shown.findChildren(QWidget):
            kind = isinstance(
                widget,
                QAbstractButton | QLineEdit | QPlainTextEdit | QComboBox | QAbstractSpinBox,
            )
            inner = isinstance(widget.parent(), QComboBox | QAbstractSpinBox | QLineEdit)
            if kind and not inner and widget.isVisible() and not spoken(widget):
                nameless.append(f"{page.name}: {widget}")
    assert not nameless


@pytest.mark.parametrize("name", ["batch", "convert", "evaluate", "teach", "settings"])
def test_every_field_of_a_form_belongs_to_a_label(desk: Desk, name: str) -> None:
    desk.program.window.show_page(name)
    page = desk.program.window.page(name)
    assert page is not None
    owned = {label.buddy(): label for label in page.findChildren(QLabel) if label.buddy()}
    fields = [
        field
        for field in page.findChildren(QWidget)
        if isinstance(field, QLineEdit | QPlainTextEdit | QComboBox | QAbstractSpinBox)
        and not isinstance(field.parent(), QComboBox | QAbstractSpinBox)
    ]
    above_the_table = ("Search in names and answers", "Which pictures are shown")
    fields = [field for field in fields if field.accessibleName() not in above_the_table]
    assert len(fields) >= 3
    for field in fields:
        assert field in owned, field.accessibleName()
        assert owned[field].text().rstrip(":") in field.accessibleName()


# --- what is spoken ------------------------------------------------------------------------------


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What a screen reader would speak, and whether at once."""
    said: list[tuple[str, bool]] = []

    class Listener:
        AnnouncementPoliteness = QAccessible.AnnouncementPoliteness

        @staticmethod
        def updateAccessibility(event: QAccessibleAnnouncementEvent) -> None:  # noqa: N802 - Qt's
            assertive = QAccessible.AnnouncementPoliteness.Assertive
            said.append((event.message(), event.politeness() is assertive))

    monkeypatch.setattr(announce, "QAccessible", Listener)
    return said


def test_the_end_of_an_answer_is_spoken(
    desk: Desk, script: Script, heard: list[tuple[str, bool]]
) -> None:
    desk.open_demo()
    desk.ask("What is it?")
    assert heard == [("The answer is complete: It is **red**.", False)]
    script.hold = True
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers > 0)
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert heard[-1] == ("The answer was stopped.", False)


def test_an_answer_that_fails_is_spoken_at_once(
    desk: Desk, script: Script, heard: list[tuple[str, bool]]
) -> None:
    desk.open_demo()
    script.hold = True
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers > 0)
    desk.engine.die("The engine was killed.")
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert ("The engine was killed. Start it again.", True) in heard
