"""Weight slots: named places in the model that a weight can be put into and taken out of.

The model owns slots and never moves weights. `memory/residency.py` fills and empties them, so the
same mathematics runs on weights that are resident, streamed, 16-bit, NF4 or int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, dtype


class StoredWeight(Protocol):
    """A matrix in one storage kind, ready to be multiplied on one device.

    Implementations: `weights/storage/`. All return the same result within
    the tolerance that each kernel states.
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
        """Return each x @ weight.T + bias, with the bits that `multiply` returns for that x alone.

        xs  one row each, [1, 1, in_features]; those that can share one reading of the matrix do
        """

    def dequantize(self, to: dtype) -> Tensor:
        """Return the plain matrix [out_features, in_features] in a floating dtype."""


@dataclass(eq=False)
class Vector:
    """A place for a tensor that is always stored plain: norm weights, biases, tables, kernels."""

    name: str
    shape: tuple[int, ...]
    value: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """The tensor in place. Asking for an absent one is a bug in the residency, not a user's."""
        assert self.value is not None, f"{self.name} is not in memory"
        return self.value


@dataclass(eq=False)
class Linear:
    """A linear layer: names and sizes around a stored weight that comes and goes."""

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
        """Return what `__call__` returns for each x [1, 1, in_features] alone, to the bit."""
        assert self.stored is not None, f"{self.name} is not in memory"
        return self.stored.multiply_each(xs, self.bias.tensor if self.bias else None)


WeightSlot = Vector | Linear
"""What the residency fills. The bias of a Linear is listed by its owner as a Vector of its own."""
