"""Measure how long the window's event loop is blocked.

    python -m benchmarks.gui_stalls [--questions 20]

Offscreen. Each turn of the event loop is measured by the clock and by the CPU time of its thread:
on a machine that does other work, too, the clock also counts how long the thread waited for a core.

- demo: answers of the demo model in its process
- long_answer: one answer of 2000 words, with headings, lists, tables and code, 200 words/s
- table: a table of 200 rows, 80 words/s
- open, answer, theme, zoom, scroll: a conversation of 100 long turns
- search: ten letters in 2,000 conversations, and the end of the search
- batch: a batch of 5,000 pictures begins, is answered, filtered, and ends
- pages: every page is shown for the first and the second time, and gets another theme and font size
- close: until the window is closed

Also measured: the time from starting Python to the first painted window. Writes
benchmarks/results/gui_stalls.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PySide6.QtCore import QEvent  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.engine.options import LoadOptions  # noqa: E402
from cogvlm2_lite.events import Finished, FinishReason, TextDelta  # noqa: E402
from cogvlm2_lite.worker.client import (  # noqa: E402
    EngineState,
    News,
    Outcome,
    WorkerEngine,
    ignore_news,
)
from cogvlm2_lite.worker.protocol import Ask, Loaded  # noqa: E402
from gui.app import Program, make_app  # noqa: E402
from gui.background.engine import EngineClient, start_process  # noqa: E402
from gui.background.json_lines import Command  # noqa: E402
from gui.batch.page import BatchPage, BatchState  # noqa: E402
from gui.batch.run import BatchRun, Job  # noqa: E402
from gui.chat.dropped import DroppedContent  # noqa: E402
from gui.chat.page import ChatPage  # noqa: E402
from gui.data.history import History  # noqa: E402
from gui.window import PAGES  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "gui_stalls.json"
PARAGRAPH = "The sign **on the left** says that the road is closed from here to the bridge. "
LONG = "".join(
    f"## Part {part}\n\n{PARAGRAPH * 4}\n\n- first of {part}\n- second\n\n"
    f"| item | count |\n|---|---|\n| a | {part} |\n| b | 2 |\n\n"
    f"```python\nfor i in range({part}):\n    print(i)\n```\n\n"
    for part in range(24)
)
PAINT = (
    "import time; began = time.perf_counter()\n"
    "import tempfile; from pathlib import Path; from gui.app import Program, make_app\n"
    "app = make_app(); made = Program(app, Path(tempfile.mkdtemp()))\n"
    "made.window.show_page('chat'); made.window.show(); app.processEvents(); made.window.grab()\n"
    "print(time.perf_counter() - began); made.close()\n"
)


ROWS = 200
TABLE = "| number | sign | meaning | place |\n|---:|---|---|---|\n" + "".join(
    f"| {row} | sign {row} | **Road** closed | left side |\n" for row in range(ROWS)
)
TURNS = 100
CONVERSATIONS = 2000
PICTURES = 5000


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of the event loop, in ms: by the clock, and CPU time of the thread."""

    wall_ms: float
    cpu_ms: float


class Loop:
    """Runs the event loop and measures each of its turns."""

    def __init__(self, app: QApplication) -> None:
        self._app = app
        self.turns: list[Turn] = []

    def run(self, until: Callable[[], bool], *, at_least_s: float = 0.0) -> None:
        """Run until something has happened."""
        began = time.monotonic()
        while not until() or time.monotonic() < began + at_least_s:
            assert time.monotonic() < began + 120, "nothing happened for two minutes"
            self.measure(self._turn)
            time.sleep(0.001)

    def _turn(self) -> None:
        self._app.processEvents()
        # Only an event loop that Qt runs itself deletes what is to be deleted later.
        self._app.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)

    def measure(self, work: Callable[[], object]) -> None:
        """Count some work as one turn."""
        wall, cpu = time.perf_counter(), time.thread_time()
        work()
        cpu = time.thread_time() - cpu
        self.turns.append(Turn(wall_ms=1000 * (time.perf_counter() - wall), cpu_ms=1000 * cpu))

    def report(self) -> dict[str, object]:
        """Return the turns since the last report in numbers."""
        turns, self.turns = self.turns, []
        busy = [turn for turn in turns if turn.cpu_ms > 0.2] or turns
        walls = sorted(turn.wall_ms for turn in busy)
        return {
            "turns": len(busy),
            "median_ms": statistics.median(walls),
            "p95_ms": walls[int(0.95 * len(walls))],
            "longest_ms": walls[-1],
            "longest_cpu_ms": max(turn.cpu_ms for turn in busy),
            "over_100_ms": sum(wall > 100 for wall in walls),
            "cpu_over_100_ms": sum(turn.cpu_ms > 100 for turn in busy),
        }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=20)
    options = parser.parse_args()
    report: dict[str, object] = {
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "first_paint_s": statistics.median(first_paint_s() for _ in range(5)),
        "questions": options.questions,
        "demo": demo(options.questions),
        "long_answer": {"words": len(LONG.split(" ")), **streamed(LONG, 200)},
        "table": {"rows": ROWS, **streamed(TABLE, 80)},
        "long_conversation": {"turns": TURNS, **long_conversation()},
        "search": {"conversations": CONVERSATIONS, **search()},
        "batch": {"pictures": PICTURES, **batch()},
        "pages": pages(),
    }
    assert "torch" not in sys.modules, "the window must not load torch"
    # Only now: it imports torch, which the window does not, and so slows garbage collections down.
    from benchmarks.machine import describe_machine

    report = {"machine": describe_machine(), **report}
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def first_paint_s() -> float:
    """Start Python and return the seconds until the window is painted."""
    done = subprocess.run(
        [sys.executable, "-c", PAINT], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(done.stdout)


def demo(questions: int) -> dict[str, object]:
    """Stream answers of the demo model."""
    with _window(start_process) as (_, chat, loop):
        shapes = checkpoint_folder().parent / "pictures" / "shapes.png"
        chat.take(DroppedContent(files=(shapes,)))
        loop.run(lambda: bool(chat.picture))
        loop.report()
        for _ in range(questions):
            _ask(chat, loop)
        return loop.report()


def streamed(text: str, words_per_s: float) -> dict[str, object]:
    """Stream one long answer, which takes longer to draw with every token."""
    with _window(partial(ScriptedEngine, text=text, words_per_s=words_per_s)) as opened:
        _, chat, loop = opened
        _ask(chat, loop)
        return loop.report()


def long_conversation() -> dict[str, object]:
    """Open, scroll, continue, theme and zoom a conversation of long turns."""
    found: dict[str, object] = {}
    with _window(partial(ScriptedEngine, text=PARAGRAPH * 20, words_per_s=80)) as opened:
        program, chat, loop = opened
        number = write_conversation(program.history, TURNS)
        chat.reload_list()
        loop.run(lambda: True, at_least_s=0.5)
        loop.report()
        loop.measure(lambda: chat.list.itemClicked.emit(chat.list.item(0)))
        loop.run(lambda: True, at_least_s=1)
        assert chat.conversation is not None
        assert chat.conversation.id == number
        found["open"] = loop.report()
        bar = chat.transcript.verticalScrollBar()
        for value in range(bar.maximum(), 0, -bar.maximum() // 100):
            loop.measure(partial(bar.setValue, value))
            loop.run(lambda: True, at_least_s=0.02)
        found["scroll"] = loop.report()
        bar.setValue(bar.maximum())
        _ask(chat, loop)
        found["answer"] = loop.report()
        settings = program.settings
        for name, key, values in (
            ("theme", "theme", ("dark", "light")),
            ("zoom", "font_points", (12, 13, 12, 11)),
        ):
            took = []
            for value in values:
                began = time.perf_counter()
                loop.measure(partial(settings.set, key, value))
                loop.run(lambda: True, at_least_s=0.1)
                took.append(time.perf_counter() - began - 0.1)
                loop.run(lambda: True, at_least_s=0.5)
            found[name] = {"seconds": max(took), **loop.report()}
        began = time.perf_counter()
        program.close()
        found["close_s"] = time.perf_counter() - began
    return found


def search() -> dict[str, object]:
    """Search in many conversations, letter by letter."""
    with _window(ScriptedEngine) as (program, chat, loop):
        write_many(program.history, CONVERSATIONS)
        loop.measure(chat.reload_list)
        listed = loop.report()
        for end in range(1, 11):
            loop.measure(partial(chat.search.setText, "number 199"[:end]))
            loop.run(lambda: True, at_least_s=0.15)
        loop.run(lambda: chat.list.count() == 11)
        typed = loop.report()
        loop.measure(chat.search.clear)
        loop.run(lambda: chat.list.count() == CONVERSATIONS)
        return {"list": listed, "type": typed, "clear": loop.report()}


def batch() -> dict[str, object]:
    """Show the events of a batch of many pictures, as its command would send them."""
    found: dict[str, object] = {}
    with _window(ScriptedEngine) as (program, _, loop):
        program.window.show_page("batch")
        shown = program.window.page("batch")
        assert isinstance(shown, BatchPage)
        loop.run(lambda: True, at_least_s=0.5)
        loop.report()
        names = [f"folder/picture {number:05}.jpg" for number in range(PICTURES)]
        known = [{"picture": name, "answer": PARAGRAPH, "error": ""} for name in names[:-20]]
        run = BatchRun(job=Job(folder=Path("none"), question="What?"))
        form = shown.form.values()
        state = BatchState(run=run, command=Command(shown), form=form, only_file=None)
        shown.restore_state(state)

        def send(**event: object) -> None:
            loop.measure(partial(shown.command.event_received.emit, event))
            loop.run(lambda: True, at_least_s=0.1)

        send(event="plan", pictures=names, known=known)
        send(event="loading")
        found["plan"] = loop.report()
        for name in names[-20:]:
            send(event="asking", picture=name)
            answered = {"picture": name, "answer": PARAGRAPH, "error": ""}
            send(event="answered", answered=answered, seconds_left=1.0)
        found["answers"] = loop.report()
        for end in range(1, 6):
            loop.measure(partial(shown.search.setText, "00199"[:end]))
            loop.run(lambda: True, at_least_s=0.1)
        loop.measure(shown.search.clear)
        loop.run(lambda: True, at_least_s=0.1)
        found["filter"] = loop.report()
        found["appearance"] = _appearances(program, loop)
        send(event="finished", left=0)
        found["end"] = loop.report()
    return found


def pages() -> dict[str, object]:
    """Show every page, and change theme and font size there."""
    found: dict[str, object] = {}
    with _window(ScriptedEngine) as (program, _, loop):
        for visit in ("first", "again"):
            for page in PAGES:
                loop.measure(partial(program.window.show_page, page.name))
                loop.run(lambda: True, at_least_s=0.3)
            found[visit] = loop.report()
        for page in PAGES:
            program.window.show_page(page.name)
            loop.run(lambda: True, at_least_s=0.3)
            loop.report()
            found[page.name] = _appearances(program, loop)
    return found


def _appearances(program: Program, loop: Loop) -> dict[str, object]:
    for key, values in (("theme", ("dark", "light")), ("font_points", (12, 11))):
        for value in values:
            loop.measure(partial(program.settings.set, key, value))
            loop.run(lambda: True, at_least_s=0.3)
    return loop.report()


def write_conversation(history: History, turns: int) -> int:
    """Write a conversation of long turns; return its number."""
    conversation, parent = history.create(title="Long"), None
    for number in range(turns):
        turn = history.ask(conversation, f"Question {number}: " + PARAGRAPH * 3, parent)
        text = LONG[: len(LONG) // 6]
        conversation.append(turn.id, text)
        history.write(conversation.finish(turn.id, finished(text)))
        parent = turn.id
    return conversation.id


def write_many(history: History, count: int) -> None:
    """Write many short conversations."""
    for number in range(count):
        conversation = history.create(title=f"Conversation number {number}")
        turn = history.ask(conversation, f"What about {number}?", None)
        conversation.append(turn.id, PARAGRAPH)
        history.write(conversation.finish(turn.id, finished(PARAGRAPH * 20)))


def finished(text: str) -> Finished:
    """Return the end of an answer."""
    return Finished(
        text=text, reason=FinishReason.EOS, prompt_tokens=1, image_tokens=0,
        completion_tokens=len(text.split(" ")), encode_s=0, prefill_s=0, decode_s=1,
    )  # fmt: skip


@contextmanager
def _window(
    make: Callable[[LoadOptions], WorkerEngine],
) -> Iterator[tuple[Program, ChatPage, Loop]]:
    """Open a window with a loaded model; yield it, its chat page and its event loop."""
    app = QApplication.instance() or make_app()
    assert isinstance(app, QApplication)
    loop = Loop(app)
    with tempfile.TemporaryDirectory() as data:
        program = Program(app, Path(data), EngineClient(make))
        program.window.show_page("chat")
        program.window.show()
        program.settle()
        chat = program.window.page("chat")
        assert isinstance(chat, ChatPage)
        chat.open_demo()
        loop.run(lambda: gc.get_freeze_count() > 0, at_least_s=0.1)
        loop.run(lambda: program.engine.client.state is EngineState.READY)
        loop.report()
        yield program, chat, loop
        program.close()
        program.window.deleteLater()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


def _ask(chat: ChatPage, loop: Loop) -> None:
    chat.composer.setPlainText("What do you see?")
    loop.measure(chat.send)
    loop.run(lambda: not chat.busy)


class ScriptedEngine:
    """An engine that streams one long answer, in its own thread."""

    def __init__(self, options: LoadOptions, text: str = "Yes.", words_per_s: float = 80) -> None:
        self.options = options
        self._text, self._words_per_s = text, words_per_s
        self.on_news: Callable[[News], None] = ignore_news
        self.state = EngineState.STOPPED
        self.loaded: Loaded | None = None
        self.reason = ""
        self.pid: int | None = None

    def start(self) -> None:
        self.state = EngineState.READY

    def wait_ready(self, timeout_s: float | None = None) -> Loaded:
        return Loaded(plan={}, compute="none", context=8192, image_tokens=18)

    def stop(self, timeout_s: float = 5.0) -> None:
        self.state = EngineState.STOPPED

    def restart(self) -> None:
        self.start()

    def unload(self) -> None:
        self.state = EngineState.EMPTY

    def reload(self) -> None:
        self.state = EngineState.READY

    def new_request(self) -> int:
        return 1

    def cancel(self, request: int) -> None:
        return

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        threading.Thread(target=self._stream, args=(deliver,), daemon=True).start()
        return ask.request

    def _stream(self, deliver: Callable[[Outcome], None]) -> None:
        pieces = [word + " " for word in self._text.split(" ")]
        began = time.monotonic()
        for number, piece in enumerate(pieces):
            deliver(TextDelta(text=piece))
            time.sleep(max(0.0, began + number / self._words_per_s - time.monotonic()))
        deliver(finished("".join(pieces)))


if __name__ == "__main__":
    main()
