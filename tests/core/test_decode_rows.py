"""Several tokens in one decode step: each has the bits that it has alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.model.decoder import DecoderBlock, Routing, Step
from cogvlm2_lite.model.gates import silu_gate, silu_gate_rows
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.model.norms import rms_norm
from cogvlm2_lite.model.operations import choose_operations
from cogvlm2_lite.model.rotary import RopeMode, RotaryTable, inverse_frequencies, rotary_table
from cogvlm2_lite.model.token_attention import choose_token_attention
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.slots import Linear
from cogvlm2_lite.weights.storage.dense import DenseWeight
from tests.helpers.goldens import CHECKPOINT

CPU = torch.device("cpu")


def random(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Layer:
    """One layer of random dense weights, and caches of random keys and values."""

    def __init__(self, dtype: torch.dtype, kind: KVKind, head_dim: int) -> None:
        config = replace(
            read_config(CHECKPOINT),
            hidden_size=4 * head_dim,
            intermediate_size=256,
            num_attention_heads=4,
            num_multi_query_heads=1,
            num_hidden_layers=1,
        )
        self.config, self.dtype, self.kind = config, dtype, kind
        attention = choose_token_attention(CPU, dtype, head_dim)
        operations = choose_operations(CPU, attention.attend, token_kernel=attention.kernel)
        self.block = DecoderBlock(config, 0, operations)
        kernels = choose_kernels(CPU, dtype)
        for number, slot in enumerate(self.block.slots()):
            if isinstance(slot, Linear):
                shape = slot.out_features, slot.in_features
                weight = random(*shape, seed=number, dtype=dtype) * shape[1] ** -0.5
                slot.stored = DenseWeight(weight=weight, kernels=kernels.dense)
            else:
                slot.value = random(*slot.shape, seed=number, dtype=dtype)
        self.table: RotaryTable = rotary_table(
            inverse_frequencies(head_dim), 1024, mode=RopeMode.REFERENCE, dtype=dtype
        )

    def cache(self, length: int) -> KVCache:
        found = KVCache(self.config, batch=1, dtype=self.dtype, devices=[CPU], kind=self.kind)
        found.reserve(length + 40)
        shape = 1, self.config.num_multi_query_heads, length, self.config.head_dim
        if length:
            k, v = (random(*shape, seed=length + n, dtype=self.dtype) for n in (0, 1))
            found.append(0, k, v)
            found.advance(length)
        return found

    def step(self, cache: KVCache, ahead: int) -> Step:
        rotation = self.table.rows(torch.tensor([[cache.length + ahead]]))
        return Step(
            routing=Routing(vision=None),
            rotations=[rotation],
            mask=None,
            causal=False,
            cache=cache,
            ahead=ahead,
        )

    def alone(self, xs: Sequence[Tensor], length: int) -> list[Tensor]:
        """Return the result of each token of one sequence, in a step of its own."""
        cache, found = self.cache(length), []
        for x in xs:
            found.append(self.block(x, self.step(cache, 0)))
            cache.advance(1)
        return found


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("width", [192, 200, 4096, 14336])
@pytest.mark.usefixtures("threads")
def test_norms_and_gates_of_rows_have_the_bits_of_each_row(dtype: torch.dtype, width: int) -> None:
    x, weight = random(33, width, seed=1, dtype=dtype), random(width, seed=2, dtype=dtype)
    normed = [rms_norm(row[None, None], weight, 1e-5) for row in x]
    gated = [silu_gate(row.clone()[None, None], row.flip(0)[None, None]) for row in x]
    for rows in (1, 2, 3, 4, 7, 8, 16, 33):
        assert torch.equal(rms_norm(x[:rows], weight, 1e-5), torch.cat(normed[:rows])[:, 0])
        together = silu_gate_rows(x[:rows].clone(), x[:rows].flip(1))
        assert torch.equal(together, torch.cat(gated[:rows])[:, 0])


@pytest.mark.parametrize("kind", list(KVKind), ids=str)
@pytest.mark.parametrize(
    ("dtype", "head_dim"),
    [(torch.bfloat16, 128), (torch.float32, 128), (torch.float32, 48), (torch.bfloat16, 48)],
    ids=str,
)
@pytest.mark.parametrize(
    "tokens", [[(0, 1)], [(0, 3)], [(254, 4), (17, 1), (511, 2)], [(255, 33)]], ids=str
)
@pytest.mark.usefixtures("threads")
def test_tokens_of_one_step_have_the_bits_that_they_have_alone(
    dtype: torch.dtype, head_dim: int, kind: KVKind, tokens: list[tuple[int, int]]
) -> None:
    """`tokens` are the lengths of the caches, and how many tokens of each come together."""
    layer, xs, steps, expected = Layer(dtype, kind, head_dim), [], [], []
    for length, count in tokens:
        cache = layer.cache(length)
        row = random(1, count, layer.config.hidden_size, seed=length, dtype=dtype)
        some = list(row.split(1, dim=1))
        xs += some
        steps += [layer.step(cache, ahead) for ahead in range(count)]
        expected += layer.alone(some, length)
    found = layer.block.each(xs, steps)
    assert len(found) == len(expected)
    for ours, right in zip(found, expected, strict=True):
        assert ours.shape == right.shape
        assert torch.equal(ours, right)
