"""Measure the time from `cogvlm2-lite ask` to the first word of a text question, and its parts.

    python -m benchmarks.quantized_19b /tmp/model
    python -m benchmarks.start_time /tmp/model [--repeats 5] [--before OTHER_CHECKOUT]

The files are in the system's cache, because every run reads the same ones; one run before the first
does that. Each run is a new process. The parts are measured inside of it, with the CPU time of all
threads and that of the main thread next to the time that passed, because other programs may use the
machine. --before measures an older source tree in turn with this one. Writes
benchmarks/results/start_time.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "start_time.json"
QUESTION = "What is written on the sign?"
_Result = TypeVar("_Result")


def main() -> int:
    """Measure and write the result, or, in a child process, one start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(_one_start(args.folder)))
        return 0
    trees = {"now": ROOT} | ({"before": args.before.resolve()} if args.before else {})
    load = os.getloadavg()[0]
    runs: dict[str, list[dict[str, list[float]]]] = {name: [] for name in trees}
    for repeat in range(args.repeats + 1):
        for name, tree in trees.items():
            found = _start(tree, args.folder)
            if repeat:  # the first one fills the system's cache
                runs[name].append(found)
    sys.path.insert(0, str(ROOT))
    from benchmarks.machine import describe_machine

    report = {
        "machine": describe_machine(),
        "load_average": load,
        "repeats": args.repeats,
        "threads": _threads(),
        "niceness": os.nice(0),
        "parts": {name: _medians(found) for name, found in runs.items()},
        "torch_alone_cpu_seconds": statistics.median(_torch_alone() for _ in range(args.repeats)),
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    return 0


def _threads() -> int:
    sys.path.insert(0, str(ROOT))
    from cogvlm2_lite.devices import thread_count

    return thread_count()


def _start(tree: Path, folder: Path) -> dict[str, list[float]]:
    """Return the seconds and the CPU seconds of each part of one start of a source tree."""
    command = [sys.executable, str(Path(__file__)), str(folder), "--child"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "BEGAN": repr(time.time())}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(command, env=environment, cwd=tree, check=True, stdout=subprocess.PIPE)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def _torch_alone() -> float:
    """Return the CPU seconds of a process that only imports torch."""
    program = "import time, torch; print(time.process_time())"
    command = [sys.executable, "-c", program]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _medians(runs: list[dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {
        part: {
            "seconds": statistics.median(run[part][0] for run in runs),
            "least_seconds": min(run[part][0] for run in runs),
            "cpu_seconds": statistics.median(run[part][1] for run in runs),
            "main_thread_seconds": statistics.median(run[part][2] for run in runs),
        }
        for part in runs[0]
    }


def _one_start(folder: Path) -> dict[str, list[float]]:
    """Do what `ask` does until the first word; return the times of its parts."""
    sys.path.pop(0)  # this file's folder, so that PYTHONPATH chooses the source tree
    found: dict[str, list[float]] = {}

    def timed(part: str, work: Callable[[], _Result]) -> _Result:
        began, cpu, main = time.perf_counter(), time.process_time(), time.thread_time()
        result = work()
        ended = time.perf_counter(), time.process_time(), time.thread_time()
        found[part] = [ended[0] - began, ended[1] - cpu, ended[2] - main]
        return result

    began = float(os.environ["BEGAN"])
    found["Python"] = [time.time() - began, time.process_time(), time.thread_time()]
    main = import_module("cogvlm2_lite.cli.main")
    timed("modules of the command", lambda: main.load_command("ask"))
    options = import_module("cogvlm2_lite.engine.options").LoadOptions(folder=folder)
    load_model = import_module("cogvlm2_lite.cli.answers").load_model
    model = timed("torch, engine, headers, tokenizer", lambda: _ready(load_model(options)))
    sampling = import_module("cogvlm2_lite.sampling").Sampling(max_new_tokens=1)
    timed("prompt and first word", lambda: _first_word(model.answer(QUESTION, sampling=sampling)))
    return found | {"together": [time.time() - began, time.process_time(), time.thread_time()]}


def _ready(model: Any) -> Any:
    """Return a model whose tokenizer is read and whose weights of every token are prepared."""
    list(model.warm_up())
    return model


def _first_word(events: Iterator[Any]) -> None:
    for event in events:
        if type(event).__name__ == "TextDelta":
            return


if __name__ == "__main__":
    sys.exit(main())
