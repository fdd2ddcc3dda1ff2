"""The public interface to the rules of the benchmarks.

    score("anls", "official", prediction="1,200", answers=["$1,200"])

| metric | rules | keywords | returns |
| --- | --- | --- | --- |
| vqa_accuracy | official, vlmevalkit, vlmevalkit_2024 | prediction, answers | 0 to 1 |
| anls | the same | prediction, answers | 0 to 1 |
| chartqa_relaxed | the same | prediction, answer: a text, the text of a list, or a list | right? |
| ocrbench_hit | official, vlmevalkit | prediction or prediction_missing, answers, category | 1, 0 |
| ocrbench_total | vlmevalkit | rows of category, answers, prediction | hits by part |
| mmmu_choice | official, vlmevalkit, vlmevalkit_2024 | response, options | {"letter": ...} |
| mmmu_open | the same | response, answer: a text or a list | right? |
| mmmu_total | official | answers, predictions: both by id | number and accuracy by part |
| mmbench_match | vlmevalkit, vlmevalkit_2024 | prediction, options by letter | {"letter": ...} |
| mmbench_circular | vlmevalkit | rows, answers: pairs of index and letter | hits, accuracy |
| mmvet_total | official, vlmevalkit | items with scores, or judge_text | totals, or the grade |
| paired_binary | own | questions, only_a_right, only_b_right | loss, interval, p |
| paired_cluster | own | rows of picture, score of A, score of B | change, its error, p |

Results have the form that the reference program gives them. evaluate/rules has the rule sets.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from cogvlm2_lite.evaluate import intervals
from cogvlm2_lite.evaluate.rules import (
    OFFICIAL,
    VLMEVALKIT,
    VLMEVALKIT_2024,
    anls,
    chartqa,
    mmbench,
    mmmu,
    mmvet,
    ocrbench,
    vqa,
)

OWN = "own"
"""The rule set of comparisons of two models, which have no public reference program."""

Rule = Callable[..., Any]

METRICS: Mapping[str, Mapping[str, Rule]] = {
    "vqa_accuracy": {
        OFFICIAL: vqa.official,
        VLMEVALKIT: vqa.vlmevalkit,
        VLMEVALKIT_2024: vqa.vlmevalkit_2024,
    },
    "anls": {
        OFFICIAL: anls.official,
        VLMEVALKIT: anls.vlmevalkit,
        VLMEVALKIT_2024: anls.vlmevalkit,
    },
    "chartqa_relaxed": {
        OFFICIAL: chartqa.official,
        VLMEVALKIT: chartqa.vlmevalkit,
        VLMEVALKIT_2024: chartqa.vlmevalkit_2024,
    },
    "ocrbench_hit": {OFFICIAL: ocrbench.official, VLMEVALKIT: ocrbench.vlmevalkit},
    "ocrbench_total": {VLMEVALKIT: ocrbench.vlmevalkit_total},
    "mmmu_choice": {
        OFFICIAL: mmmu.official_choice,
        VLMEVALKIT: mmmu.vlmevalkit_choice,
        VLMEVALKIT_2024: mmmu.vlmevalkit_2024_choice,
    },
    "mmmu_open": {
        OFFICIAL: mmmu.official_open,
        VLMEVALKIT: mmmu.vlmevalkit_open,
        VLMEVALKIT_2024: mmmu.vlmevalkit_2024_open,
    },
    "mmmu_total": {OFFICIAL: mmmu.official_total},
    "mmbench_match": {VLMEVALKIT: mmbench.vlmevalkit, VLMEVALKIT_2024: mmbench.vlmevalkit_2024},
    "mmbench_circular": {VLMEVALKIT: mmbench.vlmevalkit_circular},
    "mmvet_total": {OFFICIAL: mmvet.official, VLMEVALKIT: mmvet.vlmevalkit},
    "paired_binary": {OWN: intervals.paired_binary},
    "paired_cluster": {OWN: intervals.paired_cluster},
}
"""The function of each metric and rule set."""


def score(metric: str, rules: str, **given: Any) -> Any:
    """Return what a rule set makes of an answer, in the form that its program has.

    metric  a key of METRICS
    rules   a rule set that the metric has; "-" stands for "_" in it
    given   what the metric needs, by name

    Raises ValueError for an unknown metric, rule set or keyword, and where the program fails.
    """
    found = METRICS.get(metric)
    if found is None:
        raise ValueError(f"unknown metric {metric!r}; there are {', '.join(METRICS)}")
    rule = found.get(rules.replace("-", "_"))
    if rule is None:
        raise ValueError(f"{metric} has no rules {rules!r}; it has {', '.join(found)}")
    try:
        inspect.signature(rule).bind(**given)
    except TypeError as error:
        needs = ", ".join(inspect.signature(rule).parameters)
        raise ValueError(f"{metric} needs {needs}: {error}") from None
    return rule(**given)
