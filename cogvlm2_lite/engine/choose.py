"""Sampling of the next token, and conditions that end an answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cogvlm2_lite.errors import EngineError
from cogvlm2_lite.sampling import Sampling

__all__ = [
    "RepetitionGuard",
    "Sampling",
    "StopTexts",
    "TokenChooser",
    "keep_likeliest",
    "penalize",
    "subtract_penalties",
]


class TokenChooser:
    """Chooses tokens of one answer.

    prompt_ids  tokens that count as having occurred, for the repetition penalty
    """

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int], device: torch.device) -> None:
        self._sampling = sampling
        self._seen = torch.tensor(sorted(set(prompt_ids)), dtype=torch.int64, device=device)
        self._counts = torch.zeros(0, device=device)
        self._generator = torch.Generator(device=device)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, logits: Tensor, allowed: Tensor | None = None) -> int:
        """Return the next token, chosen from logits [vocab] float32.

        allowed  [vocab] bool, the tokens that may come now; None: all of them. top_k and top_p do
                 not depend on it: an allowed token is drawn from those that they keep; if they keep
                 no allowed token, the most likely allowed one is taken.

        Raises EngineError if no token is allowed.
        """
        settings = self._sampling
        if settings.repetition_penalty != 1.0:
            logits = penalize(logits, self._seen, settings.repetition_penalty)
        if self._counts_tokens:
            logits = subtract_penalties(
                logits,
                self._counts_for(logits),
                settings.frequency_penalty,
                settings.presence_penalty,
            )
        greedy = settings.temperature == 0 or settings.top_k == 1
        kept = None
        if not greedy:
            kept = keep_likeliest(logits / settings.temperature, settings.top_k, settings.top_p)
        if allowed is not None:
            token = self._choose_allowed(logits, kept, allowed.to(logits.device))
        elif kept is None:
            token = logits.argmax()
        else:
            token = torch.multinomial(kept.softmax(-1), 1, generator=self._generator)
        self._count(token.reshape(1), logits)
        return int(token)

    def note(self, tokens: Sequence[int], logits: Tensor) -> None:
        """Count the tokens of an answer that is continued; logits as for `choose`."""
        for token in tokens:
            self._count(torch.tensor([token], device=logits.device), logits)

    @property
    def _counts_tokens(self) -> bool:
        return self._sampling.frequency_penalty != 0 or self._sampling.presence_penalty != 0

    def _counts_for(self, logits: Tensor) -> Tensor:
        if not self._counts.numel():
            self._counts = torch.zeros_like(logits)
        return self._counts

    def _count(self, token: Tensor, logits: Tensor) -> None:
        """Record a chosen token [1] for the penalties in use."""
        if self._sampling.repetition_penalty != 1.0:
            self._seen = torch.unique(torch.cat((self._seen, token)))
        if self._counts_tokens:
            self._counts_for(logits)[token] += 1

    def _choose_allowed(self, logits: Tensor, kept: Tensor | None, allowed: Tensor) -> Tensor:
        """Return one of the allowed tokens. kept: logits to draw from; None: greedy."""
        if kept is not None:
            # Each token gets an exponentially distributed time with its probability as the rate;
            # the token with the shortest time is a sample (torch.multinomial does the same). The
            # shortest time of an allowed token is a sample among the allowed ones.
            times = torch.empty_like(kept).exponential_(generator=self._generator)
            ranks = (kept.softmax(-1) / times).masked_fill(~allowed, 0.0)
            token = ranks.argmax()
            if ranks[token] > 0:
                return token
        ranks = logits.masked_fill(~allowed, -torch.inf)
        token = ranks.argmax()
        if not ranks[token] > -torch.inf:
            raise EngineError(
                "The model's vocabulary has no token with which the answer could continue as JSON.",
                hint="Ask without json_object.",
            )
        return token


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make seen tokens less likely: positive logits are divided, negative ones multiplied.

    logits [vocab]; seen [n] token ids. Source: CTRL (arXiv 1909.05858), as in transformers.
    """
    old = logits[seen]
    new = torch.where(old > 0, old / penalty, old * penalty)
    return logits.index_copy(0, seen, new)


def subtract_penalties(logits: Tensor, counts: Tensor, frequency: float, presence: float) -> Tensor:
    """Subtract penalties from the logits of tokens that already occur in the answer.

    logits [vocab]; counts [vocab] how often each was chosen. Source: OpenAI's API reference,
    "frequency_penalty" and "presence_penalty".
    """
    return logits - counts * frequency - (counts > 0).to(logits.dtype) * presence


def keep_likeliest(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Return logits [vocab] in which all but the most likely tokens are minus infinity.

    top_k is applied first, then top_p.
    """
    if 0 < top_k < logits.numel():
        floor = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        # A token is kept if those before it have not reached top_p; so the first is always kept.
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.index_fill(0, order[before >= top_p], -torch.inf)
    return logits


class RepetitionGuard:
    """Detects an answer that repeats the same few tokens over and over.

    Greedy decoding of the released model is known to run into endless loops (CogVLM#411). The
    thresholds allow intended repetition: a ruled table line, a row of dots, a short refrain.
    """

    MAX_PERIOD = 64
    MIN_TOKENS = 96
    MIN_REPEATS = 4

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._matches = [0] * (self.MAX_PERIOD + 1)

    def push(self, token: int) -> bool:
        """Add a token; return True if the answer has become a loop.

        _matches[p] counts how many of the last tokens equal the token p positions before them.
        """
        for period in range(1, min(self.MAX_PERIOD, len(self._ids)) + 1):
            same = self._ids[-period] == token
            self._matches[period] = self._matches[period] + 1 if same else 0
        self._ids.append(token)
        return any(
            run + period >= max(self.MIN_TOKENS, self.MIN_REPEATS * period)
            for period, run in enumerate(self._matches)
            if period
        )


class StopTexts:
    """Holds text back as long as it could be the beginning of a stop text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Add text; return the text to show now, and whether a stop text was completed."""
        self._held += text
        found = [i for stop in self._stops if (i := self._held.find(stop)) >= 0]
        if found:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def finish(self) -> str:
        """Return the text that was held back when the answer ended without a stop text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
