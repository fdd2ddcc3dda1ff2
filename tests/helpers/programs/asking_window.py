"""A window that asks one question after the other until it is killed, and reports what it shows.

    python -m tests.helpers.programs.asking_window DATA NAME talking|demo

It writes a line of JSON for each question after it was sent, and for each piece of text after the
page has it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from PySide6.QtCore import QTimer

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.events import TextDelta
from cogvlm2_lite.worker.client import EngineProcess, EngineState, WorkerEngine
from gui.app import Program, acquire_lock, make_app
from gui.background.engine import EngineClient, start_process
from gui.chat.page import ChatPage
from tests.helpers.giving import give_bytes
from tests.helpers.programs.counting_engine import COMMAND


def main(data: Path, name: str, engine: str) -> None:
    app = make_app()
    lock = acquire_lock(data)
    assert lock is not None, "the window before this one was killed"

    def talking(options: LoadOptions) -> WorkerEngine:
        return EngineProcess(options, command=COMMAND)

    client = EngineClient(start_process if engine == "demo" else talking)
    program = Program(app, data, client)
    program.show()
    chat = program.window.page("chat")
    assert isinstance(chat, ChatPage)
    if engine == "demo":
        picture = checkpoint_folder().parent / "pictures" / "shapes.png"
        give_bytes(chat, picture.read_bytes())
    asked = 0

    def emit(**what: object) -> None:
        sys.stdout.write(json.dumps({"at": time.monotonic(), **what}) + "\n")
        sys.stdout.flush()

    def told(number: int, outcome: object) -> None:
        if isinstance(outcome, TextDelta):
            emit(text=outcome.text)

    def continue_answer() -> None:
        nonlocal asked
        pictured = engine != "demo" or bool(chat.picture)
        if client.state is EngineState.READY and pictured and not chat.busy:
            question = f"{name}.{asked}: How many shapes are there, and where are they?"
            chat.composer.setPlainText(question)
            chat.send()
            emit(asked=question, engine=client.pid)
            asked += 1

    program.engine.outcome.connect(told)
    timer = QTimer()
    timer.timeout.connect(continue_answer)
    timer.start(10)
    chat.open_demo()
    app.exec()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
