"""How many bytes each unit takes in memory, from a catalog's sizes alone."""

from __future__ import annotations

from cogvlm2_lite.memory.inventory import UnitKey, sum_by_unit
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.footprint import held_bytes


def unit_sizes(catalog: Catalog, *, itemsize: int, packed: bool) -> dict[UnitKey, int]:
    """Weigh each unit as it will lie in memory.

    itemsize  bytes of the compute dtype, which 16 and 32-bit tensors are cast to
    packed    whether 4-bit matrices get a copy in the layout of the CPU's decoding kernel: half a
              byte per weight and a 2-byte scale per 64
    """

    return sum_by_unit(
        (tensor.spec, held_bytes(tensor, itemsize=itemsize, packs=packed))
        for tensor in catalog.tensors.values()
    )
