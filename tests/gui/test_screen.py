"""A real window on a screen of its own (Xvfb), worked with real mouse and key events (xdotool)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import psutil
import pytest

from cogvlm2_lite.demo.shipped import checkpoint_folder
from gui.data.history import History
from gui.data.state import Status
from tests.helpers.programs.counting_engine import WORDS
from tests.helpers.screen import screen_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("Xvfb") and shutil.which("xdotool") and find_library("xcb-cursor")),
        reason="needs Xvfb, xdotool, and what Qt links to for X11",
    ),
]
ROOT = Path(__file__).parents[2]
PICTURES = checkpoint_folder().parent / "pictures"
SOURCE = (1300, 100)
"""Where the other program's window is: right of ours, which is 1180 wide."""


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """A screen of 1600 x 900; yields the value for DISPLAY."""
    with screen_of("1600x900") as display:
        yield display


class Person:
    """Somebody before the screen: looks, moves the mouse, types."""

    def __init__(self, screen: str, data: Path, engine: str) -> None:
        own = {"DISPLAY": screen, "QT_QPA_PLATFORM": "xcb", "LANGUAGE": "en", "LANG": "C"}
        self.environment = {**os.environ, **own}
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.programs.observed_window", str(data), engine],
            cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.wait(lambda seen: "New conversation" in seen["controls"])
        self.focus()

    def look(self) -> dict[str, Any]:
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(b"look\n")
        self.program.stdin.flush()
        seen: dict[str, Any] = json.loads(self.program.stdout.readline())
        return seen

    def wait(
        self, true: Callable[[dict[str, Any]], object], timeout_s: float = 60
    ) -> dict[str, Any]:
        """Look until something is so; gives what was seen then."""
        end = time.monotonic() + timeout_s
        while True:
            seen = self.look()
            if true(seen):
                return seen
            if time.monotonic() > end:
                pytest.fail(f"waited in vain before {json.dumps(seen, indent=1)}")
            time.sleep(0.05)

    def do(self, *arguments: object) -> None:
        subprocess.run(["xdotool", *map(str, arguments)], env=self.environment, check=True)

    def focus(self) -> None:
        """Focus the newest window, as a window manager does; there is no window manager here."""
        self.do("windowfocus", "--sync", self.look()["windows"][-1])

    def click(self, name: str, button: int = 1) -> None:
        x, y = self.wait(lambda seen: name in seen["controls"])["controls"][name]
        self.do("mousemove", x, y, "click", button)

    def key(self, *keys: str) -> None:
        self.do("key", *keys)

    def type(self, text: str) -> None:
        self.do("type", "--delay", 5, text)

    def drag(self, start: tuple[int, int], name: str) -> dict[str, Any]:
        """Drag from a point of the screen to a control; gives what was seen before the drop."""
        x, y = self.look()["controls"][name]
        self.do("mousemove", *start, "mousedown", 1)
        for step in range(1, 11):
            at_x = start[0] + (x - start[0]) * step // 10
            at_y = start[1] + (y - start[1]) * step // 10
            self.do("mousemove", at_x, at_y, "sleep", 0.03)
        before = self.wait(lambda seen: seen["dropping"])
        self.do("mouseup", 1)
        return before

    def ask(self, question: str) -> dict[str, Any]:
        """Click into the composer, type, press Enter, wait for the whole answer."""
        count = len(self.look()["answers"])
        self.click("Your question")
        self.type(question)
        self.key("Return")
        return self.wait(lambda seen: len(seen["answers"]) > count and not seen["busy"])

    def quit(self) -> int:
        self.focus()
        self.key("ctrl+q")
        return self.program.wait(30)


@contextmanager
def persons(screen: str, data: Path, engine: str) -> Iterator[Callable[[], Person]]:
    """Starts the program for a person, as often as the test likes, always on the same data."""
    begun: list[Person] = []

    def begin() -> Person:
        begun.append(Person(screen, data, engine))
        return begun[-1]

    yield begin
    for person in begun:
        person.program.kill()
        person.program.communicate()


@pytest.fixture
def start(screen: str, tmp_path: Path) -> Iterator[Callable[[], Person]]:
    with persons(screen, tmp_path / "data", "real") as begin:
        yield begin


@pytest.fixture
def start_talking(screen: str, tmp_path: Path) -> Iterator[Callable[[], Person]]:
    """The same with an engine that talks slowly and has no model."""
    with persons(screen, tmp_path / "data", "talking") as begin:
        yield begin


@contextmanager
def held_up(person: Person) -> Iterator[None]:
    """Stop the clock of the engine's process."""
    children = psutil.Process(person.program.pid).children()
    [engine] = [child for child in children if "cogvlm2_lite.worker.main" in child.cmdline()]
    engine.suspend()
    yield
    engine.resume()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file that another program has."""
    return Path(shutil.copy(PICTURES / "shapes.png", tmp_path / "shapes.png"))


@pytest.fixture
def drag_source(screen: str, file: Path) -> Iterator[tuple[int, int]]:
    """A program to drag from; gives the point that drags the file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.programs.drag_source", str(file),
         *map(str, SOURCE)],
        cwd=ROOT, stdout=subprocess.PIPE,
        env={**os.environ, "DISPLAY": screen, "QT_QPA_PLATFORM": "xcb"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"shown\n"
    yield SOURCE[0] + 50, SOURCE[1] + 50
    process.terminate()
    process.communicate()


def test_a_person_drops_a_picture_asks_and_finds_all_again(
    start: Callable[[], Person], drag_source: tuple[int, int], tmp_path: Path
) -> None:
    person = start()

    # The first start: the demo model by a click, a picture by dragging it from another program.
    person.click("Try the small demo model")
    person.drag(drag_source, "Picture")
    person.wait(lambda seen: seen["picture"])
    person.wait(lambda seen: seen["status"] == "Ready")
    assert person.ask("How many shapes are there?")["answers"] == ["4"]

    # The demo model answers within milliseconds; held up, it can be stopped.
    with held_up(person):
        person.click("Your question")
        person.type("Tell me everything.")
        person.key("Return")
        person.wait(lambda seen: seen["busy"] and "Stop (Esc)" in seen["controls"])
        person.key("Escape")
    person.wait(lambda seen: not seen["busy"], timeout_s=10)

    # Answer again by key, then edit the question by its button.
    person.key("ctrl+r")
    person.wait(lambda seen: "2/2" in seen["controls"] and not seen["busy"])
    person.click("Edit the question")
    person.wait(lambda seen: seen["focus"] == "Change the question")
    person.key("ctrl+a")
    person.type("Where is the triangle?")
    person.key("Return")
    edited = person.wait(lambda seen: "3/3" in seen["controls"] and not seen["busy"])
    assert edited["questions"] == ["How many shapes are there?", "Where is the triangle?"]

    # A second conversation, and a search that finds the first.
    person.key("ctrl+n")
    person.ask("Hello?")
    assert person.look()["rows"] == ["Hello?", "How many shapes are there?"]
    person.key("ctrl+f")
    person.type("triangle")
    person.wait(lambda seen: seen["rows"] == ["How many shapes are there?"])

    # Export it from the list's menu.
    person.click("row: How many shapes are there?", button=3)
    person.click("menu: Export…")
    person.wait(lambda seen: seen["dialog"])
    person.focus()
    person.type(str(tmp_path / "talk.md"))
    person.key("Return")
    person.wait(lambda seen: not seen["dialog"])
    person.wait(lambda seen: (tmp_path / "talk.md").exists())
    text = (tmp_path / "talk.md").read_text()
    assert "> Where is the triangle?" in text
    assert (tmp_path / "talk.png").read_bytes() == (PICTURES / "shapes.png").read_bytes()
    assert person.quit() == 0

    with History(tmp_path / "data") as history:
        [row] = history.list("triangle")
        talk = history.load(row.id)
    states = [(turn.question, turn.status) for turn in talk.turns.values()]
    assert states[:2] == [
        ("How many shapes are there?", Status.DONE), ("Tell me everything.", Status.STOPPED),
    ]  # fmt: skip

    # After a restart all is there.
    person = start()
    again = person.wait(lambda seen: len(seen["rows"]) == 2)
    assert again["rows"] == ["Hello?", "How many shapes are there?"]
    person.click("row: How many shapes are there?")
    found = person.wait(lambda seen: len(seen["answers"]) == 2 and seen["picture"])
    assert found["questions"] == edited["questions"]
    assert found["answers"] == edited["answers"]
    assert person.quit() == 0


@pytest.mark.parametrize("how", ["key", "button"])
def test_a_person_stops_an_answer_and_keeps_what_came(
    start_talking: Callable[[], Person], how: str
) -> None:
    person = start_talking()
    person.click("Try the small demo model")
    person.wait(lambda seen: seen["status"] == "Ready")
    person.click("Your question")
    person.type("Tell me everything.")
    person.key("Return")
    person.wait(lambda seen: seen["answers"] and seen["answers"][0].startswith("0 1 2"))
    if how == "key":
        person.key("Escape")
    else:
        person.click("Stop (Esc)")
    stopped = person.wait(lambda seen: not seen["busy"], timeout_s=10)
    words = stopped["answers"][0].split()
    assert words == [str(number) for number in range(len(words))]
    assert 3 <= len(words) < WORDS
    assert [name for name in stopped["controls"] if name.endswith("; stopped")]
    assert person.quit() == 0


def test_an_image_is_dragged_out_of_another_program(
    start: Callable[[], Person], drag_source: tuple[int, int]
) -> None:
    person = start()
    person.drag((drag_source[0] + 100, drag_source[1]), "Picture")
    person.wait(lambda seen: seen["picture"])
    assert person.look()["said"] == ""
    assert person.quit() == 0


def test_a_file_is_dropped_on_text_fields_and_pages_and_stays_where_it_is(
    start_talking: Callable[[], Person], drag_source: tuple[int, int], file: Path
) -> None:
    person = start_talking()
    for control in ("Your question", "Search in conversations"):
        person.drag(drag_source, control)
        seen = person.wait(lambda seen: seen["given"] == "shapes.png" and seen["picture"])
        assert (seen["question"], seen["typed"]) == ("", "")
        person.click("Remove the picture")
        person.wait(lambda seen: not seen["picture"])
    person.click("Memory")
    person.drag(drag_source, "Chat")
    person.wait(lambda seen: seen["given"] == "shapes.png" and seen["picture"])
    assert file.exists()
    assert person.quit() == 0


def test_a_person_pastes_a_file_and_presses_enter_at_once(
    start_talking: Callable[[], Person], drag_source: tuple[int, int]
) -> None:
    person = start_talking()
    person.click("Try the small demo model")
    person.wait(lambda seen: seen["status"] == "Ready")
    person.click("Your question")
    person.type("What is it?")
    person.key("ctrl+v", "Return")
    # The answer may be shown before the thumbnail, which another thread decodes.
    seen = person.wait(lambda seen: seen["answers"] and seen["picture"])
    assert seen["questions"] == ["What is it?"]
    person.key("Escape")
    person.wait(lambda seen: not seen["busy"])
    assert person.quit() == 0


def test_the_wheel_scrolls_the_settings_and_changes_none(
    start_talking: Callable[[], Person], tmp_path: Path
) -> None:
    person = start_talking()
    person.key("alt+7")
    names = ("Font size", "Unload when idle", "Longest answer", "Theme")
    for name in names:
        x, y = person.wait(lambda seen: name in seen["controls"])["controls"][name]  # noqa: B023
        if not 0 < y < 750:
            continue
        person.do("mousemove", x, y, "click", "--repeat", 2, 5)
        person.wait(lambda seen: seen["controls"][name][1] < y)  # noqa: B023
        person.do("click", "--repeat", 9, 4)
        person.wait(lambda seen: seen["controls"][name][1] == y)  # noqa: B023
    file = tmp_path / "data" / "settings.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    assert not {"font_points", "unload_minutes", "max_new_tokens", "theme"} & set(kept)
    assert person.quit() == 0
