"""Drafts of tables and JSON whose words are in a text, such as text that OCR has read.

Such an answer takes words from the text and writes something of its own between them: " | " or
'", "total": '. What it wrote between two words is expected again at the next place of the same
form. So a draft can have several fields: a word of the text, a separator, the next word, and so on.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter

from cogvlm2_lite.engine.draft_json import LIKELY, JsonText
from cogvlm2_lite.engine.drafted_text import AnswerEnd, closest_end, continue_text
from cogvlm2_lite.inputs.tokenizer import Tokenizer

_WORD = re.compile(r"\w+(?:[.,:/'’\-]\w+)*")
_LAST_WORD = re.compile(_WORD.pattern + r"[.,:/'’\-]?$")
_JOINS = ".,:/'’-"
"""Characters that are part of a word if letters or digits follow."""

_BLANKS = re.compile(r"\s+")
_LIKE_DIGITS = "lIOSBo"

_PROPOSED = 120
"""Characters that become tokens at a time."""

_NEAR = 12
"""Words of the text after the expected one among which the same word is looked for."""

_LONG = 4
"""Characters of a word that is looked for in the whole text."""

_SKIPPED = 3
"""Words in succession that an answer may leave out at every place of the same form."""

_LONGEST_BETWEEN = 200
"""Characters between two words of the text that are remembered."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A token that may follow.

    word      the number of the word of the text that it is a part of; -1: none
    kind      "word" or "number" of the text, "between" them, "new" or "doubtful"
    evidence  how many times in a row what precedes has been right
    """

    token: int
    word: int
    kind: str
    evidence: int


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the answer is in the text and in its own form.

    last     the number of the word of the text that it wrote last; -1: none yet
    between  what it last wrote between two words, other than the text has there
    repeats  how many times in succession, which is the column of a table
    """

    last: int = -1
    between: str = ""
    repeats: int = 0


@dataclass(frozen=True, kw_only=True)
class _Between:
    """What an answer writes between two words of the text.

    skips     words of the text that it leaves out there
    evidence  how many times in a row it wrote this; 0: it is only what the text has
    """

    text: str
    skips: int = 0
    evidence: int = 0


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A part of what follows; the fields are those of `Expected`."""

    text: str
    kind: str
    evidence: int
    word: int = -1


class Fields:
    """Follows an answer that takes words from a text and writes its own text between them.

    json  what a schema requires there
    """

    def __init__(self, tokenizer: Tokenizer, text: str, end: AnswerEnd, json: JsonText) -> None:
        self._tokenizer, self._end, self._json = tokenizer, end, json
        found = list(_WORD.finditer(text))
        self._words = [each.group() for each in found]
        self._gaps = ["", *(text[a.end() : b.start()] for a, b in pairwise(found))]
        """What the text has before each word."""
        self._numbers = [_is_number(word) for word in self._words]
        self._places: dict[str, list[int]] = {}
        for number, word in enumerate(self._words):
            self._places.setdefault(word, []).append(number)
        self._learned: dict[tuple[object, ...], _Between] = {}
        """Form -> what the answer wrote between two words there."""
        self._place = _Place()
        self._tail = ""
        """What the answer has written after the last word of the text."""
        self._own = 0
        """Characters of the tail whose words are the answer's own."""
        self._right = 0
        self._doubtful = -1
        """A word of the text that was not what the answer wrote, or not in these tokens."""
        self._queue: list[Expected] = []

    def push(self, token: int) -> None:
        """Follow the next token of the answer, which `end` has already."""
        if self._queue and self._queue[0].token == token:
            del self._queue[0]
        else:
            if self._queue and self._queue[0].word >= 0:
                self._doubtful = self._queue[0].word
            self._queue.clear()
        self._tail += self._end.new
        while found := _WORD.search(self._tail, self._own):
            rest = self._tail[found.end() :]
            if not rest or (rest in _JOINS):
                break  # the word may go on
            number = self._find(found)
            if number is None:
                self._own = found.end()
            else:
                self._take(self._tail[: found.start()], number)
                self._tail, self._own = rest, 0
        if len(self._tail) > 2 * _LONGEST_BETWEEN:
            cut = len(self._tail) - _LONGEST_BETWEEN
            self._tail, self._own = self._tail[cut:], max(0, self._own - cut)

    def following(self, most: int) -> list[Expected]:
        """Return up to `most` tokens that follow."""
        if self._end.complete and len(self._queue) < most:
            pieces = list(self._pieces())
            text = "".join(piece.text for piece in pieces)
            self._queue = list(self._tokens(text, pieces)) if text else []
        return self._queue[:most]

    # --- what follows -----------------------------------------------------------------------------

    def _tokens(self, text: str, pieces: list[_Piece]) -> Iterator[Expected]:
        pairs = continue_text(self._tokenizer, self._end.word, text)
        if len(text) >= _PROPOSED:
            pairs = pairs[: len(pairs) * 3 // 4]  # the last ones depend on what was cut off
        over = [piece for piece in pieces for _ in piece.text]
        begin = 0
        for token, end in pairs:
            # A token with letters of a word is no surer than the word.
            under = over[begin : max(end, begin + 1)]
            piece = next((each for each in under if each.word >= 0), under[0])
            yield Expected(token=token, word=piece.word, kind=piece.kind, evidence=piece.evidence)
            begin = max(begin, min(end, len(over) - 1))

    def _pieces(self) -> Iterator[_Piece]:
        """Yield what follows in pieces."""
        place, tail, required = self._place, self._tail, ""
        if place.last + 1 >= len(self._words):
            return
        if not self._between(place, tail).text.startswith(tail):
            required, kinds = self._json.following()
            for same, letters in groupby(zip(kinds, required, strict=True), itemgetter(0)):
                kind = "likely" if same == LIKELY else "forced"
                text = "".join(letter for _, letter in letters)
                yield _Piece(text=text, kind=kind, evidence=0)
            tail += required
        next_one = self._between(place, tail)
        between, number = next_one.text, place.last + 1 + next_one.skips
        written, kind, size = "", "", 0
        if between.startswith(tail):
            if between != tail:
                yield _Piece(
                    text=between[len(tail) :], kind="between", evidence=min(next_one.evidence, 4)
                )
        else:
            written = _open_word(tail)
            between = tail.removesuffix(written)
            number, kind = self._guess(place.last + 1, written, required)
        if number == self._doubtful:
            kind = "doubtful"
        while size < _PROPOSED:
            rest = _rest_of(self._words[number], written)
            kind = kind or ("number" if self._numbers[number] else "word")
            if len(rest) > _PROPOSED:
                yield _Piece(text=rest[:_PROPOSED], kind=kind, evidence=0, word=number)
                return
            if rest:
                yield _Piece(text=rest, kind=kind, evidence=min(self._right, 3), word=number)
            place = self._after(place, between, number)
            if number + 1 >= len(self._words):
                return
            next_one = self._between(place, "")
            between, number = next_one.text, place.last + 1 + next_one.skips
            written, kind = "", ""
            yield _Piece(text=between, kind="between", evidence=min(next_one.evidence, 4))
            size += len(rest) + len(between)

    def _guess(self, number: int, written: str, required: str) -> tuple[int, str]:
        """Return which word of the text follows something new, and a kind if that is not sure."""
        if not written:
            return number, "" if required else "new"
        near = range(number, min(number + _NEAR, len(self._words)))
        for other in near:
            if self._words[other].startswith(written):
                return other, "" if other == number else "new"
        return number, "new"

    def _between(self, place: _Place, begin: str) -> _Between:
        """Return what the answer writes before the next word, which begins with `begin`."""
        if place.last + 1 >= len(self._words):
            return _Between(text=" ")
        for form in self._forms(place):
            found = self._learned.get(form)
            if (
                found is not None
                and found.text.startswith(begin)
                and place.last + 1 + found.skips < len(self._words)
            ):
                return found
        plain = _BLANKS.sub(" ", self._gaps[place.last + 1]) if place.last >= 0 else " "
        return _Between(text=plain)

    def _forms(self, place: _Place) -> Iterator[tuple[object, ...]]:
        """Yield descriptions of a place between two words, the most precise first."""
        following = place.last + 1
        gap = _gap_kind(self._gaps[following])
        numbers = (following > 0 and self._numbers[following - 1], self._numbers[following])
        yield (gap, place.between, place.repeats, *numbers)
        if gap != " ":
            yield gap, place.between, place.repeats
            yield gap, place.between

    # --- following the answer ---------------------------------------------------------------------

    def _find(self, found: re.Match[str]) -> int | None:
        """Return which word of the text a word of the answer is; None: its own."""
        word, tail = found.group(), self._tail
        expected = self._between(self._place, tail[: found.start()])
        if expected.text.startswith(tail[: found.end()]):
            return None
        following = self._place.last + 1 + expected.skips
        if following < len(self._words) and _alike(word, self._words[following]):
            self._right += 1
            return following
        self._right = 0
        if places := self._places.get(word):
            at = bisect_left(places, following)
            if len(word) > 1 and at < len(places) and places[at] <= following + _NEAR:
                return places[at]
            if len(word) >= _LONG:
                return places[at] if at < len(places) else places[0]
        if (
            following < len(self._words)
            and expected.evidence
            and tail[: found.start()] == expected.text
            and self._may_be(word, following)
        ):
            return following  # it has wrong letters
        for other in range(following + 1, min(following + 3, len(self._words))):
            if len(word) >= _LONG and _alike(word, self._words[other]):
                return other
        return None

    def _may_be(self, word: str, number: int) -> bool:
        """Return whether a word of the text may be another word with many wrong letters."""
        read = self._words[number]
        if len(word) == len(read) == 1:
            return True
        return _is_number(word) == self._numbers[number] and abs(len(word) - len(read)) <= 2

    def _take(self, between: str, number: int) -> None:
        """Learn what the answer wrote before a word of the text."""
        skips = number - self._place.last - 1
        if self._place.last + 1 < len(self._words) and len(between) <= _LONGEST_BETWEEN:
            if not 0 <= skips <= _SKIPPED:
                skips = 0
            for form in self._forms(self._place):
                before = self._learned.get(form)
                same = before is not None and (before.text, before.skips) == (between, skips)
                evidence = before.evidence + 1 if before is not None and same else 1
                self._learned[form] = _Between(text=between, skips=skips, evidence=evidence)
        self._place = self._after(self._place, between, number)

    def _after(self, place: _Place, between: str, number: int) -> _Place:
        """Return the place after a word of the text."""
        gap = self._gaps[place.last + 1] if place.last + 1 < len(self._words) else ""
        if _BLANKS.sub(" ", between) == _BLANKS.sub(" ", gap):
            return _Place(last=number, between=place.between, repeats=place.repeats)
        repeats = place.repeats + 1 if between == place.between else 0
        return _Place(last=number, between=between, repeats=repeats)


def _is_number(word: str) -> bool:
    digits = sum(letter.isdigit() for letter in word)
    return 2 * digits >= len(word) or word in _LIKE_DIGITS


def _gap_kind(gap: str) -> str:
    """Return what gaps of the same kind have in common: a line's end, a wide gap or punctuation."""
    if "\n" in gap:
        return "\n"
    return "  " if "\t" in gap or "  " in gap else gap


def _open_word(text: str) -> str:
    """Return the word at the end of a text that may go on."""
    found = _LAST_WORD.search(text)
    return found.group() if found else ""


def _rest_of(word: str, written: str) -> str:
    """Return what is left of a word of the text; letters of it may be wrong."""
    if not written or word.startswith(written):
        return word[len(written) :]
    place = len(written)
    for shift in (0, 1, -1):
        end = place + shift
        if 0 < end <= len(word) and word[end - 1] == written[-1]:
            return word[end:]
    return word[place:]


def _alike(word: str, read: str) -> bool:
    """Return whether a word may be another one with wrong letters."""
    if word == read:
        return True
    if abs(len(word) - len(read)) > 2 or len(word) < 2:
        return False
    distance, end = closest_end(word, read, len(read))
    return (distance + len(read) - end) * 3 <= len(word)
