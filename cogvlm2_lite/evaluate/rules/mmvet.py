"""MM-Vet: totals of the grades that a judge gave, and how its texts are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cogvlm2_lite.evaluate.rules import given

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


def official(
    *, items: Sequence[Mapping[str, Any]] | None = None, judge_text: object = None
) -> dict[str, Any] | float:
    """Return the official totals of items, or the grade in a judge's text.

    items  each with id, capability (a list) and scores (one for each run)
    Totals are in per cent with one decimal. Raises ValueError for a text without a grade, for which
    the official program asks the judge again, and for items with different numbers of runs.
    """
    return official_grade(judge_text) if items is None else _official_total(items)


def vlmevalkit(
    *, items: Sequence[Mapping[str, Any]] | None = None, judge_text: object = None
) -> dict[str, Any]:
    """Return VLMEvalKit's totals of items with one run, or what it reads from a judge's text.

    Totals are the number of questions and their mean in per cent. Raises ValueError for several
    runs, and when a capability is missing among the items, where VLMEvalKit divides by zero.
    """
    return _vlmevalkit_grade(judge_text) if items is None else _vlmevalkit_total(items)


def official_grade(judge_text: object) -> float:
    """Return the first word of a judge's text as a number from 0 to 1; nan is passed on.

    Raises ValueError for others.
    """
    grade = float(given(judge_text).split(" ")[0])
    if grade < 0 or grade > 1:
        raise ValueError(f"a grade must be from 0 to 1, not {grade}")
    return grade


def _vlmevalkit_grade(judge_text: object) -> dict[str, Any]:
    text = given(judge_text)
    try:
        grade = float(text)
    except ValueError:
        return {"score": 0.0, "accepted": False}
    refused = grade < 0 or grade > 1
    return {"score": 0.0 if refused else grade, "accepted": not refused}


def _official_total(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    runs = run_count([item["scores"] for item in items])
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    sets: dict[str, str] = {}
    for item in items:
        name = "_".join(sorted(set(item["capability"])))
        sets[f"set {name}"] = name
        for key in ("total", f"set {name}", *sorted(set(item["capability"]))):
            sums[key] = sums.get(key, np.zeros(runs)) + np.array(item["scores"], dtype=np.float64)
            counts[key] = counts.get(key, 0) + 1
    percent = {key: sums[key] / counts[key] * 100 for key in sums}
    rounded = {key: float(np.round(values.mean(), 1)) for key, values in percent.items()}
    return {
        "capabilities": {key: rounded[key] for key in CAPABILITIES if key in rounded},
        "total": rounded["total"],
        "std": float(np.round(percent["total"].std(), 1)),
        "runs": str([float(value) for value in np.round(percent["total"], 1)]),
        "integrations": {name: rounded[key] for key, name in sorted(sets.items())},
    }


def run_count(scores: Sequence[Sequence[float]]) -> int:
    """Return the number of runs of graded items, which must be equal. Raises ValueError."""
    found = {len(one) for one in scores}
    if len(found) != 1 or 0 in found:
        raise ValueError("all items must have the same number of grades, at least one")
    return found.pop()


def _vlmevalkit_total(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if run_count([item["scores"] for item in items]) != 1:
        raise ValueError("VLMEvalKit takes one grade of each item")
    sums: dict[str, float] = dict.fromkeys(CAPABILITIES, 0)
    counts: dict[str, int] = dict.fromkeys(CAPABILITIES, 0)
    sets: dict[str, None] = {}
    for item in items:
        column = "_".join(item["capability"])
        sets[column] = None
        # A question with one capability counts twice in it: VLMEvalKit has one table for
        # capabilities and for sets of them.
        for key in (*(one for one in CAPABILITIES if one in column), "Overall", column):
            sums[key] = sums.get(key, 0) + item["scores"][0]
            counts[key] = counts.get(key, 0) + 1
    if missing := [key for key in CAPABILITIES if not counts[key]]:
        raise ValueError(f"no item has the capability {missing[0]}")
    table = {key: [counts[key], sums[key] / counts[key] * 100] for key in sums}
    return {
        "overall": table["Overall"],
        "capabilities": {key: table[key] for key in CAPABILITIES},
        "integrations": {key: table[key] for key in (*sets, "Overall")},
    }
