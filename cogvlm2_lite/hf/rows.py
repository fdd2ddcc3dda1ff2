"""The rows of a batch, each without its padding and with its own picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.inputs.prompt import VISION


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptRow:
    """A row of input_ids.

    columns     [tokens] the columns of its tokens; all others are padding
    ids, types  [tokens]
    pixels      [pictures, 3, side, side], or None
    """

    columns: Tensor
    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    pixels: Tensor | None

    def same_as(self, other: PromptRow) -> bool:
        """Return whether both have the same tokens and pictures."""
        if not np.array_equal(self.ids, other.ids) or not np.array_equal(self.types, other.types):
            return False
        if self.pixels is None or other.pixels is None:
            return self.pixels is other.pixels
        return torch.equal(self.pixels, other.pixels)

    def placed(self, values: Tensor, into: Tensor) -> Tensor:
        """Return the logits of the row's tokens at the row's columns.

        values   [tokens, vocab], or [1, vocab] of the last token
        into     [columns, vocab] zeros, or [1, vocab]
        Returns  as `into`. Padding after the last token has its logits, so that the next token can
                 be generated behind it.
        """
        if len(into) == 1 or len(values) == 1:
            return values[-1:].to(into.device)
        columns = self.columns.to(into.device)
        placed = into.clone()
        placed[columns] = values.to(into.device)
        placed[int(columns[-1]) + 1 :] = placed[columns[-1]]
        return placed

    def taken(self, logits: Tensor) -> Tensor:
        """Return the logits of the row's tokens from what `placed` returned."""
        return logits if len(logits) == 1 else logits[self.columns.to(logits.device)]


def prompt_rows(
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor,
    pixels: Tensor | None,
    *,
    image_tokens: int,
) -> list[PromptRow]:
    """Return the rows of a batch.

    input_ids, attention_mask, token_type_ids  [batch, tokens]
    pixels        [pictures, 3, side, side] of all rows, in order
    image_tokens  of one picture

    Raises UsageError if shapes or the number of pictures do not agree.
    """
    for name, value in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
        if value.shape != input_ids.shape:
            raise UsageError(
                "{name} must have the shape of input_ids, {expected}, not {shape}.",
                name=name,
                expected=list(input_ids.shape),
                shape=list(value.shape),
            )
    ids, types = input_ids.cpu(), token_type_ids.cpu()
    given = 0 if pixels is None else len(pixels)
    rows, taken = [], 0
    for number, mask in enumerate(attention_mask.cpu() != 0):
        columns = mask.nonzero()[:, 0]
        kinds = types[number, columns].numpy().astype(np.int64)
        places = int((kinds == VISION).sum())
        pictures, rest = divmod(places, image_tokens)
        if rest or taken + pictures > given:
            raise _wrong_places(places, image_tokens, given - taken)
        rows.append(
            PromptRow(
                columns=columns,
                ids=ids[number, columns].numpy().astype(np.int64),
                types=kinds,
                pixels=pixels[taken : taken + pictures]
                if pictures and pixels is not None
                else None,
            )
        )
        taken += pictures
    if taken < given:
        raise _wrong_places(taken * image_tokens, image_tokens, given)
    return rows


def _wrong_places(places: int, image_tokens: int, pictures: int) -> UsageError:
    return UsageError(
        "input_ids has places for {count} image tokens; {pictures} pictures have {expected}.",
        hint="Make input_ids and pixel_values with the processor.",
        count=places,
        pictures=pictures,
        expected=pictures * image_tokens,
    )
