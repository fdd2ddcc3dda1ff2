"""The units of a model that can be in memory or not, and their sizes in bytes. No torch.

A unit is loaded and released as a whole: a block of one part (an expert of one decoder layer, a
layer of the vision tower), or what a part holds outside of blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from cogvlm2_lite.architectures.architecture import (
    ModelConfig,
    Part,
    Role,
    TensorSpec,
    expected_tensors,
)
from cogvlm2_lite.backends.device import aligned
from cogvlm2_lite.weights.catalog import NF4_GROUP, Catalog
from cogvlm2_lite.weights.footprint import held_bytes, packed_copy_bytes

UnitKey = tuple[Part, int | None]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A piece of the model that is loaded and released as a whole.

    nbytes  bytes in memory, copies for fast kernels included
    rank    position of its part in the architecture's keep_order
    """

    part: Part
    block: int | None
    nbytes: int
    rank: int

    @property
    def key(self) -> UnitKey:
        return (self.part, self.block)


def unit_key(spec: TensorSpec) -> UnitKey:
    """Return the key of the unit that a tensor belongs to."""
    return (spec.part, spec.block)


def list_units(sizes: Mapping[UnitKey, int], keep_order: Sequence[Part]) -> tuple[Unit, ...]:
    """Return the units of the parts in keep_order, in the order in which they are kept."""
    ranks = {part: rank for rank, part in enumerate(keep_order)}
    return in_keep_order(
        Unit(part=part, block=block, nbytes=nbytes, rank=ranks[part])
        for (part, block), nbytes in sizes.items()
        if part in ranks
    )


def in_keep_order(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """Return units sorted by part, with the blocks of each part spread out.

    Streamed blocks then alternate with resident ones, so their copies overlap with the computation
    of the resident blocks.
    """
    return tuple(
        sorted(units, key=lambda u: (u.rank, -1.0 if u.block is None else spread(u.block)))
    )


def spread(index: int) -> float:
    """Return the van der Corput number of an index: 0, 1/2, 1/4, 3/4, 1/8, ...

    The first n numbers of this sequence are spread evenly for every n.
    """
    value, weight = 0.0, 0.5
    while index:
        value += weight * (index & 1)
        index, weight = index >> 1, weight / 2
    return value


def nf4_bytes(numel: int) -> int:
    """Return the bytes of an NF4 matrix with double quantization: 4.127 bits per weight.

    Half a byte per weight, a byte per group of 64, 4 bytes per 256 groups, and three small tables.
    """
    groups = ceil(numel / NF4_GROUP)
    return ceil(numel / 2) + groups + 4 * ceil(groups / 256) + 16 * 4 + 256 * 4 + 256


def _nf4_bytes_on_gpu(numel: int) -> int:
    """Return the same with each piece aligned, and with the offset of the scales."""
    groups = ceil(numel / NF4_GROUP)
    sizes = (ceil(numel / 2), groups, 4 * ceil(groups / 256), 16 * 4, 256 * 4, 4)
    return sum(map(aligned, sizes))


def sizes_of_quantized(
    config: ModelConfig,
    *,
    itemsize: int = 2,
    lm_head_nf4: bool = False,
    packed: bool = False,
    on_gpu: bool = False,
) -> dict[UnitKey, int]:
    """Return the bytes in memory of each unit of a model that `quantize` would write.

    packed, on_gpu  as in unit_sizes
    """

    def weigh(spec: TensorSpec) -> int:
        if spec.role is Role.LINEAR and (spec.part is not Part.LM_HEAD or lm_head_nf4):
            if on_gpu:
                return _nf4_bytes_on_gpu(spec.numel)
            return nf4_bytes(spec.numel) + (packed_copy_bytes(spec, NF4_GROUP) if packed else 0)
        if on_gpu and not spec.keeps_type:
            return aligned(spec.numel * itemsize)
        if on_gpu and spec.part is not Part.EMBEDDING:
            return 0
        return spec.numel * (2 if spec.keeps_type else itemsize)

    return sum_by_unit((spec, weigh(spec)) for spec in expected_tensors(config).values())


def sum_by_unit(weights: Iterable[tuple[TensorSpec, int]]) -> dict[UnitKey, int]:
    """Return the sum of the tensors' bytes for each unit."""
    sizes: dict[UnitKey, int] = {}
    for spec, nbytes in weights:
        sizes[unit_key(spec)] = sizes.get(unit_key(spec), 0) + nbytes
    return sizes


def by_part(units: Iterable[Unit]) -> dict[Part, int]:
    """Return the sum of the units' bytes for each part, in the order in which parts are kept."""
    sizes: dict[Part, int] = {}
    for unit in sorted(units, key=lambda unit: unit.rank):
        sizes[unit.part] = sizes.get(unit.part, 0) + unit.nbytes
    return sizes


def step_of(unit: Unit) -> tuple[int, int]:
    """Return the step of a phase in which a unit is used; both experts of a layer share one."""
    order = {Part.VISION: 0, Part.PROJECTOR: 1, Part.NORMS: 2, Part.LM_HEAD: 4}
    return (order.get(unit.part, 3), -1 if unit.block is None else unit.block)


def in_use_order(units: Iterable[Unit]) -> Iterator[Unit]:
    """Return units in the order in which a phase uses them."""
    return iter(sorted(units, key=lambda unit: (step_of(unit), unit.part.value)))


def unit_sizes(
    catalog: Catalog,
    *,
    itemsize: int,
    packed: bool,
    on_gpu: bool = False,
    low_rank: Mapping[str, Sequence[int]] | None = None,
) -> dict[UnitKey, int]:
    """Return the bytes in memory of each unit.

    itemsize  bytes of the compute dtype, which 16 and 32-bit tensors are cast to
    packed    whether 4-bit matrices get a copy in the layout of the CPU's decoding kernel: half a
              byte per weight and a 2-byte scale per 64
    on_gpu    whether the units lie in memory of a GPU, where each piece of a tensor is aligned
    low_rank  numbers of each low-rank matrix that adapters add to a matrix, by name
    """
    added = low_rank or {}

    def weigh_low_rank(name: str) -> int:
        sizes = [numel * itemsize for numel in added.get(name, ())]
        return sum(map(aligned, sizes) if on_gpu else sizes)

    return sum_by_unit(
        (
            tensor.spec,
            held_bytes(tensor, itemsize=itemsize, packs=packed, on_gpu=on_gpu)
            + weigh_low_rank(tensor.spec.name),
        )
        for tensor in catalog.tensors.values()
    )
