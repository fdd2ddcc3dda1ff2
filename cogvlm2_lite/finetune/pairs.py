"""The trained matrices: copies for the block that computes, and the sums of their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from cogvlm2_lite.finetune.samples import TrainedPair
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.weights.slots import Linear, LowRank

NAME = "trained"
"""Key of the trained adapter in `Linear.adapters`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sum:
    """A copy of a matrix, and the sum of its gradients.

    total   float32, on the device of the copy; begins with the sum so far
    master  the gradient in RAM
    factor  of the copy's gradient
    """

    copy: Tensor
    total: Tensor
    master: Tensor
    factor: float

    def add(self) -> None:
        if self.copy.grad is not None:
            self.total.add_(self.factor * self.copy.grad.to(torch.float32))
            self.copy.grad = None

    def store(self) -> None:
        if self.total is not self.master:
            self.master.copy_(self.total)


class GradientSums:
    """Sums the gradients of a piece's copies in float32, always in the order of the samples."""

    def __init__(self, sums: list[_Sum]) -> None:
        self._sums = sums

    def add(self) -> None:
        """Add the gradients that the last backward pass left at the copies."""
        for each in self._sums:
            each.add()

    def store(self) -> None:
        """Write the sums to RAM."""
        for each in self._sums:
            each.store()


class TrainedPairs:
    """The float32 matrices of an adapter that is trained, in RAM.

    pairs  by the name of the matrix; every leaf has a gradient
    scale  alpha / rank
    """

    def __init__(
        self, pairs: Mapping[str, TrainedPair], *, scale: float, dtype: torch.dtype
    ) -> None:
        self.pairs, self._scale, self._dtype = pairs, scale, dtype

    def zero(self) -> None:
        """Set all gradients to zero."""
        for pair in self.pairs.values():
            for leaf in (pair.down, pair.up):
                assert leaf.grad is not None
                leaf.grad.zero_()

    def of(self, piece: HasSlots) -> list[Linear]:
        """Return the layers of a piece that are trained."""
        return [s for s in piece.slots() if isinstance(s, Linear) and s.name in self.pairs]

    @contextmanager
    def beside(self, piece: HasSlots, device: torch.device) -> Iterator[None]:
        """Put copies next to the loaded weights of a piece, for a forward pass."""
        linears = self.of(piece)
        try:
            for linear in linears:
                down, up = self._copies(self.pairs[linear.name], device)
                linear.adapters = {NAME: LowRank(down=down, up=up)}
            yield
        finally:
            for linear in linears:
                linear.adapters = {}

    @contextmanager
    def learning(self, piece: HasSlots, device: torch.device) -> Iterator[GradientSums]:
        """Put copies with gradients next to the loaded weights; the sums are stored at the end."""
        linears = self.of(piece)
        sums: list[_Sum] = []
        try:
            for linear in linears:
                pair = self.pairs[linear.name]
                down, up = (each.clone().requires_grad_() for each in self._copies(pair, device))
                linear.adapters = {NAME: LowRank(down=down, up=up)}
                for copy, leaf, factor in ((down, pair.down, 1.0), (up, pair.up, self._scale)):
                    assert leaf.grad is not None
                    total = leaf.grad.to(device)
                    sums.append(_Sum(copy=copy, total=total, master=leaf.grad, factor=factor))
            yield GradientSums(sums)
        finally:
            for linear in linears:
                linear.adapters = {}
        for each in sums:
            each.store()

    def _copies(self, pair: TrainedPair, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return both matrices in the compute dtype; the scale is in the second one."""
        down, up = pair.down.detach(), pair.up.detach() * self._scale
        return down.to(device, self._dtype), up.to(device, self._dtype)
