"""What can be wrong with the folder of the conversations: each is a sentence, nothing is
overwritten, and the window continues."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication, QMessageBox

from cogvlm2_lite.events import TextDelta
from gui import app as gui_app
from gui.data.history import FILE, VERSION, History, HistoryError
from gui.data.settings import Preferences
from gui.data.state import Status
from tests.helpers.desk import Desk, Script, finished

posix = pytest.mark.skipif(sys.platform == "win32", reason="of POSIX")
LONG = "word " * 8000  # 40 KB: more than the free part of any page of the database
HOLDER = """
import sys
from pathlib import Path
from gui.app import acquire_lock
lock = acquire_lock(Path(sys.argv[1]))
print(lock is not None, flush=True)
sys.stdin.read()
"""


def warning_of(desk: Desk) -> str:
    """Return the text of the box over the window, and close it."""
    [box] = desk.program.window.findChildren(QMessageBox)
    text = box.text()
    box.close()
    return text


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def ask_one(folder: Path, question: str = "Kept?") -> None:
    with History(folder) as history:
        talk = history.create(title=question)
        turn = history.ask(talk, question, None)
        history.write(talk.finish(turn.id, finished("Yes.")))


@contextmanager
def write_locked(folder: Path) -> Iterator[None]:
    """Hold the database as a backup program might."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def files_limited(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as under a quota."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder with a conversation that this process may read and not write.

    root may write everywhere, so it becomes nobody for the time of the test.
    """
    folder = Path(tempfile.mkdtemp())
    ask_one(folder / "data")
    (folder / "data" / FILE).chmod(0o444)
    (folder / "data").chmod(0o555)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder / "data"
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        (folder / "data").chmod(0o755)
        shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 256 KiB; only root on Linux can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk is full; gives the file."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(1024))
    assert shutil.disk_usage(folder).free == 0
    return ballast


def test_a_newer_database_is_left_alone_and_the_window_works(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    ask_one(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = (tmp_path / FILE).read_bytes()
    desk = open_desk(tmp_path)
    assert "newer version" in warning_of(desk)
    desk.open_demo()
    desk.ask("Does it work?")
    assert desk.chat.answered()
    desk.program.close()
    assert (tmp_path / FILE).read_bytes() == before


@posix
def test_a_read_only_folder_is_told_and_the_window_works(
    open_desk: Callable[[Path], Desk], read_only_folder: Path
) -> None:
    before = contents(read_only_folder)
    desk = open_desk(read_only_folder)
    text = warning_of(desk)
    assert "can't be" in text
    assert "Make it writable" in text
    desk.open_demo()
    desk.ask("Does it work?")
    assert desk.chat.answered()
    desk.qtbot.waitUntil(lambda: "settings can't be saved" in desk.program.settings.problem)
    desk.program.close()
    assert contents(read_only_folder) == before


@posix
def test_a_folder_that_can_not_be_made_is_told(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file stands where the folder should")
    assert gui_app.acquire_lock(tmp_path / "data") is not None
    desk = open_desk(tmp_path / "data")
    assert "can't be used" in warning_of(desk)
    desk.open_demo()
    desk.ask("Does it work?")
    assert desk.chat.answered()


def test_a_question_that_does_not_fit_on_the_disk_stays_in_the_composer(
    open_desk: Callable[[Path], Desk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gui_app, "History", partial(History, most_pages=1))  # SQLite: what is there
    desk = open_desk(tmp_path)
    desk.open_demo()
    desk.chat.composer.setPlainText(LONG)
    desk.chat.send()
    assert desk.chat.message == "The disk is full. Free some space; nothing that was saved is lost."
    assert desk.chat.composer.toPlainText() == LONG
    assert desk.engine.asked == []
    desk.ask("Short?")  # fits into a page that is there
    assert desk.chat.answered()


@posix
def test_an_answer_that_can_not_be_written_is_written_with_the_next(
    open_desk: Callable[[Path], Desk], tmp_path: Path, script: Script
) -> None:
    script.events = [TextDelta(text=LONG)]
    script.hold = True
    desk = open_desk(tmp_path)
    desk.open_demo()
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    with files_limited((tmp_path / f"{FILE}-wal").stat().st_size):
        desk.engine_says_all()
        desk.qtbot.waitUntil(lambda: not desk.chat.busy)
        said = desk.chat.message
    assert said == (
        "The file of the conversations can't be read or written. "
        "Check that its disk is connected and has free space."
    )
    talk = desk.chat.conversation
    assert talk is not None
    assert talk.path()[0].answer == LONG
    assert desk.program.history.load(talk.id).path()[0].answer == LONG, "owed, and shown"
    script.hold = False
    desk.ask("And now?")
    with History(tmp_path) as other:
        turns = other.load(talk.id).path()
    assert [turn.answer for turn in turns] == [LONG, LONG]
    assert [turn.status for turn in turns] == [Status.DONE, Status.DONE]


@posix
def test_a_disk_that_is_full_costs_no_answer(
    open_desk: Callable[[Path], Desk],
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Script,
) -> None:
    script.events = [TextDelta(text=LONG)]
    script.hold = True
    data = small_disk / "data"
    desk = open_desk(data)
    desk.open_demo()
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    ballast = fill(small_disk)
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert desk.chat.message == "The disk is full. Free some space; nothing that was saved is lost."
    answers: list[object] = []
    monkeypatch.setattr(
        QMessageBox,
        "question",
        lambda *_: answers.append("asked") or QMessageBox.StandardButton.No,
    )
    desk.program.window.close()
    assert answers == ["asked"]
    assert desk.program.window.isVisible(), "the person did not want to lose the answer"
    ballast.unlink()
    desk.program.close()
    assert answers == ["asked"], "there is room now"
    with History(data) as history:
        [row] = history.list()
        [turn] = history.load(row.id).path()
    assert (turn.answer, turn.status) == (LONG, Status.DONE)


@posix
def test_a_start_on_a_full_disk_is_a_sentence(
    open_desk: Callable[[Path], Desk], small_disk: Path
) -> None:
    ask_one(small_disk / "data")
    fill(small_disk)
    desk = open_desk(small_disk / "data")
    assert "free space" in warning_of(desk)
    desk.open_demo()
    desk.ask("Does it work?")
    assert desk.chat.answered()


@posix
def test_a_picture_that_can_not_be_kept_is_told(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        with files_limited(1000), pytest.raises(HistoryError, match="picture can't be saved"):
            history.save_picture(bytes(2000))
        name = history.save_picture(bytes(2000))
        assert history.picture(name) == bytes(2000)


def test_a_locked_file_costs_no_question_and_no_answer(
    open_desk: Callable[[Path], Desk], tmp_path: Path, script: Script
) -> None:
    script.hold = True
    desk = open_desk(tmp_path)
    desk.open_demo()
    with write_locked(tmp_path):
        desk.chat.composer.setPlainText("Kept?")
        desk.chat.send()
        assert desk.chat.message.startswith("Another program uses the file")
        assert desk.chat.composer.toPlainText() == "Kept?"
    desk.chat.send()
    talk = desk.chat.conversation
    assert talk is not None
    with write_locked(tmp_path):
        desk.engine_says_all()
        desk.qtbot.waitUntil(lambda: not desk.chat.busy)
        assert desk.chat.message.startswith("Another program uses the file")
    desk.program.close()
    with History(tmp_path) as history:
        [turn] = history.load(talk.id).path()
    assert (turn.answer, turn.status) == ("It is **red**.", Status.DONE)


def test_a_file_that_is_locked_at_the_start_is_told(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    ask_one(tmp_path)
    with write_locked(tmp_path):
        desk = open_desk(tmp_path)
        assert warning_of(desk).startswith("Another program uses the file")
    desk.program.close()
    with History(tmp_path) as history:
        assert [row.title for row in history.list()] == ["Kept?"]


@posix
def test_a_second_window_is_sent_to_the_first(
    qapp: QApplication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(QMessageBox, "information", lambda _, __, text: told.append(text))
    monkeypatch.setattr(gui_app, "make_app", lambda: qapp)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    os.utime(tmp_path / "window.lock", (0, 0))  # a window that is open for long has an old lock
    before, handler = contents(tmp_path), signal.getsignal(signal.SIGINT)
    assert gui_app.run(data=tmp_path) == 1
    assert "already open" in told[0]
    assert contents(tmp_path) == before
    assert signal.getsignal(signal.SIGINT) is handler
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lock = gui_app.acquire_lock(tmp_path)
    assert lock is not None, "a killed window holds nothing"
    lock.unlock()


def test_two_writers_overwrite_nothing_of_each_other(tmp_path: Path) -> None:
    with History(tmp_path) as one, History(tmp_path) as two:
        mine = one.create()
        theirs = two.load(mine.id)
        first = one.ask(mine, "From the first?", None)
        second = two.ask(theirs, "From the second?", None)
        one.write(mine.finish(first.id, finished("One.")))
        two.write(theirs.finish(second.id, finished("Two.")))
        turns = one.load(mine.id).turns
    assert {turn.question: turn.answer for turn in turns.values()} == {
        "From the first?": "One.",
        "From the second?": "Two.",
    }


def test_text_is_on_disk_a_second_after_it_came_though_no_more_comes(
    open_desk: Callable[[Path], Desk], tmp_path: Path, script: Script
) -> None:
    script.hold = True
    desk = open_desk(tmp_path)
    desk.open_demo()
    desk.chat.composer.setPlainText("Slow?")
    desk.chat.send()

    def written() -> bool:
        with closing(sqlite3.connect(tmp_path / FILE)) as database:
            return database.execute("SELECT answer FROM turn").fetchone()[0] == "It is **red**."

    desk.qtbot.waitUntil(written, timeout=1000)


def test_settings_of_a_newer_version_survive(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"from_the_future": [1, 2], "top_k": 7}))
    settings = Preferences(file)
    settings.set("top_k", 9)
    assert json.loads(file.read_text()) == {"from_the_future": [1, 2], "top_k": 9}


@pytest.mark.parametrize("damaged", [b"{", b"[1]", b"\xff\xfe"])
def test_damaged_settings_are_put_aside(tmp_path: Path, damaged: bytes) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(damaged)
    settings = Preferences(file)
    assert "damaged" in settings.problem
    settings.set("top_k", 9)
    assert (tmp_path / "settings.json.damaged").read_bytes() == damaged
    assert Preferences(file).get("top_k") == 9


@posix
def test_settings_that_can_not_be_saved_are_told(desk: Desk) -> None:
    with files_limited(1):
        desk.program.settings.set("top_k", 9)
        desk.program.saver.finish()
    desk.qtbot.waitUntil(lambda: desk.chat.message.startswith("The settings can't be saved"))
