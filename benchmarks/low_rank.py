"""A low-rank correction beside calibrated NF4, next to int8 parts in the same bytes.

    python -m benchmarks.low_rank [--calibrations 5] [--seeds 21] [--pictures 60]

The correction is QERA's closed form (Zhang and others, arXiv 2410.06040): for a matrix W that was
rounded to Q, and the second moment H of its inputs, the matrix of rank r with the smallest error at
the outputs is SVD_r((W - Q) L) L^-1, with L L^T = H. W is the target of the calibration. The
factors are stored in bfloat16 like a LoRA adapter: `down` [rank, in], `up` [out, rank].

Ranks are equal for all matrices, or bought one by one where they remove most per byte: of the
matrix's own output error, or of the KL at the model's output, measured as `quantize --budget` does.
Headers of files are not counted for the adapter. Writes benchmarks/results/low_rank.json;
tools/write_quantization_docs.py writes the page.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.budget import CHECKPOINT, QUESTIONS, RESULTS  # noqa: E402
from benchmarks.calibration import fitted_samples, questions  # noqa: E402
from benchmarks.formats import joined  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.config import read_config  # noqa: E402
from cogvlm2_lite.devices import choose_compute  # noqa: E402
from cogvlm2_lite.engine.runtime import run  # noqa: E402
from cogvlm2_lite.evaluate.metrics import TokenComparison, ratio  # noqa: E402
from cogvlm2_lite.inputs.tokenizer import Tokenizer  # noqa: E402
from cogvlm2_lite.samples.samples import Sample, in_fixed_order  # noqa: E402
from cogvlm2_lite.weights.catalog import Catalog  # noqa: E402
from cogvlm2_lite.weights.slots import Linear  # noqa: E402
from quantize.budget import parse_budget  # noqa: E402
from quantize.calibration.calibrate import Calibrator, Task  # noqa: E402
from quantize.calibration.evaluation import HeldOutEvaluation  # noqa: E402
from quantize.calibration.gptq import Calibration, damp  # noqa: E402
from quantize.calibration.variants import CALIBRATED, NEAREST, Variant  # noqa: E402
from quantize.events import Calibrated  # noqa: E402
from quantize.recipe import QuantizeOptions, make_recipe  # noqa: E402

BUDGETS = ("+1%", "+3%")
MAX_RANK = 64
_FORM = "low rank "


@dataclass(frozen=True, kw_only=True)
class Correction:
    """The corrections of one matrix, of every rank.

    up, down  factors in bfloat16, [out, ranks] and [ranks, in]; the first r are the best of rank r
    gains     how much of the squared output error each rank removes
    error     the squared output error without a correction, on the inputs that were fitted to
    mean      the mean input [in]
    """

    up: Tensor
    down: Tensor
    gains: list[float]
    error: float
    mean: Tensor

    @property
    def rank_bytes(self) -> int:
        """Bytes of one rank."""
        return 2 * (len(self.up) + self.down.shape[1])

    def values(self, rank: int) -> Tensor:
        """Return the correction of a rank, [out, in] float32."""
        return self.up[:, :rank].float() @ self.down[:rank].float()


def make_correction(change: Tensor, hessian: Tensor, mean: Tensor) -> Correction:
    """Return the closed form.

    change   target minus rounded matrix, [out, in] float32
    hessian  second moment of the inputs, damped, [in, in]
    mean     mean of the inputs [in]
    """
    root = torch.linalg.cholesky(hessian.double())
    left, sizes, right = torch.linalg.svd(change.double() @ root, full_matrices=False)
    ranks = min(MAX_RANK, len(sizes))
    share = sizes[:ranks].sqrt()
    down = torch.linalg.solve_triangular(root, right[:ranks], upper=False, left=False)
    return Correction(
        up=(left[:, :ranks] * share).bfloat16(),
        down=(down * share[:, None]).bfloat16(),
        gains=sizes[:ranks].square().tolist(),
        error=float(sizes.square().sum()),
        mean=mean,
    )


class _CorrectingCalibrator(Calibrator):
    """Calibrates as `quantize` does, and also computes the correction of every matrix."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.corrections: dict[str, Correction] = {}

    def _finish(self, linear: Linear, seen: Any, judge: Any) -> Calibrated:
        row = super()._finish(linear, seen, judge)
        target = judge.target if isinstance(judge.target, Tensor) else judge.weight
        hessian = damp(seen.fit.matrix(), seen.fit.count, Calibration().damping)
        change = target - judge.best.values
        self.corrections[linear.name] = make_correction(change, hessian, seen.fit.mean)
        return row


class _Evaluation(HeldOutEvaluation):
    """Also knows forms with a correction; `corrections` is set before they are used."""

    corrections: Mapping[str, Correction]

    def _values_in_form(self, name: str, form: str, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        if not form.startswith(_FORM):
            return super()._values_in_form(name, form, weight)
        values, bias = super()._values_in_form(name, CALIBRATED, weight)
        correction = self.corrections[name]
        added = correction.values(int(form.removeprefix(_FORM)))
        if bias is not None:  # it already corrects the mean error of the rounded matrix
            bias = (bias.float() - added @ correction.mean).to(bias.dtype)
        return values + added, bias


def equal_ranks(corrections: Mapping[str, Correction], capacity: int) -> dict[str, int]:
    """Return the largest rank that all matrices can have; nothing if that is 0."""
    rank = capacity // sum(each.rank_bytes for each in corrections.values())
    return {name: min(rank, len(c.gains)) for name, c in corrections.items() if rank}


def greedy_ranks(
    corrections: Mapping[str, Correction], worth: Mapping[str, float], capacity: int
) -> dict[str, int]:
    """Return ranks bought one by one, the most worthwhile per byte first.

    worth  of a unit of a matrix's squared output error
    """

    def offer(name: str, rank: int) -> tuple[float, str, int]:
        each = corrections[name]
        return -each.gains[rank] * worth[name] / each.rank_bytes, name, rank

    offers = [offer(name, 0) for name in corrections]
    heapq.heapify(offers)
    ranks: dict[str, int] = {}
    while offers:
        _, name, rank = heapq.heappop(offers)
        each = corrections[name]
        if each.rank_bytes > capacity:
            continue
        capacity -= each.rank_bytes
        ranks[name] = rank + 1
        if rank + 1 < len(each.gains):
            heapq.heappush(offers, offer(name, rank + 1))
    return ranks


def _measure(
    samples: list[Sample], asked: list[Sample], folder: Path
) -> Iterator[tuple[str, float, TokenComparison]]:
    """Yield name, share of more bytes and comparison of every form, for one calibration."""
    catalog = Catalog.open(CHECKPOINT, read_config(CHECKPOINT))
    recipe = make_recipe(catalog, QuantizeOptions(calibration="benchmark"))
    task = Task(
        catalog=catalog,
        samples=samples,
        tokenizer=Tokenizer.from_folder(CHECKPOINT),
        chosen=frozenset(t.name for t in recipe.tensors if t.kind == "nf4"),
        how=Calibration(),
        compute=choose_compute("cpu", "float32"),
        folder=folder,
        identity="benchmark",
    )
    calibrator = _CorrectingCalibrator(task)
    for _ in calibrator.run():
        pass
    corrections = calibrator.corrections
    evaluation = _Evaluation(task, recipe, None, folder)
    evaluation.corrections = corrections
    units = run(evaluation.measure_units())
    calibrated = evaluation.forms(CALIBRATED)
    more = {"plain NF4": 0.0, "calibrated": 0.0}
    variants = [Variant("plain NF4", evaluation.forms(NEAREST)), Variant("calibrated", calibrated)]
    for text in BUDGETS:
        limit = parse_budget(text).limit(recipe.nbytes, 1)
        kinds = evaluation.spend(units, limit)
        name = f"{text}, int8"
        more[name] = make_recipe(catalog, recipe.settings, kinds).nbytes / recipe.nbytes - 1
        variants.append(Variant(name, evaluation.forms(CALIBRATED, kinds)))
        capacity = limit - recipe.nbytes
        by_output = {unit.name: unit.kl / corrections[unit.name].error for unit in units}
        choices = {
            "equal rank": equal_ranks(corrections, capacity),
            "rank by local error": greedy_ranks(
                corrections, dict.fromkeys(corrections, 1.0), capacity
            ),
            "rank by KL": greedy_ranks(corrections, by_output, capacity),
        }
        for how, ranks in choices.items():
            if ranks:
                name = f"{text}, {how}"
                spent = sum(corrections[each].rank_bytes * rank for each, rank in ranks.items())
                more[name] = spent / recipe.nbytes
                forms = {each: f"{_FORM}{rank}" for each, rank in ranks.items()}
                variants.append(Variant(name, {**calibrated, **forms}))
    walk = evaluation.make_walk(asked, variants, folder / "asked")
    for _ in walk.run():
        pass
    for name, found in walk.comparisons().items():
        yield name, more.get(name, 0.0), found


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibrations", default="5", help="seeds of the calibration samples")
    parser.add_argument("--calibration-pictures", type=int, default=48)
    parser.add_argument("--seeds", default="21", help="seeds of the test questions")
    parser.add_argument("--pictures", type=int, default=60, help="pictures per seed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    asked = in_fixed_order(
        [
            sample
            for seed in options.seeds.split(",")
            for sample in questions("held-out", int(seed), options.pictures, QUESTIONS)
        ]
    )
    parts: dict[str, list[TokenComparison]] = {}
    more: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.calibrations.split(","):
            samples = fitted_samples(options.calibration_pictures, int(seed), QUESTIONS)
            for name, share, found in _measure(samples, asked, Path(scratch) / seed):
                parts.setdefault(name, []).append(found)
                more.setdefault(name, share)
    rows = {}
    plain, calibrated = joined(parts["plain NF4"]), joined(parts["calibrated"])
    for name, some in parts.items():
        whole = joined(some)
        against = {"of_plain": plain, "of_calibrated": calibrated}
        int8 = f"{name.split(',')[0]}, int8"
        if int8 in parts:
            against["of_int8"] = joined(parts[int8])
        pictures = torch.cat([torch.as_tensor(one.picture) for one in some]).numpy()
        rows[name] = {
            "more": more[name],
            "kl": float(whole.kl.mean()),
            **{key: ratio(whole.kl, base.kl, pictures).as_dict() for key, base in against.items()},
        }
        print(name, rows[name], flush=True)
    report = {
        "machine": describe_machine(),
        "options": vars(options),
        "samples": len(samples),
        "questions": len(asked),
        "tokens": len(parts["plain NF4"][0].kl),
        "rows": rows,
    }
    text = json.dumps(report, indent=1) + "\n"
    (RESULTS / "low_rank.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
