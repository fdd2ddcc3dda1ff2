"""kill -9 of the window and of the engine at random moments: what was said stays said."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.worker.client import EngineProcess, EngineState
from gui.app import Program
from gui.background.engine import EngineClient
from gui.chat.page import ChatPage
from gui.data.history import History
from gui.data.state import Conversation, Status, Turn
from tests.helpers.desk import Desk
from tests.helpers.giving import give_bytes
from tests.helpers.programs.counting_engine import COMMAND, answer_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX"),
]
ROOT = Path(__file__).parents[2]
SHAPES = checkpoint_folder().parent / "pictures" / "shapes.png"
LOST_S = 1.0
"""So much text, in seconds before the kill, may be lost."""


def kill_a_window(data: Path, name: str, engine: str, after_s: float) -> tuple[float, list[Any]]:
    """Let a window ask, kill it some time after its first question; gives when, and what it told.

    Its engine must end with it.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.programs.asking_window", str(data), name, engine],
        cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after_s)
        killed_at = time.monotonic()
        process.kill()
        *lines, _ = (first + process.stdout.read()).split(b"\n")
    told = [json.loads(line) for line in lines]
    wait_gone(told[0]["engine"])
    return killed_at, told


def wait_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return


def check_kept(turns: list[Turn], killed_at: float, told: list[Any]) -> None:
    """Every question is there, and all text that came early enough."""
    said: dict[str, list[tuple[float, str]]] = {}
    question = ""
    for line in told:
        question = line.get("asked", question)
        said.setdefault(question, [])
        if "text" in line:
            said[question].append((line["at"], line["text"]))
    kept = {turn.question: turn for turn in turns}
    # The last question may be on disk and its line not yet on the pipe.
    assert list(kept)[: len(said)] == list(said)
    for asked, pieces in said.items():
        whole = "".join(text for _, text in pieces)
        early = "".join(text for at, text in pieces if at < killed_at - LOST_S)
        answer = kept[asked].answer
        assert answer.startswith(early)
        assert whole.startswith(answer) or answer.startswith(whole)
        assert kept[asked].status in (Status.DONE, Status.INTERRUPTED)
    # No more than the last answer is a piece.
    assert all(kept[asked].status is Status.DONE for asked in list(said)[:-1])


def kill_windows(data: Path, seed: int) -> None:
    """Open a window on a folder and kill it, five times; each must find what the others left."""
    chance = random.Random(seed)
    for number in range(5):
        killed_at, told = kill_a_window(data, str(number), "talking", chance.uniform(0, 1.6))
        with History(data) as history:
            [row] = history.list(f"{number}.0:")
            check_kept(history.load(row.id).path(), killed_at, told)


def test_ten_killed_windows_keep_every_question_and_all_but_the_last_second(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    with ThreadPoolExecutor() as pool:
        list(pool.map(kill_windows, folders, (11, 12)))
    for folder in folders:
        desk = open_desk(folder)
        assert desk.chat.list.count() == 5
        for row in range(5):
            desk.chat.list.itemClicked.emit(desk.chat.list.item(row))
            talk = desk.chat.conversation
            assert talk is not None
            for turn in talk.path():
                view = desk.chat.transcript.view_of(turn.id)
                assert view.answer.toPlainText().strip() == turn.answer.strip()
                assert view.error.isVisibleTo(view) == (turn.status is Status.INTERRUPTED)


def test_windows_with_the_demo_model_lose_no_question_when_they_are_killed(tmp_path: Path) -> None:
    chance = random.Random(12)
    for number in range(2):
        killed_at, told = kill_a_window(tmp_path, str(number), "demo", chance.uniform(0, 2.0))
        with History(tmp_path) as history:
            [row] = history.list(f"{number}.0:")
            talk = history.load(row.id)
            check_kept(talk.path(), killed_at, told)
            assert history.picture(talk.picture) == SHAPES.read_bytes()


@contextmanager
def window(qapp: QApplication, data: Path, client: EngineClient) -> Iterator[ChatPage]:
    program = Program(qapp, data, client)
    program.show()
    chat = program.window.page("chat")
    assert isinstance(chat, ChatPage)
    yield chat
    program.close()


def kill_engine_of(chat: ChatPage, client: EngineClient, qtbot: QtBot, after_s: float) -> None:
    """Ask as soon as that is possible, kill the engine some time after now, and start it again."""
    shown = chat.conversation
    before = len(shown.path()) if shown else 0
    due = time.monotonic() + after_s
    asked = False
    while time.monotonic() < due:
        qtbot.wait(5)
        if client.state is EngineState.READY and not asked:
            chat.composer.setPlainText(f"How many shapes are there? ({before})")
            chat.send()
            asked = True
    pid = client.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: client.state is EngineState.DEAD, timeout=10_000)
    qtbot.waitUntil(lambda: not chat.busy and chat.restart_button.isVisible(), timeout=10_000)
    assert "killed" in chat.message
    assert "memory" in chat.message
    if asked:
        assert chat.conversation is not None
        assert len(chat.conversation.path()) == before + 1
    chat.restart_button.click()
    qtbot.waitUntil(lambda: client.state is not EngineState.DEAD, timeout=10_000)
    qtbot.waitUntil(lambda: client.pid not in (None, pid), timeout=10_000)


def ask_at_the_end(
    chat: ChatPage, client: EngineClient, qtbot: QtBot, question: str
) -> Conversation:
    """Ask once more when the engine is ready again; return the conversation with the answer."""
    qtbot.waitUntil(lambda: client.state is EngineState.READY, timeout=60_000)
    chat.composer.setPlainText(question)
    chat.send()
    qtbot.waitUntil(chat.answered, timeout=60_000)
    talk = chat.conversation
    assert talk is not None
    return talk


def test_an_engine_that_is_killed_twenty_times_costs_nothing_that_it_said(
    qapp: QApplication, qtbot: QtBot, tmp_path: Path
) -> None:
    client = EngineClient(lambda load: EngineProcess(load, command=COMMAND))
    chance = random.Random(13)
    with window(qapp, tmp_path, client) as chat:
        chat.open_demo()
        qtbot.waitUntil(lambda: client.pid is not None)
        for number in range(20):
            # A model that never loaded is given up; later the kills may come while it loads.
            if number % 2 or number == 0:
                qtbot.waitUntil(lambda: client.state is EngineState.READY, timeout=10_000)
            kill_engine_of(chat, client, qtbot, chance.uniform(0.05, 0.6))
        talk = ask_at_the_end(chat, client, qtbot, "The last one?")
        turns = talk.path()
    assert len(turns) > 10, "every other kill hit an answer"
    assert turns[-1].answer == answer_of()
    pieces = [turn for turn in turns if turn.status is Status.FAILED]
    assert any(turn.answer for turn in pieces)
    for turn in pieces:
        assert answer_of().startswith(turn.answer)
        assert "killed" in turn.error
    with History(tmp_path) as history:
        assert history.load(talk.id).path() == turns


def test_the_demo_models_engine_is_killed_at_random_moments(
    qapp: QApplication, qtbot: QtBot, tmp_path: Path
) -> None:
    client = EngineClient()
    chance = random.Random(14)
    with window(qapp, tmp_path, client) as chat:
        give_bytes(chat, SHAPES.read_bytes())
        qtbot.waitUntil(lambda: bool(chat.picture), timeout=30_000)
        chat.open_demo()
        for _ in range(3):
            qtbot.waitUntil(lambda: client.state is EngineState.READY, timeout=60_000)
            kill_engine_of(chat, client, qtbot, chance.uniform(0.05, 1.0))
        talk = ask_at_the_end(chat, client, qtbot, "How many shapes are there?")
        turns = talk.path()
    assert len(turns) == 4
    assert turns[-1].answer.strip() == "4"
    with History(tmp_path) as history:
        assert history.load(talk.id).path() == turns
