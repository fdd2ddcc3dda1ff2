"""The whole way with the real engine and the demo model: ask, kill, start again, find all again."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from PySide6.QtCore import QMimeData, QUrl
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.events import TextDelta
from cogvlm2_lite.worker.client import EngineState
from gui.app import Program
from gui.chat.page import ChatPage
from gui.data.state import Status
from tests.helpers.giving import drop, give_bytes

SHAPES = checkpoint_folder().parent / "pictures" / "shapes.png"
THREE = SHAPES.with_name("three-shapes.png")
SEEN = "A yellow cross, a pink square and a purple diamond."


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_the_demo_model_answers_and_a_killed_engine_loses_nothing(
    qapp: QApplication, qtbot: QtBot, tmp_path: Path
) -> None:
    program = Program(qapp, tmp_path)
    program.settings.set("language", "en")
    program.window.show_page("chat")
    program.window.show()
    qtbot.wait(50)  # the change of the language makes the pages again
    chat = program.window.page("chat")
    assert isinstance(chat, ChatPage)
    client = program.engine.client
    chat.open_demo()
    qtbot.waitUntil(lambda: client.state is EngineState.READY, timeout=60_000)
    give_bytes(chat, SHAPES.read_bytes())
    qtbot.waitUntil(lambda: bool(chat.picture), timeout=30_000)
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
    qtbot.waitUntil(lambda: len(chat.conversation.path()) == 2, timeout=5_000)
    qtbot.waitUntil(chat.answered, timeout=60_000)
    number = chat.conversation.id
    program.close()
    again = Program(qapp, tmp_path)
    kept = again.history.load(number)
    assert [turn.answer.strip() for turn in kept.path()] == ["4", "左边"]
    assert all(turn.status is Status.DONE for turn in kept.path())
    assert again.history.picture(kept.picture) == SHAPES.read_bytes()
    again.close()


@pytest.mark.slow
def test_drop_ask_stream_stop_again_edit_search_export_restart(
    qapp: QApplication, qtbot: QtBot, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    program = Program(qapp, data)
    program.settings.set("language", "en")
    program.show()
    qtbot.wait(50)  # the change of the language makes the pages again
    chat = program.window.page("chat")
    assert isinstance(chat, ChatPage)
    pieces: list[str] = []
    program.engine.outcome.connect(
        lambda _, outcome: pieces.append(outcome.text) if isinstance(outcome, TextDelta) else None
    )

    def ask(question: str) -> None:
        chat.composer.setPlainText(question)
        chat.send()
        qtbot.waitUntil(lambda: not chat.busy, timeout=60_000)

    chat.open_demo()
    qtbot.waitUntil(lambda: program.engine.client.state is EngineState.READY, timeout=60_000)
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(THREE))])
    drop(chat.panel, mime)
    qtbot.waitUntil(lambda: bool(chat.picture), timeout=30_000)

    # Ask: the answer comes in pieces, and they are the answer.
    ask("What is in the picture?")
    talk = chat.conversation
    assert talk is not None
    first = talk.path()[0]
    assert first.answer.strip() == SEEN
    assert len(pieces) > 1
    assert "".join(pieces) == first.answer
    assert first.stats is not None
    assert first.stats.image_tokens > 0

    # Stop: the demo model answers within milliseconds, so it is held up until both are sent.
    engine = psutil.Process(program.engine.client.pid)
    engine.suspend()
    chat.composer.setPlainText("Is the cross left of the square?")
    chat.send()
    chat.stop()
    qtbot.wait(200)
    engine.resume()
    qtbot.waitUntil(lambda: not chat.busy, timeout=60_000)
    stopped = talk.path()[1]
    assert stopped.status is Status.STOPPED
    assert stopped.stats is not None
    assert stopped.stats.completion_tokens <= 2

    # Again gives the whole answer beside the stopped one; an edited question a third version.
    chat.answer_again(stopped.id)
    qtbot.waitUntil(lambda: not chat.busy, timeout=60_000)
    again = talk.path()[1]
    assert (again.question, again.status) == (stopped.question, Status.DONE)
    chat.ask_edited(again.id, "Is the cross right of the square?")
    qtbot.waitUntil(lambda: not chat.busy, timeout=60_000)
    assert len(talk.siblings(talk.path()[1])) == 3

    # Search, export, and a second conversation.
    chat.start_new()
    ask("Hello")
    chat.search.setText("right of")
    assert chat.list.count() == 1
    chat.list.itemClicked.emit(chat.list.item(0))
    for kind in ("md", "html", "json"):
        chat.export_to(talk.id, tmp_path / f"talk.{kind}")
    assert SEEN in (tmp_path / "talk.md").read_text()
    assert (tmp_path / "talk.png").read_bytes() == THREE.read_bytes()
    shown = [(turn.question, turn.answer, turn.status) for turn in talk.path()]
    program.close()

    # After a restart all is found again.
    program = Program(qapp, data)
    program.show()
    chat = program.window.page("chat")
    assert isinstance(chat, ChatPage)
    assert [chat.list.item(row).text() for row in range(chat.list.count())] == [
        "Hello", "What is in the picture?",
    ]  # fmt: skip
    chat.list.itemClicked.emit(chat.list.item(1))
    found = chat.conversation
    assert found is not None
    assert [(turn.question, turn.answer, turn.status) for turn in found.path()] == shown
    assert len(found.turns) == 4
    qtbot.waitUntil(lambda: chat.picture == THREE.read_bytes(), timeout=30_000)
    qtbot.waitUntil(chat.panel.view.isVisible, timeout=30_000)
    program.close()
