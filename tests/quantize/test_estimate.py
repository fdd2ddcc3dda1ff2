"""What a calibration costs is counted as it is computed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cogvlm2_lite.backends.cpu import CpuBackend
from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.backends.mps import MpsBackend
from cogvlm2_lite.bench.synthetic import released_config
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from quantize.calibration.estimate import (
    SampleCounts,
    Work,
    count_work,
    estimate,
    flops_per_s,
    rounding_flops,
    scratch_bytes,
    seconds_of,
)
from quantize.calibration.gptq import Calibration, round_matrix

REAL = SampleCounts(samples=64, shown=51, pictures=51)


def counted(rows: int, columns: int, how: Calibration) -> int:
    """Count the products of rounding a matrix as torch sees them."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    moment = torch.eye(columns) + 0.1
    with FlopCounterMode(display=False) as counter:
        round_matrix(weight, moment.clone, 10 * columns, how)
    return counter.get_total_flops()


def test_the_products_of_rounding_are_those_that_torch_counts() -> None:
    rows, columns = 512, 2048
    how = Calibration(descents=2, search=False)
    search = rounding_flops((rows, columns), replace(how, gptq=False, descents=0))
    expected = rounding_flops((rows, columns), how) - search
    # torch does not count the factorisation, 1/3 n^3; nor the halves that are not halved any more.
    assert counted(rows, columns, how) + columns**3 / 3 == pytest.approx(expected, rel=0.15)


def test_the_real_model_takes_what_its_shapes_say() -> None:
    """117 TFLOP a picture through the tower and 33 through the decoder, arithmetic by hand."""
    config = released_config(None, None)
    one = count_work(
        config, SampleCounts(samples=1, shown=1, pictures=1), Calibration(), budget=False
    )
    assert one.measuring * 4 / 3 == pytest.approx((117 + 33) * 1e12, rel=0.05)
    # A Hessian and a shift; gate and up of an MLP share theirs.
    assert one.hessians == pytest.approx(2 * (9217 * 31e9 + 2306 * 15e9), rel=0.2)
    older = replace(Calibration(), targets="rounded")
    before = count_work(config, SampleCounts(samples=1, shown=1, pictures=1), older, budget=False)
    assert before.hessians == pytest.approx(9217 * 31e9 + 2306 * 16e9, rel=0.2)
    assert 1.2 < one.forward / before.forward < 1.5
    weighted = count_work(
        config,
        SampleCounts(samples=1, shown=1, pictures=1),
        Calibration(token_weights="gradient"),
        budget=False,
    )
    assert weighted.weighing == pytest.approx(3 * 0.75 * 150e12, rel=0.05)
    assert replace(weighted, weighing=0.0) == one


def test_a_budget_adds_measuring_and_nothing_else() -> None:
    config = released_config(None, None)
    without, with_budget = (
        count_work(config, REAL, Calibration(), budget=b) for b in (False, True)
    )
    assert with_budget.measuring > without.measuring
    assert with_budget.runs[0] == without.runs[0]
    assert with_budget.runs[1] > without.runs[1]
    assert replace(with_budget, measuring=0.0, units=0.0, runs=(0, 0)) == replace(
        without, measuring=0.0, runs=(0, 0)
    )
    demo = read_config(checkpoint_folder())
    assert count_work(demo, REAL, Calibration(), budget=True).measuring < 1e13


def test_seconds_are_work_over_a_speed_that_was_tried_out() -> None:
    work = Work(forward=6e11, hessians=4e11, rounding=2e12, measuring=3e12)
    found = estimate(work, torch.device("cpu"), torch.float32)
    assert found.rounding_s == pytest.approx(2 * found.forward_s)
    assert found.seconds == pytest.approx(6 * found.forward_s)
    slowed = estimate(replace(work, runs=(1000, 0)), torch.device("cpu"), torch.float32)
    assert slowed.forward_s > 5
    assert 1e8 < flops_per_s(torch.device("cpu"), torch.float32) < 1e15
    assert "to round" in str(found)


def test_on_a_gpu_the_operations_that_are_started_take_time() -> None:
    """69.2 million in graphs and 4.2 million by the host, where there were 366 million before."""
    work = count_work(released_config(None, None), REAL, Calibration(), budget=False)
    assert work.together.nodes == pytest.approx(69.2e6, rel=0.01)
    assert work.together.launched == pytest.approx(4.1e6, rel=0.02)
    assert work.separate.launched == pytest.approx(366e6, rel=0.01)
    fast, cpu = CudaBackend(), CpuBackend()
    with_launches = seconds_of(work, 1e14, 3e13, fast)
    without = seconds_of(work, 1e14, 3e13, cpu)
    assert with_launches.rounding_s - without.rounding_s == pytest.approx(215, rel=0.02)
    # The host starts the operations of the samples while the GPU computes.
    assert with_launches.forward_s == without.forward_s
    endless = seconds_of(work, 1e20, 1e20, fast)
    assert endless.forward_s > seconds_of(work, 1e20, 1e20, cpu).forward_s + 10
    # A GPU that rounds matrices one by one takes an hour for them.
    one_by_one = seconds_of(work, 1e14, 3e13, MpsBackend())
    assert one_by_one.rounding_s > 3600


def test_the_disk_is_that_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = released_config(None, None)
    free = SimpleNamespace(available=64 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    few = SampleCounts(samples=8, shown=1, pictures=1)
    work = count_work(config, few, Calibration(), budget=False)
    in_ram = scratch_bytes(config, few, torch.bfloat16, work, Calibration())
    assert in_ram == pytest.approx(17.7e9 * 4.5 / 8, rel=0.1)  # 4.5 bits for each weight
    free.available = 3 << 30
    on_disk = scratch_bytes(config, few, torch.bfloat16, work, Calibration())
    assert on_disk - in_ram == pytest.approx(1.9e9, rel=0.05)  # of fc2, with its shift
    free.available = 64 << 30
    work = count_work(config, REAL, Calibration(), budget=False)
    pictures = scratch_bytes(config, REAL, torch.bfloat16, work, Calibration()) - in_ram
    assert pictures == pytest.approx(51 * 9217 * 1792 * 12, rel=0.3)
    more = count_work(config, REAL, Calibration(), budget=True)
    assert (
        scratch_bytes(config, REAL, torch.bfloat16, more, Calibration()) > in_ram + 1.5 * pictures
    )
