"""Several answers at a time are the answers that each gets alone, whatever else is running."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.demo.shipped import checkpoint_folder, sample_pictures
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import Token, run
from cogvlm2_lite.engine.scheduler import PREFILL_S, Engine, EventOrError
from cogvlm2_lite.errors import DeviceError, DoesNotFitError, PromptTooLongError, UsageError
from cogvlm2_lite.events import (
    Cancel,
    Finished,
    FinishReason,
    Prefilled,
    Progress,
    Replanned,
    TextDelta,
)
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.sampling import Sampling
from quantize.command import main as quantize
from tests.helpers.answers import picture
from tests.helpers.arenas import FailingArena
from tests.helpers.folders import random_folder
from tests.helpers.goldens import make_chunk
from tests.helpers.graphs import repeat

PLENTY = 1 << 30
KINDS = ("bf16", "nf4", "int8")
SHORT = 120
"""Tokens of context where weights are streamed: reading a longer prompt would need so much memory
that nothing of these small models had to be streamed for a token."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    found = {"bf16": random_folder(root / "bf16"), "deep": random_folder(root / "deep", layers=16)}
    for name, source, kind, options in (
        ("nf4", "bf16", "nf4", []),
        ("int8", "bf16", "int8", ["--keep", "*=int8"]),
        ("deep nf4", "deep", "nf4", []),
    ):
        found[name] = root / name
        command = [str(found[source]), str(found[name]), *options, "--lm-head", kind, "--json"]
        assert quantize(command) == 0
    return found


def open_with(
    folder: Path,
    parallel: int,
    *budgets: int,
    dtype: str = "bfloat16",
    kv: KVKind = KVKind.FULL,
    context: int | None = None,
    arenas: Sequence[Arena] | None = None,
    speculation: bool = True,
) -> Model:
    named = [
        DeviceBudget(device=f"cpu:{i}", in_ram=True, device_bytes=n)
        for i, n in enumerate(budgets or (PLENTY,))
    ]
    return open_model(
        folder,
        compute=choose_compute("cpu", dtype),
        budgets=named,
        kv=kv,
        context=context,
        parallel=parallel,
        arenas=arenas,
        speculation=speculation,
    )


def request(number: int, tokens: int = 12) -> Request:
    """A question of one of many kinds."""
    chance = random.Random(number)
    seed = chance.choice([None, None, 1, 2])
    past = [("a?", "first"), ("b?", "second one")][: chance.randrange(3)]
    random_one = chance.random() < 0.5
    return Request(
        question=f"What is {number}?",
        image=None if seed is None else open_image(picture(seed)),
        history=past,
        continue_from=chance.choice(["", "", "as I said"]),
        sampling=Sampling(
            max_new_tokens=chance.randrange(1, tokens),
            temperature=1.5 if random_one else 0.0,
            seed=number if random_one else None,
            repetition_penalty=chance.choice([1.0, 1.3]),
            frequency_penalty=chance.choice([0.0, 0.5]),
        ),
    )


@dataclass
class Emitted:
    """What became of some questions."""

    outcomes: dict[int, list[EventOrError]]
    order: list[tuple[int, EventOrError]]

    def text(self, number: int) -> str:
        last = self.outcomes[number][-1]
        assert isinstance(last, Finished), last
        shown = "".join(e.text for e in self.outcomes[number] if isinstance(e, TextDelta))
        assert shown == last.text
        return last.text

    def end(self, number: int) -> Finished:
        last = self.outcomes[number][-1]
        assert isinstance(last, Finished), last
        return last


def in_step(engine: Engine) -> Engine:
    """Let the clock stand: every turn reads a whole prompt and then runs one decode step."""
    engine.clock = lambda: 0.0
    return engine


def answer_all(
    engine: Engine, requests: Sequence[Request], chance: random.Random | None = None
) -> Emitted:
    """Ask all of them, each as soon as a slot is free, or with `chance` at some later turn."""
    waiting = list(enumerate(requests))
    told = Emitted({number: [] for number, _ in waiting}, [])
    while waiting or engine.busy:
        while waiting and not engine.full:
            if chance is not None and engine.busy and chance.random() < 0.7:
                break
            engine.begin(*waiting.pop(0), Cancel())
        for number, outcome in engine.turn():
            told.outcomes[number].append(outcome)
            told.order.append((number, outcome))
    return told


def alone(model: Model, requests: Sequence[Request]) -> list[str]:
    texts = []
    for each in requests:
        *_, last = model.engine.answer(each, Cancel())
        assert isinstance(last, Finished)
        texts.append(last.text)
    return texts


@cache
def smallest(folder: Path, parallel: int, devices: int = 1) -> int:
    """The smallest budget per device that so many conversations can be planned for."""
    low, high = 0, PLENTY
    while high - low > 1:
        middle = (low + high) // 2
        try:
            model = open_with(folder, parallel, *[middle] * devices, context=SHORT)
            fits = model.plan.parallel == parallel
        except DoesNotFitError:
            fits = False
        low, high = (low, middle) if fits else (middle, high)
    return high


either_pace = pytest.mark.parametrize(
    "prefill_s", [0.0, PREFILL_S], ids=["a block at a time", "as shipped"]
)


# --- equal to the bit -----------------------------------------------------------------------------


def prefilled(model: Model, lengths: Sequence[int]) -> list[Token]:
    """Caches that hold texts of some lengths, and the next token of each."""
    tokens = []
    for number, length in enumerate(lengths):
        ids = (torch.arange(length)[None] * (7 + number)) % 90 + 10
        cache = model.runtime.new_cache()
        run(model.runtime.prefill(make_chunk(ids, torch.zeros_like(ids)), None, cache, Cancel()))
        tokens.append(Token(token=40 + number, position=length, cache=cache))
    return tokens


def decoded(model: Model, steps: int, *, each: bool, longest: int = 255) -> list[list[Tensor]]:
    tokens = prefilled(model, [3, longest - 5, 17, 40, longest])
    found = []
    for _ in range(steps):
        if each:
            scores = model.runtime.decode_each(tokens)
        else:
            scores = [model.runtime.decode_one_token(t.token, t.position, t.cache) for t in tokens]
        found.append(scores)
        tokens = [
            replace(t, token=int(s.argmax()), position=t.position + 1)
            for t, s in zip(tokens, scores, strict=True)
        ]
    return found


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("kind", "kv"),
    [
        *itertools.product([*KINDS, "demo"], [KVKind.FULL, KVKind.INT8]),
        ("demo", KVKind.INT4),
    ],
)
def test_scores_of_tokens_that_are_run_together_are_equal_to_the_bit(
    folders: dict[str, Path], kind: str, dtype: str, kv: KVKind, recorded: bool
) -> None:
    folder = folders.get(kind, checkpoint_folder())
    model = open_with(folder, 5, dtype=dtype, kv=kv)
    model.runtime.graphs = GraphCache(lambda: repeat) if recorded else None
    expected = decoded(model, 8, each=False)
    for ours, theirs in zip(decoded(model, 8, each=True), expected, strict=True):
        assert all(map(torch.equal, ours, theirs))
    if recorded:
        assert model.runtime.graphs is not None
        assert model.runtime.graphs.replays > 10


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("kind", ["deep", "deep nf4"])
def test_scores_are_equal_to_the_bit_with_streamed_weights_and_several_devices(
    folders: dict[str, Path], kind: str, devices: int, recorded: bool
) -> None:
    model = open_with(folders[kind], 5)
    model.runtime.graphs = GraphCache(lambda: repeat) if recorded else None
    expected = decoded(model, 4, each=False, longest=100)
    least = smallest(folders[kind], 5, devices)
    tight = open_with(folders[kind], 5, *[least] * devices, context=SHORT)
    tight.runtime.graphs = GraphCache(lambda: repeat) if recorded else None
    assert tight.plan.devices[0].phase(Phase.DECODE).streamed
    for ours, theirs in zip(decoded(tight, 4, each=True, longest=100), expected, strict=True):
        assert all(map(torch.equal, ours, theirs))


# --- whole answers --------------------------------------------------------------------------------


@either_pace
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_answers_under_way_at_once_are_the_answers_alone(
    folders: dict[str, Path], kind: str, seed: int, prefill_s: float
) -> None:
    chance = random.Random(seed)
    requests = [request(chance.randrange(40)) for _ in range(9)]
    expected = alone(open_with(folders[kind], 1), requests)
    assert len(set(expected)) > 4
    engine = open_with(folders[kind], chance.randrange(2, 6)).engine
    engine.prefill_s = prefill_s
    told = answer_all(engine, requests, chance)
    assert [told.text(n) for n in range(9)] == expected


@either_pace
@pytest.mark.parametrize("devices", [1, 2])
def test_answers_under_way_at_once_are_the_answers_alone_with_streamed_weights(
    folders: dict[str, Path], devices: int, prefill_s: float
) -> None:
    folder = folders["deep nf4"]
    requests = [request(number) for number in range(8)]
    expected = alone(open_with(folder, 1, context=SHORT), requests)
    least = smallest(folder, 4, devices)
    most = open_with(folder, 4, context=SHORT).plan.peak_bytes
    streams = 0
    for share in (0.0, 0.4):
        budget = int(least + share * (most - least) / devices)
        arenas = [Arena() for _ in range(devices)]
        model = open_with(folder, 4, *[budget] * devices, context=SHORT, arenas=arenas)
        streams += bool(model.plan.devices[0].phase(Phase.DECODE).streamed)
        model.engine.prefill_s = prefill_s
        told = answer_all(model.engine, requests, random.Random(1))
        assert [told.text(n) for n in range(8)] == expected
        assert not any(isinstance(e, Replanned) for _, e in told.order)
        assert all(arena.peak_bytes <= budget for arena in arenas)
    assert streams


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_demo_model_answers_six_pictures_at_once_as_one_by_one(dtype: str) -> None:
    requests = [
        Request(question=question, image=open_image(sample.path))
        for sample in sample_pictures()
        for question in ("What is in the picture?", "What is written on the sign?")
    ]
    expected = alone(open_with(checkpoint_folder(), 1, dtype=dtype), requests)
    told = answer_all(open_with(checkpoint_folder(), 6, dtype=dtype).engine, requests)
    assert [told.text(n) for n in range(len(requests))] == expected


def test_one_pass_over_streamed_weights_serves_all(folders: dict[str, Path]) -> None:
    sampling = Sampling(max_new_tokens=40, repetition_guard=False)
    requests = [Request(question="Go on", sampling=sampling) for _ in range(4)]
    folder = folders["deep nf4"]
    budget = smallest(folder, 4)

    def streamed(*asked: Request) -> int:
        # Drafts would save passes, and not as many next to other answers.
        model = open_with(folder, 4, budget, context=SHORT, speculation=False)
        answer_all(in_step(model.engine), asked)
        return model.runtime.residency.streamed_bytes

    assert streamed(requests[0]) == streamed(*requests)


def test_one_pass_over_streamed_weights_serves_all_pictures(folders: dict[str, Path]) -> None:
    short = Sampling(max_new_tokens=3)
    images = [open_image(picture(seed)) for seed in (1, 2, 3)]
    requests = [Request(question="What?", image=image, sampling=short) for image in images]
    folder = folders["nf4"]
    budget = smallest(folder, 4) + 20_000

    def ask(*asked: Request) -> tuple[int, Emitted]:
        model = open_with(folder, 4, budget, context=SHORT)
        told = answer_all(in_step(model.engine), asked)
        return model.runtime.residency.streamed_bytes, told

    one, _ = ask(requests[0])
    three, told = ask(*requests)
    assert 0 < three < 1.2 * one
    assert [told.text(n) for n in range(3)] == alone(open_with(folder, 1), requests)


# --- taking turns ---------------------------------------------------------------------------------

TALK = Sampling(max_new_tokens=200, repetition_guard=False)


def test_others_go_on_while_a_picture_is_looked_at(folders: dict[str, Path]) -> None:
    engine = open_with(folders["nf4"], 2).engine
    engine.prefill_s = 0.0
    engine.begin(1, Request(question="Talk", sampling=TALK), Cancel())
    while not any(isinstance(outcome, TextDelta) for _, outcome in engine.turn()):
        continue
    seen = Request(question="?", image=open_image(picture(1)), sampling=Sampling(max_new_tokens=1))
    engine.begin(2, seen, Cancel())
    told: list[tuple[int, Any]] = []
    while not any(number == 2 and isinstance(e, Finished) for number, e in told):
        told += engine.turn()
    blocks = [i for i, (number, e) in enumerate(told) if number == 2 and isinstance(e, Progress)]
    assert len(blocks) >= 10
    for before, after in itertools.pairwise(blocks):
        assert any(number == 1 for number, _ in told[before:after])
    engine.close()


def test_prompts_are_read_one_at_a_time_in_the_order_they_came(folders: dict[str, Path]) -> None:
    engine = open_with(folders["nf4"], 3).engine
    asked = [Request(question="?", image=open_image(picture(seed))) for seed in (1, 2, 3)]
    read = [n for n, e in answer_all(engine, asked).order if isinstance(e, Progress)]
    assert read == sorted(read)


def test_a_cancelled_answer_frees_its_seat_within_one_token(folders: dict[str, Path]) -> None:
    engine = open_with(folders["nf4"], 2).engine
    requests = [Request(question="Talk", sampling=TALK), request(3)]
    expected = alone(open_with(folders["nf4"], 1), requests[1:])
    cancel = Cancel()
    engine.begin(0, requests[0], cancel)
    engine.begin(1, requests[1], Cancel())
    told: list[tuple[int, Any]] = []
    while sum(number == 0 for number, _ in told) < 15:
        told += engine.turn()
    assert engine.full or any(n == 1 and isinstance(e, Finished) for n, e in told)
    cancel.set()
    last = list(engine.turn())
    (end,) = [e for n, e in last if n == 0]
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.CANCELLED
    assert not engine.full
    told += last
    while engine.busy:
        told += engine.turn()
    texts = [e.text for n, e in told if n == 1 and isinstance(e, Finished)]
    assert texts == expected


def test_a_cancelled_prompt_that_waits_or_is_half_read_ends_at_once(
    folders: dict[str, Path],
) -> None:
    engine = open_with(folders["nf4"], 3).engine
    engine.prefill_s = 0.0
    cancels = [Cancel() for _ in range(3)]
    for number, cancel in enumerate(cancels):
        engine.begin(number, Request(question="?", image=open_image(picture(number))), cancel)
    while not any(isinstance(e, Progress) for n, e in engine.turn() if n == 0):
        continue
    for number in (2, 0):
        cancels[number].set()
        told = list(engine.turn())
        assert [n for n, _ in told] == [number]
        assert isinstance(told[0][1], Finished)
        assert told[0][1].reason is FinishReason.CANCELLED
    assert isinstance(next(iter(engine.turn()))[1], Progress)
    engine.close()
    assert not engine.busy


def test_a_conversation_finds_its_past_though_others_came_between(
    folders: dict[str, Path],
) -> None:
    engine = open_with(folders["nf4"], 2).engine
    image = open_image(picture(1))
    picture_talk = Request(question="One?", image=image, sampling=Sampling(max_new_tokens=2))
    plain_talk = replace(picture_talk, image=None)
    for talk in (picture_talk, plain_talk):
        answer_all(engine, [talk])
    engine.pictures.clear()
    past = [("One?", "an answer")]
    for turn in range(2):
        for talk, least in ((picture_talk, 12), (plain_talk, 0)):
            again = replace(talk, question="Two?", history=past * (turn + 1))
            told = answer_all(engine, [again]).outcomes[0]
            (prefilled,) = [e for e in told if isinstance(e, Prefilled)]
            # Of a text alone nothing is known before its first turn is past.
            assert prefilled.reused_tokens >= least + 8 * turn


def test_more_questions_than_seats_are_refused_and_too_long_ones_take_none(
    folders: dict[str, Path],
) -> None:
    model = open_with(folders["nf4"], 2)
    engine = model.engine
    with pytest.raises(PromptTooLongError):
        engine.begin(7, Request(question="word " * 9000), Cancel())
    for number in range(2):
        engine.begin(number, request(number), Cancel())
    with pytest.raises(UsageError, match="other questions"):
        engine.begin(2, request(2), Cancel())
    with pytest.raises(UsageError, match="another question"):
        next(model.answer("And this?"))
    engine.close()
    assert list(model.answer("And this?", sampling=Sampling(max_new_tokens=2)))


# --- trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_memory_that_runs_out_anywhere_changes_no_answer_of_several(
    folders: dict[str, Path], share: float
) -> None:
    folder = folders["nf4"]
    requests = [
        Request(question=f"{n}?", image=image, sampling=Sampling(max_new_tokens=3 + n))
        for n, image in enumerate((open_image(picture(1)), None, None))
    ]

    def engine(*arenas: Arena) -> Engine:
        return in_step(open_with(folder, 3, budget, context=SHORT, arenas=arenas).engine)

    low, full = smallest(folder, 3), open_with(folder, 3, context=SHORT).plan.peak_bytes
    budget = int(low + (full - low) * share)
    counting = FailingArena()
    expected = answer_all(engine(counting), requests)
    texts = [expected.text(n) for n in range(3)]
    assert texts == alone(open_with(folder, 1), requests)
    shared = 0
    for fail_at in range(1, counting.requests + 1, 5):
        failing = engine(FailingArena(fail_at))
        told = answer_all(failing, requests)
        assert [told.text(n) for n in range(3)] == texts
        shared += sum(isinstance(e, Replanned) for _, e in told.order) > 1
        assert answer_all(failing, requests).text(1) == texts[1]
    assert shared > 0, "it never ran out in a step of several answers"


def test_a_lost_gpu_ends_all_answers_with_the_reason(folders: dict[str, Path]) -> None:
    class Lost(FailingArena):
        def take(self, nbytes: int) -> None:
            self.requests += nbytes > 0
            if self.requests > 60:
                raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile ...")
            Arena.take(self, nbytes)

    engine = open_with(folders["nf4"], 3, arenas=[Lost()]).engine
    talk = Request(question="Talk", sampling=TALK)
    told = answer_all(engine, [talk, talk, talk])
    for number in range(3):
        assert isinstance(told.outcomes[number][-1], DeviceError)
    assert not engine.busy


class Unchecked(Sampling):
    """Settings that nothing has checked: a bug in a caller."""

    def __post_init__(self) -> None:
        pass


def test_a_fault_in_one_answer_leaves_the_others_alone(folders: dict[str, Path]) -> None:
    requests = [request(number) for number in range(3)]
    expected = alone(open_with(folders["nf4"], 1), requests)
    engine = open_with(folders["nf4"], 4).engine
    # The random number generator, which is made after prefill, refuses this seed.
    bad = Request(question="Bad", sampling=Unchecked(temperature=1.0, seed="x"))  # type: ignore[arg-type]
    told = answer_all(engine, [bad, *requests])
    assert "manual_seed" in str(told.outcomes[0][-1])
    assert isinstance(told.outcomes[0][-1], RuntimeError)
    assert any(isinstance(event, Prefilled) for event in told.outcomes[0])
    assert [told.text(n) for n in (1, 2, 3)] == expected
