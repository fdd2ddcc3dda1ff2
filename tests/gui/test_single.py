"""A second start hands its files to the window that is open."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QUrl
from PySide6.QtGui import QFileOpenEvent
from PySide6.QtWidgets import QApplication

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import AdapterError, NoFolderError, UsageError
from gui.app import Program
from gui.command import read_adapter_folder, read_words
from gui.data.history import FILE
from gui.single import OpenRequest, RequestServer, hand_over, socket_name
from tests.helpers.desk import Desk

ROOT = Path(__file__).parents[2]
PICTURES = checkpoint_folder().parent / "pictures"
SIGN = (PICTURES / "sign.png").read_bytes()


class Window:
    """The program in a process of its own, without a screen."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.programs.observed_window", str(data), "talking"],
            cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def look(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"look\n")
        self.process.stdin.flush()
        seen: dict[str, Any] = json.loads(self.process.stdout.readline())
        return seen

    def wait_given(self, name: str) -> dict[str, Any]:
        end = time.monotonic() + 30
        while (seen := self.look())["given"] != name:
            assert time.monotonic() < end, seen
            time.sleep(0.05)
        return seen

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def environment() -> dict[str, str]:
    return {**os.environ, "QT_QPA_PLATFORM": "offscreen", "LANGUAGE": "en", "LANG": "C"}


def start_again(data: Path, *words: str, cwd: Path = ROOT) -> int:
    """Run `cogvlm2-lite gui` and return its exit code."""
    command = [sys.executable, "-m", "cogvlm2_lite", "gui", "--data", str(data), *words]
    paths = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environment() | paths, timeout=60, check=False
    ).returncode


@pytest.fixture
def windows() -> Iterator[list[Window]]:
    opened: list[Window] = []
    yield opened
    for window in opened:
        window.kill()


@pytest.mark.slow
def test_a_second_start_hands_its_file_to_the_window_also_after_a_kill(
    tmp_path: Path, windows: list[Window]
) -> None:
    data = tmp_path / "data"
    name = os.fsdecode(b"it's caf\xe9 \xe5\x9b\xbe.png")
    (tmp_path / name).write_bytes(SIGN)
    windows.append(Window(data))
    windows[0].look()
    assert start_again(data, name, cwd=tmp_path) == 0
    windows[0].wait_given("it's caf\\xe9 图.png")
    wait_saved(data)
    windows[0].kill()
    windows.append(Window(data))
    windows[1].wait_given("it's caf\\xe9 图.png")  # it was not asked about
    assert start_again(data, str(PICTURES / "chart.png")) == 0
    windows[1].wait_given("chart.png")


def wait_saved(data: Path) -> None:
    """Wait until a picture that was given would survive a kill."""
    end = time.monotonic() + 30
    with closing(sqlite3.connect(data / FILE)) as database:
        while not database.execute("SELECT count(*) FROM given").fetchone()[0]:
            assert time.monotonic() < end
            time.sleep(0.05)


def from_elsewhere(desk: Desk, name: str, request: OpenRequest) -> None:
    """Hand a request over from another thread, as another process does."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(hand_over(name, request)))
    thread.start()
    desk.qtbot.waitUntil(lambda: bool(answers), timeout=10_000)
    thread.join()
    assert answers == [True]


@pytest.fixture
def served(desk: Desk, tmp_path: Path) -> Iterator[str]:
    """The name of the socket of the window."""
    name = socket_name(tmp_path, {})
    server = RequestServer(name, desk.program.window)
    assert server.listening
    server.received.connect(desk.program.open)
    yield name
    server.close()


def request(*files: Path, model: Path | None = None, adapter: Path | None = None) -> OpenRequest:
    return OpenRequest(files=files, model=model, adapter=adapter, tokens={})


def test_a_file_starts_a_conversation_in_the_window_and_raises_it(
    desk: Desk, served: str, tmp_path: Path
) -> None:
    desk.open_demo()
    desk.ask("Hello?")
    desk.program.window.show_page("memory")
    desk.program.window.showMinimized()
    from_elsewhere(desk, served, request(PICTURES / "sign.png"))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert desk.chat.isVisible()
    assert not desk.program.window.isMinimized()
    assert desk.chat.conversation is None
    assert desk.chat.list.count() == 1
    # Several files are a choice, and a folder goes to the batch page.
    from_elsewhere(desk, served, request(PICTURES / "sign.png", PICTURES / "chart.png"))
    desk.qtbot.waitUntil(desk.chat.several.isVisible)
    from_elsewhere(desk, served, request(PICTURES))
    desk.qtbot.waitUntil(lambda: desk.program.window.page("batch") is not None)
    assert desk.chat.list.item(0).text() == "sign.png"  # what was given and left is kept


def test_a_model_is_opened_in_the_window(desk: Desk, served: str) -> None:
    from_elsewhere(desk, served, request(model=checkpoint_folder()))
    desk.qtbot.waitUntil(lambda: desk.chat.status.text() == "Ready")
    assert desk.engine.options.folder == checkpoint_folder()


def test_an_adapter_is_used_in_the_window(desk: Desk, served: str, tmp_path: Path) -> None:
    button = desk.program.window.model_bar.adapter_button
    for number, model in enumerate((checkpoint_folder(), None)):
        folder = tmp_path / f"adapter{number}"
        folder.mkdir()
        from_elsewhere(desk, served, request(model=model, adapter=folder))
        desk.qtbot.waitUntil(lambda name=folder.name: button.text() == name)
        assert desk.engine.options.adapters[0].folder == folder


def test_the_folder_of_an_adapter_is_looked_for_before_the_window_opens(tmp_path: Path) -> None:
    assert read_adapter_folder(tmp_path.as_uri()) == tmp_path
    with pytest.raises(AdapterError, match="There is no adapter folder"):
        read_adapter_folder(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"[1]\n",
        b"nonsense\n",
        b'{"files": 3, "model": 1, "tokens": []}\n',
        b"\xff\x00\n",
    ],
)
def test_nonsense_on_the_socket_changes_nothing(desk: Desk, served: str, line: bytes) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has a named pipe here, which AF_UNIX does not reach")
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.connect(served)
        foreign.sendall(line)
        desk.qtbot.wait(50)
    from_elsewhere(desk, served, request())
    assert desk.chat.picture == b""


def test_a_window_that_does_not_answer_is_not_waited_for_forever(tmp_path: Path) -> None:
    began = time.monotonic()
    assert not hand_over(str(tmp_path / "none.socket"), request(), timeout_s=0.2)
    assert time.monotonic() - began < 2


def test_the_socket_is_of_the_user_and_the_data_folder(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # tmp_path can be too long for a socket
        runtime = {"XDG_RUNTIME_DIR": short}
        one, two = (socket_name(tmp_path / name, runtime) for name in ("one", "two"))
        assert one != two
        assert Path(one).parent == Path(short)
    assert len(os.fsencode(socket_name(tmp_path / ("x" * 150), {}))) <= 100


# --- the words of the command line --------------------------------------------------------------


def test_words_are_models_and_pictures(tmp_path: Path) -> None:
    sign = PICTURES / "sign.png"
    assert read_words([]) == (None, ())
    assert read_words(["demo"]) == (checkpoint_folder(), ())
    assert read_words([str(sign)]) == (None, (sign,))
    assert read_words([sign.as_uri()]) == (None, (sign,))
    assert read_words(["demo", str(sign), str(PICTURES)]) == (checkpoint_folder(), (sign, PICTURES))
    shutil.copy(sign, tmp_path / "no-suffix")
    assert read_words([str(tmp_path / "no-suffix")]) == (None, (tmp_path / "no-suffix",))


def test_words_that_can_not_be_opened_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        read_words([str(tmp_path / "gone.jpg")])
    with pytest.raises(NoFolderError):
        read_words([str(tmp_path / "gone")])
    with pytest.raises(UsageError, match="one model"):
        read_words(["demo", "demo"])


def test_a_first_start_opens_its_files(desk: Desk) -> None:
    program: Program = desk.program
    program.open(request(PICTURES / "sign.png"))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)


# --- files that macOS sends ----------------------------------------------------------------------


def test_open_events_of_the_system_are_a_second_start_with_these_files(
    desk: Desk, tmp_path: Path, qapp: QApplication
) -> None:
    window, picture = desk.program.window, tmp_path / "a picture 图.png"
    picture.write_bytes(SIGN)
    window.show_page("settings")
    window.showMinimized()
    assert QApplication.sendEvent(qapp, QFileOpenEvent(str(picture)))
    desk.qtbot.waitUntil(lambda: desk.chat.chip.name.toolTip() == picture.name)
    assert desk.chat.isVisible()
    assert not window.isMinimized()
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN, timeout=20_000)


def test_open_events_for_several_files_and_a_folder(
    desk: Desk, tmp_path: Path, qapp: QApplication
) -> None:
    for name in ("sign.png", "chart.png"):  # the Finder sends one event for each
        url = QUrl.fromLocalFile(str(PICTURES / name))
        QApplication.postEvent(qapp, QFileOpenEvent(url))
    desk.qtbot.waitUntil(desk.chat.several.isVisible)
    assert desk.chat.several.text.text().startswith("2 files.")
    QApplication.sendEvent(qapp, QFileOpenEvent(str(PICTURES)))
    desk.qtbot.waitUntil(lambda: desk.program.window.page("batch") is not None)
    desk.qtbot.waitUntil(desk.program.window.page("batch").isVisible)


def test_an_open_event_with_an_address_or_a_broken_file_is_no_trouble(
    desk: Desk, tmp_path: Path, qapp: QApplication
) -> None:
    QApplication.sendEvent(qapp, QFileOpenEvent(QUrl("https://example.org/a.png")))
    desk.qtbot.wait(20)
    assert not desk.chat.chip.isVisible()
    QApplication.sendEvent(qapp, QFileOpenEvent(str(tmp_path / "gone.png")))
    desk.qtbot.waitUntil(lambda: "gone.png" in desk.chat.chip.text.text(), timeout=20_000)


def test_the_program_has_the_application_that_takes_open_events() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "from gui.app import make_app; print(type(make_app()).__name__)"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout.strip() == "Application"
