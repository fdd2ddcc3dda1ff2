"""The model of a training run on its devices: its parts, and the weights that its plan keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part, Phase, expected_tensors
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.engine.assembly import ModelParts, assemble
from cogvlm2_lite.finetune.pairs import GradientSums, TrainedPairs
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.inventory import unit_key
from cogvlm2_lite.memory.plan import RESERVE_BYTES, MemoryPlan
from cogvlm2_lite.memory.residency import HasSlots, Residency
from cogvlm2_lite.memory.training import Training
from cogvlm2_lite.model.full_attention import reference
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.model.vision import VisionTower
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.loader import PieceReader, WeightLoader


class PlacedModel:
    """The frozen model in the memory plan of a run.

    plan, training  the plan, and what it has room for
    """

    def __init__(
        self,
        catalog: Catalog,
        plan: MemoryPlan,
        training: Training,
        trained: TrainedPairs,
        *,
        dtype: torch.dtype,
        rope: RopeMode,
        arenas: Sequence[Arena] | None = None,
        reader: PieceReader | None = None,
    ) -> None:
        self.config, self.training, self.dtype = catalog.config, training, dtype
        self._trained = trained
        names = [each.budget.device for each in plan.devices]
        self.devices = [backend_of(name).torch_device(name) for name in names]
        loaders = [
            WeightLoader(
                catalog,
                device=device,
                dtype=dtype,
                # A copy for decoding would never be used.
                kernels=replace(choose_kernels(device, dtype), pack=None),
                reader=reader,
            )
            for device in self.devices
        ]
        self.parts = self._assemble(rope)
        self.arenas = tuple(arenas or (Arena() for _ in self.devices))
        for device, planned in zip(self.devices, plan.devices, strict=True):
            limit = planned.budget.device_bytes + RESERVE_BYTES
            backend_of(device).limit_memory(device, limit)
        keys = {spec.name: unit_key(spec) for spec in expected_tensors(self.config).values()}
        self.residency = Residency(
            loaders,
            keys,
            self.parts.pieces,
            plan,
            self.arenas,
            loads_ahead=backend_of(self.devices[0]).loads_ahead,
        )
        self._places: dict[int, torch.device] = {}
        self.follow(plan)

    def _assemble(self, rope: RopeMode) -> ModelParts:
        parts = assemble(self.config, device=self.devices[0], dtype=self.dtype, rope=rope)
        if self.training.tower:
            # Not every fast attention has a gradient.
            project = parts.operations.project
            tower = VisionTower(self.config.vision, reference, project)
            parts = replace(parts, tower=tower)
        return parts

    def follow(self, plan: MemoryPlan) -> None:
        """Switch to a plan for the same devices, with the same blocks on each of them."""
        self.plan = plan
        self.residency.follow(plan)
        for device, planned in zip(self.devices, plan.devices, strict=True):
            for pieces, part in (
                (self.parts.tower.blocks, Part.VISION),
                (self.parts.decoder.blocks, Part.LANGUAGE_EXPERT),
            ):
                for number in planned.blocks[part]:
                    self._places[id(pieces[number])] = device
        self._places[id(self.parts.projector)] = self.devices[-1]
        self._places[id(self.parts.decoder.head)] = self.devices[-1]

    def device_of(self, piece: HasSlots) -> torch.device:
        """Return the device on which a piece is computed."""
        return self._places.get(id(piece), self.devices[0])

    def put(self, tensor: Tensor, piece: HasSlots) -> Tensor:
        """Return an activation on the device of a piece, in the compute dtype."""
        return tensor.detach().to(self.device_of(piece), self.dtype)

    @contextmanager
    def weights(self, phase: Phase, piece: HasSlots, *, backward: bool = False) -> Iterator[None]:
        """Hold the weights of a piece in memory, with copies of its trained pairs.

        backward  the walk goes back: the caller puts copies with gradients there itself
        """
        with self.residency.at(phase, piece, backward=backward):
            if backward:
                yield
            else:
                with self._trained.beside(piece, self.device_of(piece)):
                    yield

    @contextmanager
    def learning(self, piece: HasSlots) -> Iterator[GradientSums]:
        """Put copies with gradients next to the weights, which are in memory."""
        with self._trained.learning(piece, self.device_of(piece)) as sums:
            yield sums

    def release(self) -> None:
        """Release all weights; they are loaded again when they are needed."""
        self.residency.release()
