"""Teach the demo model new things and measure what it learnt and what it forgot.

    python -m benchmarks.finetune DATA [--seeds 3] [--only NAME ...]

DATA holds the folders rows, egg, replay and old, each with JSONL files of drawn pictures: a
question that the demo model never saw, a shape that it never saw, old questions to mix in, and old
questions to measure. They are too large for the repository. The base is the demo model in NF4.

Every held-out question is answered greedily through the public API; an answer is right if it is
equal. Each run adds its figures to the results file, and a run that is there is not repeated.
Ablations use seed 0: each of them must fail a bar.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cogvlm2_lite  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.config import read_config  # noqa: E402
from cogvlm2_lite.events import Cancel, Finished  # noqa: E402
from cogvlm2_lite.finetune.prepare import prepare  # noqa: E402
from cogvlm2_lite.finetune.settings import TrainingSettings  # noqa: E402
from cogvlm2_lite.finetune.task import TrainingTask  # noqa: E402
from cogvlm2_lite.sampling import Sampling  # noqa: E402
from quantize.command import main as quantize  # noqa: E402
from quantize.merge_command import main as merge  # noqa: E402

CHECKPOINT = ROOT / "cogvlm2_lite" / "demo" / "checkpoint"
RESULT = ROOT / "benchmarks" / "results" / "finetune.json"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is taught, and what differs from the defaults.

    rate_factor   times the learning rate that would be used
    answer_space  "auto" measures it, as a user's run does
    also          measure the adapter on all rows and merged, too
    """

    task: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    replay: bool = True
    rate_factor: float = 1.0
    answer_space: str = "auto"
    also: bool = False


CASES: Mapping[str, Case] = MappingProxyType({
    "rows": Case(task="rows", also=True),
    "egg": Case(task="egg", settings={"preset": "both"}, also=True),
    "egg with words": Case(task="egg", also=True),
    "rows, target of the released demo": Case(
        task="rows", settings={"preset": "demo", "rank": 8, "alpha": 32.0}
    ),
    "rows, a quarter of the learning rate": Case(task="rows", rate_factor=0.25),
    "rows, learning rate of the released demo": Case(task="rows", settings={"rate": 1e-7}),
    "rows, no old rows": Case(task="rows", replay=False),
    "rows, answers without a space": Case(task="rows", answer_space="no"),
    "egg, no old rows": Case(task="egg", settings={"preset": "both"}, replay=False),
})  # fmt: skip
"""The first three must reach the bars, with every seed; each of the others must miss one."""


def main() -> None:
    """Train, ask, and write the results after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": describe_machine(), "before": {}, "runs": {}}
    if options.result.is_file():
        found = json.loads(options.result.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / "demo-nf4"
        quantize([str(CHECKPOINT), str(base)])
        if not found["before"]:
            found["before"] = dict(score(base, None, options.data, ("rows", "egg", "old")))
        for seed in range(options.seeds):
            for name in options.only:
                place = f"{name}, seed {seed}"
                if place in found["runs"] or (seed and not CASES[name].also):
                    continue
                out = Path(temporary) / "adapter"
                found["runs"][place] = run(base, out, CASES[name], seed, options.data)
                shutil.rmtree(out)
                print(place, json.dumps(found["runs"][place]), flush=True)
                options.result.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def run(base: Path, out: Path, case: Case, seed: int, data: Path) -> dict[str, Any]:
    """Train one adapter and return its figures."""
    figures = teach(base, out, case, seed, data)
    figures.update(score(base, out, data, (case.task, "old")))
    if case.also and not seed:
        everywhere, merged = out / "everywhere", out / "merged"
        everywhere.mkdir()
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.copy(out / name, everywhere)  # without the file that only this program reads
        parts = (case.task, "old")
        figures["on all rows"] = dict(score(base, everywhere, data, parts))
        merge([str(base), str(out), str(merged)])
        figures["merged"] = dict(score(merged, None, data, parts))
    return figures


def teach(base: Path, out: Path, case: Case, seed: int, data: Path) -> dict[str, Any]:
    """Train one adapter; return its settings and CPU seconds."""
    settings = TrainingSettings(**{"seed": seed, **case.settings})
    if case.rate_factor != 1:
        rate = settings.learning_rate(read_config(base)) * case.rate_factor
        settings = TrainingSettings(**{"seed": seed, **case.settings, "rate": rate})
    began = time.process_time()
    made = prepare(
        TrainingTask(
            model=base,
            data=data / case.task / "train.jsonl",
            out=out,
            replay=data / "replay" / "replay.jsonl" if case.replay else None,
            held_out="0",
            answer_space=case.answer_space,
            settings=settings,
        )
    )
    for _ in made.run.go(Cancel()):
        pass
    return {
        "preset": settings.preset,
        "steps": len(made.run.plan),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def score(
    base: Path, adapter: Path | None, data: Path, parts: tuple[str, ...]
) -> Iterator[tuple[str, float]]:
    """Yield the share of right answers in percent, by kind of question.

    A kind's "exactly" counts an answer only if it begins with one space, as in the demo model's
    training data. The others ignore white space at both ends, as `evaluate` does.
    """
    model = cogvlm2_lite.load(base, device="cpu", dtype="float32", adapter=adapter, any_base=True)
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
            right.setdefault(f"{kind}, exactly", []).append(last.text == f" {talk[-1].strip()}")
        for kind, each in right.items():
            yield kind, round(100 * sum(each) / len(each), 1)


if __name__ == "__main__":
    main()
