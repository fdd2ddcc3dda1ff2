"""Compare methods of calibration on new sample seeds and new questions, on the demo model.

    python -m benchmarks.calibration_seeds --work FOLDER [--methods ...] [--samples like,built-in]

Methods and samples are chosen while the seeds of benchmarks/calibration.py and of
benchmarks/budget.py are looked at. This test has seeds that were not looked at before: of the
samples (31, 32, 33), of the built-in set (all eight draws, 0 to 7) and of the held-out questions
(51, 52, 53: 450 pictures, 2,700 questions, more than 11,000 answer tokens).

Every calibration is compared with the 16-bit original, and its result is kept in FOLDER as soon as
it is finished, so the program can be stopped and continued, and two of them can share the work.
Writes benchmarks/results/calibration_seeds.json from all results in FOLDER;
tools/write_quantization_docs.py writes the page.
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

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.calibration import CHECKPOINT, Bench, fitted_samples  # noqa: E402
from benchmarks.formats import joined  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.evaluate.metrics import TokenComparison, ratio, summarise  # noqa: E402
from cogvlm2_lite.samples.drawn import drawn_samples  # noqa: E402
from cogvlm2_lite.samples.samples import Sample  # noqa: E402
from quantize.calibration.gptq import ROUNDED, Calibration  # noqa: E402
from quantize.recipe import BY_GRADIENT, UNIFORM  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "calibration_seeds.json"
PLAIN = "plain NF4"
LIKE, BUILT_IN = "like", "built-in"
SEEDS = {LIKE: (31, 32, 33), BUILT_IN: tuple(range(8))}
EARLIER = "first round, earlier built-in set"
"""Measured before the built-in set was changed; it can't be measured again with this code."""
QUESTIONS = (51, 52, 53)
"""Seeds of the held-out questions."""
METHODS = {
    "first round": Calibration(targets=ROUNDED),
    "original targets": Calibration(token_weights=UNIFORM),
    "original targets and token weights": Calibration(token_weights=BY_GRADIENT),
}


def main() -> None:
    """Measure what is missing and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="keeps finished calibrations")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas")
    parser.add_argument("--samples", default=",".join(SEEDS), help="like, built-in or both")
    parser.add_argument("--pictures", type=int, default=150, help="held-out pictures per seed")
    parser.add_argument("--questions", type=int, default=6, help="questions per picture")
    parser.add_argument("--count", type=int, default=288, help="samples of a calibration")
    parser.add_argument("--only-write", action="store_true", help="measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.only_write:
        measure(options)
    report = summary(options)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, row in report["methods"].items():
        print(name, {k: [round(one["value"], 3) for one in v] for k, v in row["seeds"].items()})


def measure(options: argparse.Namespace) -> None:
    """Calibrate and compare whatever has no result yet; print how long the rest will take."""
    wanted = [
        (method, kind, seed)
        for kind in options.samples.split(",")
        for seed in SEEDS[kind]
        for method in options.methods.split(",")
        if not _file(options.work, method, kind, seed).exists()
    ]
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(
            CHECKPOINT, Path(scratch), options.pictures, options.questions, seeds=QUESTIONS
        )
        with bench:
            plain = _file(options.work, PLAIN, "", 0)
            if not plain.exists():
                _save(plain, bench.compare(None), 0.0)
            began = time.monotonic()
            for place, (method, kind, seed) in enumerate(wanted):
                file = _file(options.work, method, kind, seed)
                if file.exists():  # of a second program that shares the work
                    continue
                found = samples_of(kind, seed, options)
                cpu_s = time.process_time()
                folder = bench.calibrate(found, METHODS[method])
                cpu_s = time.process_time() - cpu_s
                _save(file, bench.compare(folder), cpu_s)
                each = (time.monotonic() - began) / (place + 1)
                left = each * (len(wanted) - place - 1)
                print(f"{file.stem}: {cpu_s:.0f} s of CPU, {left:.0f} s left", flush=True)


def samples_of(kind: str, seed: int, options: argparse.Namespace) -> list[Sample]:
    """Return the samples of one calibration."""
    if kind == LIKE:
        pictures = options.count // options.questions
        return fitted_samples(pictures, seed, options.questions)
    return drawn_samples(options.count, seed)


def summary(options: argparse.Namespace) -> dict[str, Any]:
    """Return all results in the folder, relative to plain NF4 and to the first method.

    All calibrations answer the same questions, so ratios are paired by picture. Brackets resample
    the pictures; how much calibrations vary is shown by the single seeds.
    """
    plain = _load(_file(options.work, PLAIN, "", 0))[0]
    found = {(m, k, s): (c, cpu_s) for m, k, s, c, cpu_s in _finished(options.work)}
    methods: dict[str, Any] = {}
    first = next(iter(METHODS))
    for method in (*METHODS, EARLIER):
        row: dict[str, Any] = {
            key: {} for key in ("all", "measured", "seeds", "typical", "of_first", "cpu_s")
        }
        for kind, seeds in SEEDS.items():
            mine = [s for s in seeds if (method, kind, s) in found]
            if not mine:
                continue
            parts = [found[method, kind, s][0] for s in mine]
            row["all"][kind] = _of(parts, [plain] * len(parts))
            row["seeds"][kind] = [_of([part], [plain]) for part in parts]
            row["typical"][kind] = [_typical(part, plain) for part in parts]
            row["measured"][kind] = mine
            row["cpu_s"][kind] = [round(found[method, kind, s][1], 1) for s in mine]
            if all((first, kind, s) in found for s in mine):
                others = [found[first, kind, s][0] for s in mine]
                row["of_first"][kind] = _of(parts, others)
        methods[method] = row
    return {
        "machine": describe_machine(),
        "samples": options.count,
        "seeds": {kind: list(seeds) for kind, seeds in SEEDS.items()},
        "question_seeds": list(QUESTIONS),
        "plain": summarise(plain).as_dict(),
        "methods": methods,
    }


def _typical(part: TokenComparison, plain: TokenComparison) -> dict[str, float]:
    """Return the ratio of the root of the KL, which is the size of the change, squared.

    The mean KL depends on the few tokens that the original is not sure of. The mean of the root
    depends on all tokens, so it differs less between questions and between samples.
    """
    found = ratio(np.sqrt(part.kl), np.sqrt(plain.kl), part.picture).as_dict()
    return {name: value**2 for name, value in found.items()}


def _of(parts: list[TokenComparison], others: list[TokenComparison]) -> dict[str, float]:
    """Return the ratio of the mean KL, with brackets that resample the pictures all share."""
    pictures = np.concatenate([part.picture for part in parts])
    return ratio(joined(parts).kl, joined(others).kl, pictures).as_dict()


def _finished(work: Path) -> Iterator[tuple[str, str, int, TokenComparison, float]]:
    for method in (*METHODS, EARLIER):
        for kind, seeds in SEEDS.items():
            for seed in seeds:
                file = _file(work, method, kind, seed)
                if file.exists():
                    yield method, kind, seed, *_load(file)


def _file(work: Path, method: str, kind: str, seed: int) -> Path:
    name = "-".join([*method.split(), kind, str(seed)])
    return work / f"{name}.npz"


def _save(file: Path, found: TokenComparison, cpu_s: float) -> None:
    """Write a result under another name first, so that an existing file is whole."""
    part = file.with_suffix(".part.npz")
    np.savez_compressed(part, cpu_s=cpu_s, **vars(found))
    part.rename(file)


def _load(file: Path) -> tuple[TokenComparison, float]:
    with np.load(file) as stored:
        columns = {name: stored[name] for name in stored.files}
    cpu_s = float(columns.pop("cpu_s"))
    return TokenComparison(**columns), cpu_s


if __name__ == "__main__":
    main()
