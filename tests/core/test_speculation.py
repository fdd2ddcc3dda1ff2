"""Drafts make answers faster and never change them: text, tokens and logprobs are equal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import Token, run
from cogvlm2_lite.events import (
    Cancel,
    Event,
    Finished,
    FinishReason,
    Notice,
    Replanned,
    TextDelta,
)
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.sampling import Sampling
from quantize.command import main as quantize
from tests.core.test_scheduler import SHORT, answer_all, in_step, smallest
from tests.helpers.adapters import random_adapter
from tests.helpers.answers import picture
from tests.helpers.arenas import FailingArena
from tests.helpers.drafts import Oracle, use
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
    arenas: Sequence[Arena] | None = None,
) -> Model:
    return open_model(
        folder,
        compute=choose_compute("cpu", dtype),
        budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=budget)],
        kv=kv,
        context=context,
        parallel=parallel,
        speculation=speculation,
        arenas=arenas,
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


# --- whole answers --------------------------------------------------------------------------------

TOKENS = 24
QUESTION = "Go?"


def told(events: Iterable[Event]) -> tuple[list[Event], Finished]:
    """What a reader sees: pieces with their logprobs, notices, and the end without times."""
    seen: list[Event] = [e for e in events if isinstance(e, TextDelta | Notice | Finished)]
    last = seen.pop()
    assert isinstance(last, Finished)
    still = dict.fromkeys(("encode_s", "prefill_s", "decode_s"), 0.0)
    counts = dict.fromkeys(("decode_passes", "draft_tokens", "accepted_tokens"), 0)
    return seen, structs.replace(last, **still, **counts)


def ask(model: Model, sampling: Sampling, **more: Any) -> tuple[list[Event], Finished]:
    return told(model.answer(QUESTION, picture(1), [("a?", "b")], sampling=sampling, **more))


FREE = Sampling(max_new_tokens=TOKENS, repetition_guard=False)
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"number": {"enum": [1, 2]}, "kind": {"enum": ["invoice", "receipt"]}},
        "required": ["number", "kind"],
        "additionalProperties": False,
    }
)
CASES = {
    "greedy": FREE,
    "logprobs": replace(FREE, logprobs=3),
    "guarded": replace(FREE, repetition_guard=True),
    "sampled": replace(FREE, temperature=1.2, seed=3, logprobs=0),
    "top": replace(FREE, temperature=0.9, seed=4, top_k=20, top_p=0.8),
    "penalties": replace(
        FREE, temperature=1.0, seed=5, repetition_penalty=1.3, frequency_penalty=0.5,
        presence_penalty=0.4,
    ),
    "greedy penalties": replace(FREE, repetition_penalty=1.2, frequency_penalty=0.3),
    "one token": replace(FREE, max_new_tokens=1),
    "few tokens": replace(FREE, max_new_tokens=7),
    "object": replace(FREE, json_object=True, temperature=1.0, seed=2),
    "schema": replace(FREE, json_schema=SCHEMA),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> Model:
    return opened(folders["nf4"], speculation=False)


@pytest.fixture(scope="module")
def drafting(folders: dict[str, Path]) -> Model:
    return opened(folders["nf4"])


@pytest.mark.parametrize(
    ("case", "wrong"),
    [(case, "some") for case in CASES]
    + [(case, wrong) for case in ("sampled", "schema") for wrong in ("none", "all", "strange")],
)
def test_answers_are_equal_whatever_is_drafted(
    plain: Model, drafting: Model, case: str, wrong: str
) -> None:
    expected, model = ask(plain, CASES[case]), drafting
    use(model, expected[1].token_ids, wrong)
    assert ask(model, CASES[case]) == expected
    # Nothing of a draft stays in the cache, which the next question of the conversation uses.
    (slot,) = model.engine.slots
    assert slot.generated is not None
    assert slot.cache.length == len(slot.generated.prompt) + len(slot.generated.tokens)
    assert tuple(slot.generated.tokens) == expected[1].token_ids[: len(slot.generated.tokens)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kv", list(KVKind))
@pytest.mark.parametrize("kind", ["bf16", "nf4", "int8"])
def test_every_kind_of_weights_and_cache_gives_equal_answers(
    folders: dict[str, Path], kind: str, kv: KVKind, dtype: str
) -> None:
    plain = opened(folders[kind], kv=kv, dtype=dtype, speculation=False)
    sampling = replace(FREE, logprobs=1)
    expected = ask(plain, sampling)
    model = opened(folders[kind], kv=kv, dtype=dtype)
    use(model, expected[1].token_ids, "some")
    assert ask(model, sampling) == expected


def last_event(events: Iterable[Event]) -> Finished:
    *_, last = events
    assert isinstance(last, Finished)
    return last


def test_right_drafts_save_passes_and_wrong_ones_are_counted(folders: dict[str, Path]) -> None:
    model = opened(folders["nf4"])
    in_step(model.engine)
    off, sampling = opened(folders["nf4"], speculation=False), replace(FREE, max_new_tokens=40)
    alone = last_event(off.answer("Come?", sampling=sampling))
    assert alone.completion_tokens == 40
    assert (alone.decode_passes, alone.draft_tokens, alone.accepted_tokens) == (39, 0, 0)
    use(model, alone.token_ids, "none")
    end = last_event(model.answer("Come?", sampling=sampling))
    # The first token comes from the prompt; 32 follow from the first pass, 7 from the second.
    assert (end.decode_passes, end.draft_tokens, end.accepted_tokens) == (2, 37, 37)
    use(model, alone.token_ids, "all")
    end = last_event(model.answer("Come?", sampling=sampling))
    assert (end.decode_passes, end.accepted_tokens) == (39, 0)
    assert end.draft_tokens > 39
    assert end.token_ids == alone.token_ids


def test_a_stop_text_that_ends_inside_a_draft_ends_the_answer_there(
    plain: Model, drafting: Model
) -> None:
    model = drafting
    whole = ask(plain, FREE)[1]
    use(model, whole.token_ids, "none")
    for begin in range(4, 20, 3):
        sampling = replace(FREE, stop=(whole.text[begin : begin + 3],), logprobs=0)
        expected = ask(plain, sampling)
        assert expected[1].reason is FinishReason.STOP
        assert ask(model, sampling) == expected


def test_the_end_of_the_context_ends_drafts_too(folders: dict[str, Path]) -> None:
    context = opened(folders["nf4"]).config.vision.image_tokens + 60
    plain = opened(folders["nf4"], speculation=False, context=context)
    sampling = replace(FREE, max_new_tokens=200)
    expected = ask(plain, sampling)
    assert expected[1].reason is FinishReason.LENGTH
    assert expected[1].completion_tokens < 60
    model = opened(folders["nf4"], context=context)
    for wrong in ("none", "some"):
        use(model, expected[1].token_ids, wrong)
        assert ask(model, sampling) == expected
        assert model.engine.slots[0].cache.capacity <= context


def test_continued_answers_are_equal(folders: dict[str, Path]) -> None:
    plain, model = opened(folders["nf4"], speculation=False), opened(folders["nf4"])
    in_step(model.engine)
    whole = ask(plain, FREE)[1]
    use(model, whole.token_ids, "some")
    for cut in (1, 2, 13, 20):
        ids = whole.token_ids[:cut]
        before = {"continue_from": plain.engine.tokenizer.decode(list(ids)), "continue_ids": ids}
        rest = replace(FREE, max_new_tokens=TOKENS - cut)
        passes = counted(model)
        _, end = ask(model, rest, **before)
        assert (end.text, end.token_ids) == (whole.text, whole.token_ids)
        ask(model, replace(FREE, max_new_tokens=1))  # another answer takes its place
        if cut == 20:
            assert passes[0] == [20]  # its first tokens are read in one pass


def counted(model: Model) -> list[list[int]]:
    """Note how many rows each conversation has in each pass from now on."""
    rows: list[list[int]] = []
    steps = type(model.runtime).decode_steps

    def counting(tokens: Sequence[Token]) -> Any:
        rows.append([1 + len(token.draft) for token in tokens])
        return (yield from steps(model.runtime, tokens))

    model.runtime.decode_steps = counting  # type: ignore[method-assign]
    return rows


@pytest.mark.parametrize("after", [1, 4, 8])
def test_a_cancel_inside_a_draft_ends_the_answer_at_that_token(
    plain: Model, drafting: Model, after: int
) -> None:
    def stopped(model: Model) -> tuple[list[Event], Finished]:
        cancel, events, seen = Cancel(), [], 0
        for event in model.answer(QUESTION, sampling=FREE, cancel=cancel):
            events.append(event)
            seen += isinstance(event, TextDelta)
            if seen == after:
                cancel.set()
        return told(events)

    ids = last_event(plain.answer(QUESTION, sampling=FREE)).token_ids
    model = drafting
    use(model, ids, "none")
    expected = stopped(plain)
    assert expected[1].reason is FinishReason.CANCELLED
    assert stopped(model) == expected
    # And the conversation goes on as if it had been generated one by one.
    expected = told(plain.answer(QUESTION, sampling=FREE))
    assert told(model.answer(QUESTION, sampling=FREE)) == expected


def test_weights_that_are_streamed_within_any_budget_change_nothing(
    folders: dict[str, Path],
) -> None:
    folder = folders["nf4"]
    plain = opened(folder, context=SHORT, speculation=False)
    expected = told(plain.answer(QUESTION, sampling=FREE))
    low, full = smallest(folder, 1), plain.plan.peak_bytes
    for share in (0.0, 0.3):
        model = opened(folder, budget=int(low + (full - low) * share), context=SHORT)
        assert model.plan.streams
        use(model, expected[1].token_ids, "some", seed=int(share * 10))
        assert told(model.answer(QUESTION, sampling=FREE)) == expected


def requests_of_all_kinds(model: Model) -> list[Request]:
    """Questions, some of which have drafts of their own."""
    kinds = [FREE, CASES["sampled"], CASES["penalties"], replace(FREE, max_new_tokens=5)]
    return [
        Request(
            question=f"Number {number}?",
            sampling=sampling,
            draft_text="one two three four five six seven" if number % 2 else "",
            image=open_image(picture(number % 2)) if number > 1 else None,
        )
        for number, sampling in enumerate(kinds)
    ]


@pytest.mark.parametrize("wrong", ["none", "some", "own sources"])
def test_answers_at_once_with_and_without_drafts_are_those_alone(
    folders: dict[str, Path], wrong: str
) -> None:
    plain = opened(folders["nf4"], speculation=False)
    requests = requests_of_all_kinds(plain)
    expected = [told(plain.engine.answer(each, Cancel())) for each in requests]
    model = opened(folders["nf4"], parallel=3)
    if wrong != "own sources":
        drafts = {r.question: e[1].token_ids for r, e in zip(requests, expected, strict=True)}

        def drafter(prepared: Any, *_: object) -> Oracle | None:
            question = prepared.request.question
            return None if question == "Number 2?" else Oracle(drafts[question], wrong, 3)

        model.engine._answers._drafter = drafter  # type: ignore[method-assign,assignment]
    passes = counted(model)
    outcomes = answer_all(in_step(model.engine), requests).outcomes
    for number, right in enumerate(expected):
        assert told(outcomes[number]) == right  # type: ignore[arg-type]
    assert all(sum(rows) <= 32 for rows in passes)
    if wrong != "own sources":
        assert any(len(rows) > 1 and max(rows) > 1 for rows in passes)


def test_every_allocation_may_fail_while_drafts_are_computed(folders: dict[str, Path]) -> None:
    folder = folders["nf4"]
    low, full = smallest(folder, 1), opened(folder, context=SHORT).plan.peak_bytes
    budget = int(low + (full - low) * 0.5)

    def model(arena: FailingArena) -> Model:
        return opened(folder, budget=budget, context=SHORT, arenas=[arena])

    counting, sampling = FailingArena(), replace(FREE, max_new_tokens=8)
    expected = told(opened(folder, speculation=False).answer(QUESTION, sampling=sampling))
    calm = model(counting)
    use(calm, expected[1].token_ids, "some")
    assert told(calm.answer(QUESTION, sampling=sampling)) == expected
    replans = 0
    for fail_at in range(1, counting.requests + 1, 2):
        failing = model(FailingArena(fail_at))
        use(failing, expected[1].token_ids, "some")
        events = list(failing.answer(QUESTION, sampling=sampling))
        assert told(events) == expected
        replans += any(isinstance(event, Replanned) for event in events)
        assert told(failing.answer(QUESTION, sampling=sampling)) == expected
    assert replans > counting.requests / 4


def test_adapters_act_on_drafts_too(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["bf16"]
    adapter = random_adapter(tmp_path / "adapter", folder, seed=1)
    plain = cogvlm2_lite.load(
        folder, device="cpu", dtype="bfloat16", adapter=adapter, speculation=False
    )
    expected = ask(plain, replace(FREE, logprobs=1))
    model = cogvlm2_lite.load(folder, device="cpu", dtype="bfloat16", adapter=adapter)
    use(model, expected[1].token_ids, "some")
    assert ask(model, replace(FREE, logprobs=1)) == expected
    model.adapter = plain.adapter = None
    assert ask(model, FREE) == ask(plain, FREE) != expected


# --- the sources of drafts in an answer -----------------------------------------------------------


def test_a_second_answer_about_a_picture_and_a_draft_text_save_passes(
    folders: dict[str, Path],
) -> None:
    model, plain = opened(folders["nf4"]), opened(folders["nf4"], speculation=False)
    in_step(model.engine)
    first = last_event(model.answer(QUESTION, picture(1), sampling=FREE))
    again = last_event(model.answer(QUESTION, picture(1), sampling=FREE))
    assert again.token_ids == first.token_ids
    assert again.decode_passes < min(first.decode_passes, 10)
    shown = last_event(plain.answer(QUESTION, picture(2), sampling=FREE))
    given = model.answer(QUESTION, picture(2), sampling=FREE, draft_text=shown.text)
    assert last_event(given).token_ids == shown.token_ids


def test_what_a_schema_requires_is_drafted(folders: dict[str, Path]) -> None:
    model, plain = opened(folders["nf4"]), opened(folders["nf4"], speculation=False)
    in_step(model.engine)
    sampling = CASES["schema"]
    expected = told(plain.answer(QUESTION, sampling=sampling))
    events = list(model.answer(QUESTION, sampling=sampling))
    assert told(events) == expected
    end = last_event(events)
    assert end.draft_tokens > 0
    assert end.accepted_tokens <= end.draft_tokens
    assert end.decode_passes + end.accepted_tokens == end.completion_tokens - 1


@pytest.mark.parametrize(
    "case", ["logprobs", "sampled", "penalties", "greedy penalties", "object", "schema"]
)
def test_drafts_of_words_and_separators_change_nothing(
    plain: Model, drafting: Model, case: str
) -> None:
    """The draft text has the words of the answer, and blanks for what is between them."""
    in_step(drafting.engine)
    vars(drafting.engine._answers).pop("_drafter", None)  # an oracle's
    expected = ask(plain, CASES[case])
    words = re.findall(r"\w+", expected[1].text)
    for text in ("  ".join(words), "\n".join(words[1::2] + words[::2]), "x ".join(words)):
        events = list(
            drafting.answer(
                QUESTION, picture(1), [("a?", "b")], sampling=CASES[case], draft_text=text
            )
        )
        assert told(events) == expected
        assert last_event(events).draft_tokens > 0 or not words
