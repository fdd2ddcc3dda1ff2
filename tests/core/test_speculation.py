"""Drafts make answers faster and never change them: text, tokens and logprobs are equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import Token, run
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.model.kv_cache import KVCache, KVKind
from quantize.command import main as quantize
from tests.helpers.folders import random_folder
from tests.helpers.goldens import make_chunk
from tests.helpers.graphs import repeat

PLENTY = 1 << 30


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    found = {"bf16": random_folder(root / "bf16")}
    for name, options in (("nf4", []), ("int8", ["--keep", "*=int8"])):
        found[name] = root / name
        command = [str(found["bf16"]), str(found[name]), *options, "--lm-head", name, "--json"]
        assert quantize(command) == 0
    return found


def opened(
    folder: Path,
    *,
    budget: int = PLENTY,
    dtype: str = "bfloat16",
    kv: KVKind = KVKind.FULL,
    context: int | None = None,
    parallel: int = 1,
    speculation: bool = True,
) -> Model:
    return open_model(
        folder,
        compute=choose_compute("cpu", dtype),
        budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=budget)],
        kv=kv,
        context=context,
        parallel=parallel,
        speculation=speculation,
    )


# --- decode steps ---------------------------------------------------------------------------------


def prefilled(model: Model, length: int) -> KVCache:
    ids = (torch.arange(length)[None] * 7) % 90 + 10
    cache = model.runtime.new_cache()
    run(model.runtime.prefill(make_chunk(ids, torch.zeros_like(ids)), None, cache, Cancel()))
    return cache


def one_by_one(model: Model, cache: KVCache, tokens: Sequence[int]) -> list[Tensor]:
    start = cache.length
    return [
        model.runtime.decode_one_token(token, start + number, cache)
        for number, token in enumerate(tokens)
    ]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("kv", list(KVKind))
@pytest.mark.parametrize("kind", ["bf16", "nf4", "int8"])
def test_rows_of_one_conversation_have_the_bits_of_steps_one_by_one(
    folders: dict[str, Path], kind: str, kv: KVKind, recorded: bool
) -> None:
    """Also across the step in which the cache grows, next to other conversations."""
    model = opened(folders[kind], kv=kv)
    # Where graphs are possible a token has a place and reads a window, drafts or not.
    model.runtime.graphs = GraphCache(lambda: repeat) if recorded else None
    first, second = [*range(40, 60)], [71, 72, 73]
    expected = [
        one_by_one(model, prefilled(model, length), tokens)
        for length, tokens in ((248, first), (5, second), (30, [80]))
    ]
    caches = [prefilled(model, length) for length in (248, 5, 30)]
    steps = [
        Token(token=ids[0], draft=tuple(ids[1:]), position=cache.length, cache=cache)
        for ids, cache in zip((first, second, [80]), caches, strict=True)
    ]
    found = run(model.runtime.decode_steps(steps))
    for ours, theirs in zip(found, expected, strict=True):
        assert all(map(torch.equal, ours, theirs))
        assert len(ours) == len(theirs)
    # The caches count the first tokens only; those that are taken are there, and others are not.
    assert [cache.length for cache in caches] == [249, 6, 31]
    caches[0].advance(11)
    going_on = one_by_one(model, caches[0], first[12:])
    assert all(map(torch.equal, going_on, expected[0][12:]))
    caches[1].advance(1)
    other = one_by_one(model, caches[1], [99])
    fresh = prefilled(model, 5)
    one_by_one(model, fresh, second[:2])
    assert torch.equal(other[0], one_by_one(model, fresh, [99])[0])


def test_a_step_with_drafts_replays_no_graph_and_leaves_graphs_valid(
    folders: dict[str, Path],
) -> None:
    model = opened(folders["bf16"])
    model.runtime.graphs = GraphCache(lambda: repeat)
    assert not model.runtime.takes_drafts
    cache = prefilled(model, 20)
    expected = one_by_one(model, prefilled(model, 20), range(40, 48))
    found = one_by_one(model, cache, range(40, 44))
    replays = model.runtime.graphs.replays
    token = Token(token=44, draft=(45, 99), position=24, cache=cache)
    [rows] = run(model.runtime.decode_steps([token]))
    assert model.runtime.graphs.replays == replays
    cache.advance(1)
    found += [*rows[:2], *one_by_one(model, cache, range(46, 48))]
    assert all(map(torch.equal, found, expected))
    assert model.runtime.graphs.replays > replays
    assert replace(token, draft=()).cut(5).draft == ()
