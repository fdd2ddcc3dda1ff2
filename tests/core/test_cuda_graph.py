"""Decode steps that are replayed from a graph give the same answers, or are not replayed.

There is no GPU in most places that run this: a capture that repeats the captured call stands in
for a CUDA graph. It sees what a graph sees: tensors that stay where they were, and the host's
numbers as they were when the step was captured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.backends.base import CaptureGraph, Graph
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import Token, run
from cogvlm2_lite.events import Cancel, Finished
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.sampling import Sampling
from tests.helpers.answers import picture
from tests.helpers.folders import talking_folder
from tests.helpers.goldens import make_chunk
from tests.helpers.graphs import repeat

PLENTY = 1 << 30
TOKENS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_folder(tmp_path_factory.mktemp("models") / "tiny")


def open_with(
    folder: Path,
    capture: CaptureGraph | None,
    *,
    budgets: Sequence[int] = (PLENTY,),
    kv: KVKind = KVKind.FULL,
) -> Model:
    model = open_model(
        folder,
        compute=choose_compute("cpu", "float32"),
        budgets=[
            DeviceBudget(device=f"cpu:{i}", in_ram=True, device_bytes=n)
            for i, n in enumerate(budgets)
        ],
        kv=kv,
    )
    model.runtime.graphs = None if capture is None else GraphCache(lambda: capture)
    return model


def replays(model: Model) -> int:
    assert model.runtime.graphs is not None
    return model.runtime.graphs.replays


def text(model: Model, seed: int = 1) -> str:
    sampling = Sampling(max_new_tokens=TOKENS, repetition_guard=False)
    *_, last = model.answer("What?", picture(seed), sampling=sampling)
    assert isinstance(last, Finished)
    return last.text


def prompt(tokens: int) -> Chunk:
    ids = torch.arange(tokens)[None] % 90 + 10
    return make_chunk(ids, torch.zeros_like(ids))


def scores(model: Model, steps: int, start: int = 250, *, release: bool = False) -> list[Tensor]:
    """Decode the same tokens behind a prompt that ends shortly before the cache grows.

    release  take all weights out before each of them
    """
    chunk = prompt(start)
    cache = model.runtime.new_cache()
    run(model.runtime.prefill(chunk, None, cache, Cancel()))
    found = []
    for step in range(steps):
        if release:
            model.runtime.residency.release()
        found.append(model.runtime.decode_one_token(40 + step, start + step, cache))
    cache.release()
    return found


@pytest.mark.parametrize("kv", list(KVKind))
def test_replayed_answers_are_those_of_ordinary_steps(folder: Path, kv: KVKind) -> None:
    plain, captured = (open_with(folder, capture, kv=kv) for capture in (None, repeat))
    for seed in (1, 2, 1):
        assert text(captured, seed) == text(plain, seed)
    assert replays(captured) > 0


def test_steps_that_are_not_replayed_are_equal_to_the_bit(folder: Path) -> None:
    captured = open_with(folder, repeat)
    expected = scores(captured, 20)
    # 20 steps, of which the cache's growth makes two runs: each begins with two ordinary ones, and
    # the first run with one more, which brings the weights in.
    assert replays(captured) == 20 - 3 - 2
    two_devices = open_with(folder, repeat, budgets=[PLENTY, PLENTY])
    coming_and_going = open_with(folder, repeat)
    for other, found in (
        (two_devices, scores(two_devices, 20)),
        (coming_and_going, scores(coming_and_going, 20, release=True)),
    ):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        assert replays(other) == 0


def test_places_that_are_not_written_yet_change_nothing_but_the_last_bits(folder: Path) -> None:
    plain, captured = open_with(folder, None), open_with(folder, repeat)
    for ours, theirs in zip(scores(captured, 20), scores(plain, 20), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-4)


def test_what_left_the_cache_is_not_replayed_over(folder: Path) -> None:
    captured = open_with(folder, repeat)
    first = scores(captured, 5, start=20)
    assert scores(captured, 5, start=30)[0].shape == first[0].shape
    for ours, theirs in zip(scores(captured, 5, start=20), first, strict=True):
        assert torch.equal(ours, theirs)


def conversations(model: Model, count: int) -> list[Token]:
    """Caches that hold prompts of several lengths, and the next token of each."""
    tokens = []
    for number in range(count):
        chunk, cache = prompt(20 + 7 * number), model.runtime.new_cache()
        run(model.runtime.prefill(chunk, None, cache, Cancel()))
        tokens.append(Token(token=40 + number, position=chunk.tokens, cache=cache))
    return tokens


def follow(tokens: Sequence[Token]) -> list[Token]:
    return [replace(t, token=t.token + 1, position=t.position + 1) for t in tokens]


def test_conversations_that_are_decoded_together_share_a_graph(folder: Path) -> None:
    alone, together = open_with(folder, repeat), open_with(folder, repeat)
    singles, tokens = conversations(alone, 3), conversations(together, 3)
    residency = together.runtime.residency
    for step in range(14):
        count = 3 if step < 7 else 2  # one of them ends
        expected = [
            alone.runtime.decode_one_token(t.token, t.position, t.cache) for t in singles[:count]
        ]
        walked = residency.steps
        found = together.runtime.decode_each(tokens[:count])
        assert all(map(torch.equal, found, expected))
        # The embedding's row and the positions are for each, the blocks and the head for all.
        # A captured step runs three times here: ordinarily, for the capture, and for the check.
        pieces = count + len(together.runtime.parts.decoder.blocks) + 1
        assert residency.steps - walked == count + pieces * (3 if step in (2, 8) else 1)
        singles, tokens = follow(singles), follow(tokens)
    # Each set begins with two ordinary steps, the first one with one more: it brings weights in.
    assert replays(together) == 14 - 3 - 2


def other_numbers(work: Callable[[], Tensor]) -> Graph:
    return Graph(replay=lambda: None, output=work() + 1)


def refuse(work: Callable[[], Tensor]) -> Graph:
    raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")


def out_of_memory(work: Callable[[], Tensor]) -> Graph:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (other_numbers, "a replayed decode step gave different numbers"),
        (refuse, "can't be captured here: operation not permitted when stream is capturing"),
        (out_of_memory, "there is no memory for a graph"),
    ],
)
def test_a_graph_that_does_not_work_is_given_up_with_its_reason(
    folder: Path, capture: CaptureGraph, reason: str
) -> None:
    model = open_with(folder, capture)
    assert text(model) == text(open_with(folder, None))
    assert model.runtime.graphs is not None
    assert reason in model.runtime.graphs.trouble
    assert "\n" not in model.runtime.graphs.trouble
    assert replays(model) == 0


@pytest.mark.cuda
def test_a_decode_step_on_a_gpu_never_waits_and_is_replayed(folder: Path) -> None:
    from cogvlm2_lite import load

    model = load(folder, device="cuda")
    cache = model.runtime.new_cache()
    run(model.runtime.prefill(prompt(20), None, cache, Cancel()))
    found = []
    for step in range(12):
        if step == 4:
            torch.cuda.set_sync_debug_mode("error")
        found.append(model.runtime.decode_one_token(40 + step, 20 + step, cache))
    torch.cuda.set_sync_debug_mode("default")
    assert model.runtime.graphs is not None
    assert model.runtime.graphs.trouble == ""
    assert replays(model) > 6
    model.runtime.graphs = GraphCache(lambda: refuse)
    cache.truncate(20)
    for step, expected in enumerate(found):
        again = model.runtime.decode_one_token(40 + step, 20 + step, cache)
        assert torch.equal(again, expected)
