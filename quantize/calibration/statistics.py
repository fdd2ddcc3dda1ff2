"""Collect the inputs of linear layers while samples run through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.weights.slots import StoredWeight


class _Kept:
    """A square matrix that waits in RAM or on the disk until it is used."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._in_ram: Tensor | None = None
        self._file: Path | None = None

    def keep(self, matrix: Tensor) -> None:
        """Keep the matrix in RAM."""
        self._in_ram = matrix.cpu()

    def spill(self, matrix: Tensor, file: Path) -> None:
        """Write the matrix to the disk."""
        file.parent.mkdir(parents=True, exist_ok=True)
        matrix.cpu().numpy().tofile(file)
        self._file = file

    def read(self, columns: int) -> Tensor:
        """Return a new copy of the matrix, [columns, columns] float32 on the device."""
        if self._in_ram is not None:
            return self._in_ram.to(self._device, copy=True)
        assert self._file is not None, "the matrix is read after `keep` or `spill`"
        found = torch.from_numpy(np.fromfile(self._file, dtype=np.float32))
        return found.view(columns, columns).to(self._device)

    def forget(self) -> None:
        """Delete the matrix."""
        self._in_ram = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)


class Hessian:
    """The mean of a layer's inputs x, and of x x^T, summed up as they come.

    every  use one input out of this many
    """

    def __init__(self, columns: int, device: torch.device, every: int) -> None:
        self.count = 0
        self._every = every
        self._sum: Tensor | None = torch.zeros(columns, columns, device=device)
        self._first = torch.zeros(columns, device=device)
        self._kept = _Kept(device)

    def add(self, x: Tensor) -> None:
        """Add inputs [..., columns] to the sums."""
        assert self._sum is not None, "nothing is added after `keep` or `spill`"
        rows = x.reshape(-1, x.shape[-1])[:: self._every].float()
        self.count += rows.shape[0]
        self._sum.addmm_(rows.t(), rows)
        self._first += rows.sum(dim=0)

    def keep(self) -> None:
        """Keep the Hessian in RAM until `forget`, and free the memory of a GPU."""
        self._kept.keep(self._mean_square())
        self._sum = None

    def spill(self, file: Path) -> None:
        """Write the Hessian to the disk and free its memory.

        The Hessians of a decoder layer take 2.2 GB together, and rounding needs memory for three of
        the largest.
        """
        self._kept.spill(self._mean_square(), file)
        self._sum = None

    def matrix(self) -> Tensor:
        """Return a new copy of the Hessian: [columns, columns] float32; zeros without inputs."""
        return self._kept.read(len(self._first))

    def forget(self) -> None:
        """Delete the Hessian from RAM or from the disk."""
        self._kept.forget()

    def _mean_square(self) -> Tensor:
        assert self._sum is not None, "it was kept or spilled already"
        self._sum /= max(self.count, 1)
        return self._sum

    @property
    def mean(self) -> Tensor:
        """The mean input, [columns] float32."""
        return self._first / max(self.count, 1)


class PairMoments:
    """Means over pairs of inputs: x of the rounded network, and f of the original at that place.

    They are those of x x^T (the Hessian) and (f - x) x^T (the shift), weighted by the tokens'
    weights w if there are some, and those of x and f, which are not weighted. The difference f - x
    is summed up directly: as a difference of two large means it would lose its digits.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self.count = 0
        self._weight = 0.0
        self._sums: list[Tensor] = [torch.zeros(columns, columns, device=device) for _ in range(2)]
        self._first = torch.zeros(columns, device=device)
        self._first_of_original = torch.zeros(columns, device=device)
        self._hessian, self._shift = _Kept(device), _Kept(device)

    def add(self, original: Tensor, x: Tensor, weights: Tensor | None = None) -> None:
        """Add pairs f, x [n, columns] with weights [n] float32 on the CPU."""
        f, x = original.float(), x.float()
        self.count += len(x)
        self._first += x.sum(dim=0)
        self._first_of_original += f.sum(dim=0)
        difference, weighted = f - x, x
        if weights is None:
            self._weight += len(x)
        else:
            self._weight += float(weights.sum(dtype=torch.float64))
            weighted = x * weights.to(x.device).unsqueeze(1)
        self._sums[0].addmm_(weighted.t(), x)
        self._sums[1].addmm_(difference.t(), weighted)

    def keep(self) -> None:
        """Keep both matrices in RAM until `forget`, and free the memory of a GPU."""
        hessian, shift = self._means()
        self._hessian.keep(hessian)
        self._shift.keep(shift)

    def spill(self, file: Path) -> None:
        """Write both matrices to the disk and free their memory."""
        hessian, shift = self._means()
        self._hessian.spill(hessian, file)
        self._shift.spill(shift, file.with_name(f"{file.name}.shift"))

    def matrix(self) -> Tensor:
        """Return a new copy of the Hessian, the mean of w x x^T: [columns, columns] float32."""
        return self._hessian.read(len(self._first))

    def shift(self) -> Tensor:
        """Return a new copy of the mean of w (f - x) x^T: [columns, columns] float32."""
        return self._shift.read(len(self._first))

    def forget(self) -> None:
        """Delete both matrices from RAM or from the disk."""
        self._hessian.forget()
        self._shift.forget()

    def _means(self) -> list[Tensor]:
        found, self._sums = self._sums, []
        for each in found:
            each /= self._weight or 1.0
        return found

    @property
    def mean(self) -> Tensor:
        """The mean of x, [columns] float32."""
        return self._first / max(self.count, 1)

    @property
    def original_mean(self) -> Tensor:
        """The mean of f, [columns] float32."""
        return self._first_of_original / max(self.count, 1)


class HeldOutPairs:
    """Pairs of inputs f, x of held-out samples, unchanged."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def add(self, original: Tensor, x: Tensor) -> None:
        """Keep pairs f, x [n, columns]."""
        self._pairs.append((original.clone(), x.clone()))

    @property
    def pairs(self) -> tuple[Tensor, Tensor] | None:
        """f and x, [count, columns] each in their own type; None without inputs."""
        if not sum(len(x) for _, x in self._pairs):
            return None
        originals, inputs = zip(*self._pairs, strict=True)
        return torch.cat(originals), torch.cat(inputs)


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
