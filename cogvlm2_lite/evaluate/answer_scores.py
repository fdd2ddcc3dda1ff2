"""Scores single answers of a benchmark by every rule set; totals.py and paired.py add them up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.items import Data, Item, picture_key
from cogvlm2_lite.evaluate.rules import (
    OFFICIAL,
    VLMEVALKIT,
    VLMEVALKIT_2024,
    anls,
    chartqa,
    mmbench,
    mmmu,
    ocrbench,
    vqa,
)

OFFICIAL_EXPECTED = "official_expected"
"""MMMU's official rules, in expectation: they draw a random letter for an answer without one."""
EQUAL = "equal"
"""For a person's own questions: equal to a reference after the normalization of TextVQA."""
JUDGE = "judge"

MMBENCH = ("mmbench", "mmbench_cn")
HEADLINES: Mapping[str, str] = {
    "textvqa": OFFICIAL,
    "docvqa": OFFICIAL,
    "chartqa": VLMEVALKIT,
    "ocrbench": OFFICIAL,
    "mmmu": OFFICIAL,
    "mmvet": JUDGE,
    "mmbench": VLMEVALKIT,
    "mmbench_cn": VLMEVALKIT,
    "vqa": EQUAL,
}
"""The rule set of the headline, by benchmark."""
BINARY = ("chartqa", "ocrbench", "mmmu", "mmbench", "mmbench_cn", "vqa")
"""Benchmarks in which an answer is right or wrong."""


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
class Grades:
    """The grades that a judge gave to answers of MM-Vet.

    judge   its name, such as "gpt-4-0613"
    scores  by id: 0 to 1 for each run
    """

    judge: str
    scores: Mapping[str, tuple[float, ...]]

    def of(self, item: Item) -> tuple[float, ...] | None:
        """Return the grades of an item, by its id in the official files or in the data."""
        return self.scores.get(str(item.fields.get("question_id", item.id))) or self.scores.get(
            item.id
        )


def score_items(
    data: Data, items: Sequence[Item], answers: Mapping[str, Answered], grades: Grades | None
) -> dict[str, ItemScore]:
    """Return the score of every item with an answer, by id; MM-Vet: of every graded answer.

    grades  of MM-Vet; other benchmarks need none

    An answer with an error is wrong. Raises UsageError for answers and grades of other data.
    """
    _check_ids(data, answers, grades)
    rule, found = _RULES[data.benchmark], {}
    for item in items:
        answered = answers.get(item.id)
        if answered is None:
            continue
        if data.benchmark == "mmvet":
            graded = _graded(item, answered, grades)
            if graded is not None:
                found[item.id] = graded
        elif answered.error:
            found[item.id] = _failed(item, rule)
        else:
            found[item.id] = rule(item, answered.answer)
    return found


def score_groups(
    data: Data, answers: Mapping[str, Answered], by_id: Mapping[str, float]
) -> tuple[dict[str, float], int]:
    """Return whether each group of rotations is right, and the number of incomplete groups.

    A group counts when the data has a row of it for each option and all of them were answered. It
    is right when every row is.
    """
    rows: dict[str, list[Item]] = {}
    for item in data.items:
        rows.setdefault(item.group, []).append(item)
    found, incomplete = {}, 0
    for group, members in rows.items():
        asked = [item for item in members if item.id in answers and item.id in by_id]
        if not asked:
            continue
        if len(asked) < max(len(members), len(members[0].shown_options)):
            incomplete += 1
        else:
            found[group] = min(by_id[item.id] for item in asked)
    return found, incomplete


def pictures_of(items: Sequence[Item], answers: Mapping[str, Answered]) -> dict[str, str]:
    """Return a text for each item that is equal for items about one picture, by id.

    The hash of the picture that was asked about; an answer that failed may not have one.
    """
    hashes = {
        picture_key(item): answers[item.id].picture
        for item in items
        if item.id in answers and answers[item.id].picture
    }
    found = {}
    for item in items:
        hashed = answers[item.id].picture if item.id in answers else ""
        key = picture_key(item)
        found[item.id] = hashed or hashes.get(key, key) or f"no picture: {item.id}"
    return found


def _check_ids(data: Data, answers: Mapping[str, Answered], grades: Grades | None) -> None:
    known = {item.id for item in data.items}
    if unknown := [id for id in answers if id not in known]:
        raise UsageError(
            "There is an answer to the question {id!r}, but {data} has no such question.",
            hint="Take the data that the questions came from.",
            id=unknown[0][:100],
            data=data.name,
        )
    if grades is None or data.benchmark != "mmvet":
        return
    known |= {str(item.fields.get("question_id", item.id)) for item in data.items}
    if unknown := [id for id in grades.scores if id not in known]:
        raise UsageError(
            "There is a grade of the question {id!r}, but {data} has no such question.",
            hint="Take the grades of answers to these questions.",
            id=unknown[0][:100],
            data=data.name,
        )


def _failed(item: Item, rule: Callable[[Item, str], ItemScore]) -> ItemScore:
    """Return the score of an answer that failed, which is wrong by all rules."""
    return ItemScore(score=0.0, by_rules=dict.fromkeys(rule(item, "").by_rules, 0.0))


def _graded(item: Item, answered: Answered, grades: Grades | None) -> ItemScore | None:
    found = None if grades is None else grades.of(item)
    if found is None:
        return None
    score = 0.0 if answered.error else float(np.mean(found))
    return ItemScore(score=score, by_rules={JUDGE: score})


def _item_score(by_rules: Mapping[str, float], headline: str) -> ItemScore:
    return ItemScore(score=by_rules[headline], by_rules=by_rules)


def _textvqa(item: Item, answer: str) -> ItemScore:
    editions = {
        OFFICIAL: vqa.Edition.OFFICIAL,
        VLMEVALKIT: vqa.Edition.VLMEVALKIT,
        VLMEVALKIT_2024: vqa.Edition.VLMEVALKIT_2024,
    }
    found = {name: vqa.accuracy(answer, item.answers, one) for name, one in editions.items()}
    return _item_score(found, OFFICIAL)


def _docvqa(item: Item, answer: str) -> ItemScore:
    return _item_score({OFFICIAL: anls.similarity(answer, list(item.answers))}, OFFICIAL)


def _chartqa(item: Item, answer: str) -> ItemScore:
    stripped = answer.strip()
    found = {
        VLMEVALKIT: _right(chartqa.is_right(stripped, one) for one in item.answers),
        OFFICIAL: _right(chartqa.is_right(answer, one) for one in item.answers),
        VLMEVALKIT_2024: _right(chartqa.is_right(one, stripped) for one in item.answers),
    }
    return _item_score(found, VLMEVALKIT)


def _ocrbench(item: Item, answer: str) -> ItemScore:
    hit = ocrbench.is_hit(answer, item.answers, item.labels.get("category", ""))
    return _item_score({OFFICIAL: float(hit)}, OFFICIAL)


def _vqa(item: Item, answer: str) -> ItemScore:
    return _item_score({EQUAL: float(vqa.matches(answer, item.answers))}, EQUAL)


def _mmmu(item: Item, answer: str) -> ItemScore:
    return _mmmu_choice(item, answer) if is_choice(item) else _mmmu_open(item, answer)


def is_choice(item: Item) -> bool:
    """Return whether a question of MMMU has options."""
    return bool(item.options)


def _mmmu_choice(item: Item, answer: str) -> ItemScore:
    letter = mmmu.choose(answer, item.options)
    right = float(letter in item.answers)
    newer = mmbench.choose(answer, item.shown_options).letter
    older = mmbench.choose_2024(answer, item.shown_options).letter
    by_rules = {
        OFFICIAL: right,
        OFFICIAL_EXPECTED: right if letter else 1 / len(item.options),
        VLMEVALKIT: float(newer in item.answers),
        VLMEVALKIT_2024: float(older in item.answers),
    }
    rule = "letter" if letter else "none"
    return ItemScore(score=right, read=letter, rule=rule, by_rules=by_rules)


def _mmmu_open(item: Item, answer: str) -> ItemScore:
    references: object = item.answers[0] if len(item.answers) == 1 else list(item.answers)
    right = float(mmmu.is_right(answer, references))
    by_rules = {
        OFFICIAL: right,
        OFFICIAL_EXPECTED: right,
        VLMEVALKIT: float(mmmu.vlmevalkit_open(response=answer, answer=references)),
        VLMEVALKIT_2024: float(mmmu.vlmevalkit_2024_open(response=answer, answer=references)),
    }
    return ItemScore(score=right, by_rules=by_rules)


def _mmbench(item: Item, answer: str) -> ItemScore:
    choice = mmbench.choose(answer, item.shown_options)
    older = mmbench.choose_2024(answer, item.shown_options)
    by_rules = {
        VLMEVALKIT: float(choice.letter in item.answers),
        VLMEVALKIT_2024: float(older.letter in item.answers),
    }
    return ItemScore(
        score=by_rules[VLMEVALKIT], read=choice.letter, rule=choice.rule, by_rules=by_rules
    )


def _judged(item: Item, answer: str) -> ItemScore:
    raise AssertionError("MM-Vet has no rules without a judge")


def _right(found: Iterable[bool]) -> float:
    return float(any(found))


_RULES: Mapping[str, Callable[[Item, str], ItemScore]] = {
    "textvqa": _textvqa,
    "docvqa": _docvqa,
    "chartqa": _chartqa,
    "ocrbench": _ocrbench,
    "mmmu": _mmmu,
    "mmvet": _judged,
    "mmbench": _mmbench,
    "mmbench_cn": _mmbench,
    "vqa": _vqa,
}
