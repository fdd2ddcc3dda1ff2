"""What a decode step launches on a GPU, and the attention that only a GPU computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.engine.runtime import run
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.model.decoder import DecoderBlock, Step
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.model.token_attention import (
    HIDDEN,
    choose_token_attention,
    key_bias,
    reference,
    split_keys,
)
from cogvlm2_lite.weights.adapter import read_adapter
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from tests.emulated_cuda import operators
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Machine, Order
from tests.emulated_cuda.operators import efficient_attention
from tests.emulated_cuda.test_engine import opened
from tests.helpers.adapters import random_adapter
from tests.helpers.folders import random_folder
from tests.helpers.goldens import make_chunk

CUDA = torch.device("cuda:0")


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# --- attention over parts of the keys -------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [(torch.float32, 5e-6), (torch.bfloat16, 4e-3), (torch.float16, 6e-4)],
    ids=str,
)
@pytest.mark.parametrize("keys", [256, 512, 2304, 2560, 4096, 4352, 8192])
def test_parts_of_the_keys_give_the_attention_of_all(
    keys: int, dtype: torch.dtype, limit: float
) -> None:
    q = random(1, 2, 4, 128, seed=keys, dtype=dtype) * 3
    # A view of a buffer that holds more, as the cache has it.
    k, v = (random(1, 2, keys + 256, 128, seed=s, dtype=dtype)[:, :, :keys] for s in (1, 2))
    with emulated_cuda():
        there = (q.to(CUDA), k.to(CUDA), v.to(CUDA))
        for slot in (0, 1, 127, 128, keys - 200, keys - 1):
            mask = key_bias(torch.tensor([slot], device=CUDA), keys, dtype)
            out = split_keys(*there, mask).cpu()
            seen = slice(0, slot + 1)
            exact = reference(q.double(), k[:, :, seen].double(), v[:, :, seen].double())
            assert (out.dtype, out.shape) == (dtype, q.shape)
            assert float((out.double() - exact).norm() / exact.norm()) < limit


@pytest.mark.parametrize("keys", [1, 200, 300, 2500, 8191])
def test_a_cache_that_was_cut_gives_the_bits_of_a_whole_one(keys: int) -> None:
    """A cache ends at its limit: `--context` must not change an answer."""
    whole = -(-keys // 256) * 256
    dtype = torch.bfloat16
    with emulated_cuda():
        q = random(1, 2, 4, 64, seed=1, dtype=dtype).to(CUDA)
        k, v = (random(1, 2, whole, 64, seed=s, dtype=dtype).to(CUDA) for s in (2, 3))
        slot = torch.tensor([keys - 1], device=CUDA)
        expected = split_keys(q, k, v, key_bias(slot, whole, dtype))
        cut = split_keys(q, k[:, :, :keys], v[:, :, :keys], key_bias(slot, keys, dtype))
        assert torch.equal(cut.cpu(), expected.cpu())


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    k = torch.zeros(1, 1, 512, 128, dtype=torch.bfloat16)
    k[:, :, 10], k[:, :, 400] = 60.0, 90.0  # the largest score comes in a later part
    v = random(1, 1, 512, 128, seed=3, dtype=torch.bfloat16)
    q = torch.ones(1, 1, 4, 128, dtype=torch.bfloat16)
    with emulated_cuda():
        q, k, there = (each.to(CUDA) for each in (q, k, v))
        mask = key_bias(torch.tensor([511], device=CUDA), 512, torch.bfloat16)
        assert torch.equal(split_keys(q, k, there, mask).cpu(), v[:, :, 400:401].expand(q.shape))


def test_other_masks_and_batches_go_to_torch() -> None:
    q, k, v = (random(2, 2, n, 64, seed=n) for n in (4, 256, 256))
    seen = torch.ones(2, 1, 1, 256, dtype=torch.bool)
    seen[0, ..., :100] = False
    with emulated_cuda() as machine:
        there = (q.to(CUDA), k.to(CUDA), v.to(CUDA))
        out = split_keys(*there, seen.to(CUDA)).cpu()
        assert not any("efficient" in name for name in machine.launches)
    assert torch.equal(out, reference(q, k, v, seen))


def test_a_hidden_key_gets_no_share_in_any_type() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        scores = torch.tensor([80.0, HIDDEN - 80.0]).to(dtype).float()
        assert torch.softmax(scores, 0).tolist() == [1.0, 0.0]


Parts = tuple[Tensor, ...]


def without_mask(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sums: bool) -> Parts:
    return efficient_attention(q, k, v, torch.zeros_like(bias), sums)


def without_scale(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sums: bool) -> Parts:
    return efficient_attention(q, k, v, bias, sums, scale=1.0)


def with_binary_logarithms(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sums: bool) -> Parts:
    out, logarithms, *rest = efficient_attention(q, k, v, bias, sums)
    return out, logarithms / 0.6931, *rest


def with_sums_of_other_heads(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sums: bool) -> Parts:
    out, logarithms, *rest = efficient_attention(q, k, v, bias, sums)
    return out, logarithms.flip(1), *rest


def without_numbers_where_all_is_hidden(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sums: bool
) -> Parts:
    out, *rest = efficient_attention(q, k, v, bias, sums)
    hidden = (bias < HIDDEN / 2).all(3, keepdim=True)
    return out.masked_fill(hidden, float("nan")), *rest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "wrong",
    [
        without_mask,
        without_scale,
        with_binary_logarithms,
        with_sums_of_other_heads,
        without_numbers_where_all_is_hidden,
    ],
)
def test_another_version_of_the_kernel_is_noticed(
    wrong: Callable[..., Parts], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "efficient_attention", wrong)
    with emulated_cuda():
        for head_dim in (128, 16):
            chosen = choose_token_attention(CUDA, dtype, head_dim)
            assert chosen.attend is reference
            assert "other numbers" in chosen.reason


def test_the_choice_is_tested_and_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated_cuda():
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            chosen = choose_token_attention(CUDA, dtype, 128)
            assert (chosen.name, chosen.attend) == ("split keys", split_keys)
        monkeypatch.setattr(
            "cogvlm2_lite.model.token_attention.split_keys", lambda q, k, v, mask: q
        )
        chosen = choose_token_attention(CUDA, torch.bfloat16, 128)
        assert (chosen.name, chosen.attend) == ("torch SDPA", reference)
        assert "other numbers" in chosen.reason

        def fail(*_: Tensor) -> Tensor:
            raise RuntimeError("no kernel found\nstack")

        monkeypatch.setattr("cogvlm2_lite.model.token_attention.split_keys", fail)
        chosen = choose_token_attention(CUDA, torch.bfloat16, 128)
        assert chosen.attend is reference
        assert chosen.reason.endswith("does not work here: no kernel found")


# --- launches -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("models") / "random", layers=2)


def read_words(model: Model) -> KVCache:
    """Return a cache with four words."""
    cache, ids = model.runtime.new_cache(), torch.tensor([[1, 2, 3, 4]])
    run(model.runtime.prefill(make_chunk(ids, torch.zeros_like(ids)), None, cache, Cancel()))
    return cache


@pytest.mark.parametrize(("kv", "most"), [(KVKind.FULL, 22), (KVKind.INT8, 42), (KVKind.INT4, 146)])
def test_a_layer_of_a_decode_step_launches_few_kernels(
    folder: Path, kv: KVKind, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Counter[str]] = []

    def counted(machine: Machine) -> Iterator[None]:
        run_block = DecoderBlock.__call__

        def count(block: DecoderBlock, x: Tensor, step: Step) -> Tensor:
            before = Counter(machine.launches)
            out = run_block(block, x, step)
            found.append(machine.launches - before)
            return out

        with monkeypatch.context() as patch:
            patch.setattr(DecoderBlock, "__call__", count)
            yield

    with emulated_cuda() as machine:
        model = opened(folder, kv=kv)
        cache = read_words(model)
        model.runtime.decode_one_token(3, 4, cache)  # loads lm_head
        for _ in counted(machine):
            model.runtime.decode_one_token(3, 5, cache)
    kernels = [Counter({name: n for name, n in each.items() if is_kernel(name)}) for each in found]
    assert [each.total() for each in kernels] == [most] * 2, kernels


def is_kernel(name: str) -> bool:
    """Return whether an operation computes something: views and empty tensors do not."""
    if not name.startswith("aten."):
        return True
    operator, overload = name.removeprefix("aten.").split(".")
    function = getattr(getattr(torch.ops.aten, operator), overload)
    return not function.is_view and operator not in ("empty", "_unsafe_view", "reshape")


def test_a_picture_needs_no_convolution_and_no_attention_of_cudnn(folder: Path) -> None:
    size = read_config(folder).vision.image_size
    pixels = random(1, 3, size, size, seed=5)
    torch.backends.cuda.enable_cudnn_sdp(True)
    with emulated_cuda(order=Order.LATE) as machine:
        model = opened(folder)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        features = run(model.runtime.encode(pixels, Cancel())).cpu()
        assert not any("convolution" in name for name in machine.launches)
    assert features.isfinite().all()


def test_an_adapter_behind_the_picture_waits_for_nothing(folder: Path, tmp_path: Path) -> None:
    """Its rows are counted on the host: a mask on a GPU would be counted for each matrix."""
    made = random_adapter(tmp_path, folder, seed=1, acts_on=BEHIND_PICTURE)
    adapter = read_adapter(made, read_config(folder))
    types = torch.tensor([[0, 1, 1, 1, 0, 0, 0]])
    chunk = make_chunk(torch.arange(1, 8)[None], types)
    waits = {}
    with emulated_cuda() as machine:
        model = opened(folder, adapters=(adapter,))
        hidden = {}
        for name in (adapter.name, None, adapter.name):  # the first one loads weights
            cache = model.runtime.new_cache()
            features = torch.zeros(1, 3, model.config.hidden_size, device=CUDA)
            before = Counter(machine.syncs)
            hidden[name] = run(model.runtime.prefill(chunk, features, cache, Cancel(), name))
            waits[name] = machine.syncs - before
        ours, base = (hidden[name].cpu() for name in (adapter.name, None))
    assert waits[adapter.name].keys() == waits[None].keys()
    assert waits[adapter.name].total() <= waits[None].total() + 3  # rows: all, and each expert's
    assert torch.equal(ours[:, :4], base[:, :4])
    assert not torch.isclose(ours[:, 4:].float(), base[:, 4:].float()).all()
