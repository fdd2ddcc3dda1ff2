"""/v1/responses over a scripted engine: its shapes, its events in order, what it refuses."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from cogvlm2_lite.errors import PromptTooLongError
from tests.helpers.chat_client import OTHER, PNG, client_of, in_thread
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S

RESPONSES = "/v1/responses"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def put(client: httpx.Client, given: Any = "hello there", **fields: Any) -> httpx.Response:
    return client.post(RESPONSES, json={"input": given, **fields})


def picture(url: str = PNG) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def words(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    """Read a stream; each event's name stands beside its data, and its number counts."""
    pieces = [piece.split("\n") for piece in reply.text.split("\n\n") if piece]
    found = [json.loads(data.removeprefix("data: ")) for _, data in pieces]
    assert [name for name, _ in pieces] == [f"event: {event['type']}" for event in found]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    for event in found:
        EVENT.validate_python(event)
    return found


def test_an_answer_has_openais_shape_and_exact_counts(client: httpx.Client) -> None:
    body = put(client, [{"role": "user", "content": [words("hello there"), picture()]}]).json()
    response = Response.model_validate(body)
    assert response.output_text == "hello there"
    assert (response.status, response.error, response.incomplete_details) == (
        "completed",
        None,
        None,
    )
    assert body["usage"] == {
        "input_tokens": 14,
        "input_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 0,
            "image_tokens": 9,
        },
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 17,
    }


def test_a_stream_has_the_official_events_in_order(client: httpx.Client) -> None:
    found = events(put(client, stream=True))
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created", "in_progress", "output_item.added", "content_part.added",
        "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert "".join(e["delta"] for e in found if e["type"].endswith("delta")) == "hello there"
    last = found[-1]["response"]
    assert last["output"][0]["content"][0]["text"] == "hello there"
    assert last["id"] == found[0]["response"]["id"]
    assert found[0]["response"]["status"] == "in_progress"


def test_items_become_turns_and_instructions_stand_before_the_first(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    first = put(client, "one").json()["output"][0]
    given = [
        {"type": "message", "role": "user", "content": [words("one"), picture()]},
        first,
        {"role": "user", "content": "two"},
    ]
    reply = put(client, given, instructions="Be short.", max_output_tokens=7, temperature=0.5)
    assert reply.status_code == 200
    asked = engine.asked[-1]
    assert (asked.question, asked.history) == ("two", (("Be short.\none", "one"),))
    assert asked.image == b"one picture"
    assert (asked.sampling.max_new_tokens, asked.sampling.temperature) == (7, 0.5)
    body = reply.json()
    assert (body["instructions"], body["max_output_tokens"], body["temperature"]) == (
        "Be short.",
        7,
        0.5,
    )


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "whole conversation"),
        ({"store": True}, "store", "stores no answers"),
        ({"input": None}, "input", "missing"),
        ({"input": []}, "input", "an empty list"),
        ({"input": [{"role": "user", "content": [picture(), picture(OTHER)]}]}, "input", "two"),
        ({"input": [{"role": "user", "content": [picture("http://a.b/c.png")]}]}, None, "web"),
        ({"input": [{"type": "function_call_output"}]}, "input[0].type", 'must be "message"'),
        (
            {"input": [{"role": "user", "content": [{"type": "text", "text": "?"}]}]},
            "input[0].content[0].type",
            '"input_text", "output_text" or "input_image"',
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
            "missing",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools", "not supported"),
        ({"background": True}, "background", "not supported"),
        ({"max_tokens": 3}, "max_tokens", "did you mean max_output_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens", "1 or more"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "JSON schema"),
        ({"include": ["file_search_call.results"]}, "include", "contains only"),
        ({"top_logprobs": 2}, "top_logprobs", "include"),
        ({"metadata": 3}, "metadata", "object"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_a_400_that_names_the_field(
    client: httpx.Client, fields: dict[str, Any], param: str | None, said: str
) -> None:
    reply = client.post(RESPONSES, json={"input": "hi", **fields})
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert said in error["message"]
    assert param is None or error["param"] == param


def test_a_conversation_that_is_too_long_is_named_by_its_own_field(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    engine.error = PromptTooLongError("Too long.")
    replies = [put(client), client.post("/v1/completions", json={"prompt": "x"})]
    engine.error = None
    replies.append(put(client, "x" * 500_000))
    assert [reply.json()["error"]["param"] for reply in replies] == ["input", "prompt", "input"]
    assert {reply.json()["error"]["code"] for reply in replies} == {"context_length_exceeded"}


def test_likelihoods_and_json_are_asked_for_in_this_apis_words(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    include = ["message.output_text.logprobs"]
    reply = put(client, include=include, top_logprobs=1, text={"format": {"type": "json_object"}})
    part = reply.json()["output"][0]["content"][0]
    assert [one["token"] for one in part["logprobs"]] == ["hello", " there"]
    assert engine.asked[-1].sampling.json_object
    streamed = events(put(client, include=include, stream=True))
    deltas = [e for e in streamed if e["type"] == "response.output_text.delta"]
    assert [one["token"] for e in deltas for one in e["logprobs"]] == ["hello", " there"]


def test_an_answer_that_was_cut_is_incomplete(engine: ScriptedEngine, client: httpx.Client) -> None:
    from cogvlm2_lite.server.limits import Limits

    with running(limits=Limits(answer_s=0.05)) as server, client_of(server) as hurried:
        body = put(hurried, "wait more").json()
        assert body["status"] == "incomplete"
        assert body["incomplete_details"] == {"reason": "max_output_tokens"}
        last = events(put(hurried, "wait more", stream=True))[-1]
        assert last["type"] == "response.incomplete"


def test_the_engines_death_ends_a_stream_with_its_reason() -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        replies: list[httpx.Response] = []
        thread = in_thread(lambda: replies.append(put(client, "please wait", stream=True)))
        assert engine.begun.wait(PATIENCE_S)
        engine.die()
        thread.join(PATIENCE_S)
        last = events(replies[0])[-1]
        assert last["type"] == "response.failed"
        assert "killed" in last["response"]["error"]["message"]
