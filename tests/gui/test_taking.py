"""Taking an answer away: what is copied can be pasted elsewhere, and looks as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtGui import QGuiApplication, QTextCursor, QTextDocument
from PySide6.QtWidgets import QAbstractButton
from pytestqt.qtbot import QtBot

from cogvlm2_lite.events import TextDelta
from gui import theme
from gui.chat.answer import Prose
from gui.chat.blocks import chunks
from gui.chat.markdown import DocumentWriter, plain_text
from gui.chat.transcript import TurnView
from gui.data.rendering import to_html, to_plain
from tests.helpers.desk import Desk, Script
from tests.helpers.dialogs import save_as, working

pytestmark = pytest.mark.usefixtures("qapp")  # fonts need a program

ANSWER = """The *sum* of \\(a_1 * b_1\\) costs $5 or $6:

| name | n |
|:-----|--:|
| **x** | 1 |
| =y | $x^2$ |

1. one
2. two
   - deep

> said *so*

\\[ \\frac{a_1}{b} * c * d \\]

```py
print("a\\tb")
```"""
PLAIN = """The sum of \\(a_1 * b_1\\) costs $5 or $6:

name\tn
x\t1
=y\t$x^2$

1. one
2. two
   - deep

> said so

\\[ \\frac{a_1}{b} * c * d \\]

print("a\\tb")"""


def view_of(desk: Desk, script: Script, answer: str) -> TurnView:
    script.events = [TextDelta(text=answer)]
    desk.open_demo()
    desk.ask("What?")
    conversation = desk.chat.conversation
    assert conversation is not None
    return desk.chat.transcript.view_of(conversation.path()[0].id)


def button(view: TurnView, name: str) -> QAbstractButton:
    [found] = [b for b in view.findChildren(QAbstractButton) if b.accessibleName() == name]
    return found


def test_an_answer_is_copied_with_tables_lists_and_formulas(desk: Desk, script: Script) -> None:
    view = view_of(desk, script, ANSWER)
    copy = button(view, "Copy as text")
    copy.click()
    mime = QGuiApplication.clipboard().mimeData()
    assert mime.text() == PLAIN
    html = mime.html()
    assert "=y</td>" in html
    assert "<ol>" in html
    assert "\\(a_1 * b_1\\)" in html
    assert "<math" not in html
    assert copy.text() == "Copied"
    desk.qtbot.waitUntil(lambda: copy.text() == "")
    button(view, "Copy as Markdown").click()
    assert QGuiApplication.clipboard().text() == ANSWER


def test_a_table_alone_is_copied_and_saved(desk: Desk, script: Script, tmp_path: Path) -> None:
    view = view_of(desk, script, ANSWER)
    menu = view.table_button.menu()
    menu.aboutToShow.emit()
    assert [action.text() for action in menu.actions()] == ["Copy the table", "Save as CSV…"]
    menu.actions()[0].trigger()
    mime = QGuiApplication.clipboard().mimeData()
    assert mime.text() == "name\tn\nx\t1\n=y\t$x^2$"
    assert "<td>=y</td>" in mime.html()
    with working(save_as(str(tmp_path / "t"))):
        menu.actions()[1].trigger()
    desk.qtbot.waitUntil(lambda: "was saved" in desk.chat.message)
    assert (tmp_path / "t.csv").read_text(encoding="utf-8-sig") == "name,n\nx,1\n'=y,$x^2$\n"


def test_an_answer_without_a_table_has_no_button_for_it(desk: Desk, script: Script) -> None:
    view = view_of(desk, script, "```\n| a | b |\n|---|---|\n```\nno table")
    assert not view.table_button.isVisibleTo(view)


def test_several_tables_are_named_by_their_number(desk: Desk, script: Script) -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n"
    view = view_of(desk, script, f"{table}\nand\n\n{table.replace('1', '3')}")
    menu = view.table_button.menu()
    menu.aboutToShow.emit()
    [action] = [a for a in menu.actions() if a.text() == "Table 2: Copy the table"]
    action.trigger()
    assert QGuiApplication.clipboard().text() == "a\tb\n3\t2"


@pytest.mark.parametrize(
    "text",
    [
        r"\(a_1 * b_1 * c\)", r"$x_1 * y_1$ and $x_2 * y_2$", r"\[\frac{a}{b}\]",
        r"`\(x\)` \(y_1\)", "$$\na_1 * b_1\n$$", r"\(x_1", r"a \(",
        r"\begin{align} a_1 &= b_1 \\ c_1 &= d_1 \end{align}",
    ],
)  # fmt: skip
def test_formulas_stand_as_they_were_written(text: str) -> None:
    document = QTextDocument()
    DocumentWriter(document).show(chunks(text), at_once=True)
    assert plain_text(document) == text.replace("`", "")


def test_escapes_and_prices_are_no_formulas() -> None:
    document = QTextDocument()
    DocumentWriter(document).show(
        chunks(r"\*a\* costs $5 and $6, \\(b\\) \(c *d* \$7"), at_once=True
    )
    assert plain_text(document) == r"*a* costs $5 and $6, \(b\) \(c d $7"


def test_a_formula_in_a_cell_keeps_its_signs() -> None:
    document = QTextDocument()
    DocumentWriter(document).show(chunks("| a |\n|---|\n| \\(x_1 * y_1 * z\\) |"), at_once=True)
    assert plain_text(document).strip() == "a\n\\(x_1 * y_1 * z\\)"


def test_a_selection_is_copied_with_tabs_and_marks(qtbot: QtBot) -> None:
    prose = Prose()
    qtbot.addWidget(prose)
    prose.fit(500)
    prose.show_text("1. one\n2. two\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    cursor = prose.textCursor()
    cursor.select(QTextCursor.SelectionType.Document)
    prose.setTextCursor(cursor)
    prose.copy()
    lines = [line for line in QGuiApplication.clipboard().text().split("\n") if line]
    assert lines == ["1. one", "2. two", "a\tb", "1\t2"]


def test_headings_are_in_proportion_and_quotes_have_a_bar(qtbot: QtBot) -> None:
    prose = Prose()
    qtbot.addWidget(prose)
    prose.fit(500)
    prose.show_text("# One\n\n## Two\n\n### Three\n\ntext\n\n> quoted")
    prose.show()
    heights = []
    block = prose.document().begin()
    while block.isValid():
        heights.append(round(block.layout().lineAt(0).height()))
        block = block.next()
    one, two, three, text, _ = heights
    assert 1.3 < one / text < 1.7
    assert text < two < one
    assert three == text
    picture = prose.grab().toImage()
    quoted = prose.document().lastBlock()
    place = prose.document().documentLayout().blockBoundingRect(quoted)
    bar = picture.pixelColor(
        round(prose.document().documentMargin()) + 1, round(place.center().y())
    )
    assert bar.name() == "#23665a"


def test_text_of_lists_in_lists_and_links() -> None:
    assert to_plain("- a\n\n  b\n- [c](https://x.y)") == "- a\n\n  b\n- c (https://x.y)"
    assert to_plain("3. a\n4. b") == "3. a\n4. b"
    assert "<script" not in to_html("<script>alert(1)</script>")


def test_formulas_and_code_follow_the_theme(desk: Desk, script: Script) -> None:
    desk.program.settings.set("theme", "light")
    view = view_of(desk, script, r"\(x\) and `code`")
    [prose] = view.answer.parts
    assert isinstance(prose, Prose)

    def colours() -> list[str]:
        cursor = QTextCursor(prose.document())
        found = []
        for place in (1, 14):
            cursor.setPosition(place)
            form = cursor.charFormat()
            found.append((form.foreground() if place == 1 else form.background()).color().name())
        return found

    assert colours() == [theme.LIGHT.accent, theme.LIGHT.code]
    desk.program.settings.set("theme", "dark")
    desk.qtbot.waitUntil(lambda: colours() == [theme.DARK.accent, theme.DARK.code])
