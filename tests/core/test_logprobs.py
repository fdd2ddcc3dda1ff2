"""Likelihoods of tokens: the model's own numbers, on the text that they became."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cogvlm2_lite
from cogvlm2_lite.demo.shipped import sample_pictures
from cogvlm2_lite.engine.choose import StopTexts
from cogvlm2_lite.engine.logprobs import LogprobQueue
from cogvlm2_lite.events import Finished, TextDelta, TokenLogprobs
from cogvlm2_lite.inputs.prompt import encode_prompt
from cogvlm2_lite.inputs.tokenizer import StreamDecoder, Tokenizer
from cogvlm2_lite.sampling import Sampling
from tests.helpers.folders import talking_folder

DEMO = Path(cogvlm2_lite.__file__).parent / "demo" / "checkpoint"


def data(scores: list[TokenLogprobs]) -> bytes:
    return b"".join(bytes(score.chosen.data or ()) for score in scores)


def test_likelihoods_are_the_models_before_temperature_and_penalties(tmp_path: Path) -> None:
    model = cogvlm2_lite.load(talking_folder(tmp_path / "tiny"), device="cpu", dtype="float32")
    sampling = Sampling(
        max_new_tokens=8, temperature=3.0, seed=2, repetition_penalty=2.0, logprobs=3
    )
    events = list(model.answer("What?", sampling=sampling))
    scores = [s for e in events if isinstance(e, TextDelta) for s in e.tokens]
    prompt = encode_prompt(model.engine.tokenizer, model.config, "What?")
    ids = torch.from_numpy(prompt.input_ids)
    by_bytes = {model.engine.tokenizer.token_bytes(i): i for i in range(500)}
    assert len(scores) >= 4
    for score in scores:
        token = by_bytes[bytes(score.chosen.data or ())]
        expected = model.forward(ids)[0, -1].log_softmax(-1)
        assert score.chosen.logprob == pytest.approx(float(expected[token]), abs=1e-4)
        best = expected.topk(3).values.tolist()
        assert [one.logprob for one in score.top] == pytest.approx(best, abs=1e-4)
        ids = torch.cat((ids, torch.tensor([[token]])), dim=1)


def test_nothing_is_told_unless_asked_for_and_the_answer_is_the_same(tmp_path: Path) -> None:
    model = cogvlm2_lite.load(talking_folder(tmp_path / "tiny"), device="cpu", dtype="float32")
    plain = list(model.answer("What?", sampling=Sampling(max_new_tokens=8)))
    scored = list(model.answer("What?", sampling=Sampling(max_new_tokens=8, logprobs=0)))
    assert all(e.tokens == () for e in plain if isinstance(e, TextDelta))
    ends = [e[-1] for e in (plain, scored)]
    assert all(isinstance(end, Finished) for end in ends)
    assert ends[0].text == ends[1].text


def test_no_byte_of_a_wild_answer_is_lost() -> None:
    model = cogvlm2_lite.load(DEMO)
    path = next(p.path for p in sample_pictures() if p.path.stem == "shapes")
    sampling = Sampling(logprobs=1, temperature=4.0, seed=0, max_new_tokens=120)
    events = list(model.answer("图片里有什么？", path, sampling=sampling))
    deltas = [e for e in events if isinstance(e, TextDelta)]
    written = data([score for delta in deltas for score in delta.tokens])
    assert written.decode(errors="replace") == "".join(delta.text for delta in deltas)
    assert any(len(delta.tokens) > 1 for delta in deltas)
    assert all(s.top[0].logprob >= s.chosen.logprob for d in deltas for s in d.tokens)


TOKENIZER = Tokenizer.from_folder(DEMO)
IDS = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30)


@settings(max_examples=300, deadline=None)
@given(IDS, st.lists(st.text("abtheo 1的", min_size=1, max_size=3), max_size=3))
def test_no_token_is_lost_and_none_of_a_stop_text_is_told(ids: list[int], stops: list[str]) -> None:
    decoder, held = StreamDecoder(TOKENIZER), StopTexts(stops)
    queue = LogprobQueue(TOKENIZER, 0)
    text, stopped = "", False
    told: list[TokenLogprobs] = []

    def show(new: str, *, last: bool = False) -> None:
        nonlocal text, stopped
        shown, stopped = held.push(new)
        shown += held.finish() if last and not stopped else ""
        text += shown
        if shown:
            told.extend(queue.release(shown))

    logits = torch.zeros(TOKENIZER.vocab_size)
    for token in ids:
        new = decoder.push(token)
        queue.note(logits, token, new)
        show(new)
        if stopped:
            break
    else:
        new = decoder.finish()
        queue.note_text(new)
        show(new, last=True)
    written = data(told).decode("utf-8", errors="replace")
    assert written.startswith(text)
    if not stopped:
        assert written == text
    elif told:
        # Without its last token the text would be too short: none came after the stop text began.
        shorter = data(told[:-1]).decode("utf-8", errors="ignore")
        assert len(shorter) < len(text)


def test_a_letter_of_several_tokens_comes_whole_with_all_of_them() -> None:
    ids = TOKENIZER.encode("\U0001f600")
    assert len(ids) > 1
    decoder, queue = StreamDecoder(TOKENIZER), LogprobQueue(TOKENIZER, 0)
    texts = [decoder.push(token) for token in ids]
    for token, text in zip(ids, texts, strict=True):
        queue.note(torch.zeros(TOKENIZER.vocab_size), token, text)
    assert texts == [*[""] * (len(ids) - 1), "\U0001f600"]
    assert data(list(queue.release(texts[-1]))) == "\U0001f600".encode()


def test_bytes_that_are_no_letter_and_special_tokens_have_names() -> None:
    half = next(i for i in range(TOKENIZER.vocab_size) if TOKENIZER.token_bytes(i) == b"\xe4")
    special = next(i for i in range(TOKENIZER.vocab_size) if not TOKENIZER.token_bytes(i))
    logits = torch.full((TOKENIZER.vocab_size,), -torch.inf)
    logits[special] = 0.0
    queue = LogprobQueue(TOKENIZER, 1)
    queue.note(logits, half, "x")
    [score] = queue.release("x")
    assert (score.chosen.token, score.chosen.data) == ("\\xe4", (0xE4,))
    assert score.chosen.logprob == -9999.0
    assert score.top[0].data is None
    assert score.top[0].token.startswith("<|")
