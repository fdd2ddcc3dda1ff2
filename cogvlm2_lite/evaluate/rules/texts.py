"""Rules for answers of any kind: equal texts, words in common, JSON with the same fields.

`token_f1` has the rules of SQuAD 2.0, and of MLQA for Chinese. `rouge_l` has those of ROUGE-L in
Google's rouge-score, with one letter as a word in Chinese. tests/golden/evaluate has their results.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_CHINESE = re.compile("[\u4e00-\u9fff]")
_WORDS = re.compile("[\u4e00-\u9fff]|[^\\W_\u4e00-\u9fff]+")
_SPACED_WORDS = re.compile("[\u4e00-\u9fff]|[^\\s\u4e00-\u9fff]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def plain(text: str, *, case: bool = False) -> str:
    """Return a text without blanks around it, with single blanks, and without upper case.

    case  keep upper case
    """
    collapsed = " ".join(text.split())
    return collapsed if case else collapsed.casefold()


def is_exact(prediction: str, reference: str, *, case: bool = False) -> bool:
    """Return whether two texts are equal but for blanks and, unless `case`, upper case."""
    return plain(prediction, case=case) == plain(reference, case=case)


# --- words ----------------------------------------------------------------------------------------


def token_f1(prediction: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of the words, 0 to 1, whatever their order.

    Punctuation and the articles a, an and the do not count. Two texts without any word are equal.
    """
    chinese = bool(_CHINESE.search(prediction) or _CHINESE.search(reference))
    found, wanted = (_f1_words(text, chinese=chinese) for text in (prediction, reference))
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return _harmonic(common, len(found), len(wanted))


def _f1_words(text: str, *, chinese: bool) -> list[str]:
    kept = "".join(letter for letter in text.lower() if not _is_mark(letter, chinese=chinese))
    if chinese:
        return _SPACED_WORDS.findall(kept)
    return _ARTICLES.sub(" ", kept).split()


def _is_mark(letter: str, *, chinese: bool) -> bool:
    if letter in string.punctuation:
        return True
    return chinese and unicodedata.category(letter).startswith("P")


def rouge_l(prediction: str, reference: str) -> float:
    """Return the F measure of the longest common subsequence of words, 0 to 1.

    Words are runs of letters and digits in lower case; a Chinese letter is a word of its own. A
    text without any word scores 0.
    """
    found, wanted = (_WORDS.findall(text.lower()) for text in (prediction, reference))
    return _harmonic(_common_length(found, wanted), len(found), len(wanted))


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    The bit-parallel algorithm of Hyyrö: a column of the table of lengths is one number with a bit
    per word of the first text; a bit is 0 where the length grows. (H. Hyyrö, "Bit-parallel
    LCS-length computation revisited", 2004.)
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    column = every
    for word in second:
        same = column & places.get(word, 0)
        column = ((column + same) | (column - same)) & every
    return len(first) - column.bit_count()


def _harmonic(common: int, found: int, wanted: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / found, common / wanted
    return 2 * precision * recall / (precision + recall)


# --- JSON -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class JsonScore:
    """How an answer compares with a reference in JSON.

    valid  whether the answer is JSON
    equal  share of the fields of both that are in both with equal values, 0 to 1
    """

    valid: bool
    equal: float


def json_score(prediction: str, reference: str, *, case: bool = False) -> JsonScore | None:
    """Return the score; None if the reference is neither an object nor a list in JSON.

    A field is a value that is no object and no list, with its path. Texts are equal as in
    `is_exact`, numbers as numbers. An empty object or list counts as one field.
    """
    wanted = _parsed(reference)
    if not isinstance(wanted, dict | list):
        return None
    found = _parsed(prediction)
    if found is _INVALID:
        return JsonScore(valid=False, equal=0.0)
    ours, theirs = (dict(_fields(value, (), case=case)) for value in (found, wanted))
    every = ours.keys() | theirs.keys()
    equal = sum(path in ours and ours[path] == theirs.get(path) for path in every)
    return JsonScore(valid=True, equal=equal / len(every))


_INVALID = object()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return _INVALID


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_Path = tuple[str | int, ...]


def _fields(value: Any, path: _Path, *, case: bool) -> Iterator[tuple[_Path, tuple[str, Any]]]:
    """Yield the fields of a value by path. The kind is compared, too: true is not 1."""
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _fields(inner, (*path, key), case=case)
    elif isinstance(value, str):
        yield path, ("text", plain(value, case=case))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, ("number", value)
    else:
        yield path, (type(value).__name__, None if isinstance(value, dict | list) else value)
