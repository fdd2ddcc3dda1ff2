"""Measure what `batch` itself costs for many pictures, with an engine that answers at once.

    python -m benchmarks.batch_scale [--pictures 1000 10000 100000]

A folder gets that many small pictures. A first process asks about all of them and writes text
files, answers.jsonl and answers.csv; a second one finds that all have an answer. Measured are the
time until the first question, the time per picture (in the first and the last tenth), the time
after the last answer, and the peak of the process's memory. Writes
benchmarks/results/batch_scale.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RESULT = ROOT / "benchmarks" / "results" / "batch_scale.json"
PICTURE = bytes.fromhex(  # one white pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010100000000376ef924"
    "0000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
ANSWER = "A white square without any text. " * 12


def main() -> None:
    """Measure all sizes and write the result, or measure one run in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        print(json.dumps(measure_run(options.run)))
        return
    sizes = [measure_size(count) for count in options.pictures]
    # Imported last, because it loads torch, and a child inherits its parent's peak of memory.
    from benchmarks.machine import describe_machine

    report = {"machine": describe_machine(), "answer_bytes": len(ANSWER), "sizes": sizes}
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure_size(count: int) -> dict[str, Any]:
    """Return the numbers of a first and a second run about `count` pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(count):
            (folder / f"picture-{number:06}.png").write_bytes(PICTURE)
        first, second = _in_a_process(folder), _in_a_process(folder)
        assert len(list(folder.glob("*.txt"))) == count
        assert (second["asked"], first["asked"]) == (0, count)
    found = {"pictures": count, "first": first, "second": second}
    print(json.dumps(found), flush=True)
    return found


def _in_a_process(folder: Path) -> Mapping[str, Any]:
    command = [sys.executable, "-m", "benchmarks.batch_scale", "--run", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def measure_run(folder: Path) -> dict[str, Any]:
    """Run a batch in this process and return its times in seconds and its memory in MiB."""
    import resource

    from cogvlm2_lite.batch.plan import Task, plan_batch
    from cogvlm2_lite.batch.work import BatchProgress, run_batch

    began = time.perf_counter()
    task = Task(folder=folder, question="What?", output=folder, model="scripted")
    planned = plan_batch(task)
    planned_s = time.perf_counter() - began
    ends = [time.perf_counter()]
    engine = InstantEngine() if planned.todo else None
    for step in run_batch(task, engine, planned):
        if isinstance(step, BatchProgress):
            ends.append(time.perf_counter())
    finished_s = time.perf_counter() - ends[-1]
    each = [1000 * (b - a) for a, b in pairwise(ends)]
    tenth = len(each) // 10
    return {
        "asked": len(each),
        "plan_s": round(planned_s, 3),
        "first_tenth_ms": round(statistics.mean(each[:tenth]), 3) if tenth else None,
        "last_tenth_ms": round(statistics.mean(each[-tenth:]), 3) if tenth else None,
        "after_last_s": round(finished_s, 3),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


class InstantEngine:
    """The part of a WorkerEngine that a batch uses; every question is answered at once."""

    def __init__(self) -> None:
        from cogvlm2_lite.engine.options import LoadOptions
        from cogvlm2_lite.worker.client import EngineState, News, ignore_news
        from cogvlm2_lite.worker.protocol import Loaded

        self.options = LoadOptions(folder=Path("nowhere"))
        self.on_news: Callable[[News], None] = ignore_news
        self.state = EngineState.READY
        self.reason = ""
        self.pid: int | None = None
        self.loaded = Loaded(plan={}, compute="none", context=8192, image_tokens=9)
        self._numbers = 0

    def start(self) -> None: ...
    def stop(self, timeout_s: float = 5.0) -> None: ...
    def restart(self) -> None: ...
    def unload(self) -> None: ...
    def reload(self) -> None: ...
    def cancel(self, request: int) -> None: ...

    def wait_ready(self, timeout_s: float | None = None) -> Any:
        return self.loaded

    def new_request(self) -> int:
        self._numbers += 1
        return self._numbers

    def submit(self, ask: Any, deliver: Callable[[Any], None]) -> int:
        from cogvlm2_lite.events import Finished, FinishReason

        end = Finished(
            text=ANSWER, reason=FinishReason.EOS, prompt_tokens=1, image_tokens=1,
            completion_tokens=80, encode_s=0, prefill_s=0, decode_s=0,
        )  # fmt: skip
        deliver(end)
        return int(ask.request)


if __name__ == "__main__":
    main()
