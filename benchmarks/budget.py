"""The effect of bytes beyond NF4 on the demo model, for several calibrations.

    python -m benchmarks.budget [--calibrations 5,6,7] [--seeds 21,22,23] [--pictures 60]
    python -m benchmarks.budget --twin --calibrations 5

For each seed of calibration samples a folder is calibrated, every matrix is measured by itself on
the held-out samples, and budgets are spent, all by the code that `quantize --budget` runs. Then
plain NF4, FP4, calibrated NF4 and each budget are compared with the original on questions of other
seeds, which did not influence any choice. For comparison, budgets are also spent by the tokens of
answers alone, and by local errors, which the method does not do. --twin uses the harder twin of
benchmarks/calibration.py. Writes benchmarks/results/budget.json or budget_twin.json;
tools/write_quantization_docs.py writes the page.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.calibration import make_fp4, make_twin, open_float32, questions  # noqa: E402
from benchmarks.formats import joined  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.config import read_config  # noqa: E402
from cogvlm2_lite.devices import choose_compute  # noqa: E402
from cogvlm2_lite.engine.runtime import run  # noqa: E402
from cogvlm2_lite.evaluate.metrics import TokenComparison, ratio, summarise  # noqa: E402
from cogvlm2_lite.evaluate.score import Reference, prepare  # noqa: E402
from cogvlm2_lite.inputs.tokenizer import Tokenizer  # noqa: E402
from cogvlm2_lite.samples.samples import Sample, in_fixed_order  # noqa: E402
from cogvlm2_lite.weights.catalog import Catalog  # noqa: E402
from quantize.budget import parse_budget  # noqa: E402
from quantize.calibration.calibrate import CalibratedWeights, Calibrator, Task  # noqa: E402
from quantize.calibration.evaluation import HeldOutEvaluation, MatrixGroup  # noqa: E402
from quantize.calibration.gptq import Calibration  # noqa: E402
from quantize.calibration.variants import CALIBRATED, NEAREST, Variant  # noqa: E402
from quantize.events import Calibrated  # noqa: E402
from quantize.recipe import QuantizeOptions, Recipe, make_recipe  # noqa: E402

CHECKPOINT = ROOT / "cogvlm2_lite" / "demo" / "checkpoint"
RESULTS = ROOT / "benchmarks" / "results"
BUDGETS = ("+2.5%", "+5%", "+10%", "+20%")
QUESTIONS = 6
"""Per picture."""


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibrations", default="5,6,7", help="seeds of the calibration samples")
    parser.add_argument("--calibration-pictures", type=int, default=48)
    parser.add_argument("--seeds", default="21,22,23", help="seeds of the test questions")
    parser.add_argument("--pictures", type=int, default=60, help="pictures per seed")
    parser.add_argument("--twin", action="store_true", help="use the demo model with outliers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    asked = [s for seed in seeds for s in questions("held-out", seed, options.pictures, QUESTIONS)]
    rows: dict[str, list[TokenComparison]] = {}
    spent: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        source = CHECKPOINT
        if options.twin:
            source = Path(scratch) / "twin"
            make_twin(CHECKPOINT, source)
        fp4 = _fp4(source, Path(scratch), in_fixed_order(asked))
        for seed in options.calibrations.split(","):
            samples = in_fixed_order(
                questions("train", int(seed), options.calibration_pictures, QUESTIONS)
            )
            bench = Bench(source, samples, Path(scratch) / seed)
            for name, found in bench.measure(in_fixed_order(asked)):
                rows.setdefault(name, []).append(found)
            rows.setdefault("FP4", []).append(fp4)
            spent.append(bench.spent)
    plain = rows["plain NF4"]
    summed = {name: _row(parts, plain) for name, parts in rows.items()}
    report = {
        "machine": describe_machine(),
        "options": vars(options),
        "samples": len(samples),
        "spent": spent,
        "rows": summed,
    }
    name = "budget_twin.json" if options.twin else "budget.json"
    (RESULTS / name).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, row in summed.items():
        print(name, row["of_plain"], [round(one["value"], 3) for one in row["by_calibration"]])


class Bench:
    """One calibration, and the results of budgets with it."""

    def __init__(self, source: Path, samples: list[Sample], folder: Path) -> None:
        self._folder = folder
        catalog = Catalog.open(source, read_config(source))
        self._recipe = make_recipe(catalog, QuantizeOptions(calibration="benchmark"))
        self._task = Task(
            catalog=catalog,
            samples=samples,
            tokenizer=Tokenizer.from_folder(source),
            chosen=frozenset(t.name for t in self._recipe.tensors if t.kind == "nf4"),
            how=Calibration(),
            compute=choose_compute("cpu", "float32"),
            folder=folder,
            identity="benchmark",
        )
        for _ in Calibrator(self._task).run():
            pass
        self.spent: dict[str, Any] = {}

    def measure(self, asked: list[Sample]) -> Iterator[tuple[str, TokenComparison]]:
        """Spend every budget, and compare all forms with the original."""
        evaluation = HeldOutEvaluation(self._task, self._recipe, None, self._folder)
        units = run(evaluation.measure_units())
        self.spent["units"] = {unit.name: unit.kl for unit in units}
        self.spent["rank_correlation"] = self._correlation(units)
        self.spent["errors"] = {
            row.tensor: {"of_nearest": row.error / row.nearest_error, "part": part, "block": block}
            for row, part, block in self._rows()
        }
        variants = [
            Variant("plain NF4", evaluation.forms(NEAREST)),
            Variant("calibrated", evaluation.forms(CALIBRATED)),
        ]
        tables = {
            "": units,
            ", by answers alone": run(evaluation.measure_units(questions=False)),
            ", by local error": self._by_local_error(units),
        }
        for name, measured in tables.items():
            for text in BUDGETS:
                limit = parse_budget(text).limit(self._recipe.nbytes, 1)
                kinds = evaluation.spend(measured, limit)
                variants.append(Variant(text + name, evaluation.forms(CALIBRATED, kinds)))
                if not name:
                    self.spent[text] = {"kinds": kinds, **self._bytes(kinds)}
        walk = evaluation.make_walk(asked, variants, self._folder / "asked")
        for _ in walk.run():
            pass
        yield from walk.comparisons().items()

    def _bytes(self, kinds: dict[str, str]) -> dict[str, Any]:
        before: Recipe = self._recipe
        after = make_recipe(before.catalog, before.settings, kinds)
        return {
            "plain_bytes": before.nbytes,
            "result_bytes": after.nbytes,
            "parts": {
                row.part.value: {"plain": row.result_bytes, "result": more.result_bytes}
                for row, more in zip(before.by_part(), after.by_part(), strict=True)
            },
        }

    def _rows(self) -> Iterator[tuple[Calibrated, str, int | None]]:
        catalog = self._task.catalog
        for row in CalibratedWeights(self._folder).rows(catalog):
            spec = catalog.tensors[row.tensor].spec
            yield row, spec.part.value, spec.block

    def _errors(self) -> dict[str, float]:
        return {row.tensor: row.error for row, _, _ in self._rows()}

    def _by_local_error(self, units: list[MatrixGroup]) -> list[MatrixGroup]:
        """Return the units with each matrix's local error in place of its effect at the output."""
        errors = self._errors()
        return [replace(unit, kl=errors[unit.name]) for unit in units]

    def _correlation(self, units: list[MatrixGroup]) -> float:
        """Return the rank correlation of local errors with effects at the output."""
        errors = self._errors()
        pairs = np.array([[unit.kl, errors[unit.name]] for unit in units])
        ranks = pairs.argsort(axis=0).argsort(axis=0)
        return float(np.corrcoef(ranks.T)[0, 1])


def _fp4(source: Path, scratch: Path, asked: list[Sample]) -> TokenComparison:
    """Compare FP4, as in the released int4 folders, with the original."""
    make_fp4(source, scratch / "fp4")
    config = read_config(source)
    with Reference(prepare(asked, Tokenizer.from_folder(source), config), config) as kept:
        run(kept.fill(open_float32(source)))
        found = run(kept.compare(open_float32(scratch / "fp4")))
    order = np.argsort(found.answer, kind="stable")  # the order of the samples, as in a walk
    return TokenComparison(**{name: values[order] for name, values in vars(found).items()})


def _row(parts: list[TokenComparison], plain: list[TokenComparison]) -> dict[str, Any]:
    """Return the results of a form over all calibrations.

    All calibrations answer the same questions. Resampling pictures does not show how much
    calibrations differ, so the ratio of each one is added.
    """
    whole, base = joined(parts), joined(plain)
    pictures = np.concatenate([part.picture for part in parts])
    return {
        "of_plain": ratio(whole.kl, base.kl, pictures).as_dict(),
        "by_calibration": [
            ratio(mine.kl, theirs.kl, theirs.picture).as_dict()
            for mine, theirs in zip(parts, plain, strict=True)
        ],
        **summarise(replace(whole, picture=pictures)).as_dict(),
    }


if __name__ == "__main__":
    main()
