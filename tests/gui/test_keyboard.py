"""Every control of every page is reached by Tab, one after the other."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QListWidget,
    QPlainTextEdit,
    QScrollBar,
    QTableView,
    QWidget,
)

from gui.window import PAGES, RailButton
from tests.helpers.desk import Desk

CONTROLS = (
    QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QListWidget,
    QPlainTextEdit, QTableView,
)  # fmt: skip
PARTS = (QAbstractSpinBox, QLineEdit, QComboBox, QTableView)
"""What lies inside of these is Qt's own, and reached through them."""


def name_of(widget: QWidget) -> str:
    return f"{type(widget).__name__} {widget.accessibleName()}"


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_tab_reaches_every_control(desk: Desk, page: str) -> None:
    desk.open_demo()
    desk.ask("Name?")
    window = desk.program.window
    window.activateWindow()
    window.show_page(page)
    shown = window.page(page)
    assert shown is not None
    desk.qtbot.waitUntil(lambda: QApplication.focusWidget() is not None)
    wanted = {
        name_of(widget)
        for widget in shown.findChildren(QWidget)  # the rail has arrows and Alt+1 to Alt+7
        if isinstance(widget, CONTROLS)
        and not isinstance(widget, QScrollBar)
        and widget.isVisible()
        and widget.isEnabled()
        and not isinstance(widget.parent(), PARTS)
    }
    reached: list[str] = []
    for _ in range(200):
        focus = QApplication.focusWidget()
        assert focus is not None
        reached.append(name_of(focus))
        QTest.keyClick(focus, Qt.Key.Key_Tab)
    assert wanted - set(reached) == set(), reached[-12:]


def test_the_focus_comes_back_to_the_composer_from_a_changed_question(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("First?")
    desk.program.window.activateWindow()
    conversation = desk.chat.conversation
    assert conversation is not None
    turn = conversation.path()[0].id
    desk.chat.edit_question(turn)
    editor = desk.chat.transcript.view_of(turn).editor
    assert editor is not None
    desk.qtbot.waitUntil(lambda: editor.text.hasFocus())
    QTest.keyClick(editor.text, Qt.Key.Key_Escape)
    assert QApplication.focusWidget() is desk.chat.composer


def test_a_new_conversation_is_begun_wherever_the_focus_is(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("First?")
    rail = desk.program.window.findChildren(RailButton)[0]
    desk.program.window.activateWindow()
    rail.setFocus()
    QTest.keyClick(rail, Qt.Key.Key_N, Qt.KeyboardModifier.ControlModifier)
    assert desk.chat.conversation is None
