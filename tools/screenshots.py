"""Make docs/screenshots/ with the real window and the demo model: python tools/screenshots.py

Runs offscreen. The pictures are the same every time, except for the seconds under an answer.

python tools/screenshots.py --all FOLDER writes every page in every look of LOOKS (light, dark,
Chinese, small, large letters) into a folder, to look at; they are not part of the repository.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PySide6.QtWidgets import QApplication, QPlainTextEdit, QWidget  # noqa: E402

from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.worker.client import EngineState  # noqa: E402
from gui.app import Program, make_app  # noqa: E402
from gui.batch.page import BatchPage  # noqa: E402
from gui.chat.dropped import DroppedContent  # noqa: E402
from gui.chat.page import ChatPage  # noqa: E402
from gui.data.state import Conversation, Status, Turn  # noqa: E402
from gui.memory.page import MemoryPage  # noqa: E402
from gui.pages.convert import ConvertPage  # noqa: E402
from gui.window import PAGES  # noqa: E402

TARGET = ROOT / "docs" / "screenshots"
PICTURES = checkpoint_folder().parent / "pictures"
ANSWER = """\
The bars, from the left:

| bar | value |
|-----|------:|
| black | 3 |
| yellow | 4 |
| orange | 7 |

As CSV:

```csv
bar,value
black,3
yellow,4
orange,7
```

The [format](https://datatracker.ietf.org/doc/html/rfc4180) has"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the window looks in a set of pictures of all pages. size: in pixels at scale 1"""

    theme: str = "light"
    language: str = "en"
    points: int = 11
    size: tuple[int, int] = (1180, 760)
    scale: float = 1


SMALL = (902, 476)
"""The first window on a screen of 1366 x 768 pixels at a scale of 1.5."""
LOOKS = {
    "light": Look(),
    "dark": Look(theme="dark"),
    "chinese": Look(language="zh_CN"),
    "small": Look(size=SMALL, scale=1.5),
    "large": Look(points=20),
    "small-large-dark": Look(theme="dark", points=20, size=SMALL, scale=1.5),
}


class Photographer:
    """Uses the window as a person would, and takes pictures of it."""

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

    @property
    def ready(self) -> bool:
        """Whether the model can be asked."""
        return self.program.engine.client.state is EngineState.READY

    def show(self, name: str) -> QWidget:
        """Show a page."""
        self.program.window.show_page(name)
        page = self.program.window.page(name)
        assert page is not None
        return page

    def set(self, name: str, value: str) -> None:
        """Change the theme or the language, and wait until the pages are made again."""
        self.program.settings.set(name, value)
        self.wait(4)

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Process the window's events for so long, or until a condition holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self._app.processEvents()
            time.sleep(0.01)

    def take(self, name: str, folder: Path = TARGET) -> None:
        """Write a picture of the window."""
        self.wait(1)
        self.program.window.grab().save(str(folder / f"{name}.png"))

    def ask_about(self, picture: str, *questions: str) -> None:
        """Ask questions about a picture in a new conversation."""
        self.chat.start_new()
        data = (PICTURES / picture).read_bytes()
        self.chat.take(DroppedContent(data=data))
        self.wait(20, lambda: self.chat.picture == data)
        self.wait(1)
        for question in questions:
            self.chat.composer.setPlainText(question)
            self.chat.send()
            self.wait(30, lambda: not self.chat.busy)


def conversations(shooter: Photographer) -> None:
    """Ask the demo model about three pictures."""
    shooter.chat.open_demo()
    shooter.wait(60, lambda: shooter.ready)
    shooter.ask_about("sign.png", "What word is on the sign?", "What color is the text?")
    shooter.ask_about("chart.png", "Which bar is the highest?", "How many bars are there?")
    shooter.ask_about(
        "shapes.png",
        "How many shapes are there?",
        "What is in the top left?",
        "三角形在哪里?",
    )


def markdown(shooter: Photographer) -> None:
    """Show an answer with a table and code; the demo model writes neither, so it is put in."""
    conversation, picture = (
        Conversation(id=0, title="Table to CSV"),
        (PICTURES / "labelled-chart.png"),
    )
    conversation.add(Turn(id=1, parent=None, question="Write the table in this image as CSV."))
    conversation.turns[1] = replace(conversation.turns[1], answer=ANSWER, status=Status.STOPPED)
    shown = shooter.program.history.import_conversation(conversation, picture.read_bytes())
    shooter.chat.reload_list()
    shooter.chat.show_conversation(shown)
    shooter.wait(2)
    shooter.take("chat-markdown")


def batch(shooter: Photographer, folder: Path) -> None:
    """Ask one question about the demo's pictures, one of which is broken."""
    folder.mkdir()
    for file in sorted(PICTURES.glob("*.png")):
        shutil.copy(file, folder / file.name)
    (folder / "damaged.png").write_bytes(b"not a picture")
    page = shooter.show("batch")
    assert isinstance(page, BatchPage)
    page.form.folder.setText(str(folder))
    page.form.question.setPlainText("How many shapes are there?")
    page.start()
    shooter.wait(90, lambda: not page.running)
    shooter.wait(60, lambda: shooter.ready)
    shooter.wait(1)
    hide(page, folder)
    shooter.take("batch")


def hide(page: QWidget, folder: Path) -> None:
    """Replace the path of a temporary folder by a plausible one."""
    assert isinstance(page, BatchPage)
    page.form.folder.setText("~/Pictures/scans")
    page.status.setText(page.status.text().replace(str(folder), "~/Pictures/scans"))


def convert(shooter: Photographer, target: Path) -> None:
    """Convert the demo model to 4 bits."""
    page = shooter.show("convert")
    assert isinstance(page, ConvertPage)
    page.source.setText(str(checkpoint_folder()))
    page.target.setText(str(target))
    page.start()
    shooter.wait(90, lambda: not page.running)
    page.source.setText("~/cogvlm2-lite/cogvlm2_lite/demo/checkpoint")
    page.target.setText("~/models/demo-nf4")
    page.status.setText(page.status.text().replace(str(target), "~/models/demo-nf4"))
    shooter.take("convert")


def memory(shooter: Photographer, name: str, gib: float) -> None:
    """Plan the released model for a card; no model may be open."""
    page = shooter.show("memory")
    assert isinstance(page, MemoryPage)
    page.slider.setValue(round(gib * 4))
    shooter.wait(3)
    shooter.take(name)


def every_page(shooter: Photographer, look: Look, name: str, folder: Path) -> None:
    """Take a picture of every page in one look, and of an empty chat and the shortcuts."""
    window = shooter.program.window
    window.resize(*look.size)
    shooter.program.settings.set("font_points", look.points)
    shooter.set("theme", look.theme)
    if look.language != "en":
        shooter.set("language", look.language)
    shooter.take(f"welcome-{name}", folder)
    conversations(shooter)
    for page in PAGES:
        shooter.show(page.name)
        shooter.wait(60 if page.name == "about" else 3, partial(_is_checked, window, page.name))
        shooter.take(f"{page.name}-{name}", folder)
    shooter.show("chat")
    shooter.chat.show_message("The settings can't be saved: No space left on device.")
    shooter.take(f"message-{name}", folder)


def _is_checked(window: QWidget, page: str) -> bool:
    """Return whether the report of the page About is there."""
    reports = [field.toPlainText() for field in window.findChildren(QPlainTextEdit)]
    return page == "about" and any("bitsandbytes" in report for report in reports)


def take_all(folder: Path) -> None:
    """Write every page in every look, each look in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, look in LOOKS.items():
        command = [sys.executable, __file__, "--look", name, str(folder)]
        scaled = {**os.environ, "QT_SCALE_FACTOR": str(look.scale)}
        subprocess.run(command, env=scaled, check=True)


def documentation(shooter: Photographer, data: Path) -> None:
    """Take the pictures of the documentation, except for windows of another scale."""
    program = shooter.program
    shooter.take("welcome")
    memory(shooter, "memory", 8)
    shooter.set("theme", "dark")
    memory(shooter, "memory-dark", 5)
    shooter.set("theme", "light")
    shooter.show("chat")
    conversations(shooter)
    shooter.take("chat-light")
    shooter.set("theme", "dark")
    shooter.take("chat-dark")
    program.window.resize(760, 560)
    shooter.take("chat-small")
    program.window.resize(1180, 760)
    shooter.set("theme", "light")
    markdown(shooter)
    batch(shooter, data / "scans")
    convert(shooter, data / "nf4")
    shooter.show("settings")
    shooter.take("settings")
    shooter.show("chat")
    shooter.set("language", "zh_CN")
    shooter.take("chat-chinese")
    hide(shooter.show("batch"), data / "scans")
    shooter.wait(4)
    shooter.take("batch-chinese")
    shooter.set("language", "en")
    shooter.show("chat")
    client = program.engine.client
    if client.pid is not None:
        os.kill(client.pid, 9)
    shooter.wait(10, lambda: client.state is EngineState.DEAD)
    shooter.take("engine-ended")


def take_scaled() -> None:
    """Take a chat in windows of other scales, each in a process of its own."""
    for scale in ("1.5", "2"):
        command = [sys.executable, __file__, "--scaled"]
        subprocess.run(command, env={**os.environ, "QT_SCALE_FACTOR": scale}, check=True)


def main() -> None:
    """Take the pictures of the documentation, or those that an option names."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every page in every look")
    parser.add_argument(
        "--look", nargs=2, metavar=("LOOK", "FOLDER"), help="every page in one look"
    )
    parser.add_argument("--scaled", action="store_true", help="a chat, at QT_SCALE_FACTOR")
    args = parser.parse_args()
    if args.all is not None:
        take_all(args.all)
        return
    TARGET.mkdir(parents=True, exist_ok=True)
    app = make_app()
    with tempfile.TemporaryDirectory() as name:
        shooter = Photographer(app, Path(name) / "window")
        if args.look is not None:
            look, folder = args.look
            every_page(shooter, LOOKS[look], look, Path(folder))
        elif args.scaled:
            shooter.program.window.resize(900, 600)
            conversations(shooter)
            shooter.take(f"chat-scale-{app.devicePixelRatio():g}")
        else:
            documentation(shooter, Path(name))
        shooter.program.close()
    if args.look is None and not args.scaled:
        take_scaled()


if __name__ == "__main__":
    main()
