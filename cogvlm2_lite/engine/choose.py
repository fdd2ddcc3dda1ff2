"""Sampling of the next token, and conditions that end an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
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

    What it remembers is in host memory, so that a choice for which the device had no memory can be
    made again.

    prompt_ids  tokens that count as having occurred, for the repetition penalty
    """

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int], device: torch.device) -> None:
        self._sampling = sampling
        self._seen = set(prompt_ids)
        self._counts = Counter[int]()
        self._generator = torch.Generator(device=device)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, logits: Tensor, allowed: Tensor | None = None) -> int:
        """Return the next token, chosen from logits [vocab] float32.

        allowed  [vocab] bool in host memory, the tokens that may come now; None: all of them. top_k
                 and top_p do not depend on it: an allowed token is drawn from those that they keep;
                 if they keep no allowed token, the most likely allowed one is taken.

        Raises EngineError if no token is allowed.
        """
        token, _ = self.choose_and_fetch(logits, allowed, with_logits=False)
        return token

    def choose_and_fetch(
        self, logits: Tensor, allowed: Tensor | None = None, *, with_logits: bool
    ) -> tuple[int, Tensor]:
        """Do the same as `choose`; return also the logits, in host memory if `with_logits`.

        The host waits for the device once.
        """
        before = self._generator.get_state()
        try:
            token = self._pick(logits, allowed)
            fetch = backend_of(logits.device).fetch
            chosen, *others = fetch([token, logits] if with_logits else [token])
        except BaseException:
            self._generator.set_state(before)  # the same numbers for the next attempt
            raise
        if int(chosen) < 0:
            raise EngineError(
                "The model's vocabulary has no token with which the answer could continue as JSON.",
                hint="Ask without json_object.",
            )
        self.note([int(chosen)])
        return int(chosen), others[0] if with_logits else logits

    def note(self, tokens: Iterable[int]) -> None:
        """Count tokens of the answer: the chosen one, or those of an answer that is continued."""
        self._seen.update(tokens)
        self._counts.update(tokens)

    def _pick(self, logits: Tensor, allowed: Tensor | None) -> Tensor:
        """Return the next token as an int64 scalar on the device; negative: none is allowed.

        Nothing here lets the host wait for the device.
        """
        settings, device = self._sampling, logits.device
        if settings.repetition_penalty != 1.0 and self._seen:
            seen = _upload(sorted(self._seen), device)
            logits = penalize(logits, seen, settings.repetition_penalty)
        penalized = settings.frequency_penalty != 0 or settings.presence_penalty != 0
        if penalized and self._counts:
            chosen = _upload(list(self._counts.keys()), device)
            counts = _upload([float(n) for n in self._counts.values()], device)
            fewer = subtract_penalties(
                logits[chosen], counts, settings.frequency_penalty, settings.presence_penalty
            )
            logits = logits.index_copy(0, chosen, fewer)
        likely = None
        if settings.temperature != 0 and settings.top_k != 1:
            kept = keep_likeliest(logits / settings.temperature, settings.top_k, settings.top_p)
            likely = kept.softmax(-1)
        if allowed is not None:
            staged = backend_of(device).staged(allowed)
            return self._pick_allowed(logits, likely, staged.to(device, non_blocking=True))
        return logits.argmax() if likely is None else self._ranks(likely).argmax()

    def _ranks(self, likely: Tensor) -> Tensor:
        """Return random numbers whose highest one is that of a sample from probabilities [vocab].

        Each token gets an exponentially distributed time with its probability as the rate; the
        token with the shortest time is a sample. torch.multinomial does the same, to the bit, but
        lets the host wait for its checks.
        """
        return likely / torch.empty_like(likely).exponential_(generator=self._generator)

    def _pick_allowed(self, logits: Tensor, likely: Tensor | None, allowed: Tensor) -> Tensor:
        """Return one of the allowed tokens. likely: probabilities to draw from; None: greedy."""
        ranks = logits.masked_fill(~allowed, -torch.inf)
        token = torch.where(ranks.amax() > -torch.inf, ranks.argmax(), -1)
        if likely is None:
            return token
        # The shortest time of an allowed token is a sample among the allowed ones.
        ranks = self._ranks(likely).masked_fill(~allowed, 0.0)
        return torch.where(ranks.amax() > 0, ranks.argmax(), token)


def _upload(values: Sequence[float], device: torch.device) -> Tensor:
    """Return numbers on a device; the host does not wait for the copy."""
    return backend_of(device).staged(torch.tensor(values)).to(device, non_blocking=True)


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make seen tokens less likely: positive logits are divided, negative ones multiplied.

    logits [vocab]; seen [n] token ids. Source: CTRL (arXiv 1909.05858), as in transformers.
    """
    old = logits[seen]
    new = torch.where(old > 0, old / penalty, old * penalty)
    return logits.index_copy(0, seen, new)


def subtract_penalties(logits: Tensor, counts: Tensor, frequency: float, presence: float) -> Tensor:
    """Subtract penalties from the logits of tokens that already occur in the answer.

    logits [tokens]; counts [tokens] how often each was chosen. Source: OpenAI's API reference,
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
        dropped = torch.empty_like(order, dtype=torch.bool).scatter_(0, order, before >= top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
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
