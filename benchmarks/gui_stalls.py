"""Measure how long the window's event loop is blocked while the demo model streams.

    python -m benchmarks.gui_stalls [--questions 20]

Offscreen, a timer of 5 ms records its delays while answers stream from the real engine in its
process, and while a script streams one long answer of 2000 words, with headings, lists, tables and
code, at 200 words per second. Also measured: the time from starting Python to the first painted
window. Writes benchmarks/results/gui_stalls.json.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PySide6.QtCore import QTimer  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
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
from gui.chat.page import ChatPage  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "gui_stalls.json"
TICK_MS = 5
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


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=20)
    options = parser.parse_args()
    paints = [first_paint_s() for _ in range(5)]
    late, long = stalls_ms(options.questions), long_answer_ms()
    report = {
        "machine": describe_machine(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "questions": options.questions,
        "ticks": len(late),
        "median_ms": statistics.median(late),
        "p95_ms": sorted(late)[int(0.95 * len(late))],
        "longest_ms": max(late),
        "long_answer": {
            "words": len(LONG.split(" ")),
            "median_ms": statistics.median(long),
            "p95_ms": sorted(long)[int(0.95 * len(long))],
            "longest_ms": max(long),
        },
        "first_paint_s": statistics.median(paints),
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def first_paint_s() -> float:
    """Start Python and return the seconds until the window is painted."""
    done = subprocess.run(
        [sys.executable, "-c", PAINT], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(done.stdout)


def stalls_ms(questions: int) -> list[float]:
    """Return the delay of each tick, in ms, while the demo model's answers stream."""
    with _window(start_process) as (chat, wait):
        chat.panel.load((checkpoint_folder().parent / "pictures" / "shapes.png").read_bytes())
        wait(lambda: bool(chat.save_state()[1]))
        return _late(chat, wait, questions)


def long_answer_ms() -> list[float]:
    """Return the same for one long answer, which takes longer to draw with every token."""
    with _window(ScriptedEngine) as (chat, wait):
        return _late(chat, wait, 1)


Wait = Callable[[Callable[[], bool]], None]


@contextmanager
def _window(make: Callable[[LoadOptions], WorkerEngine]) -> Iterator[tuple[ChatPage, Wait]]:
    """Open a window with a loaded model; yield its chat page and a function that waits."""
    app = QApplication.instance() or make_app()
    assert isinstance(app, QApplication)

    def wait(until: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not until():
            assert time.monotonic() < end, "nothing happened for a minute"
            app.processEvents()
            time.sleep(0.001)

    with tempfile.TemporaryDirectory() as data:
        program = Program(app, Path(data), EngineClient(make))
        program.window.show_page("chat")
        program.window.show()
        chat = program.window.page("chat")
        assert isinstance(chat, ChatPage)
        chat.open_demo()
        wait(lambda: program.engine.client.state is EngineState.READY)
        yield chat, wait
        program.close()


def _late(chat: ChatPage, wait: Wait, questions: int) -> list[float]:
    late: list[float] = []
    timer, last = QTimer(), time.perf_counter()

    def tick() -> None:
        nonlocal last
        now = time.perf_counter()
        if chat.busy:
            late.append(max(0.0, 1000 * (now - last) - TICK_MS))
        last = now

    timer.timeout.connect(tick)
    timer.start(TICK_MS)
    for _ in range(questions):
        chat.composer.setPlainText("What do you see?")
        chat.send()
        wait(lambda: not chat.busy)
    timer.stop()
    return late


class ScriptedEngine:
    """An engine that streams one long answer, in its own thread."""

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
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
        pieces = [word + " " for word in LONG.split(" ")]
        for piece in pieces:
            deliver(TextDelta(text=piece))
            time.sleep(0.005)
        text = "".join(pieces)
        deliver(
            Finished(
                text=text, reason=FinishReason.EOS, prompt_tokens=1, image_tokens=0,
                completion_tokens=len(pieces), encode_s=0, prefill_s=0, decode_s=1,
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
