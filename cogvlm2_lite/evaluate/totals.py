"""Computes the score of a benchmark from its answers: the headline, its parts and its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from cogvlm2_lite.evaluate.answer_scores import (
    BINARY,
    HEADLINES,
    MMBENCH,
    Grades,
    ItemScore,
    is_choice,
    pictures_of,
    score_groups,
    score_items,
)
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.intervals import Clusters, percentiles, wilson
from cogvlm2_lite.evaluate.items import Data, Item
from cogvlm2_lite.evaluate.rules import mmbench, mmmu, mmvet, ocrbench
from cogvlm2_lite.evaluate.subsets import countable
from cogvlm2_lite.events import FinishReason

__all__ = ("Grades", "ItemScore", "Part", "Score", "score_answers")


@dataclass(frozen=True, kw_only=True)
class Part:
    """The score of a part of the questions.

    value  points, 0 to 100
    asked  questions (MMBench: groups of rotations) that count
    kind   "category", "group", "split", "discipline", "subject", "capability", ...
    hits   questions that are right; None where scores lie between 0 and 1
    """

    name: str
    value: float
    asked: int
    kind: str
    hits: int | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of a benchmark.

    rules     the rule set of the headline
    value     points, 0 to 100; None: nothing is graded. For OCRBench the estimate of the whole set
    low, high the 95 % interval, in points
    unit      "points"; "hits" for OCRBench
    asked     questions with an answer (MMBench: rows), those with an error included
    of        questions in the data; of MMMU, without those of the split "dev"
    beside    points by other rule sets and bounds, by name
    counts    "errors", "token_limit", "empty", "no_letter", "not_graded", "groups" (of rotations,
              that count), "incomplete_groups", and for each rule that decided "rule_letter", ...
    items     by id; without the questions that were not asked
    groups    MMBench: 1 or 0 for each group that counts
    hits      right answers (MMBench: groups); None where scores lie between 0 and 1
    estimate  OCRBench: hits to expect of the whole set, which has 1000 questions, with its interval
    errors    ids of the items whose answer failed; they count as wrong
    judge     MM-Vet: who graded
    std       MM-Vet: deviation of the totals of the runs, in points
    """

    benchmark: str
    rules: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    asked: int
    of: int
    parts: tuple[Part, ...]
    beside: Mapping[str, float]
    counts: Mapping[str, int]
    items: Mapping[str, ItemScore]
    groups: Mapping[str, float] = field(default_factory=dict)
    hits: int | None = None
    estimate: tuple[float, float, float] | None = None
    errors: tuple[str, ...] = ()
    judge: str | None = None
    std: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """What counts once: a question, or a group of rotations with its first row as `item`."""

    item: Item
    score: float
    picture: str


def score_answers(
    data: Data,
    items: Sequence[Item],
    answers: Mapping[str, Answered],
    grades: Grades | None = None,
) -> Score:
    """Return the score of the answers to `items`, which may be a part of the data.

    Questions without an answer are not counted. An answer with an error is wrong, and is listed.
    The model is not needed, and equal answers always give an equal score. Raises UsageError for
    answers or grades that belong to other data.
    """
    # 1. Every answer by every rule set.
    scored = score_items(data, items, answers, grades)
    asked = [item for item in items if item.id in answers]
    # 2. What counts once, with its score.
    units, groups, incomplete = _units(data, asked, answers, scored)
    # 3. The mean, its interval and the parts.
    binary, values = data.benchmark in BINARY, [unit.score for unit in units]
    low, high = _interval(units) if units else (None, None)
    score = Score(
        benchmark=data.benchmark,
        rules=HEADLINES[data.benchmark],
        value=100 * sum(values) / len(values) if values else None,
        low=low,
        high=high,
        unit="points",
        asked=len(asked),
        of=len(countable(data)),
        parts=tuple(_parts(data.benchmark, units)),
        beside=_beside(data, asked, answers, scored),
        counts=_counts(asked, answers, scored),
        items=scored,
        groups=groups,
        hits=round(sum(values)) if binary else None,
        errors=tuple(item.id for item in asked if answers[item.id].error),
    )
    # 4. What only some benchmarks have.
    if data.benchmark in MMBENCH:
        counts = {"groups": len(groups), "incomplete_groups": incomplete}
        return replace(score, counts={**score.counts, **counts})
    if data.benchmark == "ocrbench":
        return _with_estimate(score, data, units)
    if data.benchmark == "mmvet":
        return _with_judge(score, asked, answers, grades)
    return score


def _units(
    data: Data,
    asked: Sequence[Item],
    answers: Mapping[str, Answered],
    scored: Mapping[str, ItemScore],
) -> tuple[list[_Unit], dict[str, float], int]:
    """Return what counts once, the groups of rotations, and how many groups are incomplete."""
    pictures = pictures_of(asked, answers)
    if data.benchmark not in MMBENCH:
        known = [item for item in asked if item.id in scored]
        return (
            [_Unit(item=i, score=scored[i.id].score, picture=pictures[i.id]) for i in known],
            {},
            0,
        )
    by_id = {id: one.score for id, one in scored.items()}
    groups, incomplete = score_groups(data, answers, by_id)
    firsts = _first_rows(asked)
    units = [
        _Unit(item=firsts[group], score=right, picture=pictures[firsts[group].id])
        for group, right in groups.items()
    ]
    return units, groups, incomplete


def _first_rows(items: Sequence[Item]) -> dict[str, Item]:
    """Return a row of each group, which is the first pass if it is there."""
    found: dict[str, Item] = {}
    for item in items:
        if item.id == item.group or item.group not in found:
            found[item.group] = item
    return found


def _interval(units: Sequence[_Unit]) -> tuple[float, float]:
    """Return the 95 % interval of the mean in points: by bootstrap over pictures.

    Where all scores are equal the bootstrap has no width; then Wilson's interval, as if a picture
    had one question.
    """
    clusters = Clusters.of([unit.picture for unit in units], [unit.score for unit in units])
    if len({unit.score for unit in units}) == 1:
        low, high = wilson(clusters.mean, len(clusters.sums))
    else:
        low, high = percentiles(clusters.resampled())
    return 100 * low, 100 * high


# --- parts ----------------------------------------------------------------------------------------


Namer = Callable[[Item], Sequence[str]]
"""A function that returns the parts of one kind that an item belongs to."""


def _parts(benchmark: str, units: Sequence[_Unit]) -> Iterator[Part]:
    for kind, (names_of, order) in _KINDS[benchmark].items():
        found: dict[str, list[float]] = {}
        for unit in units:
            for name in names_of(unit.item):
                found.setdefault(name, []).append(unit.score)
        known = [name for name in order if name in found]
        for name in [*known, *sorted(found.keys() - set(known))]:
            yield Part(
                name=name,
                value=100 * sum(found[name]) / len(found[name]),
                asked=len(found[name]),
                kind=kind,
                hits=round(sum(found[name])) if benchmark in BINARY else None,
            )


def _label(name: str) -> Namer:
    """Return the namer of a label, which may have several names with commas between them."""
    return lambda item: [one.strip() for one in item.labels.get(name, "").split(",") if one.strip()]


def _whole(name: str) -> Namer:
    """Return the namer of a label with one name."""
    return lambda item: [item.labels[name]] if item.labels.get(name) else []


def _ocr_group(item: Item) -> list[str]:
    category = item.labels.get("category", "")
    return [ocrbench.GROUPS.get(category, category)] if category else []


def _pictures(item: Item) -> list[str]:
    return ["several pictures" if len(item.pictures) > 1 else "one picture"]


def _question_type(item: Item) -> list[str]:
    return [mmmu.CHOICE if is_choice(item) else "open"]


def _capabilities(item: Item) -> list[str]:
    return ["_".join(sorted(_label("capability")(item)))]


def _short_l2(item: Item) -> list[str]:
    name = item.labels.get("l2-category", "")
    return [mmbench.SHORT_NAMES.get(name, name)] if name else []


Order = tuple[str, ...]
_SUBJECTS = tuple(name for names in mmmu.DISCIPLINES.values() for name in names)
_MMBENCH_KINDS: Mapping[str, tuple[Namer, Order]] = {
    "l2-category": (_short_l2, tuple(mmbench.SHORT_NAMES.values())),
    "category": (_whole("category"), ()),
}
_KINDS: Mapping[str, Mapping[str, tuple[Namer, Order]]] = {
    "textvqa": {},
    "docvqa": {"question type": (_label("question_types"), ())},
    "chartqa": {"split": (_whole("split"), ("test_human", "test_augmented"))},
    "ocrbench": {
        "group": (_ocr_group, tuple(dict.fromkeys(ocrbench.GROUPS.values()))),
        "category": (_whole("category"), tuple(ocrbench.GROUPS)),
    },
    "mmmu": {
        "discipline": (_whole("discipline"), tuple(mmmu.DISCIPLINES)),
        "subject": (_whole("subject"), _SUBJECTS),
        "question type": (_question_type, (mmmu.CHOICE, "open")),
        "number of pictures": (_pictures, ("one picture", "several pictures")),
    },
    "mmvet": {
        "capability": (_label("capability"), mmvet.CAPABILITIES),
        "capabilities": (_capabilities, ()),
    },
    "mmbench": _MMBENCH_KINDS,
    "mmbench_cn": _MMBENCH_KINDS,
    "vqa": {"category": (_whole("category"), ())},
}
"""The kinds of parts of each benchmark, with the order of their names."""


# --- other rules and counts -----------------------------------------------------------------------


def _beside(
    data: Data,
    asked: Sequence[Item],
    answers: Mapping[str, Answered],
    scored: Mapping[str, ItemScore],
) -> dict[str, float]:
    """Return points by other rule sets, and the bounds of MMBench."""
    found: dict[str, list[float]] = {}
    for one in scored.values():
        for name, score in one.by_rules.items():
            if name != HEADLINES[data.benchmark] and score is not None:
                found.setdefault(name, []).append(score)
    if data.benchmark not in MMBENCH:
        return {name: 100 * sum(scores) / len(scores) for name, scores in found.items()}
    named = {
        "lower_bound": {id: one.score for id, one in scored.items()},
        "upper_bound": {
            id: max(one.score, float(_is_unread(one, answers[id]))) for id, one in scored.items()
        },
        **{name: {id: one.by_rules[name] or 0.0 for id, one in scored.items()} for name in found},
    }
    circular = {name: score_groups(data, answers, by_id)[0] for name, by_id in named.items()}
    points = {name: 100 * sum(one.values()) / len(one) for name, one in circular.items() if one}
    first = [scored[item.id].score for item in asked if item.id == item.group]
    return {**points, **({"vanilla": 100 * sum(first) / len(first)} if first else {})}


def _is_unread(one: ItemScore, answered: Answered) -> bool:
    """Return whether a judge would be asked about an answer."""
    return one.read is None and not answered.error


def _counts(
    asked: Sequence[Item], answers: Mapping[str, Answered], scored: Mapping[str, ItemScore]
) -> dict[str, int]:
    given = [answers[item.id] for item in asked]
    rules = Counter(one.rule for one in scored.values() if one.rule is not None)
    return {
        "errors": sum(bool(one.error) for one in given),
        "token_limit": sum(one.reason == FinishReason.LENGTH.value for one in given),
        "empty": sum(not one.error and not one.answer for one in given),
        "no_letter": rules["none"],
        **{f"rule_{name}": rules[name] for name in sorted(rules)},
    }


# --- single benchmarks ----------------------------------------------------------------------------


def _with_estimate(score: Score, data: Data, units: Sequence[_Unit]) -> Score:
    """Return the score of OCRBench with the hits to expect of all questions.

    The share of each category counts with the category's size in the whole set. Without a question
    of some category there is no estimate, and the value is the share of the questions asked.
    """
    sizes = Counter(item.labels.get("category", "") for item in data.items)
    by_category: dict[str, list[_Unit]] = {}
    for unit in units:
        by_category.setdefault(unit.item.labels.get("category", ""), []).append(unit)
    if not units or by_category.keys() != sizes.keys():
        return replace(score, unit="hits")
    whole = sum(sizes.values())
    value = sum(
        sizes[name] * sum(unit.score for unit in found) / len(found)
        for name, found in by_category.items()
    )
    # A subset has few questions of a category, often all right, so each one's own bootstrap would
    # have no width. A proportional sample is at least as sure as a random one, whose interval this
    # is.
    low, high = wilson(value / whole, len({unit.picture for unit in units}))
    return replace(
        score,
        unit="hits",
        estimate=(value, whole * low, whole * high),
        value=100 * value / whole,
        low=100 * low,
        high=100 * high,
    )


def _with_judge(
    score: Score,
    asked: Sequence[Item],
    answers: Mapping[str, Answered],
    grades: Grades | None,
) -> Score:
    """Return the score of MM-Vet with what is known of the judge."""
    missing = sum(item.id not in score.items for item in asked)
    counted = replace(score, counts={**score.counts, "not_graded": missing})
    if grades is None or not score.items:
        return counted
    return replace(counted, judge=grades.judge, std=_deviation(asked, answers, grades))


def _deviation(
    asked: Sequence[Item], answers: Mapping[str, Answered], grades: Grades
) -> float | None:
    """Return the deviation of the totals of the runs, in points; None if runs are incomplete."""
    found = [
        [0.0] * len(one) if answers[item.id].error else list(one)
        for item in asked
        if (one := grades.of(item)) is not None
    ]
    if len({len(one) for one in found}) != 1:
        return None
    return float(100 * np.array(found).mean(0).std())
