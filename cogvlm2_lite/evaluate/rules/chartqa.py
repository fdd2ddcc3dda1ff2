"""ChartQA: relaxed accuracy. Numbers may differ by 5 %, texts must be equal."""

from __future__ import annotations

from collections.abc import Sequence

from cogvlm2_lite.evaluate.literals import list_of_texts
from cogvlm2_lite.evaluate.rules import given, references

TOLERANCE = 0.05


def official(*, prediction: object, answer: object) -> float:
    """Return the score by pix2struct's rule, which other programs copy.

    ChartQA's own repository has no relaxed accuracy. Raises ValueError without a reference.
    """
    text = given(prediction)
    return float(_any([is_right(text, one) for one in references(answer)]))


def vlmevalkit(*, prediction: object, answer: object) -> bool:
    """Return whether VLMEvalKit counts an answer as right. Raises ValueError for an empty list."""
    text = str(prediction).strip()
    return _any([is_right(text, one) for one in read_answers(answer)])


def vlmevalkit_2024(*, prediction: object, answer: object) -> bool:
    """Return the same for 2024, when 5 % of the answer, not of the reference, were allowed."""
    text = str(prediction).strip()
    return _any([is_right(one, text) for one in read_answers(answer)])


def is_right(answer: str, reference: str) -> bool:
    """Return whether an answer is within 5 % of the reference, or equal to it as text."""
    number, target = _number(answer), _number(reference)
    if number is not None and target:
        return abs(number - target) / abs(target) <= TOLERANCE
    return answer.lower() == reference.lower()


def read_answers(answer: object) -> list[str]:
    """Return the references of an answer column: those of a Python list, or the text itself.

    A list is parsed, never evaluated: expressions stay text.
    """
    if not isinstance(answer, str):
        return references(answer)
    found = list_of_texts(answer)
    return [answer] if found is None else list(found)


def _any(found: Sequence[bool]) -> bool:
    if not found:
        raise ValueError("relaxed accuracy needs at least one reference")
    return any(found)


def _number(text: str) -> float | None:
    """Return the number that a text is, with per cent as hundredths; None for other texts."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
