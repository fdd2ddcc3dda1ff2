"""Make docs/screenshots/ with the real window and the demo model: python tools/screenshots.py

Offscreen; the same pictures every time, but for the seconds under an answer.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PySide6.QtWidgets import QApplication  # noqa: E402

from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.engine.process import EngineState  # noqa: E402
from gui.app import Program, make_app  # noqa: E402
from gui.chat.page import ChatPage  # noqa: E402

TARGET = ROOT / "docs" / "screenshots"
PICTURES = checkpoint_folder().parent / "pictures"


class Photographer:
    """Works the window as a person would and takes pictures of it."""

    def __init__(self, app: QApplication, data: Path) -> None:
        self._app = app
        self.program = Program(app, data)
        self.program.settings.set("language", "en")
        self.program.settings.set("theme", "light")
        self.program.window.resize(1180, 760)
        self.program.window.show_page("chat")
        self.program.window.show()
        self.wait(0.5)

    @property
    def chat(self) -> ChatPage:
        page = self.program.window.page("chat")
        assert isinstance(page, ChatPage)
        return page

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let the window work for so long, or until something is so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self._app.processEvents()
            time.sleep(0.01)

    def take(self, name: str) -> None:
        """Write a picture of the window."""
        self.wait(0.4)
        self.program.window.grab().save(str(TARGET / f"{name}.png"))

    def talk(self, picture: str, *questions: str) -> None:
        """Begin a conversation about a picture."""
        self.chat.start_new()
        data = (PICTURES / picture).read_bytes()
        self.chat.panel.offer(data)
        self.wait(20, lambda: self.chat.keep()[1] == data)
        self.wait(1)
        for question in questions:
            self.chat.composer.setPlainText(question)
            self.chat.send()
            self.wait(30, lambda: not self.chat.busy)


def main() -> None:
    """Take all of them."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        shooter = Photographer(make_app(), Path(data))
        program = shooter.program
        shooter.take("welcome")
        shooter.chat.open_demo()
        shooter.wait(60, lambda: program.engine.client.state is EngineState.READY)
        shooter.talk("sign.png", "What word is on the sign?", "What color is the text?")
        shooter.talk("chart.png", "Which bar is the highest?", "How many bars are there?")
        shooter.talk(
            "shapes.png",
            "How many shapes are there?",
            "What is in the top left?",
            "三角形在哪里?",
        )
        shooter.take("chat-light")
        program.settings.set("theme", "dark")
        shooter.wait(1)
        shooter.take("chat-dark")
        program.window.resize(760, 560)
        shooter.take("chat-small")
        program.window.resize(1180, 760)
        program.settings.set("theme", "light")
        shooter.wait(1)
        for page in ("memory", "convert", "settings"):
            program.window.show_page(page)
            shooter.wait(2)
            shooter.take(page)
        program.window.show_page("chat")
        program.settings.set("language", "zh_CN")
        shooter.wait(1)
        shooter.take("chat-chinese")
        client = program.engine.client
        if client.pid is not None:
            os.kill(client.pid, 9)
        shooter.wait(10, lambda: client.state is EngineState.DEAD)
        shooter.take("engine-ended")
        program.close()


if __name__ == "__main__":
    main()
