"""What a calibration costs is counted as it is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

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
    assert one.hessians == pytest.approx(9217 * 31e9 + 2306 * 16e9, rel=0.2)


def test_a_budget_adds_measuring_and_nothing_else() -> None:
    config = released_config(None, None)
    without, with_budget = (
        count_work(config, REAL, Calibration(), budget=b) for b in (False, True)
    )
    assert with_budget.measuring > without.measuring
    assert with_budget.runs[0] == without.runs[0]
    assert with_budget.runs[1] > without.runs[1]
    assert replace(with_budget, measuring=0.0, runs=(0, 0)) == replace(
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
