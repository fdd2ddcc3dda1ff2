"""What a person does besides asking: other pictures, titles, presets, settings, idle models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, Qt, QTimer, QUrl
from PySide6.QtGui import (
    QDesktopServices,
    QDragEnterEvent,
    QDragLeaveEvent,
    QGuiApplication,
    QImage,
    QKeySequence,
)
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QDialog,
    QDoubleSpinBox,
    QInputDialog,
    QMenu,
    QMessageBox,
    QPlainTextEdit,
    QSlider,
    QWidget,
)

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import EngineState
from cogvlm2_lite.worker.protocol import Loaded
from gui.chat.answer import Prose
from gui.chat.dropped import png_bytes
from gui.data.settings import SETTINGS
from gui.data.state import Conversation
from gui.shortcuts import ShortcutDialog
from tests.helpers.desk import Desk, Script
from tests.helpers.giving import asked_about
from tests.helpers.giving import drop as drop_on

PICTURES = checkpoint_folder().parent / "pictures"


def data_of(name: str) -> bytes:
    return (PICTURES / name).read_bytes()


def mime_of(*names: str) -> QMimeData:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(PICTURES / name)) for name in names])
    return mime


def drop(desk: Desk, mime: QMimeData) -> None:
    drop_on(desk.chat.panel, mime)


def wait_picture(desk: Desk, data: bytes) -> None:
    desk.qtbot.waitUntil(lambda: desk.chat.picture == data, timeout=15_000)


def talk_of(desk: Desk) -> Conversation:
    talk = desk.chat.conversation
    assert talk is not None
    return talk


@contextmanager
def answering(press: str, text: str = "") -> Iterator[list[str]]:
    """Answer the next dialog as a person would: type `text`, press the button called `press`.

    Gives the titles or texts of the dialogs that were answered.
    """
    seen: list[str] = []

    def look() -> None:
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, QDialog) or seen:
            return
        seen.append(dialog.text() if isinstance(dialog, QMessageBox) else dialog.windowTitle())
        if isinstance(dialog, QInputDialog):
            dialog.setTextValue(text)
        buttons = dialog.findChildren(QAbstractButton)
        [button] = [b for b in buttons if b.text().replace("&", "") == press]
        button.click()

    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(10)
    yield seen
    timer.stop()
    assert seen, "no dialog came"


def choose(menu: QMenu, text: str) -> None:
    [action] = [action for action in menu.actions() if action.text() == text]
    action.trigger()


# --- pictures ------------------------------------------------------------------------------------


def ask_about_shapes(desk: Desk) -> Conversation:
    """Ask the first question of a conversation, about the picture of shapes."""
    desk.open_demo()
    drop(desk, mime_of("shapes.png"))
    wait_picture(desk, data_of("shapes.png"))
    desk.ask("How many?")
    return talk_of(desk)


def test_a_second_picture_begins_a_conversation_of_its_own(desk: Desk) -> None:
    first = ask_about_shapes(desk)
    drop(desk, mime_of("sign.png"))
    wait_picture(desk, data_of("sign.png"))
    assert desk.chat.chip.choice.isVisible()
    assert talk_of(desk) is first
    desk.ask("What is written?")
    assert talk_of(desk).id != first.id
    assert asked_about(desk.engine.asked[1], data_of("sign.png"))
    assert desk.engine.asked[1].history == ()
    history = desk.program.history
    assert history.picture(history.load(first.id).picture) == data_of("shapes.png")


def test_a_second_picture_can_be_refused(desk: Desk) -> None:
    first = ask_about_shapes(desk)
    drop(desk, mime_of("sign.png"))
    wait_picture(desk, data_of("sign.png"))
    desk.chat.chip.remove_button.click()
    assert talk_of(desk) is first
    assert desk.chat.picture == data_of("shapes.png")


def test_before_the_first_question_a_picture_is_simply_another(desk: Desk) -> None:
    desk.open_demo()
    drop(desk, mime_of("shapes.png"))
    wait_picture(desk, data_of("shapes.png"))
    drop(desk, mime_of("sign.png"))
    wait_picture(desk, data_of("sign.png"))
    desk.ask("What is written?")
    assert asked_about(desk.engine.asked[0], data_of("sign.png"))


def test_an_image_of_another_program_is_dropped(desk: Desk) -> None:
    mime = QMimeData()
    mime.setImageData(QImage(str(PICTURES / "shapes.png")))
    drop(desk, mime)
    wait_picture(desk, png_bytes(QImage(str(PICTURES / "shapes.png"))))


def test_what_is_no_picture_is_a_sentence(desk: Desk) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl("https://example.invalid/picture.png")])
    drop(desk, mime)
    desk.qtbot.waitUntil(lambda: "downloads nothing" in desk.chat.message)
    assert desk.chat.picture == b""


def test_the_target_shows_while_something_is_dragged_over(desk: Desk) -> None:
    window = desk.program.window
    target = window.findChild(QWidget, "drop")
    assert not target.isVisible()
    mime = mime_of("shapes.png")
    enter = QDragEnterEvent(
        QPoint(20, 20), Qt.DropAction.CopyAction, mime,
        Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    QApplication.sendEvent(window, enter)
    assert enter.isAccepted()
    assert target.isVisible()
    QApplication.sendEvent(window, QDragLeaveEvent())
    assert not target.isVisible()


def test_a_picture_is_pasted_into_the_question(desk: Desk) -> None:
    image = QImage(str(PICTURES / "shapes.png"))
    QGuiApplication.clipboard().setImage(image)
    desk.chat.composer.setFocus()
    QTest.keySequence(desk.chat.composer, QKeySequence("Ctrl+V"))
    wait_picture(desk, png_bytes(image))
    assert desk.chat.composer.toPlainText() == ""


def test_text_is_pasted_as_text(desk: Desk) -> None:
    QGuiApplication.clipboard().setText("from elsewhere")
    QTest.keySequence(desk.chat.composer, QKeySequence("Ctrl+V"))
    assert desk.chat.composer.toPlainText() == "from elsewhere"
    desk.chat.panel.paste_wanted.emit()
    assert desk.chat.message == "There is no picture on the clipboard."


def test_a_picture_is_moved_made_larger_turned_and_fitted(desk: Desk) -> None:
    drop(desk, mime_of("chart.png"))
    wait_picture(desk, data_of("chart.png"))
    view = desk.chat.panel.view
    desk.qtbot.waitUntil(lambda: not view.picture_size.isEmpty(), timeout=15_000)
    fitted = view.zoom
    desk.qtbot.mouseClick(button(desk.chat.panel, "Larger"), Qt.MouseButton.LeftButton)
    assert view.zoom == pytest.approx(1.25 * fitted)
    before = view.picture_size
    desk.qtbot.mouseClick(button(desk.chat.panel, "Rotate"), Qt.MouseButton.LeftButton)
    desk.qtbot.waitUntil(lambda: view.picture_size == before.transposed())
    desk.qtbot.mouseClick(button(desk.chat.panel, "Rotate"), Qt.MouseButton.LeftButton)
    desk.qtbot.mouseClick(button(desk.chat.panel, "Fit"), Qt.MouseButton.LeftButton)
    desk.qtbot.waitUntil(lambda: view.picture_size == before)
    assert view.zoom == pytest.approx(fitted)


def button(widget: QWidget, name: str) -> QAbstractButton:
    [found] = [b for b in widget.findChildren(QAbstractButton) if b.accessibleName() == name]
    return found


# --- conversations -------------------------------------------------------------------------------


def menu_of_row(desk: Desk, row: int, text: str) -> None:
    """Open the menu of a conversation by its key, and choose from it."""
    place = desk.chat.list.visualItemRect(desk.chat.list.item(row)).center()

    def pick() -> None:
        menu = QApplication.activePopupWidget()
        assert isinstance(menu, QMenu)
        choose(menu, text)
        menu.close()

    QTimer.singleShot(0, pick)  # the offscreen platform may close a menu soon
    desk.chat.list.customContextMenuRequested.emit(place)


def test_a_conversation_gets_another_title(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("A long question that makes a poor title")
    with answering("OK", text="Good title") as seen:
        menu_of_row(desk, 0, "Rename")
    assert seen == ["Rename"]
    assert desk.chat.list.item(0).text() == "Good title"
    assert desk.program.history.list()[0].title == "Good title"
    desk.ask("And this one?")
    assert desk.program.history.list()[0].title == "Good title"


def test_a_pinned_conversation_stays_on_top(desk: Desk) -> None:
    desk.open_demo()
    for question in ("Old?", "New?"):
        desk.chat.start_new()
        desk.ask(question)
    menu_of_row(desk, 1, "Pin or unpin")
    assert [desk.chat.list.item(row).text() for row in range(2)] == ["Old?", "New?"]
    menu_of_row(desk, 0, "Pin or unpin")
    assert [desk.chat.list.item(row).text() for row in range(2)] == ["New?", "Old?"]


def test_what_answers_is_not_deleted(desk: Desk, script: Script) -> None:
    script.hold = True
    desk.open_demo()
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers > 0)
    menu_of_row(desk, 0, "Delete")
    assert "Stop it first" in desk.chat.message
    assert desk.chat.list.count() == 1
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)


def test_an_answer_goes_on_while_another_conversation_is_shown(desk: Desk, script: Script) -> None:
    desk.open_demo()
    desk.ask("First?")
    first = talk_of(desk)
    desk.chat.start_new()
    script.hold = True
    desk.chat.composer.setPlainText("Second?")
    desk.chat.send()
    second = talk_of(desk)
    desk.chat.list.itemClicked.emit(desk.chat.list.item(1))
    assert talk_of(desk).id == first.id
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert desk.program.history.load(second.id).path()[0].answer == "It is **red**."
    desk.chat.list.itemClicked.emit(desk.chat.list.item(0))
    view = desk.chat.transcript.view_of(second.path()[0].id)
    assert view.answer.toPlainText() == "It is red."


def test_a_link_opens_after_its_address_was_shown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toString()))
    desk.open_demo()
    desk.ask("Link?")
    view = desk.chat.transcript.view_of(talk_of(desk).path()[0].id)
    [answer] = view.answer.findChildren(Prose)
    address = "https://example.invalid/page"
    with answering("No") as seen:
        answer.anchorClicked.emit(QUrl(address))
    assert address in seen[0]
    assert opened == []
    with answering("Yes"):
        answer.anchorClicked.emit(QUrl(address))
    assert opened == [address]
    for refused in ("file:///etc/passwd", "javascript:alert(1)", "smb://host/share"):
        answer.anchorClicked.emit(QUrl(refused))
    assert opened == [address]


# --- asking --------------------------------------------------------------------------------------


def test_a_preset_is_put_into_the_question_and_own_ones_are_kept(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path)
    choose(desk.chat.presets.menu(), "Table to CSV")
    assert desk.chat.composer.toPlainText() == "Write the table in this image as CSV."
    desk.chat.composer.setPlainText("Is there a cat?")
    choose(desk.chat.presets.menu(), "Save this question as a preset")
    desk.program.close()
    again = open_desk(tmp_path)
    menu = again.chat.presets.menu()
    menu.aboutToShow.emit()
    choose(menu, "Is there a cat?")
    assert again.chat.composer.toPlainText() == "Is there a cat?"


def test_the_settings_page_reaches_the_engine(desk: Desk) -> None:
    desk.open_demo()
    desk.program.window.show_page("settings")
    page = desk.program.window.page("settings")
    assert page is not None
    [field] = [s for s in page.findChildren(QDoubleSpinBox) if s.accessibleName() == "Temperature"]
    field.setFocus()
    field.selectAll()
    desk.qtbot.keyClicks(field, "0.7")
    desk.qtbot.keyClick(field, Qt.Key.Key_Tab)
    desk.program.window.show_page("chat")
    desk.ask("Warm?")
    assert desk.engine.asked[0].sampling.temperature == 0.7


def test_every_setting_with_a_label_has_a_control(desk: Desk) -> None:
    desk.program.window.show_page("settings")
    page = desk.program.window.page("settings")
    assert page is not None
    names = {widget.accessibleName() for widget in page.findChildren(QWidget)}
    assert {setting.label for setting in SETTINGS if setting.group} <= names


def test_an_idle_model_gives_its_memory_back_and_is_loaded_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = QTimer.start

    def start(timer: QTimer, *after_ms: int) -> None:
        """A minute is ten milliseconds here."""
        real(timer, *(ms // 6000 if ms >= 60_000 else ms for ms in after_ms))

    monkeypatch.setattr(QTimer, "start", start)
    desk.open_demo()
    desk.program.settings.set("unload_minutes", 1)
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.EMPTY)
    desk.qtbot.waitUntil(lambda: desk.chat.status.text() == "The model is unloaded.")
    desk.program.settings.set("unload_minutes", 0)
    desk.ask("Are you there?")
    assert desk.chat.answered()


def test_a_model_whose_files_are_not_complete_is_warned_about_once(desk: Desk) -> None:
    desk.open_demo()
    warnings = (Text("{tensor} is empty.", tensor="lm_head"), Text("Answers may be wrong."))
    desk.engine.loaded = Loaded(
        plan={}, compute="cpu", context=64, image_tokens=9, warnings=warnings
    )
    desk.program.engine.state_changed.emit()
    assert desk.chat.message == "lm_head is empty. Answers may be wrong."
    desk.chat.cancel()  # Esc
    desk.ask("Read the sign.")
    desk.program.engine.state_changed.emit()
    assert desk.chat.message == ""


# --- the window ----------------------------------------------------------------------------------


def test_the_memory_page_plans_for_another_budget(desk: Desk) -> None:
    desk.program.window.show_page("memory")
    page = desk.program.window.page("memory")
    assert page is not None
    slider = page.findChild(QSlider)
    plans: list[str] = []
    for gib in (24, 6):
        slider.setValue(gib * 4)
        desk.qtbot.waitUntil(
            lambda gib=gib: f"{gib}.0" in text_of(page) and text_of(page) not in plans,
            timeout=15_000,
        )
        plans.append(text_of(page))
    assert plans[0] != plans[1]


def text_of(page: QWidget) -> str:
    return "\n".join(
        [field.toPlainText() for field in page.findChildren(QPlainTextEdit)]
        + [str(label.text()) for label in page.findChildren(QWidget) if hasattr(label, "text")]
    )


def test_keys_change_letters_pages_and_show_the_sheet(desk: Desk) -> None:
    window = desk.program.window
    window.activateWindow()
    points = desk.program.settings.get("font_points")
    press(desk, "Ctrl++")
    assert desk.program.settings.get("font_points") == points + 1
    press(desk, "Ctrl+0")
    assert desk.program.settings.get("font_points") == 11
    press(desk, "Alt+3")
    page = window.page("convert")
    assert page is not None
    focused = QApplication.focusWidget()
    assert focused is not None
    assert page.isAncestorOf(focused)
    press(desk, "Alt+1")
    press(desk, "F1")
    sheet = window.findChild(ShortcutDialog)
    assert sheet is not None
    assert sheet.isVisible()
    sheet.reject()
    window.activateWindow()  # without a screen nobody does it when a dialog goes
    desk.qtbot.waitUntil(desk.chat.composer.hasFocus)
    desk.chat.composer.setPlainText("half")
    press(desk, "Ctrl+F")
    assert desk.chat.search.hasFocus()
    press(desk, "Ctrl+L")
    assert desk.chat.composer.hasFocus()


def press(desk: Desk, keys: str) -> None:
    """Press keys where the focus is, and let the window draw itself again if it must."""
    QTest.keySequence(QApplication.focusWidget() or desk.program.window, QKeySequence(keys))
    desk.qtbot.wait(30)


def test_the_window_comes_back_where_it_was(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path)
    desk.program.window.resize(700, 500)
    desk.program.close()
    again = open_desk(tmp_path)
    assert (again.program.window.width(), again.program.window.height()) == (700, 500)
