"""Every way to attend gives the reference's result."""

from __future__ import annotations

import pytest
import torch

from cogvlm2_lite.backends.cpu import CpuBackend
from cogvlm2_lite.model.full_attention import choose_full_attention, chunked, reference


@pytest.mark.parametrize(("tokens", "head_dim"), [(1, 8), (37, 32), (256, 112), (700, 112)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.012), (torch.float16, 0.002)]
)
def test_chunked_attention_equals_the_reference(
    tokens: int, head_dim: int, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(tokens)
    q, k, v = (torch.randn((2, 3, tokens, head_dim), generator=generator) for _ in range(3))
    expected = reference(q, k, v)
    out = chunked(q.to(dtype), k.to(dtype), v.to(dtype)).float()
    assert float((out - expected).norm() / expected.norm()) < tolerance


def test_chunked_attention_takes_transposed_views() -> None:
    # The fused projection gives views whose rows are not contiguous.
    qkv = torch.randn((1, 50, 3, 2, 16), generator=torch.Generator().manual_seed(1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    assert torch.allclose(chunked(q, k, v), reference(q, k, v), atol=1e-5)


def test_the_choice_gives_its_reason() -> None:
    cpu, bf16 = torch.device("cpu"), torch.bfloat16
    fast = choose_full_attention(cpu, bf16, CpuBackend(has_bf16=True, has_amx=False))
    plain = choose_full_attention(cpu, bf16, CpuBackend(has_bf16=False, has_amx=False))
    assert (fast.name, plain.attend) in {
        ("AVX512 kernel", reference),
        ("chunked matmul", reference),
    }
    assert fast.name == "chunked matmul" or "AVX512-BF16" in fast.reason
    single = choose_full_attention(cpu, torch.float32, CpuBackend(has_bf16=True, has_amx=False))
    assert single.attend is reference


@pytest.mark.cuda
def test_the_gpu_choice_equals_the_reference() -> None:
    device = torch.device("cuda")
    q, k, v = (torch.randn((1, 16, 500, 112), device=device, dtype=torch.float16) for _ in range(3))
    chosen = choose_full_attention(device, torch.float16)
    assert torch.allclose(chosen.attend(q, k, v), reference(q, k, v), atol=2e-3)
