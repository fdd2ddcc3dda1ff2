"""Look at the inputs of linear layers while examples pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.weights.slots import StoredWeight


class Hessian:
    """The mean of a layer's inputs and of x x^T over them, summed up as they come.

    every  take one input of so many: the more there are, the less each one tells
    """

    def __init__(self, columns: int, device: torch.device, every: int) -> None:
        self.count = 0
        self._every = every
        self._sum: Tensor | None = torch.zeros(columns, columns, device=device)
        self._first = torch.zeros(columns, device=device)
        self._file: Path | None = None

    def add(self, x: Tensor) -> None:
        """Count inputs [..., columns]."""
        assert self._sum is not None, "nothing is counted after `spill`"
        rows = x.reshape(-1, x.shape[-1])[:: self._every].float()
        self.count += rows.shape[0]
        self._sum.addmm_(rows.t(), rows)
        self._first += rows.sum(dim=0)

    def spill(self, file: Path) -> None:
        """Put the Hessian on the disk, so that the next matrix has its memory.

        Those of a decoder layer take 2.2 GB together, and rounding needs three of the largest.
        """
        assert self._sum is not None
        self._sum /= max(self.count, 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._sum.cpu().numpy().tofile(file)
        self._file, self._sum = file, None

    def matrix(self) -> Tensor:
        """Read the Hessian back, a new one each time: [columns, columns] float32; zeros when
        nothing came."""
        assert self._file is not None, "the Hessian is read after `spill`"
        columns = len(self._first)
        found = torch.from_numpy(np.fromfile(self._file, dtype=np.float32))
        return found.view(columns, columns).to(self._first.device)

    def forget(self) -> None:
        """Delete the Hessian from the disk."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    @property
    def mean(self) -> Tensor:
        """[columns] float32."""
        return self._first / max(self.count, 1)


class HeldOutInputs:
    """Inputs of samples held out, kept as they are: a rounded matrix is judged by them.

    every  take one input of so many
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._rows: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """Keep inputs [..., columns]."""
        self._rows.append(x.reshape(-1, x.shape[-1])[:: self._every].clone())

    @property
    def inputs(self) -> Tensor | None:
        """[count, columns] in the type they came in; None when none came."""
        return torch.cat(self._rows) if self._rows else None


@dataclass(kw_only=True)
class ObservedWeight:
    """A stored weight that remembers what it is multiplied with; it is put into a Linear's slot.

    fit    of the samples that rounding is fitted to
    check  of those that judge it
    """

    inner: StoredWeight
    fit: Hessian
    check: HeldOutInputs
    checking: bool = field(default=False, init=False)

    @property
    def kind(self) -> str:
        return self.inner.kind

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Look at x, and multiply as the inner weight does."""
        (self.check if self.checking else self.fit).add(x)
        return self.inner.multiply(x, bias)

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Multiply one by one, looking at each."""
        return [self.multiply(x, bias) for x in xs]

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Return the inner weight, dequantized."""
        return self.inner.dequantize(to)
