"""TextVQA: the accuracy of an answer against the answers of ten people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from cogvlm2_lite.evaluate.rules import given, references
from cogvlm2_lite.evaluate.rules.vqa_words import ARTICLES, CONTRACTIONS, NUMBERS, PUNCTUATION

PEOPLE = 10
"""References of a question of TextVQA."""

_COMMA = re.compile(r"\d,\d")
_PERIODS_REMOVED = 32
"""At most: the evaluators pass a flag, which is 32, in the place of the count."""


class Edition(Enum):
    """The editions of the normalization."""

    OFFICIAL = "official"
    VLMEVALKIT = "vlmevalkit"
    VLMEVALKIT_2024 = "vlmevalkit_2024"

    @property
    def period(self) -> re.Pattern[str]:
        """The periods that are removed. VLMEvalKit keeps those behind a digit since 2025-05."""
        return _PERIOD_BETWEEN if self is Edition.VLMEVALKIT else _PERIOD


_PERIOD = re.compile(r"\.(?!\d)")
_PERIOD_BETWEEN = re.compile(r"(?<!\d)\.(?!\d)")


def official(*, prediction: object, answers: object) -> float:
    """Return the accuracy of TextVQA's challenge. Raises ValueError without ten references."""
    texts = references(answers)
    if len(texts) != PEOPLE:
        raise ValueError(f"the official rules need {PEOPLE} references, not {len(texts)}")
    return accuracy(given(prediction), texts, Edition.OFFICIAL)


def vlmevalkit(*, prediction: object, answers: object) -> float:
    """Return the accuracy of VLMEvalKit; nan without references."""
    return accuracy(str(prediction), references(answers), Edition.VLMEVALKIT)


def vlmevalkit_2024(*, prediction: object, answers: object) -> float:
    """Return the accuracy of VLMEvalKit in 2024; nan without references."""
    return accuracy(str(prediction), references(answers), Edition.VLMEVALKIT_2024)


def accuracy(prediction: str, answers: Sequence[str], edition: Edition) -> float:
    """Return the mean over the references of min(1, others that agree with the answer / 3).

    0 to 1; nan without references.
    """
    if not answers:
        return float("nan")
    answer = normalize(prediction, edition)
    # Many of ten people write the same.
    equal = {text: normalize(text, edition) == answer for text in set(answers)}
    same = [equal[text] for text in answers]
    agree = sum(same)
    return sum(min(1.0, (agree - one) / 3) for one in same) / len(same)


def matches(prediction: str, answers: Sequence[str]) -> bool:
    """Return whether an answer equals any reference after the official normalization.

    For sets with fewer people than TextVQA has: the accuracy above counts the others who agree,
    and one reference has no others.
    """
    answer = normalize(prediction, Edition.OFFICIAL)
    return any(normalize(text, Edition.OFFICIAL) == answer for text in answers)


def normalize(text: str, edition: Edition) -> str:
    """Return an answer as it is compared."""
    if edition is Edition.OFFICIAL:
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return _words(_without_punctuation(text, edition))


def _without_punctuation(text: str, edition: Edition) -> str:
    found, has_comma = text, _COMMA.search(text) is not None
    for mark in PUNCTUATION:
        spaced = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if spaced or has_comma else " ")
    return edition.period.sub("", found, count=_PERIODS_REMOVED)


def _words(text: str) -> str:
    numbered = (NUMBERS.get(word, word) for word in text.lower().split())
    kept = (word for word in numbered if word not in ARTICLES)
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)
