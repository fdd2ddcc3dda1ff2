"""Compares the scores of two models on the same questions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.answer_scores import (
    BINARY,
    MMBENCH,
    Grades,
    pictures_of,
    score_groups,
    score_items,
)
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.intervals import (
    DRAWS,
    MARGIN,
    Clusters,
    Z,
    mcnemar,
    percentiles,
    questions_needed,
    sign_flip,
    tango,
)
from cogvlm2_lite.evaluate.items import Data, Item
from cogvlm2_lite.text import Text

LESS_LOST = Text("less than 1 point lost")
LOSS_SHOWN = Text("a loss is shown")
NOT_GRADED = Text("not graded")

_TANGO = ("ocrbench", "mmmu", "mmbench", "mmbench_cn")
"""Benchmarks in which an answer is right or wrong, and hardly a picture has two questions."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two models, A and B, compared on the questions that both answered.

    questions      number of questions; MMBench: groups of rotations
    both, only_a, only_b, neither
                   questions by who is right; 0 for metrics with scores between 0 and 1
    binary         whether scores are right or wrong
    mean_a, mean_b points
    loss           mean_a - mean_b, points
    low, high      95 % interval of the loss, points
    p              probability of such a difference, or a larger one, without a loss
    changed        share of the answers whose text changed, 0 to 1
    up, down       questions whose score is higher, or lower, with B
    standard_error clustered by picture, points; None with one picture
    verdict        "less than 1 point lost", "a loss is shown" or "not decided with N questions";
                   "not graded" without grades of MM-Vet, and the other numbers are then 0
    needed         questions of such a set that would decide; None where these do
    differences    for each picture the sum of A - B, 0 to 1 each, and its number of questions
    """

    questions: int
    pictures: int
    both: int
    only_a: int
    only_b: int
    neither: int
    mean_a: float
    mean_b: float
    loss: float
    low: float
    high: float
    p: float
    changed: float
    verdict: str
    needed: int | None
    benchmark: str = ""
    binary: bool = True
    up: int = 0
    down: int = 0
    standard_error: float | None = None
    differences: tuple[tuple[float, int], ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values, without the differences by picture."""
        return {name: value for name, value in vars(self).items() if name != "differences"}


@dataclass(frozen=True, kw_only=True)
class Overall:
    """The mean of the losses of several benchmarks, with its 95 % interval, in points."""

    benchmarks: int
    loss: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """The scores of both models, 0 to 1, and the picture of each question."""

    a: Sequence[float]
    b: Sequence[float]
    pictures: Sequence[str]


def compare_runs(
    data: Data,
    items: Sequence[Item],
    answers_a: Mapping[str, Answered],
    answers_b: Mapping[str, Answered],
    grades_a: Grades | None = None,
    grades_b: Grades | None = None,
) -> Paired:
    """Return how much model B lost against model A on the items that both answered.

    grades_a, grades_b  of MM-Vet. Grades belong to one model's answers: if both are the same, they
                        count only where the answers are the same, too

    Items that one of them could not answer are left out. Raises UsageError if there is no common
    answer, or if the models were asked with different words or pictures.
    """
    common = [item for item in items if _answered(item, answers_a) and _answered(item, answers_b)]
    if not common:
        raise UsageError(
            "The two runs have no question of {data} in common that both answered.",
            hint="Use the same limit and the same seed for both.",
            data=data.name,
        )
    for item in common:
        _check_same_question(item, answers_a[item.id], answers_b[item.id])
    changed = sum(answers_a[i.id].answer != answers_b[i.id].answer for i in common) / len(common)
    if changed and grades_a == grades_b:
        grades_a = grades_b = None
    pairs = _pairs(data, common, (answers_a, answers_b), (grades_a, grades_b))
    if not pairs.a:
        return _undecidable(data.benchmark, changed)
    return _compared(data.benchmark, pairs, changed, binary=data.benchmark in BINARY)


def compare_scores(
    a: Sequence[float], b: Sequence[float], pictures: Sequence[str], *, binary: bool
) -> Paired:
    """Return how much B lost against A. The scores are 0 to 1; binary: right or wrong."""
    return _compared("", _Pairs(a=a, b=b, pictures=pictures), 0.0, binary=binary)


def overall(compared: Sequence[Paired]) -> Overall | None:
    """Return the mean of the losses, with a bootstrap inside of each benchmark.

    None with fewer than two benchmarks that have scores.
    """
    graded = [one for one in compared if one.differences]
    if len(graded) < 2:
        return None
    drawn = np.zeros(DRAWS)
    for number, one in enumerate(graded):
        if one.up or one.down:
            sums, counts = np.array(one.differences).T
            drawn += 100 * Clusters(sums=sums, counts=counts).resampled(seed=number)
        else:
            # Without a difference the bootstrap has no width, so the interval's own is taken.
            spread = (one.high - one.low) / 2 / Z
            drawn += spread * np.random.default_rng(number).standard_normal(DRAWS)
    low, high = percentiles(drawn / len(graded))
    loss = sum(one.loss for one in graded) / len(graded)
    return Overall(benchmarks=len(graded), loss=loss, low=low, high=high)


def verdict(loss: float, low: float, high: float, questions: int) -> Text:
    """Return what an interval of the loss says, with a margin of 1 point. All in points."""
    if high < 100 * MARGIN:
        return LESS_LOST
    if low > 0:
        return LOSS_SHOWN
    return Text("not decided with {questions} questions", questions=questions)


def _answered(item: Item, answers: Mapping[str, Answered]) -> bool:
    return item.id in answers and not answers[item.id].error


def _check_same_question(item: Item, a: Answered, b: Answered) -> None:
    if (a.query, a.template) == (b.query, b.template) and a.picture == b.picture:
        return
    raise UsageError(
        "The two runs can't be compared: the question {id!r} was asked with different words or "
        "another picture.",
        hint="Use the same data and the same protocol for both.",
        id=item.id[:100],
    )


def _pairs(
    data: Data,
    common: Sequence[Item],
    answers: tuple[Mapping[str, Answered], Mapping[str, Answered]],
    grades: tuple[Grades | None, Grades | None],
) -> _Pairs:
    """Return the scores of what both models have a score of."""
    pictures = pictures_of(common, answers[0])
    found = []
    for given, graded in zip(answers, grades, strict=True):
        here = {item.id: given[item.id] for item in common}
        by_id = {id: one.score for id, one in score_items(data, common, here, graded).items()}
        found.append(score_groups(data, here, by_id)[0] if data.benchmark in MMBENCH else by_id)
    if data.benchmark in MMBENCH:
        pictures = {item.group: pictures[item.id] for item in reversed(common)}
    both = [key for key in found[0] if key in found[1]]
    return _Pairs(
        a=[found[0][key] for key in both],
        b=[found[1][key] for key in both],
        pictures=[pictures[key] for key in both],
    )


def _undecidable(benchmark: str, changed: float) -> Paired:
    """Return a comparison of answers without scores: only their texts can be compared."""
    return Paired(
        benchmark=benchmark, binary=benchmark in BINARY, questions=0, pictures=0, both=0, only_a=0,
        only_b=0, neither=0, mean_a=0.0, mean_b=0.0, loss=0.0, low=0.0, high=0.0, p=1.0,
        changed=changed, verdict=NOT_GRADED, needed=None,
    )  # fmt: skip


def _compared(benchmark: str, pairs: _Pairs, changed: float, *, binary: bool) -> Paired:
    # 1. Who is right, and where the scores differ.
    questions = len(pairs.a)
    losses = [a - b for a, b in zip(pairs.a, pairs.b, strict=True)]
    down, up = (sum(sign * loss > _SAME for loss in losses) for sign in (1, -1))
    both = sum(min(a, b) >= 1 for a, b in zip(pairs.a, pairs.b, strict=True)) if binary else 0
    # 2. The interval and the test: by question where an answer is right or wrong and a picture has
    #    one question, by picture elsewhere.
    clusters = Clusters.of(pairs.pictures, losses)
    single = benchmark in _TANGO or (binary and len(clusters.sums) == questions)
    loss = sum(losses) / questions
    if single:
        (low, high), p = tango(questions, down, up), mcnemar(down, up)[1]
    else:
        p = sign_flip(clusters.sums)
        # The bootstrap has no width where nothing differs; Tango's interval has.
        low, high = percentiles(clusters.resampled()) if up or down else tango(questions, 0, 0)
    # 3. The verdict.
    low, high = 100 * low, 100 * high
    said = verdict(100 * loss, low, high, questions)
    decided = said in (LESS_LOST, LOSS_SHOWN)
    error = clusters.standard_error
    return Paired(
        benchmark=benchmark,
        binary=binary,
        questions=questions,
        pictures=len(clusters.sums),
        both=both,
        only_a=down if binary else 0,
        only_b=up if binary else 0,
        neither=questions - both - up - down if binary else 0,
        mean_a=100 * sum(pairs.a) / questions,
        mean_b=100 * sum(pairs.b) / questions,
        loss=100 * loss,
        low=low,
        high=high,
        p=p,
        changed=changed,
        verdict=said,
        needed=None if decided else _needed(losses, None if single else clusters, low, high),
        up=up,
        down=down,
        standard_error=None if error is None else 100 * error,
        differences=tuple(
            (float(total), int(count))
            for total, count in zip(clusters.sums, clusters.counts, strict=True)
        ),
    )


_SAME = 1e-9
"""Scores that differ by less are equal; they are sums in another order."""


def _needed(losses: Sequence[float], clusters: Clusters | None, low: float, high: float) -> int:
    """Return how many questions of such a set would decide, more than there are.

    clusters   None where a picture has one question
    low, high  the interval of the loss, in points

    The questions that show a loss of a point at this share of changes; where there are as many
    already, those that make this interval narrow enough, should the loss stay what it is.
    """
    questions, loss = len(losses), sum(losses) / len(losses)
    square = sum(one**2 for one in losses) / questions
    shown = questions_needed(max(square, MARGIN))
    if clusters is not None and clusters.standard_error and square > loss**2:
        # Questions about one picture tell less than questions about several.
        effect = clusters.standard_error**2 * questions / (square - loss**2)
        shown = math.ceil(shown * max(effect, 1.0))
    if shown > questions:
        return shown
    distance = max(100 * MARGIN - 100 * loss, 100 * loss)
    wide = max(high - 100 * loss, 100 * loss - low)
    return max(math.ceil(questions * (wide / distance) ** 2), questions + 1)
