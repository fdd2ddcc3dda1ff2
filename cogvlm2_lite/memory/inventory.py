"""The pieces of a model that can be in memory or not, and what each weighs. No torch.

A unit is what moves as one: a block of one part (an expert of one decoder layer, a layer of the
vision tower), or what a part holds outside of blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from cogvlm2_lite.config import ModelConfig
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.footprint import held_bytes, packed_copy_bytes
from cogvlm2_lite.weights.names import NF4_GROUP, Part, Role, TensorSpec, expected_tensors

UnitKey = tuple[Part, int | None]

KEEP_ORDER = (
    Part.NORMS,
    Part.LM_HEAD,
    Part.LANGUAGE_EXPERT,
    Part.VISION_EXPERT,
    Part.PROJECTOR,
    Part.VISION,
)
"""Which parts stay in memory first. What every token needs comes before what every picture needs,
and lm_head before the layers, because it is the largest single piece and the worst to stream. The
embedding is in none: a step reads a few of its rows, straight from the mapped file."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A piece of the model that moves as one.

    nbytes  in memory once it is there, copies for fast kernels included
    """

    part: Part
    block: int | None
    nbytes: int

    @property
    def key(self) -> UnitKey:
        return (self.part, self.block)


def unit_key(spec: TensorSpec) -> UnitKey:
    """Say which unit a tensor belongs to."""
    return (spec.part, spec.block)


def list_units(sizes: Mapping[UnitKey, int]) -> tuple[Unit, ...]:
    """Put units in the order in which they are kept.

    Blocks of a part follow each other spread out, so that those that must be streamed stand
    between those that are there, and the copies hide behind their computation.
    """
    units = [Unit(part=part, block=block, nbytes=n) for (part, block), n in sizes.items()]
    ranks = {part: rank for rank, part in enumerate(KEEP_ORDER)}
    kept = [unit for unit in units if unit.part in ranks]
    return tuple(
        sorted(kept, key=lambda u: (ranks[u.part], -1.0 if u.block is None else spread(u.block)))
    )


def spread(index: int) -> float:
    """Give the van der Corput number of an index: 0, 1/2, 1/4, 3/4, 1/8, ...

    Sorting by it visits a range evenly at every length.
    """
    value, weight = 0.0, 0.5
    while index:
        value += weight * (index & 1)
        index, weight = index >> 1, weight / 2
    return value


def nf4_bytes(numel: int) -> int:
    """Bytes of an NF4 matrix with double quantization: 4.127 bits per weight.

    Half a byte per weight, a byte per group of 64, 4 bytes per 256 groups, and three small tables.
    """
    groups = ceil(numel / NF4_GROUP)
    return ceil(numel / 2) + groups + 4 * ceil(groups / 256) + 16 * 4 + 256 * 4 + 256


def sizes_of_quantized(
    config: ModelConfig, *, itemsize: int = 2, lm_head_nf4: bool = False, packed: bool = False
) -> dict[UnitKey, int]:
    """Weigh a model that does not exist yet: what `quantize` would make of this architecture.

    packed  as in estimate.unit_sizes
    """

    def weigh(spec: TensorSpec) -> int:
        if spec.role is Role.LINEAR and (spec.part is not Part.LM_HEAD or lm_head_nf4):
            return nf4_bytes(spec.numel) + (packed_copy_bytes(spec, NF4_GROUP) if packed else 0)
        return spec.numel * (2 if spec.keeps_type else itemsize)

    return sum_by_unit((spec, weigh(spec)) for spec in expected_tensors(config).values())


def sum_by_unit(weights: Iterable[tuple[TensorSpec, int]]) -> dict[UnitKey, int]:
    """Add tensors' bytes up by unit."""
    sizes: dict[UnitKey, int] = {}
    for spec, nbytes in weights:
        sizes[unit_key(spec)] = sizes.get(unit_key(spec), 0) + nbytes
    return sizes


def by_part(units: Iterable[Unit]) -> dict[Part, int]:
    """Add units' bytes up by part, in the order in which parts are kept."""
    sizes: dict[Part, int] = {}
    for unit in units:
        sizes[unit.part] = sizes.get(unit.part, 0) + unit.nbytes
    return {part: sizes[part] for part in KEEP_ORDER if part in sizes}


def step_of(unit: Unit) -> tuple[int, int]:
    """Number the step of a phase in which a unit is used; both experts of a layer share one."""
    order = {Part.VISION: 0, Part.PROJECTOR: 1, Part.NORMS: 2, Part.LM_HEAD: 4}
    return (order.get(unit.part, 3), -1 if unit.block is None else unit.block)


def in_order_of_use(units: Iterable[Unit]) -> Iterator[Unit]:
    """Sort units as a phase meets them."""
    return iter(sorted(units, key=lambda unit: (step_of(unit), unit.part.value)))


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
