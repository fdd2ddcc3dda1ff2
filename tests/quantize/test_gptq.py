"""Rounding that looks at the inputs: never worse where it should be better, and plain NF4 all the
same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, quantize_nf4
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.storage.nf4 import place_four_bit
from quantize.calibration.gptq import (
    Calibration,
    damp,
    expected_error,
    inverse_factor,
    levels,
    nearest_codes,
    output_error,
    round_matrix,
    round_to_nearest,
    search_scales,
)

PLAIN = Calibration(signed=False, search=False, gptq=False, descents=0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs_like_a_networks(columns: int, count: int = 4000, seed: int = 1) -> Tensor:
    """Correlated inputs of very different sizes."""
    mix = random(columns, columns, seed=seed) / columns**0.5 + torch.eye(columns)
    return random(count, columns, seed=seed + 1) @ mix * random(columns, seed=seed + 2).exp()


def fresh(hessian: Tensor) -> Callable[[], Tensor]:
    """Return a function that gives a new copy of the Hessian, as calibration has it."""
    return hessian.clone


def hessian_of(x: Tensor) -> Tensor:
    return x.t() @ x / len(x)


@pytest.mark.parametrize("double_quant", [True, False])
def test_without_any_step_it_is_round_to_nearest(double_quant: bool) -> None:
    weight = random(48, 128) * 0.02
    how = replace(PLAIN, double_quant=double_quant)
    rounded = round_matrix(weight, fresh(torch.eye(128)), 1000, how)
    nearest = quantize_nf4(weight, double_quant=double_quant)
    packed = (rounded.codes[:, ::2] << 4) | rounded.codes[:, 1::2]
    if not double_quant:
        assert torch.equal(packed.flatten(), nearest.codes.flatten())
        assert torch.equal(rounded.scales.flatten(), nearest.absmax)
    plain = round_to_nearest(weight, double_quant=double_quant)
    packed = (plain.codes[:, ::2] << 4) | plain.codes[:, 1::2]
    assert torch.equal(packed.flatten(), nearest.codes.flatten())
    cpu = torch.device("cpu")
    placed = place_four_bit(nearest, choose_kernels(cpu, torch.float32, "torch"), Scratch(cpu))
    assert torch.equal(plain.values, placed.dequantize(torch.float32))


def test_every_step_lowers_the_error_on_inputs_not_seen() -> None:
    weight, x = random(96, 256) * 0.02, inputs_like_a_networks(256, 8000)
    fit, check = hessian_of(x[:6000]), hessian_of(x[6000:])
    steps = (
        replace(PLAIN, search=True),
        replace(PLAIN, search=True, signed=True),
        Calibration(ordered=False, descents=0),
        Calibration(descents=0),
        Calibration(),
    )
    before = expected_error(weight - round_to_nearest(weight, double_quant=True).values, check)
    for how in steps:
        after = expected_error(weight - round_matrix(weight, fresh(fit), 6000, how).values, check)
        assert after < before
        before = after
    nearest = expected_error(weight - round_to_nearest(weight, double_quant=True).values, check)
    assert before < 0.45 * nearest


def test_white_inputs_leave_nothing_to_compensate() -> None:
    weight = random(64, 128) * 0.02
    how = Calibration(search=False, signed=False, double_quant=False)
    rounded = round_matrix(weight, fresh(torch.eye(128)), 10**9, how)
    nearest = quantize_nf4(weight, double_quant=False)
    packed = (rounded.codes[:, ::2] << 4) | rounded.codes[:, 1::2]
    assert torch.equal(packed.flatten(), nearest.codes.flatten())


def test_descent_never_raises_the_error() -> None:
    weight, x = random(40, 192) * 0.02, inputs_like_a_networks(192)
    damped = damp(hessian_of(x), len(x), 0.01)
    errors = []
    for passes in range(4):
        rounded = round_matrix(weight, fresh(hessian_of(x)), len(x), Calibration(descents=passes))
        errors.append(expected_error(weight - rounded.values, damped))
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in pairwise(errors))


def test_the_result_does_not_depend_on_the_threads() -> None:
    weight, hessian = random(64, 512) * 0.02, hessian_of(inputs_like_a_networks(512, 1000))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(round_matrix(weight, fresh(hessian), 1000))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].codes, found[1].codes)
    assert torch.equal(found[0].scales, found[1].scales)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_statistics_that_are_no_numbers_are_told(value: float) -> None:
    hessian = torch.eye(64)
    hessian[3, 5] = value
    with pytest.raises(ArithmeticError, match="not finite"):
        round_matrix(random(8, 64), fresh(hessian), 100)


def test_statistics_of_nothing_are_told() -> None:
    with pytest.raises(ArithmeticError, match="all zero"):
        round_matrix(random(8, 64), fresh(torch.zeros(64, 64)), 0)


def test_columns_without_any_input_are_rounded_like_the_others() -> None:
    x = inputs_like_a_networks(128)
    x[:, 10:20] = 0
    weight = random(32, 128) * 0.02
    rounded = round_matrix(weight, fresh(hessian_of(x)), len(x))
    dead = (weight - rounded.values)[:, 10:20].abs().max()
    assert dead < 0.5 * weight.abs().max()


def test_one_sample_is_damped_until_it_is_harmless() -> None:
    x, weight = inputs_like_a_networks(128, 1), random(32, 128) * 0.02
    check = hessian_of(inputs_like_a_networks(128, 4000))
    rounded = round_matrix(weight, fresh(hessian_of(x)), 1)
    nearest = expected_error(weight - round_to_nearest(weight, double_quant=True).values, check)
    assert expected_error(weight - rounded.values, check) < 1.2 * nearest


def test_a_matrix_of_zeros_stays_zero() -> None:
    rounded = round_matrix(
        torch.zeros(8, 64), fresh(torch.eye(64)), 100, Calibration(double_quant=False)
    )
    assert not rounded.values.any()


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 20),
    groups=st.integers(1, 4),
    seed=st.integers(0, 999),
    signed=st.booleans(),
)
def test_searched_scales_are_never_worse_than_the_largest_magnitude(
    rows: int, groups: int, seed: int, signed: bool
) -> None:
    weight, heavy = random(rows, 64 * groups, seed=seed), random(64 * groups, seed=seed + 1).abs()
    found = search_scales(weight, heavy, replace(PLAIN, search=True, signed=signed))
    plain = search_scales(weight, heavy, PLAIN)

    def error(scales: Tensor) -> float:
        grid = scales.repeat_interleave(64, dim=1)
        rounded = levels(nearest_codes(weight, grid)) * grid
        return float((heavy * (weight - rounded).square()).sum())

    assert error(found) <= error(plain) * (1 + 1e-6)


def test_codes_under_a_negative_scale_are_those_of_the_flipped_grid() -> None:
    weight = torch.linspace(-1, 1, 101)
    found = levels(nearest_codes(weight, torch.full_like(weight, -1.0))) * -1.0
    grid = -torch.tensor(NF4_LEVELS)
    best = grid[(weight.unsqueeze(1) - grid).abs().argmin(dim=1)]
    assert torch.equal(found, best)


def test_the_nearest_level_is_found_as_a_search_finds_it() -> None:
    known = torch.tensor(NF4_LEVELS)
    bounds = (known[1:] + known[:-1]) / 2
    around = torch.cat([torch.nextafter(bounds, torch.tensor(way)) for way in (-2.0, 2.0)])
    edges = torch.arange(65) / 32 - 1
    beside = torch.cat([torch.nextafter(edges, torch.tensor(way)) for way in (-2.0, 2.0)])
    weight = torch.cat((bounds, around, edges, beside, torch.linspace(-3, 3, 10001), known))
    found = nearest_codes(weight, torch.ones_like(weight))
    assert torch.equal(found.long(), torch.bucketize(weight, bounds))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("columns", [64, 640, 1216])
def test_the_factor_is_that_of_the_inverse(columns: int, ordered: bool) -> None:
    hessian = hessian_of(inputs_like_a_networks(columns, 3000)) + 0.1 * torch.eye(columns)
    order = torch.arange(columns)
    if ordered:
        order = hessian.diagonal().argsort(descending=True)
    factor = inverse_factor(hessian, order)
    assert not factor.tril(-1).any()
    found = factor.t().double() @ factor.double() @ hessian[order][:, order].double()
    assert (found - torch.eye(columns)).abs().max() < 2e-3


def test_columns_are_compensated_as_the_method_says() -> None:
    """One column at a time and no blocks: the plainest form of GPTQ, in float64."""
    weight, x = random(24, 320) * 0.02, inputs_like_a_networks(320)
    how = Calibration(search=False, signed=False, descents=0, double_quant=False)
    found = round_matrix(weight, fresh(hessian_of(x)), len(x), how)
    damped = damp(hessian_of(x), len(x), how.damping).double()
    order = damped.diagonal().float().argsort(descending=True, stable=True)
    inverse = torch.linalg.inv(damped[order][:, order])
    factor = torch.linalg.cholesky(inverse, upper=True)
    rest, grid = weight[:, order].double(), found.scales.repeat_interleave(64, dim=1)[:, order]
    codes = torch.empty_like(rest, dtype=torch.uint8)
    for column in range(320):
        now, scale = rest[:, column].clone(), grid[:, column]
        codes[:, column] = nearest_codes(now.float(), scale)
        error = (now - levels(codes[:, column]) * scale) / factor[column, column]
        rest[:, column:] -= error.unsqueeze(1) * factor[column, column:].unsqueeze(0)
    assert (codes == found.codes[:, order]).float().mean() > 0.99


def test_the_error_of_inputs_is_that_of_their_hessian() -> None:
    change, x = random(16, 128), inputs_like_a_networks(128, 3000)
    assert output_error(change, x) == pytest.approx(expected_error(change, hessian_of(x)), rel=1e-4)
    assert output_error(change, x[:0]) == 0.0
