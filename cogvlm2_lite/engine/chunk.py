"""Chunks of prompt tokens that go through the decoder together, and where a prompt is split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from cogvlm2_lite.inputs.prompt import PromptIds, choose_vision_expert
from cogvlm2_lite.memory.work import PREFILL_CHUNK


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A run of tokens that go through the decoder together.

    input_ids     [batch, tokens] int64, in host memory: the embedding is read there
    image_mask    [batch, tokens] bool, True for image tokens
    vision_mask   [batch, tokens] bool, True for the vision expert
    position_ids  [batch, tokens] int64
    highest       largest position id; kept in host memory so that the device need not be asked
    key_mask      [batch, keys] bool over all tokens in the cache and the chunk; None: no padding
    """

    input_ids: Tensor
    image_mask: Tensor
    vision_mask: Tensor
    position_ids: Tensor
    highest: int
    has_image: bool
    key_mask: Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[1]


def split_prompt(prompt: PromptIds, start: int) -> Iterator[tuple[int, int]]:
    """Yield the chunks (start, end) of a prompt from `start` on.

    They end at the prompt's boundaries. Long texts are split further, always at the same positions,
    because the split may change the last bit of keys and values.
    """
    for end in (*prompt.boundaries, prompt.tokens):
        longest = end if prompt.image_tokens and not start else PREFILL_CHUNK
        while start < end:
            yield start, min(start + longest, end)
            start = min(start + longest, end)


def make_chunk(prompt: PromptIds, start: int, end: int) -> Chunk:
    """Return a chunk of a prompt. Its experts are chosen by the token types of the whole prompt."""
    types, positions = prompt.token_type_ids, prompt.position_ids
    vision = choose_vision_expert(types)

    def cut(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values[:, start:end].copy())

    return Chunk(
        input_ids=cut(prompt.input_ids),
        image_mask=cut(types == 1),
        vision_mask=cut(vision),
        position_ids=cut(positions),
        highest=int(positions[:, start:end].max()),
        has_image=bool((types[:, start:end] == 1).any()),
    )
