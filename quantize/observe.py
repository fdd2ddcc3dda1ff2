"""Look at the inputs of linear layers while examples pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cogvlm2_lite.weights.shell import StoredWeight


class Moments:
    """The mean and second moment of a layer's inputs, summed up as they come.

    every  take one input of so many: the more there are, the less each one tells
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self.count = 0
        self._second = torch.zeros(columns, columns, device=device)
        self._first = torch.zeros(columns, device=device)

    def add(self, x: Tensor, every: int) -> None:
        """Count inputs [..., columns]."""
        rows = x.reshape(-1, x.shape[-1])[::every].float()
        self.count += rows.shape[0]
        self._second.addmm_(rows.t(), rows)
        self._first += rows.sum(dim=0)

    @property
    def second(self) -> Tensor:
        """[columns, columns] float32; zeros when nothing came."""
        return self._second / max(self.count, 1)

    @property
    def mean(self) -> Tensor:
        """[columns] float32."""
        return self._first / max(self.count, 1)


@dataclass(kw_only=True)
class Observed:
    """A stored weight that remembers what it is multiplied with; it stands in a Linear's shell.

    fit, check  moments of the samples that rounding is fitted to, and of those that judge it
    """

    inner: StoredWeight
    fit: Moments
    check: Moments
    every: int = 1
    checking: bool = field(default=False, init=False)

    @property
    def kind(self) -> str:
        return self.inner.kind

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Look at x, and multiply as the inner weight does."""
        (self.check if self.checking else self.fit).add(x, self.every)
        return self.inner.multiply(x, bias)

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Give the inner weight's plain matrix."""
        return self.inner.dequantize(to)
