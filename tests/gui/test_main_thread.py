"""The window's thread reads no file, hashes nothing, encodes no picture, waits for no process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from PySide6.QtCore import QProcess
from PySide6.QtGui import QGuiApplication, QImage

from gui.batch.page import BatchPage
from gui.save_dialog import Target
from tests.helpers.desk import Desk
from tests.helpers.pages import three_pages

PICTURE = Path(__file__).parents[2] / "cogvlm2_lite" / "demo" / "pictures" / "shapes.png"
IMPORTED = (".py", ".pyc", ".so", ".pyd", ".zip", ".qm")


class Watch:
    """Records blocking calls on the main thread, with the line of gui/ that made them."""

    def __init__(self) -> None:
        self.on = False
        self.calls: list[str] = []

    def note(self, what: str) -> None:
        if not self.on or threading.current_thread() is not threading.main_thread():
            return
        frame: FrameType | None = sys._getframe(1)
        line = ""
        while frame is not None:
            name = frame.f_code.co_filename.replace("\\", "/")
            if "importlib" in name:
                return
            if not line and "/gui/" in name and "/tests/" not in name:
                line = f"{Path(name).name}:{frame.f_lineno}"
            frame = frame.f_back
        if line:
            self.calls.append(f"{what}: {line}")


WATCH = Watch()


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    name = str(arguments[0])
    # /proc is the kernel's memory: the meter of the page "Memory" reads it.
    if not name.endswith(IMPORTED) and not name.startswith("/proc/"):
        WATCH.note(f"open {name}")


sys.addaudithook(audit)


def noted(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        WATCH.note(what)
        return original(*arguments, **named)

    return call


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    for owner, name in (
        (hashlib, "sha256"),
        (subprocess.Popen, "wait"),
        (subprocess.Popen, "communicate"),
        (threading.Thread, "join"),
        (time, "sleep"),
        (QImage, "save"),
        (QProcess, "waitForFinished"),
        (QProcess, "waitForStarted"),
    ):
        monkeypatch.setattr(owner, name, noted(name, getattr(owner, name)))
    WATCH.on, WATCH.calls = True, []
    yield WATCH
    WATCH.on = False


def test_the_watch_sees_what_it_should(watch: Watch, tmp_path: Path) -> None:
    from gui.data.history import History

    with History(tmp_path) as history:
        history.picture(history.save_picture(b"x"))
    kinds = {call.split()[0].rstrip(":") for call in watch.calls}
    assert kinds == {"open", "sha256"}


def test_a_conversation_blocks_nothing(desk: Desk, watch: Watch, tmp_path: Path) -> None:
    desk.open_demo()
    chat = desk.chat
    chat.receive([PICTURE])
    desk.qtbot.waitUntil(lambda: bool(chat.picture))
    desk.ask("What?")
    first = chat.conversation
    assert first is not None
    chat.start_new()
    image = QImage(400, 300, QImage.Format.Format_RGB32)
    image.fill(0xFF8800)
    QGuiApplication.clipboard().setImage(image)
    chat.paste()
    desk.qtbot.waitUntil(lambda: bool(chat.picture))
    desk.ask("And this?")
    chat.captured(image)
    desk.qtbot.waitUntil(lambda: not chat.waiting)
    chat.list.itemClicked.emit(chat.list.item(1))
    desk.qtbot.waitUntil(lambda: bool(chat.picture))
    chat.search.setText("what")
    chat.delete(first.id)
    chat.undo.click()
    assert watch.calls == []


def test_export_import_and_settings_block_nothing(desk: Desk, watch: Watch, tmp_path: Path) -> None:
    desk.open_demo()
    chat = desk.chat
    chat.receive([PICTURE])
    desk.qtbot.waitUntil(lambda: bool(chat.picture))
    desk.ask("What?")
    assert chat.conversation is not None
    target = tmp_path / "talk.json"
    chat.sidebar.export_soon(chat.conversation.id, Target(file=target))
    desk.qtbot.waitUntil(lambda: not desk.program.window.tasks.busy)
    assert target.exists()
    before = chat.list.count()
    chat.sidebar.import_from(target)
    desk.qtbot.waitUntil(lambda: chat.list.count() == before + 1)
    desk.qtbot.waitUntil(lambda: bool(chat.picture))
    desk.program.settings.set("theme", "dark")
    desk.program.settings.set("font_points", 12)
    assert watch.calls == []


def test_several_pictures_block_nothing(desk: Desk, watch: Watch, tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        file.write_bytes(three_pages())
    watch.calls.clear()
    desk.chat.receive(files)
    desk.chat.several.each.emit(files)
    desk.qtbot.waitUntil(lambda: desk.chat.list.count() == 2)
    assert watch.calls == []


@pytest.mark.parametrize(
    "page", ["batch", "convert", "memory", "evaluate", "teach", "settings", "about"]
)
def test_a_page_blocks_nothing_when_it_is_shown(desk: Desk, watch: Watch, page: str) -> None:
    desk.program.window.show_page(page)
    desk.qtbot.wait(20)
    assert watch.calls == []


def test_a_batch_is_exported_by_a_thread(desk: Desk, watch: Watch, tmp_path: Path) -> None:
    desk.program.window.show_page("batch")
    page = desk.program.window.page("batch")
    assert isinstance(page, BatchPage)
    page.export_to(tmp_path / "rows")
    desk.qtbot.waitUntil(lambda: "0 rows were written" in page.status.text())
    assert (tmp_path / "rows.csv").exists()
    assert watch.calls == []


def test_closing_waits_neither_for_a_long_task_nor_for_a_busy_engine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    waited: list[float] = []
    monkeypatch.setattr(desk.engine, "stop", waited.append)
    ended, results = threading.Event(), list[object]()
    window = desk.program.window
    window.tasks.run(lambda: ended.wait(30), results.append, results.append, window)
    began = time.monotonic()
    window.close()
    assert time.monotonic() - began < 5  # 0.3 s, on a machine that does nothing else
    assert waited[0] < 0.5
    assert not window.isVisible()
    ended.set()
    desk.qtbot.waitUntil(lambda: not window.tasks.busy)
    assert results == []


def test_settings_are_written_by_a_thread_in_the_end(desk: Desk) -> None:
    settings = desk.program.settings
    assert settings.path is not None
    for points in range(8, 21):
        settings.set("font_points", points)
    desk.program.saver.finish()
    assert '"font_points": 20' in settings.path.read_text(encoding="utf-8")
