"""What a training run needs besides weights, on the device and in RAM. No torch.

The device holds weights, the activations of one pack, and the low-rank pairs of one block in the
compute dtype with their gradients. A pack is the rows that go through the decoder together: one or
more conversations. Everything else waits in RAM: the pairs in float32 with their gradients and the
optimizer's moments, and the inputs of all blocks, from which the backward pass computes a block
again. Packs whose inputs do not fit into RAM together are computed in several waves; their
gradients add up.
"""

from __future__ import annotations

from dataclasses import dataclass

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase
from cogvlm2_lite.memory.work import KERNEL_SCRATCH_BYTES
from cogvlm2_lite.weights.footprint import CHUNK_NUMBERS, WHOLE_NUMBERS

MLP_ROWS = 1024
"""Rows that go through an MLP together with gradients. An MLP works row by row, so its activations
do not grow with the length of a conversation."""

PACK_ROWS = 1024
"""Rows of a pack of several conversations. A matrix is dequantized once for them."""

TALK_ROWS = 4096
"""Rows of a conversation, its picture included; a longer one is split into several packs."""

SPAN_ROWS = 512
"""Rows behind one prefix whose attention is computed together: the prefix's keys are copied once
for them, and their mask takes 1.4 MiB behind a picture of the 19B model."""

LOGIT_ROWS = 64
"""Label positions whose logits are computed together: 31 MiB in float32 for the 19B model."""

_NUMBER_BYTES = 16
"""Bytes of a trained number in RAM: itself, its gradient and two moments, all in float32."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a run computes, as far as its memory depends on it.

    tokens          rows of the largest pack, which are computed with gradients
    step_tokens     the same, summed over the packs of the largest step
    step_pictures   most pictures in a step
    pictures        different pictures of the run
    prefix          tokens before the rows whose keys and values the adapter does not change: bos
                    and the picture; 0: the picture's tokens are among the rows
    numbers         trained numbers
    block_numbers   those of the block, or other piece, that has the most
    matrix_numbers  those of the largest trained matrix
    vision_expert   tokens with gradients go through the vision experts
    tower           the vision tower and the projector are trained
    """

    tokens: int
    step_tokens: int
    step_pictures: int = 0
    pictures: int = 0
    prefix: int = 0
    numbers: int
    block_numbers: int
    matrix_numbers: int
    vision_expert: bool = False
    tower: bool = False

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of a step, in order."""
        encode = (Phase.ENCODE,) if self.pictures else ()
        prefill = (Phase.PREFILL_IMAGE,) if self.pictures and self.prefix else ()
        return (*encode, *prefill, Phase.LEARN)

    @property
    def unused_parts(self) -> frozenset[Part]:
        """Parts that the learning phase does not need."""
        experts = frozenset() if self.vision_expert else frozenset({Part.VISION_EXPERT})
        tower = frozenset() if self.tower else frozenset({Part.VISION, Part.PROJECTOR})
        return experts | tower

    @property
    def trained_bytes(self) -> int:
        """Bytes in RAM of the trained numbers, their gradients and the optimizer's moments."""
        return _NUMBER_BYTES * self.numbers


def feature_bytes(config: ModelConfig, itemsize: int) -> int:
    """Return the bytes in RAM of the features of a picture."""
    return config.vision.image_tokens * config.hidden_size * itemsize


def prefix_bytes(config: ModelConfig, training: Training, itemsize: int) -> int:
    """Return the bytes in RAM of keys and values of [bos, picture]; 0 without a kept prefix."""
    per_token = 2 * config.num_multi_query_heads * config.head_dim * itemsize
    return training.prefix * per_token * config.num_hidden_layers


def picture_bytes(config: ModelConfig, training: Training, itemsize: int) -> int:
    """Return the bytes in RAM of everything that is known of a picture."""
    return feature_bytes(config, itemsize) + prefix_bytes(config, training, itemsize)


def waiting_bytes(
    config: ModelConfig, training: Training, itemsize: int, *, tokens: int, pictures: int
) -> int:
    """Return the bytes in RAM of packs that are computed together, in one wave.

    tokens    rows of all of them
    pictures  of all of them

    These are the inputs of all blocks, the output of the last one and its gradient, and what is
    known of the pictures. With a trained vision tower also the inputs of its blocks.
    """
    vision = config.vision
    total = tokens * (config.num_hidden_layers + 2) * config.hidden_size * itemsize
    total += pictures * picture_bytes(config, training, itemsize)
    if training.tower:
        stages = vision.num_hidden_layers + 1
        total += pictures * stages * vision.num_positions * vision.hidden_size * itemsize
    return total


def learn_bytes(
    config: ModelConfig, training: Training, itemsize: int, *, head_is_quantized: bool
) -> int:
    """Return an estimate of the peak bytes on the device of the learning phase, without weights.

    head_is_quantized  lm_head is dequantized for its backward product, in chunks if it is large

    benchmarks/finetune_memory.py compares it with the tensors that are really allocated.
    """
    tokens, hidden, inner = training.tokens, config.hidden_size, config.intermediate_size
    block = _block_bytes(config, training, itemsize)
    logits = min(LOGIT_ROWS, tokens) * config.vocab_size * (2 * itemsize + 8)
    head = 0
    if head_is_quantized:
        numbers = config.vocab_size * hidden
        head = numbers * itemsize if numbers <= WHOLE_NUMBERS else 4 * CHUNK_NUMBERS
    work = max(block + hidden * inner * itemsize, logits + head)
    if training.tower:
        work = max(work, _tower_bytes(config, itemsize))
    # The input and output of a block, and their gradients.
    streams = 4 * tokens * hidden * itemsize
    return work + streams + pair_bytes(training, itemsize) + KERNEL_SCRATCH_BYTES


def pair_bytes(training: Training, itemsize: int) -> int:
    """Return the bytes of the low-rank pairs of a block in the compute dtype, with gradients.

    Gradients are added up in float32, one matrix at a time.
    """
    return (2 * itemsize + 4) * training.block_numbers + 4 * training.matrix_numbers


def _block_bytes(config: ModelConfig, training: Training, itemsize: int) -> int:
    """Return the bytes of a decoder block's activations with gradients.

    Its halves are computed one after another: attention for all tokens, the MLP for some rows.
    """
    tokens, hidden, inner = training.tokens, config.hidden_size, config.intermediate_size
    span = min(SPAN_ROWS, tokens)
    keys = training.prefix + tokens
    kv_width = 2 * config.num_multi_query_heads * config.head_dim
    attention = 12 * tokens * hidden * itemsize + 3 * keys * kv_width * itemsize
    if training.prefix:
        attention += span * (training.prefix + span) * (1 + itemsize)  # the mask
    mlp = min(MLP_ROWS, tokens) * 7 * inner * itemsize
    return max(attention, mlp)


def _tower_bytes(config: ModelConfig, itemsize: int) -> int:
    """Return the bytes of a vision block's activations with gradients, as for the decoder."""
    vision = config.vision
    tokens, hidden, inner = vision.num_positions, vision.hidden_size, vision.intermediate_size
    attention = 12 * tokens * hidden * itemsize
    mlp = min(MLP_ROWS, tokens) * 5 * inner * itemsize
    return max(attention, mlp) + 4 * tokens * hidden * itemsize + hidden * inner * itemsize
