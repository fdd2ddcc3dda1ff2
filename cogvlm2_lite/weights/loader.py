"""Loads weights into the model's slots and removes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from cogvlm2_lite.backends.base import HostCopy, Outgoing
from cogvlm2_lite.backends.device import aligned
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.weights.adapter import Adapter, Pair
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.matrix import row_multiple
from cogvlm2_lite.weights.kernels.scales import SCALE_BYTES, WINDOW_GROUPS
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.reader import Reader
from cogvlm2_lite.weights.slots import Linear, LowRank, WeightSlot
from cogvlm2_lite.weights.storage import WeightTarget, checked_pieces, make_weight


class PieceReader(Protocol):
    """A source of the bytes of weights: `Reader`, or random numbers in the benchmark."""

    def read(self, stored: StoredTensor) -> dict[str, Tensor]:
        """Return all pieces of a tensor by role, on the CPU, as Reader.read does."""
        ...


class WeightLoader:
    """Fills slots from a folder, on one device, in one compute dtype. It owns the device's slab.

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
        self._slab: Tensor | None = None
        self._target = WeightTarget(
            device=device, dtype=dtype, kernels=self.kernels, scratch=self.scratch
        )

    @property
    def packs(self) -> bool:
        """True if 4-bit matrices used in decoding get a second, packed copy."""
        return self.kernels.packs

    @property
    def on_gpu(self) -> bool:
        """True if weights are copied to memory of a GPU (footprint.held_bytes)."""
        return not backend_of(self._target.device).uses_ram

    @property
    def uses_slab(self) -> bool:
        """True if all weights of the device lie in one allocation, made by `reserve`."""
        return backend_of(self._target.device).uses_slab

    def reserve(self, nbytes: int) -> None:
        """Replace the slab by one of another size; 0: release it. All slots must be empty.

        Raises torch's error if memory runs out; the device then has no slab.
        """
        if self._slab is not None:
            backend_of(self._target.device).synchronize(self._target.device)
            self._slab = None
        if nbytes:
            with self._upload:
                self._slab = torch.empty(nbytes, dtype=torch.uint8, device=self._target.device)

    def fill(self, slot: WeightSlot) -> int:
        """Load one weight into memory of its own; see fill_unit."""
        return self.fill_unit([slot], None)

    def fill_unit(
        self, slots: Sequence[WeightSlot], begin: int | None, kept: HostCopy | None = None
    ) -> int:
        """Load weights into slots; return their bytes, mapped file pages included.

        begin  the first byte of their place in the slab; None: they get memory of their own
        kept   where their bytes are kept for the next time; None: nowhere

        The number is that of footprint.held_bytes, and what adapters add. On the CPU a matrix that
        is stored in the compute dtype stays a view of its file. The inv_freq vectors and the
        embedding keep their stored type, and stay in host memory.

        Raises CheckpointError if the file was changed or its values are not valid for its kind.
        """
        filling = [self._read(slot) for slot in slots]
        # In the order of the files, so that a unit is read from disk in one go.
        sending = sorted(
            (each for weight in filling for each in weight.sent), key=lambda s: s.order
        )
        outgoing = [each.piece for each in sending]
        with self._upload:
            room = None
            if begin is not None:
                assert self._slab is not None, "the slab was not reserved"
                room = self._slab[begin : begin + sum(aligned(p.nbytes) for p in outgoing)]
            for each, copy in zip(sending, self._upload.send(outgoing, room, kept), strict=True):
                each.target[each.role] = copy
            held = sum(self._place(weight) for weight in filling)
        if self.on_gpu:
            return sum(aligned(piece.nbytes) for piece in outgoing)
        return held

    def read_ahead(self, slots: Sequence[WeightSlot]) -> None:
        """Let the system read weights that will be used as they are in their file; don't wait."""
        if isinstance(self._reader, Reader) and not self.on_gpu and not self.packs:
            self._reader.read_ahead(self.catalog.tensors[slot.name] for slot in slots)

    def clear(self, slots: Sequence[WeightSlot]) -> None:
        """Remove weights; memory of their own is freed when nothing else refers to it."""
        self._upload.wait_for_computing()
        for slot in slots:
            if isinstance(slot, Linear):
                slot.stored = None
                slot.adapters = {}
            else:
                slot.value = None

    # --- filling ----------------------------------------------------------------------------------

    def _read(self, slot: WeightSlot) -> _Filling:
        """Return a slot's tensors, on the CPU, and which of them go to the device."""
        stored = self.catalog.tensors[slot.name]
        shape = (slot.out_features, slot.in_features) if isinstance(slot, Linear) else slot.shape
        assert stored.spec.shape == shape, f"{stored.spec.name}: {stored.spec.shape}, not {shape}"
        filling = _Filling(slot=slot, stored=stored)
        pieces = self._reader.read(stored)
        if stored.spec.keeps_type:
            filling.pieces = pieces
            return filling
        whole = stored.pieces["weight"]
        for role, tensor in checked_pieces(stored, pieces).items():
            dtype = self._target.dtype if stored.kind == "dense" else tensor.dtype
            file = stored.pieces.get(role, whole)
            filling.send(filling.pieces, role, tensor, dtype, (str(file.file), file.begin))
        if isinstance(slot, Linear):
            for adapter in self._adapters:
                if slot.name in adapter.pairs:
                    self._read_pair(filling, adapter.name, adapter.pairs[slot.name])
        return filling

    def _read_pair(self, filling: _Filling, adapter: str, pair: Pair) -> None:
        both, dtype = filling.pairs.setdefault(adapter, {}), self._target.dtype
        filling.send(both, "down", pair.down, dtype, _LAST)
        # The scale goes into one matrix, in float32, so that it is rounded once.
        filling.send(both, "up", pair.up * pair.scale, dtype, _LAST)

    def _place(self, filling: _Filling) -> int:
        """Put tensors that are on the device into their slot; return their bytes."""
        slot, stored = filling.slot, filling.stored
        if not isinstance(slot, Linear):
            slot.value = filling.pieces["weight"]
            return slot.value.nbytes
        packed = self.packs and stored.spec.decodes
        slot.stored = make_weight(stored, filling.pieces, self._target, packed=packed)
        slot.adapters = {name: LowRank(**both) for name, both in filling.pairs.items()}
        return slot.stored.nbytes + sum(pair.nbytes for pair in slot.adapters.values())


_Order = tuple[str, int]
_LAST: _Order = ("\uffff", 0)
"""Sorts after all files."""


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A tensor that goes to the device: the dict and role of its copy, and its place in files."""

    piece: Outgoing
    target: dict[str, Tensor]
    role: str
    order: _Order


@dataclass(kw_only=True)
class _Filling:
    """A slot that is being filled: its tensors by role, and the low-rank pairs of adapters."""

    slot: WeightSlot
    stored: StoredTensor
    pieces: dict[str, Tensor] = field(default_factory=dict)
    pairs: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    sent: list[_Sent] = field(default_factory=list)

    def send(
        self,
        target: dict[str, Tensor],
        role: str,
        tensor: Tensor,
        dtype: torch.dtype,
        order: _Order,
    ) -> None:
        """Let a tensor go to the device."""
        target[role] = tensor  # the order of roles
        piece = Outgoing(tensor=tensor, dtype=dtype)
        self.sent.append(_Sent(piece=piece, target=target, role=role, order=order))


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
