"""Measure how many times faster `batch` is with eight pictures at once than with one.

    python -m benchmarks.batch_parallel [--tokens 48]

A small model of random weights in 4 bits answers one question about drawn pictures, with
everything resident: eight at once, as `batch` does by default, and one after another, in turn. One
thread, CPU time; the answers are equal. The model is small, so a picture takes a smaller share of
the time than with the 19B model on a CPU. Writes benchmarks/results/batch_parallel.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.evaluate import InProcess, open_with, write_model  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.batch.work import BatchProgress, Task, run_batch  # noqa: E402
from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.engine.outlook import context_for  # noqa: E402
from cogvlm2_lite.sampling import Sampling  # noqa: E402
from cogvlm2_lite.units import GIB  # noqa: E402
from quantize.command import main as quantize  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "batch_parallel.json"
QUESTION = "What is written on the sign?"
PICTURES, AT_ONCE, REPEATS = 16, 8, 2


def main() -> int:
    """Measure both and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=48)
    tokens = parser.parse_args().tokens
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write_model(Path(temporary) / "source")
        assert quantize([str(Path(temporary) / "source"), str(folder)]) == 0
        pictures = Path(temporary) / "pictures"
        pictures.mkdir()
        drawn = sorted((checkpoint_folder().parent / "pictures").glob("*.png"))
        for number in range(PICTURES):
            data = drawn[number % len(drawn)].read_bytes()
            # Bytes behind the end make another file of it, so nothing is taken from a cache.
            (pictures / f"{number:02}.png").write_bytes(data + bytes([number]))
        seconds: dict[int, list[float]] = {1: [], AT_ONCE: []}
        answers = {}
        for _ in range(REPEATS):
            for parallel in seconds:
                took, answers[parallel] = ask_all(folder, pictures, parallel, tokens)
                seconds[parallel].append(took)
    assert answers[1] == answers[AT_ONCE], "the answers differ"
    one, many = min(seconds[1]), min(seconds[AT_ONCE])
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "load_average": load,
        "pictures": PICTURES,
        "tokens": tokens,
        "at_once": AT_ONCE,
        "repeats": REPEATS,
        "one_s": one,
        "many_s": many,
        "times_as_fast": one / many,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    return 0


def ask_all(
    folder: Path, pictures: Path, parallel: int, tokens: int
) -> tuple[float, list[tuple[str, str]]]:
    """Run a batch with so many pictures at once; return its CPU time and the answers."""
    context = context_for(folder, [QUESTION], tokens)
    engine = InProcess(open_with(folder, context, parallel, 8 * GIB))
    with tempfile.TemporaryDirectory() as output:
        task = Task(
            folder=pictures,
            question=QUESTION,
            output=Path(output),
            retry=False,
            sampling=Sampling(max_new_tokens=tokens, repetition_guard=False),
        )
        began = time.process_time()
        steps = [each for each in run_batch(task, engine) if isinstance(each, BatchProgress)]
        took = time.process_time() - began
    engine.close()
    return took, [(step.answered.picture, step.answered.answer) for step in steps]


if __name__ == "__main__":
    sys.exit(main())
