"""What only some devices compute with gives the results of the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.model.attention import grouped_attention, visible_keys
from cogvlm2_lite.model.norms import fused_rms_norm, rms_norm
from cogvlm2_lite.model.operations import REFERENCE, choose_operations
from cogvlm2_lite.model.patches import convolved, multiplied
from cogvlm2_lite.model.rotary import RopeMode, inverse_frequencies, rotary_table
from cogvlm2_lite.model.token_attention import reference


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_the_cpu_has_the_reference() -> None:
    assert choose_operations(torch.device("cpu"), reference) == REFERENCE


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
