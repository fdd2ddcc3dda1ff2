"""The bytes that a tensor takes once it is loaded. No torch here: the memory plan uses this.

`WeightLoader.fill` returns exactly these numbers; a test compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cogvlm2_lite.architectures.architecture import Part, TensorSpec
from cogvlm2_lite.backends.device import aligned

if TYPE_CHECKING:
    from cogvlm2_lite.weights.catalog import StoredTensor

PACKED_BLOCK = 32
"""Rows that are interleaved in the packed layout (kernels/packed.py)."""

_PACKED_SCALE_BYTES = 2

WHOLE_NUMBERS, CHUNK_NUMBERS = 2**26, 2**24
"""For the gradient of its input, a quantized matrix of more numbers than the first is dequantized
in chunks of the second, in float32. The largest matrix of a layer of the 19B model has 59 million
numbers, lm_head 525 million."""


def can_pack(rows: int, columns: int, group: int) -> bool:
    """Return whether a 4-bit matrix fits the packed layout; otherwise other kernels multiply it."""
    return rows % PACKED_BLOCK == 0 and columns % group == 0


def held_bytes(stored: StoredTensor, *, itemsize: int, packs: bool, on_gpu: bool = False) -> int:
    """Return the bytes that one tensor takes in memory.

    itemsize  bytes of the compute dtype, which 16 and 32-bit tensors are cast to
    packs     whether 4-bit matrices used in decoding get a packed copy (WeightLoader.packs)
    on_gpu    whether its pieces lie in memory of a GPU (WeightLoader.on_gpu)
    """
    spec = stored.spec
    if on_gpu:
        return _bytes_on_gpu(stored, itemsize)
    if stored.kind == "dense":
        return stored.nbytes if spec.keeps_type else spec.numel * itemsize
    if stored.quant is None:
        return stored.nbytes
    kept = stored.nbytes - stored.pieces["quant_state"].nbytes  # only the catalog reads it
    return kept + (packed_copy_bytes(spec, stored.quant.group) if packs else 0)


def _bytes_on_gpu(stored: StoredTensor, itemsize: int) -> int:
    spec = stored.spec
    if spec.keeps_type:  # the embedding and inv_freq stay in RAM; the plan counts the first there
        return stored.nbytes if spec.part is Part.EMBEDDING else 0
    if stored.kind == "dense":
        return aligned(spec.numel * itemsize)
    sizes = [piece.nbytes for role, piece in stored.pieces.items() if role != "quant_state"]
    if stored.quant is not None and stored.quant.nested:
        sizes.append(4)  # the offset of the scales, which the files have in quant_state
    return sum(map(aligned, sizes))


def packed_copy_bytes(spec: TensorSpec, group: int) -> int:
    """Return the bytes of a 4-bit matrix's second, packed copy; 0 if it gets none."""
    rows, columns = spec.shape
    if not spec.decodes or not can_pack(rows, columns, group):
        return 0
    return spec.numel // 2 + spec.numel // group * _PACKED_SCALE_BYTES
