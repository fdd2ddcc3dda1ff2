"""A block of the decoder for one token on our CUDA kernels: 9 launches instead of some 20.

It is used only where `COGVLM2_LITE_GPU_KERNELS=own` asked for these kernels and their self-test
passed. What they do not take, such as an adapter, goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite.model.rotary import Rotation
from cogvlm2_lite.weights.kernels.cuda.kernels import OwnFourBit, OwnInt8
from cogvlm2_lite.weights.kernels.cuda.operators import GROUP, HEAD, MOST_INPUTS
from cogvlm2_lite.weights.kernels.interface import as_rows, as_single
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.slots import Linear
from cogvlm2_lite.weights.storage.quantized import QuantizedWeight

_operators = torch.ops.cogvlm2_lite


def takes_attention(*, heads: int, kv_heads: int, head_dim: int) -> bool:
    """Return whether the attention kernel takes a model's heads."""
    return heads == GROUP * kv_heads and head_dim == HEAD


def attend_token(
    qkv: Tensor, rotation: Rotation, keys: list[Tensor], values: list[Tensor], slot: Tensor
) -> Tensor:
    """Rotate a token's queries and key, store its key and value at `slot`, and attend.

    qkv           [1, 1, qkv rows]
    keys, values  a layer's stored tensors, see kv_cache.py; slot [1] int64
    Returns       [1, 1, heads * head_dim]
    """
    (key_codes, *key_scales), (value_codes, *value_scales) = keys, values
    out = qkv.new_empty((1, 1, key_codes.shape[1] * GROUP * HEAD))
    _operators.attend_token(
        out, qkv, rotation.cos, rotation.sin,
        key_codes, key_scales[0] if key_scales else None,
        value_codes, value_scales[0] if value_scales else None,
        slot,
    )  # fmt: skip
    return out


def add_norm(x: Tensor, added: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return x + added, and its RMS norm times weight, [1, 1, hidden] each."""
    total, normed = _operators.add_norm(x, added, weight, epsilon)
    return total, normed


def gated_each(xs: Sequence[Tensor], gate: Linear, up: Linear) -> list[Tensor] | None:
    """Return silu(gate(x)) * up(x) for each x [1, 1, hidden]; None if no kernel takes it.

    Up to 8 go together, and each has the bits that it has alone.
    """
    if len(xs) == 1:
        found = _gated_product(xs[0].view(1, -1), gate, up)
        return None if found is None else [found.view(1, 1, -1)]
    parts = [xs[i : i + MOST_INPUTS] for i in range(0, len(xs), MOST_INPUTS)]
    products = [_gated_product(as_rows(part), gate, up) for part in parts]
    return [y for rows in products if rows is not None for y in as_single(rows)] or None


def _gated_product(xs: Tensor, gate: Linear, up: Linear) -> Tensor | None:
    """Return silu(gate(x)) * up(x) for up to 8 rows [rows, hidden]; None if no kernel takes it."""
    first, second = gate.stored, up.stored
    if not isinstance(first, QuantizedWeight) or not isinstance(second, QuantizedWeight):
        return None
    a, b = first.matrix, second.matrix
    if isinstance(a, FourBitMatrix) and isinstance(b, FourBitMatrix):
        same = a.quant_type == b.quant_type and (a.nested_map is None) == (b.nested_map is None)
        if not same or not isinstance(_kernel(first, xs), OwnFourBit):
            return None
        out: Tensor = _operators.gated_product(
            xs,
            [a.codes, a.absmax, a.nested_absmax, a.nested_map],
            [b.codes, b.absmax, b.nested_absmax, b.nested_map],
            a.levels, a.nested_offset, b.nested_offset, a.rows,
        )  # fmt: skip
        return out
    if isinstance(a, Int8Matrix) and isinstance(b, Int8Matrix):
        if not isinstance(_kernel(first, xs), OwnInt8):
            return None
        own: Tensor = _operators.gated_product(
            xs, [a.codes, a.scales, None, None], [b.codes, b.scales, None, None],
            None, 0.0, 0.0, a.rows,
        )  # fmt: skip
        return own
    return None


def _kernel(weight: QuantizedWeight[Any], xs: Tensor) -> object:
    """Return the kernel that multiplies a row by a weight."""
    matrix = weight.matrix
    return weight.kernels.first(1, matrix.rows, matrix.columns, matrix.group, xs.dtype)
