"""Theme and font size change in place, also while an answer is written; the list is searched."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QObject, QSize, qInstallMessageHandler
from PySide6.QtGui import QColor, QIcon, QImage
from PySide6.QtWidgets import QApplication, QLabel, QWidget

from cogvlm2_lite.events import TextDelta
from gui import theme
from gui.chat.answer import CodeBlock, Prose
from gui.chat.page import ChatPage
from gui.data import history
from gui.data.history import History, search_file
from gui.window import RailButton
from tests.helpers.desk import Desk, Script

TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode\n```\n"


class StyleCounter(QObject):
    """Counts how often widgets are styled."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: collections.Counter[QObject] = collections.Counter()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() is QEvent.Type.StyleChange:
            self.seen[watched] += 1
        return False


def darkest(icon: QIcon) -> QColor:
    image = icon.pixmap(QSize(24, 24)).toImage()
    colours = [image.pixelColor(x, y) for x in range(24) for y in range(24)]
    return max((c for c in colours), key=lambda c: c.alpha())


def test_an_icon_has_the_colour_of_the_theme_at_once(desk: Desk) -> None:
    icon = theme.icon("stop")
    for name, colours in (("dark", theme.DARK), ("light", theme.LIGHT)):
        desk.program.settings.set("theme", name)
        assert darkest(icon).name() == colours.ink
        assert darkest(theme.icon("stop", colour="#ff0000")).name() == "#ff0000"
    sharp = icon.pixmap(QSize(24, 24), 2.0)
    assert (sharp.width(), sharp.devicePixelRatio()) == (48, 2.0)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_qt_reads_the_whole_stylesheet(colours: theme.Colours, desk: Desk) -> None:
    messages: list[str] = []
    before = qInstallMessageHandler(lambda kind, context, message: messages.append(message))
    try:
        styled = QWidget()
        styled.setStyleSheet(theme.stylesheet(colours))
        styled.ensurePolished()
        styled.grab()
    finally:
        qInstallMessageHandler(before)
    assert not messages
    assert "$" not in theme.stylesheet(colours)


def test_a_theme_changes_while_an_answer_is_written(desk: Desk, script: Script) -> None:
    script.hold, script.events = True, [TextDelta(text=TABLE)]
    desk.open_demo()
    desk.program.settings.set("theme", "light")
    before = desk.chat
    desk.chat.composer.setPlainText("Table?")
    desk.chat.send()
    conversation = desk.chat.conversation
    assert conversation is not None
    view = desk.chat.transcript.view_of(conversation.path()[0].id)
    desk.qtbot.waitUntil(lambda: len(view.answer.parts) == 2)
    prose, code = view.answer.parts
    assert isinstance(prose, Prose)
    assert isinstance(code, CodeBlock)
    desk.program.settings.set("theme", "dark")

    def lines() -> str:
        (table,) = prose.document().rootFrame().childFrames()
        return table.frameFormat().borderBrush().color().name()

    desk.qtbot.waitUntil(lambda: lines() == theme.DARK.line)
    assert desk.chat is before
    assert desk.chat.busy
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)


def test_a_change_of_theme_styles_each_widget_once(desk: Desk, script: Script) -> None:
    script.events = [TextDelta(text=TABLE)]
    desk.open_demo()
    desk.ask("Table?")
    desk.program.window.show_page("settings")
    desk.program.window.show_page("chat")

    counter, app = StyleCounter(), QApplication.instance()
    assert isinstance(app, QApplication)
    widgets = app.allWidgets()
    app.installEventFilter(counter)
    desk.program.settings.set("theme", "dark")
    at_once = {widget for widget in widgets if counter.seen[widget]}
    assert {widget for widget in widgets if widget.isVisible()} == at_once
    desk.qtbot.waitUntil(lambda: set(widgets) <= set(counter.seen))
    app.removeEventFilter(counter)
    assert set(counter.seen.values()) == {1}


def test_a_change_of_theme_looks_as_qt_applies_it(desk: Desk, script: Script) -> None:
    script.events = [TextDelta(text=TABLE)]
    desk.open_demo()
    desk.ask("Table?")
    app, window = QApplication.instance(), desk.program.window
    assert isinstance(app, QApplication)
    flash = app.cursorFlashTime()
    app.setCursorFlashTime(0)
    pages = ("settings", "batch", "chat")
    for page in pages:
        window.show_page(page)

    def images() -> list[QImage]:
        found = []
        for page in pages:
            window.show_page(page)
            desk.qtbot.wait(10)
            found.append(window.grab().toImage())
        return found

    try:
        for name, colours in (("dark", theme.DARK), ("light", theme.LIGHT)):
            desk.program.settings.set("theme", name)
            changed = images()
            app.setStyleSheet(theme.stylesheet(colours) + "\n")  # a new one for Qt
            assert changed == images(), name
    finally:
        app.setCursorFlashTime(flash)


def test_another_font_size_reaches_every_text_and_is_no_new_stylesheet(
    desk: Desk, script: Script
) -> None:
    script.events = [TextDelta(text=TABLE)]
    desk.open_demo()
    desk.ask("Table?")
    desk.program.settings.set("font_points", 11)
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    sheet = app.styleSheet()
    before = desk.chat
    conversation = desk.chat.conversation
    assert conversation is not None
    view = desk.chat.transcript.view_of(conversation.path()[0].id)
    prose, code = view.answer.parts
    assert isinstance(prose, Prose)
    assert isinstance(code, CodeBlock)
    desk.qtbot.wait(20)
    heights = prose.height(), code.height()
    desk.program.settings.set("font_points", 20)
    desk.qtbot.waitUntil(lambda: prose.height() > heights[0] and code.height() > heights[1])
    assert app.styleSheet() == sheet
    assert desk.chat is before
    assert code.text.font().pointSize() == prose.document().defaultFont().pointSize() == 20
    points = {widget.font().pointSize() for widget in widgets(desk.chat)}
    assert points <= {17, 20, 30}  # small print, text, titles
    rail = desk.program.window.findChildren(RailButton)
    assert {button.font().pointSize() for button in rail} == {16}
    titles = desk.program.window.findChildren(theme.Title)
    assert {title.font().pointSize() for title in titles} == {30}
    assert view.y() + view.height() <= view.parentWidget().height()


def widgets(page: ChatPage) -> list[QWidget]:
    return [label for label in page.findChildren(QLabel) if label.text()]


@pytest.fixture
def many(desk: Desk) -> History:
    kept = desk.program.history
    for number in range(30):
        kept.ask(kept.create(title=f"Number {number}"), f"About {number}?", None)
    desk.chat.reload_list()
    return kept


def shown(desk: Desk) -> list[str]:
    return [desk.chat.list.item(row).text() for row in range(desk.chat.list.count())]


def test_a_short_search_is_answered_at_once(
    desk: Desk, many: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_SEARCH_S", 5.0)  # also on a busy computer
    desk.chat.search.setText("number 2")
    assert sorted(shown(desk)) == sorted(["Number 2", *(f"Number {n}" for n in range(20, 30))])
    desk.chat.search.clear()
    assert len(shown(desk)) == 30


def test_a_long_search_goes_on_in_a_thread(
    desk: Desk, many: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_SEARCH_S", -1.0)
    monkeypatch.setattr(history, "_SEARCH_STEPS", 1)
    assert many.list_soon("number 2") is None
    for typed in ("n", "nu", "number 2", "number 29"):
        desk.chat.search.setText(typed)
    desk.qtbot.waitUntil(lambda: shown(desk) == ["Number 29"])
    desk.qtbot.wait(50)  # results of the earlier letters are dropped
    assert shown(desk) == ["Number 29"]
    desk.chat.search.clear()
    desk.qtbot.waitUntil(lambda: len(shown(desk)) == 30)


def test_a_search_in_a_thread_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_SEARCH_STEPS", 1)
    folder = tmp_path / "a # folder?"
    with History(folder) as kept:
        for text in ("Straße", "STRASSE", "other"):
            kept.ask(kept.create(), text, None)
        assert search_file(folder, "strasse", lambda: False) == kept.list("strasse")
        assert len(kept.list("strasse")) == 2
        assert search_file(folder, "", lambda: False) == kept.list()
        with pytest.raises(history.SearchStoppedError):
            search_file(folder, "strasse" * 9, lambda: True)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK])
def test_every_value_of_the_stylesheet_is_filled_in(colours: theme.Colours) -> None:
    assert "$" not in theme.stylesheet(colours)


def test_the_list_keeps_what_belongs_to_a_row_when_rows_change_places(
    desk: Desk, many: History
) -> None:
    rows = many.list()
    many.pin(rows[5].id, True)
    many.rename(rows[6].id, "")
    desk.chat.reload_list()
    first = desk.chat.list.item(0)
    assert (first.text(), first.icon().isNull()) == (rows[5].title, False)
    assert all(desk.chat.list.item(row).icon().isNull() for row in range(1, 30))
    chosen: list[int] = []
    desk.chat.sidebar.selected.connect(chosen.append)
    for row in range(30):
        desk.chat.list.itemClicked.emit(desk.chat.list.item(row))
    assert chosen == [row.id for row in many.list()]


def test_titles_are_larger_and_the_rail_is_smaller_from_the_first_moment(desk: Desk) -> None:
    points = QApplication.font().pointSize()
    desk.program.window.show_page("settings")
    titles = desk.program.window.findChildren(theme.Title)
    rail = desk.program.window.findChildren(RailButton)
    assert titles
    assert rail
    assert all(title.font().pointSize() > points for title in titles)
    assert all(button.font().pointSize() < points for button in rail)
