"""How many bytes weights take in memory, from a catalog's sizes alone."""

from __future__ import annotations

from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.names import Part

PACKED_PARTS = frozenset({Part.LANGUAGE_EXPERT, Part.LM_HEAD})
"""Parts that decode on the CPU from a second, packed copy."""


def part_bytes(catalog: Catalog, *, itemsize: int, packed: bool) -> dict[Part, int]:
    """Sum up each part as it will lie in memory.

    itemsize  bytes of the compute dtype, which 16 and 32-bit tensors are cast to
    packed    whether NF4 matrices get a copy in the layout of the CPU's decoding kernel: half a
              byte per weight and a 2-byte scale per 64
    """
    sizes = dict.fromkeys(Part, 0)
    for tensor in catalog.tensors.values():
        spec = tensor.spec
        sizes[spec.part] += spec.numel * itemsize if tensor.kind == "dense" else tensor.nbytes
        if packed and tensor.kind == "nf4" and spec.part in PACKED_PARTS:
            sizes[spec.part] += spec.numel // 2 + spec.numel // 64 * 2
    return sizes
