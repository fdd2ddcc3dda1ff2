"""The closed form and the choice of ranks in benchmarks/low_rank.py."""

from __future__ import annotations

import pytest
import torch

from benchmarks.low_rank import equal_ranks, greedy_ranks, make_correction


def test_a_correction_leaves_the_tail_of_the_singular_values() -> None:
    torch.manual_seed(1)
    change = torch.randn(24, 16)
    inputs = torch.randn(200, 16) * torch.linspace(0.2, 3, 16)
    hessian = inputs.t() @ inputs / len(inputs)
    made = make_correction(change, hessian, inputs.mean(dim=0))
    for rank in (1, 4, 15):
        left = (inputs @ (change - made.values(rank)).t()).square().sum() / len(inputs)
        rounding = 1e-4 * made.error  # of the factors, to bfloat16
        assert float(left) == pytest.approx(sum(made.gains[rank:]), abs=rounding, rel=5e-3)
    whole = (inputs @ change.t()).square().sum() / len(inputs)
    assert made.error == pytest.approx(float(whole), rel=1e-4)


def test_ranks_stay_within_the_bytes_and_go_where_they_are_worth_most() -> None:
    torch.manual_seed(1)
    made = {
        name: make_correction(torch.randn(8, 8) * size, torch.eye(8), torch.zeros(8))
        for name, size in (("small", 0.01), ("large", 1.0))
    }
    assert equal_ranks(made, 63) == {}
    assert equal_ranks(made, 130) == {"small": 2, "large": 2}
    assert greedy_ranks(made, dict.fromkeys(made, 1.0), 100) == {"large": 3}
    assert greedy_ranks(made, {"small": 1e9, "large": 1.0}, 100) == {"small": 3}
