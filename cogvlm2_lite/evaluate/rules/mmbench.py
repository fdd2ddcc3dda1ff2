"""MMBench: the letter that an answer chooses, and questions asked once for each rotation."""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

FIRST_PASS = 1_000_000
"""Rows of the first pass have a lower index. Modulo this number it is equal in a group."""

NO_API_ANSWER = "Failed to obtain answer via API"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
REFUSED = "Z"
"""The letter of an answer that refuses; wrong unless an option has it."""

SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "coarse_perception": "CP",
        "finegrained_perception (instance-level)": "FP-S",
        "finegrained_perception (cross-instance)": "FP-C",
        "logic_reasoning": "LR",
        "relation_reasoning": "RR",
        "attribute_reasoning": "AR",
    }
)
"""The names of l2-categories in reports."""

_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_WORDS = 4
_PHRASE = re.compile(r"answer\s+is\s+\**([a-d])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was read from an answer.

    letter  of an option, or Z for a refusal; None: nothing
    rule    that decided: "letter", "phrase", "text", "refusal" or "none"
    """

    letter: str | None
    rule: str


def vlmevalkit(*, prediction: object, options: Mapping[str, object]) -> dict[str, str | None]:
    """Return the letter that VLMEvalKit reads without a judge."""
    return {"letter": choose(str(prediction), _texts(options)).letter}


def vlmevalkit_2024(*, prediction: object, options: Mapping[str, object]) -> dict[str, str | None]:
    """Return the letter that VLMEvalKit read in 2024."""
    return {"letter": choose_2024(str(prediction), _texts(options)).letter}


def choose(prediction: str, options: Mapping[str, str]) -> Choice:
    """Return the choice of an answer by the rules of VLMEvalKit, without a judge."""
    if NO_API_ANSWER not in prediction:
        if found := _named(prediction, options, last_words=_LAST_WORDS):
            return found
        phrase = _PHRASE.search(prediction)
        if phrase and (letter := phrase[1].upper()) in options:
            return Choice(letter=letter, rule="phrase")
    if len(prediction.lower()) > 2 * sum(map(len, options.values())):
        return Choice(letter=None, rule="none")
    return _quoted(prediction, options)


def choose_2024(prediction: str, options: Mapping[str, str]) -> Choice:
    """Return the choice of an answer by the rules of 2024: letters count anywhere in it."""
    if NO_API_ANSWER not in prediction and (found := _named(prediction, options)):
        return found
    return _quoted(prediction, options)


def _named(
    prediction: str, options: Mapping[str, str], last_words: int | None = None
) -> Choice | None:
    """Return the only letter among the words, or a refusal; None without either."""
    if any(refusal in prediction for refusal in REFUSALS):
        return Choice(letter=REFUSED, rule="refusal")
    words = prediction.translate(_BLANKED).split()
    found = [letter for letter in options if letter in words]
    if len(found) == 1:
        near_end = last_words is None or words.index(found[0]) >= len(words) - last_words
        return Choice(letter=found[0], rule="letter") if near_end else None
    if not found and REFUSED in words:
        return Choice(letter=REFUSED, rule="refusal")
    return None


def _quoted(prediction: str, options: Mapping[str, str]) -> Choice:
    """Return the only option whose text the answer contains. Every answer contains empty texts."""
    lower = prediction.lower()
    found = [letter for letter, text in options.items() if text.lower() in lower]
    if len(found) == 1:
        return Choice(letter=found[0], rule="text")
    return Choice(letter=None, rule="none")


def _texts(options: Mapping[str, object]) -> dict[str, str]:
    return {letter: str(options[letter]) for letter in sorted(options)}


def vlmevalkit_circular(
    *, rows: Sequence[Mapping[str, Any]], answers: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    """Return VLMEvalKit's circular evaluation with exact matching.

    rows     index, prediction, split, category, l2-category and a key per option
    answers  pairs of index and letter; rows without one are left out
    Returns  "hits": pairs of the index of the first row and 0 or 1, for each group that has it;
             "accuracy": by split, "Overall" and by the names of categories; None: no group
    """
    letters = {pair[0]: pair[1] for pair in answers}
    known = [row for row in rows if row["index"] in letters]
    groups: dict[int, list[bool]] = defaultdict(list)
    for row in known:
        letter = choose(str(row["prediction"]), _row_options(row)).letter
        groups[_group(row)].append(letter == letters[row["index"]])
    firsts = sorted(
        (row for row in known if row["index"] == _group(row)), key=lambda row: int(row["index"])
    )
    hits = [(row, int(all(groups[row["index"]]))) for row in firsts]
    return {
        "hits": [[row["index"], hit] for row, hit in hits],
        "accuracy": _by_split(hits),
    }


def _row_options(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a row; missing ones are None or nan."""
    given = {letter: row[letter] for letter in string.ascii_uppercase if letter in row}
    # Only nan differs from itself.
    return {name: str(text) for name, text in given.items() if text is not None and text == text}


def _group(row: Mapping[str, Any]) -> int:
    return int(row["g_index"] if "g_index" in row else row["index"] % FIRST_PASS)


def _by_split(hits: Sequence[tuple[Mapping[str, Any], int]]) -> dict[str, dict[str, float | None]]:
    def accuracy(split: object, key: str, name: object) -> float | None:
        found = [
            hit
            for row, hit in hits
            if row.get("split", "none") == split and (not key or row.get(key) == name)
        ]
        return sum(found) / len(found) if found else None

    table: dict[str, dict[str, float | None]] = {}
    for split in dict.fromkeys(row.get("split", "none") for row, _ in hits):
        table[str(split)] = {"Overall": accuracy(split, "", None)}
        for key in ("l2-category", "category"):
            names = {row[key] for row, _ in hits if row.get(key) is not None}
            for name in sorted(names):
                table[str(split)][SHORT_NAMES.get(name, name)] = accuracy(split, key, name)
    return table
