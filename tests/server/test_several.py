"""Several answers of one request: `n`, lists of prompts, and prompts that are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.request_queue import RequestQueue
from tests.helpers.chat_client import client_of, user
from tests.helpers.scripted_server import ScriptedEngine, running

ENGINE = ScriptedEngine()


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx.Client]:
    with running(ENGINE, limits=Limits(), max_waiting=0) as server, client_of(server) as client:
        yield client


@pytest.fixture(scope="module")
def client(plain: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{plain.base_url}/v1", api_key="x", max_retries=0) as client:
        yield client


def streamed(chunks: Any) -> tuple[dict[int, str], dict[int, str], list[Any]]:
    """Return the texts, the finish reasons and the counts of a stream, by index."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    counts = []
    for chunk in chunks:
        if chunk.usage:
            counts.append(chunk.usage)
        for choice in chunk.choices:
            text = choice.delta.content if hasattr(choice, "delta") else choice.text
            texts[choice.index] = texts.get(choice.index, "") + (text or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, counts


@pytest.mark.parametrize("stream", [False, True])
def test_n_answers_have_seeds_that_count_up_and_one_sum_of_counts(
    client: openai.OpenAI, stream: bool
) -> None:
    asked = len(ENGINE.asked)
    messages: Any = [user("one two")]
    options: Any = {"stream_options": {"include_usage": True}} if stream else {}
    made: Any = client.chat.completions.create(
        model="scripted", messages=messages, n=8, seed=2**63 - 2, stream=stream, **options
    )
    if stream:
        texts, reasons, [counts] = streamed(made)
    else:
        texts = {one.index: one.message.content for one in made.choices}
        reasons = {one.index: one.finish_reason for one in made.choices}
        counts = made.usage
    assert texts == dict.fromkeys(range(8), "one two")
    assert reasons == dict.fromkeys(range(8), "stop")
    seeds = [ask.sampling.seed for ask in ENGINE.asked[asked:]]
    assert seeds == [2**63 - 2, 2**63 - 1, *range(6)]
    assert (counts.prompt_tokens, counts.completion_tokens, counts.total_tokens) == (5, 24, 29)
    assert counts.prompt_tokens_details.cached_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", [False, True])
def test_every_prompt_of_a_list_has_its_answers_in_order(
    client: openai.OpenAI, stream: bool, echo: bool
) -> None:
    prompts = ["one", "two words", ""]
    made: Any = client.completions.create(
        model="scripted", prompt=prompts, n=2, echo=echo, stream=stream
    )
    texts = streamed(made)[0] if stream else {one.index: one.text for one in made.choices}
    answers = [" one", " two words", ""]
    expected = [
        (prompt or " ") + answer if echo else answer
        for prompt, answer in zip(prompts, answers, strict=True)
        for _ in "ab"
    ]
    assert texts == dict(enumerate(expected))
    if not stream:
        assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (15, 2 * (2 + 3 + 1))


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("chat/completions", {"n": 9}, "n"),
        ("chat/completions", {"n": 0}, "n"),
        ("chat/completions", {"n": "2"}, "n"),
        ("completions", {"prompt": ["a"] * 9}, "prompt"),
        ("completions", {"prompt": [1, "a"]}, "prompt"),
        ("completions", {"prompt": [[1]] * 9}, "prompt"),
        ("completions", {"prompt": [[]]}, "prompt"),
        ("completions", {"prompt": [-1]}, "prompt"),
        ("completions", {"prompt": [1.5]}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
    ],
)
def test_too_many_answers_are_an_error(
    plain: httpx.Client, path: str, fields: dict[str, Any], param: str
) -> None:
    body = {"messages": [user("one")]} if path.startswith("chat") else {"prompt": "one"}
    reply = plain.post(f"/v1/{path}", json=body | fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def _waits(queue: RequestQueue, *, admitted: bool) -> bool:
    waiting: list[bool] = []
    task = asyncio.ensure_future(
        queue.acquire("b", retry_after=1, admitted=admitted, on_wait=lambda: waiting.append(True))
    )
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return bool(waiting)


def test_a_further_answer_is_not_rejected_when_the_queue_is_full() -> None:
    async def both() -> tuple[bool, bool]:
        queue = RequestQueue(0)
        await queue.acquire("a", retry_after=1)
        return await _waits(queue, admitted=False), await _waits(queue, admitted=True)

    assert asyncio.run(both()) == (False, True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/api/chat"])
def test_the_tokens_of_logprobs_join_to_exactly_the_text(plain: httpx.Client, path: str) -> None:
    body: dict[str, Any] = {"messages": [user("grün ist")], "logprobs": True, "top_logprobs": 2}
    if path == "/v1/responses":
        body = {"input": "grün ist", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    made = plain.post(path, json=body | {"stream": False}).json()
    if path == "/v1/responses":
        part = made["output"][0]["content"][0]
        text, tokens = part["text"], part["logprobs"]
    elif path == "/api/chat":
        text, tokens = made["message"]["content"], made["logprobs"]
    else:
        [choice] = made["choices"]
        text, tokens = choice["message"]["content"], choice["logprobs"]["content"]
    assert text == "grün ist"
    assert [one["token"] for one in tokens] == ["grün", " ist"]
    assert b"".join(bytes(one["bytes"]) for one in tokens).decode() == text
    assert [one["token"] for one in tokens[0]["top_logprobs"]] == ["grün", "grün"]
