"""`echo` in /v1/completions, with the logprobs of the prompt, as lm-evaluation-harness uses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest
import torch

import cogvlm2_lite
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import (
    Cancel,
    Finished,
    FinishReason,
    ImageEncoded,
    Prefilled,
    PromptScored,
    TextDelta,
)
from cogvlm2_lite.inputs.image import opened_image
from cogvlm2_lite.sampling import Sampling
from tests.helpers.served import Served

TEXT = "Question: What is written on the sign? Answer: ROAD, naïve 路"


@pytest.fixture(scope="module")
def model() -> Model:
    return cogvlm2_lite.load("demo", device="cpu")


def scored(model: Model, request: Request) -> tuple[PromptScored, Finished]:
    events = list(model.engine.answer(request, Cancel()))
    [found] = [event for event in events if isinstance(event, PromptScored)]
    [prefilled] = [event for event in events if isinstance(event, Prefilled)]
    assert prefilled.reused_tokens == 0  # all logits are computed
    finished = events[-1]
    assert isinstance(finished, Finished)
    return found, finished


def request_for(**fields: Any) -> Request:
    sampling = Sampling(max_new_tokens=4, logprobs=3)
    return Request(template="base", sampling=sampling, score_prompt=True, **fields)


def expected(model: Model, ids: list[int]) -> tuple[list[float], torch.Tensor]:
    """Return the logprob of each id after bos, from one pass over all of them, and all of them."""
    row = torch.tensor([[model.config.bos_token_id, *ids]])
    logprobs = model.forward(row)[0].log_softmax(-1)
    return [float(logprobs[place, token]) for place, token in enumerate(ids)], logprobs


def test_the_logprobs_of_a_prompt_are_those_of_the_model(model: Model) -> None:
    ids = model.engine.tokenizer.encode(TEXT)
    wanted, logprobs = expected(model, ids)
    request = request_for(question=TEXT)
    for _ in range(2):  # the second time, the prompt is in the cache
        found, _ = scored(model, request)
        assert (found.text, found.begins) == (TEXT, "")
        assert [one.chosen.logprob for one in found.tokens] == pytest.approx(wanted, abs=1e-4)
        data = b"".join(bytes(one.chosen.data or ()) for one in found.tokens)
        assert data.decode() == TEXT
        best = logprobs[:-1].max(-1).values.tolist()
        assert [one.top[0].logprob for one in found.tokens] == pytest.approx(best, abs=1e-4)


def test_a_prompt_in_tokens_is_taken_as_it_is(model: Model) -> None:
    ids = model.engine.tokenizer.encode(TEXT)
    odd = [*ids[:5], *model.engine.tokenizer.encode("x"), *ids[5:]]
    bos = model.config.bos_token_id
    for given, begins in ((odd, ""), ([bos, *odd], model.engine.tokenizer.token_name(bos))):
        found, finished = scored(model, request_for(question="", prompt_ids=tuple(given)))
        wanted, _ = expected(model, odd)
        assert [one.chosen.logprob for one in found.tokens] == pytest.approx(wanted, abs=1e-4)
        assert found.begins == begins
        assert finished.prompt_tokens == 1 + len(odd)
    with pytest.raises(UsageError, match="not between 0 and 703"):
        scored(model, request_for(question="", prompt_ids=(5, 704)))


def test_a_long_prompt_is_scored_over_its_chunks_and_changes_no_answer(model: Model) -> None:
    ids = np.random.default_rng(0).integers(4, 700, 1100).tolist()
    request = request_for(question="", prompt_ids=tuple(ids))
    found, finished = scored(model, request)
    wanted, _ = expected(model, ids)
    assert [one.chosen.logprob for one in found.tokens] == pytest.approx(wanted, abs=1e-3)
    plain = Request(template="base", question="", prompt_ids=tuple(ids), sampling=request.sampling)
    *_, same = model.engine.answer(plain, Cancel())
    assert isinstance(same, Finished)
    assert same.token_ids == finished.token_ids


def test_the_last_tokens_alone_are_scored_behind_a_picture_that_is_cached(model: Model) -> None:
    picture = opened_image(
        np.full((20, 30, 3), 99, dtype=np.uint8), format="memory", original_size=(30, 20), name="x"
    )
    ids = model.engine.tokenizer.encode("Question: What is it? Answer: a red bus")
    whole = request_for(question="", prompt_ids=tuple(ids), image=picture)
    wanted, _ = scored(model, whole)
    for count in (1, 9, len(ids) - 1):
        asked = replace(whole, score_prompt=False, score_last=count)
        events = list(model.engine.answer(asked, Cancel()))
        [encoded] = [event for event in events if isinstance(event, ImageEncoded)]
        [found] = [event for event in events if isinstance(event, PromptScored)]
        assert encoded.reused
        assert [one.chosen.logprob for one in found.tokens] == pytest.approx(
            [one.chosen.logprob for one in wanted.tokens[-count:]], abs=1e-4
        )
    # The first token of the text follows the picture, whose logits are not kept.
    every = replace(whole, score_prompt=False, score_last=len(ids))
    found, _ = scored(model, every)
    assert len(found.tokens) == len(ids)


def test_the_end_token_has_an_entry_next_to_a_scored_prompt(model: Model) -> None:
    """The harness leaves out the last entry, which must not be one of the prompt."""
    asked = "Question: What color is it? Answer: red"
    events = list(model.engine.answer(request_for(question=asked), Cancel()))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.EOS
    tokens = [one for event in events if isinstance(event, TextDelta) for one in event.tokens]
    assert len(tokens) == finished.completion_tokens
    assert tokens[-1].chosen.data is None


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    served = Served()
    with served.client() as client:
        yield client
    served.stop()


def test_the_harness_gets_one_entry_per_token(client: openai.OpenAI, model: Model) -> None:
    """The request and the reading of the reply are those of its `local-completions`."""
    tokenizer = model.engine.tokenizer
    context, continuation = tokenizer.encode("What is written"), tokenizer.encode(" on the sign")
    for prompt in ([context + continuation], [[model.config.bos_token_id, *continuation]]):
        made: Any = client.completions.create(
            model="demo", prompt=prompt, temperature=0, max_tokens=1, logprobs=1, seed=1, echo=True
        )
        [choice] = made.choices
        begin = len(prompt[0]) - len(continuation)
        values = choice.logprobs.token_logprobs[begin:-1]
        ids = prompt[0] if prompt[0][0] != model.config.bos_token_id else prompt[0][1:]
        wanted, _ = expected(model, ids)
        assert values == pytest.approx(wanted[-len(continuation) :], abs=1e-4)
        assert len(choice.logprobs.tokens) == len(prompt[0]) + made.usage.completion_tokens
        assert (choice.logprobs.token_logprobs[0] is None) is (len(ids) < len(prompt[0]))
        assert len(choice.logprobs.top_logprobs[1]) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("logprobs", [None, 2])
def test_no_answer_but_the_prompt(
    client: openai.OpenAI, model: Model, stream: bool, logprobs: int | None
) -> None:
    ids = model.engine.tokenizer.encode(TEXT)
    prompts: list[Any] = [TEXT, ids, [TEXT, "ROAD"], [ids, "ROAD"]]
    for prompt in prompts:
        made: Any = client.completions.create(
            model="demo", prompt=prompt, echo=True, max_tokens=0, logprobs=logprobs, stream=stream
        )
        chunks = list(made) if stream else [made]
        texts, tokens = dict[int, str](), dict[int, list[str]]()
        for choice in [choice for chunk in chunks for choice in chunk.choices]:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.logprobs is not None:
                tokens.setdefault(choice.index, []).extend(choice.logprobs.tokens)
        assert texts == {0: TEXT} | ({1: "ROAD"} if prompt[-1] == "ROAD" else {})
        assert set(tokens) == (set(texts) if logprobs is not None else set())
        if not stream:
            assert made.usage.completion_tokens == 0
            assert made.choices[0].finish_reason == "length"
