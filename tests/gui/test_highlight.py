"""Colours in code blocks: which words have them, in both themes, and that they cost no start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from PySide6.QtGui import QColor, QGuiApplication, QTextBlock
from pytestqt.qtbot import QtBot

from cogvlm2_lite.events import TextDelta
from gui import theme
from gui.chat import highlight
from gui.chat.answer import Answer, CodeBlock
from gui.chat.highlight import language_of
from tests.gui.test_look import contrast
from tests.helpers.desk import Desk, Script

CODE = '# Twice "x".\ndef twice(x: int) -> str:\n    return "𝄞 " * 2 if x else None\n'


@pytest.fixture(autouse=True)
def fresh_lexers() -> Iterator[None]:
    yield
    highlight._request.cache_clear()


def colours_of(block: CodeBlock) -> list[dict[str, str]]:
    """Return the coloured words of each line with their colours."""
    found, line = [], block.text.document().begin()
    while line.isValid():
        found.append(words_of(line))
        line = line.next()
    return found


def words_of(line: QTextBlock) -> dict[str, str]:
    text = line.text().encode("utf-16-le")
    return {
        text[2 * form.start : 2 * (form.start + form.length)].decode("utf-16-le"):
            form.format.foreground().color().name()
        for form in line.layout().formats()
    }  # fmt: skip


def code_of(desk: Desk) -> CodeBlock:
    conversation = desk.chat.conversation
    assert conversation is not None
    view = desk.chat.transcript.view_of(conversation.path()[-1].id)
    [block] = [part for part in view.answer.parts if isinstance(part, CodeBlock)]
    return block


Show = Callable[[str, str], list[dict[str, str]]]


@pytest.fixture
def shown(qtbot: QtBot) -> Show:
    """Shows code of a language, and returns its colours when they are there."""

    def show(code: str, language: str) -> list[dict[str, str]]:
        answer = Answer()
        qtbot.addWidget(answer)
        answer.show_text(f"```{language}\n{code}\n```")
        [block] = answer.parts
        assert isinstance(block, CodeBlock)
        qtbot.waitUntil(lambda: not block.colours.busy, timeout=20_000)
        return colours_of(block)

    return show


def test_code_in_an_answer_has_colours_that_follow_the_theme(desk: Desk, script: Script) -> None:
    script.events = (TextDelta(text=f"Look:\n\n```python\n{CODE}```\n"),)
    desk.program.settings.set("theme", "light")
    desk.open_demo()
    desk.ask("Write code.")
    block = code_of(desk)
    desk.qtbot.waitUntil(lambda: not block.colours.busy, timeout=20_000)
    for place, name in enumerate(("light", "dark")):
        desk.program.settings.set("theme", name)
        colour = {kind: both[place] for kind, both in theme.CODE_COLOURS.items()}
        first, second, third = colours_of(block)
        assert first == {'# Twice "x".': colour["comment"]}
        assert second["def"] == colour["keyword"]
        assert second["twice"] == colour["name"]
        assert second["int"] == colour["builtin"]
        assert third["return"] == third["if"] == colour["keyword"]
        assert third['"𝄞 "'] == colour["string"]  # Qt counts this letter twice
        assert third["2"] == third["None"] == colour["number"]
        seen = block.grab().toImage()
        wanted = QColor(colour["keyword"]).rgb()
        assert any(
            seen.pixel(x, y) == wanted for x in range(seen.width()) for y in range(seen.height())
        )
    block.copy()
    assert QGuiApplication.clipboard().text() == CODE.removesuffix("\n")


def test_all_colours_of_code_can_be_read() -> None:
    for kind, both in theme.CODE_COLOURS.items():
        for colour, palette in zip(both, (theme.LIGHT, theme.DARK), strict=True):
            assert contrast(colour, palette.code) >= 4.5, (kind, palette.name)


@pytest.mark.parametrize(
    ("language", "code", "word", "kind"),
    [
        ("js", "const a = 1", "const", "keyword"),
        ("json", '{"a": 1.5}', "1.5", "number"),
        ("html", "<p class='x'>", "p", "name"),
        ("bash", "# note", "# note", "comment"),
        ("c++", "return 1;", "return", "keyword"),
        ("sql", "SELECT a FROM b", "SELECT", "keyword"),
        ("Python,ignore", "x = 'a'", "a", "string"),
        ("diff", "-old\n+new", "-old", "deleted"),
    ],
)
def test_languages_by_their_usual_names(
    shown: Show, language: str, code: str, word: str, kind: str
) -> None:
    found = shown(code, language)[0]
    joined = {key.strip("'\""): value for key, value in found.items()}
    assert joined[word] in theme.CODE_COLOURS[kind]


@pytest.mark.parametrize("language", ["", "nonsense-9", "../../etc", "text", "{}"])
def test_an_unknown_language_has_no_colours(shown: Show, language: str) -> None:
    assert shown("if True: 1", language) == [{}]


def test_code_that_grows_ends_with_the_colours_of_the_whole(qtbot: QtBot, shown: Show) -> None:
    answer = Answer()
    qtbot.addWidget(answer)
    text = f"```python\n{CODE}```"
    for end in range(12, len(text) + 1, 7):
        answer.show_text(text[:end])
        qtbot.wait(1)
    answer.show_text(text)
    [block] = answer.parts
    assert isinstance(block, CodeBlock)
    whole = shown(CODE.removesuffix("\n"), "python")
    qtbot.waitUntil(lambda: colours_of(block)[: len(whole)] == whole, timeout=20_000)


def test_data_in_very_long_lines_has_no_colours(shown: Show) -> None:
    assert shown("[" + "1, " * 1000 + "]", "json") == [{}]


def test_without_pygments_code_has_no_colours(shown: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    highlight._request.cache_clear()
    monkeypatch.setitem(sys.modules, "pygments.lexers", None)
    assert shown("return 1", "python") == [{}]


def test_the_start_does_not_import_pygments() -> None:
    program = "import sys, gui.chat.page, gui.app; print('pygments' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_names_of_languages() -> None:
    names = [language_of(fence) for fence in ("Python", "{.py}", "rust,ignore", "js:app.js", "")]
    assert names == ["python", "py", "rust", "js", ""]
