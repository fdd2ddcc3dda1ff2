"""A loaded model: its mathematics, its weights' residency, and the loops over its blocks."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from cogvlm2_lite.config import ModelConfig
from cogvlm2_lite.devices import Compute, has_avx512_bf16
from cogvlm2_lite.events import Cancel, Progress
from cogvlm2_lite.memory.phases import Phase
from cogvlm2_lite.memory.residency import Loader, Residency
from cogvlm2_lite.model.attention import visible_keys
from cogvlm2_lite.model.decoder import Decoder, Routing, Step, place_features
from cogvlm2_lite.model.full_attention import choose_full_attention
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.rotary import RopeMode, Rotary
from cogvlm2_lite.model.vision import VisionTower
from cogvlm2_lite.weights.names import expected_tensors

_ALL_LANGUAGE = Routing(vision=None)


class Cancelled(Exception):  # noqa: N818 - a signal, not an error
    """Unwinds a phase after Cancel.set(). Never leaves the engine."""


Result = TypeVar("Result")
Steps = Generator[Progress, None, Result]
"""Work that tells its progress while it runs and returns a result."""


def run(steps: Steps[Result]) -> Result:
    """Do the work without looking at its progress."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A run of tokens that go through the decoder together.

    input_ids       [batch, tokens] int64
    image_mask      [batch, tokens] bool, True for image tokens
    vision_mask     [batch, tokens] bool, True for the vision expert
    position_ids    [batch, tokens] int64
    key_mask        [batch, keys] bool over everything in the cache and the chunk; None: no padding
    highest         largest position id, known to the host so that the device need not be asked
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


class Runtime:
    """Runs the three phases. One answer at a time."""

    def __init__(
        self, config: ModelConfig, loader: Loader, compute: Compute, rope: RopeMode
    ) -> None:
        self.config = config
        self.device, self.dtype = compute.device, compute.dtype
        self.attention = choose_full_attention(
            self.device, self.dtype, bf16_cpu=has_avx512_bf16()
        )
        self.tower = VisionTower(config.vision, self.attention.attend)
        self.projector = Projector(config)
        self.decoder = Decoder(config)
        self.rotary = Rotary(config, rope, dtype=self.dtype, device=self.device)
        self.residency = Residency(
            loader,
            {spec.name: spec.part for spec in expected_tensors(config).values()},
            [
                self.tower.embedding,
                self.projector,
                self.decoder.embedding,
                self.decoder.head,
                self.rotary,
            ],
        )

    def new_cache(self, batch: int = 1) -> KVCache:
        """Give an empty key/value cache."""
        return KVCache(self.config, batch=batch, dtype=self.dtype, device=self.device)

    def encode(self, pixel_values: Tensor, cancel: Cancel) -> Steps[Tensor]:
        """Encode pictures; yields Progress per block and returns the features.

        pixel_values  [batch, channels, height, width], normalised
        Returns       [batch, image tokens with boi and eoi, hidden]
        """
        with self.residency.phase(Phase.ENCODE):
            hidden = self.tower.embedding(pixel_values.to(self.device, self.dtype))
            total = len(self.tower.blocks)
            for done, block in enumerate(self.residency.walk(self.tower.blocks), 1):
                hidden = block(hidden)
                _check(cancel)
                yield Progress(phase="encode", done=done, total=total)
            return self.projector(hidden)

    def prefill(
        self, chunk: Chunk, features: Tensor | None, cache: KVCache, cancel: Cancel
    ) -> Steps[Tensor]:
        """Run a chunk behind what the cache holds; yields Progress per block.

        features  [images, image tokens, hidden] for the chunk's image tokens, or None
        Returns   [batch, tokens, hidden], before the final norm
        """
        phase = Phase.PREFILL_IMAGE if chunk.has_image else Phase.PREFILL_TEXT
        with self.residency.phase(phase):
            hidden = self.decoder.embedding(chunk.input_ids)
            if features is not None:
                hidden = place_features(hidden, features, chunk.image_mask)
            step = self._step(chunk, cache)
            total = len(self.decoder.blocks)
            for done, block in enumerate(self.residency.walk(self.decoder.blocks), 1):
                hidden = block(hidden, step)
                _check(cancel)
                yield Progress(phase="prefill", done=done, total=total)
            cache.advance(chunk.tokens)
            return hidden

    def score(self, hidden: Tensor) -> Tensor:
        """Score the vocabulary, [batch, tokens, hidden] -> [batch, tokens, vocab] float32."""
        with self.residency.phase(Phase.DECODE):
            return self.decoder.head(hidden)

    def decode_one_token(self, token: int, position: int, cache: KVCache) -> Tensor:
        """Run one produced token, a language token always; gives scores [vocab] float32."""
        cache.reserve(cache.length + 1)
        with self.residency.phase(Phase.DECODE):
            hidden = self.decoder.embedding(torch.tensor([[token]], device=self.device))
            step = Step(
                routing=_ALL_LANGUAGE,
                rotations=self.rotary.rotations(
                    torch.tensor([[position]], device=self.device), position
                ),
                mask=None,
                causal=False,
                cache=cache,
            )
            for block in self.residency.walk(self.decoder.blocks):
                hidden = block(hidden, step)
            cache.advance(1)
            return self.decoder.head(hidden)[0, -1]

    def _step(self, chunk: Chunk, cache: KVCache) -> Step:
        keys = cache.length + chunk.tokens
        cache.reserve(keys)
        # A chunk behind others needs a mask: torch's causal flag assumes as many keys as queries.
        first = cache.length == 0 and chunk.key_mask is None
        mask = None if first else visible_keys(chunk.tokens, keys, chunk.key_mask, self.device)
        return Step(
            routing=Routing.of(chunk.vision_mask) if chunk.has_image else _ALL_LANGUAGE,
            rotations=self.rotary.rotations(chunk.position_ids, chunk.highest),
            mask=mask,
            causal=first,
            cache=cache,
        )


def _check(cancel: Cancel) -> None:
    if cancel.is_set:
        raise Cancelled
