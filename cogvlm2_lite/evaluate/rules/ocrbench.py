"""OCRBench: an answer is right when it contains a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cogvlm2_lite.evaluate.rules import given, references

FORMULAS = "Handwritten Mathematical Expression Recognition"
"""The category in which case counts and blanks do not."""
RECOGNITION = "Text Recognition"
GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "Regular Text Recognition": RECOGNITION,
        "Irregular Text Recognition": RECOGNITION,
        "Artistic Text Recognition": RECOGNITION,
        "Handwriting Recognition": RECOGNITION,
        "Digit String Recognition": RECOGNITION,
        "Non-Semantic Text Recognition": RECOGNITION,
        "Scene Text-centric VQA": "Scene Text-centric VQA",
        "Doc-oriented VQA": "Doc-oriented VQA",
        "Key Information Extraction": "Key Information Extraction",
        FORMULAS: FORMULAS,
    }
)
"""The part of the total that a category belongs to."""

SKIPPED = "skipped"


def official(
    *,
    answers: object,
    category: str,
    prediction: object = None,
    prediction_missing: bool = False,
) -> int | str:
    """Return 1 for a right answer, 0 for others; "skipped" for a question without an answer."""
    if prediction_missing:
        return SKIPPED
    return int(is_hit(given(prediction), references(answers), category))


def vlmevalkit(
    *,
    answers: object,
    category: str,
    prediction: object = None,
    prediction_missing: bool = False,
) -> int | None:
    """Return 1 for a right answer, 0 for others; None for a question without an answer."""
    if prediction_missing:
        return None
    return int(is_hit(str(prediction), references(answers), category))


def vlmevalkit_total(*, rows: Sequence[Sequence[object]]) -> dict[str, int | float]:
    """Return VLMEvalKit's totals of rows of category, references and answer.

    Raises ValueError for a category that OCRBench does not have.
    """
    hits: dict[str, int] = dict.fromkeys(GROUPS.values(), 0)
    for category, answers, prediction in rows:
        if category not in GROUPS:
            raise ValueError(f"OCRBench has no category {category!r}")
        hits[GROUPS[str(category)]] += is_hit(str(prediction), references(answers), str(category))
    total = sum(hits.values())
    return {**hits, "Final Score": total, "Final Score Norm": total / 10}


def is_hit(prediction: str, answers: Sequence[str], category: str) -> bool:
    """Return whether an answer contains any reference."""
    plain = _formula if category == FORMULAS else _text
    whole = plain(prediction)
    return any(plain(answer) in whole for answer in answers)


def _formula(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def _text(text: str) -> str:
    return text.lower().strip().replace("\n", " ")
