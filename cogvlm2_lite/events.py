"""What the engine tells while it answers. Front ends turn the crank and show these.

The order of one answer: TurnsDropped?, Streaming?, Progress*, ImageEncoded?, Prefilled, TextDelta*,
Notice*, Finished. Finished is always the last one, also after a cancel. Replanned may come
anywhere. Counts are whole numbers and seconds are floats, both 0 or more.
"""

from __future__ import annotations

import re
import threading
from enum import Enum
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from cogvlm2_lite.text import Text


class FinishReason(Enum):
    """Why an answer ended."""

    EOS = "eos"  # the model said it is done
    STOP = "stop"  # a stop string appeared
    LENGTH = "length"  # max_new_tokens, or the context is full
    REPETITION = "repetition"  # the repetition guard broke a loop
    CANCELLED = "cancelled"


Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Byte = Annotated[int, Meta(ge=0, le=255)]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class _Event(
    Struct,
    frozen=True,
    kw_only=True,
    tag_field="event",
    tag=_snake_case,
    forbid_unknown_fields=True,
):
    """How events are written in JSON: {"event": "text_delta", "text": ...}."""


class TurnsDropped(_Event, frozen=True, kw_only=True):
    """The conversation no longer fits the context; its oldest `count` turns were left out."""

    count: Count


class Progress(_Event, frozen=True, kw_only=True):
    """Blocks done of the phase under way ("encode" or "prefill"), and the memory held just now."""

    phase: str
    done: Count
    total: Count
    held_bytes: Count = 0


class ImageEncoded(_Event, frozen=True, kw_only=True):
    """The picture is known to the decoder. `reused`: from the cache, nothing was computed."""

    image_tokens: Count
    seconds: Seconds
    reused: bool


class Prefilled(_Event, frozen=True, kw_only=True):
    """The prompt is in the cache: `tokens` computed now, `reused_tokens` known from before."""

    tokens: Count
    reused_tokens: Count
    seconds: Seconds


class CandidateToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token and its log probability.

    token    its text; bytes of an incomplete character are written as \\xe4\\xbd
    data     its bytes; None for special tokens, which have none
    logprob  natural logarithm of its probability, -9999 at least
    """

    token: str
    data: tuple[Byte, ...] | None
    logprob: float


class TokenLogprobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token of the answer, and the most likely tokens at its place, most likely first."""

    chosen: CandidateToken
    top: tuple[CandidateToken, ...] = ()


class TextDelta(_Event, frozen=True, kw_only=True):
    """The next piece of the answer, whole characters only.

    An answer that is continued begins with a piece that holds the text so far.

    tokens  those that begin in this piece, where Sampling.logprobs asked for them
    """

    text: str
    tokens: tuple[TokenLogprobs, ...] = ()


class Notice(_Event, frozen=True, kw_only=True):
    """Something the user should know that is not part of the answer, in one sentence."""

    text: Text


class Finished(_Event, frozen=True, kw_only=True):
    """The end of an answer.

    prompt_tokens      all prompt tokens, image tokens included
    image_tokens       those of the picture, boi and eoi included; 0 without one
    completion_tokens  tokens the model produced, the end token included; of an answer that went on,
                       the new ones
    token_ids          all tokens of the text; given back as `begun_ids` they let it go on exactly
    """

    text: str
    reason: FinishReason
    prompt_tokens: Count
    image_tokens: Count
    completion_tokens: Count
    encode_s: Seconds
    prefill_s: Seconds
    decode_s: Seconds
    token_ids: tuple[Count, ...] = ()

    @property
    def tokens_per_s(self) -> float:
        """Decoding rate. The first token comes out of the prefill and is not counted."""
        steps = self.completion_tokens - 1
        return steps / self.decode_s if steps > 0 and self.decode_s > 0 else 0.0


class Streaming(_Event, frozen=True, kw_only=True):
    """The plan keeps some weights in RAM or on disk; these bytes come in for each use.

    picture_bytes  once per new picture
    prompt_bytes   once per piece of text that is read
    token_bytes    once per produced token
    """

    picture_bytes: Count
    prompt_bytes: Count
    token_bytes: Count


class Replanned(_Event, frozen=True, kw_only=True):
    """Memory ran out, and a tighter plan was made. The answer goes on from what was shown.

    text          what happened, in one sentence
    budget_bytes  what the new plan uses of each device
    """

    text: Text
    budget_bytes: tuple[Count, ...]


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
