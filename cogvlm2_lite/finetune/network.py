"""The loss of training samples and its gradients, block by block.

Weights are larger than activations, so the loops are those of `engine/layer_major.py`: a block's
weights are loaded once for all samples of a step, forward and then backward. The backward walk
computes each block again from its stored input, this time with gradients.

The base model is frozen. Only the adapter's two matrices per layer get gradients, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part, expected_tensors
from cogvlm2_lite.engine.activations import Key, MemoryActivations
from cogvlm2_lite.engine.assembly import assemble
from cogvlm2_lite.engine.layer_major import LayerMajorWalk, LayerStage, StageVisit
from cogvlm2_lite.finetune.blocks import (
    Halves,
    KeyValues,
    PackStep,
    projector_halves,
    vision_halves,
)
from cogvlm2_lite.finetune.pairs import NAME, TrainedPairs
from cogvlm2_lite.finetune.samples import TrainedPair, TrainingPicture, TrainingSample
from cogvlm2_lite.finetune.talks import Pack, PackLimits, Prefix, make_packs
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.model.decoder import DecoderBlock, place_features
from cogvlm2_lite.model.full_attention import reference
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.model.vision import VisionBlock, VisionTower
from cogvlm2_lite.weights.adapter_names import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import PieceReader, WeightLoader
from cogvlm2_lite.weights.slots import Adapted, Linear, WeightSlot

LOGIT_ROWS = 64
"""Label positions whose logits are computed together: 31 MiB in float32 for the 19B model."""

_LIMITS = PackLimits()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Loss:
    """The loss of a pack.

    sums      the sum over the label tokens of each of its samples, by number
    gradient  at the output of the last block; None if nothing is learnt
    """

    sums: dict[int, float]
    gradient: Tensor | None


class LearningNetwork:
    """A checkpoint whose adapter is trained. Its weights are loaded piece by piece.

    pairs    by the name of the matrix, with its ".weight"
    scale    alpha / rank
    acts_on  rows on which the adapter acts: "all" or "behind the picture"
    kept_bytes  limit for weights that stay in memory between steps
    cached_bytes  limit for features, keys and values of pictures that stay in memory, as far as
                  the adapter does not change them
    limits   of the rows that go through the decoder together
    reader   the source of the weights' bytes; None: the catalog's files
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
        limits: PackLimits = _LIMITS,
        reader: PieceReader | None = None,
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
            limits=limits,
            reader=reader,
        )
        self._room = {"weights": kept_bytes, "pictures": cached_bytes}
        self._kept: set[int] = set()
        self._features: dict[str, Tensor] = {}
        self._prefixes: dict[str, KeyValues] = {}
        self._behind = acts_on != ALL_ROWS
        self._limits = limits
        self._device, self._dtype = device, dtype
        self._trained = TrainedPairs(pairs, scale=scale, dtype=dtype)
        self._loader = WeightLoader(catalog, device=device, dtype=dtype, reader=reader)
        self._parts = assemble(self.config, device=device, dtype=dtype, rope=rope)
        specs = expected_tensors(self.config)
        self._trains_tower = any(
            specs[name].part in (Part.VISION, Part.PROJECTOR) for name in pairs
        )
        if self._trains_tower:
            # Not every fast attention can be differentiated.
            tower = VisionTower(self.config.vision, reference)
            self._parts = replace(self._parts, tower=tower)
        for slot in self._parts.rotary.slots():
            self._loader.fill(slot)

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self._dtype

    @property
    def pairs(self) -> Mapping[str, TrainedPair]:
        """The trained matrices by name."""
        return self._trained.pairs

    def accumulate(
        self, samples: Sequence[TrainingSample], dtype: torch.dtype | None = None
    ) -> float:
        """Set the pairs' gradients to those of the samples' loss; return the loss.

        dtype  compute dtype of this step, such as float32 to repeat a step whose loss was not
               finite; None: the network's

        The loss is the mean over all label tokens of all samples.
        """
        if dtype is not None and dtype != self._dtype:
            self._release()
            return self._in(dtype=dtype).accumulate(samples)
        self._trained.zero()
        packs, prefixes = make_packs(samples, limits=self._limits, stored=self._behind)
        count = sum(len(sample.label_positions) for sample in samples)
        losses = self._learn(packs, prefixes, count)
        return sum(losses.get(number, 0.0) for number in range(len(samples))) / count

    def losses(self, samples: Sequence[TrainingSample]) -> list[float]:
        """Return the sum of the loss over the label tokens of each sample; nothing is trained."""
        packs, prefixes = make_packs(samples, limits=self._limits, stored=self._behind)
        features, _ = self._encode(packs, prefixes)
        steps = self._steps(packs, self._prefill(prefixes, features))
        walk = self._decoder(packs, steps, features, keep_inputs=False)
        with torch.no_grad():
            _go_forward(walk)
        found: dict[int, float] = {}
        for each in self._losses(packs, walk, count=None):
            found.update(each.sums)
        return [found.get(number, 0.0) for number in range(len(samples))]

    def scores(self, samples: Sequence[TrainingSample]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the labels [rows] and logits [rows, vocab] of all samples, a few rows at a time."""
        packs, prefixes = make_packs(samples, limits=self._limits, stored=self._behind)
        features, _ = self._encode(packs, prefixes)
        steps = self._steps(packs, self._prefill(prefixes, features))
        walk = self._decoder(packs, steps, features, keep_inputs=False)
        with torch.no_grad():
            _go_forward(walk)
        head = self._parts.decoder.head
        with self._load_weights(head):
            for number, pack in enumerate(packs):
                hidden = self._put(walk.activations.read(len(walk.stages), (number, 0)))
                places, labels = _labelled_places(pack)
                for begin in range(0, len(places), LOGIT_ROWS):
                    own = slice(begin, begin + LOGIT_ROWS)
                    with torch.no_grad():
                        logits = head(hidden[:, places[own].to(self._device)])[0]
                    yield labels[own], logits.cpu()

    def _learn(
        self, packs: Sequence[Pack], prefixes: Mapping[str, Prefix], count: int
    ) -> dict[int, float]:
        """Add the gradients of packs; return the summed loss of each sample, by number.

        count  label tokens of the step
        """
        features, encoder = self._encode(packs, prefixes)
        steps = self._steps(packs, self._prefill(prefixes, features))
        decoder = self._decoder(packs, steps, features, keep_inputs=True)
        with torch.no_grad():
            _go_forward(decoder)
        losses: dict[int, float] = {}
        gradients: dict[Key, Tensor] = {}
        for number, loss in enumerate(self._losses(packs, decoder, count=count)):
            losses.update(loss.sums)
            assert loss.gradient is not None
            gradients[number, 0] = loss.gradient
        self._go_back(decoder, gradients, deeper=encoder is not None, steps=steps)
        if encoder is not None:
            self._go_back(encoder, _of_features(packs, gradients, features), deeper=False)
        return losses

    # --- pictures ---------------------------------------------------------------------------------

    @torch.no_grad()
    def _encode(
        self, packs: Sequence[Pack], prefixes: Mapping[str, Prefix]
    ) -> tuple[dict[str, Tensor], LayerMajorWalk | None]:
        """Return the features of the pictures that are needed, by key, in host memory.

        The walk over the vision tower is None if nothing in it is trained. Behind a known prefix
        nothing reads the picture's features.
        """
        unknown = [each.pack for key, each in prefixes.items() if key not in self._prefixes]
        pictures = {p.key: p for pack in (*unknown, *packs) for p in pack.pictures}
        missing = [each for key, each in pictures.items() if key not in self._features]
        walk = self._encoder(missing)
        _go_forward(walk)
        features = {
            picture.key: walk.activations.read(len(walk.stages), (place, 0))
            for place, picture in enumerate(missing)
        }
        if self._trains_tower:
            return features, walk
        for key, each in features.items():
            if self._fits("pictures", each.nbytes):
                self._features[key] = each
        known = {**self._features, **features}
        return {key: known[key] for key in pictures}, None

    def _encoder(self, pictures: Sequence[TrainingPicture]) -> LayerMajorWalk:
        """Return the walk from pixels to features."""
        tower, keys = self._parts.tower, [(place, 0) for place in range(len(pictures))]
        adapted = None if self._behind else Adapted(name=NAME)

        def embed(key: Key, _: Tensor | None) -> Tensor:
            return tower.embedding(self._put(pictures[key[0]].pixels()))

        def through(piece: VisionBlock | Projector) -> LayerStage:
            def run(_: Key, hidden: Tensor | None) -> Tensor:
                assert hidden is not None
                return piece(self._put(hidden), adapted)

            return LayerStage(name="encode", piece=piece, keys=keys, run=run)

        stages = [
            LayerStage(name="patch embedding", piece=tower.embedding, keys=keys, run=embed),
            *map(through, tower.blocks),
            through(self._parts.projector),
        ]
        kept = MemoryActivations(keep_inputs=self._trains_tower)
        return LayerMajorWalk(stages if keys else [], self._load_weights, kept)

    @torch.no_grad()
    def _prefill(
        self, prefixes: Mapping[str, Prefix], features: Mapping[str, Tensor]
    ) -> dict[str, KeyValues]:
        """Return keys and values of bos and each picture, which the adapter does not change."""
        missing = [each for key, each in prefixes.items() if key not in self._prefixes]
        made = {each.key: KeyValues() for each in missing}
        packs = [each.pack for each in missing]
        if packs:
            steps = [self._step(each.pack, {}, record=made[each.key]) for each in missing]
            _go_forward(self._decoder(packs, steps, features, keep_inputs=False))
        for key, each in made.items():
            if self._fits("pictures", each.nbytes):
                self._prefixes[key] = each
        return {**self._prefixes, **made}

    def _fits(self, what: str, nbytes: int) -> bool:
        if nbytes > self._room[what]:
            return False
        self._room[what] -= nbytes
        return True

    # --- the decoder ------------------------------------------------------------------------------

    def _steps(self, packs: Sequence[Pack], prefixes: Mapping[str, KeyValues]) -> list[PackStep]:
        return [self._step(pack, prefixes) for pack in packs]

    def _step(
        self, pack: Pack, prefixes: Mapping[str, KeyValues], record: KeyValues | None = None
    ) -> PackStep:
        adapted = Adapted(name=NAME)
        if self._behind and not bool(pack.behind.all()):
            adapted = Adapted(name=NAME, rows=pack.behind)
        return PackStep(
            pack,
            self._parts.rotary,
            len(self._parts.decoder.blocks) - 1,
            prefixes=prefixes,
            adapted=adapted if record is None else None,
            record=record,
        )

    def _decoder(
        self,
        packs: Sequence[Pack],
        steps: Sequence[PackStep],
        features: Mapping[str, Tensor],
        *,
        keep_inputs: bool,
    ) -> LayerMajorWalk:
        """Return the walk from token ids to the last block."""
        decoder = self._parts.decoder
        keys = [(number, 0) for number in range(len(packs))]

        def embed(key: Key, _: Tensor | None) -> Tensor:
            pack = packs[key[0]]
            hidden = self._put(decoder.embedding(pack.chunk.input_ids))
            if not pack.pictures:
                return hidden
            shown = torch.cat([self._put(features[each.key]) for each in pack.pictures])
            return place_features(hidden, shown, pack.chunk.image_mask.to(self._device))

        def through(block: DecoderBlock) -> LayerStage:
            def run(key: Key, hidden: Tensor | None) -> Tensor:
                assert hidden is not None
                return steps[key[0]].halves(block).forward(self._put(hidden))

            return LayerStage(name="learn", piece=block, keys=keys, run=run)

        embedding = LayerStage(name="words", piece=decoder.embedding, keys=keys, run=embed)
        stages = [embedding, *map(through, decoder.blocks)]
        activations = MemoryActivations(keep_inputs=keep_inputs)
        return LayerMajorWalk(stages, self._load_weights, activations)

    def _losses(
        self, packs: Sequence[Pack], walk: LayerMajorWalk, *, count: int | None
    ) -> Iterator[_Loss]:
        """Yield the loss of each pack.

        count  the gradient is that of the sum of all losses / count; None: no gradient

        Logits are computed at label positions only, a few rows at a time: at all positions of a
        picture's sequence they would take 1.2 GiB.
        """
        head = self._parts.decoder.head
        with self._load_weights(head):
            for number, pack in enumerate(packs):
                hidden = self._put(walk.activations.read(len(walk.stages), (number, 0)))
                places, labels = _labelled_places(pack)
                gradient = None if count is None else torch.zeros_like(hidden)
                errors = []
                for begin in range(0, len(places), LOGIT_ROWS):
                    own = slice(begin, begin + LOGIT_ROWS)
                    rows = places[own].to(self._device)
                    part = hidden[:, rows].requires_grad_(gradient is not None)
                    error = F.cross_entropy(
                        head(part)[0], labels[own].to(self._device), reduction="none"
                    )
                    errors.append(error.detach().cpu().double())
                    if gradient is not None and count is not None:
                        torch.autograd.backward(error.sum() / count)
                        assert part.grad is not None
                        gradient[0].index_add_(0, rows, part.grad[0])
                each = torch.split(torch.cat(errors), [len(t.rows) for t in pack.targets])
                sums = {t.sample: float(e.sum()) for t, e in zip(pack.targets, each, strict=True)}
                yield _Loss(sums=sums, gradient=gradient)

    # --- backward ---------------------------------------------------------------------------------

    def _go_back(
        self,
        walk: LayerMajorWalk,
        gradients: dict[Key, Tensor],
        *,
        deeper: bool,
        steps: Sequence[PackStep] = (),
    ) -> None:
        """Go from the last stage back to the first one that is trained, or to the second one.

        gradients  at the outputs; replaced by those at the inputs
        deeper     whether the gradients at the input of the second stage are wanted
        steps      of the packs that went through a decoder
        """
        trained = [n for n, stage in enumerate(walk.stages) if self._trained.of(stage.piece)]
        first = 1 if deeper else max(1, min(trained, default=len(walk.stages)))
        for number in walk.backward:
            if number < first:
                break
            with (
                walk.visit_backward(number) as visit,
                self._trained.learning(visit.stage.piece, self._device) as sums,
            ):
                for key in visit.keys:
                    start = visit.input(key)
                    assert start is not None
                    gradient = self._put(gradients[key])
                    gradients[key] = self._halves(visit, key, steps).backward(
                        self._put(start), gradient, sums, deeper=deeper or number > first
                    )

    def _halves(self, visit: StageVisit, key: Key, steps: Sequence[PackStep]) -> Halves:
        piece = visit.stage.piece
        if isinstance(piece, DecoderBlock):
            return steps[key[0]].halves(piece)
        if isinstance(piece, VisionBlock):
            return vision_halves(piece)
        assert isinstance(piece, Projector)
        return projector_halves(piece)

    # --- weights ----------------------------------------------------------------------------------

    @contextmanager
    def _load_weights(self, piece: HasSlots, *, backward: bool = False) -> Iterator[None]:
        """Hold the weights of a piece in memory, forward with copies of its trained pairs."""
        slots = list(piece.slots())
        try:
            if id(piece) not in self._kept:
                nbytes = sum(self._loader.fill(slot) for slot in slots)
                if self._fits("weights", nbytes):
                    self._kept.add(id(piece))
            if backward:
                yield
            else:
                with self._trained.beside(piece, self._device):
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

    def _put(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self._device, self._dtype)


def _held_bytes(slot: WeightSlot) -> int:
    held = slot.stored if isinstance(slot, Linear) else slot.value
    return 0 if held is None else held.nbytes


def _of_features(
    packs: Sequence[Pack], gradients: Mapping[Key, Tensor], features: Mapping[str, Tensor]
) -> dict[Key, Tensor]:
    """Return the gradients at the features of each picture, without boi and eoi."""
    sums = {key: torch.zeros_like(each) for key, each in features.items()}
    for number, pack in enumerate(packs):
        if pack.pictures:
            rows = gradients[number, 0].cpu()[pack.chunk.image_mask]
            for picture, part in zip(pack.pictures, rows.chunk(len(pack.pictures)), strict=True):
                sums[picture.key] += part.view_as(sums[picture.key])
    return {(place, 0): each[:, 1:-1] for place, each in enumerate(sums.values())}


def _labelled_places(pack: Pack) -> tuple[Tensor, Tensor]:
    """Return the places of a pack's labels among its last hidden states, and the labels."""
    places = torch.cat([target.rows for target in pack.targets])
    if pack.wanted is not None:
        places = torch.searchsorted(pack.wanted, places)
    return places, torch.cat([target.labels for target in pack.targets])


def _go_forward(walk: LayerMajorWalk) -> None:
    for number in walk.forward:
        with walk.visit(number) as stage:
            for key in stage.keys:
                stage.advance(key)
