"""From a conversation to the tokens that are trained: one sample for each answer.

The template is that of an answer (`inputs/prompt.py`). Trained are the answer and the end token.
The released fine-tuning demo differs in several ways that lose data, see docs/finetune.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.inputs.prompt import build_prompt, token_types
from cogvlm2_lite.rows.read import Reason, Turn

NO_LABEL = -100
"""Label of a token that is not trained."""

DEFAULT_MAX_TOKENS = 4096
_FEWEST_ANSWER_TOKENS = 4
"""An answer that is cut to fewer tokens than these teaches nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """The tokens of one answer with its past.

    input_ids, token_type_ids, labels  [1, tokens] int64; position i predicts labels[i + 1]
    turn           number of the answer in its conversation, from 1
    dropped_turns  number of the oldest turns that were left out
    cut            the answer was cut, and no end is trained
    """

    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    turn: int
    dropped_turns: int = 0
    cut: bool = False

    @property
    def trained_tokens(self) -> int:
        return int((self.labels != NO_LABEL).sum())


class Encodes(Protocol):
    """A tokenizer, as far as labels need it."""

    special_texts: tuple[str, ...]
    """Texts that are encoded as one special id."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special ones."""
        ...


class Labeller:
    """Makes samples for one model.

    template    "chat", "vqa" or "base"; None: the checkpoint's
    space       whether an answer begins with a space, see `measure_answer_space`
    max_tokens  length of a sample; None: at most 4096 and the model's context

    Raises UsageError if max_tokens is above the context.
    """

    def __init__(
        self,
        tokenizer: Encodes,
        config: ModelConfig,
        *,
        template: str | None = None,
        space: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        self._tokenizer, self._config = tokenizer, config
        self._template = config.template_version if template is None else template
        self._space = space
        context = config.max_position_embeddings
        if max_tokens is not None and max_tokens > context:
            raise UsageError(
                "{param} must be at most {most}, the context of the model, not {value}.",
                param="--max-tokens",
                most=context,
                value=max_tokens,
            )
        self._most = max_tokens or min(DEFAULT_MAX_TOKENS, context)
        self._special = tokenizer.special_texts

    def samples(
        self, turns: Sequence[Turn], *, has_picture: bool
    ) -> Iterator[Labelled | tuple[int, Reason]]:
        """Yield a sample for each trained answer, or its turn and why it is skipped."""
        past: list[tuple[str, str]] = []
        for number, turn in enumerate(turns, 1):
            question, answer = turn.question.strip(), turn.answer.strip()
            if turn.trained:
                yield self._sample(past, question, answer, number, has_picture=has_picture)
            past.append((question, answer))

    def _sample(
        self,
        past: Sequence[tuple[str, str]],
        question: str,
        answer: str,
        turn: int,
        *,
        has_picture: bool,
    ) -> Labelled | tuple[int, Reason]:
        texts = (question, answer, *(text for pair in past for text in pair))
        if not answer:
            return turn, Reason.EMPTY_ANSWER
        if any(token in text for token in self._special for text in texts):
            return turn, Reason.SPECIAL_TOKEN
        config = self._config
        image_tokens = config.vision.image_tokens if has_picture else 0
        end = config.eos_token_ids[0]
        trained = [*self._tokenizer.encode(" " + answer if self._space else answer), end]

        def prompt(dropped: int) -> list[int]:
            text = build_prompt(
                question, past[dropped:], self._template, architecture=config.architecture
            )
            return self._tokenizer.encode(text)

        # 1. Leave out the oldest turns while the whole is too long; `base` has no past at all.
        before, dropped = prompt(0), 0
        keeps_past = config.architecture.templates[self._template].past != ""
        while (
            keeps_past
            and dropped < len(past)
            and 1 + image_tokens + len(before) + len(trained) > self._most
        ):
            dropped += 1
            before = prompt(dropped)
        # 2. Cut the answer, without a trained end: the model must not learn to stop there.
        room = self._most - 1 - image_tokens - len(before)
        cut = len(trained) > room
        if cut:
            trained = trained[: max(room, 0)]
            if len(trained) < _FEWEST_ANSWER_TOKENS:
                return turn, Reason.TOO_LONG
        ids = [config.bos_token_id, *[config.pad_token_id] * image_tokens, *before, *trained]
        labels = [NO_LABEL] * (len(ids) - len(trained)) + trained
        return Labelled(
            input_ids=np.array([ids], dtype=np.int64),
            token_type_ids=token_types(
                image_tokens=image_tokens, text_tokens=len(before) + len(trained)
            ),
            labels=np.array([labels], dtype=np.int64),
            turn=turn,
            dropped_turns=dropped,
            cut=cut,
        )
