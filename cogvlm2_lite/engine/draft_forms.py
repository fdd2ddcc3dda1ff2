"""Drafts from the form of an answer: rows of a table and members of a list are built alike."""

from __future__ import annotations

from cogvlm2_lite.inputs.tokenizer import Tokenizer

_NUMBER, _WORD, _NEW_WORD = -1, -2, -3
"""What digits, a part of a word, and the beginning of a word count as. All other tokens count as
themselves."""


class Forms:
    """Finds what came the last time that the answer's end had the same form.

    Words and numbers count as equal to others, so that "| 3 | chair" is like "| 2 | lamp". What
    followed then is a good draft as long as it is no word or number.
    """

    _LENGTHS = (5, 4, 3, 2)
    """Tokens that are compared, the most first."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._kinds: list[int] = []
        self._kept: list[str] = []
        self._after: dict[tuple[int, ...], int] = {}
        """Kinds of up to five tokens -> the last place in _ids of what followed them."""
        self._known: dict[int, int] = {}

    def push(self, token: int, kept: str = "") -> None:
        """Add the next token of the answer.

        kept  what is known about whether it stays the same when its form is repeated
        """
        for length in self._LENGTHS:
            if len(self._kinds) >= length:
                self._after[tuple(self._kinds[-length:])] = len(self._kinds)
        self._kinds.append(self._kind(token))
        self._ids.append(token)
        self._kept.append(kept)

    def find(self) -> tuple[int, int]:
        """Return how many tokens agree in form, and the place of what followed; or (0, 0)."""
        for length in self._LENGTHS:
            kinds = tuple(self._kinds[-length:])
            if len(kinds) == length and (place := self._after.get(kinds)):
                # Two words follow each other everywhere in prose.
                alike = length > 2 or max(kinds) > _WORD
                return (length, place) if alike else (0, 0)
        return 0, 0

    def following(self, place: int, most: int) -> list[int]:
        """Return the tokens from a place on."""
        return self._ids[place : place + most]

    def kept(self, place: int) -> str:
        """Return what is known about a token."""
        return self._kept[place]

    def _kind(self, token: int) -> int:
        found = self._known.get(token)
        if found is None:
            data = self._tokenizer.token_bytes(token)
            text = data.strip()
            found = token
            if text.isdigit():
                found = _NUMBER
            elif text.isalpha():
                found = _WORD if data == text else _NEW_WORD
            self._known[token] = found
        return found
