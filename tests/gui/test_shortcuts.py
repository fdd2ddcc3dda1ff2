"""The list of keys has every key of the window, and only keys that do something."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QAction, QImage, QKeyEvent, QKeySequence, QShortcut
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot

from gui.chat.viewer import Viewer
from gui.shortcuts import (
    CAPTURE,
    CHAT,
    EDITING,
    GROUPS,
    LIST,
    PICTURE,
    WINDOW,
    Group,
    ShortcutDialog,
)
from gui.window import PAGES
from tests.gui.test_layout import cut_off
from tests.helpers.desk import Desk

OF_FIELDS = {"Enter", "Shift+Enter", "Down"}
"""Keys that text fields handle themselves."""
HANDLED = {
    "gui/chat/viewer.py": PICTURE, "gui/chat/capture.py": CAPTURE,
    "gui/chat/question_editor.py": EDITING, "gui/batch/table.py": EDITING,
    "gui/chat/composer.py": CHAT, "gui/chat/sidebar.py": LIST,
    "gui/chat/sampling.py": WINDOW, "gui/batch/own_files.py": WINDOW,
}  # fmt: skip
"""The files that read keys from events."""


def name_of(*keys: QKeySequence | str | Qt.Key) -> str:
    """Return the name of a key as the list has it."""
    name = QKeySequence(*keys).toString(QKeySequence.SequenceFormat.PortableText)
    return name.replace("Return", "Enter")


def listed(*groups: Group) -> set[str]:
    return {name_of(key) for group in groups for row in group.rows for key in row.keys}


def test_every_shortcut_of_the_window_is_listed_and_every_listed_one_exists(desk: Desk) -> None:
    window = desk.program.window
    for page in PAGES:
        window.show_page(page.name)
    shortcuts = {
        name_of(shortcut)
        for action in window.findChildren(QAction)
        for shortcut in action.shortcuts()
    }
    shortcuts |= {name_of(shortcut.key()) for shortcut in window.findChildren(QShortcut)}
    assert len(shortcuts) > 20
    assert shortcuts - listed(WINDOW, CHAT, LIST) == set()
    assert listed(WINDOW, CHAT, LIST) - shortcuts == OF_FIELDS


def accepted(viewer: Viewer, *, draft: bool, modifiers: Qt.KeyboardModifier) -> set[str]:
    """Return which keys the viewer uses. draft: while a rectangle is chosen by keys."""
    found = set()
    for key in Qt.Key:
        viewer.set_choosing(False)
        if draft:
            viewer.begin_by_keys()
        event = QKeyEvent(QEvent.Type.KeyPress, key, modifiers)
        QApplication.sendEvent(viewer, event)
        if event.isAccepted():
            text = QKeySequence(modifiers.value | key.value).toString()
            found.add(text.replace("Return", "Enter"))
    return found


def test_every_key_of_the_picture_is_listed_and_works(qtbot: QtBot) -> None:
    viewer = Viewer(keeps_escape=True)
    qtbot.addWidget(viewer)
    viewer.resize(300, 200)
    image = QImage(600, 400, QImage.Format.Format_RGB888)
    viewer.show_levels([image])
    none, shift = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
    control = Qt.KeyboardModifier.ControlModifier
    used = accepted(viewer, draft=False, modifiers=none)
    used |= accepted(viewer, draft=True, modifiers=none)
    for held in (shift, control, control | shift):
        arrows = accepted(viewer, draft=True, modifiers=held)
        used |= {name for name in arrows if re.search("Left|Right|Up$|Down", name)}
    used -= {name for name in used if re.search("PgUp|PgDown", name) and "+" in name}
    assert used == listed(PICTURE)


def test_every_file_that_reads_keys_is_listed() -> None:
    for file in sorted(Path("gui").rglob("*.py")):
        names = {
            name_of(Qt.Key[node.attr])
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and node.attr.startswith("Key_")
        }
        if names:
            assert names <= listed(HANDLED[file.as_posix()]), file


def test_the_keys_that_the_manual_names_are_listed() -> None:
    manual = Path("docs/window.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:(?:Ctrl|Alt)\+(?:Shift\+)?\w+)|\bF\d+\b|\bPg\w+|\bDel\b", manual))
    assert len(named) > 8
    assert {name_of(keys) for keys in named} <= listed(*GROUPS)
    [sentence] = re.findall(r"Keys: (.*?)\. The menu", manual, re.DOTALL)
    for row in PICTURE.rows:
        shown = [key for key in row.keys if key in re.findall(r"[\w+-]+", sentence)]
        arrows = "arrow" in sentence and "Left" in "".join(row.keys)
        assert shown or arrows, row.text


@pytest.mark.parametrize("points", [11, 20])
def test_the_list_fits_the_screen_and_its_end_can_be_reached(desk: Desk, points: int) -> None:
    desk.program.settings.set("font_points", points)
    window = desk.program.window
    window.activateWindow()
    QTest.keySequence(QApplication.focusWidget() or window, QKeySequence("F1"))
    sheet = window.findChild(ShortcutDialog)
    assert sheet is not None
    desk.qtbot.waitExposed(sheet)
    texts = [label.text() for label in sheet.findChildren(QLabel)]
    assert "← → ↑ ↓" in texts
    assert len(texts) == sum(1 + 2 * len(group.rows) for group in GROUPS)
    assert cut_off(sheet) == []
    room = sheet.screen().availableSize()
    assert (sheet.width(), sheet.height()) <= (room.width(), room.height())
    sheet.area.setFocus()
    QTest.keyClick(sheet.area, Qt.Key.Key_End)
    bar = sheet.area.verticalScrollBar()
    for _ in range(60):
        QTest.keyClick(sheet.area, Qt.Key.Key_PageDown)
    assert bar.value() == bar.maximum()
    assert not sheet.area.horizontalScrollBar().maximum()
    sheet.reject()
