"""DocVQA: the average normalized Levenshtein similarity (ANLS) of an answer."""

from __future__ import annotations

from cogvlm2_lite.evaluate.rules import given, references

THRESHOLD = 0.5
"""Lower similarities count as 0."""


def official(*, prediction: object, answers: object) -> float:
    """Return the score of the competition's program. Raises ValueError without references."""
    return similarity(given(prediction), references(answers))


def vlmevalkit(*, prediction: object, answers: object) -> float:
    """Return VLMEvalKit's score, of both years. Raises ValueError without references."""
    return similarity(str(prediction), references(answers))


def similarity(prediction: str, answers: list[str]) -> float:
    """Return the similarity to the nearest reference, 0 to 1.

    The distance is of texts in lower case with single blanks, but it is divided by the length of
    the raw texts, as in the competition's program. Raises ValueError without references.
    """
    if not answers:
        raise ValueError("ANLS needs at least one reference")
    similar = 1 - min(_relative_distance(answer, prediction) for answer in answers)
    return float(similar) if similar >= THRESHOLD else 0.0


def _relative_distance(answer: str, prediction: str) -> float:
    length = max(len(answer.upper()), len(prediction.upper()))
    return levenshtein(_plain(answer), _plain(prediction)) / length if length else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def levenshtein(first: str, second: str) -> int:
    """Return the least number of insertions, deletions and replacements between two texts.

    The bit-parallel algorithm of Myers in Hyyrö's form: a column of the table of distances is kept
    as two numbers with a bit per character of the longer text, so each character of the shorter one
    costs a few operations. (H. Hyyrö, "Explaining and extending the bit-parallel approximate string
    matching algorithm of Myers", 2001.)
    """
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    if not shorter:
        return len(longer)
    places: dict[str, int] = {}
    for place, character in enumerate(longer):
        places[character] = places.get(character, 0) | 1 << place
    every, last = (1 << len(longer)) - 1, 1 << (len(longer) - 1)
    # Bits where the distance grows, or falls, by one from one row to the next.
    grows, falls, distance = every, 0, len(longer)
    for character in shorter:
        same = places.get(character, 0)
        diagonal = (((same & grows) + grows) ^ grows) | same | falls
        right_grows = falls | ~(diagonal | grows)
        right_falls = diagonal & grows
        if right_grows & last:
            distance += 1
        elif right_falls & last:
            distance -= 1
        right_grows = right_grows << 1 | 1
        grows = (right_falls << 1 | ~(diagonal | right_grows)) & every
        falls = diagonal & right_grows & every
    return distance
