"""How long the window's event loop stands still while the demo model streams.

    python -m benchmarks.gui_stalls [--questions 20]

A timer of 5 ms notes how late it comes, offscreen, while answers stream with the real engine in its
process. Also the time from starting Python to the first painted window. Writes
benchmarks/results/gui_stalls.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PySide6.QtCore import QTimer  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.engine.process import EngineState  # noqa: E402
from gui.app import Program, make_app  # noqa: E402
from gui.chat.page import ChatPage  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "gui_stalls.json"
TICK_MS = 5
PAINT = (
    "import time; began = time.perf_counter()\n"
    "import tempfile; from pathlib import Path; from gui.app import Program, make_app\n"
    "app = make_app(); made = Program(app, Path(tempfile.mkdtemp()))\n"
    "made.window.show_page('chat'); made.window.show(); app.processEvents(); made.window.grab()\n"
    "print(time.perf_counter() - began); made.close()\n"
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=20)
    options = parser.parse_args()
    paints = [first_paint_s() for _ in range(5)]
    late = stalls_ms(options.questions)
    report = {
        "machine": describe_machine(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "questions": options.questions,
        "ticks": len(late),
        "median_ms": statistics.median(late),
        "p95_ms": sorted(late)[int(0.95 * len(late))],
        "longest_ms": max(late),
        "first_paint_s": statistics.median(paints),
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def first_paint_s() -> float:
    """Start Python anew and give the seconds until the window is painted."""
    done = subprocess.run(
        [sys.executable, "-c", PAINT], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(done.stdout)


def stalls_ms(questions: int) -> list[float]:
    """Give how late each tick came, while answers streamed."""
    app, late = make_app(), []
    with tempfile.TemporaryDirectory() as data:
        program = Program(app, Path(data))
        program.window.show_page("chat")
        program.window.show()

        def wait(until: Callable[[], bool]) -> None:
            end = time.monotonic() + 60
            while not until() and time.monotonic() < end:
                app.processEvents()
                time.sleep(0.001)

        chat = program.window.page("chat")
        assert isinstance(chat, ChatPage)
        chat.open_demo()
        wait(lambda: program.engine.client.state is EngineState.READY)
        chat.panel.offer((checkpoint_folder().parent / "pictures" / "shapes.png").read_bytes())
        wait(lambda: bool(chat.keep()[1]))
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
        program.close()
    return late


if __name__ == "__main__":
    main()
