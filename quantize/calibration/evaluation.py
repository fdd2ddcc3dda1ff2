"""Evaluate the whole model on held-out samples, spend the budget, and drop what makes it worse.

Calibration compares the outputs of every matrix by itself. The effect on the answers is measured
here, at the model's output, on the samples that nothing was fitted to:

1  Plain NF4 and calibrated NF4 are compared with the source, token by token (KL, top-1, answers
   changed).
2  With a budget, units are measured one at a time: only one matrix (or one block, if all matrices
   would take too long) is NF4, and all others are the source's. These single effects add up, and
   the errors of a matrix's own outputs do not predict them. The tokens of the questions are
   compared here too: there are three times as many, and a few uncertain tokens of the answers have
   less influence then (docs/quantization.md).
3  The bytes beyond NF4 go to the matrices where they remove most of that KL: as int8, or in 16 bits
   as in the source. For a GPU they go to 16 bits only. lm_head is one of the matrices if it is the
   budget's to choose.
4  The result is measured as in step 1. If it is worse than plain NF4, one part goes back to round
   to nearest; if that does not help, everything does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part
from cogvlm2_lite.evaluate.metrics import TokenComparison, ratio, summarise
from cogvlm2_lite.samples.samples import Sample
from cogvlm2_lite.weights.writer import write_file_durably
from quantize.calibration.calibrate import CalibratedWeights, Task, is_held_out
from quantize.calibration.gptq import round_to_nearest
from quantize.calibration.knapsack import Upgrade, spend
from quantize.calibration.network import Network
from quantize.calibration.stages import group_numbers
from quantize.calibration.variants import (
    CALIBRATED,
    INT8,
    NEAREST,
    SOURCE,
    Forms,
    Variant,
    VariantWalk,
)
from quantize.events import Calibrated, Evaluated, Measuring
from quantize.int8 import int8_values
from quantize.job import CALIBRATION_FOLDER, DECISION_NAME
from quantize.recipe import PlannedTensor, Recipe, make_recipe, planned_bytes

_REFERENCE = Variant("source", {})
_FORM_OF = {"int8": INT8, "dense": SOURCE}
"""Storage kind of a recipe -> form of a variant."""

MIN_MEASURING_FLOPS = 2e13
"""Operations that measuring units may always take: a minute or two of a CPU."""
MAX_SHARE_OF_CALIBRATION = 2.0
"""Above that, measuring units may take this multiple of one pass of all samples."""
MIN_GROUPS = 4
"""The fewest pictures (or samples without one) on which a unit is measured."""


@dataclass(frozen=True, kw_only=True)
class MatrixGroup:
    """Matrices that are measured and upgraded together.

    kl  mean KL at the model's output, over the tokens of questions and answers, if only these
        matrices are calibrated NF4; nats per token
    """

    name: str
    matrices: tuple[str, ...]
    kl: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is done with a calibration.

    kinds      matrices that get more bytes than NF4: name -> storage kind
    nearest    matrices whose calibrated rounding is dropped
    evaluated  the measured losses; None if no sample was held out
    units      what was measured of each unit; empty without a budget
    """

    kinds: Mapping[str, str]
    nearest: frozenset[str]
    evaluated: Evaluated | None = None
    units: tuple[MatrixGroup, ...] = ()

    @property
    def dropped(self) -> frozenset[str]:
        """Matrices for which the calibration's codes are not used."""
        return self.nearest | frozenset(self.kinds)


def read_decision(folder: Path) -> Decision | None:
    """Return what an earlier run decided in a working folder; None if it did not get so far."""
    try:
        text = (folder / CALIBRATION_FOLDER / DECISION_NAME).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    content = json.loads(text)
    return Decision(
        kinds=content["kinds"],
        nearest=frozenset(content["nearest"]),
        evaluated=Evaluated(**content["judged"]) if content["judged"] else None,
        units=tuple(
            MatrixGroup(name=u["name"], matrices=tuple(u["matrices"]), kl=u["kl"])
            for u in content["units"]
        ),
    )


class HeldOutEvaluation:
    """Measures and decides; `run` returns the decision.

    task    of the finished calibration; its folder also keeps what was measured of the units, so
            that nothing is measured again for another budget
    recipe  all matrices in NF4 except those that the user stores otherwise
    limit   bytes of all files; None: no more than the recipe's
    folder  the working folder of the conversion
    """

    def __init__(self, task: Task, recipe: Recipe, limit: int | None, folder: Path) -> None:
        self._task, self._recipe, self._limit = task, recipe, limit
        self._folder = folder / CALIBRATION_FOLDER
        self._shared = task.folder / CALIBRATION_FOLDER
        self._weights = CalibratedWeights(task.folder)
        self._planned = {t.name: t for t in recipe.tensors}

    def run(self) -> Generator[Measuring, None, Decision]:
        """Measure and decide; yield progress, write the decision to the folder and return it."""
        if not self.held_out:
            return self._write(Decision(kinds={}, nearest=frozenset()))
        found = yield from self._walk(
            self.held_out,
            [
                Variant("plain", self.forms(NEAREST)),
                Variant("calibrated", self.forms(CALIBRATED)),
            ],
            self._shared / "whole",
        )
        plain, calibrated = found["plain"], found["calibrated"]
        units: list[MatrixGroup] = []
        kinds: dict[str, str] = {}
        if self._limit is not None and self._limit > self._recipe.nbytes:
            units = yield from self.measure_units()
            kinds = self.spend(units, self._limit)
        result = calibrated
        if kinds:
            some = yield from self._measure({"result": self.forms(CALIBRATED, kinds)}, "result")
            result = some["result"]
        decision, result = yield from self.check(plain, result, kinds)
        evaluated = self._evaluated(plain, calibrated, result, decision)
        return self._write(replace(decision, evaluated=evaluated, units=tuple(units)))

    # --- held-out samples -------------------------------------------------------------------------

    @cached_property
    def held_out(self) -> list[Sample]:
        """The samples that nothing was fitted to."""
        return [sample for _, group in self._groups for sample in group]

    @cached_property
    def _groups(self) -> list[tuple[int, list[Sample]]]:
        """Held-out samples by picture."""
        whole = self._network(self._task.samples)
        found: dict[int, list[Sample]] = {}
        for number, sample in zip(group_numbers(whole), self._task.samples, strict=True):
            if is_held_out(number):
                found.setdefault(number, []).append(sample)
        return list(found.items())

    def _network(self, samples: Sequence[Sample]) -> Network:
        # float32, whatever type the calibration computes in: rounding all activations to 16 bits
        # has a larger effect than one matrix in NF4.
        return Network(
            self._task.catalog,
            samples,
            self._task.tokenizer,
            device=torch.device(self._task.compute.device),
            dtype=torch.float32,
            pixels=self._task.pixels,
        )

    # --- measuring --------------------------------------------------------------------------------

    def forms(self, nf4: str, kinds: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the form of every matrix that differs from the source.

        nf4    the form of matrices stored in NF4: NEAREST or CALIBRATED
        kinds  storage kinds that replace the recipe's
        """
        found = {}
        for name, planned in self._planned.items():
            kind = (kinds or {}).get(name, planned.kind)
            form = nf4 if kind == "nf4" else _FORM_OF[kind]
            if form != SOURCE:
                found[name] = form
        return found

    def _values_in_form(self, name: str, form: str, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a matrix in a form, and the bias that goes with it; see variants.ValuesInForm."""
        double = self._task.how.double_quant
        if form == INT8:
            return int8_values(weight), None
        if form == CALIBRATED:
            values = self._weights.values(name, double_quant=double)
            if values is not None:
                bias = self._weights.bias(name.removesuffix(".weight") + ".bias")
                return values, bias
        return round_to_nearest(weight, double_quant=double).values, None

    def _walk(
        self, samples: Sequence[Sample], variants: Sequence[Variant], folder: Path
    ) -> Generator[Measuring, None, dict[str, TokenComparison]]:
        walk = self.make_walk(samples, variants, folder)
        yield from walk.run()
        return walk.comparisons()

    def make_walk(
        self,
        samples: Sequence[Sample],
        variants: Sequence[Variant],
        folder: Path,
        *,
        questions: bool = False,
    ) -> VariantWalk:
        return VariantWalk(
            self._network(samples),
            [_REFERENCE, *variants],
            self._values_in_form,
            folder,
            self._task.identity,
            questions=questions,
        )

    def _measure(
        self, forms: Mapping[str, Forms], folder: str
    ) -> Generator[Measuring, None, dict[str, TokenComparison]]:
        variants = [Variant(name, some) for name, some in forms.items()]
        return (yield from self._walk(self.held_out, variants, self._folder / folder))

    # --- units ------------------------------------------------------------------------------------

    def measure_units(
        self, *, questions: bool = True
    ) -> Generator[Measuring, None, list[MatrixGroup]]:
        """Measure the KL of every unit in NF4 while all others are the source's.

        questions  compare the tokens of the questions too
        """
        named, samples = self.choose_units()
        variants = [
            Variant(name, dict.fromkeys(matrices, CALIBRATED)) for name, matrices in named.items()
        ]
        folder = self._shared / ("units" if questions else "units-answers")
        walk = self.make_walk(samples, variants, folder, questions=questions)
        yield from walk.run()
        found = walk.comparisons()
        return [
            MatrixGroup(name=name, matrices=matrices, kl=float(found[name].kl.mean()))
            for name, matrices in named.items()
        ]

    def choose_units(
        self,
        *,
        min_flops: float = MIN_MEASURING_FLOPS,
        max_share: float = MAX_SHARE_OF_CALIBRATION,
    ) -> tuple[dict[str, tuple[str, ...]], list[Sample]]:
        """Return the finest units, and the most samples, that stay within the allowed work.

        min_flops  operations that are always allowed
        max_share  above that, the allowed multiple of one pass of all samples
        """
        whole = self._network(self._task.samples)
        allowed = max(
            min_flops,
            max_share
            * VariantWalk(whole, [_REFERENCE], self._values_in_form, self._shared, "").flops,
        )
        fewest = min(MIN_GROUPS, len(self._groups))
        # First single matrices on all groups of samples, then on fewer groups, then whole blocks in
        # the same way: finer units help more than a few additional pictures.
        for named in (self._by_matrix(), self._by_block()):
            variants = [
                Variant(name, dict.fromkeys(some, CALIBRATED)) for name, some in named.items()
            ]
            for count in dict.fromkeys((len(self._groups), *_halves(len(self._groups), fewest))):
                samples = self._spread(count)
                walk = self.make_walk(samples, variants, self._shared)
                if walk.flops <= allowed:
                    return named, samples
        return named, self._spread(fewest)

    def _spread(self, count: int) -> list[Sample]:
        """Return the samples of so many held-out groups, evenly spread."""
        groups = self._groups
        places = [number * len(groups) // count for number in range(count)]
        return [sample for place in places for sample in groups[place][1]]

    def _by_matrix(self) -> dict[str, tuple[str, ...]]:
        return {name: (name,) for name, t in self._planned.items() if t.kind == "nf4"}

    def _by_block(self) -> dict[str, tuple[str, ...]]:
        """Return the matrices by layer and, in the decoder, by expert."""
        found: dict[str, list[str]] = {}
        for name, planned in self._planned.items():
            spec = planned.source.spec
            if planned.kind == "nf4":
                block = spec.part.value + ("" if spec.block is None else f" {spec.block}")
                found.setdefault(block, []).append(name)
        return {block: tuple(names) for block, names in found.items()}

    # --- spending ---------------------------------------------------------------------------------

    def spend(self, units: Sequence[MatrixGroup], limit: int) -> dict[str, str]:
        """Return storage kinds of matrices with which the files stay within the limit."""
        rows = {row.tensor: row for row in self._weights.rows(self._task.catalog)}
        by_name = {unit.name: unit for unit in units}
        upgrades = {unit.name: list(self._upgrades(unit, rows)) for unit in units}
        capacity = limit - self._recipe.nbytes
        # The knapsack counts the bytes of tensors. Storage kinds differ in their companion tensors,
        # whose names can make the headers longer. If the files exceed the limit, solve it again
        # with that much less.
        while capacity > 0:
            taken = spend(upgrades, capacity)
            kinds = {
                m: upgrade.kind for name, upgrade in taken.items() for m in by_name[name].matrices
            }
            recipe = make_recipe(self._task.catalog, self._recipe.settings, kinds)
            if recipe.nbytes <= limit:
                return kinds
            capacity -= recipe.nbytes - limit
        return {}

    def _upgrades(self, unit: MatrixGroup, rows: Mapping[str, Calibrated]) -> Iterator[Upgrade]:
        """Yield the upgrades of a unit, with their bytes and gains.

        The KL that int8 leaves is too small to be measured at the model's output, so it is
        estimated. KL grows with the square of the error: an error k times as large leaves k^2
        times the KL, and k^2 is the ratio of the squared errors at the matrices' own outputs.
        """
        planned = [self._planned[name] for name in unit.matrices]
        before = sum(t.nbytes for t in planned)
        errors = [rows[name] for name in unit.matrices if name in rows]
        whole = sum(row.error for row in errors)
        left = sum(row.int8_error for row in errors) / whole if whole > 0 else 0.0
        gains = {"int8": unit.kl * (1 - min(left, 1.0)), "dense": unit.kl}
        for kind in self._recipe.settings.upgrade_kinds:
            more = sum(planned_bytes(t.source, kind) for t in planned) - before
            yield Upgrade(kind=kind, nbytes=more, gain=gains[kind])

    # --- the fail-safe ----------------------------------------------------------------------------

    def check(
        self, plain: TokenComparison, result: TokenComparison, kinds: Mapping[str, str]
    ) -> Generator[Measuring, None, tuple[Decision, TokenComparison]]:
        """Keep the result if it is no worse than plain NF4; otherwise drop the calibration of one
        part, or of everything."""
        nothing: frozenset[str] = frozenset()
        bound = float(plain.kl.mean())
        if not math.isfinite(bound) or float(result.kl.mean()) <= bound:
            return Decision(kinds=kinds, nearest=nothing), result
        parts = {
            part: frozenset(n for n, t in self._planned.items() if _is_calibrated(t, part, kinds))
            for part in Part
        }
        forms = self.forms(CALIBRATED, kinds)
        tried = {
            part.value: {**forms, **dict.fromkeys(names, NEAREST)}
            for part, names in parts.items()
            if names
        }
        found = yield from self._measure(tried, "fallback")
        best = min(found, key=lambda name: float(found[name].kl.mean()))
        if float(found[best].kl.mean()) <= bound:
            decision = Decision(kinds=kinds, nearest=parts[Part(best)])
            return decision, found[best]
        everything = frozenset(n for n, t in self._planned.items() if t.kind == "nf4")
        return Decision(kinds={}, nearest=everything), plain

    # --- the result -------------------------------------------------------------------------------

    def _evaluated(
        self,
        plain: TokenComparison,
        calibrated: TokenComparison,
        result: TokenComparison,
        decision: Decision,
    ) -> Evaluated:
        recipe = make_recipe(self._task.catalog, self._recipe.settings, decision.kinds)
        return Evaluated(
            samples=len(self.held_out),
            words=len(plain.kl),
            plain=_summary(plain),
            calibrated=_summary(calibrated),
            result=_summary(result),
            of_plain=_kl_ratio(result, plain),
            plain_bytes=self._recipe.nbytes,
            result_bytes=recipe.nbytes,
            upgraded=len(decision.kinds),
            dropped=self._dropped(decision),
        )

    def _dropped(self, decision: Decision) -> str:
        """Return the parts that went back to round to nearest; empty if none did."""
        if not decision.nearest:
            return ""
        parts = {self._planned[name].source.spec.part.value for name in decision.nearest}
        every = sum(t.kind == "nf4" for t in self._planned.values())
        return "everything" if len(decision.nearest) == every else ", ".join(sorted(parts))

    def _write(self, decision: Decision) -> Decision:
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {
            "kinds": dict(decision.kinds),
            "nearest": sorted(decision.nearest),
            "judged": decision.evaluated.values() if decision.evaluated else None,
            "units": [asdict(unit) for unit in decision.units],
        }
        write_file_durably(self._folder / DECISION_NAME, json.dumps(content).encode())
        return decision


def _is_calibrated(planned: PlannedTensor, part: Part, kinds: Mapping[str, str]) -> bool:
    spec = planned.source.spec
    return planned.kind == "nf4" and spec.part is part and spec.name not in kinds


def _halves(count: int, least: int) -> Iterator[int]:
    while count > least:
        count = max(count // 2, least)
        yield count


def _summary(found: TokenComparison) -> dict[str, Any]:
    """Return KL, top-1 and changed answers with their intervals."""
    whole = summarise(found).as_dict()
    return {name: whole[name] for name in ("kl_mean", "kl_p99", "top1", "changed")}


def _kl_ratio(result: TokenComparison, plain: TokenComparison) -> dict[str, float] | None:
    """Return the ratio of the mean KLs; None if that of plain NF4 is 0."""
    if not plain.kl.sum() > 0:
        return None
    return ratio(result.kl, plain.kl, plain.picture).as_dict()
