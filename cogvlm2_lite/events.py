"""The events that the engine yields while it answers. Front ends iterate over them.

Their order is TurnsDropped?, PictureOpened?, Streaming?, Progress*, ImageEncoded?, PromptScored?,
Prefilled, TextDelta*, Notice*, Finished. Finished is always the last one, also after a cancel.
Replanned may come anywhere, and Progress of a token that takes long also after Prefilled. Counts
are whole numbers and seconds are floats, both 0 or more.
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

    EOS = "eos"  # the model produced an end token
    STOP = "stop"  # a stop string appeared
    LENGTH = "length"  # max_new_tokens, or the context is full
    REPETITION = "repetition"  # the repetition guard stopped a loop
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
    """Base of the events. Their JSON form is {"event": "text_delta", "text": ...}."""


class TurnsDropped(_Event, frozen=True, kw_only=True):
    """The conversation is longer than the context; its oldest `count` turns were left out."""

    count: Count


class PictureOpened(_Event, frozen=True, kw_only=True):
    """How the picture was read; yielded if it has several pages, or a notice.

    page, pages  the page or frame that was read, from 1, and how many the file has
    notices      what a person would not expect
    """

    page: Count
    pages: Count
    notices: tuple[Text, ...] = ()


class Progress(_Event, frozen=True, kw_only=True):
    """Finished blocks of the phase, and the memory in use.

    phase  "load", "encode" or "prefill"; "decode": the blocks of one token, only if it takes long
    """

    phase: str
    done: Count
    total: Count
    held_bytes: Count = 0


class ImageEncoded(_Event, frozen=True, kw_only=True):
    """The picture is encoded. `reused`: it was in the cache, and nothing was computed."""

    image_tokens: Count
    seconds: Seconds
    reused: bool


class Prefilled(_Event, frozen=True, kw_only=True):
    """The prompt is in the key/value cache: `tokens` computed, `reused_tokens` from the cache."""

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


def token_text(data: bytes) -> str:
    r"""Return a token's bytes as text; bytes of an incomplete character as \xe4\xbd."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in data)


class TokenLogprobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token of the answer, and the most likely tokens at its position, in order."""

    chosen: CandidateToken
    top: tuple[CandidateToken, ...] = ()


class PromptScored(_Event, frozen=True, kw_only=True):
    """The log probability of each text token of the prompt, if they were asked for.

    text    of the prompt
    tokens  all of them but the one that begins every prompt; or the last ones that were asked for
    begins  the name of that token if the question had it as its first token; "": it had not
    """

    text: str
    tokens: tuple[TokenLogprobs, ...]
    begins: str = ""


class TextDelta(_Event, frozen=True, kw_only=True):
    """The next piece of the answer, in whole characters.

    A continued answer begins with a piece that contains the text so far.

    tokens  those that begin in this piece, if Sampling.logprobs is set
    """

    text: str
    tokens: tuple[TokenLogprobs, ...] = ()


class Notice(_Event, frozen=True, kw_only=True):
    """A sentence for the user that is not part of the answer."""

    text: Text


COARSE_PICTURE = Text("The picture was computed with activations of 8 bits.")
"""A notice about a picture; see `cogvlm2_lite.load`."""

TOO_LARGE_FOR_FLOAT16 = Text(
    "The numbers of this model are too large for float16, so it computes in float32 from now on. "
    "This is slower and needs more memory."
)
"""The text of the Notice about a model that is computed in another number type from now on."""


class Finished(_Event, frozen=True, kw_only=True):
    """The end of an answer.

    text               the answer as the model wrote it: most begin with a space, which is a part of
                       the first token; `text.strip()` is what front ends show
    prompt_tokens      all prompt tokens, including image tokens
    image_tokens       those of the picture, including boi and eoi; 0 without one
    completion_tokens  tokens the model produced, including the end token; for a continued answer,
                       the new ones
    token_ids          all tokens of the text; passed as `continue_ids` they continue it exactly
    decode_passes      passes over the weights that produced the tokens after the first one
    draft_tokens       tokens that were proposed and computed in these passes
    accepted_tokens    those of them that the model chose
    activations        "int8" if the picture was computed with activations of 8 bits
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
    decode_passes: Count = 0
    draft_tokens: Count = 0
    accepted_tokens: Count = 0
    activations: str = "auto"

    @property
    def tokens_per_s(self) -> float:
        """Decoding rate. The first token is part of prefill and is not counted."""
        steps = self.completion_tokens - 1
        return steps / self.decode_s if steps > 0 and self.decode_s > 0 else 0.0


class Streaming(_Event, frozen=True, kw_only=True):
    """The plan streams some weights from RAM or disk; these bytes are copied for each use.

    picture_bytes  once per new picture
    prompt_bytes   once per prompt
    token_bytes    once per produced token
    """

    picture_bytes: Count
    prompt_bytes: Count
    token_bytes: Count


class Replanned(_Event, frozen=True, kw_only=True):
    """Memory ran out, and a plan with a smaller budget was made. The answer continues.

    text          what happened, in one sentence
    budget_bytes  budget of the new plan on each device
    """

    text: Text
    budget_bytes: tuple[Count, ...]


Event = (
    TurnsDropped
    | PictureOpened
    | Progress
    | ImageEncoded
    | Prefilled
    | PromptScored
    | TextDelta
    | Notice
    | Streaming
    | Replanned
    | Finished
)


class Cancel:
    """A flag that another thread or a signal handler sets to stop an answer."""

    def __init__(self) -> None:
        self._flag = threading.Event()

    def set(self) -> None:
        """Request a stop within one token, or within one block during encode and prefill."""
        self._flag.set()

    @property
    def is_set(self) -> bool:
        return self._flag.is_set()


class Turn(NamedTuple):
    """A question and its answer.

    A named tuple, so that a pair `(question, answer)` can be used in its place.
    """

    question: str
    answer: str
