"""What a calibration did, matrix by matrix, as a file of the result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median

from quantize.events import Calibrated
from quantize.recipe import Recipe

REPORT_NAME = "quantization_report.json"


def write_report(recipe: Recipe, rows: Sequence[Calibrated]) -> bytes:
    """Give the content of quantization_report.json; docs/format.md describes it."""
    parts = [
        {
            "part": row.part.value,
            "bytes": row.result_bytes,
            "bits_per_weight": round(row.bits_per_weight, 4),
            **_errors(recipe, rows, row.part.value),
        }
        for row in recipe.by_part()
    ]
    content = {
        "calibration": recipe.settings.calibration,
        "bytes": recipe.nbytes,
        "parts": parts,
        "matrices": [row.values() for row in rows],
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _errors(recipe: Recipe, rows: Sequence[Calibrated], part: str) -> dict[str, object]:
    """Sum up the matrices of a part."""
    mine = [row for row in rows if recipe.catalog.tensors[row.tensor].spec.part.value == part]
    ratios = [row.error / row.nearest_error for row in mine if row.nearest_error > 0]
    return {
        "calibrated": sum(row.kept == "calibrated" for row in mine),
        "kept_nearest": sum(row.kept == "nearest" for row in mine),
        "median_error_of_nearest": round(median(ratios), 4) if ratios else None,
    }
