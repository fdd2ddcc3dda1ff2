"""Computes the score of a benchmark from its answers: the headline, its parts and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """The score of one answer.

    score     by the headline rules, 0 to 1
    read      what was read from the answer, such as a letter; None: nothing, or not applicable
    rule      the rule that decided: "letter", "phrase", "text", "refusal" or "none"; None: no such
              rule
    by_rules  score by the name of a rule set; None: the rules give none
    """

    score: float
    read: str | None = None
    rule: str | None = None
    by_rules: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The score of a part of the questions.

    value  points, 0 to 100
    asked  questions (MMBench: groups of rotations) that count
    kind   "category", "group", "split", "discipline", "subject", "capability", "type", ...
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
    value     points, 0 to 100; None: not graded. For OCRBench the estimate of the whole set
    low, high the 95 % interval, in points
    unit      "points"; "hits" for OCRBench
    asked     questions with an answer (MMBench: rows), those with an error included
    of        questions in the data
    beside    points by other rule sets and bounds, by name
    counts    "errors", "token_limit", "empty", "no_letter", "incomplete_groups", and for each rule
              that decided "rule_letter", ...
    items     by id; without the questions that were not asked
    hits      right answers; None where scores lie between 0 and 1
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
    hits: int | None = None
    estimate: tuple[float, float, float] | None = None
    errors: tuple[str, ...] = ()
    judge: str | None = None
    std: float | None = None


@dataclass(frozen=True, kw_only=True)
class Grades:
    """The grades that a judge gave to answers of MM-Vet.

    judge   its name, such as "gpt-4-0613"
    scores  by id: 0 to 1 for each run
    """

    judge: str
    scores: Mapping[str, tuple[float, ...]]
