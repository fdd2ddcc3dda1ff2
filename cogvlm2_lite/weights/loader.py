"""Puts weights into the model's shells and takes them out."""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.footprint import DECODING_PARTS
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.reader import Reader
from cogvlm2_lite.weights.shell import Linear, Shell
from cogvlm2_lite.weights.storage import Place, make_weight


class WeightLoader:
    """Fills shells from a folder, on one device, in one compute dtype.

    kernels  how 4-bit matrices are multiplied; None chooses the fastest that work here
    One thread may fill while another one multiplies; two must not multiply at a time, for all
    weights of a loader share its scratch buffers.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        device: torch.device,
        dtype: torch.dtype,
        kernels: KernelChoice | None = None,
    ) -> None:
        self.catalog = catalog
        self.kernels = kernels or choose_kernels(device, dtype)
        self.scratch = Scratch(device)
        self._reader = Reader(catalog)
        self._place = Place(device=device, dtype=dtype, kernels=self.kernels, scratch=self.scratch)

    @property
    def packs(self) -> bool:
        """True when 4-bit matrices of DECODING_PARTS get a second, packed copy."""
        return self.kernels.packs

    def fill(self, shell: Shell) -> int:
        """Put the weight in and give the bytes it holds, mapped file pages included.

        They are those of footprint.held_bytes.

        A matrix already in the compute dtype stays a view of its file on the CPU. The inv_freq
        vectors and the embedding keep the type they are stored in, and stay in host memory.
        Raises CheckpointError when the file was changed or its values are not those of its kind.
        """
        stored = self.catalog.tensors[shell.name]
        if isinstance(shell, Linear):
            _check_shape(stored, (shell.out_features, shell.in_features))
            packed = self.packs and stored.spec.part in DECODING_PARTS
            weight = make_weight(stored, self._reader.read(stored), self._place, packed=packed)
            shell.stored = weight
            return weight.nbytes
        _check_shape(stored, shell.shape)
        shell.value = self._vector(stored)
        return shell.value.nbytes

    def clear(self, shell: Shell) -> None:
        """Take the weight out; its memory is free once nothing else refers to it."""
        if isinstance(shell, Linear):
            shell.stored = None
        else:
            shell.value = None

    def _vector(self, stored: StoredTensor) -> Tensor:
        value = self._reader.read(stored)["weight"]
        if stored.spec.keeps_type:
            return value
        return value.to(self._place.device, self._place.dtype)


def _check_shape(stored: StoredTensor, shape: tuple[int, ...]) -> None:
    assert stored.spec.shape == shape, f"{stored.spec.name}: {stored.spec.shape}, not {shape}"
