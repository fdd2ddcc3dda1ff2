"""The whole way with the real engine and the demo model: ask, kill, start again, find all again."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.process import EngineState
from gui.app import Program
from gui.chat.page import ChatPage
from gui.state import Status

SHAPES = checkpoint_folder().parent / "pictures" / "shapes.png"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_the_demo_model_answers_and_a_killed_engine_loses_nothing(
    qapp: QApplication, qtbot: QtBot, tmp_path: Path
) -> None:
    program = Program(qapp, tmp_path)
    program.settings.set("language", "en")
    program.window.show_page("chat")
    program.window.show()
    qtbot.wait(50)  # the change of the language makes the pages anew
    chat = program.window.page("chat")
    assert isinstance(chat, ChatPage)
    client = program.engine.client
    chat.open_demo()
    qtbot.waitUntil(lambda: client.state is EngineState.READY, timeout=60_000)
    chat.panel.offer(SHAPES.read_bytes())
    qtbot.waitUntil(lambda: bool(chat.keep()[1]), timeout=30_000)
    chat.composer.setPlainText("How many shapes are there?")
    chat.send()
    qtbot.waitUntil(chat.answered, timeout=60_000)
    assert chat.conversation is not None
    assert chat.conversation.path()[0].answer.strip() == "4"
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: client.state is EngineState.DEAD, timeout=30_000)
    qtbot.waitUntil(chat.restart_button.isVisible)
    chat.restart_button.click()
    qtbot.waitUntil(lambda: client.state is EngineState.READY, timeout=60_000)
    chat.composer.setPlainText("三角形在哪里?")
    chat.send()
    qtbot.waitUntil(lambda: len(chat.conversation.path()) == 2, timeout=5_000)  # type: ignore[union-attr]
    qtbot.waitUntil(chat.answered, timeout=60_000)
    number = chat.conversation.id
    program.close()
    again = Program(qapp, tmp_path)
    kept = again.history.load(number)
    assert [turn.answer.strip() for turn in kept.path()] == ["4", "左边"]
    assert all(turn.status is Status.DONE for turn in kept.path())
    assert again.history.picture(kept.picture) == SHAPES.read_bytes()
    again.close()
