"""Measures the error and the size of each matrix of a folder, compared with another folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.slots import Linear

_ROWS = 2048
"""Rows of a matrix that are compared at a time."""
_WIDE = 2**28
"""Larger matrices are dequantized to bfloat16: lm_head would take 2 GB in float32."""


@dataclass(frozen=True, kw_only=True)
class MatrixError:
    """One linear matrix of the other folder.

    part   the part of the model, in words
    block  number of its layer; None outside of layers
    kind   how it is stored: "dense", "nf4", "fp4" or "int8"
    error  Frobenius norm of the difference divided by that of the reference's matrix
    """

    name: str
    part: str
    block: int | None
    kind: str
    nbytes: int
    weights: int
    error: float


def matrix_errors(reference: Catalog, other: Catalog) -> Iterator[MatrixError]:
    """Compare two folders of one architecture matrix by matrix, in the model's order.

    Two matrices are in memory at a time.
    """
    device = torch.device("cpu")
    loaders = [WeightLoader(c, device=device, dtype=torch.float32) for c in (reference, other)]
    for name, stored in other.tensors.items():
        if stored.spec.role is not Role.LINEAR:
            continue
        rows, columns = stored.spec.shape
        first, second = (_dequantized(loader, Linear(name, columns, rows)) for loader in loaders)
        yield MatrixError(
            name=name,
            part=stored.spec.part.value,
            block=stored.spec.block,
            kind=stored.kind,
            nbytes=stored.nbytes,
            weights=stored.spec.numel,
            error=_relative(first, second),
        )


def _dequantized(loader: WeightLoader, slot: Linear) -> Tensor:
    loader.fill(slot)
    assert slot.stored is not None
    few = slot.in_features * slot.out_features < _WIDE
    return slot.stored.dequantize(torch.float32 if few else torch.bfloat16)


def _relative(first: Tensor, second: Tensor) -> float:
    """Return |second - first| / |first|; 0 if both are zero."""
    difference = norm = 0.0
    for start in range(0, first.shape[0], _ROWS):
        ours = first[start : start + _ROWS].double()
        difference += float((second[start : start + _ROWS].double() - ours).square().sum())
        norm += float(ours.square().sum())
    if difference == 0.0:
        return 0.0
    return (difference / norm) ** 0.5 if norm else float("inf")
