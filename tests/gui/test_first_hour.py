"""What a new user met in the first hour with the window."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, QPointF, QRect, Qt, QTimer
from PySide6.QtGui import QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractScrollArea,
    QApplication,
    QComboBox,
    QFileDialog,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QWidget,
)
from pytestqt.qtbot import QtBot

from cogvlm2_lite.demo.shipped import checkpoint_folder
from gui.batch.page import BatchPage
from gui.chat.dropped import DroppedContent
from gui.chat.progress import Phase
from gui.chat.welcome import Welcome
from gui.data.state import Part
from gui.flow import FlowLayout
from gui.memory.page import MemoryPage
from gui.save_dialog import _ask_about
from gui.theme import Title
from gui.window import PAGES, RailButton
from tests.gui.test_layout import cut_off
from tests.helpers.desk import Desk, Script

LEFT = Qt.MouseButton.LeftButton
SHAPES = checkpoint_folder().parent / "pictures" / "shapes.png"


def give(desk: Desk) -> None:
    """Give a picture, and wait until it is shown."""
    desk.chat.take(DroppedContent(files=(SHAPES,)))
    desk.qtbot.waitUntil(lambda: desk.chat.panel.picture.found is not None, timeout=20_000)


def in_window(widget: QWidget) -> QRect:
    return QRect(widget.mapTo(widget.window(), QPoint(0, 0)), widget.size())


# --- the first steps -----------------------------------------------------------------------------


def test_opening_the_demo_model_keeps_the_first_steps_in_view(desk: Desk) -> None:
    chat = desk.chat
    desk.program.window.activateWindow()
    (welcome,) = chat.findChildren(Welcome)
    desk.qtbot.waitUntil(lambda: welcome.verticalScrollBar().maximum() > 0)
    chat.composer.setPlainText("How many shapes are there?")
    chat.send()
    assert "No model is open" in chat.message
    chat.demo_button.setFocus()
    QTest.mouseClick(chat.demo_button, LEFT)
    desk.qtbot.waitUntil(lambda: chat.status.text() == "Ready")
    assert chat.message == ""  # its cause is gone
    assert chat.composer.hasFocus()
    assert welcome.verticalScrollBar().value() == 0
    welcome.verticalScrollBar().setValue(99)
    chat.start_new()
    assert welcome.verticalScrollBar().value() == 0


# --- the wheel -----------------------------------------------------------------------------------


def test_the_wheel_changes_nothing_on_a_page_that_was_just_opened(desk: Desk) -> None:
    window = desk.program.window
    window.activateWindow()
    for page in PAGES:
        window.show_page(page.name)
        focused = QApplication.focusWidget()
        assert isinstance(focused, QAbstractScrollArea | QLineEdit), page.name
    window.show_page("settings")
    shown = window.page("settings")
    assert shown is not None
    box = shown.findChildren(QComboBox)[0]
    box.setFocus(Qt.FocusReason.MouseFocusReason)  # as after a choice: the pointer is still on it
    middle = QPointF(box.rect().center())
    down = QWheelEvent(
        middle, box.mapToGlobal(middle), QPoint(), QPoint(0, -360), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    before = box.currentIndex()
    QApplication.sendEvent(box, down)
    assert box.currentIndex() == before
    assert not down.isAccepted()  # so the page scrolls


# --- room ----------------------------------------------------------------------------------------


def test_a_row_without_room_goes_on_in_the_next_line(qtbot: QtBot) -> None:
    holder = QWidget()
    qtbot.addWidget(holder)
    flow = FlowLayout()
    holder.setLayout(flow)
    buttons = [QPushButton("m" * 20) for _ in range(4)]
    for button in buttons[:3]:
        flow.addWidget(button)
    flow.add_stretch()
    flow.addWidget(buttons[3])
    wide = flow.sizeHint().width()
    for width, lines in ((wide + 80, 1), (wide // 2 + 1, 2), (wide // 4, 4)):
        holder.resize(width, flow.heightForWidth(width))
        flow.setGeometry(holder.rect())
        assert len({button.y() for button in buttons}) == lines, width
        assert all(holder.rect().contains(button.geometry()) for button in buttons)
    assert flow.minimumSize().width() == buttons[0].sizeHint().width()
    holder.resize(wide + 80, 50)
    flow.setGeometry(holder.rect())
    assert buttons[3].geometry().right() == holder.rect().right()
    holder.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    flow.setGeometry(holder.rect())
    assert buttons[3].geometry().left() == 0


@pytest.mark.parametrize("size", [(1180, 732), (902, 476)])
def test_letters_of_20_points_have_room(desk: Desk, size: tuple[int, int]) -> None:
    window = desk.program.window
    window.resize(*size)
    desk.program.settings.set("font_points", 20)
    give(desk)
    for page in PAGES:
        window.show_page(page.name)
        made = window.page(page.name)
        assert made is not None
        desk.qtbot.waitUntil(lambda: not cut_off(made), timeout=3000)  # noqa: B023
        for area in [made, *made.findChildren(QScrollArea)]:
            if isinstance(area, QScrollArea) and area.isVisible():
                desk.qtbot.waitUntil(
                    lambda: area.widget().width() <= area.viewport().width(),  # noqa: B023
                    timeout=3000,
                )
    assert (window.width(), window.height()) == size  # nothing needs a larger window
    for button in window.findChildren(RailButton):
        metrics, icon = button.fontMetrics(), button.iconSize().height()
        words = button.toolButtonStyle() is Qt.ToolButtonStyle.ToolButtonTextUnderIcon
        assert not words or button.width() >= metrics.horizontalAdvance(button.text()) + 4
        assert button.height() >= icon + (metrics.height() if words else 0)
        assert words or button.toolTip() == button.text()
    window.show_page("chat")
    panel = desk.chat.panel
    tools = panel.picture.tools
    assert not tools.isVisible() or panel.picture.rect().contains(tools.geometry())


def test_nothing_covers_the_button_that_goes_back_to_the_whole_picture(desk: Desk) -> None:
    desk.program.settings.set("picture_share", 0.3)
    give(desk)
    view = desk.chat.panel.picture
    view.choose_parts([Part(x=0, y=y, width=100, height=100) for y in (0, 100, 200)])
    for width in (1180, 1010):
        desk.program.window.resize(width, 700)
        desk.qtbot.wait(30)
        close = in_window(view.whole_button)
        top = desk.program.window.childAt(close.center())
        assert top is view.whole_button, (width, top)


def test_several_files_and_errors_leave_the_picture_its_half(desk: Desk) -> None:
    chat = desk.chat
    give(desk)
    desk.qtbot.wait(30)
    before = chat.panel.width()
    chat.several.show_files([SHAPES, SHAPES])
    chat.show_message("Too long a sentence. " * 12)
    desk.qtbot.wait(50)
    assert chat.panel.width() == before
    assert cut_off(chat) == []
    chat._banner.show_message("Too long a sentence. " * 12, cause="model", again=True)
    desk.qtbot.wait(50)
    text, button = chat._banner._text, chat.restart_button
    assert in_window(button).top() > in_window(text).bottom()  # the text has the whole width
    assert cut_off(chat) == []


# --- other pages ---------------------------------------------------------------------------------


def test_the_question_of_a_batch_can_be_typed_at_once(desk: Desk, tmp_path: Path) -> None:
    window = desk.program.window
    window.activateWindow()
    window.send_files("batch", [tmp_path])
    page = window.page("batch")
    assert isinstance(page, BatchPage)
    assert page.form.question.hasFocus()
    page.form.folder.clear()
    page.start()
    assert page.form.folder.hasFocus()


def test_the_memory_page_shows_the_open_model_after_a_wrong_folder(
    desk: Desk, script: Script, tmp_path: Path
) -> None:
    desk.open_demo()
    demo = desk.program.engine.client.options
    assert demo is not None
    wrong = tmp_path / "llama"
    wrong.mkdir()
    (wrong / "config.json").write_text('{"model_type": "llama"}')
    desk.program.window.open_model(wrong)
    desk.qtbot.waitUntil(lambda: "llama" in desk.chat.message)
    desk.program.window.show_page("memory")
    page = desk.program.window.page("memory")
    assert isinstance(page, MemoryPage)
    assert page.model.currentData() == str(demo.folder)
    assert page.model.findData(str(wrong)) < 0


def test_a_model_that_can_not_be_planned_has_no_budget_to_use(desk: Desk, tmp_path: Path) -> None:
    desk.program.settings.set("recent_models", [str(tmp_path)])
    desk.program.window.show_page("memory")
    page = desk.program.window.page("memory")
    assert isinstance(page, MemoryPage)
    page.kind.setCurrentIndex(page.kind.findData("free"))
    page.model.setCurrentIndex(page.model.findData(str(tmp_path)))
    desk.qtbot.waitUntil(lambda: "can't be planned" in page.needs.text(), timeout=10_000)
    assert not page.use_button.isEnabled()


def test_saving_a_picture_replaces_no_file_unasked(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(desk)
    mine = tmp_path / "mine.png"
    mine.write_text("my own")
    picture = desk.chat.panel.picture
    picture.save(mine)
    desk.qtbot.waitUntil(lambda: "already exists" in desk.chat.message)
    asked: list[str] = []
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_, **__: (str(tmp_path / "mine"), "PNG (*.png)")
    )
    monkeypatch.setattr(
        "gui.save_dialog._ask_about", lambda parent, file, adds: (asked.append(file.name), False)
    )
    picture._ask_for_file()
    assert asked == ["mine.png"]
    assert mine.read_text() == "my own"


def test_the_question_about_an_existing_file_fits_with_long_names(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.program.settings.set("font_points", 20)
    file = tmp_path / ("What is the word on the sign in the middle of the picture " * 2 + ".md")
    file.touch()
    found: list[str] = []

    def look() -> None:
        (box,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox)]
        found.extend(cut_off(box))
        box.reject()

    QTimer.singleShot(100, look)
    _ask_about(desk.program.window, file, adds=True)
    assert found == []


def test_escape_closes_the_answer_settings(desk: Desk) -> None:
    desk.program.window.activateWindow()
    button = desk.chat.sampling
    button.open_popup()
    popup = button.popup
    assert popup is not None
    desk.qtbot.waitUntil(popup.hasFocus)
    closed = []
    popup.destroyed.connect(lambda: closed.append(True))
    QTest.keyClick(popup, Qt.Key.Key_Escape)
    desk.qtbot.waitUntil(lambda: bool(closed))


def test_a_panel_invites_no_picture_while_one_is_read(desk: Desk) -> None:
    panel = desk.chat.panel
    assert "Drop a picture" in panel._empty.text()
    desk.chat.take(DroppedContent(files=(SHAPES,)))
    panel._empty.resize(400, 400)
    assert panel._empty.text() == ""
    desk.qtbot.waitUntil(lambda: panel.picture.found is not None, timeout=20_000)
    desk.chat.chip.removed.emit()
    desk.qtbot.waitUntil(lambda: "Drop a picture" in panel._empty.text())


def test_a_question_during_an_answer_elsewhere_says_why_it_waits(
    desk: Desk, script: Script
) -> None:
    desk.open_demo()
    script.hold = True
    chat = desk.chat
    chat.composer.setPlainText("A long one?")
    chat.send()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers > 0)
    chat.start_new()
    chat.composer.setPlainText("And this?")
    chat.send()
    assert "No question can be asked now" in chat.message
    assert chat.composer.toPlainText() == "And this?"
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: chat.message == "")


def test_a_long_status_leaves_the_picture_its_half_and_is_whole(desk: Desk) -> None:
    chat = desk.chat
    give(desk)
    desk.qtbot.wait(30)
    before = chat.panel.width()
    chat._input.show_progress(
        Phase(name="encode", share=0.6, left_s=70.0, held_bytes=10_000_000_000)
    )
    desk.qtbot.wait(50)
    assert chat.panel.width() == before
    assert len(chat.status.text()) > 40
    assert cut_off(chat) == []


def test_broken_files_leave_the_good_picture_to_undo(desk: Desk, tmp_path: Path) -> None:
    chat = desk.chat
    give(desk)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0 not a picture")
        chat.take(DroppedContent(files=(tmp_path / name,)))
        desk.qtbot.waitUntil(lambda: "damaged" in chat.chip.text.text(), timeout=20_000)
    chat.chip.removed.emit()
    chat.chip.undone.emit()
    desk.qtbot.waitUntil(lambda: chat.chip.name.text() == "shapes.png")
    assert chat.picture == SHAPES.read_bytes()


def test_another_theme_keeps_the_size_of_all_letters(desk: Desk) -> None:
    window, settings = desk.program.window, desk.program.settings
    settings.set("theme", "light")
    settings.set("font_points", 20)

    def letters() -> list[tuple[int, bool]]:
        found = [*window.findChildren(RailButton), *window.findChildren(Title)]
        return [(widget.font().pointSize(), widget.font().bold()) for widget in found]

    before = letters()
    for theme in ("dark", "light"):
        settings.set("theme", theme)
        desk.qtbot.wait(50)
        assert letters() == before
    assert set(before) == {(16, False), (30, True)}


def test_lists_of_large_letters_become_low_again(desk: Desk) -> None:
    window, settings = desk.program.window, desk.program.settings
    settings.set("font_points", 20)
    window.show_page("batch")
    page = window.page("batch")
    assert isinstance(page, BatchPage)
    box = page.form.existing
    desk.qtbot.waitUntil(lambda: box.height() > 40)
    settings.set("font_points", 11)
    desk.qtbot.waitUntil(lambda: box.height() < 40, timeout=3000)
