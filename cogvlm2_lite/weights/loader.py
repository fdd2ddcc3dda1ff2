"""Puts weights into the model's slots and takes them out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.reader import Reader
from cogvlm2_lite.weights.slots import Linear, StoredWeight, WeightSlot
from cogvlm2_lite.weights.storage import WeightTarget, make_weight


class PieceReader(Protocol):
    """Where the bytes of weights come from: `Reader`, or the benchmark's noise."""

    def read(self, stored: StoredTensor) -> dict[str, Tensor]:
        """Return all pieces of a tensor by role, on the CPU, as Reader.read does."""
        ...


class WeightLoader:
    """Fills slots from a folder, on one device, in one compute dtype.

    kernels  how 4-bit matrices are multiplied; None chooses the fastest that work here
    reader   where the bytes come from; None: the catalog's files
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
        reader: PieceReader | None = None,
    ) -> None:
        self.catalog = catalog
        self.kernels = kernels or choose_kernels(device, dtype)
        self.scratch = Scratch(device)
        self._reader = reader or Reader(catalog)
        self._upload = backend_of(device).upload(device)
        self._place = WeightTarget(
            device=device, dtype=dtype, kernels=self.kernels, scratch=self.scratch
        )

    @property
    def packs(self) -> bool:
        """True when 4-bit matrices used in decoding get a second, packed copy."""
        return self.kernels.packs

    def fill(self, slot: WeightSlot) -> int:
        """Put the weight in and give the bytes it holds, mapped file pages included.

        They are those of footprint.held_bytes.

        A matrix already in the compute dtype stays a view of its file on the CPU. The inv_freq
        vectors and the embedding keep the type they are stored in, and stay in host memory.
        Raises CheckpointError when the file was changed or its values are not those of its kind.
        """
        stored = self.catalog.tensors[slot.name]
        with self._upload:
            if isinstance(slot, Linear):
                _check_shape(stored, (slot.out_features, slot.in_features))
                slot.stored = self._weight(stored)
                return slot.stored.nbytes
            _check_shape(stored, slot.shape)
            slot.value = self._vector(stored)
            return slot.value.nbytes

    def clear(self, slot: WeightSlot) -> None:
        """Take the weight out; its memory is free once nothing else refers to it."""
        self._upload.wait_for_computing()
        if isinstance(slot, Linear):
            slot.stored = None
        else:
            slot.value = None

    def _weight(self, stored: StoredTensor) -> StoredWeight:
        pieces = self._reader.read(stored)
        pieces = {role: self._upload.send(piece) for role, piece in pieces.items()}
        packed = self.packs and stored.spec.decodes
        return make_weight(stored, pieces, self._place, packed=packed)

    def _vector(self, stored: StoredTensor) -> Tensor:
        value = self._reader.read(stored)["weight"]
        if stored.spec.keeps_type:
            return value
        return value.to(self._place.device, self._place.dtype)


def _check_shape(stored: StoredTensor, shape: tuple[int, ...]) -> None:
    assert stored.spec.shape == shape, f"{stored.spec.name}: {stored.spec.shape}, not {shape}"
