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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from cogvlm2_lite.engine.draft_fields import Fields
from cogvlm2_lite.engine.draft_forms import Forms
from cogvlm2_lite.engine.draft_json import LIKELY, JsonText, RequiredAfter
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
        self._kept = [""]
        self._after: dict[tuple[int, ...], list[int]] = {}
        """Two or three tokens -> places in _ids of what followed them."""
        for text in texts:
            for token in text:
                self.push(token)
            self.push(_SEPARATOR)

    def push(self, token: int, kept: str = "") -> None:
        """Add the next token.

        kept  what is known about whether it stays the same when its surroundings are repeated
        """
        ids, place = self._ids, len(self._ids)
        if place >= 2 and token != _SEPARATOR and ids[-1] != _SEPARATOR:
            self._after.setdefault((ids[-2], ids[-1]), []).append(place)
            if place >= 3 and ids[-2] != _SEPARATOR:
                self._after.setdefault((ids[-3], ids[-2], ids[-1]), []).append(place)
        ids.append(token)
        self._kept.append(kept)

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

    def kept(self, place: int) -> str:
        """Return what is known about a token."""
        return self._kept[place] if place < len(self._kept) else ""

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
    "n-gram, kept": (0.5, 0.05),
    "n-gram, changed": (0.1, 0.05),
    "form": (0.05, 0.08),
    "form, kept": (0.5, 0.05),
    "form, changed": (0.05, 0.05),
    "text": (0.7, 0.05),
    "forced": (0.95, 0.0),
    "likely": (0.7, 0.0),
    "point": (0.3, 0.0),
    "word": (0.7, 0.05),
    "number": (0.7, 0.05),
    "between": (0.5, 0.15),
    "new": (0.2, 0.05),
    "doubtful": (0.2, 0.05),
}
_END = 0.3, 0.0
_WHOLE_NUMBER = "end of number 0"
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
        first, further = _PRIORS.get(source, _END)
        return min(first + further * _bucket(match), self._MOST)


def _bucket(match: int) -> int:
    """Return a number for matches that are about equally good."""
    return match if match < 8 else 8 if match < 16 else 9


@dataclass(frozen=True, kw_only=True)
class _Guess:
    """A token that a source expects.

    match  how many tokens before it agree with the source, or how often it was right there
    """

    token: int
    source: str
    match: int


def _guesses(
    source: str,
    match: int,
    tokens: Sequence[int],
    kept: Callable[[int], str] = lambda number: "",
) -> list[_Guess]:
    return [
        _Guess(token=token, source=source + kept(number), match=match + number)
        for number, token in enumerate(tokens)
    ]


class Drafter:
    """Proposes the next tokens of one answer.

    texts      tokens of texts that parts of the answer may repeat
    resembled  a text that the whole answer resembles; "": none
    draftable  returns whether a token may be in a draft
    required   returns the bytes that must follow the answer and a text; None: it is no JSON
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
        required: RequiredAfter | None = None,
        allowed: Callable[[Sequence[int]], int] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._draftable, self._allowed = draftable, allowed
        self._json = JsonText(required)
        self._end = AnswerEnd(tokenizer)
        self._text: DraftedText | None = None
        self._fields: Fields | None = None
        if resembled.strip():
            self._text = DraftedText(tokenizer, resembled[: self.MOST_CHARACTERS], self._end)
            self._fields = Fields(tokenizer, self._text.text, self._end, self._json)
            texts = [*texts, tokenizer.encode(self._text.text)]
        self._ngrams = NGrams(texts)
        self._forms = Forms(tokenizer)
        self._chances = _Chances()
        self._expected: list[_Guess] = []

    def push(self, token: int) -> None:
        """Add the next token of the answer."""
        for guess in self._expected:
            self._chances.note(guess.source, guess.match, right=token == guess.token)
        self._end.push(token)
        self._json.push(self._end.new)
        kept = ""
        repeated = [g for g in self._expected if g.source.startswith(("n-gram", "form"))]
        if repeated:
            same = any(guess.token == token for guess in repeated)
            kept = ", kept" if same else ", changed"
        self._ngrams.push(token, kept)
        self._forms.push(token, kept)
        if self._text is not None:
            self._text.push(token)
        if self._fields is not None:
            self._fields.push(token)
        self._expected = [found[0] for found in self._sources(1)]

    def propose(self, most: int) -> Draft:
        """Return the draft of up to `most` tokens of which the answer probably takes most."""
        if most <= 0:
            return NO_DRAFT
        best, draft = 0.0, NO_DRAFT
        for found in self._sources(most):
            chances = self._chances_of(found)
            tokens = [guess.token for guess in found[: len(chances)]]
            tokens = list(takewhile(self._draftable, tokens))
            if self._allowed is not None and tokens:
                tokens = tokens[: self._allowed(tokens)]
            chances = chances[: len(tokens)]
            if sum(chances) > best:
                best, draft = sum(chances), Draft(tokens=tuple(tokens), chances=tuple(chances))
        return draft

    def _chances_of(self, guesses: Sequence[_Guess]) -> list[float]:
        """Return how probably the answer takes each token and all before it, while it is likely."""
        chances, chance = list[float](), 1.0
        for guess in guesses:
            chance *= self._chances.of(guess.source, guess.match)
            if chance < self._LEAST:
                break
            chances.append(chance)
        return chances

    def _sources(self, most: int) -> Iterator[list[_Guess]]:
        """Yield up to `most` tokens that each source expects; none is empty."""
        if forced := self._forced():
            yield forced[:most]
        elif closing := self._closing():
            yield closing[:most]
            if closing[0].source == _WHOLE_NUMBER:
                yield _guesses("point", 0, self._tokenizer.encode(".")[:1])
        match, place = self._ngrams.find()
        if match:
            yield _guesses(
                "n-gram",
                match,
                self._ngrams.following(place, most),
                lambda n: self._ngrams.kept(place + n),
            )
        alike, behind = self._forms.find()
        if alike:
            yield _guesses(
                "form",
                alike,
                self._forms.following(behind, most),
                lambda n: self._forms.kept(behind + n),
            )
        if self._text is not None and (found := self._text.following(most)):
            yield _guesses("text", self._text.match, found)
        if self._fields is not None and (joined := self._fields.following(most)):
            yield [
                _Guess(token=each.token, source=each.kind, match=each.evidence) for each in joined
            ]

    def _forced(self) -> list[_Guess]:
        """Return the tokens of what a schema requires, as the tokenizer would write them."""
        text, kinds = self._json.following()
        return self._of_json(text, kinds)

    def _closing(self) -> list[_Guess]:
        """Return the tokens of what follows if a value of JSON ends here."""
        text, kinds, value = self._json.closing()
        found = self._of_json(text, kinds)
        if found:
            found[0] = _Guess(token=found[0].token, source=f"end of {value}", match=0)
        return found

    def _of_json(self, text: str, kinds: str) -> list[_Guess]:
        if not text or not self._end.complete:
            return []
        found, begin = list[_Guess](), 0
        for token, end in continue_text(self._tokenizer, self._end.word, text):
            source = "likely" if LIKELY in kinds[begin:end] else "forced"
            found.append(_Guess(token=token, source=source, match=0))
            begin = end
        return found
