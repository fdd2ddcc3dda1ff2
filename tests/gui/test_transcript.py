"""The transcript: only what is seen has widgets, and finished text is not laid out again."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent, QPoint, Qt
from PySide6.QtGui import QGuiApplication, QTextDocument
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from gui.chat.answer import Answer, CodeBlock, Prose
from gui.chat.answering import draw_interval_ms
from gui.chat.blocks import LIST_ITEMS, TABLE_ROWS, Splitter, chunks, split
from gui.chat.markdown import DocumentWriter, plain_text
from gui.chat.transcript import Transcript, TurnView
from gui.data.state import Conversation, Status, Turn

pytestmark = pytest.mark.usefixtures("qapp")  # fonts need a program

HEAD = "| number | name |\n|---:|---|\n"
TEXTS = [
    "# One\n\npara **b** and `c`\n\n- a\n- b\n  - c\n\n1. x\n2. y\n\n> quote\n\n---\n\nend",
    "Here:\n- a\n- b\ncontinued\n\n  a paragraph in it\n\n- c\n\nend [l](http://x)",
    f"{HEAD}| 1 | *2* |\n\nafter\n\n{HEAD}| `x\\|y` | z |\n> quote",
    "text\n===\nmore\n---\n\n    code\n\n    more code\n\n- [ ] a\n- [x] b\n\n***\n\nx  \ny\\\nz",
    "> a\n> - b\n\n> c\nlazy\n\n5) five\n6) six\n\n<b>x</b>\n\n![i](x.png)\n\n**a\n\nb**",
    "1. a\n\n   b\n\n\n2. c\n   - d\n     - e\n\n- f\n+ g\n* * *\ntext\n2. not a list",
]


def document_of(text: str, step: int = 0) -> QTextDocument:
    """Return a document with a text that was shown at once, or as it grew."""
    document = QTextDocument()
    writer = DocumentWriter(document)
    for end in range(0, len(text), step) if step else ():
        writer.show(chunks(text[:end]))
    writer.show(chunks(text), at_once=True)
    return document


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_grew_letter_by_letter_looks_as_if_shown_at_once(text: str) -> None:
    assert document_of(text, step=1).toHtml() == document_of(text).toHtml()


@pytest.mark.parametrize("text", TEXTS)
def test_chunks_look_like_the_whole_markdown(text: str) -> None:
    whole = QTextDocument()
    github = QTextDocument.MarkdownFeature.MarkdownDialectGitHub
    whole.setMarkdown(text, github | QTextDocument.MarkdownFeature.MarkdownNoHTML)
    made = document_of(text)
    assert [line for line in plain_text(whole).split("\n") if line] == [
        line for line in plain_text(made).split("\n") if line
    ]
    blocks, others = whole.begin(), made.begin()
    while blocks.isValid() and others.isValid():
        if blocks.text():
            while not others.text():
                others = others.next()
            assert blocks.blockFormat().headingLevel() == others.blockFormat().headingLevel()
            assert (blocks.textList() is None) == (others.textList() is None)
            others = others.next()
        blocks = blocks.next()


@pytest.mark.parametrize("text", ["a\n```py\nx\n```\nb\n\n~~~\ny", "```\n", "x\r\n```\r\ny\r\n```"])
def test_a_growing_text_is_split_as_a_whole_one(text: str) -> None:
    splitter = Splitter()
    for end in range(len(text) + 1):
        assert splitter.split(text[:end]) == split(text[:end])
    assert splitter.split("other") == split("other")


def test_a_long_table_is_written_row_by_row_and_never_again(qtbot: QtBot) -> None:
    prose = Prose()
    qtbot.addWidget(prose)
    prose.fit(600)
    rows = 200
    text = HEAD
    for row in range(rows):
        text += f"| {row} | **name** {row} |\n"
        prose.show_text(text)
    pieces = -(-rows // TABLE_ROWS)
    # One piece is open at a time. The first is written once more, when its widths are settled.
    assert prose.writer.written <= rows + pieces
    lines = prose.toPlainText().split("\n")
    assert [line for line in lines if line] == [
        "number\tname",
        *(f"{row}\tname {row}" for row in range(rows)),
    ]
    whole = Prose()
    qtbot.addWidget(whole)
    whole.fit(600)
    whole.show_text(text)
    assert whole.toPlainText() == prose.toPlainText()
    assert whole.document().size() == prose.document().size()


def test_a_long_list_counts_on_and_is_not_written_again(qtbot: QtBot) -> None:
    prose = Prose()
    qtbot.addWidget(prose)
    items = 100
    for count in range(1, items + 1):
        prose.show_text("".join(f"1. item {item}\n" for item in range(count)))
    assert prose.writer.written <= items + items // LIST_ITEMS + 1
    block, numbers = prose.document().begin(), []
    while block.isValid():
        made = block.textList()
        assert made is not None
        numbers.append(made.format().start() + made.itemNumber(block))
        block = block.next()
    assert numbers == list(range(1, items + 1))


def test_code_that_grows_is_only_added_to(qtbot: QtBot) -> None:
    answer = Answer()
    qtbot.addWidget(answer)
    removed: list[int] = []
    answer.show_text("```\nfirst")
    (code,) = answer.parts
    assert isinstance(code, CodeBlock)
    code.text.document().contentsChange.connect(lambda at, gone, new: removed.append(gone))
    for count in range(50):
        answer.show_text("```\nfirst" + "\nline" * count)
    assert sum(removed) == 0
    assert code.text.toPlainText() == "first" + "\nline" * 49


def test_the_pause_between_two_drawings_grows_with_the_time_of_one() -> None:
    assert [draw_interval_ms(took) for took in (0.001, 0.01, 0.05, 9.0)] == [40, 40, 200, 500]


LONG = "".join(f"## Part {n}\n\n{'Some words. ' * 60}\n\n```\ncode\n```\n\n" for n in range(8))


def conversation_of(turns: int) -> Conversation:
    made = Conversation(id=1)
    for number in range(1, turns + 1):
        made.turns[number] = Turn(
            id=number,
            parent=number - 1 or None,
            question=f"Question {number}?",
            answer=f"Answer {number}\n\n{LONG}",
            status=Status.DONE,
        )
    made.leaf = turns
    return made


@pytest.fixture
def transcript(qtbot: QtBot) -> Transcript:
    shown = Transcript()
    qtbot.addWidget(shown)
    shown.resize(700, 500)
    shown.show()
    shown.show_conversation(conversation_of(100))
    settle(shown)
    shown.setFocus()
    return shown


def settle(transcript: Transcript) -> None:
    """Run the event loop until everything that is seen has its widgets."""
    idle = 0
    while idle < 3:
        QApplication.processEvents()
        # Only an event loop that Qt runs itself deletes what is to be deleted later.
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        idle = 0 if transcript.busy else idle + 1


def widgets_of(transcript: Transcript) -> int:
    return len(transcript.findChildren(QWidget))


def seen(transcript: Transcript) -> list[str]:
    """Return the first lines of the texts that are on the screen."""
    found = []
    for prose in transcript.findChildren(Prose):
        top = prose.mapTo(transcript.viewport(), QPoint(0, 0)).y()
        if top < transcript.viewport().height() and top + prose.height() > 0:
            found.append(prose.document().begin().text())
    return found


def test_only_what_is_seen_has_widgets(transcript: Transcript) -> None:
    few = widgets_of(transcript)
    assert few < 150
    bar = transcript.verticalScrollBar()
    assert bar.value() == bar.maximum()
    assert transcript.views[-1].turn.id == 100
    for share in range(20, -1, -1):
        bar.setValue(bar.maximum() * share // 20)
        settle(transcript)
        assert widgets_of(transcript) < 250
        assert seen(transcript)
    assert transcript.views[0].turn.id == 1
    assert "Answer 1" in seen(transcript)
    assert all(view.turn.id < 5 for view in transcript.views)
    assert transcript.view_of(50).answer.toPlainText().startswith("Answer 50")


def test_the_copied_text_is_complete_although_little_of_it_is_shown(transcript: Transcript) -> None:
    view = transcript.views[-1]
    made = len(view.answer.made)
    text = view.answer.toPlainText()
    assert made < len(view.answer.parts)
    assert text == view.answer.toPlainText()
    assert text.count("Some words.") == 8 * 60


def test_what_is_read_stays_while_the_answer_below_grows(transcript: Transcript) -> None:
    conversation = conversation_of(100)
    bar = transcript.verticalScrollBar()
    bar.setValue(bar.maximum() - 3000)
    settle(transcript)
    before = seen(transcript)
    part = next(p for v in transcript.views for p in v.answer.made if p.isVisible())
    place = part.mapTo(transcript.viewport(), QPoint(0, 0))
    last = conversation.turns[100]
    for number in range(20):
        changed = Turn(
            id=100, parent=99, question=last.question, status=Status.STREAMING,
            answer=last.answer + "More words. " * number,
        )  # fmt: skip
        transcript.show_turn(changed)
        settle(transcript)
    assert part.mapTo(transcript.viewport(), QPoint(0, 0)) == place
    assert seen(transcript) == before


def test_the_end_stays_in_view_while_an_answer_grows(transcript: Transcript) -> None:
    bar = transcript.verticalScrollBar()
    for number in range(1, 10):
        transcript.show_turn(
            Turn(
                id=100, parent=99, question="?", status=Status.STREAMING,
                answer="Line.\n\n" * number * 5,
            )
        )  # fmt: skip
        assert bar.value() == bar.maximum()


def test_selected_text_and_the_focus_survive_scrolling(transcript: Transcript) -> None:
    view = transcript.views[-1]
    prose = next(part for part in view.answer.made if isinstance(part, Prose))
    prose.selectAll()
    transcript.verticalScrollBar().setValue(0)
    settle(transcript)
    assert view in transcript.views
    cursor = prose.textCursor()
    assert cursor.hasSelection()
    cursor.clearSelection()
    prose.setTextCursor(cursor)
    transcript.verticalScrollBar().setValue(2000)
    settle(transcript)
    assert view not in transcript.views


def test_tab_goes_down_through_parts_that_are_made_on_the_way(transcript: Transcript) -> None:
    transcript.verticalScrollBar().setValue(0)
    settle(transcript)
    transcript.activateWindow()
    transcript.views[0].question.setFocus()
    heights, proses = [], 0
    body = transcript.widget()
    assert body is not None
    for _ in range(40):
        focus = QApplication.focusWidget()
        assert focus is not None
        heights.append(focus.mapTo(body, QPoint(0, 0)).y())
        proses += isinstance(focus, Prose)
        QTest.keyClick(focus, Qt.Key.Key_Tab)
        settle(transcript)
    assert heights == sorted(heights)
    assert proses > 8
    assert transcript.verticalScrollBar().value() > 1000


def test_a_narrower_window_keeps_the_place(transcript: Transcript) -> None:
    transcript.verticalScrollBar().setValue(transcript.verticalScrollBar().maximum() // 2)
    settle(transcript)
    before = seen(transcript)[0]
    transcript.resize(520, 500)
    settle(transcript)
    assert before in seen(transcript)


def test_copy_buttons_work_on_a_view_that_was_made_again(transcript: Transcript) -> None:
    bar = transcript.verticalScrollBar()
    bar.setValue(0)
    settle(transcript)
    bar.setValue(bar.maximum())
    settle(transcript)
    view = transcript.view_of(100)
    (button,) = (b for b in view.focus_chain if b.accessibleName() == "Copy as text")
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    assert QGuiApplication.clipboard().text().startswith("Answer 100")


def test_a_view_on_its_own_shows_everything(qtbot: QtBot) -> None:
    turn = conversation_of(1).turns[1]
    view = TurnView(turn, [1])
    qtbot.addWidget(view)
    view.fit(600)
    assert len(view.answer.made) == len(view.answer.parts)
