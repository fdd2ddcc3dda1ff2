"""How many bytes each unit takes in memory, from a catalog's sizes alone."""

from __future__ import annotations

from cogvlm2_lite.memory.inventory import UnitKey, sum_by_unit
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.names import Part

PACKED_PARTS = frozenset({Part.LANGUAGE_EXPERT, Part.LM_HEAD})
"""Parts that decode on the CPU from a second, packed copy."""


def unit_sizes(catalog: Catalog, *, itemsize: int, packed: bool) -> dict[UnitKey, int]:
    """Weigh each unit as it will lie in memory.

    itemsize  bytes of the compute dtype, which 16 and 32-bit tensors are cast to
    packed    whether 4-bit matrices get a copy in the layout of the CPU's decoding kernel: half a
              byte per weight and a 2-byte scale per 64
    """

    def weigh(tensor: StoredTensor) -> int:
        spec = tensor.spec
        if spec.keeps_type:
            return tensor.nbytes
        if tensor.kind == "dense":
            return spec.numel * itemsize
        copies = packed and tensor.kind in ("nf4", "fp4") and spec.part in PACKED_PARTS
        return tensor.nbytes + (spec.numel // 2 + spec.numel // 64 * 2 if copies else 0)

    return sum_by_unit((tensor.spec, weigh(tensor)) for tensor in catalog.tensors.values())
