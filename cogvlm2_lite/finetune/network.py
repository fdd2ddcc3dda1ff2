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
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part, expected_tensors
from cogvlm2_lite.engine.activations import Key, MemoryActivations
from cogvlm2_lite.engine.assembly import assemble
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.layer_major import LayerMajorWalk, LayerStage
from cogvlm2_lite.engine.runtime import behind_picture
from cogvlm2_lite.finetune.samples import TrainedPair, TrainingSample
from cogvlm2_lite.inputs.prompt import choose_vision_expert, derive_position_ids
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.model.attention import visible_keys
from cogvlm2_lite.model.decoder import DecoderBlock, Routing, Step, place_features
from cogvlm2_lite.model.kv_cache import KVCache, Place
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.model.vision import VisionBlock
from cogvlm2_lite.weights.adapter_names import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.slots import Adapted, Linear, LowRank, WeightSlot

_NAME = "trained"
_LOGIT_ROWS = 64
"""Label positions whose logits are computed together: 31 MiB in float32 for the 19B model."""


class LearningNetwork:
    """A checkpoint whose adapter is trained. Its weights are loaded piece by piece.

    pairs    by the name of the matrix, with its ".weight"
    scale    alpha / rank
    acts_on  rows on which the adapter acts: "all" or "behind the picture"
    kept_bytes  limit for weights that stay in memory between steps
    cached_bytes  limit for features, keys and values of pictures that stay in memory, as far as
                  the adapter does not change them
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
        kept_bytes: int = 0,
        cached_bytes: int = 0,
    ) -> None:
        self.config = catalog.config
        self._in = partial(
            LearningNetwork,
            catalog,
            pairs,
            scale=scale,
            acts_on=acts_on,
            device=device,
            rope=rope,
            kept_bytes=kept_bytes,
        )
        self._room = {"weights": kept_bytes, "pictures": cached_bytes}
        self._kept: set[int] = set()
        self._features: dict[str, Tensor] = {}
        self._prefixes: dict[str, _Recorded] = {}
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

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self._dtype

    def accumulate(
        self, samples: Sequence[TrainingSample], dtype: torch.dtype | None = None
    ) -> float:
        """Add the gradients of the samples' loss to the pairs; return the loss.

        dtype  compute dtype of this step, such as float32 to repeat a step whose loss was not
               finite; None: the network's

        The loss is the mean over all label tokens of all samples.
        """
        if dtype is not None and dtype != self._dtype:
            self._release()
            return self._in(dtype=dtype).accumulate(samples)
        sequences, features, encoder = self._prepare(samples)
        decoder = self._decoder(sequences, features, keep_inputs=True)
        with torch.no_grad():
            _go_forward(decoder)
        count = sum(len(sample.label_positions) for sample in samples)
        loss, gradients = self._loss(sequences, decoder, count, learn=True)
        for number in decoder.backward:
            if number == 0:  # the embedding: only the pictures' part of it goes on
                break
            self._go_back(decoder, number, gradients)
        if encoder is not None:
            back = {key: torch.zeros_like(features[key]) for key in features}
            for number, sequence in enumerate(sequences):
                if sequence.picture is not None:
                    rows = gradients[number, 0][sequence.chunk.image_mask]
                    back[sequence.picture] += rows.view_as(back[sequence.picture])
            outputs = {(place, 0): each for place, each in enumerate(back.values())}
            for number in encoder.backward:
                if number == 0:
                    break
                self._go_back(encoder, number, outputs)
        return sum(loss) / count

    def losses(self, samples: Sequence[TrainingSample]) -> list[float]:
        """Return the sum of the loss over the label tokens of each sample; nothing is trained."""
        sequences, features, _ = self._prepare(samples)
        decoder = self._decoder(sequences, features, keep_inputs=False)
        with torch.no_grad():
            _go_forward(decoder)
        loss, _ = self._loss(sequences, decoder, 1, learn=False)
        return loss

    @torch.no_grad()
    def _prepare(
        self, samples: Sequence[TrainingSample]
    ) -> tuple[list[_Sequence], dict[str, Tensor], LayerMajorWalk | None]:
        """Return what is computed of each sample, the features it needs, and how they were made.

        The walk over the vision tower is None if nothing in it is trained.
        """
        pictures = {s.picture.key: s for s in samples if s.picture is not None}
        # Behind a known prefix nothing reads the picture's features.
        shown = {key: each for key, each in pictures.items() if key not in self._prefixes}
        features, encoder = self._encode(shown)
        prefixes = self._prefill(pictures, features) if self._behind else {}
        return [self._sequence(sample, prefixes) for sample in samples], features, encoder

    # --- pictures ---------------------------------------------------------------------------------

    def _encode(
        self, pictures: Mapping[str, TrainingSample]
    ) -> tuple[dict[str, Tensor], LayerMajorWalk | None]:
        """Return the features of pictures by key, in host memory."""
        missing = [key for key in pictures if key not in self._features]
        walk = self._encoder([pictures[key] for key in missing])
        _go_forward(walk)
        features = {
            key: walk.activations.read(len(walk.stages), (place, 0))
            for place, key in enumerate(missing)
        }
        if self._trains_tower:
            return features, walk
        for key, each in features.items():
            if self._fits("pictures", each.nbytes):
                self._features[key] = each
        known = {**self._features, **features}
        return {key: known[key] for key in pictures}, None

    def _encoder(self, samples: Sequence[TrainingSample]) -> LayerMajorWalk:
        """Return the walk from pixels to features."""
        tower, keys = self._parts.tower, [(place, 0) for place in range(len(samples))]
        adapted = None if self._behind else Adapted(name=_NAME)

        def embed(key: Key, _: Tensor | None) -> Tensor:
            picture = samples[key[0]].picture
            assert picture is not None
            return tower.embedding(self._put(picture.pixels()))

        def through(piece: VisionBlock | Projector) -> LayerStage:
            def run(_: Key, hidden: Tensor | None) -> Tensor:
                assert hidden is not None
                return piece(self._put_if_plain(hidden), adapted)

            return LayerStage(name="encode", piece=piece, keys=keys, run=run)

        stages = [
            LayerStage(name="patch embedding", piece=tower.embedding, keys=keys, run=embed),
            *map(through, tower.blocks),
            through(self._parts.projector),
        ]
        kept = MemoryActivations(keep_inputs=self._trains_tower)
        return LayerMajorWalk(stages if keys else [], self._load_weights, kept)

    def _prefill(
        self, pictures: Mapping[str, TrainingSample], features: Mapping[str, Tensor]
    ) -> dict[str, _Recorded]:
        """Return keys and values of bos and each picture, which the adapter does not change."""
        made: dict[str, _Recorded] = {}
        sequences = []
        for key, sample in pictures.items():
            if key in self._prefixes:
                continue
            end = int(sample.token_type_ids[0].nonzero().max()) + 1
            made[key] = _Recorded()
            chunk = _chunk(sample, 0, end)
            step = self._step(chunk, made[key], before=0)
            sequences.append(_Sequence(sample=sample, chunk=chunk, step=step, picture=key, start=0))
        if sequences:
            _go_forward(self._decoder(sequences, features, keep_inputs=False))
        for key, each in made.items():
            if self._fits("pictures", each.held_bytes):
                self._prefixes[key] = each
        return {**self._prefixes, **made}

    def _fits(self, what: str, nbytes: int) -> bool:
        if nbytes > self._room[what]:
            return False
        self._room[what] -= nbytes
        return True

    # --- the decoder ------------------------------------------------------------------------------

    def _sequence(self, sample: TrainingSample, prefixes: Mapping[str, _Recorded]) -> _Sequence:
        """Return the tokens that are computed with gradients: behind a known prefix, or all."""
        picture = None if sample.picture is None else sample.picture.key
        tokens, start, cache = sample.input_ids.shape[1], 0, _Recorded(keep=False)
        if picture in prefixes:
            assert picture is not None
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
        features: Mapping[str, Tensor],
        *,
        keep_inputs: bool,
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
                return block(self._put_if_plain(hidden), sequences[key[0]].step)

            return LayerStage(name="learn", piece=block, keys=keys, run=run)

        embedding = LayerStage(name="words", piece=decoder.embedding, keys=keys, run=embed)
        stages = [embedding, *map(through, decoder.blocks)]
        return LayerMajorWalk(
            stages, self._load_weights, MemoryActivations(keep_inputs=keep_inputs)
        )

    def _loss(
        self, sequences: Sequence[_Sequence], walk: LayerMajorWalk, count: int, *, learn: bool
    ) -> tuple[list[float], dict[Key, Tensor]]:
        """Return the summed loss of each sequence, and the gradient at its last block's output.

        count  the gradient is that of the sum of all losses / count; learn=False: no gradient

        Logits are computed at label positions only, a few rows at a time: at all positions of a
        picture's sequence they would take 1.2 GiB.
        """
        head, losses = self._parts.decoder.head, []
        gradients: dict[Key, Tensor] = {}
        with self._load_weights(head):
            for number, sequence in enumerate(sequences):
                hidden = self._put(walk.activations.read(len(walk.stages), (number, 0)))
                places = sequence.sample.label_positions
                targets = sequence.sample.labels[0, places + 1].to(self._device)
                gradient = torch.zeros_like(hidden) if learn else hidden
                own, total = (places - sequence.start).to(self._device), 0.0
                for begin in range(0, len(own), _LOGIT_ROWS):
                    rows, target = (each[begin : begin + _LOGIT_ROWS] for each in (own, targets))
                    part = hidden[:, rows].requires_grad_(learn)
                    error = F.cross_entropy(head(part)[0], target, reduction="sum")
                    total += float(error.detach())
                    if learn:
                        torch.autograd.backward(error / count)
                        assert part.grad is not None
                        gradient[:, rows] = part.grad
                losses.append(total)
                if learn:
                    gradients[number, 0] = gradient
        return losses, gradients

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
                torch.autograd.backward(output, gradients[key].to(output.dtype))
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
            if id(piece) not in self._kept:
                nbytes = sum(self._loader.fill(slot) for slot in slots)
                if self._fits("weights", nbytes):
                    self._kept.add(id(piece))
            for linear in self._trained(piece):
                linear.adapters = {_NAME: self._copy(self.pairs[linear.name], leaves=backward)}
            yield
        finally:
            if id(piece) not in self._kept:
                for slot in slots:
                    self._loader.clear(slot)

    def _release(self) -> None:
        """Release the weights that are kept; they are loaded again when they are needed."""
        for piece in self._parts.pieces:
            if id(piece) in self._kept:
                self._room["weights"] += sum(_held_bytes(slot) for slot in piece.slots())
                for slot in piece.slots():
                    self._loader.clear(slot)
        self._kept.clear()

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

    def _put_if_plain(self, tensor: Tensor) -> Tensor:
        """Move an activation to the device; the start of a backward step is there already."""
        return tensor if tensor.requires_grad else self._put(tensor)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sequence:
    """What is computed of a sample.

    picture  key of its picture; None: no picture
    start    position of the first computed token
    """

    sample: TrainingSample
    chunk: Chunk
    step: Step
    picture: str | None
    start: int


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

    @property
    def held_bytes(self) -> int:
        return sum(k.nbytes + v.nbytes for k, v in self._layers.values())

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


def _held_bytes(slot: WeightSlot) -> int:
    held = slot.stored if isinstance(slot, Linear) else slot.value
    return 0 if held is None else held.nbytes


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
