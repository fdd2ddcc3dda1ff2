"""The prompt: its text, its ids, its positions and which tokens go through the vision expert.

A prompt is `[bos] + [pad] * image_tokens + text`. The picture, if there is one, always comes right
after bos and before the whole history. The token types mark the picture's tokens; the ids do not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cogvlm2_lite.architectures.architecture import Architecture, ModelConfig, Template
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.errors import PromptTooLongError, UsageError

LANGUAGE = 0
VISION = 1

DEFAULT_ANSWER_TOKENS = 2048
"""Length of an answer in the released demos (`max_new_tokens`)."""


class TextEncoder(Protocol):
    """The part of a tokenizer that the prompt needs."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; no special token is added."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptIds:
    """A prompt in the form that the model reads.

    input_ids       [1, tokens] int64
    token_type_ids  [1, tokens] int64, 0 language, 1 image
    position_ids    [1, tokens] int64
    image_tokens    number of the picture's tokens, boi and eoi included
    dropped_turns   number of the oldest turns that were left out to make room
    room            number of tokens that the context still has for the answer
    boundaries      lengths of the prompt's prefixes that do not depend on what follows: after the
                    picture, and after each past turn. The engine computes the prompt in these
                    pieces, so that it can reuse the cached prefix for the next question.
    """

    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    image_tokens: int
    dropped_turns: int
    room: int
    boundaries: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Length of the prompt, which is also its number of KV slots."""
        return int(self.input_ids.shape[1])


def build_prompt(
    query: str,
    history: Sequence[tuple[str, str]] | None = (),
    template: str | None = "chat",
    *,
    architecture: Architecture = COGVLM2,
) -> str:
    """Return the text that the released model was trained on, character for character.

    history       earlier (question, answer) pairs, oldest first
    template      "chat"; "vqa", which asks for short answers; or "base", the query alone without
                  history. None means "chat", the released default.
    architecture  the architecture that has the templates

    Raises UsageError for an unknown template.
    """
    chosen = _find_template(template, architecture)
    return _past_turns(history or (), chosen) + chosen.question.format(question=query)


def _find_template(name: str | None, architecture: Architecture) -> Template:
    templates = architecture.templates
    name = "chat" if name is None else name
    if name not in templates:
        raise UsageError(
            "Unknown prompt template {name!r}.",
            hint="Choose one of {names}.",
            name=name,
            names=", ".join(templates),
        )
    return templates[name]


def _past_turns(history: Sequence[tuple[str, str]], template: Template) -> str:
    return "".join(template.past.format(question=q, answer=a) for q, a in history)


def token_types(*, image_tokens: int, text_tokens: int) -> NDArray[np.int64]:
    """Return the token types of a prompt: bos, then the picture (if any), then the text.

    Returns [1, 1 + image_tokens + text_tokens] int64, 0 language, 1 image
    """
    types = np.full((1, 1 + image_tokens + text_tokens), LANGUAGE, dtype=np.int64)
    types[:, 1 : 1 + image_tokens] = VISION
    return types


def derive_position_ids(
    token_types: NDArray[np.integer], attention_mask: NDArray[np.integer] | None = None
) -> NDArray[np.int64]:
    """Return positions as the released model numbers them: a picture's inner tokens share one.

    token_types     [batch, tokens], 0 language, 1 image
    attention_mask  [batch, tokens], 0 for padding; None for no padding

    The first and last token of a picture (boi and eoi) count like text. A token gets the next
    number if it is text, boi or eoi, or the first after one of them. Padding gets no number, so
    with padding on the left the first real token has position 1.

    Returns [batch, tokens] int64
    """
    # 1. Counted tokens: text, and image tokens next to text or to an end of the sequence.
    vision = token_types == VISION
    counted = token_types == LANGUAGE
    if attention_mask is not None:
        real = attention_mask.astype(bool)
        vision, counted = vision & real, counted & real
    edge = np.ones((len(vision), 1), dtype=bool)  # outside of the sequence counts as text here
    before = np.hstack([edge, counted[:, :-1]])
    after = np.hstack([counted[:, 1:], edge])
    counted = counted | (vision & (before | after))
    # 2. Where the position increases: at counted tokens, and at the first inner token of a picture.
    steps = counted.copy()
    steps[:, 1:] |= vision[:, 1:] & counted[:, :-1]
    steps[:, :1] = False
    return np.cumsum(steps, axis=1, dtype=np.int64)


def choose_vision_expert(token_types: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which tokens go through the vision expert.

    token_types  [batch, tokens], 0 language, 1 image
    Returns      [batch, tokens] bool. The last token of a picture (eoi) is False: the released
                 model sends it through the language expert, so we must do the same.
    """
    vision = token_types == VISION
    chosen = np.zeros(vision.shape, dtype=bool)
    chosen[:, :-1] = vision[:, :-1] & vision[:, 1:]
    return chosen


def encode_prompt(
    tokenizer: TextEncoder,
    config: ModelConfig,
    query: str,
    *,
    history: Sequence[tuple[str, str]] = (),
    has_image: bool = False,
    template: str | None = None,
    max_new_tokens: int = DEFAULT_ANSWER_TOKENS,
    context: int | None = None,
    given_ids: Sequence[int] = (),
) -> PromptIds:
    """Return the ids of a conversation; they fit the context with room for an answer.

    template        as in build_prompt; None: the one that the checkpoint's config names
    max_new_tokens  maximum length of the answer
    context         tokens of the key/value cache; None: `config.max_position_embeddings`
    given_ids       the ids of the text, in place of all templates; a first bos is not repeated

    Up to a quarter of the context (2048 of 8192, the answer length of the released demos) is
    reserved for the answer, and the oldest turns are dropped until the rest fits. The question
    itself is never cut: it may use all but 1/64 of the context (128 of 8192).

    Raises PromptTooLongError if even that is not enough.
    """
    architecture = config.architecture
    template = config.template_version if template is None else template
    found = _find_template(template, architecture)
    given = list(given_ids[1:] if given_ids[:1] == (config.bos_token_id,) else given_ids)
    most = config.max_position_embeddings
    context = most if context is None else min(context, most)
    image_tokens = config.vision.image_tokens if has_image else 0

    def text_ids(dropped: int) -> list[int]:
        if given_ids:
            return given
        return tokenizer.encode(
            build_prompt(query, history[dropped:], template, architecture=architecture)
        )

    def fits(dropped: int) -> bool:
        answer = min(max_new_tokens, context // 4)
        return 1 + image_tokens + len(text_ids(dropped)) + answer <= context

    # 1. Drop as few of the oldest turns as possible. A template without past turns drops none.
    droppable = len(history) if found.past else 0
    dropped = bisect_left(range(droppable), True, key=fits)
    ids = text_ids(dropped)
    tokens = 1 + image_tokens + len(ids)
    room = context - tokens
    if room < max(min(max_new_tokens, context // 64), 1):
        raise _too_long(len(ids), image_tokens, context, most)
    # 2. Types, positions and boundaries of what is left.
    types = token_types(image_tokens=image_tokens, text_tokens=len(ids))
    picture_end = 1 + image_tokens
    ends = _turn_ends(tokenizer, history[dropped:], found, ids)
    row = [config.bos_token_id] + [config.pad_token_id] * image_tokens + ids
    return PromptIds(
        input_ids=np.array([row], dtype=np.int64),
        token_type_ids=types,
        position_ids=derive_position_ids(types),
        image_tokens=image_tokens,
        dropped_turns=dropped,
        room=room,
        boundaries=tuple(picture_end + n for n in ([0] if has_image else []) + ends),
    )


def _turn_ends(
    tokenizer: TextEncoder, history: Sequence[tuple[str, str]], template: Template, ids: list[int]
) -> list[int]:
    """Return the number of ids after which each past turn ends.

    If a token spanned the end of a turn, this end and all later ones would be no boundaries. The
    tokenizer of Llama 3 has no such token: it never joins a line break with a letter.
    """
    ends: list[int] = []
    end = 0
    for turn in history if template.past else ():
        piece = tokenizer.encode(_past_turns([turn], template))
        if ids[end : end + len(piece)] != piece:
            break
        end += len(piece)
        ends.append(end)
    return ends


def _too_long(text_tokens: int, image_tokens: int, context: int, most: int) -> PromptTooLongError:
    message = (
        "The question has {count} tokens and the picture {picture}; the context has room for "
        "{context}, and the answer needs some of them."
        if image_tokens
        else "The question has {count} tokens; the context has room for {context}, and the answer "
        "needs some of them."
    )
    hint = (
        "Shorten the question, or plan for a longer context (at most {most} tokens)."
        if context < most
        else "Shorten the question."
    )
    return PromptTooLongError(
        message, hint=hint, count=text_tokens, picture=image_tokens, context=context, most=most
    )
