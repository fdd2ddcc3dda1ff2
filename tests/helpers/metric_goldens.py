"""What the reference programs of the benchmarks returned, case by case.

tests/golden/evaluate/metrics.json.xz has, by metric, how the cases were made and the cases: `input`
is what `score` takes, `expected` the result by rule set. `{"raises": ...}`: the program failed.
`{"nan": true}`: not a number.
"""

from __future__ import annotations

import json
import lzma
import math
from functools import cache
from typing import Any

from tests.helpers.goldens import GOLDEN

RAISES = "raises"
NAN = {"nan": True}
Case = dict[str, Any]


@cache
def metrics() -> dict[str, Any]:
    """Return everything in the file, by metric."""
    packed = (GOLDEN / "evaluate" / "metrics.json.xz").read_bytes()
    found: dict[str, Any] = json.loads(lzma.decompress(packed))
    return found


def cases(metric: str) -> list[Case]:
    """Return the cases of a metric."""
    found: list[Case] = metrics()[metric]["cases"]
    return found


def expected_results(metric: str, case: Case) -> dict[str, Any]:
    """Return the expected results of a case by rule set. Comparisons have only our own rules."""
    found: dict[str, Any] = case["expected"]
    return {"own": found} if metric.startswith("paired_") else found


def is_same(found: object, expected: object, tolerance: float = 1e-12) -> bool:
    """Return whether a result is the expected one: numbers within the tolerance, others equal."""
    if expected == NAN:
        return isinstance(found, float) and math.isnan(found)
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(is_same(found[name], expected[name], tolerance) for name in expected)
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(is_same(a, b, tolerance) for a, b in zip(found, expected, strict=True))
        )
    if isinstance(expected, bool | str) or expected is None:
        return type(found) is type(expected) and found == expected
    return (
        isinstance(found, int | float)
        and not isinstance(found, bool)
        and isinstance(expected, int | float)
        and abs(found - expected) <= tolerance
    )
