"""Storage kinds: how a matrix is stored in memory and how it is multiplied.

A new kind is one file here, one line in STORAGE, and its tensors in weights/catalog.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.weights.catalog import StoredTensor
from cogvlm2_lite.weights.kernels.choice import KernelChoice
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.nf4 import FP4_LEVELS, NF4_LEVELS
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.slots import StoredWeight
from cogvlm2_lite.weights.storage.dense import DenseWeight
from cogvlm2_lite.weights.storage.int8 import place_int8
from cogvlm2_lite.weights.storage.nf4 import place_four_bit


@dataclass(frozen=True, kw_only=True)
class WeightTarget:
    """The device and dtype of weights, and the kernels that multiply them."""

    device: torch.device
    dtype: torch.dtype
    kernels: KernelChoice
    scratch: Scratch


Pieces = Mapping[str, Tensor]
"""Role to tensor. On the CPU they may be views of a mapped file."""


def checked_pieces(stored: StoredTensor, pieces: Pieces) -> dict[str, Tensor]:
    """Return the pieces that the device of a matrix needs, still on the CPU.

    pieces   all of them, on the CPU, by the roles of StoredTensor.pieces
    Returns  the same without quant_state, which only the catalog reads. If the scales are
             quantized, "nested_offset" is added, a float32 scalar: a number that is copied to a
             GPU on its own would be another upload.

    Raises CheckpointError if the values of its codes are not those of its kind. This is checked
    here, because reading a value back from a GPU would make the host wait for it.
    """
    kept = {role: piece for role, piece in pieces.items() if role != "quant_state"}
    quant = stored.quant
    if quant is None:
        return kept
    levels = FP4_LEVELS if quant.quant_type == "fp4" else NF4_LEVELS
    if pieces["quant_map"].tolist() != list(levels):
        raise CheckpointError(
            "{tensor}.quant_map has other values than {kind}.",
            hint="This folder was written by another program.",
            tensor=stored.spec.name,
            kind=quant.quant_type.upper(),
        )
    if quant.nested:
        kept["nested_offset"] = torch.tensor(quant.nested_offset, dtype=torch.float32)
    return kept


def make_weight(
    stored: StoredTensor, pieces: Pieces, target: WeightTarget, *, packed: bool
) -> StoredWeight:
    """Return a matrix that can be multiplied. Nothing here waits for a GPU.

    pieces  those of `checked_pieces`, on the target's device
    packed  whether the matrix gets a second, packed copy for decoding, if its layout allows it
    """
    return STORAGE[stored.kind](stored, pieces, target, packed)


def _dense(
    stored: StoredTensor, pieces: Pieces, target: WeightTarget, packed: bool
) -> StoredWeight:
    weight = pieces["weight"].to(target.dtype)
    kernels = target.kernels.dense
    return DenseWeight(weight=weight.contiguous(), kernels=kernels, scratch=target.scratch)


def _four_bit(
    stored: StoredTensor, pieces: Pieces, target: WeightTarget, packed: bool
) -> StoredWeight:
    quant = stored.quant
    assert quant is not None
    rows, columns = stored.spec.shape
    matrix = FourBitMatrix(
        rows=rows,
        columns=columns,
        group=quant.group,
        quant_type=quant.quant_type,
        codes=pieces["weight"],
        absmax=pieces["absmax"],
        levels=pieces["quant_map"],
        nested_absmax=pieces["nested_absmax"] if quant.nested else None,
        nested_map=pieces["nested_quant_map"] if quant.nested else None,
        nested_offset=quant.nested_offset,
        offset=pieces["nested_offset"] if quant.nested else None,
    )
    return place_four_bit(matrix, target.kernels, target.scratch, packed=packed)


def _int8(stored: StoredTensor, pieces: Pieces, target: WeightTarget, packed: bool) -> StoredWeight:
    matrix = Int8Matrix(codes=pieces["weight"], scales=pieces["scale"])
    return place_int8(matrix, target.kernels, target.scratch)


STORAGE: Mapping[str, Callable[[StoredTensor, Pieces, WeightTarget, bool], StoredWeight]] = (
    MappingProxyType({"dense": _dense, "nf4": _four_bit, "fp4": _four_bit, "int8": _int8})
)
