"""The model taken apart: its blocks one after another, each on all samples.

What calibrating (`calibrate.py`) and judging (`judge.py`) share. Nothing here decides or writes
anything; whoever walks over the blocks fills them, runs them and keeps what they give.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from cogvlm2_lite.inputs.image import pixel_values
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.model.decoder import Decoder, Routing, Step, place_features
from cogvlm2_lite.model.full_attention import choose_full_attention
from cogvlm2_lite.model.kv_cache import KVCache, Place
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.rotary import RopeMode, Rotary
from cogvlm2_lite.model.vision import VisionTower
from cogvlm2_lite.samples.samples import Sample, SampleTokens, opened, tokenize
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.slots import WeightSlot


class Network:
    """The blocks of a checkpoint, empty until they are filled, and the samples that go through.

    samples  those of one picture together
    """

    def __init__(
        self,
        catalog: Catalog,
        samples: Sequence[Sample],
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.config = catalog.config
        self.samples = samples
        self.device, self.dtype = device, dtype
        self._tokenizer = tokenizer
        self._loader = WeightLoader(catalog, device=device, dtype=dtype)
        attention = choose_full_attention(device, dtype)
        self.tower = VisionTower(self.config.vision, attention.attend)
        self.projector = Projector(self.config)
        self.decoder = Decoder(self.config)

    # --- what goes through -----------------------------------------------------------------------

    @cached_property
    def pictures(self) -> list[int]:
        """For each distinct picture, the first sample that shows it."""
        seen: dict[str, int] = {}
        for number, sample in enumerate(self.samples):
            picture = opened(sample)
            if picture is not None:
                seen.setdefault(picture.sha256, number)
        return list(seen.values())

    @cached_property
    def picture_of(self) -> list[int | None]:
        """For each sample, the number in `pictures` of what it shows."""
        order: dict[str, int] = {}
        found: list[int | None] = []
        for sample in self.samples:
            picture = opened(sample)
            found.append(None if picture is None else order.setdefault(picture.sha256, len(order)))
        return found

    @cached_property
    def tokens(self) -> list[SampleTokens]:
        """The words of each sample."""
        return [tokenize(sample, self._tokenizer, self.config) for sample in self.samples]

    @property
    def activation_bytes(self) -> int:
        """What the activations of all samples take between two blocks, where they are most."""
        vision = self.config.vision
        in_tower = len(self.pictures) * vision.num_positions * vision.hidden_size
        in_decoder = sum(t.input_ids.size for t in self.tokens) * self.config.hidden_size
        return max(in_tower, in_decoder) * self.dtype.itemsize

    # --- the steps; the slots they need must be filled ------------------------------------------

    def embed_picture(self, index: int) -> Tensor:
        """Give the patches of a picture, [1, positions, vision hidden]."""
        picture = opened(self.samples[self.pictures[index]])
        assert picture is not None
        pixels = torch.from_numpy(pixel_values(picture, self.config.vision))
        return self.tower.embedding(self.put(pixels))

    def embed_words(self, index: int, features: Tensor | None) -> Tensor:
        """Give the words of a sample with its picture in place, [1, tokens, hidden], on the CPU.

        features  [1, image tokens, hidden] on the CPU; None for a sample without a picture
        """
        tokens = self.tokens[index]
        hidden = self.decoder.embedding(torch.from_numpy(tokens.input_ids)).to(self.dtype)
        if features is None:
            return hidden
        return place_features(hidden, features, torch.from_numpy(tokens.token_type_ids == 1))

    def step(self, index: int) -> Step:
        """Give what the decoder's layers share for a sample."""
        tokens = self.tokens[index]
        positions = torch.from_numpy(tokens.position_ids)
        routing = Routing(vision=None)
        if tokens.vision_mask.any():
            routing = Routing.of(torch.from_numpy(tokens.vision_mask)).to(self.device)
        return Step(
            routing=routing,
            rotations=self._rotary.rotations(positions.to(self.device), int(positions.max())),
            mask=None,
            causal=True,
            cache=_NoCache(),
        )

    @cached_property
    def _rotary(self) -> Rotary:
        rotary = Rotary(self.config, RopeMode.REFERENCE, dtype=self.dtype, device=self.device)
        self.fill(rotary.slots())
        return rotary

    # --- weights and activations -----------------------------------------------------------------

    def put(self, tensor: Tensor) -> Tensor:
        """Bring activations to where they are computed with."""
        return tensor.to(self.device, self.dtype)

    def fill(self, slots: Iterable[WeightSlot]) -> None:
        """Read the source's weights into slots."""
        for slot in slots:
            self._loader.fill(slot)

    def clear(self, slots: Iterable[WeightSlot]) -> None:
        """Let weights go."""
        for slot in slots:
            self._loader.clear(slot)


class _NoCache(KVCache):
    """Keys and values of a whole sample pass through once; none is kept."""

    def __init__(self) -> None:
        """Keep nothing, so there is nothing to set up."""

    def append(
        self, layer: int, keys: Tensor, values: Tensor, place: Place | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give back what came."""
        return keys, values
