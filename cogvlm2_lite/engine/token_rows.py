"""Rows of tokens for programs that choose the next tokens themselves, such as transformers.

`answer.py` turns a question into text. Here a caller has token ids, gets logits, and decides what
comes next. Prompts are computed in the same chunks, and tokens in the same decode steps, as an
answer: so the same ids get the same logits, bit for bit.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cogvlm2_lite.engine.chunk import make_chunk, split_prompt
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.engine.overflow import check_finite
from cogvlm2_lite.engine.replan import (
    DEVICE_ERROR,
    MAX_REPLANS_PER_ANSWER,
    MAY_BE_OUT_OF_MEMORY,
    device_lost,
    out_of_memory,
)
from cogvlm2_lite.engine.runtime import Result, Steps, Token, run
from cogvlm2_lite.errors import PromptTooLongError, UsageError
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.inputs.prompt import VISION, PromptIds, derive_position_ids
from cogvlm2_lite.model.kv_cache import KVCache

_LOGIT_ROWS = 256
"""Positions whose logits are computed together: 128 MiB in float32 for the 19B model."""


@dataclass(kw_only=True, eq=False)
class Row:
    """A sequence of tokens in a key/value cache of its own. The cache is freed with the row.

    position  RoPE position of the last token
    adapter   name of the adapter that acts on it; None: none
    """

    cache: KVCache
    position: int
    adapter: str | None

    def __post_init__(self) -> None:
        weakref.finalize(self, self.cache.release)

    @property
    def tokens(self) -> int:
        return self.cache.length


def prompt_of_ids(
    model: Model,
    ids: NDArray[np.int64],
    types: NDArray[np.int64],
    turn_start: Callable[[int], bool] | None = None,
) -> PromptIds:
    """Return token ids as a prompt.

    ids, types  [tokens]; types 0 language, 1 image
    turn_start  returns whether a turn starts at an index; those after the picture become
                boundaries, as in a prompt of `encode_prompt`

    Raises PromptTooLongError if the context can't hold them, and UsageError for ids that the model
    does not have.
    """
    context, vocab = model.plan.context, model.config.vocab_size
    if len(ids) > context:
        raise PromptTooLongError(
            "The prompt has {count} tokens; the context has room for {context}.",
            hint="Shorten the prompt, or load the model with a longer context.",
            count=len(ids),
            context=context,
        )
    if not len(ids) or int(ids.min()) < 0 or int(ids.max()) >= vocab:
        raise UsageError("input_ids must be between 0 and {most}.", most=vocab - 1)
    places = np.flatnonzero(types == VISION)
    # Everything up to the end of the last picture is one chunk: pictures need the vision experts.
    first = int(places[-1]) + 1 if len(places) else 1
    starts = [] if turn_start is None else [i for i in range(first + 1, len(ids)) if turn_start(i)]
    return PromptIds(
        input_ids=ids[None],
        token_type_ids=types[None],
        position_ids=derive_position_ids(types[None]),
        image_tokens=len(places),
        dropped_turns=0,
        room=context - len(ids),
        boundaries=tuple(([first] if len(places) else []) + starts),
    )


class TokenRows:
    """Computes rows of tokens with a loaded model, within its memory plan.

    If rows need more cache than the plan has room for, a plan with more room replaces it, which
    keeps fewer weights in memory. If memory runs out, a smaller one does, as for an answer.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._runtime = model.runtime
        self._live: weakref.WeakSet[Row] = weakref.WeakSet()

    def begin(
        self, prompt: PromptIds, pixels: Tensor | None = None, *, every: bool = False
    ) -> tuple[Row, Tensor]:
        """Compute a prompt; return its row and the logits after its last token.

        pixels   [pictures, 3, image_size, image_size], normalised; None: no picture
        every    return the logits of every position. Otherwise the picture is not computed again
                 if it is in the picture cache
        Returns  the row, and [tokens, vocab] or [1, vocab] float32
        """
        self._check_pixels(prompt, pixels)
        self._make_room([prompt.tokens])
        row = Row(
            cache=self._runtime.new_cache(),
            position=int(prompt.position_ids[0, -1]),
            adapter=self._model.adapter,
        )
        try:
            logits = self._prefill(prompt, pixels, row, every=every)
            self._live.add(row)
            return row, logits
        except BaseException:
            row.cache.release()  # the error may keep the row alive
            raise

    def extend(self, rows: Sequence[Row], tokens: Sequence[int]) -> list[Tensor]:
        """Append a language token to each row, in one decode step; return logits [vocab] of each.

        Each row gets the same logits as alone, bit for bit. Raises PromptTooLongError if a row
        fills the context.
        """
        self._make_room([])
        context = self._model.plan.context
        if any(row.tokens >= context for row in rows):
            raise PromptTooLongError(
                "The context of {context} tokens is full.",
                hint="Load the model with a longer context, or generate fewer tokens.",
                context=context,
            )
        steps = [
            Token(token=token, position=row.position + 1, cache=row.cache, adapter=row.adapter)
            for row, token in zip(rows, tokens, strict=True)
        ]
        logits = self._run(partial(_at_once, partial(self._runtime.decode_each, steps)))
        for row in rows:
            row.position += 1
        return logits

    def copy(self, row: Row) -> Row:
        """Return a row with the same tokens in a cache of its own."""
        self._make_room([row.tokens])
        prefix = row.cache.prefix(row.tokens, torch.device("cpu"))
        twin = Row(cache=self._runtime.new_cache(), position=row.position, adapter=row.adapter)
        self._run(partial(_at_once, partial(twin.cache.restore, prefix)))
        self._live.add(twin)
        return twin

    def _make_room(self, more: Sequence[int]) -> None:
        """Let the plan have room for the caches of all rows after the next step.

        more  tokens of rows that are about to be made

        Raises DoesNotFitError if no plan has.
        """
        self._model.spare_slots()
        step, context = KVCache.GROWTH, self._model.plan.context
        lengths = [*more, *(row.tokens + 1 for row in self._live)]
        needed = sum(min(-(-length // step) * step, context) for length in lengths)
        parallel = -(-needed // context)
        if parallel > self._model.plan.parallel:
            self._model.replanner.make_room(parallel)
            self._model.pictures.resize(self._model.plan.picture_cache_bytes)

    def _check_pixels(self, prompt: PromptIds, pixels: Tensor | None) -> None:
        vision = self._model.config.vision
        pictures = 0 if pixels is None else len(pixels)
        if prompt.image_tokens != pictures * vision.image_tokens:
            raise UsageError(
                "The prompt has places for {expected} image tokens, not for {count}.",
                expected=prompt.image_tokens,
                count=pictures * vision.image_tokens,
            )
        side = vision.image_size
        if pixels is not None and tuple(pixels.shape[1:]) != (vision.in_channels, side, side):
            raise UsageError(
                "pixel_values must have the shape [batch, {expected}], not {shape}.",
                expected=f"{vision.in_channels}, {side}, {side}",
                shape=list(pixels.shape),
            )

    def _prefill(
        self, prompt: PromptIds, pixels: Tensor | None, row: Row, *, every: bool
    ) -> Tensor:
        runtime, pictures = self._runtime, self._model.pictures
        # 1. What the picture cache has of the prompt is not computed again.
        picture, reused = self._picture_key(prompt, pixels, row), 0
        if picture and not every:
            kept = pictures.get(picture, row.cache, 1 + prompt.image_tokens)
            if kept is not None:
                self._run(partial(_at_once, partial(row.cache.restore, kept)))
                reused = kept.tokens
        # 2. Encode pictures one at a time, as `ask` does: a batch could change the last bit.
        features = None
        if pixels is not None and not reused:
            encoded = [
                self._run(partial(runtime.encode, pixels[i : i + 1].cpu(), Cancel(), row.adapter))
                for i in range(len(pixels))
            ]
            features = torch.cat(encoded)
        # 3. Run the chunks; keep the picture, and the logits that are asked for.
        logits, hidden = [], None
        for start, end in split_prompt(prompt, reused):
            chunk = make_chunk(prompt, start, end)
            # Nothing of an earlier chunk may be alive: the plan has no room for it.
            hidden, seen = None, None
            if chunk.has_image:
                seen, features = features, None
            work = partial(runtime.prefill, chunk, seen, row.cache, Cancel(), row.adapter)
            hidden = self._run(work)
            if picture and chunk.has_image:
                pictures.put(picture, row.cache, end)
            if every:
                logits.append(self._logits(hidden[:, :-1] if end == prompt.tokens else hidden))
        assert hidden is not None
        logits.append(self._logits(hidden[:, -1:]))
        return torch.cat(logits)

    def _picture_key(self, prompt: PromptIds, pixels: Tensor | None, row: Row) -> str | None:
        """Return what identifies the picture, if the prompt begins with bos and one picture."""
        if pixels is None or len(pixels) != 1:
            return None
        types, bos = prompt.token_type_ids[0], self._model.config.bos_token_id
        begins = prompt.input_ids[0, 0] == bos and types[0] != VISION
        if not begins or not (types[1 : 1 + prompt.image_tokens] == VISION).all():
            return None
        held = pixels.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{held.dtype} {list(held.shape)}\n".encode())
        digest.update(held.view(torch.uint8).numpy().data)
        return self._runtime.adapters.key(row.adapter).of_picture(digest.hexdigest())

    def _logits(self, hidden: Tensor) -> Tensor:
        """Return logits, [1, tokens, hidden] -> [tokens, vocab], a few positions at a time."""
        check_finite(hidden, self._runtime.dtype)
        ends = [*range(0, hidden.shape[1], _LOGIT_ROWS), hidden.shape[1]]
        pieces = [
            self._run(
                partial(_at_once, partial(self._runtime.compute_logits, hidden[:, start:end]))
            )
            for start, end in pairwise(ends)
        ]
        return torch.cat(pieces, dim=1)[0] if pieces else hidden.new_zeros(0, self._vocab).float()

    @property
    def _vocab(self) -> int:
        return self._model.config.vocab_size

    def _run(self, work: Callable[[], Steps[Result]]) -> Result:
        """Run work to its end; if memory runs out, replan and run it again."""
        model, replans = self._model, 0
        while True:
            try:
                return run(work())
            except MAY_BE_OUT_OF_MEMORY as error:
                if replans == MAX_REPLANS_PER_ANSWER or not out_of_memory(error):
                    if isinstance(error, DEVICE_ERROR) and not out_of_memory(error):
                        raise device_lost(error) from error
                    raise
                replans += 1
            # Outside of the handler, because the error keeps the tensors of the failed work alive.
            model.replanner.replan()
            model.pictures.resize(model.plan.picture_cache_bytes)


def _at_once(work: Callable[[], Result]) -> Steps[Result]:
    """Wrap work that reports no progress."""
    yield from ()
    return work()
