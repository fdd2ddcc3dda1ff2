"""A checkpoint's parts with empty weight slots, and the samples that go through them.

Calibration (`calibrate.py`) and evaluation (`evaluation.py`) share it. Nothing here decides or
writes anything; `stages.py` makes a list of stages of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cogvlm2_lite.engine.assembly import assemble
from cogvlm2_lite.inputs.image import pixel_values
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.model.decoder import Routing, Step, place_features
from cogvlm2_lite.model.kv_cache import KVCache, Place
from cogvlm2_lite.model.rotary import RopeMode, Rotary
from cogvlm2_lite.samples.pixels import SamplePixels
from cogvlm2_lite.samples.samples import Sample, SampleTokens, identified, opened, tokenize
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.slots import WeightSlot


class Network:
    """The blocks of a checkpoint, empty until they are filled, and the samples that go through.

    samples  those about one picture follow each other
    pixels   the pictures that are decoded already; None: decode each when it is needed
    """

    def __init__(
        self,
        catalog: Catalog,
        samples: Sequence[Sample],
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        dtype: torch.dtype,
        pixels: SamplePixels | None = None,
    ) -> None:
        self._pixels = pixels
        self.config = catalog.config
        self.samples = identified(samples)
        self.device, self.dtype = device, dtype
        self._tokenizer = tokenizer
        self._loader = WeightLoader(catalog, device=device, dtype=dtype)
        self.parts = assemble(self.config, device=device, dtype=dtype, rope=RopeMode.REFERENCE)

    # --- samples ----------------------------------------------------------------------------------

    @cached_property
    def pictures(self) -> list[int]:
        """For each distinct picture, the first sample that shows it."""
        seen: dict[str, int] = {}
        for number, sample in enumerate(self.samples):
            if sample.picture is not None:
                seen.setdefault(sample.picture, number)
        return list(seen.values())

    @cached_property
    def picture_of(self) -> list[int | None]:
        """For each sample, the position of its picture in `pictures`; None without a picture."""
        order: dict[str, int] = {}
        names = (sample.picture for sample in self.samples)
        return [None if name is None else order.setdefault(name, len(order)) for name in names]

    @cached_property
    def tokens(self) -> list[SampleTokens]:
        """The tokens of each sample."""
        return [tokenize(sample, self._tokenizer, self.config) for sample in self.samples]

    @property
    def activation_bytes(self) -> int:
        """Bytes of the activations of all samples between two blocks, where they are largest."""
        vision = self.config.vision
        in_tower = len(self.pictures) * vision.num_positions * vision.hidden_size
        in_decoder = sum(t.input_ids.size for t in self.tokens) * self.config.hidden_size
        return max(in_tower, in_decoder) * self.dtype.itemsize

    # --- the steps; their slots must be filled ----------------------------------------------------

    def embed_picture(self, index: int) -> Tensor:
        """Return the patches of a picture, [1, positions, vision hidden]."""
        pixels = torch.from_numpy(self._pixel_values(self.samples[self.pictures[index]]))
        return self.parts.tower.embedding(self.put(pixels))

    def _pixel_values(self, sample: Sample) -> NDArray[np.float32]:
        if self._pixels is not None:
            return self._pixels.values(sample)
        picture = opened(sample)
        assert picture is not None
        return pixel_values(picture, self.config.vision)

    def embed_words(self, index: int, features: Tensor | None) -> Tensor:
        """Return the embeddings of a sample, its picture in place: [1, tokens, hidden] on the CPU.

        features  [1, image tokens, hidden] on the CPU; None for a sample without a picture
        """
        tokens = self.tokens[index]
        hidden = self.parts.decoder.embedding(torch.from_numpy(tokens.input_ids)).to(self.dtype)
        if features is None:
            return hidden
        return place_features(hidden, features, torch.from_numpy(tokens.token_type_ids == 1))

    def step(self, index: int) -> Step:
        """Return the values that all decoder layers share for a sample."""
        positions = torch.from_numpy(self.tokens[index].position_ids)
        return Step(
            routing=self.routing(index),
            rotations=self._rotary.rotations(positions.to(self.device), int(positions.max())),
            mask=None,
            causal=True,
            cache=_NoCache(),
        )

    def routing(self, index: int) -> Routing:
        """Return which rows of a sample go through which expert."""
        vision = torch.from_numpy(self.tokens[index].vision_mask)
        return Routing.of(vision).to(self.device) if vision.any() else Routing(vision=None)

    @cached_property
    def _rotary(self) -> Rotary:
        """The rotary tables; their few weights stay in memory."""
        self.fill(self.parts.rotary.slots())
        return self.parts.rotary

    # --- weights and activations ------------------------------------------------------------------

    def put(self, tensor: Tensor) -> Tensor:
        """Return activations on the device and in the type of the computation."""
        return tensor.to(self.device, self.dtype)

    @contextmanager
    def load_weights(self, piece: HasSlots, *, backward: bool = False) -> Iterator[None]:
        """Hold the source's weights of a piece in memory; nothing is prefetched."""
        try:
            self.fill(piece.slots())
            yield
        finally:
            self.clear(piece.slots())

    def fill(self, slots: Iterable[WeightSlot]) -> None:
        """Read the source's weights into slots."""
        self._loader.fill_unit(list(slots), None)

    def clear(self, slots: Iterable[WeightSlot]) -> None:
        """Remove the weights from slots."""
        self._loader.clear(list(slots))


class _NoCache(KVCache):
    """Returns keys and values unchanged: a sample is computed in one pass and nothing is kept."""

    def __init__(self) -> None:
        """Set nothing up: nothing is kept."""

    def append(
        self,
        layer: int,
        keys: Tensor,
        values: Tensor,
        place: Place | None = None,
        ahead: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values that were passed in."""
        return keys, values

    def append_stored(
        self, layer: int, keys: Tensor, values: Tensor, ahead: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Do the same."""
        return [keys], [values]
