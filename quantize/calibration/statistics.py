"""Collect the inputs of linear layers while samples run through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.weights.slots import StoredWeight


class Hessian:
    """The mean of a layer's inputs x, and of x x^T, summed up as they come.

    every  use one input out of this many
    """

    def __init__(self, columns: int, device: torch.device, every: int) -> None:
        self.count = 0
        self._every = every
        self._sum: Tensor | None = torch.zeros(columns, columns, device=device)
        self._first = torch.zeros(columns, device=device)
        self._in_ram: Tensor | None = None
        self._file: Path | None = None

    def add(self, x: Tensor) -> None:
        """Add inputs [..., columns] to the sums."""
        assert self._sum is not None, "nothing is added after `keep` or `spill`"
        rows = x.reshape(-1, x.shape[-1])[:: self._every].float()
        self.count += rows.shape[0]
        self._sum.addmm_(rows.t(), rows)
        self._first += rows.sum(dim=0)

    def keep(self) -> None:
        """Keep the Hessian in RAM until `forget`, and free the memory of a GPU."""
        self._in_ram, self._sum = self._mean_square().cpu(), None

    def spill(self, file: Path) -> None:
        """Write the Hessian to the disk and free its memory.

        The Hessians of a decoder layer take 2.2 GB together, and rounding needs memory for three of
        the largest.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self._mean_square().cpu().numpy().tofile(file)
        self._file, self._sum = file, None

    def matrix(self) -> Tensor:
        """Return a new copy of the Hessian: [columns, columns] float32; zeros without inputs."""
        if self._in_ram is not None:
            return self._in_ram.to(self._first.device, copy=True)
        assert self._file is not None, "the Hessian is read after `keep` or `spill`"
        columns = len(self._first)
        found = torch.from_numpy(np.fromfile(self._file, dtype=np.float32))
        return found.view(columns, columns).to(self._first.device)

    def forget(self) -> None:
        """Delete the Hessian from RAM or from the disk."""
        self._in_ram = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _mean_square(self) -> Tensor:
        assert self._sum is not None, "it was kept or spilled already"
        self._sum /= max(self.count, 1)
        return self._sum

    @property
    def mean(self) -> Tensor:
        """The mean input, [columns] float32."""
        return self._first / max(self.count, 1)


class HeldOutInputs:
    """Inputs of held-out samples, kept unchanged to measure the error of a rounded matrix.

    every  keep one input out of this many
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._rows: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """Keep inputs [..., columns]."""
        self._rows.append(x.reshape(-1, x.shape[-1])[:: self._every].clone())

    @property
    def inputs(self) -> Tensor | None:
        """[count, columns] in their own type; None without inputs."""
        return torch.cat(self._rows) if self._rows else None


@dataclass(kw_only=True)
class ObservedWeight:
    """A stored weight that collects its inputs; it is put into the slot of a Linear.

    fit    inputs of the samples that rounding is fitted to
    check  inputs of held-out samples
    held_out  whether the sample that runs now is held out
    """

    inner: StoredWeight
    fit: Hessian
    check: HeldOutInputs
    held_out: bool = field(default=False, init=False)

    @property
    def kind(self) -> str:
        return self.inner.kind

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Collect x, and multiply as the inner weight does."""
        (self.check if self.held_out else self.fit).add(x)
        return self.inner.multiply(x, bias)

    def multiply_in_bytes(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Collect x, and multiply as the inner weight does."""
        (self.check if self.held_out else self.fit).add(x)
        return self.inner.multiply_in_bytes(x, bias)

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Collect and multiply one by one."""
        return [self.multiply(x, bias) for x in xs]

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """Multiply as the inner weight does; nothing is collected."""
        return self.inner.multiply_transposed(y)

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Return the inner weight, dequantized."""
        return self.inner.dequantize(to)
