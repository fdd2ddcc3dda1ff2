"""Assembles the parts of a model; every user of the whole model starts here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.model.decoder import Decoder
from cogvlm2_lite.model.full_attention import AttentionChoice, choose_full_attention
from cogvlm2_lite.model.operations import Operations, choose_operations
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.rotary import RopeMode, Rotary
from cogvlm2_lite.model.token_attention import TokenAttentionChoice, choose_token_attention
from cogvlm2_lite.model.vision import VisionTower
from cogvlm2_lite.weights.kernels.choice import uses_own_kernels
from cogvlm2_lite.weights.slots import Linear


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """The whole model with empty weight slots.

    full_attention   the attention for many queries, and why it was chosen
    token_attention  the attention for a single query, and why it was chosen
    operations       what else depends on the device
    """

    config: ModelConfig
    full_attention: AttentionChoice
    token_attention: TokenAttentionChoice
    operations: Operations
    tower: VisionTower
    projector: Projector
    decoder: Decoder
    rotary: Rotary

    def round_pictures(self) -> None:
        """Make the matrices that only pictures go through multiply inputs of 8 bits.

        They are those of the vision tower, the projector and the vision experts. So what a picture
        becomes is less exact; tokens of text are computed as always.
        """
        experts = (block.vision for block in self.decoder.blocks)
        pieces: list[HasSlots] = [*self.tower.blocks, self.projector, *experts]
        for piece in pieces:
            for slot in piece.slots():
                if isinstance(slot, Linear):
                    slot.input_bits = 8

    @property
    def pieces(self) -> list[HasSlots]:
        """All pieces that have weight slots, in the order of a forward pass."""
        return [
            self.tower.embedding,
            *self.tower.blocks,
            self.projector,
            self.decoder.embedding,
            self.rotary,
            *self.decoder.blocks,
            self.decoder.head,
        ]


def assemble(
    config: ModelConfig, *, device: torch.device, dtype: torch.dtype, rope: RopeMode
) -> ModelParts:
    """Return the parts of a model for one device and compute type, without weights."""
    backend_of(device).prepare()
    full = choose_full_attention(device, dtype)
    single = choose_token_attention(device, dtype, config.head_dim)
    operations = choose_operations(
        device,
        single.attend,
        several_attention=full.causal,
        token_kernel=single.kernel,
        own_kernels=uses_own_kernels(device, dtype),
    )
    return ModelParts(
        config=config,
        full_attention=full,
        token_attention=single,
        operations=operations,
        tower=VisionTower(config.vision, full.attend, operations.project),
        projector=Projector(config, operations.project),
        decoder=Decoder(config, operations),
        rotary=Rotary(config, rope, dtype=dtype, device=device),
    )
