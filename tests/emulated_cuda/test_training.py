"""A training step on an emulated GPU: the gradients of the CPU, in every budget and order."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogvlm2_lite.backends import pinned
from cogvlm2_lite.events import Replanned
from cogvlm2_lite.finetune.network import weight_sizes
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Workload, plan_memory
from tests.core.test_finetune_memory import PLENTY, PRESETS, Setup, assert_same
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Order
from tests.helpers.conversion import quantize
from tests.helpers.goldens import CHECKPOINT


class SetupOnGpus(Setup):
    """The same network and samples, planned for GPUs."""

    def plan(self, *sizes: int) -> MemoryPlan:
        budgets = [
            DeviceBudget(device=f"cuda:{number}", device_bytes=size, host_bytes=PLENTY)
            for number, size in enumerate(sizes)
        ]
        workload = Workload.of_training(self.training, itemsize=self.dtype.itemsize)
        units = weight_sizes(self.catalog, self.dtype, on_gpu=True)
        return plan_memory(self.catalog.config, units, budgets, workload)


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "nf4"
    quantize(CHECKPOINT, folder)
    return folder


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_are_those_of_the_cpu(
    nf4: Path, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned, "RING_BYTES", 1 << 14)
    on_cpu, setup = (kind(folder=nf4, preset=preset) for kind in (Setup, SetupOnGpus))
    loss, gradients = on_cpu.step(on_cpu.network(PLENTY))
    with emulated_cuda():
        expected = setup.step(setup.network(PLENTY))
    assert expected[0] == pytest.approx(loss, rel=2e-6)
    for ours, theirs in zip(expected[1], gradients, strict=True):
        assert float((ours - theirs).norm()) <= 2e-5 * float(theirs.norm())
    for order, seed in ((Order.LATE, 0), (Order.RANDOM, 1)):
        with emulated_cuda(order=order, seed=seed) as machine:
            least = setup.smallest()
            network = setup.network(least)
            assert_same(setup.step(network), expected)
            assert network.streamed_bytes > 0
            assert machine.peak[0] <= least


def test_two_gpus(nf4: Path) -> None:
    setup = SetupOnGpus(folder=nf4, preset="both")
    with emulated_cuda(devices=2, order=Order.LATE) as machine:
        expected = setup.step(setup.network(PLENTY))
        network = setup.network(*2 * [setup.smallest(2)])
        assert_same(setup.step(network), expected)
        assert min(machine.peak) > 0


def test_memory_of_a_gpu_may_run_out_in_a_step(nf4: Path) -> None:
    setup = SetupOnGpus(folder=nf4, preset="both", cases=("talk1", "t1"))
    with emulated_cuda() as machine:
        network = setup.network(PLENTY)
        before = machine.allocations
        expected = setup.step(network)
        made = machine.allocations - before
    replanned = 0
    for number in range(3, made, made // 4):
        events: list[Replanned] = []
        with emulated_cuda() as machine:
            network = setup.network(PLENTY, events=events)
            machine.fail_at = machine.allocations + number
            assert_same(setup.step(network), expected)
            assert machine.allocations > machine.fail_at
        replanned += len(events)
    assert replanned == len(range(3, made, made // 4))
