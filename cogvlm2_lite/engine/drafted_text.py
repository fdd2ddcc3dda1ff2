"""Follows an answer through a text that it resembles, such as text that OCR has read.

The text may have wrong letters, and parts that the answer leaves out or adds. Tokens differ around
a wrong letter, so the place in the text is found by characters, and the text from there on becomes
tokens that continue the answer's last word.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Iterator

from cogvlm2_lite.inputs.tokenizer import Tokenizer

_ENCODED = 160
"""Characters of the text that become tokens at a time."""

_COMPARED = 24
"""The latest characters of the answer, with which its place in the text is found."""

_AHEAD = 48
"""Characters behind the expected place in which it is looked for."""

_SURE = 12
"""Characters that must be equal if the place is looked for in the whole text."""

_NOISY = 0.12
"""Share of the words that seem to have a wrong letter in a text that is corrected."""

_WORD = re.compile(r"\s?\S*$")
_CHECKED = re.compile(r"(?<![^\W_])[^\W_]{3,24}(?![^\W_])")
_NUMBER = re.compile(r"(?<![\w.,])[\dlIoOSB]+(?:[.,][\dlIoOSB]+)*(?![\w])")
_DIGITS = str.maketrans("OoQDlI|SBZ", "0000111582")
"""Digits that are read as letters."""

_ALIKE = {
    "a": ("o",), "b": ("h",), "c": ("e",), "e": ("c",), "f": ("t",), "g": ("q",), "h": ("b",),
    "i": ("l",), "l": ("i", "I"), "n": ("r", "u"), "o": ("a",), "q": ("g",), "r": ("n",),
    "t": ("f",), "u": ("n", "v"), "v": ("u", "y"), "y": ("v",), "0": ("o", "O"),
    "1": ("l", "I", "i"), "5": ("s", "S"), "8": ("B",), "rn": ("m",), "cl": ("d",),
    "vv": ("w",), "m": ("rn",), "d": ("cl",),
}  # fmt: skip
"""What is read -> what may be meant: letters that OCR programs confuse."""

_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_BLANKS = str.maketrans("\n\r\t", "   ")


class AnswerEnd:
    """The latest characters of an answer whose tokens come one by one.

    text      whole characters
    complete  whether no further bytes of a character have come
    """

    _KEPT = 64

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.text = ""
        self.new = ""
        self.complete = True

    def push(self, token: int) -> None:
        """Add a token; `new` has the characters that it completed."""
        self.new = self._utf8.decode(self._tokenizer.token_bytes(token))
        self.text = (self.text + self.new)[-self._KEPT :]
        self.complete = not self._utf8.getstate()[0]

    @property
    def word(self) -> str:
        """The word in which the answer is, and the space before it."""
        found = _WORD.search(self.text)
        return found.group()[-_COMPARED:] if found else ""


def continue_text(tokenizer: Tokenizer, word: str, text: str) -> list[tuple[int, int]]:
    """Return the tokens of a text that continues a word.

    Returns  pairs (token, characters of the text up to its end)
    """
    for written in (word, ""):
        whole = written + text
        ends, size = {0: 0}, 0
        for number, letter in enumerate(whole, 1):
            size += len(letter.encode("utf-8", errors="replace"))
            ends[size] = number
        begin, place, found = len(written), 0, list[tuple[int, int]]()
        fits = not written
        for token in tokenizer.encode(whole):
            fits = fits or ends.get(place) == begin
            data = tokenizer.token_bytes(token)
            if not data:
                break
            place += len(data)
            if fits:
                # A token that ends inside a character counts as ending before it.
                inside = next(p for p in range(place, -1, -1) if p in ends)
                found.append((token, max(ends[inside] - begin, 0)))
        if fits:
            return found
    return []


class DraftedText:
    """A text that an answer resembles, and the answer's place in it.

    text   with likely corrections of single letters, as long as the given one
    match  tokens since the answer last differed from the text
    """

    def __init__(self, tokenizer: Tokenizer, text: str, end: AnswerEnd) -> None:
        self._tokenizer = tokenizer
        self._end = end
        self.text = correct_words(tokenizer, text)
        self._compared = self.text.translate(_BLANKS)
        self._place: int | None = 0
        """Characters of the text that the answer has passed; None: it is somewhere else."""
        self._expected = 0
        self._queue: deque[tuple[int, int]] = deque()
        self.match = 0

    def push(self, token: int) -> None:
        """Follow the next token of the answer, which `end` has already."""
        if self._queue and self._queue[0][0] == token:
            self._place = self._expected = self._queue.popleft()[1]
            self.match += 1
            return
        self._queue.clear()
        self.match = 0
        if self._place is not None:
            self._expected += len(self._end.new)
        if self._end.new:
            self._place = self._find()

    def following(self, most: int) -> list[int]:
        """Return up to `most` tokens that follow."""
        if len(self._queue) < most:
            self._fill()
        return [token for token, _ in list(self._queue)[:most]]

    def _fill(self) -> None:
        if self._place is None or not self._end.complete:
            return
        place, end = self._place, self._place + _ENCODED
        pairs = continue_text(self._tokenizer, self._end.word, self.text[place:end])
        if end < len(self.text):
            pairs = pairs[: len(pairs) * 3 // 4]  # the last ones depend on what was cut off
        self._queue = deque((token, place + behind) for token, behind in pairs)

    def _find(self) -> int | None:
        """Return the place in the text that fits the end of the answer best; None: none fits."""
        # 1. Near the expected place, with a third of the characters wrong.
        written = self._end.text[-_COMPARED:].translate(_BLANKS).lstrip()
        if not written:
            return self._place
        start = max(0, self._expected - _COMPARED - _AHEAD)
        part = self._compared[start : self._expected + _AHEAD]
        distance, end = closest_end(written, part, self._expected - start)
        if distance * 3 <= len(written):
            self._expected = start + end
            return self._expected
        # 2. Anywhere, the next one first.
        sure = written[-_SURE:]
        if len(sure) == _SURE:
            found = self._compared.find(sure, self._expected)
            found = found if found >= 0 else self._compared.find(sure)
            if found >= 0:
                self._expected = found + _SURE
                return self._expected
        return None


def closest_end(pattern: str, text: str, expected: int) -> tuple[int, int]:
    """Return the fewest edits that turn a part of a text into the pattern, and the part's end.

    expected  of ends that need equally many edits the one closest to it is returned

    G. Myers, "A fast bit-vector algorithm for approximate string matching based on dynamic
    programming", J. ACM 46(3), 1999: bits of an integer are the differences along a column.
    """
    every = (1 << len(pattern)) - 1
    top = 1 << (len(pattern) - 1)
    places: dict[str, int] = {}
    for number, letter in enumerate(pattern):
        places[letter] = places.get(letter, 0) | 1 << number
    plus, minus, score = every, 0, len(pattern)
    best = score, abs(expected), 0
    for end, letter in enumerate(text, 1):
        equal = places.get(letter, 0)
        vertical = equal | minus
        horizontal = (((equal & plus) + plus) ^ plus) | equal
        rises = minus | (~(horizontal | plus) & every)
        falls = plus & horizontal
        score += 1 if rises & top else -1 if falls & top else 0
        rises, falls = (rises << 1) & every, (falls << 1) & every
        plus = falls | (~(vertical | rises) & every)
        minus = rises & vertical
        best = min(best, (score, abs(end - expected), end))
    return best[0], best[2]


def correct_words(tokenizer: Tokenizer, text: str) -> str:
    """Return a text in which likely wrong letters are replaced; its length does not change.

    A common word is a single token. A word that is not, but is one with another letter, probably
    has a wrong letter. Common tokens have low numbers, so the lowest one is taken. Names and rare
    words look the same: a text with few such words is left as it is. In one with many, letters that
    look like digits become digits inside numbers.
    """
    words = _CHECKED.findall(text)
    known = {word: _corrected(tokenizer, word) for word in dict.fromkeys(words)}
    changed = sum(known[word] != word for word in words)
    if changed < _NOISY * len(words):
        return text
    text = _CHECKED.sub(lambda found: known[found.group()], text)
    return _NUMBER.sub(lambda found: _with_digits(found.group()), text)


def _with_digits(number: str) -> str:
    """Return a number in which letters that look like digits are digits."""
    digits = sum(letter.isdigit() for letter in number)
    letters = sum(letter.isalpha() for letter in number)
    return number.translate(_DIGITS) if digits and digits >= letters else number


def _corrected(tokenizer: Tokenizer, word: str) -> str:
    letters = sum(letter.isalpha() for letter in word)
    if not word.isascii() or letters * 2 < len(word) or letters < 2:
        return word
    if tokenizer.find_token(" " + word) is not None or tokenizer.find_token(word) is not None:
        return word
    found = [
        (weight * token, other)
        for weight, others in ((1, _read_alike(word)), (4, _one_other_letter(word)))
        for other in others
        if (token := tokenizer.find_token(" " + other)) is not None
    ]
    return min(found)[1] if found else word


def _one_other_letter(word: str) -> Iterator[str]:
    """Yield the words that differ from a word in one letter."""
    upper = sum(letter.isalpha() for letter in word) > 2 and word.upper() == word
    for place in range(len(word)):
        alphabet = _LETTERS.upper() if upper else _LETTERS
        for letter in alphabet + alphabet.upper() if place == 0 and not upper else alphabet:
            yield f"{word[:place]}{letter}{word[place + 1 :]}"


def _read_alike(word: str) -> Iterator[str]:
    """Yield the words that look like a word: one or two letters are others of a similar shape."""
    places = [
        (begin, begin + len(read), meant)
        for begin in range(len(word))
        for read, others in _ALIKE.items()
        if word.startswith(read, begin)
        for meant in others
    ]
    for number, (begin, end, meant) in enumerate(places):
        for begin_2, end_2, meant_2 in places[:number]:
            if end_2 <= begin:
                yield f"{word[:begin_2]}{meant_2}{word[end_2:begin]}{meant}{word[end:]}"
        yield f"{word[:begin]}{meant}{word[end:]}"
