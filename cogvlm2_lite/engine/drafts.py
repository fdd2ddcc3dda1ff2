"""Drafts: tokens that probably come next in an answer.

A decode step computes them together with the token before them. The answer then chooses its tokens
from the logits as always, one by one, and takes those of the draft that it chooses anyway. So a
draft never changes an answer; a good one saves passes over the weights.

Sources are earlier occurrences of the latest tokens (`NGrams`) and of their form
(`draft_forms.py`), a text that the answer resembles (`drafted_text.py`), and the bytes that a JSON
schema requires.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from cogvlm2_lite.engine.draft_forms import Forms
from cogvlm2_lite.engine.drafted_text import AnswerEnd, DraftedText, continue_text
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.memory.work import DECODE_ROWS

MOST_DRAFT = DECODE_ROWS - 1

_SEPARATOR = -1


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Tokens that may follow.

    chances  for each of them, how probably the answer takes it and all before it
    """

    tokens: tuple[int, ...] = ()
    chances: tuple[float, ...] = ()

    @staticmethod
    def known(tokens: Sequence[int]) -> Draft:
        """Return a draft of tokens that certainly follow."""
        return Draft(tokens=tuple(tokens), chances=(1.0,) * len(tokens))


NO_DRAFT = Draft()


class NGrams:
    """Finds what followed earlier occurrences of the latest tokens.

    texts  searched, too; the last ones are preferred

    The beginning of a text counts as a token, so that of an answer matches that of an earlier one.
    """

    LONGEST = 32
    """Tokens that are compared. All longer matches are equally good."""

    _CANDIDATES = 8

    def __init__(self, texts: Sequence[Sequence[int]] = ()) -> None:
        self._ids = [_SEPARATOR]
        self._after: dict[tuple[int, ...], list[int]] = {}
        """Two or three tokens -> places in _ids of what followed them."""
        for text in texts:
            for token in text:
                self.push(token)
            self.push(_SEPARATOR)

    def push(self, token: int) -> None:
        """Add the next token."""
        ids, place = self._ids, len(self._ids)
        if place >= 2 and token != _SEPARATOR and ids[-1] != _SEPARATOR:
            self._after.setdefault((ids[-2], ids[-1]), []).append(place)
            if place >= 3 and ids[-2] != _SEPARATOR:
                self._after.setdefault((ids[-3], ids[-2], ids[-1]), []).append(place)
        ids.append(token)

    def find(self) -> tuple[int, int]:
        """Return the length of the longest match found, and the place of what followed; or (0, 0).

        Only the latest occurrences are compared.
        """
        ids = self._ids
        if len(ids) < 2:
            return 0, 0
        places = self._after.get(tuple(ids[-3:])) or self._after.get(tuple(ids[-2:])) or ()
        best = (0, 0)
        for place in reversed(places[-self._CANDIDATES :]):
            length = self._common(place)
            if length > best[0]:
                best = length, place
        return best

    def _common(self, place: int) -> int:
        """Return how many tokens before a place equal the latest ones."""
        ids, most = self._ids, min(self.LONGEST, place)
        end = len(ids)
        for length in range(most):
            latest = ids[end - 1 - length]
            if ids[place - 1 - length] != latest:
                return length
            if latest == _SEPARATOR:
                return length + 1
        return most

    def following(self, place: int, most: int) -> list[int]:
        """Return the tokens from a place on. Behind the latest token they repeat themselves."""
        found = self._ids[place : place + most]
        if _SEPARATOR in found:
            return found[: found.index(_SEPARATOR)]
        period = len(self._ids) - place
        while len(found) < most:
            found.append(found[len(found) - period])
        return found


class EarlierAnswers:
    """The tokens of answers about pictures; the least recently used pictures are dropped first."""

    MOST_TOKENS = 65_536

    def __init__(self) -> None:
        self._answers: OrderedDict[str, deque[tuple[int, ...]]] = OrderedDict()
        self._tokens = 0

    def note(self, picture: str, tokens: Sequence[int]) -> None:
        """Remember an answer about a picture; the same answer is kept once."""
        answer = tuple(tokens)
        kept = self._answers.setdefault(picture, deque())
        self._answers.move_to_end(picture)
        if answer in kept:
            kept.remove(answer)
        else:
            self._tokens += len(answer)
        kept.append(answer)
        while self._tokens > self.MOST_TOKENS:
            oldest = next(iter(self._answers))
            self._tokens -= len(self._answers[oldest].popleft())
            if not self._answers[oldest]:
                del self._answers[oldest]

    def of(self, picture: str) -> Sequence[Sequence[int]]:
        """Return the answers about a picture, the latest one last."""
        return tuple(self._answers.get(picture, ()))


_PRIORS = {
    "n-gram": (0.15, 0.1),
    "form": (0.05, 0.08),
    "text": (0.7, 0.05),
    "forced": (0.9, 0.0),
}
"""Chances of sources before anything is learned, and what each further token of a match adds."""


class _Chances:
    """Estimates how probably the next token of a source is right, from how often it was.

    It learns from every token of the answer, also where no draft was computed. What is assumed of
    a match of a certain length is lowered if the source is worse than assumed as a whole: matches
    of other lengths then need no failures of their own.
    """

    _WEIGHT = 2.0
    _WEIGHT_OF_SOURCE = 6.0
    _KEPT = 0.95
    _MOST = 0.98

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], tuple[float, float]] = {}
        self._of_sources: dict[str, tuple[float, float]] = {}
        """How many tokens of a source were right, and how many were assumed to be."""

    def of(self, source: str, match: int) -> float:
        """Return the chance of a source's next token; match: tokens before it that agree."""
        right, assumed = self._of_sources.get(source, (0.0, 0.0))
        worse = min(1.0, (right + self._WEIGHT_OF_SOURCE) / (assumed + self._WEIGHT_OF_SOURCE))
        prior = self._prior(source, match) * worse
        right, tried = self._counts.get((source, _bucket(match)), (0.0, 0.0))
        return min((right + prior * self._WEIGHT) / (tried + self._WEIGHT), self._MOST)

    def note(self, source: str, match: int, *, right: bool) -> None:
        """Learn whether the next token of a source was right."""
        key = source, _bucket(match)
        hits, tried = self._counts.get(key, (0.0, 0.0))
        self._counts[key] = hits * self._KEPT + right, tried * self._KEPT + 1
        hits, assumed = self._of_sources.get(source, (0.0, 0.0))
        assumed = assumed * self._KEPT + self._prior(source, match)
        self._of_sources[source] = hits * self._KEPT + right, assumed

    def _prior(self, source: str, match: int) -> float:
        """Return the chance before anything is learned."""
        first, further = _PRIORS[source]
        return min(first + further * _bucket(match), self._MOST)


def _bucket(match: int) -> int:
    """Return a number for matches that are about equally good."""
    return match if match < 8 else 8 if match < 16 else 9


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What a source expects next.

    match   how many tokens before it agree with the source
    tokens  returns up to so many tokens that follow
    """

    name: str
    match: int
    tokens: Callable[[int], list[int]]


class Drafter:
    """Proposes the next tokens of one answer.

    texts      tokens of texts that parts of the answer may repeat
    resembled  a text that the whole answer resembles; "": none
    draftable  returns whether a token may be in a draft
    required   returns the bytes that must follow; None: no schema requires any
    allowed    returns how many tokens at the beginning of a draft may come; None: all of them
    """

    _LEAST = 0.02
    """Tokens of a smaller chance gain nothing: see draft_length.py."""

    MOST_CHARACTERS = 40_000
    """Of `resembled`: about as many as an answer can have. The rest is ignored."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        texts: Sequence[Sequence[int]] = (),
        resembled: str = "",
        draftable: Callable[[int], bool] = lambda token: True,
        required: Callable[[], bytes] | None = None,
        allowed: Callable[[Sequence[int]], int] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._draftable, self._required, self._allowed = draftable, required, allowed
        self._end = AnswerEnd(tokenizer)
        self._text: DraftedText | None = None
        if resembled.strip():
            self._text = DraftedText(tokenizer, resembled[: self.MOST_CHARACTERS], self._end)
            texts = [*texts, tokenizer.encode(self._text.text)]
        self._ngrams = NGrams(texts)
        self._forms = Forms(tokenizer)
        self._chances = _Chances()
        self._expected: list[tuple[_Source, int]] = []

    def push(self, token: int) -> None:
        """Add the next token of the answer."""
        for source, expected in self._expected:
            self._chances.note(source.name, source.match, right=token == expected)
        self._end.push(token)
        self._ngrams.push(token)
        self._forms.push(token)
        if self._text is not None:
            self._text.push(token)
        self._expected = [
            (source, following[0]) for source in self._sources() if (following := source.tokens(1))
        ]

    def propose(self, most: int) -> Draft:
        """Return the draft of up to `most` tokens that has the best chances."""
        if most <= 0:
            return NO_DRAFT
        forced = self._forced()[:most]
        tokens, name, match = forced, "forced", 0
        best = 0.0
        for source, _ in self._expected:
            chance = self._chances.of(source.name, source.match)
            if chance > best:
                found = source.tokens(most)
                if found[: len(forced)] == forced:  # what is required, and more
                    tokens, name, match, best = found, source.name, source.match, chance
        tokens = list(takewhile(self._draftable, tokens))
        if self._allowed is not None and tokens:
            tokens = tokens[: self._allowed(tokens)]
        chances, chance = list[float](), 1.0
        for number in range(len(tokens)):
            required = number < len(forced)
            chance *= self._chances.of(*(("forced", 0) if required else (name, match + number)))
            if chance < self._LEAST:
                break
            chances.append(chance)
        return Draft(tokens=tuple(tokens[: len(chances)]), chances=tuple(chances))

    def _sources(self) -> list[_Source]:
        found = []
        match, place = self._ngrams.find()
        if match:
            found.append(
                _Source(
                    name="n-gram",
                    match=match,
                    tokens=lambda most: self._ngrams.following(place, most),
                )
            )
        alike, behind = self._forms.find()
        if alike:
            found.append(
                _Source(
                    name="form",
                    match=alike,
                    tokens=lambda most: self._forms.following(behind, most),
                )
            )
        if self._text is not None:
            found.append(_Source(name="text", match=self._text.match, tokens=self._text.following))
        return found

    def _forced(self) -> list[int]:
        """Return the tokens of the bytes that must follow, as the tokenizer would write them."""
        if self._required is None or not (data := self._required()):
            return []
        text = data.decode("utf-8", errors="ignore")
        return [token for token, _ in continue_text(self._tokenizer, self._end.word, text)]
