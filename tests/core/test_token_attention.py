"""Attention of a single token: the C kernel gives the reference's result, or is not taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.model.token_attention import choose_token_attention, reference
from cogvlm2_lite.weights.kernels.attention import TokenAttentionKernel
from cogvlm2_lite.weights.kernels.library import AMX, AVX2, AVX512, Library, open_library
from tests.helpers.goldens import CHECKPOINT

CPU = torch.device("cpu")
BF16 = torch.bfloat16


@pytest.fixture
def kernel() -> TokenAttentionKernel:
    try:
        library = open_library()
    except OSError as error:
        pytest.skip(str(error))
    if library.level < AVX512:
        pytest.skip("the CPU has no AVX512-BF16")
    return TokenAttentionKernel(library)


def random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(BF16)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("keys", [1, 2, 5, 255, 256, 257, 1000])
@pytest.mark.parametrize(("batch", "kv_heads", "group"), [(1, 8, 4), (2, 3, 1), (1, 1, 7)])
def test_the_c_kernel_attends_like_the_reference(
    keys: int, batch: int, kv_heads: int, group: int
) -> None:
    chosen = choose_token_attention(CPU, BF16, 128)
    assert chosen.name == "C kernel", chosen.reason
    q = random(batch, kv_heads, group, 128, seed=keys, scale=3.0)
    # A view of a buffer that holds more, as the cache gives it.
    k, v = (random(batch, kv_heads, keys + 9, 128, seed=s)[:, :, :keys] for s in (1, 2))
    exact = reference(q.double(), k.double(), v.double())
    out = chosen.attend(q, k, v, None)
    assert (out.dtype, out.shape) == (BF16, q.shape)
    assert float((out.double() - exact).norm() / exact.norm()) < 0.003


def test_scores_far_apart_neither_overflow_nor_vanish(kernel: TokenAttentionKernel) -> None:
    k = torch.zeros(1, 600, 128, dtype=BF16)
    k[0, 10], k[0, 590] = 60.0, 90.0  # the largest score comes in a later block
    v = random(1, 600, 128, seed=3)
    q = torch.ones(1, 4, 128, dtype=BF16)
    assert torch.equal(kernel.attend(q, k, v), v[:, 590:591].expand(1, 4, 128))
    assert torch.equal(kernel.attend(-q, k, v)[0, 0], kernel.attend(-q, k, v)[0, 3])
    mean = reference(-q.double(), k.double(), v.double())
    assert torch.allclose(kernel.attend(-q, k, v).double(), mean, rtol=0, atol=1e-3)


def test_a_head_does_not_depend_on_its_neighbours_or_on_the_threads(
    kernel: TokenAttentionKernel,
) -> None:
    q, k, v = (random(8, n, 128, seed=seed) for seed, n in enumerate((4, 700, 700)))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = kernel.attend(q, k, v)
        torch.set_num_threads(2)
        assert torch.equal(kernel.attend(q, k, v), alone)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(kernel.attend(q[2:5], k[2:5], v[2:5]), alone[2:5])
    assert torch.equal(kernel.attend(q[:, 1:2], k, v), alone[:, 1:2])


def test_what_the_c_kernel_is_not_for_goes_to_torch() -> None:
    for device, dtype, head_dim in (
        (CPU, torch.float32, 40),
        (CPU, torch.float16, 128),
        (CPU, BF16, 64),
        (torch.device("cuda"), BF16, 128),
    ):
        chosen = choose_token_attention(device, dtype, head_dim)
        assert chosen.attend is reference
        assert chosen.reason


def test_without_the_library_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Library:
        raise OSError("our C kernel was not built")

    monkeypatch.setattr("cogvlm2_lite.model.token_attention.open_library", fail)
    chosen = choose_token_attention(CPU, BF16, 128)
    assert (chosen.attend, chosen.reason) == (reference, "our C kernel was not built")


def test_a_kernel_that_attends_wrongly_is_not_used(
    kernel: TokenAttentionKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenAttentionKernel, "attend", lambda self, q, k, v: q)
    chosen = choose_token_attention(CPU, BF16, 128)
    assert (chosen.name, chosen.attend) == ("torch SDPA", reference)
    assert "other numbers" in chosen.reason


# --- several tokens of one sequence ---------------------------------------------------------------


FLOAT = torch.float32
VERSIONS = [
    (AMX, BF16, 128),
    (AVX512, BF16, 128),
    (AVX2, FLOAT, 128),
    (AVX2, FLOAT, 48),
    (AVX2, FLOAT, 256),
]


def kernel_of(level: int) -> TokenAttentionKernel:
    try:
        library = open_library()
    except OSError as error:
        pytest.skip(str(error))
    if library.level < level:
        pytest.skip(f"the CPU has no level {level}")
    return TokenAttentionKernel(replace(library, level=level))


@pytest.mark.parametrize(("level", "dtype", "head_dim"), VERSIONS, ids=str)
@pytest.mark.parametrize("kind", [KVKind.FULL, KVKind.INT8], ids=str)
@pytest.mark.parametrize("first", [1, 255, 256, 480, 511])
def test_tokens_of_a_sequence_have_the_bits_that_they_have_alone(
    level: int, dtype: torch.dtype, head_dim: int, kind: KVKind, first: int
) -> None:
    kernel = kernel_of(level)
    heads, group, most = 3, 5 if head_dim == 48 else 4, 33
    keys = first + most - 1
    config = replace(
        read_config(CHECKPOINT),
        hidden_size=heads * head_dim,
        num_attention_heads=heads,
        num_multi_query_heads=heads,
        num_hidden_layers=1,
    )
    cache = KVCache(config, batch=1, dtype=dtype, devices=[CPU], kind=kind)
    cache.reserve(keys + 5)
    new_k, new_v = (random(1, heads, keys, head_dim, seed=s).to(dtype) for s in (1, 2))
    k, v = ([t[0] for t in stored] for stored in cache.append_stored(0, new_k, new_v, 0))
    cache.advance(keys)
    wide_k, wide_v = (t[0].double() for t in cache.layer(0))
    q = random(most, heads, group, head_dim, seed=3, scale=2.0).to(dtype)

    def cut(stored: list[Tensor], seen: int) -> list[Tensor]:
        return [each[:, :seen] for each in stored]

    alone = []
    for token in range(most):
        seen = first + token
        alone.append(kernel.attend_tokens(q[token, None], cut(k, seen), cut(v, seen))[0])
        exact = reference(q[token].double(), wide_k[:, :seen], wide_v[:, :seen])
        error = (alone[-1].double() - exact).norm() / exact.norm()
        assert float(error) < (0.003 if dtype == BF16 else 1e-6)
    threads = torch.get_num_threads()
    try:
        for tokens in (1, 2, 3, 8, 16, 32, 33):
            torch.set_num_threads(1 + tokens % 3)
            seen = first + tokens - 1
            found = kernel.attend_tokens(q[:tokens], cut(k, seen), cut(v, seen))
            assert torch.equal(found, torch.stack(alone[:tokens]))
    finally:
        torch.set_num_threads(threads)
