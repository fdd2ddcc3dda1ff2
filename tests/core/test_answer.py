"""The main path, on a tiny model whose nonsense is always the same."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cogvlm2_lite
from cogvlm2_lite.engine import runtime
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.errors import (
    CheckpointError,
    DeviceError,
    ImageError,
    PromptTooLongError,
    UsageError,
)
from cogvlm2_lite.events import (
    Cancel,
    Finished,
    FinishReason,
    ImageEncoded,
    Notice,
    PictureOpened,
    Prefilled,
    Progress,
    TextDelta,
    TurnsDropped,
)
from cogvlm2_lite.inputs.image import open_image, pixel_values
from cogvlm2_lite.inputs.prompt import encode_prompt
from cogvlm2_lite.sampling import Sampling
from tests.helpers.answers import finished, picture, scripted_decode
from tests.helpers.folders import talking_folder
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.pages import three_pages

SHORT = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model(folder: Path) -> Model:
    return cogvlm2_lite.load(folder, device="cpu", dtype="float32")


def test_the_events_come_in_order(model: Model) -> None:
    events = list(model.answer("What is this?", image=picture(1), sampling=SHORT))
    kinds = [type(e) for e in events if not isinstance(e, Progress)]
    assert kinds[0] is ImageEncoded
    assert kinds[1] is Prefilled
    assert set(kinds[2:-1]) <= {TextDelta, Notice}
    assert kinds[-1] is Finished
    end = finished(events)
    assert end.text == "".join(e.text for e in events if isinstance(e, TextDelta))
    assert end.image_tokens == 11
    assert end.prompt_tokens > end.image_tokens
    assert end.completion_tokens == 12
    assert end.reason is FinishReason.LENGTH
    assert end.tokens_per_s > 0
    encode = [e for e in events if isinstance(e, Progress) and e.phase == "encode"]
    assert [e.done for e in encode] == [1, 2]


def test_the_share_of_the_prefill_counts_all_parts_of_the_prompt(model: Model) -> None:
    history = [("Before? " * 200, "An answer. " * 100)]
    events = list(model.answer("Go?", image=picture(1), history=history, sampling=SHORT))
    read = [e for e in events if isinstance(e, Progress) and e.phase == "prefill"]
    (total,) = {event.total for event in read}
    blocks = len(model.runtime.parts.decoder.blocks)
    assert total > blocks  # more than one part
    assert [event.done for event in read] == list(range(1, total + 1))


@pytest.mark.parametrize("seed", [None, 1])
def test_an_answer_is_what_forward_scores_highest(model: Model, seed: int | None) -> None:
    history = [("Before?", "An answer."), ("And then?", "Another one.")]
    image = None if seed is None else open_image(picture(seed))
    prompt = encode_prompt(
        model.engine.tokenizer, model.config, "What is this?", history=history, has_image=bool(seed)
    )
    features = None
    if image is not None:
        features = model.encode_image(torch.from_numpy(pixel_values(image, model.config.vision)))
    ids, types = (torch.from_numpy(a) for a in (prompt.input_ids, prompt.token_type_ids))
    chosen: list[int] = []
    for _ in range(12):
        chosen.append(int(model.forward(ids, types, image_features=features)[0, -1].argmax()))
        ids = torch.cat((ids, torch.tensor([chosen[-1:]])), dim=1)
        types = torch.cat((types, torch.zeros(1, 1, dtype=types.dtype)), dim=1)
    assert not set(chosen) & set(model.config.eos_token_ids)
    answer = finished(model.answer("What is this?", image, history, sampling=SHORT))
    assert answer.text == model.engine.tokenizer.decode(chosen)


def test_a_text_question_brings_no_vision_weights_in(model: Model) -> None:
    finished(model.answer("Hello?", sampling=SHORT))
    held = {part.value: n for part, n in model.runtime.residency.resident_bytes.items()}
    assert held["vision tower"] == held["projector"] == held["vision expert"] == 0
    assert held["language expert"] > 0


def test_forward_of_text_brings_no_vision_weights_in(model: Model) -> None:
    model.forward(torch.tensor([[1, 2, 3]]))
    held = {part.value: n for part, n in model.runtime.residency.resident_bytes.items()}
    assert held["vision tower"] == held["projector"] == held["vision expert"] == 0
    assert held["language expert"] > 0


def test_a_second_question_about_the_picture_computes_only_its_own_tokens(model: Model) -> None:
    finished(model.answer("One?", image=picture(1), sampling=SHORT))
    events = list(model.answer("Two?", image=picture(1), sampling=SHORT))
    encoded = next(e for e in events if isinstance(e, ImageEncoded))
    prefilled = next(e for e in events if isinstance(e, Prefilled))
    assert encoded.reused
    assert prefilled.reused_tokens == 12
    assert not any(isinstance(e, Progress) and e.phase == "encode" for e in events)


def test_what_was_asked_before_never_changes_an_answer(folder: Path) -> None:
    conversation = [("a?", "first"), ("b?", "second")]
    questions = [
        ("One?", 1, []),
        ("Two?", 1, conversation[:1]),
        ("Three?", 1, conversation),
        ("Four?", 2, []),
        ("Two?", 1, conversation[:1]),
        ("Five?", None, []),
        ("Three?", 1, conversation),
        ("Six?", None, conversation),
    ]
    warm = cogvlm2_lite.load(folder, device="cpu", dtype="bfloat16")
    for question, seed, history in questions:
        image = picture(seed) if seed else None
        cold = cogvlm2_lite.load(folder, device="cpu", dtype="bfloat16")
        answers = [m.answer(question, image, history, sampling=SHORT) for m in (warm, cold)]
        texts = {finished(events).text for events in answers}
        assert len(texts) == 1


def test_another_past_of_the_same_length_is_not_taken_for_known(folder: Path) -> None:
    warm, cold = (cogvlm2_lite.load(folder, device="cpu", dtype="float32") for _ in range(2))
    finished(warm.answer("Well?", None, [("a?", "first")], sampling=SHORT))
    answers = [m.answer("Well?", None, [("b?", "other")], sampling=SHORT) for m in (warm, cold)]
    (events, right) = (list(answer) for answer in answers)
    assert next(e for e in events if isinstance(e, Prefilled)).reused_tokens == 0
    assert finished(events).text == finished(right).text


def test_past_turns_are_not_computed_again(model: Model) -> None:
    first = [("a?", "first answer")]
    finished(model.answer("b?", picture(1), first, sampling=SHORT))
    events = list(model.answer("c?", picture(1), [*first, ("b?", "second")], sampling=SHORT))
    prefilled = next(e for e in events if isinstance(e, Prefilled))
    assert prefilled.reused_tokens > 12


def test_a_picture_comes_back_from_the_cache_after_another_one(model: Model) -> None:
    before = finished(model.answer("One?", image=picture(1), sampling=SHORT)).text
    finished(model.answer("One?", image=picture(2), sampling=SHORT))
    events = list(model.answer("One?", image=picture(1), sampling=SHORT))
    assert next(e for e in events if isinstance(e, ImageEncoded)).reused
    assert finished(events).text == before


def test_the_picture_cache_forgets_the_least_recently_used(model: Model) -> None:
    finished(model.answer("?", image=picture(1), sampling=SHORT))
    one = model.engine.pictures.nbytes
    model.engine.pictures.resize(2 * one)
    for seed in (2, 1, 3):
        finished(model.answer("?", image=picture(seed), sampling=SHORT))
    assert model.engine.pictures.nbytes == 2 * one
    for seed, kept in ((1, True), (3, True)):
        events = list(model.answer("?", image=picture(seed), sampling=SHORT))
        assert next(e for e in events if isinstance(e, ImageEncoded)).reused is kept


def test_cancelling_stops_within_one_token_and_leaves_the_engine_usable(model: Model) -> None:
    expected = finished(model.answer("Go?", image=picture(1), sampling=SHORT)).text
    cancel, shown = Cancel(), 0
    events = []
    for event in model.answer(
        "Go?", image=picture(1), sampling=Sampling(max_new_tokens=200), cancel=cancel
    ):
        events.append(event)
        shown += isinstance(event, TextDelta)
        if shown == 3:
            cancel.set()
    end = finished(events)
    assert end.reason is FinishReason.CANCELLED
    assert end.text
    assert sum(isinstance(e, TextDelta) for e in events) <= 4
    assert finished(model.answer("Go?", image=picture(1), sampling=SHORT)).text == expected


@pytest.mark.parametrize("phase", ["encode", "prefill"])
def test_cancelling_while_the_prompt_is_read_works_too(model: Model, phase: str) -> None:
    cancel = Cancel()
    events = []
    for event in model.answer("Go?", image=picture(1), sampling=SHORT, cancel=cancel):
        events.append(event)
        if isinstance(event, Progress) and event.phase == phase:
            cancel.set()
    end = finished(events)
    assert (end.reason, end.text, end.completion_tokens) == (FinishReason.CANCELLED, "", 0)
    fresh = cogvlm2_lite.load(model.folder, device="cpu", dtype="float32")
    texts = {finished(m.answer("Go?", picture(1), sampling=SHORT)).text for m in (model, fresh)}
    assert len(texts) == 1


def test_an_answer_left_alone_leaves_the_engine_usable(model: Model) -> None:
    events = model.answer("Go?", image=picture(1), sampling=SHORT)
    next(events)
    with pytest.raises(UsageError, match="another question"):
        next(model.answer("And this?"))
    events.close()  # type: ignore[attr-defined]
    assert finished(model.answer("And this?", sampling=SHORT)).completion_tokens == 12


def test_every_end_token_of_the_config_ends_the_answer(model: Model) -> None:
    prompt = encode_prompt(model.engine.tokenizer, model.config, "What is this?")
    first = int(model.forward(torch.from_numpy(prompt.input_ids))[0, -1].argmax())
    for ends in ((first, 511), (511, first)):
        model.runtime.config = replace(model.config, eos_token_ids=ends)
        end = finished(model.answer("What is this?", sampling=SHORT))
        assert (end.reason, end.text, end.completion_tokens) == (FinishReason.EOS, "", 1)


def test_what_only_began_like_a_stop_text_is_part_of_the_answer(model: Model) -> None:
    text = finished(model.answer("What is this?", sampling=SHORT)).text
    sampling = replace(SHORT, stop=(text[-2:] + "never",))
    assert finished(model.answer("What is this?", sampling=sampling)).text == text


def test_the_places_of_a_picture_are_no_repetitions(model: Model) -> None:
    free = replace(SHORT, max_new_tokens=1)
    text = finished(model.answer("What is this?", picture(1), sampling=free)).text
    # The placeholder's own row of the embedding is never read, so it may be any token.
    (token,) = model.engine.tokenizer.encode(text)
    model.runtime.config = replace(model.config, pad_token_id=token)
    penalized = replace(free, repetition_penalty=10.0)
    assert finished(model.answer("What is this?", picture(1), sampling=penalized)).text == text


def test_stop_texts_end_the_answer_and_are_not_shown(model: Model) -> None:
    whole = finished(model.answer("Go?", sampling=Sampling(max_new_tokens=40))).text
    stop = whole[5:8]
    end = finished(model.answer("Go?", sampling=Sampling(max_new_tokens=40, stop=(stop,))))
    assert end.reason is FinishReason.STOP
    assert end.text == whole[: whole.index(stop)]


def test_a_conversation_past_the_context_drops_its_oldest_turns(model: Model) -> None:
    history = [(f"question {i} " * 5, f"answer {i} " * 5) for i in range(8)]
    events = list(model.answer("last?", picture(1), history, sampling=SHORT))
    assert isinstance(events[0], TurnsDropped)
    assert 0 < events[0].count < 8
    assert finished(events).prompt_tokens <= model.config.max_position_embeddings


def test_how_the_picture_was_read_is_an_event(model: Model) -> None:
    events = list(model.answer("What?", three_pages(), page=2, sampling=SHORT))
    assert events[0] == PictureOpened(page=2, pages=3)
    opened = next(iter(model.answer("What?", three_pages(), sampling=SHORT)))
    assert isinstance(opened, PictureOpened)
    assert (opened.page, opened.pages) == (1, 3)
    assert "page 1 of 3" in opened.notices[0]
    plain = list(model.answer("What?", picture(1), sampling=SHORT))
    assert not any(isinstance(event, PictureOpened) for event in plain)


def test_an_answer_that_fills_the_context_says_so(model: Model) -> None:
    events = list(model.answer("word " * 80, sampling=Sampling(repetition_guard=False)))
    end = finished(events)
    assert end.prompt_tokens + end.completion_tokens <= model.config.max_position_embeddings
    if end.reason is FinishReason.LENGTH:
        assert any("context is full" in e.text for e in events if isinstance(e, Notice))


def test_a_question_longer_than_the_context_is_refused(model: Model) -> None:
    with pytest.raises(PromptTooLongError):
        list(model.answer("far too long " * 500))


def test_a_token_that_takes_long_reports_its_blocks_and_changes_no_answer(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(max_new_tokens=4)
    before = list(model.answer("Go?", sampling=sampling))
    assert not [e for e in before if isinstance(e, Progress) and e.phase == "decode"]
    monkeypatch.setattr(runtime, "_REPORT_S", 0.0)
    events = list(model.answer("Go?", sampling=sampling))
    assert finished(events).token_ids == finished(before).token_ids
    at = [number for number, event in enumerate(events) if isinstance(event, Prefilled)]
    steps = [e for e in events[at[0] :] if isinstance(e, Progress)]
    blocks = len(model.runtime.parts.decoder.blocks)
    assert [(e.phase, e.done, e.total) for e in steps] == [
        ("decode", done, blocks) for done in range(1, blocks + 1)
    ] * 3  # the first token comes from the prompt's last logits
    assert all(e.held_bytes for e in steps)


def test_an_answer_that_is_dropped_in_a_token_leaves_the_model_usable(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = finished(model.answer("Go?", sampling=Sampling(max_new_tokens=4)))
    monkeypatch.setattr(runtime, "_REPORT_S", 0.0)
    dropped = model.answer("Go?", sampling=Sampling(max_new_tokens=4))
    assert isinstance(dropped, Generator)
    for event in dropped:
        if isinstance(event, Progress) and event.phase == "decode":
            break
    dropped.close()
    after = finished(model.answer("Go?", sampling=Sampling(max_new_tokens=4)))
    assert after.token_ids == before.token_ids


def test_a_loop_is_broken_and_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = torch.zeros(512)
    stuck[70] = 1.0
    monkeypatch.setattr(model.runtime, "decode_steps", scripted_decode(lambda: stuck))
    events = list(model.answer("Go?", sampling=Sampling(max_new_tokens=300)))
    assert finished(events).reason is FinishReason.REPETITION
    assert finished(events).completion_tokens < 120
    assert any("repeat" in e.text for e in events if isinstance(e, Notice))
    free = Sampling(max_new_tokens=300, repetition_guard=False)
    assert finished(model.answer("Go?", sampling=free)).completion_tokens == 300


def test_two_pictures_are_refused_with_the_rule(model: Model) -> None:
    with pytest.raises(UsageError, match="the model takes 1"):
        model.answer("Which?", image=[picture(1), picture(2)])  # type: ignore[arg-type]


def test_a_missing_picture_is_refused_at_once(model: Model) -> None:
    with pytest.raises(ImageError):
        model.answer("What?", image="no-such-file.png")


def test_a_folder_without_tokenizer_loads_and_explains_itself_when_asked() -> None:
    silent = cogvlm2_lite.load(CHECKPOINT, device="cpu", dtype="float32")
    assert silent.forward(torch.tensor([[500, 3]])).shape == (1, 2, 512)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        silent.answer("Hello?")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"device": "tpu"}, UsageError),
        ({"dtype": "int4"}, UsageError),
        ({"rope": "yarn"}, UsageError),
        ({"device": "cuda:99"}, DeviceError),
    ],
)
def test_bad_options_are_named(
    folder: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options.values())) if error is UsageError else "GPU"):
        cogvlm2_lite.load(folder, **options)


@pytest.mark.parametrize(
    "inputs",
    [
        {"input_ids": torch.tensor([1, 2])},
        {"input_ids": torch.tensor([[1, 512]])},
        {"input_ids": torch.tensor([[1, 2]]), "token_type_ids": torch.tensor([[0]])},
        {"input_ids": torch.tensor([[1, 2]]), "token_type_ids": torch.tensor([[0, 1]])},
    ],
)
def test_forward_refuses_what_does_not_fit_together(
    model: Model, inputs: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(UsageError):
        model.forward(**inputs)


def test_encode_image_refuses_another_size(model: Model) -> None:
    with pytest.raises(UsageError, match="84"):
        model.encode_image(torch.zeros(1, 3, 70, 70))
