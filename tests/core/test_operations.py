"""What only some devices compute with gives the results of the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.model.attention import grouped_attention, visible_keys
from cogvlm2_lite.model.decoder import RoutedAdapter, Routing, Step
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.model.norms import fused_rms_norm, rms_norm, rms_norm_in_parts
from cogvlm2_lite.model.operations import REFERENCE, choose_operations
from cogvlm2_lite.model.patches import convolved, multiplied
from cogvlm2_lite.model.rotary import RopeMode, inverse_frequencies, rotary_table
from cogvlm2_lite.model.token_attention import reference
from cogvlm2_lite.weights.slots import Adapted, Linear, LowRank
from cogvlm2_lite.weights.storage.dense import DenseWeight
from tests.helpers.goldens import CHECKPOINT


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_the_cpu_has_the_reference() -> None:
    found = choose_operations(torch.device("cpu"), reference)
    assert found == replace(REFERENCE, rms_norm=rms_norm_in_parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_fused_norm_rounds_like_the_reference(dtype: torch.dtype) -> None:
    x, weight = random(5, 4096, seed=1, dtype=dtype) * 7, random(4096, seed=2, dtype=dtype)
    ours, exact = fused_rms_norm(x, weight, 1e-5), rms_norm(x.double(), weight.double(), 1e-5)
    error = ours.double() - exact
    # One rounding of the result: half a unit in the last place, and the order of the sum.
    assert bool((error.abs() <= exact.abs() * torch.finfo(dtype).eps * 0.51 + 1e-6).all())
    learning = x.clone().requires_grad_()
    assert torch.equal(fused_rms_norm(learning, weight, 1e-5), rms_norm(x, weight, 1e-5))


@pytest.mark.parametrize(("size", "channels"), [(14, 3), (2, 32)])
def test_a_product_of_patches_is_the_convolution(size: int, channels: int) -> None:
    grid = random(2, channels, 4 * size, 6 * size, seed=1)
    kernel, bias = random(24, channels, size, size, seed=2), random(24, seed=3)
    # The projector's grid is a transposed view.
    for each in (grid, grid.transpose(2, 3).contiguous().transpose(2, 3)):
        found = multiplied(each, kernel, bias)
        assert found.shape == (2, 24, 24)
        assert torch.allclose(found, convolved(each, kernel, bias), atol=1e-4)


@pytest.mark.parametrize("earlier", [0, 9])
def test_one_call_for_all_heads_of_a_prompt_is_the_attention(earlier: int) -> None:
    tokens, keys = 7, 7 + earlier
    q, k, v = (random(1, heads, n, 16, seed=n) for heads, n in ((8, tokens), (2, keys), (2, keys)))
    mask = visible_keys(tokens, keys, None, torch.device("cpu")) if earlier else None
    expected = grouped_attention(q, k, v, mask, causal=not earlier)
    found = grouped_attention(q, k, v, mask, causal=not earlier, joint=True)
    assert found.shape == (1, tokens, 128)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mode", list(RopeMode))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_rotation_has_the_bits_of_the_released_formula(
    mode: RopeMode, dtype: torch.dtype
) -> None:
    table = rotary_table(inverse_frequencies(128), 4096, mode=mode, dtype=dtype)
    positions = torch.arange(4000, 4096, 7)[None]
    x = random(1, 5, positions.numel(), 128, seed=4, dtype=dtype)
    cos, sin = table.cos[positions][:, None], table.sin[positions][:, None]
    low, high = x.to(cos.dtype).chunk(2, dim=-1)
    expected = torch.cat((low * cos - high * sin, low * sin + high * cos), dim=-1).to(dtype)
    assert torch.equal(table.rows(positions).apply(x), expected)


def test_a_step_is_copied_once_to_each_device() -> None:
    config = read_config(CHECKPOINT)
    table = rotary_table(
        inverse_frequencies(config.head_dim), 8, mode=RopeMode.EXACT, dtype=torch.float32
    )
    cpu, other = torch.device("cpu"), torch.device("meta")
    step = Step(
        routing=Routing.of(torch.tensor([[True, False]])),
        rotations=[table.rows(torch.tensor([[0, 1]]))] * 2,
        mask=visible_keys(2, 2, None, cpu),
        causal=False,
        cache=KVCache(config, batch=1, dtype=torch.float32, devices=[cpu]),
        adapted=RoutedAdapter.everywhere("one"),
    )
    moved = step.on(other)
    assert step.on(cpu) is step
    assert moved.mask is not None
    assert moved.mask.device == other
    assert moved.rotations[0] is moved.rotations[1]
    assert step.on(other) is moved.on(other) is moved


def test_an_adapter_acts_on_the_rows_of_each_expert() -> None:
    routing = Routing.of(torch.tensor([[False, True, True, False, False]]))

    def rows(*acts: bool) -> list[object]:
        routed = RoutedAdapter.where("one", torch.tensor([acts]), routing)
        return [
            "none" if each is None else "all" if each.rows is None else each.rows.tolist()
            for each in (routed.every, routed.language, routed.vision)
        ]

    assert rows(False, False, False, True, True) == [[3, 4], [1, 2], "none"]
    assert rows(False, False, True, True, True) == [[2, 3, 4], [1, 2], [1]]
    assert rows(True, True, True, True, True) == ["all", "all", "all"]
    assert rows(False, False, False, False, False) == ["none", "none", "none"]
    assert rows(False, True, True, False, False) == [[1, 2], "none", "all"]


def test_an_adapter_changes_only_the_rows_on_which_it_acts() -> None:
    x, weight = random(2, 3, 8, seed=1), random(6, 8, seed=2)
    pair = LowRank(down=random(2, 8, seed=3), up=random(6, 2, seed=4))
    linear = Linear("a.weight", 8, 6, stored=DenseWeight(weight=weight))
    linear.adapters["one"] = pair
    acts = torch.tensor([[True, False, False], [False, True, True]])
    base, whole = linear(x), linear(x, Adapted(name="one"))
    found = linear(x, Adapted.where("one", acts))
    assert torch.equal(found[~acts], base[~acts])
    assert torch.allclose(found[acts], whole[acts], atol=1e-6)
    assert not torch.isclose(base, whole).all(-1).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 192), (1, 32, 192), (2, 51, 192), (1, 0, 192)])
def test_a_norm_in_parts_has_the_bits_of_the_reference(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(shape).to(dtype), torch.randn(192).to(dtype)
    assert torch.equal(rms_norm_in_parts(x, weight, 1e-5), rms_norm(x, weight, 1e-5))
    learning = x.clone().requires_grad_()
    assert rms_norm_in_parts(learning, weight, 1e-5).requires_grad
