"""The window's words: Qt's own in Chinese, and no options or commands of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import Formatter

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QDialogButtonBox,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.forecast.table import text_columns
from cogvlm2_lite.text import Text
from gui.memory.page import MemoryPage
from gui.memory.plan import plan_for
from gui.shortcuts import ShortcutDialog
from gui.translation import error_text, translate
from gui.window import PAGES
from gui.wording import WORDING
from tests.helpers.desk import Desk
from tools.templates import find_templates, places

COMMAND = re.compile(r"(?<![\w}-])--?[a-z][a-z-]+|cogvlm2-lite |`|pip install|same command|DST")
TERMINAL = (
    "cogvlm2_lite/cli/", "cogvlm2_lite/server/", "cogvlm2_lite/evaluate/", "cogvlm2_lite/hf/",
    "cogvlm2_lite/mcp_server", "cogvlm2_lite/bench", "gui/command.py",
)  # fmt: skip
"""Messages that only a terminal or a client of the server shows."""
NEVER = (
    "Install it with: pip install",  # of answers with a schema
    "--measure measures", "Add --device cpu, or leave --measure", "The known cards are",
    "--lm-head works only", "--offload is never", "Leave --offload at auto",
    "Memory suffices for", "Use a larger budget, or make lm_head smaller",
    "Use at least {least}; 64 is a good number", "Add --calibrate built-in or", "--keep {pattern}",
    "Unknown command",
)  # fmt: skip
"""Messages about options that the window never gives."""


def test_every_message_that_names_a_command_has_words_for_the_window() -> None:
    wanted = {
        template.text
        for template in find_templates()
        if COMMAND.search(template.text)
        and not str(template.file).startswith(TERMINAL)
        and not any(text in template.text for text in NEVER)
    }
    assert wanted - set(WORDING) == set()
    known = {template.text for template in find_templates()}
    for template, words in WORDING.items():
        assert template in known, f"gone: {template}"
        assert set(places(words)) <= set(places(template)), words
        assert not COMMAND.search(words), words
        assert Formatter().parse(words)


def test_an_error_in_the_window_names_no_command() -> None:
    error = CogVLM2LiteError(
        "{file} has no pictures.", hint="Add --recursive to include subfolders.", file="a -- b"
    )
    assert error_text(error) == (
        "a -- b has no pictures. Choose “Include subfolders” to use the pictures in them, too."
    )
    size = Text("A context of {context} tokens would fit: --context {context}.", context=2048)
    assert translate(Text("{a} {b}", a=size, b="x")).count("2048") == 1
    assert "--" not in translate(size)
    assert "--recursive" in error.hint  # the terminal keeps its words


def shown_texts(desk: Desk) -> Iterator[str]:
    for page in PAGES:
        desk.program.window.show_page(page.name)
        shown = desk.program.window.page(page.name)
        assert shown is not None
        for widget in shown.findChildren(QWidget):
            if isinstance(widget, QLineEdit):
                yield widget.placeholderText()
            elif isinstance(widget, QPlainTextEdit) and page.name != "about":
                yield f"{widget.placeholderText()} {widget.toPlainText()}"
            elif isinstance(widget, QLabel | QAbstractButton):
                yield widget.text()
            yield widget.toolTip()


def test_no_page_names_a_command(desk: Desk) -> None:
    desk.program.window.show_page("memory")
    page = desk.program.window.page("memory")
    assert isinstance(page, MemoryPage)
    desk.qtbot.waitUntil(lambda: bool(page.table.toPlainText()), timeout=20_000)
    for text in shown_texts(desk):
        assert not COMMAND.search(text), text


# --- Chinese -------------------------------------------------------------------------------------


@pytest.fixture
def chinese(desk: Desk) -> Iterator[Desk]:
    before = desk.chat
    desk.program.settings.set("language", "zh_CN")
    desk.qtbot.waitUntil(lambda: desk.chat is not before, timeout=20_000)
    yield desk
    desk.program.settings.set("language", "en")


def test_buttons_and_menus_of_qt_are_chinese(chinese: Desk) -> None:
    box = QDialogButtonBox(
        QDialogButtonBox.StandardButton.Yes
        | QDialogButtonBox.StandardButton.No
        | QDialogButtonBox.StandardButton.Cancel
        | QDialogButtonBox.StandardButton.Close
        | QDialogButtonBox.StandardButton.Save
    )
    texts = [button.text() for button in box.buttons()]
    dialog = ShortcutDialog()
    texts += [button.text() for button in dialog.findChild(QDialogButtonBox).buttons()]
    line = QLineEdit("word")
    for menu in (
        line.createStandardContextMenu(),
        chinese.chat.composer.createStandardContextMenu(),
    ):
        texts += [action.text() for action in menu.actions() if action.text()]
    assert len(texts) > 15
    for text in texts:
        assert re.search(r"[\u4e00-\u9fff]", text), text


def test_english_comes_back(chinese: Desk) -> None:
    before = chinese.chat
    chinese.program.settings.set("language", "en")
    chinese.qtbot.waitUntil(lambda: chinese.chat is not before, timeout=20_000)
    box = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
    assert box.buttons()[0].text() == "Cancel"


def test_the_plan_is_chinese_and_its_columns_are_aligned(chinese: Desk) -> None:
    chinese.program.window.show_page("memory")
    page = chinese.program.window.page("memory")
    assert isinstance(page, MemoryPage)
    chinese.qtbot.waitUntil(lambda: bool(page.table.toPlainText()), timeout=20_000)
    text = page.table.toPlainText()
    english = re.findall(r"\b(?:the|in memory|expected|per|peak|encode|decode|expert|from)\b", text)
    assert not english, text
    rows = [line for line in text.splitlines() if re.search(r"GiB\s+\d.*GiB$", line)]
    assert len({text_columns(row) for row in rows}) == 1, rows
    assert max(map(text_columns, text.splitlines())) < 130


def test_the_plan_of_the_terminal_stays_english() -> None:
    text = plan_for(None, vram="8GiB", ram=None).text
    assert text.isascii()
    assert "prefill with picture" in text


def test_every_label_of_every_page_is_chinese(chinese: Desk) -> None:
    english = []
    for page in PAGES:
        chinese.program.window.show_page(page.name)
        shown = chinese.program.window.page(page.name)
        assert shown is not None
        for label in shown.findChildren(QLabel):
            text = label.text()
            plain = label.textFormat() is not Qt.TextFormat.RichText
            words = re.findall(r"\b(?:the|that|is|are|for|and|of|with|in|to)\b", text)
            if plain and words and not re.search(r"[\u4e00-\u9fff]", text):
                english.append(f"{page.name}: {text}")
    assert not english
