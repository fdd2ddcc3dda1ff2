"""An answer that was cut off is continued, and is then what it would have been without the cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import cogvlm2_lite
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.errors import PromptTooLongError
from cogvlm2_lite.events import (
    Cancel,
    Event,
    Finished,
    FinishReason,
    Prefilled,
    Progress,
    TextDelta,
)
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.worker.protocol import Ask, Emitted, decode, encode
from tests.helpers.answers import finished, picture
from tests.helpers.folders import talking_folder

LONG = Sampling(max_new_tokens=24, repetition_guard=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_folder(tmp_path_factory.mktemp("models") / "tiny")


def open_model(folder: Path, dtype: str = "bfloat16") -> Model:
    return cogvlm2_lite.load(folder, device="cpu", dtype=dtype)


def begin(model: Model, tokens: int, sampling: Sampling = LONG) -> Finished:
    cut = replace(sampling, max_new_tokens=tokens)
    return finished(model.answer("Go?", picture(1), [("a?", "b")], sampling=cut))


def go_on(model: Model, before: Finished, sampling: Sampling = LONG) -> list[Event]:
    rest = replace(sampling, max_new_tokens=sampling.max_new_tokens - len(before.token_ids))
    return list(
        model.answer(
            "Go?", picture(1), [("a?", "b")], sampling=rest,
            continue_from=before.text, continue_ids=before.token_ids,
        )
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_answer_cut_anywhere_goes_on_to_the_same_end(folder: Path, dtype: str) -> None:
    whole = begin(open_model(folder, dtype), 24)
    assert len(whole.token_ids) == 24
    warm = open_model(folder, dtype)
    for cut in range(1, 24, 2):
        before = begin(warm, cut)
        after = finished(go_on(warm, before))
        assert (after.text, after.token_ids) == (whole.text, whole.token_ids), cut
        assert after.completion_tokens == 24 - cut


def test_after_a_restart_its_tokens_are_read_again_and_the_end_is_the_same(folder: Path) -> None:
    whole, before = begin(open_model(folder), 24), begin(open_model(folder), 9)
    events = go_on(open_model(folder), before)
    after = finished(events)
    assert (after.text, after.token_ids) == (whole.text, whole.token_ids)
    read = [e.done for e in events if isinstance(e, Progress) and e.total == 9]
    assert read == list(range(1, 10))


def test_where_it_was_left_only_one_token_is_read(folder: Path) -> None:
    model = open_model(folder)
    before = begin(model, 9)
    events = go_on(model, before)
    (prefilled,) = [e for e in events if isinstance(e, Prefilled)]
    assert (prefilled.tokens, prefilled.reused_tokens) == (0, before.prompt_tokens + 8)
    assert [e.done for e in events if isinstance(e, Progress)] == [9]


def test_another_question_between_changes_nothing(folder: Path) -> None:
    model = open_model(folder)
    whole, before = begin(model, 24), begin(model, 9)
    finished(model.answer("And this?", sampling=LONG))
    assert finished(go_on(model, before)).text == whole.text


def test_its_first_piece_is_what_was_said(folder: Path) -> None:
    model = open_model(folder)
    before = begin(model, 9)
    deltas = [e.text for e in go_on(model, before) if isinstance(e, TextDelta)]
    assert before.text.startswith(deltas[0])
    assert len(deltas[0]) >= len(before.text) - 2  # a letter whose bytes are not all there waits
    assert "".join(deltas) == begin(model, 24).text


def test_penalties_count_what_was_said(folder: Path) -> None:
    sampling = replace(LONG, repetition_penalty=1.3, frequency_penalty=0.7, presence_penalty=0.4)
    model = open_model(folder)
    whole, before = begin(model, 24, sampling), begin(model, 9, sampling)
    assert finished(go_on(model, before, sampling)).text == whole.text


def test_a_stop_while_it_is_read_keeps_what_was_said(folder: Path) -> None:
    before = begin(open_model(folder), 9)
    cancel, model = Cancel(), open_model(folder)
    events = []
    for event in model.answer(
        "Go?", picture(1), [("a?", "b")], cancel=cancel, continue_from=before.text,
        continue_ids=before.token_ids,
    ):  # fmt: skip
        events.append(event)
        if isinstance(event, Progress) and event.total == 9 and event.done == 4:
            cancel.set()
    end = finished(events)
    assert (end.reason, end.text, end.token_ids) == (
        FinishReason.CANCELLED, before.text, before.token_ids,
    )  # fmt: skip
    whole = begin(open_model(folder), 24)
    assert finished(go_on(model, end)).text == whole.text


@pytest.mark.parametrize("ids", [(), (1, 2, 3), (10**6,), (-1,)])
def test_where_the_tokens_are_not_its_text_counts(folder: Path, ids: tuple[int, ...]) -> None:
    model = open_model(folder)
    end = finished(
        model.answer(
            "Go?",
            sampling=replace(LONG, max_new_tokens=3),
            continue_from=" Well,",
            continue_ids=ids,
        )
    )
    assert end.text.startswith(" Well,")
    assert model.engine.tokenizer.decode(list(end.token_ids)) == end.text
    assert end.completion_tokens == 3


def test_an_answer_that_fills_the_context_is_refused_with_a_way_on(folder: Path) -> None:
    model = open_model(folder)
    with pytest.raises(PromptTooLongError, match="context is full"):
        list(model.answer("Go?", continue_from="word " * 300))


def test_the_tokens_cross_the_pipe() -> None:
    ask = Ask(request=1, question="?", continue_from="so far", continue_ids=(1, 2))
    assert decode(encode(ask)[8:]) == ask
    end = Finished(
        text="x", reason=FinishReason.LENGTH, prompt_tokens=1, image_tokens=0, completion_tokens=1,
        encode_s=0, prefill_s=0, decode_s=0, token_ids=(7, 8),
    )  # fmt: skip
    assert decode(encode(Emitted(request=1, event=end))[8:]) == Emitted(request=1, event=end)
