"""Teach the demo model new things and measure what it learnt and what it forgot.

    python -m benchmarks.finetune DATA [--seeds 3] [--only rows|egg]

DATA holds the folders rows, egg, replay and old, each with JSONL files of drawn pictures: a
question that the demo model never saw, a shape that it never saw, old questions to mix in, and old
questions to measure. They are too large for the repository. The base is the demo model in NF4.
Every held-out question is answered greedily through the public API; an answer is right if it is
equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cogvlm2_lite  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.events import Cancel, Finished  # noqa: E402
from cogvlm2_lite.finetune.prepare import TrainingTask, prepare  # noqa: E402
from cogvlm2_lite.finetune.settings import TrainingSettings  # noqa: E402
from cogvlm2_lite.sampling import Sampling  # noqa: E402
from quantize.command import main as quantize  # noqa: E402

CHECKPOINT = ROOT / "cogvlm2_lite" / "demo" / "checkpoint"
RESULT = ROOT / "benchmarks" / "results" / "finetune.json"
TASKS = {"rows": "words", "egg": "both"}
"""What is taught, and the preset that suits it."""


def main() -> None:
    """Train, ask, and write the results after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=tuple(TASKS))
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": describe_machine(), "before": {}, "runs": []}
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / "demo-nf4"
        quantize([str(CHECKPOINT), str(base)])
        found["before"] = dict(score(base, None, options.data, (*TASKS, "old")))
        for seed in range(options.seeds):
            for task, preset in TASKS.items():
                if options.only in (None, task):
                    out = Path(temporary) / f"{task}-{seed}"
                    taught = teach(base, options.data, task, preset, seed, out)
                    taught.update(score(base, out, options.data, (task, "old")))
                    found["runs"].append(taught)
                    print(json.dumps(taught), flush=True)
                    RESULT.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def teach(base: Path, data: Path, task: str, preset: str, seed: int, out: Path) -> dict[str, Any]:
    """Train one adapter with the defaults; return its settings and CPU seconds."""
    began = time.process_time()
    made = prepare(
        TrainingTask(
            model=base,
            data=data / task / "train.jsonl",
            out=out,
            replay=data / "replay" / "replay.jsonl",
            held_out="0",
            settings=TrainingSettings(preset=preset, seed=seed),
        )
    )
    for _ in made.run.go(Cancel()):
        pass
    return {
        "task": task,
        "preset": preset,
        "seed": seed,
        "steps": len(made.run.plan),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def score(
    base: Path, adapter: Path | None, data: Path, parts: tuple[str, ...]
) -> Iterator[tuple[str, float]]:
    """Yield the share of right answers in percent, by kind of question."""
    model = cogvlm2_lite.load(base, device="cpu", dtype="float32", adapter=adapter)
    sampling = Sampling(max_new_tokens=40, repetition_guard=False)
    for part in parts:
        right: dict[str, list[bool]] = {}
        for line in (data / part / "held-out.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            talk = [entry["content"] for entry in row["conversations"]]
            picture = data / part / row["image"] if row.get("image") else None
            past = list(zip(talk[:-2:2], talk[1:-2:2], strict=True))
            *_, last = model.answer(talk[-2], picture, past, sampling=sampling)
            assert isinstance(last, Finished)
            kind = f"{part} {row['task'].split()[0]}" if part == "egg" else part
            right.setdefault(kind, []).append(last.text.strip() == talk[-1].strip())
        for kind, each in right.items():
            yield kind, round(100 * sum(each) / len(each), 1)


if __name__ == "__main__":
    main()
