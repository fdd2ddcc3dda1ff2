"""The model as a list of stages, for calibration and for the search for a byte budget.

Both take the same samples through the same stages (`engine/layer_major.py`); they differ in what
they do while the weights of a stage are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part
from cogvlm2_lite.engine.activations import Key
from cogvlm2_lite.engine.layer_major import LayerStage
from cogvlm2_lite.model.decoder import DecoderBlock
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.vision import VisionBlock
from cogvlm2_lite.weights.slots import Linear, WeightSlot
from quantize.calibration.network import Network


@dataclass(frozen=True, kw_only=True)
class ModelStage(LayerStage):
    """A stage of the whole model, with the facts about its inputs that callers need.

    groups  the number of each input's picture, or the input's own number without a picture; it
            decides whether the input is held out
    rows    returns how many inputs the matrices of a part have, over all samples
    tokens  of all inputs together
    share   share of the stage's matrices that one token goes through: one of two experts is 0.5
    of_pictures  whether its keys are pictures, not samples
    """

    groups: Sequence[int]
    rows: Callable[[Part], int]
    tokens: int
    share: float = 1.0
    of_pictures: bool = False

    @property
    def slots(self) -> list[WeightSlot]:
        """The weight slots of the stage."""
        return list(self.piece.slots())

    @property
    def matrices(self) -> list[Linear]:
        """The linear layers of the stage."""
        return [slot for slot in self.piece.slots() if isinstance(slot, Linear)]


def model_stages(network: Network) -> list[ModelStage]:
    """Return the stages from pixels and token ids to the last decoder block."""
    return [*_vision_stages(network), *_decoder_stages(network)]


def group_numbers(network: Network) -> list[int]:
    """Return for each sample its picture's number, or its own where it has no picture."""
    return [i if picture is None else picture for i, picture in enumerate(network.picture_of)]


def _vision_stages(network: Network) -> list[ModelStage]:
    """Return the stages that every distinct picture goes through once."""
    parts, vision = network.parts, network.config.vision
    pictures = range(len(network.pictures))
    patches = len(pictures) * vision.num_positions
    image_tokens = len(pictures) * vision.image_tokens

    def through(name: str, piece: VisionBlock | Projector) -> ModelStage:
        def run(_: Key, hidden: Tensor | None) -> Tensor:
            assert hidden is not None
            return piece(network.put(hidden))

        projects = piece is parts.projector
        return ModelStage(
            name=name,
            piece=piece,
            keys=_keys(pictures),
            run=run,
            groups=pictures,
            rows=lambda _: image_tokens if projects else patches,
            tokens=patches // 4 if projects else patches,
            of_pictures=True,
        )

    embedding = ModelStage(
        name="patch embedding",
        piece=parts.tower.embedding,
        keys=_keys(pictures),
        run=lambda key, _: network.embed_picture(key[0]),
        groups=pictures,
        rows=lambda _: patches,
        tokens=patches,
        of_pictures=True,
    )
    blocks = [through(f"vision layer {n}", block) for n, block in enumerate(parts.tower.blocks)]
    return [embedding, *blocks, through("projector", parts.projector)]


def _decoder_stages(network: Network) -> list[ModelStage]:
    """Return the stages that every sample goes through; the first takes its picture's features."""
    decoder = network.parts.decoder
    samples, groups = range(len(network.samples)), group_numbers(network)
    tokens = sum(each.input_ids.size for each in network.tokens)
    in_vision = sum(int(each.vision_mask.sum()) for each in network.tokens)

    def rows(part: Part) -> int:
        return in_vision if part is Part.VISION_EXPERT else tokens - in_vision

    def through(number: int, block: DecoderBlock) -> ModelStage:
        def run(key: Key, hidden: Tensor | None) -> Tensor:
            assert hidden is not None
            return block(network.put(hidden), network.step(key[0]))

        return ModelStage(
            name=f"decoder layer {number}",
            piece=block,
            keys=_keys(samples),
            run=run,
            groups=groups,
            rows=rows,
            tokens=tokens,
            share=0.5,
        )

    embedding = ModelStage(
        name="words",
        piece=decoder.embedding,
        keys=_keys(samples),
        run=lambda key, features: network.embed_words(key[0], features),
        source=lambda sample: network.picture_of[sample],
        groups=groups,
        rows=rows,
        tokens=tokens,
    )
    return [embedding, *map(through, range(len(decoder.blocks)), decoder.blocks)]


def _keys(numbers: Sequence[int]) -> list[Key]:
    return [(number, 0) for number in numbers]
