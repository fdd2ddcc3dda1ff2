"""Messages in three kinds, which go when their cause goes."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QGuiApplication

from cogvlm2_lite.demo.shipped import checkpoint_folder
from gui import theme
from gui.chat.banner import Banner, MessageKind
from gui.chat.dropped import DroppedContent
from gui.data import settings as module
from tests.gui.test_look import contrast
from tests.helpers.desk import Desk, Script


def test_a_message_about_the_clipboard_goes_with_the_next_picture(desk: Desk) -> None:
    QGuiApplication.clipboard().setText("words")
    desk.chat.paste()
    assert desk.chat.message == "There is no picture on the clipboard."
    assert desk.chat.message_kind is MessageKind.INFO
    desk.chat.take(
        DroppedContent(data=(checkpoint_folder().parent / "pictures" / "shapes.png").read_bytes())
    )
    desk.qtbot.waitUntil(lambda: desk.chat.message == "", timeout=20_000)


def test_settings_that_can_be_saved_again_take_their_warning_away(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.write_atomic

    def full(path: object, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomic", full)
    desk.program.settings.set("top_k", 7)
    desk.qtbot.waitUntil(lambda: "can't be saved" in desk.chat.message)
    assert desk.chat.message_kind is MessageKind.WARNING
    monkeypatch.setattr(module, "write_atomic", real)
    desk.program.settings.set("top_k", 8)
    desk.qtbot.waitUntil(lambda: desk.chat.message == "")


def test_a_dead_engine_is_an_error_until_it_is_back(desk: Desk, script: Script) -> None:
    desk.open_demo()
    desk.engine.die("The engine was killed.")
    desk.program.engine.state_changed.emit()
    assert desk.chat.message == "The engine was killed."
    assert desk.chat.message_kind is MessageKind.ERROR
    desk.chat.restart_button.click()
    desk.qtbot.waitUntil(lambda: desk.chat.message == "", timeout=20_000)


def test_a_message_about_a_running_answer_goes_with_the_answer(desk: Desk, script: Script) -> None:
    desk.open_demo()
    script.hold = True
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers > 0)
    conversation = desk.chat.conversation
    assert conversation is not None
    desk.chat.delete(conversation.id)
    assert "still writing an answer" in desk.chat.message
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: desk.chat.message == "")


def test_an_earlier_message_comes_back_when_the_newer_one_goes(desk: Desk) -> None:
    banner = Banner()
    banner.setParent(desk.chat)
    banner.show_message("No space.", kind=MessageKind.WARNING, cause="settings")
    banner.show_message("No picture.", kind=MessageKind.INFO, cause="picture")
    assert banner.text == "No picture."
    banner.show_message("Still no picture.", kind=MessageKind.INFO, cause="picture")
    banner.dismiss()
    assert (banner.text, banner.isVisibleTo(desk.chat)) == ("No space.", True)
    assert banner.frame.property("kind") == "warning"
    banner.clear("settings")
    assert not banner.isVisibleTo(desk.chat)


def test_the_kinds_can_be_told_apart(desk: Desk) -> None:
    for colours in (theme.LIGHT, theme.DARK):
        edges = {colours.line, colours.warn, colours.bad}
        assert len(edges) == 3
        for edge in edges:
            assert contrast(edge, colours.ground) >= 3
