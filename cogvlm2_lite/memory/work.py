"""What each phase needs besides weights: operations, activations, buffers. No torch."""

from __future__ import annotations

from cogvlm2_lite.architectures.architecture import ModelConfig, Phase

PREFILL_CHUNK = 1024
"""Text tokens that go through the decoder together. Longer texts are split into chunks, so that the
memory for activations does not grow with the length of a conversation."""

DECODE_ROWS = 32
"""Tokens that one decode step computes at most: one of each answer, and drafts of those that may
follow. If more answers are decoded together, a step has a token of each and no drafts."""

KERNEL_SCRATCH_BYTES = 32 * 1024**2
"""Dequantized rows of a matrix (at most 24 MiB, weights/kernels/dequantize.py), or rearranged
inputs and sums (at most 28 MiB, weights/kernels/gemm_amx.c; with 32 threads 26 MiB,
weights/kernels/integer.c, and at most 28 MiB, weights/kernels/bytes.c, which free them after each
product), and the scales of a matrix (at most 4 MiB, weights/kernels/scales.py). Allocated at the
first multiplication and kept, also while decoding."""


def scratch_bytes(
    phase: Phase, config: ModelConfig, *, itemsize: int, tokens: int, parallel: int = 1
) -> int:
    """Return an estimate of the peak bytes of activations and kernel buffers of a phase.

    itemsize  bytes of the compute dtype
    tokens    of text that go through the decoder together
    parallel  conversations that are decoded together, in steps of DECODE_ROWS rows or more

    benchmarks/memory_estimate.py compares it with the tensors that are really allocated.
    """
    vision, hidden = config.vision, config.hidden_size
    if phase is Phase.ENCODE:
        # In the MLP: the residual stream before the block and after attention, the wide product,
        # and the result.
        width = 3 * vision.hidden_size + vision.intermediate_size
        in_attention = 7 * vision.hidden_size
        return vision.num_positions * max(width, in_attention) * itemsize + KERNEL_SCRATCH_BYTES
    extra = 2 * 4 * config.vocab_size  # logits in the compute dtype and in float32
    if phase is Phase.DECODE:
        rows = max(parallel, DECODE_ROWS)
        extra *= rows
        if parallel > 1:
            extra += _waiting_prompt_bytes(config, itemsize=itemsize, tokens=tokens)
        tokens = rows
    elif phase is Phase.PREFILL_IMAGE:
        tokens = vision.image_tokens + 1
        # Each expert has copies of its rows, and the image features exist next to the stream.
        extra += tokens * 2 * hidden * itemsize
    else:
        extra += tokens * config.max_position_embeddings  # the mask
    # In the MLP: gate and up, the residual stream before and after attention, and its norm. A norm
    # is computed in float32, in three steps.
    width = max(
        (2 * config.intermediate_size + 3 * hidden) * itemsize, hidden * (2 * itemsize + 12)
    )
    return tokens * width + extra + KERNEL_SCRATCH_BYTES


def _waiting_prompt_bytes(config: ModelConfig, *, itemsize: int, tokens: int) -> int:
    """Return the bytes of a prompt that is in prefill while other answers are decoded."""
    vision, hidden = config.vision, config.hidden_size
    encoding = vision.num_positions * vision.hidden_size * itemsize
    # The picture's features exist next to the residual stream that they were copied into.
    picture = 2 * (vision.image_tokens + 1) * hidden * itemsize
    text = tokens * (hidden * itemsize + config.max_position_embeddings)  # and the mask
    return max(encoding, picture, text)


def encode_flops(config: ModelConfig) -> int:
    """Return the operations of encoding one picture, 2 per multiply-add (spec, section 13)."""
    return round(tower_flops(config, linears=1, attention=1))


def tower_flops(config: ModelConfig, *, linears: float, attention: float) -> float:
    """Return the operations of a picture in the vision tower and the projector.

    linears, attention  how often each is computed
    """
    v, tokens = config.vision, config.vision.num_positions
    matrices = 4 * v.hidden_size**2 + 2 * v.hidden_size * v.intermediate_size
    products = 2 * tokens * v.hidden_size
    tower = v.num_hidden_layers * tokens * (linears * matrices + attention * products)
    out = v.image_tokens - 2
    glu = v.hidden_size * config.hidden_size + 3 * config.hidden_size * config.intermediate_size
    patches = (tokens - 1) * v.hidden_size * v.in_channels * v.patch_size**2
    return 2 * (tower + linears * (out * (glu + 4 * v.hidden_size**2) + patches))


def decoder_flops(config: ModelConfig, *, tokens: int, keys: int, scored: int = 1) -> int:
    """Return the operations of `tokens` tokens that attend to `keys` keys each on average.

    scored  positions whose logits are computed
    """
    linears = config.num_hidden_layers * expert_weights(config)
    attention = 2 * config.num_hidden_layers * config.hidden_size * keys
    head = scored * config.vocab_size * config.hidden_size
    return 2 * (tokens * (linears + attention) + head)


def expert_weights(config: ModelConfig) -> int:
    """Return the number of weights of one expert of one layer."""
    hidden = config.hidden_size
    return hidden * (config.qkv_rows + hidden + 3 * config.intermediate_size)
