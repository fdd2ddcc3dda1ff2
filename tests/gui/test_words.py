"""The window's words: Qt's own in Chinese, and no options or commands of the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from xml.etree import ElementTree

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QTextTable
from PySide6.QtWidgets import (
    QAbstractButton,
    QDialogButtonBox,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.text import Text
from gui.app import TRANSLATIONS
from gui.memory.page import MemoryPage
from gui.memory.plan import plan_for
from gui.shortcuts import ShortcutDialog
from gui.translation import error_text, fill, sentences, translate
from gui.window import PAGES
from gui.wording import WORDING
from tests.gui.test_viewer import drawn, png
from tests.helpers.desk import Desk
from tests.helpers.giving import give_bytes
from tools.templates import find_templates, places

COMMAND = re.compile(r"(?<![\w}-])--?[a-z][a-z-]+|cogvlm2-lite |`|pip install|same command|DST")
COMMANDS = ("cogvlm2_lite/cli/finetune.py",)
"""Commands whose errors the window shows."""
TERMINAL = (
    "cogvlm2_lite/cli/", "cogvlm2_lite/server/", "cogvlm2_lite/evaluate/compare.py",
    "cogvlm2_lite/evaluate/exports.py", "cogvlm2_lite/hf/", "cogvlm2_lite/mcp_server",
    "cogvlm2_lite/bench", "cogvlm2_lite/finetune/gradients", "gui/command.py", "quantize/merge",
)  # fmt: skip
"""Messages that only a terminal or a client of the server shows."""
NEVER = (
    "Install it with: pip install",  # of answers with a schema
    "--measure measures", "Add --device cpu, or leave --measure", "The known cards are",
    "--lm-head works only", "--offload is never", "Leave --offload at auto",
    "Memory suffices for", "Use a larger budget, or let it choose",
    "Use at least {least}; 64 is a good number", "Add --calibrate built-in or", "--keep {pattern}",
    "Use --dtype float16 or",
    "--draft-text-suffix must be", "Unknown command", "Leave --score-only out",
    "--held-out must be a share",
    "share of --replay", "as in --adapter mine=", "Name them: --adapter", "--card works only with",
    "Use other rows for --held-out",
    "with --adapter there is no calibration", "--calibrate and --adapter", "Use merge to write",
    "Leave out --activations, or", "--activations int8 has no effect",
    "--keep needs a 4-bit", "Leave --keep out", "--card works only",
    "Use other rows for --held-out",
)  # fmt: skip
"""Messages about options that the window never gives."""


def test_every_message_that_names_a_command_has_words_for_the_window() -> None:
    wanted = {
        template.text
        for template in find_templates()
        if COMMAND.search(template.text)
        and (template.file in COMMANDS or not str(template.file).startswith(TERMINAL))
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
            elif isinstance(widget, QTextEdit):
                yield widget.toPlainText()
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


STRAY = re.compile(r"[\u3001-\u9fff\uff01-\uff65] [\u3001-\u9fff\uff01-\uff65]")
"""A blank between two Chinese letters."""


def test_a_message_about_a_pasted_picture_has_no_blank_inside_of_chinese(chinese: Desk) -> None:
    chip = chinese.chat.chip
    give_bytes(chinese.chat, b"\x89PNG\r\n\x1a\n" + b"0" * 400)
    chinese.qtbot.waitUntil(lambda: "损坏" in chip.text.text(), timeout=20_000)
    assert "这张图片已损坏" in chip.text.text()
    assert not STRAY.search(chip.text.text())
    give_bytes(chinese.chat, png(drawn(40, 30)))
    draft = chinese.chat._giving.draft
    chinese.qtbot.waitUntil(lambda: draft.given is not None and draft.given.picture is not None)
    chinese.chat.chip.remove_button.click()
    assert chip.text.text() == "已移除粘贴的图片。"


def test_no_template_has_a_blank_next_to_chinese_that_is_put_in() -> None:
    checked = 0
    for message in ElementTree.parse(TRANSLATIONS / "zh_CN.ts").iter("translation"):
        template = message.text or ""
        fields = list(Formatter().parse(template)) if "{" in template else []
        names = {name: "图片" for _, name, form, _ in fields if name and not form}
        if names and all(name in names for _, name, _, _ in fields if name):
            before = len(STRAY.findall(re.sub(r"\{.*?\}", "x", template)))
            assert len(STRAY.findall(fill(template, **names))) == before, template
            checked += 1
    assert checked > 300


@pytest.mark.parametrize(
    ("template", "value", "wanted"),
    [
        ("{file} 已损坏", "照片", "照片已损坏"),
        ("{file} 已损坏", "a.png", "a.png 已损坏"),
        ("{file} 已损坏", "图片.png", "图片.png 已损坏"),
        ("打开 {file} 吗？", "照片", "打开照片吗？"),
        ("打开 {file}", "a.png", "打开 a.png"),
        ("{count} 张 {file}", "照片", "3 张照片"),
        ("{file} is gone", "照片", "照片 is gone"),
        ("My {file}: {count:.1f}%", "my photo", "My my photo: 3.0%"),
        ("{file!r}  已", "照片", "'照片'  已"),
        ("{{{file}}}", "照片", "{照片}"),
    ],
)
def test_a_blank_stays_next_to_letters_that_are_not_chinese(
    template: str, value: str, wanted: str
) -> None:
    assert fill(template, file=value, count=3) == wanted


def test_sentences_have_a_blank_between_them_only_where_the_language_has_one() -> None:
    assert sentences("One.", "", "Two.") == "One. Two."
    assert sentences("已损坏。", "请重新下载。") == "已损坏。请重新下载。"
    assert sentences("已损坏。", "a.png 还在。") == "已损坏。a.png 还在。"
    joined = Text("{part1} {part2}", part1="已损坏。", part2="请重新下载。")
    assert translate(joined) == "已损坏。请重新下载。"


def test_translated_texts_get_their_values_by_fill() -> None:
    for file in sorted(Path("gui").rglob("*.py")):
        if file.name in ("desktop_entry.py", "export.py"):  # files, which have their own rules
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr == "format":
                assert not node.keywords, f"{file}:{node.lineno} needs gui.translation.fill"


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
    layout, places = page.table.document().documentLayout(), []
    for table in page.table.document().rootFrame().childFrames():
        assert isinstance(table, QTextTable)
        assert (table.columns(), table.rows() > 6) == (5, True)
        for column in range(table.columns()):
            blocks = [
                table.cellAt(row, column).firstCursorPosition().block()
                for row in range(table.rows())
            ]
            boxes = [layout.blockBoundingRect(block) for block in blocks]
            assert len({(box.left(), box.right()) for box in boxes}) == 1
            right = Qt.AlignmentFlag.AlignRight
            assert all(bool(block.blockFormat().alignment() & right) for block in blocks) == (
                column > 0
            )
        places.append(table.rows())
    assert places


def test_a_copy_of_the_plan_has_tabs_between_its_cells(desk: Desk) -> None:
    desk.program.window.show_page("memory")
    page = desk.program.window.page("memory")
    assert isinstance(page, MemoryPage)
    desk.qtbot.waitUntil(lambda: bool(page.table.toPlainText()), timeout=20_000)
    page.table.selectAll()
    page.table.copy()
    mime = QGuiApplication.clipboard().mimeData()
    (row,) = (line for line in mime.text().splitlines() if line.startswith("activations\t"))
    assert re.fullmatch(r"activations(\t[\d.]+ [KMG]iB){4}", row)
    assert "<table" in mime.html()


def test_the_plan_of_the_terminal_stays_english() -> None:
    shown = plan_for(None, vram="8GiB", ram=None)
    (table,) = shown.tables
    assert all(cell.isascii() for row in table.rows for cell in row)
    assert "prefill with picture" in table.rows[0]
    assert (shown.summary + "".join(shown.notes)).isascii()


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
