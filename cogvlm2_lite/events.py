"""What the engine tells while it answers. Front ends turn the crank and show these.

The order of one answer: TurnsDropped?, Streaming?, Progress*, ImageEncoded?, Prefilled, TextDelta*,
Notice*, Finished. Finished is always the last one, also after a cancel. Replanned may come
anywhere.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cogvlm2_lite.text import Text


class FinishReason(Enum):
    """Why an answer ended."""

    EOS = "eos"  # the model said it is done
    STOP = "stop"  # a stop string appeared
    LENGTH = "length"  # max_new_tokens, or the context is full
    REPETITION = "repetition"  # the repetition guard broke a loop
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class TurnsDropped:
    """The conversation no longer fits the context; its oldest `count` turns were left out."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Blocks done of the phase under way ("encode" or "prefill"), and the memory held just now."""

    phase: str
    done: int
    total: int
    held_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ImageEncoded:
    """The picture is known to the decoder. `reused`: from the cache, nothing was computed."""

    image_tokens: int
    seconds: float
    reused: bool


@dataclass(frozen=True, kw_only=True)
class Prefilled:
    """The prompt is in the cache: `tokens` computed now, `reused_tokens` known from before."""

    tokens: int
    reused_tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TokenLikelihood:
    """A token and how likely the model found it.

    token    its text; bytes that are no whole letters are written as \\xe4\\xbd
    data     its bytes; None for special tokens, which stand for none
    logprob  natural logarithm of its probability, -9999 at the lowest
    """

    token: str
    data: tuple[int, ...] | None
    logprob: float


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """A token of the answer, and the likeliest ones at its place, the likeliest first."""

    chosen: TokenLikelihood
    likeliest: tuple[TokenLikelihood, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """The next piece of the answer, whole characters only.

    An answer that goes on begins with a piece that holds all it had said.

    tokens  those that begin in this piece, where Sampling.logprobs asked for them
    """

    text: str
    tokens: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something the user should know that is not part of the answer, in one sentence."""

    text: Text


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of an answer.

    prompt_tokens      all prompt tokens, image tokens included
    image_tokens       those of the picture, boi and eoi included; 0 without one
    completion_tokens  tokens the model produced, the end token included; of an answer that went on,
                       the new ones
    token_ids          all tokens of the text; given back as `begun_ids` they let it go on exactly
    """

    text: str
    reason: FinishReason
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    encode_s: float
    prefill_s: float
    decode_s: float
    token_ids: tuple[int, ...] = ()

    @property
    def tokens_per_s(self) -> float:
        """Decoding rate. The first token comes out of the prefill and is not counted."""
        steps = self.completion_tokens - 1
        return steps / self.decode_s if steps > 0 and self.decode_s > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """The plan keeps some weights in RAM or on disk; these bytes come in for each use.

    picture_bytes  once per new picture
    prompt_bytes   once per piece of text that is read
    token_bytes    once per produced token
    """

    picture_bytes: int
    prompt_bytes: int
    token_bytes: int


@dataclass(frozen=True, kw_only=True)
class Replanned:
    """Memory ran out, and a tighter plan was made. The answer goes on from what was shown.

    text          what happened, in one sentence
    budget_bytes  what the new plan uses of each device
    """

    text: Text
    budget_bytes: tuple[int, ...]


Event = (
    TurnsDropped
    | Progress
    | ImageEncoded
    | Prefilled
    | TextDelta
    | Notice
    | Streaming
    | Replanned
    | Finished
)


class Cancel:
    """A flag that another thread, or a signal handler, raises to stop an answer."""

    def __init__(self) -> None:
        self._flag = threading.Event()

    def set(self) -> None:
        """Ask the engine to stop: within one token, or one block while it reads the prompt."""
        self._flag.set()

    @property
    def is_set(self) -> bool:
        return self._flag.is_set()


class Turn(NamedTuple):
    """One finished exchange: what was asked and what the model answered.

    A named tuple, so that a plain pair `(question, answer)` can stand wherever a Turn can.
    """

    question: str
    answer: str
