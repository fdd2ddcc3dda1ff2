"""Log probabilities of an answer's tokens, emitted together with their text."""

from __future__ import annotations

from collections import deque

from torch import Tensor

from cogvlm2_lite.events import CandidateToken, TokenLogprobs, token_text
from cogvlm2_lite.inputs.tokenizer import Tokenizer

_LOWEST = -9999.0  # OpenAI's stand-in for minus infinity, which JSON lacks


class LogprobQueue:
    """Keeps the logprobs of tokens until their text is shown.

    Text may come later than its token: an incomplete character waits for its other bytes, and a
    possible start of a stop text waits for the next tokens. A token is released with the first
    character that its step added to the answer, so tokens of a stop text are never released.

    top  how many of the most likely tokens to report next to each chosen one; None: keep nothing
    """

    def __init__(self, tokenizer: Tokenizer, top: int | None) -> None:
        self._tokenizer = tokenizer
        self._top = top
        self._without_text: list[TokenLogprobs] = []
        self._waiting: deque[tuple[int, tuple[TokenLogprobs, ...]]] = deque()
        self._made = 0
        self._shown = 0

    def note(self, logits: Tensor, token: int, text: str) -> None:
        """Record a step: the model's logits [vocab], the chosen token, the text it completed.

        Logprobs are computed from these logits, before temperature and penalties.
        """
        if self._top is not None:
            self._without_text.append(logprobs_of(self._tokenizer, logits, token, self._top))
            self.note_text(text)

    def note_text(self, text: str) -> None:
        """Record text that was held back until the end of the answer."""
        if text and self._top is not None:
            self._waiting.append((self._made, tuple(self._without_text)))
            self._without_text = []
            self._made += len(text)

    def without_text(self) -> tuple[TokenLogprobs, ...]:
        """Return the tokens at the end of the answer that added no text to it."""
        return tuple(self._without_text)

    def release(self, text: str) -> tuple[TokenLogprobs, ...]:
        """Return the tokens of the text that is shown now."""
        self._shown += len(text)
        released: list[TokenLogprobs] = []
        while self._waiting and self._waiting[0][0] < self._shown:
            released += self._waiting.popleft()[1]
        return tuple(released)


def logprobs_of(tokenizer: Tokenizer, logits: Tensor, token: int, top: int) -> TokenLogprobs:
    """Return the logprob of a token, and those of the most likely tokens.

    logits  [vocab] of the model in the token's place
    top     how many of the most likely tokens
    """
    logprobs = logits.float().log_softmax(-1)
    best = logprobs.topk(min(top, logprobs.numel()))
    return TokenLogprobs(
        chosen=_candidate(tokenizer, token, float(logprobs[token])),
        top=tuple(
            _candidate(tokenizer, other, value)
            for other, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ),
    )


def _candidate(tokenizer: Tokenizer, token: int, logprob: float) -> CandidateToken:
    data = tokenizer.token_bytes(token)
    # max() in this order turns a NaN of a broken model into the lowest value, too.
    return CandidateToken(
        token=token_text(data) if data else tokenizer.token_name(token),
        data=tuple(data) if data else None,
        logprob=max(_LOWEST, logprob),
    )
