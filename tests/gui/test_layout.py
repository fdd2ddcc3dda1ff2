"""Nothing is cut off: on every page, in two languages, from right to left, in large letters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QPoint, QPointF, QRect, Qt
from PySide6.QtGui import QTextLayout, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QLabel,
    QScrollArea,
    QWidget,
)

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.events import Event, TextDelta
from gui.chat.answer import Prose
from gui.chat.dropped import DroppedContent
from gui.chat.middle import Foot
from gui.window import PAGES, Rail, RailButton
from tests.helpers.desk import Desk, Script

ARABIC = "ما هو الشيء الموجود في الصورة؟"
ANSWER = "توجد **سيارة حمراء** في الصورة."


PICTURES = checkpoint_folder().parent / "pictures"
LONG_MESSAGE = (
    "The model cogvlm2-19b can't be opened: it needs 12 GiB of video memory and this computer has "
    "8 GiB. Choose another budget on the page Memory."
)


def cut_off(page: QWidget) -> list[str]:
    """Name the controls of a page whose text has no room, or that hang over their parent's edge."""
    found = []
    for widget in page.findChildren(QWidget):
        if not isinstance(widget, QAbstractButton | QLabel) or not widget.isVisible():
            continue
        text = widget.text()
        needs = widget.sizeHint()
        wraps = isinstance(widget, QLabel) and widget.wordWrap()
        height = widget.heightForWidth(widget.width()) if wraps else needs.height()
        if text and not wraps and widget.width() < needs.width():
            found.append(f"{text!r} has {widget.width()} of {needs.width()} pixels")
        if text and widget.height() < height - 2:
            found.append(f"{text!r} is {widget.height()} of {height} pixels high")
        parent = widget.parentWidget()
        inside = parent is None or isinstance(parent.parentWidget(), QScrollArea)
        if not inside and not parent.rect().adjusted(-1, -1, 1, 1).contains(widget.geometry()):
            found.append(f"{text or widget.accessibleName()!r} hangs over the edge")
    return found


@pytest.fixture
def right_to_left(qapp: QApplication) -> Iterator[None]:
    qapp.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    yield
    qapp.setLayoutDirection(Qt.LayoutDirection.LeftToRight)


def show_all(desk: Desk) -> list[str]:
    """Show every page and give what is cut off on it once the layout has settled."""
    found = []
    for page in PAGES:
        desk.program.window.show_page(page.name)
        shown = desk.program.window.page(page.name)
        assert shown is not None
        for _ in range(20):
            desk.qtbot.wait(20)
            if not cut_off(shown):
                break
        found += [f"{page.name}: {what}" for what in cut_off(shown)]
    return found


def talk(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("What is in the picture, and where does it stand?")


@pytest.mark.parametrize("size", [(1180, 760), (760, 560)])
@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_nothing_is_cut_off(desk: Desk, language: str, size: tuple[int, int]) -> None:
    desk.program.window.resize(*size)
    talk(desk)
    before = desk.chat
    desk.program.settings.set("language", language)
    if language != "en":
        desk.qtbot.waitUntil(lambda: desk.chat is not before, timeout=20_000)
    assert show_all(desk) == []


def test_a_narrow_window_is_used_to_its_edge(desk: Desk) -> None:
    chat = desk.chat
    for width in (1180, 760):
        desk.program.window.resize(width, 560)
        desk.qtbot.wait(50)
        right = chat.panel.mapTo(chat, QPoint(chat.panel.width(), 0)).x()
        assert right == chat.width(), width


def test_large_letters_are_not_cut_off(desk: Desk) -> None:
    talk(desk)
    desk.program.settings.set("font_points", 18)
    assert show_all(desk) == []


def seen_whole(widget: QWidget) -> bool:
    return widget.visibleRegion().boundingRect() == widget.rect()


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_in_the_smallest_window_with_large_letters_everything_can_be_reached(
    desk: Desk, language: str
) -> None:
    before, window = desk.chat, desk.program.window
    desk.program.settings.set("language", language)
    if language != "en":
        desk.qtbot.waitUntil(lambda: desk.chat is not before, timeout=20_000)
    chat = desk.chat
    desk.program.settings.set("font_points", 20)
    window.resize(window.minimumSize())
    assert (window.width(), window.height()) == (560, 420)
    for name in ("sign.png", "chart.png"):
        chat.take(DroppedContent(files=(PICTURES / name,)))
        desk.qtbot.waitUntil(lambda: bool(chat.picture), timeout=20_000)
    chat.show_message(LONG_MESSAGE)
    desk.qtbot.wait(100)
    assert cut_off(window) == []
    [foot] = chat.findChildren(Foot)
    top = chat._banner.mapTo(foot, QPoint(0, 0)).y()
    assert top == 0  # a message is read from its beginning
    chat.composer.setFocus()
    QTest.keyClicks(chat.composer, "What?")
    desk.qtbot.waitUntil(lambda: seen_whole(chat.composer) and seen_whole(chat.send_button))
    assert seen_whole(chat.panel.picture.tools)
    assert chat.panel.view.zoom * 448 > 40  # of the picture, something is seen
    bar = foot.verticalScrollBar()
    for button in foot.findChildren(QAbstractButton):
        if button.isVisible():
            foot.ensureWidgetVisible(button, 0, 0)
            assert seen_whole(button), button.accessibleName()
    bar.setValue(bar.maximum())
    wheel(foot.viewport(), 120)
    assert bar.value() < bar.maximum()
    window.resize(1180, 760)
    desk.qtbot.waitUntil(lambda: bar.maximum() == 0 and not cut_off(window))
    assert chat.presets.text()
    assert chat.presets.toolButtonStyle() is Qt.ToolButtonStyle.ToolButtonTextBesideIcon


def wheel(target: QWidget, turn: int) -> None:
    place = QPointF(target.rect().center())
    event = QWheelEvent(
        place, target.mapToGlobal(place), QPoint(), QPoint(0, turn), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(target, event)


def test_the_rail_shows_texts_where_they_have_room(desk: Desk) -> None:
    window, rail = desk.program.window, desk.program.window.findChild(Rail)
    [first, *_] = rail.findChildren(RailButton)
    assert first.toolButtonStyle() is Qt.ToolButtonStyle.ToolButtonTextUnderIcon
    window.resize(760, 420)
    desk.program.settings.set("font_points", 20)
    desk.qtbot.waitUntil(lambda: first.toolButtonStyle() is Qt.ToolButtonStyle.ToolButtonIconOnly)
    assert first.toolTip() == "Chat"
    desk.program.settings.set("font_points", 11)
    window.resize(760, 700)
    desk.qtbot.waitUntil(
        lambda: first.toolButtonStyle() is Qt.ToolButtonStyle.ToolButtonTextUnderIcon
    )


def test_right_to_left_everything_changes_sides(desk: Desk, right_to_left: None) -> None:
    window = desk.program.window
    window.refresh()
    before = desk.chat
    desk.qtbot.waitUntil(lambda: desk.chat is not before, timeout=20_000)
    talk(desk)
    assert show_all(desk) == []
    window.show_page("chat")
    chat = desk.chat
    left = [
        widget.mapTo(window, QPoint(0, 0)).x()
        for widget in (chat.panel, chat.transcript, chat.sidebar)
    ]
    assert left == sorted(left)
    # The send button stands at the end of the line, which is the left one now.
    card = chat.send_button.parentWidget()
    assert card is not None
    assert chat.send_button.geometry().center().x() < card.width() // 2


def test_arabic_is_written_from_the_right(desk: Desk, right_to_left: None, script: Script) -> None:
    events: list[Event] = [TextDelta(text=ANSWER)]
    script.events = events
    desk.open_demo()
    desk.ask(ARABIC)
    talk = desk.chat.conversation
    assert talk is not None
    assert talk.path()[0].question == ARABIC
    view = desk.chat.transcript.view_of(talk.path()[0].id)
    (prose,) = view.answer.parts
    assert isinstance(prose, Prose)
    block = prose.document().firstBlock()
    assert block.textDirection() is Qt.LayoutDirection.RightToLeft
    line = block.layout().lineAt(0)
    used = QRect(line.naturalTextRect().toRect())
    assert isinstance(block.layout(), QTextLayout)
    assert used.right() > prose.viewport().width() - 20  # it begins at the right edge
    assert desk.chat.list.item(0).text() == ARABIC


def test_arabic_in_a_window_from_left_to_right_is_written_from_the_right_too(
    desk: Desk, script: Script
) -> None:
    events: list[Event] = [TextDelta(text=f"{ANSWER}\n\nAnd in English.")]
    script.events = events
    desk.open_demo()
    desk.ask(ARABIC)
    talk = desk.chat.conversation
    assert talk is not None
    (prose,) = desk.chat.transcript.view_of(talk.path()[0].id).answer.parts
    assert isinstance(prose, Prose)
    first = prose.document().firstBlock()
    assert first.textDirection() is Qt.LayoutDirection.RightToLeft
    assert first.next().textDirection() is Qt.LayoutDirection.LeftToRight
