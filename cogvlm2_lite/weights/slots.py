"""Weight slots: named places in the model into which weights are loaded.

The model owns the slots and never moves weights; `memory/residency.py` fills and empties them. So
the same mathematics runs on weights that are resident, streamed, 16-bit, NF4 or int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, dtype


class StoredWeight(Protocol):
    """A matrix in one storage kind, ready to be multiplied on one device.

    Implementations: `weights/storage/`. All return the same result within the tolerance that each
    kernel states.
    """

    @property
    def kind(self) -> str:
        """Name in the storage registry: "dense", "nf4", "int8"."""

    @property
    def nbytes(self) -> int:
        """Bytes that this weight holds in memory, packed copies included."""

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x @ weight.T + bias.

        x       [..., in_features], the compute dtype
        bias    [out_features] or None
        Returns [..., out_features], dtype of x
        """

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Return x @ weight.T + bias for each x, bit-identical to `multiply` of that x alone.

        xs  one row each, [1, 1, in_features]; kernels that can read the matrix once for all do so
        """

    def dequantize(self, to: dtype) -> Tensor:
        """Return the dequantized matrix [out_features, in_features] in a floating dtype."""


@dataclass(eq=False)
class Vector:
    """A slot for a tensor that is never quantized: norm weights, biases, tables, kernels."""

    name: str
    shape: tuple[int, ...]
    value: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """The tensor in the slot. An empty slot here is a bug in the residency."""
        assert self.value is not None, f"{self.name} is not in memory"
        return self.value


@dataclass(eq=False)
class Linear:
    """A slot for a linear layer: name and sizes, and the stored weight while it is loaded."""

    name: str
    """Tensor name of the matrix, with its ".weight"."""
    in_features: int
    out_features: int
    has_bias: bool = False
    stored: StoredWeight | None = None
    bias: Vector | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.has_bias:
            name = self.name.removesuffix(".weight") + ".bias"
            self.bias = Vector(name, (self.out_features,))

    def __call__(self, x: Tensor) -> Tensor:
        """Return x @ weight.T + bias, [..., in_features] -> [..., out_features]."""
        assert self.stored is not None, f"{self.name} is not in memory"
        return self.stored.multiply(x, self.bias.tensor if self.bias else None)

    def each(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """Return the result for each x [1, 1, in_features], bit-identical to `__call__` of it."""
        assert self.stored is not None, f"{self.name} is not in memory"
        return self.stored.multiply_each(xs, self.bias.tensor if self.bias else None)


WeightSlot = Vector | Linear
"""What the residency fills. The owner of a Linear lists its bias as a separate Vector."""
