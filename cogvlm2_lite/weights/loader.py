"""Loads weights into the model's slots and removes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.weights.adapter import Adapter, Pair
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.matrix import row_multiple
from cogvlm2_lite.weights.kernels.scales import SCALE_BYTES, WINDOW_GROUPS
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.reader import Reader
from cogvlm2_lite.weights.slots import Linear, LowRank, StoredWeight, WeightSlot
from cogvlm2_lite.weights.storage import WeightTarget, checked_pieces, make_weight


class PieceReader(Protocol):
    """A source of the bytes of weights: `Reader`, or random numbers in the benchmark."""

    def read(self, stored: StoredTensor) -> dict[str, Tensor]:
        """Return all pieces of a tensor by role, on the CPU, as Reader.read does."""
        ...


class WeightLoader:
    """Fills slots from a folder, on one device, in one compute dtype.

    kernels  how 4-bit matrices are multiplied; None: the fastest that work here
    reader   the source of the bytes; None: the catalog's files
    adapters are loaded with the matrices that they change

    One thread may fill slots while another one multiplies. Two threads must not multiply at the
    same time, because all weights of a loader share its scratch buffers.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        device: torch.device,
        dtype: torch.dtype,
        kernels: KernelChoice | None = None,
        reader: PieceReader | None = None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        self.catalog = catalog
        self.kernels = kernels or choose_kernels(device, dtype)
        self.scratch = Scratch(device, _least_scratch(catalog, device, dtype, self.kernels))
        self._reader = reader or Reader(catalog)
        self._adapters = tuple(adapters)
        self._upload = backend_of(device).upload(device)
        self._target = WeightTarget(
            device=device, dtype=dtype, kernels=self.kernels, scratch=self.scratch
        )

    @property
    def packs(self) -> bool:
        """True if 4-bit matrices used in decoding get a second, packed copy."""
        return self.kernels.packs

    def fill(self, slot: WeightSlot) -> int:
        """Load the weight into the slot; return its bytes, mapped file pages included.

        The number is that of footprint.held_bytes, and what adapters add. On the CPU a matrix that
        is stored in the compute dtype stays a view of its file. The inv_freq vectors and the
        embedding keep their stored type, and stay in host memory.

        Raises CheckpointError if the file was changed or its values are not valid for its kind.
        """
        stored = self.catalog.tensors[slot.name]
        with self._upload:
            if isinstance(slot, Linear):
                _check_shape(stored, (slot.out_features, slot.in_features))
                slot.stored = self._weight(stored)
                slot.adapters = self._low_rank(slot.name)
                return slot.stored.nbytes + sum(pair.nbytes for pair in slot.adapters.values())
            _check_shape(stored, slot.shape)
            slot.value = self._vector(stored)
            return slot.value.nbytes

    def clear(self, slot: WeightSlot) -> None:
        """Remove the weight; its memory is freed when nothing else refers to it."""
        self._upload.wait_for_computing()
        if isinstance(slot, Linear):
            slot.stored = None
            slot.adapters = {}
        else:
            slot.value = None

    def _weight(self, stored: StoredTensor) -> StoredWeight:
        pieces = checked_pieces(stored, self._reader.read(stored))
        pieces = {role: self._upload.send(piece) for role, piece in pieces.items()}
        packed = self.packs and stored.spec.decodes
        return make_weight(stored, pieces, self._target, packed=packed)

    def _low_rank(self, matrix: str) -> dict[str, LowRank]:
        return {
            adapter.name: self._upload_pair(adapter.pairs[matrix])
            for adapter in self._adapters
            if matrix in adapter.pairs
        }

    def _upload_pair(self, pair: Pair) -> LowRank:
        device, dtype = self._target.device, self._target.dtype
        # The scale goes into one matrix, in float32, so that it is rounded once.
        down, up = self._upload.send(pair.down), self._upload.send(pair.up * pair.scale)
        return LowRank(down=down.to(device, dtype), up=up.to(device, dtype))

    def _vector(self, stored: StoredTensor) -> Tensor:
        value = self._reader.read(stored)["weight"]
        if stored.spec.keeps_type:
            return value
        return value.to(self._target.device, self._target.dtype)


def _check_shape(stored: StoredTensor, shape: tuple[int, ...]) -> None:
    assert stored.spec.shape == shape, f"{stored.spec.name}: {stored.spec.shape}, not {shape}"


def _least_scratch(
    catalog: Catalog, device: torch.device, dtype: torch.dtype, kernels: KernelChoice
) -> dict[str, int]:
    """Return the size of the buffers for the largest chunk of any matrix, by name.

    On a GPU they must never move: a CUDA graph of a decode step has their addresses, and the next
    picture has larger matrices.
    """
    if backend_of(device).uses_ram:
        return {}
    chunks, weights, scales = kernels.int8.chunk_bytes, 0, 0
    for stored in catalog.tensors.values():
        if stored.kind == "dense":
            continue
        rows, columns = stored.spec.shape
        multiple = 1 if stored.quant is None else row_multiple(columns, stored.quant.group)
        height = chunks.most_rows(columns=columns, itemsize=dtype.itemsize, multiple=multiple)
        weights = max(weights, min(rows, height) * columns * dtype.itemsize)
        if stored.quant is not None and stored.quant.nested:
            groups = -(-stored.spec.numel // stored.quant.group)
            scales = max(scales, min(groups, WINDOW_GROUPS) * SCALE_BYTES)
    return {"weights": weights, "scales": scales}
