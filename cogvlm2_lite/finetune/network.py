"""The loss of training samples and its gradients, within a memory plan.

The base model is frozen. Only the adapter's two matrices per layer get gradients, in float32.

A step is computed in waves of packs (`talks.py`), as many at a time as may wait in RAM. If memory
runs out, a plan with a smaller budget is made and the step starts again. Gradients are added up in
the order of the packs, so on a CPU neither changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from cogvlm2_lite.devices import Compute
from cogvlm2_lite.engine.replan import (
    MAX_REPLANS_PER_ANSWER,
    MAY_BE_OUT_OF_MEMORY,
    Replanner,
    out_of_memory,
)
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.events import Replanned
from cogvlm2_lite.finetune.expect import plan_training
from cogvlm2_lite.finetune.facts import training_of_samples
from cogvlm2_lite.finetune.known import KnownPictures
from cogvlm2_lite.finetune.pairs import TrainedPairs
from cogvlm2_lite.finetune.passes import Passes, Wave
from cogvlm2_lite.finetune.picture_files import PictureFiles
from cogvlm2_lite.finetune.placed import PlacedModel
from cogvlm2_lite.finetune.samples import TrainedPair, TrainingPicture, TrainingSample
from cogvlm2_lite.finetune.talks import Pack, PackLimits, Prefix, make_packs
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.budget import Allowance, cpu_budget, free_ram_bytes, gpu_budgets
from cogvlm2_lite.memory.inventory import UnitKey, unit_sizes
from cogvlm2_lite.memory.plan import MemoryPlan, Workload, plan_memory
from cogvlm2_lite.memory.training import Training, waiting_bytes
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.weights.adapter_names import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import PieceReader

Result = TypeVar("Result")

_LIMITS = PackLimits()


def _ignore(event: Replanned) -> None:
    """Do nothing."""


def weight_sizes(
    catalog: Catalog, dtype: torch.dtype, *, on_gpu: bool = False
) -> dict[UnitKey, int]:
    """Return the bytes in memory of each unit of the model while it is trained."""
    # A packed copy of a matrix is for decoding.
    return unit_sizes(catalog, itemsize=dtype.itemsize, packed=False, on_gpu=on_gpu)


class LearningNetwork:
    """A checkpoint whose adapter is trained. Its weights are where a memory plan keeps them.

    pairs      by the name of the matrix, with its ".weight"
    scale      alpha / rank
    acts_on    rows on which the adapter acts: "all" or "behind the picture"
    plan       where the weights are
    training   what the plan has room for
    arenas     account for the bytes of the devices; None: new ones
    reader     source of the weights' bytes; None: the catalog's files
    limits     of the rows that go through the decoder together
    keeps      whether what is computed of pictures is kept from step to step
    files      keeps it on disk, too
    replanned  is called when memory ran out and a smaller plan was made; the step starts again
    """

    def __init__(
        self,
        catalog: Catalog,
        pairs: Mapping[str, TrainedPair],
        *,
        scale: float,
        acts_on: str,
        dtype: torch.dtype,
        rope: RopeMode,
        plan: MemoryPlan,
        training: Training,
        arenas: Sequence[Arena] | None = None,
        reader: PieceReader | None = None,
        limits: PackLimits = _LIMITS,
        keeps: bool = True,
        files: PictureFiles | None = None,
        replanned: Callable[[Replanned], None] = _ignore,
    ) -> None:
        self.config, self.dtype, self.replanned = catalog.config, dtype, replanned
        self._trained = TrainedPairs(pairs, scale=scale, dtype=dtype)
        self._placed = PlacedModel(
            catalog,
            plan,
            training,
            self._trained,
            dtype=dtype,
            rope=rope,
            arenas=arenas,
            reader=reader,
        )
        self._in = partial(
            LearningNetwork,
            catalog,
            pairs,
            scale=scale,
            acts_on=acts_on,
            rope=rope,
            training=training,
            arenas=self._placed.arenas,
            reader=reader,
            limits=limits,
            keeps=False,
        )
        self._catalog = catalog
        self._behind, self._limits, self._keeps = acts_on != ALL_ROWS, limits, keeps
        self._known = KnownPictures(files=files)
        self._passes = Passes(self._placed, self._trained, self._known, behind=self._behind)
        self._replanner = Replanner(
            self,
            weight_sizes(catalog, dtype, on_gpu=not plan.devices[0].budget.in_ram),
            Workload.of_training(training, itemsize=dtype.itemsize),
        )
        self.follow(plan)

    @staticmethod
    def for_samples(
        catalog: Catalog,
        pairs: Mapping[str, TrainedPair],
        samples: Sequence[TrainingSample],
        *,
        scale: float,
        acts_on: str,
        compute: Compute,
        rope: RopeMode,
        limits: PackLimits = _LIMITS,
    ) -> LearningNetwork:
        """Return a network with room for given samples in the memory that is free.

        Raises DoesNotFitError if there is not enough.
        """
        free, allowance = free_ram_bytes(), Allowance()
        budget = cpu_budget(allowance, free)
        if compute.gpus:
            (budget,) = gpu_budgets(compute.gpus[:1], allowance, free)
        training = training_of_samples(
            catalog.config, pairs, samples, acts_on=acts_on, limits=limits
        )
        plan = plan_training(
            catalog.config,
            weight_sizes(catalog, compute.dtype, on_gpu=not budget.in_ram),
            budget,
            training,
            itemsize=compute.dtype.itemsize,
        )
        return LearningNetwork(
            catalog,
            pairs,
            scale=scale,
            acts_on=acts_on,
            dtype=compute.dtype,
            rope=rope,
            plan=plan,
            training=training,
            limits=limits,
        )

    @property
    def pairs(self) -> Mapping[str, TrainedPair]:
        """The trained matrices by name."""
        return self._trained.pairs

    @property
    def plan(self) -> MemoryPlan:
        """The memory plan."""
        return self._placed.plan

    @property
    def arenas(self) -> tuple[Arena, ...]:
        """The accounts of the devices' bytes."""
        return self._placed.arenas

    @property
    def computed_tokens(self) -> int:
        """Tokens that went through the decoder so far, image tokens included."""
        return self._passes.computed_tokens

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights that were loaded for a single use so far."""
        return self._placed.residency.streamed_bytes

    def follow(self, plan: MemoryPlan) -> None:
        """Switch to a plan for the same devices, with the same blocks on each of them."""
        self._placed.follow(plan)
        self._known.resize(plan.picture_cache_bytes if self._keeps else 0)

    def knows(self, picture: str) -> bool:
        """Return whether the features of a picture, by its key, need not be computed now."""
        return not self._keeps or self._placed.training.tower or self._known.has_features(picture)

    def encode(self, pictures: Sequence[TrainingPicture]) -> bool:
        """Compute features that are not known, before the first step that needs them.

        Returns False if there is no room to keep them all; the others are computed in each step.
        """
        return self._with_replanning(lambda: self._passes.remember(pictures))

    @contextmanager
    def released(self) -> Iterator[None]:
        """Release the weights while the block runs, so that something else has their memory."""
        self._placed.release()
        try:
            yield
        finally:
            self.follow(self.plan)

    def accumulate(
        self, samples: Sequence[TrainingSample], dtype: torch.dtype | None = None
    ) -> float:
        """Set the pairs' gradients to those of the samples' loss; return the loss.

        dtype  compute dtype of this step, such as float32 to repeat a step whose loss was not
               finite; None: the network's

        The loss is the mean over all label tokens of all samples. It is not a number if a step in
        another dtype does not fit in memory.
        """
        if dtype is not None and dtype != self.dtype:
            return self._accumulate_in(dtype, samples)
        count = sum(len(sample.label_positions) for sample in samples)
        packs, prefixes = make_packs(samples, limits=self._limits, stored=self._behind)

        def step() -> dict[int, float]:
            self._trained.zero()
            found: dict[int, float] = {}
            for wave in self._waves(packs, prefixes):
                for number, loss in self._passes.learn(wave, count).items():
                    found[number] = loss
            return found

        losses = self._with_replanning(step)
        return sum(losses[number] for number in sorted(losses)) / count

    def losses(self, samples: Sequence[TrainingSample]) -> list[float]:
        """Return the sum of the loss over the label tokens of each sample; nothing is trained."""
        packs, prefixes = make_packs(samples, limits=self._limits, stored=self._behind)

        def compute() -> dict[int, float]:
            found: dict[int, float] = {}
            for wave in self._waves(packs, prefixes):
                found.update(self._passes.losses(wave))
            return found

        found = self._with_replanning(compute)
        return [found.get(number, 0.0) for number in range(len(samples))]

    def scores(self, samples: Sequence[TrainingSample]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the labels [rows] and logits [rows, vocab] of all samples, a few rows at a time."""
        packs, prefixes = make_packs(samples, limits=self._limits, stored=self._behind)
        for wave in self._waves(packs, prefixes):
            yield from self._passes.scores(wave)

    def _accumulate_in(self, dtype: torch.dtype, samples: Sequence[TrainingSample]) -> float:
        """Do the same in another compute dtype, whose weights replace those in memory."""
        self._placed.release()
        budgets = [device.budget for device in self.plan.devices]
        try:
            plan = plan_memory(
                self.config,
                weight_sizes(self._catalog, dtype, on_gpu=not budgets[0].in_ram),
                budgets,
                Workload.of_training(self._placed.training, itemsize=dtype.itemsize),
            )
        except DoesNotFitError:
            self._trained.zero()
            return math.nan
        other = self._in(dtype=dtype, plan=plan, replanned=self.replanned)
        try:
            return other.accumulate(samples)
        finally:
            other._placed.release()
            self.follow(self.plan)

    def _with_replanning(self, work: Callable[[], Result]) -> Result:
        """Run work; if memory runs out, make a smaller plan and run it again."""
        for left in reversed(range(MAX_REPLANS_PER_ANSWER + 1)):
            try:
                return work()
            except MAY_BE_OUT_OF_MEMORY as error:
                if not left or not out_of_memory(error):
                    raise
            # Outside of the handler, because the error keeps the tensors of the failed work alive.
            self.replanned(self._replanner.replan())
        raise AssertionError

    # --- waves ------------------------------------------------------------------------------------

    def _waves(self, packs: Sequence[Pack], prefixes: Mapping[str, Prefix]) -> Iterator[Wave]:
        """Yield as many packs at a time as may wait in RAM, at least one."""
        current = Wave(packs=(), prefixes={})
        for together in self._inseparable(packs):
            stored = {span.stored for pack in together for span in pack.spans} - {None}
            more = {key: each for key, each in prefixes.items() if key in stored}
            longer = Wave(packs=(*current.packs, *together), prefixes={**current.prefixes, **more})
            if current.packs and self._waiting_bytes(longer) > self.plan.wave_bytes:
                yield current
                longer = Wave(packs=together, prefixes=more)
            current = longer
        if current.packs:
            yield current

    def _inseparable(self, packs: Sequence[Pack]) -> Iterator[tuple[Pack, ...]]:
        """Yield packs that must be in one wave.

        These are the packs about one picture if the vision tower is trained: it is then computed
        once for them.
        """
        together: list[Pack] = []
        seen: set[str] = set()
        for pack in packs:
            pictures = {picture.key for picture in pack.pictures}
            if together and not (self._placed.training.tower and pictures & seen):
                yield tuple(together)
                together, seen = [], set()
            together.append(pack)
            seen |= pictures
        if together:
            yield tuple(together)

    def _waiting_bytes(self, wave: Wave) -> int:
        return waiting_bytes(
            self.config,
            self._placed.training,
            self.dtype.itemsize,
            tokens=sum(pack.rows for pack in wave.packs),
            pictures=len(wave.pictures),
        )
