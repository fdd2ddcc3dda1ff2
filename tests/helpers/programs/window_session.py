"""A whole session with the window, without a screen.

    python -m tests.helpers.programs.window_session DATA RESULTS

Opens the demo model, drops a picture, asks a question, shows every page, exports, and closes.
Prints the answer.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QMimeData, QUrl
from PySide6.QtWidgets import QPlainTextEdit

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.worker.client import EngineState
from gui.app import Program, make_app
from gui.chat.page import ChatPage
from gui.window import PAGES
from tests.helpers.giving import drop

SHAPES = checkpoint_folder().parent / "pictures" / "shapes.png"


def main(data: Path, results: Path) -> None:
    app = make_app()
    program = Program(app, data)
    program.show()

    def wait(true: Callable[[], object]) -> None:
        end = time.monotonic() + 120
        while not true():
            assert time.monotonic() < end
            app.processEvents()
            time.sleep(0.005)

    chat = program.window.page("chat")
    assert isinstance(chat, ChatPage)
    chat.open_demo()
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(SHAPES))])
    drop(chat.panel, mime)
    wait(lambda: chat.picture)
    wait(lambda: program.engine.client.state is EngineState.READY)
    chat.composer.setPlainText("How many shapes are there?")
    chat.send()
    wait(chat.answered)
    talk = chat.conversation
    assert talk is not None
    for page in PAGES:
        program.window.show_page(page.name)
        app.processEvents()
    about = program.window.page("about")
    assert about is not None
    report = about.findChild(QPlainTextEdit)
    wait(lambda: "torch" in report.toPlainText())
    for kind in ("md", "html", "json"):
        chat.export_to(talk.id, results / f"talk.{kind}")
    program.close()
    sys.stdout.write(talk.path()[0].answer.strip() + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
