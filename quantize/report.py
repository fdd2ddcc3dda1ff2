"""The report of a conversion, by part and by matrix: a JSON file and a page in the result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from statistics import fmean, median

from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.charts import bars, by_depth, bytes_by_part, document, table
from cogvlm2_lite.units import format_bytes
from quantize.calibration.evaluation import Decision
from quantize.events import Calibrated, Evaluated
from quantize.recipe import PlannedTensor, Recipe

REPORT_NAME = "quantization_report.json"
PAGE_NAME = "quantization_report.html"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A linear matrix of the result, and what a calibration decided for it, if there was one."""

    planned: PlannedTensor
    decided: Calibrated | None
    nearest: bool = False
    """The calibrated rounding was dropped because the whole model was worse with it."""

    @property
    def ratio(self) -> float | None:
        """Output error on held-out samples, divided by that of round to nearest; None if it was not
        measured."""
        if self.decided is None or self.decided.nearest_error <= 0:
            return None
        if self.planned.kind == "int8":
            return self.decided.int8_error / self.decided.nearest_error
        if self.planned.kind == "dense":
            return 0.0
        return 1.0 if self.nearest else self.decided.error / self.decided.nearest_error

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.planned.nbytes / self.planned.source.spec.numel

    @property
    def remark(self) -> str:
        """The reason why it is not NF4, or not calibrated."""
        if self.planned.reason:
            return self.planned.reason
        if self.nearest:
            return "round to nearest is better for the whole model on held-out samples"
        return self.decided.reason if self.decided else ""


def write_reports(
    recipe: Recipe, decided: Sequence[Calibrated], decision: Decision | None = None
) -> dict[str, bytes]:
    """Return both files by name; docs/format.md describes them.

    decided   what a calibration decided for each matrix; empty without a calibration
    decision  what was measured and decided for the whole model; None without a calibration
    """
    found = {one.tensor: one for one in decided}
    dropped = decision.nearest if decision else frozenset()
    rows = [
        _Row(planned=planned, decided=found.get(planned.name), nearest=planned.name in dropped)
        for planned in recipe.tensors
        if planned.source.spec.role is Role.LINEAR
    ]
    order = {name: number for number, name in enumerate(recipe.catalog.tensors)}
    rows.sort(key=lambda row: order[row.planned.name])
    content = json.dumps(_content(recipe, rows, decision), indent=1) + "\n"
    return {REPORT_NAME: content.encode(), PAGE_NAME: _page(recipe, rows, decision).encode()}


def _content(recipe: Recipe, rows: Sequence[_Row], decision: Decision | None) -> dict[str, object]:
    return {
        "calibration": recipe.settings.calibration,
        "budget": recipe.settings.budget.text if recipe.settings.budget else None,
        "target": recipe.settings.target,
        "source_bytes": recipe.catalog.nbytes,
        "bytes": recipe.nbytes,
        "parts": [
            {
                "part": part.part.value,
                "source_bytes": part.source_bytes,
                "bytes": part.result_bytes,
                "bits_per_weight": round(part.bits_per_weight, 4),
                **_errors([r for r in rows if r.planned.source.spec.part is part.part]),
            }
            for part in recipe.by_part()
        ],
        "matrices": [
            {
                "tensor": row.planned.name,
                "storage": row.planned.kind,
                "bytes": row.planned.nbytes,
                "bits_per_weight": round(row.bits_per_weight, 4),
                "remark": row.remark,
                "calibration": None if row.decided is None else row.decided.values(),
            }
            for row in rows
        ],
        "judged": decision.evaluated.values() if decision and decision.evaluated else None,
        "units": [asdict(unit) for unit in decision.units] if decision else [],
    }


def _errors(rows: Sequence[_Row]) -> dict[str, object]:
    """Return the summary of a part's matrices."""
    decided = [row.decided for row in rows if row.decided is not None]
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return {
        "calibrated": sum(one.kept == "calibrated" for one in decided),
        "kept_nearest": sum(one.kept == "nearest" for one in decided),
        "median_error_of_nearest": round(median(ratios), 4) if ratios else None,
    }


def _page(recipe: Recipe, rows: Sequence[_Row], decision: Decision | None) -> str:
    parts = recipe.by_part()
    before = {part.part.value: part.source_bytes for part in parts}
    after = {part.part.value: part.result_bytes for part in parts}
    weights = sum(part.weights for part in parts)
    body = f"""\
<p>{format_bytes(sum(after.values()))} instead of {format_bytes(sum(before.values()))};
{8 * sum(after.values()) / weights:.2f} instead of {8 * sum(before.values()) / weights:.2f} bits per
weight. {_how(recipe, rows)}</p>
<p>To measure how far the answers are from those of the source, run
<code>cogvlm2-lite compare SRC DST --html answers.html</code>.</p>
{_losses(decision.evaluated) if decision and decision.evaluated else ""}<section>
<h2>Bytes by part</h2>
<figure>{bytes_by_part(before, after, ("source", "result"))}</figure>
</section>
{_depth(rows)}<h2>Every matrix</h2>
{_table(rows)}"""
    return document("Quantization report", body)


def _losses(evaluated: Evaluated) -> str:
    """Return the section about the whole model on held-out samples."""
    forms = {
        "plain NF4": evaluated.plain,
        "calibrated": evaluated.calibrated,
        "result": evaluated.result,
    }
    rows: list[tuple[str, ...]] = [
        (
            name,
            _span(found["kl_mean"], ".5f"),
            _span(found["kl_p99"], ".4f"),
            _span(found["top1"], ".2%"),
            _span(found["changed"], ".1%"),
        )
        for name, found in forms.items()
    ]
    head = ("compared with the source", "mean KL", "KL 99 %", "top-1", "answers changed")
    drawn = bars(
        [
            (name, *(f["kl_mean"][end] for end in ("value", "low", "high")))
            for name, f in forms.items()
        ],
        ".5f",
        "Mean KL of plain NF4, calibrated NF4 and the result",
    )
    return (
        f"<section>\n<h2>Effect on the answers</h2>\n<figure>{drawn}</figure>\n"
        f"{table(head, rows)}\n"
        f'<p class="soft">{evaluated.words} tokens of the answers of {evaluated.samples} '
        "held-out samples. The brackets contain 95 % of resamples of the pictures. "
        f"{escape(evaluated.remarks)}</p>\n</section>\n"
    )


def _span(measured: Mapping[str, float], form: str) -> str:
    low, high = format(measured["low"], form), format(measured["high"], form)
    return f"{format(measured['value'], form)} [{low}, {high}]"


def _how(recipe: Recipe, rows: Sequence[_Row]) -> str:
    decided = [row.decided for row in rows if row.decided is not None]
    if not decided:
        return "All matrices are rounded to nearest, without calibration."
    kept = sum(one.kept == "nearest" for one in decided)
    return (
        f"Calibrated on {escape(recipe.settings.calibration)}: {len(decided) - kept} matrices. "
        f"Round to nearest was kept for {kept} more; the last column has the reason."
    )


def _depth(rows: Sequence[_Row]) -> str:
    """Return the section with the error of calibrated layers; empty without a calibration."""
    lists: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        spec, ratio = row.planned.source.spec, row.ratio
        if spec.block is not None and ratio is not None:
            lists.setdefault(spec.part.value, {}).setdefault(spec.block, []).append(ratio)
    if not lists:
        return ""
    lines = {
        part: {block: fmean(ratios) for block, ratios in blocks.items()}
        for part, blocks in lists.items()
    }
    drawn = by_depth(lines, ".0%", "Output error of each layer against round to nearest")
    return (
        f"<section>\n<h2>Error by depth</h2>\n<figure>{drawn}\n<figcaption>Mean squared error "
        "of the outputs on held-out samples, relative to round to nearest (100%); mean over the "
        "matrices of a layer.</figcaption></figure>\n</section>\n"
    )


def _table(rows: Sequence[_Row]) -> str:
    head = ("matrix", "stored as", "bytes", "bits", "error against nearest", "remark")
    return table(
        head,
        [
            (
                row.planned.name,
                row.planned.kind,
                format_bytes(row.planned.nbytes),
                f"{row.bits_per_weight:.2f}",
                "" if row.ratio is None else f"{row.ratio:.1%}",
                row.remark,
            )
            for row in rows
        ],
    )
