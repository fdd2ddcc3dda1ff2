"""The model as a list of steps, so that matrices of one block are rounded one after another.

A block is three stages of the layer-major walk: up to attention, the matrix behind it, and the MLP.
Between two of them only one tensor per sample is stored. What a matrix multiplies can be computed
from a row of it alone, so only the rows that are needed are computed:

    stage of a decoder block    input of the stage             inputs of its matrices
    query_key_value             x [hidden]                     norm(x)
    dense                       x and attention [2 * hidden]   attention
    gate and up, then down      h [hidden]                     norm(h), then silu(gate) * up

The long inputs of the last matrix of an MLP are computed again when they are needed, and not
stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part
from cogvlm2_lite.engine.activations import Key
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.model.decoder import DecoderBlock, Expert
from cogvlm2_lite.model.gates import gelu_in_place, silu_gate
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.vision import VisionBlock
from cogvlm2_lite.weights.slots import Linear, Vector, WeightSlot
from quantize.calibration.network import Network
from quantize.calibration.stages import ModelStage, model_stages


@dataclass(frozen=True, kw_only=True)
class SharedInputs:
    """The inputs of one or more matrices, as a function of the rows of their stage's input.

    linears  the matrices that multiply them
    part     the part that they belong to
    rows     returns the numbers of the rows of a sample that reach them; None: all rows
    make     makes the inputs [n, columns] of rows [n, width]
    """

    linears: tuple[Linear, ...]
    part: Part
    make: Callable[[Tensor], Tensor]
    rows: Callable[[Key], Tensor | None] = lambda _: None


@dataclass(frozen=True, kw_only=True)
class RoundingStage(ModelStage):
    """A stage, and its matrices in the order in which they are rounded.

    rounds  the inputs of the matrices that are rounded together; those of the first are computed
            without any rounded matrix of this stage
    """

    rounds: tuple[tuple[SharedInputs, ...], ...] = ()


@dataclass(frozen=True)
class _Piece:
    """Some of the weight slots of a block."""

    parts: tuple[Vector | Linear | HasSlots, ...]

    def slots(self) -> Iterator[WeightSlot]:
        for part in self.parts:
            if isinstance(part, Vector):
                yield part
            elif isinstance(part, Linear):
                yield part
                if part.bias:
                    yield part.bias
            else:
                yield from part.slots()


def rounding_stages(network: Network) -> list[RoundingStage]:
    """Return the stages from pixels and token ids to the last decoder block."""
    found: list[RoundingStage] = []
    for whole in model_stages(network):
        piece = whole.piece
        if isinstance(piece, VisionBlock):
            found += _vision_block(network, whole, piece)
        elif isinstance(piece, Projector):
            found += _projector(network, whole, piece)
        elif isinstance(piece, DecoderBlock):
            found += _decoder_block(network, whole, piece)
        else:
            found.append(_stage(whole))
    return found


def _stage(whole: ModelStage) -> RoundingStage:
    return RoundingStage(
        name=whole.name,
        piece=whole.piece,
        keys=whole.keys,
        run=whole.run,
        source=whole.source,
        groups=whole.groups,
        rows=whole.rows,
        tokens=whole.tokens,
        share=whole.share,
        of_pictures=whole.of_pictures,
    )


def _part_of(
    network: Network,
    whole: ModelStage,
    name: str,
    pieces: Sequence[Vector | Linear | HasSlots],
    run: Callable[[Key, Tensor], Tensor],
    rounds: tuple[tuple[SharedInputs, ...], ...] = (),
) -> RoundingStage:
    """Return a stage for a part of a block."""

    def run_stored(key: Key, stored: Tensor | None) -> Tensor:
        assert stored is not None
        return run(key, network.put(stored))

    return replace(
        _stage(whole),
        name=f"{whole.name}, {name}",
        piece=_Piece(tuple(pieces)),
        run=run_stored,
        rounds=rounds,
    )


# --- the blocks -----------------------------------------------------------------------------------


def _vision_block(
    network: Network, whole: ModelStage, block: VisionBlock
) -> Iterator[RoundingStage]:
    width = network.config.vision.hidden_size

    def shared(make: Callable[[Tensor], Tensor], linear: Linear) -> tuple[SharedInputs]:
        return (SharedInputs(linears=(linear,), part=Part.VISION, make=make),)

    def attend(_: Key, x: Tensor) -> Tensor:
        return torch.cat((x, block.attend(block.qkv(x))), dim=-1)

    def mix(_: Key, both: Tensor) -> Tensor:
        x, mixed = both[..., :width], both[..., width:]
        return x + block.attention_norm(block.dense(mixed.contiguous()))

    def through_mlp(_: Key, h: Tensor) -> Tensor:
        return h + block.mlp_norm(block.fc2(gelu_in_place(block.fc1(h))))

    yield _part_of(
        network, whole, "attention", [block.qkv], attend, (shared(_unchanged, block.qkv),)
    )
    yield _part_of(
        network,
        whole,
        "dense",
        [block.dense, block.attention_norm],
        mix,
        (shared(lambda both: both[:, width:], block.dense),),
    )
    yield _part_of(
        network,
        whole,
        "MLP",
        [block.fc1, block.fc2, block.mlp_norm],
        through_mlp,
        (
            shared(_unchanged, block.fc1),
            shared(lambda h: gelu_in_place(block.fc1(h)), block.fc2),
        ),
    )


def _projector(
    network: Network, whole: ModelStage, projector: Projector
) -> Iterator[RoundingStage]:
    def shared(make: Callable[[Tensor], Tensor], *linears: Linear) -> tuple[SharedInputs]:
        return (SharedInputs(linears=linears, part=Part.PROJECTOR, make=make),)

    def gated(h: Tensor) -> Tensor:
        return silu_gate(projector.gate(h), projector.up(h))

    def finish(_: Key, h: Tensor) -> Tensor:
        return projector.between_ends(projector.down(gated(h)))

    yield _part_of(
        network,
        whole,
        "patches",
        [projector.kernel, projector.kernel_bias],
        lambda _, x: projector.downsample(x),
    )
    yield _part_of(
        network,
        whole,
        "linear",
        [projector.linear, projector.norm],
        lambda _, x: F.gelu(projector.norm(projector.linear(x))),
        (shared(_unchanged, projector.linear),),
    )
    yield _part_of(
        network,
        whole,
        "MLP",
        [projector.gate, projector.up, projector.down, projector.boi, projector.eoi],
        finish,
        (shared(_unchanged, projector.gate, projector.up), shared(gated, projector.down)),
    )


def _decoder_block(
    network: Network, whole: ModelStage, block: DecoderBlock
) -> Iterator[RoundingStage]:
    width = network.config.hidden_size
    language, vision = block.language, block.vision

    def of_language(key: Key) -> Tensor | None:
        return network.routing(key[0]).language

    def of_vision(key: Key) -> Tensor | None:
        rows = network.routing(key[0]).vision
        return torch.empty(0, dtype=torch.int64, device=network.device) if rows is None else rows

    def of(expert: Expert, make: Callable[[Tensor], Tensor], *linears: Linear) -> SharedInputs:
        speaks = expert is language
        return SharedInputs(
            linears=linears,
            part=Part.LANGUAGE_EXPERT if speaks else Part.VISION_EXPERT,
            make=make,
            rows=of_language if speaks else of_vision,
        )

    def gated(expert: Expert) -> Callable[[Tensor], Tensor]:
        def make(h: Tensor) -> Tensor:
            normed = block.mlp_norm(h)
            return silu_gate(expert.gate(normed), expert.up(normed))

        return make

    def attend(key: Key, x: Tensor) -> Tensor:
        step = network.step(key[0])
        qkv = step.routing.apply(block.attention_norm(x), language.qkv, vision.qkv)
        return torch.cat((x, block.attend(qkv, step)), dim=-1)

    def mix(key: Key, both: Tensor) -> Tensor:
        x, mixed = both[..., :width], both[..., width:]
        return x + network.routing(key[0]).apply(mixed, language.dense, vision.dense)

    def through_mlp(key: Key, h: Tensor) -> Tensor:
        route = network.routing(key[0]).apply
        return h + route(block.mlp_norm(h), language.mlp, vision.mlp)

    experts = (language, vision)
    yield _part_of(
        network,
        whole,
        "attention",
        [block.attention_norm, *(e.qkv for e in experts)],
        attend,
        (tuple(of(e, block.attention_norm, e.qkv) for e in experts),),
    )
    yield _part_of(
        network,
        whole,
        "dense",
        [e.dense for e in experts],
        mix,
        (tuple(of(e, lambda both: both[:, width:], e.dense) for e in experts),),
    )
    yield _part_of(
        network,
        whole,
        "MLP",
        [block.mlp_norm, *(linear for e in experts for linear in (e.gate, e.up, e.down))],
        through_mlp,
        (
            tuple(of(e, block.mlp_norm, e.gate, e.up) for e in experts),
            # One expert after the other: what is collected for one of them takes 1.6 GB.
            *((of(e, gated(e), e.down),) for e in experts),
        ),
    )


def _unchanged(rows: Tensor) -> Tensor:
    return rows
