"""The loss of training samples and its gradients, block by block.

Weights are larger than activations, so the loops are those of `engine/layer_major.py`: a block's
weights are loaded once for all samples of a step, forward and then backward. The backward walk
computes each block again from its stored input, this time with gradients.

The base model is frozen. Only the adapter's two matrices per layer get gradients, in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part, expected_tensors
from cogvlm2_lite.engine.activations import Key, MemoryActivations
from cogvlm2_lite.engine.assembly import assemble
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.layer_major import LayerMajorWalk, LayerStage
from cogvlm2_lite.engine.runtime import behind_picture
from cogvlm2_lite.inputs.prompt import choose_vision_expert, derive_position_ids
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.model.attention import visible_keys
from cogvlm2_lite.model.decoder import DecoderBlock, Routing, Step, place_features
from cogvlm2_lite.model.kv_cache import KVCache, Place
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.model.vision import VisionBlock
from cogvlm2_lite.weights.adapter import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.slots import Adapted, Linear, LowRank

NO_LABEL = -100
"""Label of a token that is not trained."""

_NAME = "trained"
_LOGIT_ROWS = 64
"""Label positions whose logits are computed together: 31 MiB in float32 for the 19B model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSample:
    """One sequence: a conversation that ends with the answer to be learnt.

    input_ids, token_type_ids, labels  [1, tokens] int64; position i predicts labels[i + 1]
    pixel_values  [1, 3, image_size, image_size], normalised; None: no picture. Samples with the
                  same tensor share the picture's features
    """

    input_ids: Tensor
    token_type_ids: Tensor
    labels: Tensor
    pixel_values: Tensor | None = None

    @property
    def label_positions(self) -> Tensor:
        """Positions whose next token is trained, [n] int64."""
        return (self.labels[0, 1:] != NO_LABEL).nonzero().squeeze(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedPair:
    """The trained matrices of one linear layer, float32 leaves with gradients.

    down  lora_A, [rank, in_features]
    up    lora_B, [out_features, rank]
    """

    down: Tensor
    up: Tensor


class LearningNetwork:
    """A checkpoint whose adapter is trained. Its weights are loaded piece by piece.

    pairs    by the name of the matrix, with its ".weight"
    scale    alpha / rank
    acts_on  rows on which the adapter acts: "all" or "behind the picture"
    """

    def __init__(
        self,
        catalog: Catalog,
        pairs: Mapping[str, TrainedPair],
        *,
        scale: float,
        acts_on: str,
        device: torch.device,
        dtype: torch.dtype,
        rope: RopeMode,
    ) -> None:
        self.config = catalog.config
        self.pairs = pairs
        self._scale = scale
        self._behind = acts_on != ALL_ROWS
        self._device, self._dtype = device, dtype
        self._loader = WeightLoader(catalog, device=device, dtype=dtype)
        self._parts = assemble(self.config, device=device, dtype=dtype, rope=rope)
        specs = expected_tensors(self.config)
        self._trains_tower = any(
            specs[name].part in (Part.VISION, Part.PROJECTOR) for name in pairs
        )
        for slot in self._parts.rotary.slots():
            self._loader.fill(slot)

    def accumulate(self, samples: Sequence[TrainingSample]) -> float:
        """Add the gradients of the samples' loss to the pairs; return the loss.

        The loss is the mean over all label tokens of all samples.
        """
        count = sum(len(sample.label_positions) for sample in samples)
        pictures = _Pictures(samples)
        encoder = self._encoder(pictures)
        with torch.no_grad():
            _go_forward(encoder)
            features = [encoder.activations.read(len(encoder.stages), key) for key in pictures.keys]
            prefixes = self._prefixes(pictures, features) if self._behind else {}
            sequences = [
                self._sequence(sample, pictures.of[number], prefixes)
                for number, sample in enumerate(samples)
            ]
            decoder = self._decoder(sequences, features)
            _go_forward(decoder)
        loss, gradients = self._loss(sequences, decoder, count)
        for number in decoder.backward:
            if number == 0:  # the embedding: the pictures' part of it goes on
                break
            self._go_back(decoder, number, gradients)
        if self._trains_tower:
            back = dict(zip(pictures.keys, map(torch.zeros_like, features), strict=True))
            for number, sequence in enumerate(sequences):
                if sequence.picture is not None:
                    rows = gradients[number, 0][sequence.chunk.image_mask]
                    back[sequence.picture, 0] += rows.view_as(back[sequence.picture, 0])
            for number in encoder.backward:
                if number == 0:
                    break
                self._go_back(encoder, number, back)
        return loss

    # --- pictures ---------------------------------------------------------------------------------

    def _encoder(self, pictures: _Pictures) -> LayerMajorWalk:
        """Return the walk from pixels to features."""
        tower, keys = self._parts.tower, pictures.keys
        adapted = None if self._behind else Adapted(name=_NAME)

        def embed(key: Key, _: Tensor | None) -> Tensor:
            return tower.embedding(self._put(pictures.pixels[key[0]]))

        def through(piece: VisionBlock | Projector) -> LayerStage:
            def run(_: Key, hidden: Tensor | None) -> Tensor:
                assert hidden is not None
                return piece(hidden, adapted)

            return LayerStage(name="encode", piece=piece, keys=keys, run=run)

        stages = [
            LayerStage(name="patch embedding", piece=tower.embedding, keys=keys, run=embed),
            *map(through, tower.blocks),
            through(self._parts.projector),
        ]
        kept = MemoryActivations(keep_inputs=self._trains_tower)
        return LayerMajorWalk(stages, self._load_weights, kept)

    def _prefixes(self, pictures: _Pictures, features: Sequence[Tensor]) -> dict[int, _Recorded]:
        """Return keys and values of bos and each picture, which the adapter does not change."""
        recorded, sequences = {}, []
        for number, sample in pictures.first.items():
            end = int(sample.token_type_ids[0].nonzero().max()) + 1
            recorded[number] = _Recorded()
            chunk = _chunk(sample, 0, end)
            step = self._step(chunk, recorded[number], before=0)
            sequences.append(
                _Sequence(sample=sample, chunk=chunk, step=step, picture=number, start=0)
            )
        walk = self._decoder(sequences, features, keep_inputs=False)
        _go_forward(walk)
        return recorded

    # --- the decoder ------------------------------------------------------------------------------

    def _sequence(
        self, sample: TrainingSample, picture: int | None, prefixes: Mapping[int, _Recorded]
    ) -> _Sequence:
        """Return the tokens that are computed with gradients: behind a known prefix, or all."""
        tokens, start, cache = sample.input_ids.shape[1], 0, _Recorded(keep=False)
        if picture is not None and picture in prefixes:
            cache = prefixes[picture].followed()
            start = cache.tokens
        chunk = _chunk(sample, start, tokens)
        adapted = Adapted(name=_NAME)
        if self._behind:
            adapted = Adapted(name=_NAME, rows=behind_picture(chunk).to(self._device))
        step = self._step(chunk, cache, before=start, adapted=adapted)
        return _Sequence(sample=sample, chunk=chunk, step=step, picture=picture, start=start)

    def _step(
        self, chunk: Chunk, cache: KVCache, *, before: int, adapted: Adapted | None = None
    ) -> Step:
        mask = None
        if before:
            mask = visible_keys(chunk.tokens, before + chunk.tokens, None, self._device)
        routing = Routing(vision=None)
        if chunk.has_image:
            routing = Routing.of(chunk.vision_mask).to(self._device)
        positions = chunk.position_ids.to(self._device)
        return Step(
            routing=routing,
            rotations=self._parts.rotary.rotations(positions, chunk.highest),
            mask=mask,
            causal=not before,
            cache=cache,
            adapted=adapted,
        )

    def _decoder(
        self,
        sequences: Sequence[_Sequence],
        features: Sequence[Tensor],
        *,
        keep_inputs: bool = True,
    ) -> LayerMajorWalk:
        """Return the walk from token ids to the last block."""
        decoder = self._parts.decoder
        keys = [(number, 0) for number in range(len(sequences))]

        def embed(key: Key, _: Tensor | None) -> Tensor:
            sequence = sequences[key[0]]
            hidden = self._put(decoder.embedding(sequence.chunk.input_ids))
            if not sequence.chunk.has_image:
                return hidden
            assert sequence.picture is not None
            places = sequence.chunk.image_mask.to(self._device)
            return place_features(hidden, self._put(features[sequence.picture]), places)

        def through(block: DecoderBlock) -> LayerStage:
            def run(key: Key, hidden: Tensor | None) -> Tensor:
                assert hidden is not None
                return block(hidden, sequences[key[0]].step)

            return LayerStage(name="learn", piece=block, keys=keys, run=run)

        embedding = LayerStage(name="words", piece=decoder.embedding, keys=keys, run=embed)
        stages = [embedding, *map(through, decoder.blocks)]
        return LayerMajorWalk(
            stages, self._load_weights, MemoryActivations(keep_inputs=keep_inputs)
        )

    def _loss(
        self, sequences: Sequence[_Sequence], walk: LayerMajorWalk, count: int
    ) -> tuple[float, dict[Key, Tensor]]:
        """Return the loss, and its gradient at the last block's output of each sequence.

        Logits are computed at label positions only, a few rows at a time: at all positions of a
        picture's sequence they would take 1.2 GiB.
        """
        head, loss, gradients = self._parts.decoder.head, 0.0, {}
        with self._load_weights(head):
            for number, sequence in enumerate(sequences):
                hidden = self._put(walk.activations.read(len(walk.stages), (number, 0)))
                places = sequence.sample.label_positions
                targets = sequence.sample.labels[0, places + 1].to(self._device)
                gradient = torch.zeros_like(hidden)
                own = (places - sequence.start).to(self._device)
                for begin in range(0, len(own), _LOGIT_ROWS):
                    rows, target = (each[begin : begin + _LOGIT_ROWS] for each in (own, targets))
                    part = hidden[:, rows].requires_grad_()
                    error = F.cross_entropy(head(part)[0], target, reduction="sum")
                    loss += float(error.detach()) / count
                    (error / count).backward()  # type: ignore[no-untyped-call]
                    assert part.grad is not None
                    gradient[:, rows] = part.grad
                gradients[number, 0] = gradient
        return loss, gradients

    # --- backward ---------------------------------------------------------------------------------

    def _go_back(self, walk: LayerMajorWalk, number: int, gradients: dict[Key, Tensor]) -> None:
        """Replace the gradients at a stage's outputs by those at its inputs."""
        with walk.visit_backward(number) as visit:
            linears = list(self._trained(visit.stage.piece))
            for key in visit.keys:
                start = visit.input(key)
                assert start is not None
                start = self._put(start).requires_grad_()
                output = visit.stage.run(key, start)
                output.backward(gradients[key].to(output.dtype))  # type: ignore[no-untyped-call]
                assert start.grad is not None
                gradients[key] = start.grad
                self._collect(linears)

    def _collect(self, linears: Iterable[Linear]) -> None:
        """Add the gradients of the copies in the compute dtype to the float32 ones."""
        for linear in linears:
            copy, pair = linear.adapters[_NAME], self.pairs[linear.name]
            for leaf, master, factor in (
                (copy.down, pair.down, 1.0),
                (copy.up, pair.up, self._scale),
            ):
                if leaf.grad is not None:
                    assert master.grad is not None
                    master.grad += factor * leaf.grad.to(torch.float32).to(master.device)
                    leaf.grad = None

    # --- weights ----------------------------------------------------------------------------------

    @contextmanager
    def _load_weights(self, piece: HasSlots, *, backward: bool = False) -> Iterator[None]:
        """Hold the weights of a piece in memory, and copies of its trained pairs."""
        slots = list(piece.slots())
        try:
            for slot in slots:
                self._loader.fill(slot)
            for linear in self._trained(piece):
                linear.adapters = {_NAME: self._copy(self.pairs[linear.name], leaves=backward)}
            yield
        finally:
            for slot in slots:
                self._loader.clear(slot)

    def _trained(self, piece: HasSlots) -> Iterator[Linear]:
        for slot in piece.slots():
            if isinstance(slot, Linear) and slot.name in self.pairs:
                yield slot

    def _copy(self, pair: TrainedPair, *, leaves: bool) -> LowRank:
        down, up = pair.down.detach(), pair.up.detach() * self._scale
        copies = [each.to(self._device, self._dtype) for each in (down, up)]
        if leaves:
            copies = [each.clone().requires_grad_() for each in copies]
        return LowRank(down=copies[0], up=copies[1])

    def _put(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self._device, self._dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sequence:
    """What is computed of a sample.

    picture  number of its picture; None: no picture
    start    position of the first computed token
    """

    sample: TrainingSample
    chunk: Chunk
    step: Step
    picture: int | None
    start: int


class _Pictures:
    """The different pictures of some samples.

    of      for each sample the number of its picture, or None
    first   for each picture the first sample that shows it
    """

    def __init__(self, samples: Sequence[TrainingSample]) -> None:
        self.of: list[int | None] = []
        self.first: dict[int, TrainingSample] = {}
        numbers: dict[int, int] = {}
        for sample in samples:
            if sample.pixel_values is None:
                self.of.append(None)
                continue
            number = numbers.setdefault(id(sample.pixel_values), len(numbers))
            self.first.setdefault(number, sample)
            self.of.append(number)

    @property
    def keys(self) -> list[Key]:
        return [(number, 0) for number in self.first]

    @property
    def pixels(self) -> list[Tensor]:
        """[1, 3, image_size, image_size] each."""
        return [s.pixel_values for s in self.first.values() if s.pixel_values is not None]


class _Recorded(KVCache):
    """Keys and values of a prefix, or nothing: a sequence is computed in one pass.

    keep  whether the keys and values that are passed in are kept, as those of a prefix
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def tokens(self) -> int:
        """Tokens of the prefix."""
        return 0 if not self._layers else self._layers[0][0].shape[2]

    def followed(self) -> _Recorded:
        """Return the same prefix for sequences that follow it."""
        other = _Recorded(keep=False)
        other._layers = self._layers
        return other

    def append(
        self, layer: int, keys: Tensor, values: Tensor, place: Place | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the prefix and of these tokens; differentiable."""
        if self._keep:
            self._layers[layer] = (keys.cpu(), values.cpu())
            return keys, values
        if layer not in self._layers:
            return keys, values
        before = (each.to(keys.device) for each in self._layers[layer])
        return torch.cat((next(before), keys), dim=2), torch.cat((next(before), values), dim=2)


def _chunk(sample: TrainingSample, start: int, end: int) -> Chunk:
    """Return a part of a sample; experts and positions follow from the whole of it."""
    types = sample.token_type_ids.numpy()
    positions = torch.from_numpy(derive_position_ids(types))
    own = slice(start, end)
    return Chunk(
        input_ids=sample.input_ids[:, own],
        image_mask=(sample.token_type_ids == 1)[:, own],
        vision_mask=torch.from_numpy(choose_vision_expert(types))[:, own],
        position_ids=positions[:, own],
        highest=int(positions[:, own].max()),
        has_image=bool((sample.token_type_ids[:, own] == 1).any()),
    )


def _go_forward(walk: LayerMajorWalk) -> None:
    for number in walk.forward:
        with walk.visit(number) as stage:
            for key in stage.keys:
                stage.advance(key)
