"""Kill `finetune` at random moments, and compare its files with those of a run that nobody kills.

    python -m benchmarks.finetune_kills ROWS.jsonl [--kills 25] [--seed 0]

Each run is a child process that is killed with SIGKILL and started again until one ends by itself;
then the next run begins, until there are enough kills. ROWS are a few rows with pictures. What
contains measured times may differ: log.jsonl, the report and TensorBoard's file. Not for Windows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cogvlm2_lite.cli.console import Console  # noqa: E402
from cogvlm2_lite.cli.finetune import main as finetune  # noqa: E402
from cogvlm2_lite.finetune.prepare import prepare  # noqa: E402, F401 - loaded once for all children

OPTIONS = (
    "--rank", "2", "--epochs", "4", "--step", "3", "--save-every", "2", "--answers", "1",
    "--answer-space", "yes", "--device", "cpu",
)  # fmt: skip
_TIMED = ("report.html", "training/events.out.tfevents.0")
_MEASURED = ("seconds", "time", "peak_bytes", "computed")


def main() -> None:
    """Kill runs and print what differs; exits with 1 then."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        began = time.monotonic()
        start(options.rows, whole, None)
        seconds = time.monotonic() - began
        kills, runs, different = 0, 0, set[str]()
        while kills < options.kills:
            runs += 1
            out = Path(temporary) / str(runs)
            while start(options.rows, out, moments.uniform(0, seconds)):
                kills += 1
                if kills >= options.kills:
                    start(options.rows, out, None)
                    break
            different |= compare(whole, out)
    found = {
        "kills": kills,
        "runs": runs,
        "seconds": round(seconds, 1),
        "differ": sorted(different),
    }
    print(json.dumps(found))
    sys.exit(1 if different else 0)


def start(rows: Path, out: Path, kill_after: float | None) -> bool:
    """Run `finetune` in a child process; return whether it had to be killed."""
    child = os.fork()
    if not child:
        try:
            console = Console(StringIO(), StringIO())
            os._exit(finetune(["demo", str(rows), str(out), *OPTIONS], console=console))
        except BaseException as error:  # noqa: BLE001 - a child must not return into the parent
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(70)
    deadline = None if kill_after is None else time.monotonic() + kill_after
    while True:
        done, status = os.waitpid(child, 0 if deadline is None else os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            assert code == 0, f"finetune ended with {code}"
            return False
        if deadline is not None and time.monotonic() >= deadline:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        time.sleep(0.005)


def compare(whole: Path, other: Path) -> set[str]:
    """Return the names of the files that differ or are in one folder only."""
    a, b = contents(whole), contents(other)
    return {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of a run by name, without measured times."""
    found = {}
    for file in out.rglob("*"):
        name = str(file.relative_to(out))
        if file.is_file() and name not in _TIMED:
            found[name] = file.read_bytes()
    lines = map(json.loads, found["training/log.jsonl"].splitlines())
    kept = [{key: line[key] for key in line if key not in _MEASURED} for line in lines]
    return {**found, "training/log.jsonl": json.dumps(kept).encode()}


if __name__ == "__main__":
    main()
