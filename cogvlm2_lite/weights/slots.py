"""Weight slots: named places in the model into which weights are loaded.

The model owns the slots and never moves weights; `memory/residency.py` fills and empties them. So
the same mathematics runs on weights that are resident, streamed, 16-bit, NF4 or int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


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

    def multiply_in_bytes(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the same with inputs and weights rounded to 8 bits.

        A row does not depend on the other rows. A kind or a matrix for which there is no such
        kernel is multiplied as `multiply` does.
        """

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Return x @ weight.T + bias for each x, bit-identical to `multiply` of that x alone.

        xs  one row each, [1, 1, in_features]; kernels that can read the matrix once for all do so
        """

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """Return y @ weight, for the gradient with respect to x.

        y       [..., out_features]
        Returns [..., in_features], dtype of y
        """

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Return the dequantized matrix [out_features, in_features] in a floating dtype."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """What an adapter (LoRA) adds to one matrix: up @ down, of low rank.

    down  [rank, in_features], the compute dtype
    up    [out_features, rank], the compute dtype, with the adapter's scale in it
    """

    down: Tensor
    up: Tensor

    @property
    def nbytes(self) -> int:
        return self.down.nbytes + self.up.nbytes

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Return y + x @ down.T @ up.T; y is changed in place if no gradient is needed.

        x  [..., in_features]
        y  [..., out_features]
        """
        low = F.linear(x, self.down)
        if y.requires_grad or low.requires_grad:
            return y + F.linear(low, self.up)
        # In place: for a picture's gate a sum would take another 63 MiB, which no plan has.
        y.view(-1, y.shape[-1]).addmm_(low.view(-1, low.shape[-1]), self.up.t())
        return y


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapted:
    """The adapter that acts on a run of tokens, and on which rows of it.

    name  key of Linear.adapters
    rows  [n] int64 numbers of the rows on which it acts, in the flattened x; None: on all rows
    """

    name: str
    rows: Tensor | None = None

    @staticmethod
    def where(name: str, acts: Tensor) -> Adapted | None:
        """Return the adapter for the rows where `acts` is true; None if it acts on no row.

        acts  bool, in host memory: a GPU would have to report how many rows there are, for which
              the host waits
        """
        if bool(acts.all()):
            return Adapted(name=name)
        rows = acts.flatten().nonzero().squeeze(1)
        return Adapted(name=name, rows=rows) if len(rows) else None

    def to(self, device: torch.device) -> Adapted:
        """Return the same with its rows on a device."""
        return self if self.rows is None else Adapted(name=self.name, rows=self.rows.to(device))


class _FrozenProduct(torch.autograd.Function):
    """The product with a stored weight, for every storage kind; the weight gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stored: StoredWeight, bias: Tensor | None) -> Tensor:
        ctx.stored = stored
        return stored.multiply(x, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        stored: StoredWeight = ctx.stored
        return stored.multiply_transposed(gradients[0]), None, None


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
    """A slot for a linear layer: name and sizes, and the stored weight while it is loaded.

    With gradients enabled the product is differentiable with respect to x and the adapters.
    """

    name: str
    """Tensor name of the matrix, with its ".weight"."""
    in_features: int
    out_features: int
    has_bias: bool = False
    stored: StoredWeight | None = None
    bias: Vector | None = field(init=False, default=None)
    adapters: dict[str, LowRank] = field(init=False, default_factory=dict)
    """By adapter name; an adapter need not have every matrix."""
    input_bits: int = field(init=False, default=16)
    """8: inputs and weights are rounded to 8 bits, without gradients. 16: the default products."""

    def __post_init__(self) -> None:
        if self.has_bias:
            name = self.name.removesuffix(".weight") + ".bias"
            self.bias = Vector(name, (self.out_features,))

    def __call__(self, x: Tensor, adapted: Adapted | None = None) -> Tensor:
        """Return x @ weight.T + bias, and what the adapter adds to it.

        x        [..., in_features]
        adapted  None: no adapter acts
        Returns  [..., out_features]
        """
        assert self.stored is not None, f"{self.name} is not in memory"
        bias = self.bias.tensor if self.bias else None
        if x.requires_grad:
            y: Tensor = _FrozenProduct.apply(x, self.stored, bias)  # type: ignore[no-untyped-call]
        elif self.input_bits == 8:
            y = self.stored.multiply_in_bytes(x, bias)
        else:
            y = self.stored.multiply(x, bias)
        pair = None if adapted is None else self.adapters.get(adapted.name)
        if adapted is None or pair is None:
            return y
        if adapted.rows is None:
            return pair.add_to(y, x)
        rows = adapted.rows
        flat = y.view(-1, self.out_features)
        part = pair.add_to(flat[rows], x.reshape(-1, self.in_features)[rows])
        return flat.index_copy(0, rows, part).view(y.shape)

    def each(
        self, xs: Sequence[Tensor], adapted: Sequence[Adapted | None] | None = None
    ) -> list[Tensor]:
        """Return the result for each x [1, 1, in_features], bit-identical to `__call__` of it."""
        assert self.stored is not None, f"{self.name} is not in memory"
        bias = self.bias.tensor if self.bias else None
        if self.input_bits == 8:
            ys = [self.stored.multiply_in_bytes(x, bias) for x in xs]
        else:
            ys = self.stored.multiply_each(xs, bias)
        if adapted is None or not self.adapters:
            return ys
        pairs = [None if one is None else self.adapters.get(one.name) for one in adapted]
        return [
            y if pair is None else pair.add_to(y, x)
            for x, y, pair in zip(xs, ys, pairs, strict=True)
        ]


WeightSlot = Vector | Linear
"""What the residency fills. The owner of a Linear lists its bias as a separate Vector."""
