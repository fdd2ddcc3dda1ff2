"""A training step in every budget: the same gradients, to the bit, and no byte too many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.events import Replanned
from cogvlm2_lite.finetune.facts import training_of_samples
from cogvlm2_lite.finetune.network import LearningNetwork, weight_sizes
from cogvlm2_lite.finetune.samples import TrainedPair, TrainingSample
from cogvlm2_lite.finetune.talks import PackLimits
from cogvlm2_lite.memory.arena import Arena, OutOfBudgetError
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Workload, plan_memory
from cogvlm2_lite.memory.training import Training
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.weights.adapter import pairs_of
from cogvlm2_lite.weights.adapter_names import ALL_ROWS, BEHIND_PICTURE
from cogvlm2_lite.weights.catalog import Catalog
from tests.helpers.arenas import FailingArena
from tests.helpers.conversion import quantize
from tests.helpers.finetune import golden, training_samples
from tests.helpers.goldens import CHECKPOINT

PLENTY = 1 << 30
CASES = ("talk1", "t1", "s2", "talk2", "talk3")
LIMITS = PackLimits(talk=40, pack=40)
PRESETS = {
    "words": ("language", BEHIND_PICTURE),
    "both": ("experts", ALL_ROWS),
    "tower": ("tower", ALL_ROWS),
}


@dataclass(kw_only=True)
class Setup:
    """A network in the making, and the samples of its steps."""

    folder: Path
    preset: str
    cases: tuple[str, ...] = CASES
    dtype: torch.dtype = torch.float32

    @cached_property
    def samples(self) -> list[TrainingSample]:
        return training_samples(*self.cases)

    @property
    def acts_on(self) -> str:
        return PRESETS[self.preset][1]

    @cached_property
    def catalog(self) -> Catalog:
        return Catalog.open(self.folder, read_config(self.folder))

    @cached_property
    def training(self) -> Training:
        return training_of_samples(
            self.catalog.config, self.pairs(), self.samples, acts_on=self.acts_on, limits=LIMITS
        )

    @property
    def scale(self) -> float:
        return 8 / pairs_of(golden(f"{PRESETS[self.preset][0]}/init"), self.catalog.config)[1]

    def pairs(self) -> dict[str, TrainedPair]:
        found, _ = pairs_of(golden(f"{PRESETS[self.preset][0]}/init"), self.catalog.config)
        pairs = {}
        for name, (down, up) in found.items():
            leaves = [each.clone().requires_grad_() for each in (down, up)]
            for leaf in leaves:
                leaf.grad = torch.zeros_like(leaf)
            pairs[name] = TrainedPair(down=leaves[0], up=leaves[1])
        return pairs

    def plan(self, *sizes: int) -> MemoryPlan:
        budgets = [
            DeviceBudget(device=f"cpu:{number}", in_ram=True, device_bytes=size)
            for number, size in enumerate(sizes)
        ]
        workload = Workload.of_training(self.training, itemsize=self.dtype.itemsize)
        sizes_of_units = weight_sizes(self.catalog, self.dtype, on_gpu=False)
        return plan_memory(self.catalog.config, sizes_of_units, budgets, workload)

    def network(
        self,
        *sizes: int,
        arenas: Sequence[Arena] | None = None,
        events: list[Replanned] | None = None,
    ) -> LearningNetwork:
        return LearningNetwork(
            self.catalog, self.pairs(), scale=self.scale, acts_on=self.acts_on, dtype=self.dtype,
            rope=RopeMode.REFERENCE, plan=self.plan(*sizes), training=self.training,
            arenas=arenas, limits=LIMITS,
            replanned=(lambda event: None) if events is None else events.append,
        )  # fmt: skip

    def smallest(self, devices: int = 1) -> int:
        """Return the smallest budget per device that a plan exists for."""
        low, high = 0, PLENTY
        while high - low > 1000:
            middle = (low + high) // 2
            try:
                self.plan(*[middle] * devices)
                high = middle
            except DoesNotFitError:
                low = middle
        return high

    def step(self, network: LearningNetwork) -> tuple[float, list[Tensor]]:
        loss = network.accumulate(self.samples)
        found = []
        for pair in network.pairs.values():
            for leaf in (pair.down, pair.up):
                assert leaf.grad is not None
                found.append(leaf.grad.clone())
        return loss, found


def assert_same(found: tuple[float, list[Tensor]], expected: tuple[float, list[Tensor]]) -> None:
    assert found[0] == expected[0]
    assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1], strict=True))


def between(low: int, high: int) -> Iterator[int]:
    yield from sorted({low + (high - low) * step // 3 for step in range(4)})


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "nf4"
    quantize(CHECKPOINT, folder)
    return folder


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_budget_gives_the_same_step(nf4: Path, preset: str, devices: int) -> None:
    setup = Setup(folder=nf4, preset=preset)
    resident = setup.network(PLENTY)
    expected = setup.step(resident)
    losses = resident.losses(setup.samples)
    assert resident.streamed_bytes == 0
    assert_same(setup.step(resident), expected)
    low = setup.smallest(devices)
    high = max(device.peak_bytes for device in setup.plan(*[PLENTY] * devices).devices)
    streamed = 0
    for size in between(low, high):
        network = setup.network(*[size] * devices)
        assert_same(setup.step(network), expected)
        assert network.losses(setup.samples) == losses
        assert_same(setup.step(network), expected)
        assert all(arena.peak_bytes <= size for arena in network.arenas)
        streamed = max(streamed, network.streamed_bytes)
    assert streamed > 0


def test_a_step_that_does_not_fit_in_ram_is_computed_in_waves(
    nf4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(folder=nf4, preset="both")
    expected = setup.step(setup.network(PLENTY))
    network = setup.network(setup.smallest())
    waves = []
    learn = network._passes.learn
    monkeypatch.setattr(
        network._passes, "learn", lambda wave, count: waves.append(wave) or learn(wave, count)
    )
    assert_same(setup.step(network), expected)
    assert len(waves) > 1


@pytest.mark.parametrize("preset", ["words", "both"])
def test_memory_may_run_out_at_every_allocation(nf4: Path, preset: str) -> None:
    setup = Setup(folder=nf4, preset=preset, cases=("talk1", "t1"))
    expected = setup.step(setup.network(PLENTY))
    size = (setup.smallest() + setup.plan(PLENTY).peak_bytes) // 2
    counting = FailingArena()
    setup.step(setup.network(size, arenas=[counting]))
    assert counting.requests > 20
    for fail_at in range(1, counting.requests + 1):
        arena, events = FailingArena(fail_at), list[Replanned]()
        network = setup.network(size, arenas=[arena], events=events)
        assert_same(setup.step(network), expected)
        assert len(events) == 1
        assert "the step starts again" in str(events[0].text)
        assert arena.held_bytes <= network.plan.devices[0].budget.device_bytes < size


def test_memory_that_never_suffices_is_an_error_and_leaves_no_gradient(nf4: Path) -> None:
    class Full(Arena):
        def take(self, nbytes: int) -> None:
            if nbytes > 0:
                raise OutOfBudgetError("full")
            super().take(nbytes)

    setup, events = Setup(folder=nf4, preset="both"), list[Replanned]()
    network = setup.network(PLENTY, arenas=[Full()], events=events)
    with pytest.raises((DoesNotFitError, OutOfBudgetError)):
        setup.step(network)
    assert events
    for pair in network.pairs.values():
        assert pair.down.grad is not None
        assert not pair.down.grad.any()
