"""Attention of many queries with AMX and with AVX512-BF16 (kernels/attention_many.h).

A processor without the instructions skips them.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cogvlm2_lite.backends.cpu import CpuBackend, cpu_flags
from cogvlm2_lite.model import full_attention
from cogvlm2_lite.model.attention import grouped_attention, visible_keys
from cogvlm2_lite.model.full_attention import choose_full_attention
from cogvlm2_lite.weights.kernels.attention_many import ManyQueriesKernel, open_many_queries
from cogvlm2_lite.weights.kernels.built import built_kernel
from cogvlm2_lite.weights.kernels.library import CPU_LEVEL, open_library
from tests.helpers.matrices import random

CPU, BF16 = torch.device("cpu"), torch.bfloat16


def opened(amx: bool) -> ManyQueriesKernel:
    if built_kernel() is None:
        pytest.skip("no C compiler at installation")
    needed = {"amx_bf16", "amx_int8", "avx512_bf16"} if amx else {"avx512_bf16"}
    if not needed <= cpu_flags():
        pytest.skip(f"a processor without {', '.join(sorted(needed))}")
    found = open_many_queries(open_library(), amx=amx)
    if found is None:
        pytest.skip("the instructions are switched off")
    return found


@pytest.fixture(scope="module", params=["AVX512", "AMX"])
def kernel(request: pytest.FixtureRequest) -> ManyQueriesKernel:
    return opened(request.param == "AMX")


def heads_of(count: int, tokens: int, width: int, seed: int) -> Tensor:
    return random(1, count, tokens, width, dtype=BF16, seed=seed)


def exact(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Return the attention in float64, [batch, tokens, heads, head_dim]."""
    group = q.shape[1] // k.shape[1]
    k, v = (each.double().repeat_interleave(group, 1) for each in (k, v))
    mask = visible_keys(q.shape[2], k.shape[2], None, CPU) if causal else None
    return F.scaled_dot_product_attention(q.double(), k, v, mask).transpose(1, 2)


def error(out: Tensor, right: Tensor) -> float:
    return float((out.double() - right).norm() / right.norm())


@pytest.mark.parametrize("width", [112, 128])
@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 17, 31, 32, 33, 63, 100, 127, 128, 129, 257, 300])
def test_it_is_as_exact_as_torch(kernel: ManyQueriesKernel, tokens: int, width: int) -> None:
    for earlier, heads, kv_heads, causal in ((0, 2, 2, False), (0, 4, 1, True), (77, 6, 2, True)):
        q = heads_of(heads, tokens, width, 1)
        k, v = (heads_of(kv_heads, earlier + tokens, width, seed) for seed in (2, 3))
        right = exact(q, k, v, causal=causal)
        mask = visible_keys(tokens, earlier + tokens, None, CPU) if causal else None
        wide_k, wide_v = (each.repeat_interleave(heads // kv_heads, 1) for each in (k, v))
        torchs = F.scaled_dot_product_attention(q, wide_k, wide_v, mask).transpose(1, 2)
        found = kernel.attend(q, k, v, causal=causal)
        assert found.shape == (1, tokens, heads, width)
        assert error(found, right) < 1.2 * error(torchs, right) + 1e-4


def test_scores_may_be_large_and_rise_late(kernel: ManyQueriesKernel) -> None:
    q, k, v = (heads_of(1, 700, 112, seed) for seed in range(3))
    k = k * torch.linspace(0.01, 40, 700).view(1, 1, -1, 1).to(BF16)
    right = exact(q, k, v, causal=False)
    torchs = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    assert error(kernel.attend(q, k, v, causal=False), right) < 1.2 * error(torchs, right)
    rising = torch.zeros(1, 1, 700, 128, dtype=BF16)
    rising[..., 0] = torch.linspace(-300, 300, 700).to(BF16)  # of which the last keys get all
    ones = torch.ones(1, 1, 700, 128, dtype=BF16) * 8
    found = kernel.attend(ones, rising, ones, causal=False)
    assert torch.equal(found, ones.transpose(1, 2))


def test_a_query_depends_on_nothing_else(kernel: ManyQueriesKernel) -> None:
    q, k, v = heads_of(8, 300, 128, 1), heads_of(2, 300, 128, 2), heads_of(2, 300, 128, 3)
    whole = kernel.attend(q, k, v, causal=True)
    # A prompt in parts, as a prompt of a later question after a picture in the cache.
    for start, end in ((0, 1), (0, 40), (40, 173), (173, 300), (299, 300), (100, 133)):
        part = kernel.attend(q[:, :, start:end], k[:, :, :end], v[:, :, :end], causal=True)
        assert torch.equal(part, whole[:, start:end]), (start, end)
    one = kernel.attend(q[:, 4:8], k[:, 1:], v[:, 1:], causal=True)
    assert torch.equal(one, whole[:, :, 4:])
    # Without keys behind the last one the other function gives the same bits.
    last = kernel.attend(q[:, :, 299:], k, v, causal=False)
    assert torch.equal(last, whole[:, 299:])


def test_threads_and_layouts_do_not_matter(kernel: ManyQueriesKernel) -> None:
    tokens, heads = 577, 3
    qkv = random(2, tokens, 3, heads, 112, dtype=BF16, seed=5)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # views, as in the vision tower
    first = kernel.attend(q, k, v, causal=False)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5, 100):
            torch.set_num_threads(count)
            found = kernel.attend(*(each.contiguous() for each in (q, k, v)), causal=False)
            assert torch.equal(found, first)
    finally:
        torch.set_num_threads(threads)


def test_not_a_number_stays_in_its_query(kernel: ManyQueriesKernel) -> None:
    q, k, v = (heads_of(1, 40, 112, seed) for seed in range(3))
    right = kernel.attend(q, k, v, causal=False)
    q[0, 0, 7, 3] = torch.nan
    found = kernel.attend(q, k, v, causal=False)
    assert found[0, 7].isnan().all()
    found[0, 7] = right[0, 7]
    assert torch.equal(found, right)


def test_memory_is_that_of_one_head(kernel: ManyQueriesKernel) -> None:
    one_head = 9217 * (128 + 112) * 2
    for threads in (1, 2, 64):
        room = kernel.room_bytes(9217, head_dim=112, threads=threads)
        assert room < one_head + 200_000 + threads * (1 << 20)


def backend_for(kernel: ManyQueriesKernel) -> CpuBackend:
    return CpuBackend(has_bf16=True, has_amx=kernel.amx)


def test_it_is_chosen(kernel: ManyQueriesKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_for(kernel)
    found = choose_full_attention(CPU, BF16, backend)
    name, instructions = ("AMX kernel", "AMX") if kernel.amx else ("AVX512 kernel", "AVX512-BF16")
    assert (found.name, found.reason) == (
        name,
        f"our C kernel was built, and the CPU has {instructions}",
    )
    q, k, v = (heads_of(2, 50, 112, seed) for seed in range(3))
    assert torch.equal(found.attend(q, k, v).transpose(1, 2), kernel.attend(q, k, v, causal=False))
    # Heads of other sizes are torch's.
    small = [each[..., :64].contiguous() for each in (q, k, v)]
    assert torch.equal(found.attend(*small), full_attention.reference(*small))
    assert found.causal is not None
    assert found.causal(*small) is None
    single = choose_full_attention(CPU, torch.float32, backend)
    assert (single.name, single.causal) == ("torch SDPA", None)
    monkeypatch.setattr(full_attention, "_is_right", lambda *_: False)
    wrong = choose_full_attention(CPU, BF16, backend)
    other = "torch SDPA" if kernel.amx else "chunked matmul"
    assert (wrong.name, wrong.causal) == (other, None)
    assert "other numbers" in wrong.reason


def test_a_lower_level_switches_it_off(
    kernel: ManyQueriesKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower, other = ("avx512", "torch SDPA") if kernel.amx else ("avx512-vnni", "chunked matmul")
    monkeypatch.setenv(CPU_LEVEL, lower)
    found = choose_full_attention(CPU, BF16, backend_for(kernel))
    assert (found.name, found.causal) == (other, None)
    assert "switched off" in found.reason


def test_a_computer_without_the_c_kernels_multiplies_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> None:
        raise OSError("not built")

    monkeypatch.setattr(full_attention, "open_library", missing)
    found = choose_full_attention(CPU, BF16, CpuBackend(has_bf16=True, has_amx=False))
    assert (found.attend, found.causal, found.reason) == (
        full_attention.chunked,
        None,
        "not built",
    )


@pytest.mark.parametrize("earlier", [0, 60])
def test_prefill_uses_it(kernel: ManyQueriesKernel, earlier: int) -> None:
    causal = choose_full_attention(CPU, BF16, backend_for(kernel)).causal
    q = heads_of(8, 20, 128, 1)
    k, v = (heads_of(2, 20 + earlier, 128, seed) for seed in (2, 3))
    mask = visible_keys(20, 20 + earlier, None, CPU) if earlier else None
    found = grouped_attention(q, k, v, mask, causal=True, several=causal)
    assert torch.equal(found, kernel.attend(q, k, v, causal=True).flatten(2))
    without = grouped_attention(q, k, v, mask, causal=True)
    assert error(found, without.double()) < 0.005
    # With padding the mask says more than `causal`.
    padded = grouped_attention(q, k, v, mask, causal=False, several=causal)
    assert torch.equal(padded, grouped_attention(q, k, v, mask, causal=False))
