"""The passes of a training step over the model: pictures, prefixes, forward, loss and backward.

Weights are larger than activations, so the loops are those of `engine/layer_major.py`: a block's
weights are loaded once for all packs of a wave, forward and then backward. The backward walk
computes each block again from its stored input, this time with gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.engine.activations import Key, MemoryActivations
from cogvlm2_lite.engine.layer_major import LayerMajorWalk, LayerStage
from cogvlm2_lite.finetune.blocks import (
    Halves,
    KeyValues,
    PackStep,
    projector_halves,
    vision_halves,
)
from cogvlm2_lite.finetune.known import KnownPictures
from cogvlm2_lite.finetune.pairs import NAME, TrainedPairs
from cogvlm2_lite.finetune.placed import PlacedModel
from cogvlm2_lite.finetune.samples import TrainingPicture
from cogvlm2_lite.finetune.talks import Pack, Prefix
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.memory.training import LOGIT_ROWS
from cogvlm2_lite.model.decoder import DecoderBlock, place_features
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.vision import VisionBlock
from cogvlm2_lite.weights.slots import Adapted


@dataclass(frozen=True, kw_only=True)
class Wave:
    """Packs that go through the model together, and the prefixes that they follow."""

    packs: Sequence[Pack]
    prefixes: Mapping[str, Prefix]

    @property
    def pictures(self) -> dict[str, TrainingPicture]:
        """The pictures of the packs and prefixes by their keys."""
        packs = (*(each.pack for each in self.prefixes.values()), *self.packs)
        return {picture.key: picture for pack in packs for picture in pack.pictures}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Loss:
    """The loss of a pack.

    sums      the sum over the label tokens of each of its samples, by number
    gradient  at the output of the last block; None if nothing is learnt
    """

    sums: dict[int, float]
    gradient: Tensor | None


class Passes:
    """Computes losses and gradients of waves.

    computed_tokens  that went through the decoder so far, image tokens included; once for those
                     that several questions share, and not for stored prefixes

    behind  the adapter acts behind the picture only
    known   what is kept of pictures
    """

    def __init__(
        self, placed: PlacedModel, trained: TrainedPairs, known: KnownPictures, *, behind: bool
    ) -> None:
        self._placed, self._trained, self._known, self._behind = placed, trained, known, behind
        self._parts, self._trains_tower = placed.parts, placed.training.tower
        self.computed_tokens = 0

    def learn(self, wave: Wave, count: int) -> dict[int, float]:
        """Add the gradients of a wave; return the summed loss of each sample, by number.

        count  label tokens of the step: the gradients are those of the loss / count
        """
        features, encoder, steps = self._prepare(wave)
        decoder = self._decoder(Phase.LEARN, wave.packs, steps, features, keep_inputs=True)
        _go_forward(decoder)
        losses: dict[int, float] = {}
        gradients: dict[Key, Tensor] = {}
        for number, loss in enumerate(self._losses(wave.packs, decoder, count=count)):
            losses.update(loss.sums)
            assert loss.gradient is not None
            gradients[number, 0] = loss.gradient
        self._go_back(decoder, gradients, deeper=encoder is not None, steps=steps)
        if encoder is not None:
            self._go_back(encoder, _of_features(wave.packs, gradients, features), deeper=False)
        return losses

    def losses(self, wave: Wave) -> dict[int, float]:
        """Return the summed loss of each sample of a wave, by number; nothing is learnt."""
        features, _, steps = self._prepare(wave)
        walk = self._decoder(Phase.LEARN, wave.packs, steps, features, keep_inputs=False)
        _go_forward(walk)
        found: dict[int, float] = {}
        for each in self._losses(wave.packs, walk, count=None):
            found.update(each.sums)
        return found

    def scores(self, wave: Wave) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the labels [rows] and logits [rows, vocab] of a wave, a few rows at a time."""
        features, _, steps = self._prepare(wave)
        walk = self._decoder(Phase.LEARN, wave.packs, steps, features, keep_inputs=False)
        _go_forward(walk)
        head = self._parts.decoder.head
        with self._placed.weights(Phase.LEARN, head):
            for number, pack in enumerate(wave.packs):
                hidden = walk.activations.read(len(walk.stages), (number, 0))
                hidden = self._placed.put(hidden, head)
                places, labels = _labelled_places(pack)
                for begin in range(0, len(places), LOGIT_ROWS):
                    own = slice(begin, begin + LOGIT_ROWS)
                    with torch.no_grad():
                        logits = head(hidden[:, places[own].to(hidden.device)])[0]
                    yield labels[own], logits.cpu()

    def _prepare(
        self, wave: Wave
    ) -> tuple[dict[str, Tensor], LayerMajorWalk | None, list[PackStep]]:
        """Return the features of the wave's pictures, the walk that made them, and the steps.

        The walk is None if nothing in the vision tower is trained.
        """
        known = {key: self._known.prefix(key) for key in wave.prefixes}
        features, encoder = self._encode(wave, known)
        prefixes = self._prefill(wave.prefixes, known, features)
        if not self._trains_tower:
            shown = {p.key for pack in wave.packs for p in pack.pictures}
            kept = (p for key, p in wave.prefixes.items() if self._known.has_prefix(key))
            stored = {prefix.pack.pictures[0].key for prefix in kept}
            for key, each in features.items():
                self._known.add_features(key, each, in_ram=key in shown or key not in stored)
        steps = self._steps(Phase.LEARN, wave.packs, prefixes)
        made = [each.pack for key, each in wave.prefixes.items() if known[key] is None]
        self.computed_tokens += sum(pack.rows for pack in (*wave.packs, *made))
        return features, encoder, steps

    # --- pictures ---------------------------------------------------------------------------------

    @torch.no_grad()
    def _encode(
        self, wave: Wave, prefixes: Mapping[str, KeyValues | None]
    ) -> tuple[dict[str, Tensor], LayerMajorWalk | None]:
        """Return the features of the pictures that are needed, by key, in host memory.

        prefixes  the known ones: behind one, nothing reads the picture's features
        """
        unknown = {key: p for key, p in wave.prefixes.items() if prefixes[key] is None}
        pictures = Wave(packs=wave.packs, prefixes=unknown).pictures
        known = {key: self._known.features(key) for key in pictures}
        missing = [pictures[key] for key, each in known.items() if each is None]
        walk = self._encoder(missing)
        made = _outputs(walk, missing)
        found = {key: made[key] if each is None else each for key, each in known.items()}
        return found, walk if self._trains_tower else None

    @torch.no_grad()
    def remember(self, pictures: Sequence[TrainingPicture]) -> bool:
        """Compute the features of pictures and keep them; return whether there is room for all.

        Behind the picture, RAM is for prefixes, which are used instead of features.
        """
        made = _outputs(self._encoder(pictures), pictures)
        in_ram = not self._behind
        kept = [self._known.add_features(key, each, in_ram=in_ram) for key, each in made.items()]
        return all(kept)

    def _encoder(self, pictures: Sequence[TrainingPicture]) -> LayerMajorWalk:
        """Return the walk from pixels to features."""
        tower, keys = self._parts.tower, [(place, 0) for place in range(len(pictures))]
        adapted = None if self._behind else Adapted(name=NAME)

        def embed(key: Key, _: Tensor | None) -> Tensor:
            return tower.embedding(self._placed.put(pictures[key[0]].pixels(), tower.embedding))

        def through(piece: VisionBlock | Projector) -> LayerStage:
            def run(_: Key, hidden: Tensor | None) -> Tensor:
                assert hidden is not None
                return piece(self._placed.put(hidden, piece), adapted)

            return LayerStage(name="encode", piece=piece, keys=keys, run=run)

        stages = [
            LayerStage(name="patch embedding", piece=tower.embedding, keys=keys, run=embed),
            *map(through, tower.blocks),
            through(self._parts.projector),
        ]
        return self._walk(Phase.ENCODE, stages if keys else [], keep_inputs=self._trains_tower)

    @torch.no_grad()
    def _prefill(
        self,
        prefixes: Mapping[str, Prefix],
        known: Mapping[str, KeyValues | None],
        features: Mapping[str, Tensor],
    ) -> dict[str, KeyValues]:
        """Return keys and values of bos and each picture, which the adapter does not change."""
        missing = [prefixes[key] for key, each in known.items() if each is None]
        made = {each.key: KeyValues() for each in missing}
        if missing:
            packs, phase = [each.pack for each in missing], Phase.PREFILL_IMAGE
            steps = self._steps(phase, packs, {}, [made[each.key] for each in missing])
            _go_forward(self._decoder(phase, packs, steps, features, keep_inputs=False))
        for key, prefix in made.items():
            self._known.add_prefix(key, prefix)
        return {key: made[key] if each is None else each for key, each in known.items()}

    # --- the decoder ------------------------------------------------------------------------------

    def _steps(
        self,
        phase: Phase,
        packs: Sequence[Pack],
        prefixes: Mapping[str, KeyValues],
        records: Sequence[KeyValues] = (),
    ) -> list[PackStep]:
        """Return what the blocks share for each pack.

        records  get the keys and values of the packs; () if they are not stored
        """
        rotary = self._parts.rotary
        with self._placed.weights(phase, rotary):
            return [
                PackStep(
                    pack,
                    rotary,
                    len(self._parts.decoder.blocks) - 1,
                    prefixes=prefixes,
                    adapted=None if records else Adapted(name=NAME),
                    acts=pack.behind if self._behind else None,
                    record=records[number] if records else None,
                )
                for number, pack in enumerate(packs)
            ]

    def _decoder(
        self,
        phase: Phase,
        packs: Sequence[Pack],
        steps: Sequence[PackStep],
        features: Mapping[str, Tensor],
        *,
        keep_inputs: bool,
    ) -> LayerMajorWalk:
        """Return the walk from token ids to the last block."""
        decoder, placed = self._parts.decoder, self._placed
        keys, first = [(number, 0) for number in range(len(packs))], decoder.blocks[0]

        def embed(key: Key, _: Tensor | None) -> Tensor:
            pack = packs[key[0]]
            hidden = placed.put(decoder.embedding(pack.chunk.input_ids), first)
            if not pack.pictures:
                return hidden
            shown = torch.cat([placed.put(features[each.key], first) for each in pack.pictures])
            return place_features(hidden, shown, pack.chunk.image_mask.to(hidden.device))

        def through(block: DecoderBlock) -> LayerStage:
            def run(key: Key, hidden: Tensor | None) -> Tensor:
                assert hidden is not None
                return steps[key[0]].halves(block).forward(placed.put(hidden, block))

            return LayerStage(name="learn", piece=block, keys=keys, run=run)

        embedding = LayerStage(name="words", piece=decoder.embedding, keys=keys, run=embed)
        stages = [embedding, *map(through, decoder.blocks)]
        return self._walk(phase, stages, keep_inputs=keep_inputs)

    def _walk(
        self, phase: Phase, stages: Sequence[LayerStage], *, keep_inputs: bool
    ) -> LayerMajorWalk:
        def load(piece: HasSlots, *, backward: bool = False) -> AbstractContextManager[None]:
            # The backward pass through a trained tower belongs to the learning phase.
            now = Phase.LEARN if backward else phase
            return self._placed.weights(now, piece, backward=backward)

        return LayerMajorWalk(stages, load, MemoryActivations(keep_inputs=keep_inputs))

    def _losses(
        self, packs: Sequence[Pack], walk: LayerMajorWalk, *, count: int | None
    ) -> Iterator[_Loss]:
        """Yield the loss of each pack.

        count  the gradient is that of the sum of all losses / count; None: no gradient

        Logits are computed at label positions only, a few rows at a time: at all positions of a
        picture's sequence they would take 1.2 GiB.
        """
        head = self._parts.decoder.head
        with self._placed.weights(Phase.LEARN, head):
            for number, pack in enumerate(packs):
                hidden = walk.activations.read(len(walk.stages), (number, 0))
                yield self._loss(pack, self._placed.put(hidden, head), count)

    def _loss(self, pack: Pack, hidden: Tensor, count: int | None) -> _Loss:
        head = self._parts.decoder.head
        places, labels = _labelled_places(pack)
        gradient = None if count is None else torch.zeros_like(hidden)
        errors = []
        for begin in range(0, len(places), LOGIT_ROWS):
            own = slice(begin, begin + LOGIT_ROWS)
            rows = places[own].to(hidden.device)
            part = hidden[:, rows].requires_grad_(gradient is not None)
            error = F.cross_entropy(head(part)[0], labels[own].to(hidden.device), reduction="none")
            errors.append(error.detach().cpu().double())
            if gradient is not None and count is not None:
                torch.autograd.backward(error.sum() / count)
                assert part.grad is not None
                gradient[0].index_add_(0, rows, part.grad[0])
        each = torch.split(torch.cat(errors), [len(t.rows) for t in pack.targets])
        sums = {t.sample: float(e.sum()) for t, e in zip(pack.targets, each, strict=True)}
        return _Loss(sums=sums, gradient=None if gradient is None else gradient.cpu())

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

        gradients  at the outputs, in host memory; replaced by those at the inputs
        deeper     whether the gradients at the input of the second stage are wanted
        steps      of the packs that went through a decoder
        """
        trained = [n for n, stage in enumerate(walk.stages) if self._trained.of(stage.piece)]
        first = 1 if deeper else max(1, min(trained, default=len(walk.stages)))
        put = self._placed.put
        for number in walk.backward:
            if number < first:
                break
            piece = walk.stages[number].piece
            with walk.visit_backward(number) as visit, self._placed.learning(piece) as sums:
                for key in visit.keys:
                    start = visit.input(key)
                    assert start is not None
                    halves = self._halves(piece, key, steps)
                    gradients[key] = halves.backward(
                        put(start, piece),
                        put(gradients[key], piece),
                        sums,
                        deeper=deeper or number > first,
                    ).cpu()

    @staticmethod
    def _halves(piece: HasSlots, key: Key, steps: Sequence[PackStep]) -> Halves:
        if isinstance(piece, DecoderBlock):
            return steps[key[0]].halves(piece)
        if isinstance(piece, VisionBlock):
            return vision_halves(piece)
        assert isinstance(piece, Projector)
        return projector_halves(piece)


def _of_features(
    packs: Sequence[Pack], gradients: Mapping[Key, Tensor], features: Mapping[str, Tensor]
) -> dict[Key, Tensor]:
    """Return the gradients at the features of each picture, without boi and eoi."""
    sums = {key: torch.zeros_like(each) for key, each in features.items()}
    for number, pack in enumerate(packs):
        if pack.pictures:
            rows = gradients[number, 0][pack.chunk.image_mask]
            for picture, part in zip(pack.pictures, rows.chunk(len(pack.pictures)), strict=True):
                sums[picture.key] += part.view_as(sums[picture.key])
    return {(place, 0): each[:, 1:-1] for place, each in enumerate(sums.values())}


def _labelled_places(pack: Pack) -> tuple[Tensor, Tensor]:
    """Return the places of a pack's labels among its last hidden states, and the labels."""
    places = torch.cat([target.rows for target in pack.targets])
    if pack.wanted is not None:
        places = torch.searchsorted(pack.wanted, places)
    return places, torch.cat([target.labels for target in pack.targets])


@torch.no_grad()
def _outputs(walk: LayerMajorWalk, pictures: Sequence[TrainingPicture]) -> dict[str, Tensor]:
    """Run the walk over the vision tower; return the features by key."""
    _go_forward(walk)
    return {
        picture.key: walk.activations.read(len(walk.stages), (place, 0))
        for place, picture in enumerate(pictures)
    }


def _go_forward(walk: LayerMajorWalk) -> None:
    for number in walk.forward:
        with walk.visit(number) as stage:
            for key in stage.keys:
                stage.advance(key)
