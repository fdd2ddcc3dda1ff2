"""The API over a scripted engine: shapes, errors, the queue, hang-ups, deaths."""

from __future__ import annotations

import base64
import io
import json
import threading
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cogvlm2_lite.errors import (
    CheckpointError,
    DoesNotFitError,
    ImageError,
    PromptTooLongError,
)
from cogvlm2_lite.events import PictureOpened, TurnsDropped
from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.bodies import ChatRequest, CompletionRequest, ResponseRequest
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.requests import AnswerRequest, answer_request, read_request
from cogvlm2_lite.server.validation import read_json
from cogvlm2_lite.text import Text
from tests.helpers.chat_client import (
    CHAT,
    OTHER,
    PNG,
    ask,
    client_of,
    in_thread,
    picture,
    text,
    user,
)
from tests.helpers.pages import three_pages
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S, wait_until


def test_an_answer_has_openais_shape_and_exact_counts(client: httpx.Client) -> None:
    body = client.post(CHAT, json={"messages": [user(text("hello there"), picture(PNG))]}).json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "hello there"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 14,
        "completion_tokens": 3,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 9},
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
            "audio_tokens": 0,
            "reasoning_tokens": 0,
        },
    }


def test_a_stream_has_openais_shape_and_ends_with_done(client: httpx.Client) -> None:
    reply = ask(client, stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    words = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert words == "hello there"
    assert chunks[-1]["usage"]["total_tokens"] == 8
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_roles_become_turns_and_the_system_text_stands_before_its_question(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        user(text("one"), picture(PNG)),
        {"role": "assistant", "content": "ONE"},
        user(picture(PNG), text("two")),
    ]
    reply = client.post(CHAT, json={"messages": messages, "stop": "x", "seed": 4, "top_k": 3})
    assert reply.status_code == 200
    asked = engine.asked[-1]
    assert (asked.question, asked.history) == ("two", (("Be short.\none", "ONE"),))
    assert asked.image == b"one picture"
    assert (asked.sampling.stop, asked.sampling.seed, asked.sampling.top_k) == (("x",), 4, 3)


def test_completions_take_bare_text(client: httpx.Client, engine: ScriptedEngine) -> None:
    body = client.post("/v1/completions", json={"prompt": "once upon", "max_tokens": 7}).json()
    assert body["choices"][0]["text"] == " once upon"
    assert (engine.asked[-1].template, engine.asked[-1].sampling.max_new_tokens) == ("base", 7)


def test_json_is_asked_of_the_engine(client: httpx.Client, engine: ScriptedEngine) -> None:
    for kind in ("json_object", "text"):
        assert ask(client, response_format={"type": kind}).status_code == 200
    assert [a.sampling.json_object for a in engine.asked[-2:]] == [True, False]


def test_likelihoods_have_openais_shape_whole_and_streamed(client: httpx.Client) -> None:
    def entry(word: str) -> dict[str, Any]:
        one = {"token": word, "logprob": -0.5, "bytes": list(word.encode())}
        return {**one, "top_logprobs": [one, one]}

    expected = [entry("hello"), entry(" there")]
    whole = ask(client, logprobs=True, top_logprobs=2).json()["choices"][0]
    assert whole["logprobs"] == {"content": expected, "refusal": None}
    lines = ask(client, logprobs=True, top_logprobs=2, stream=True).text.splitlines()
    chunks = [json.loads(x[6:])["choices"][0] for x in lines if x.startswith("data: {")]
    streamed = [e for c in chunks if c["logprobs"] for e in c["logprobs"]["content"]]
    assert streamed == expected
    assert ask(client).json()["choices"][0]["logprobs"] is None


def test_likelihoods_of_bare_text_are_lists(client: httpx.Client) -> None:
    body = {"prompt": "hello there", "logprobs": 1}
    choice = client.post("/v1/completions", json=body).json()["choices"][0]
    assert choice["logprobs"] == {
        "tokens": [" hello", " there"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{" hello": -0.5}, {" there": -0.5}],
        "text_offset": [0, 6],
    }
    refused = client.post("/v1/completions", json={**body, "logprobs": 6})
    assert refused.json()["error"]["param"] == "logprobs"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": [user(picture(PNG), picture(OTHER), text("?"))]}, "messages", "two"),
        ({"messages": [user(picture("https://example.org/a.png"), text("?"))]}, None, "web"),
        ({"messages": [user(picture("file:///etc/passwd"), text("?"))]}, None, "files"),
        ({"messages": [user(picture("data:image/png;base64,@@@"), text("?"))]}, None, "base64"),
        ({"messages": []}, "messages", "an empty list"),
        ({"messages": None}, "messages", "missing"),
        ({"messages": [{"role": "pirate", "content": "?"}]}, "messages[0].role", 'not "pirate"'),
        ({"messages": [{"role": "assistant", "content": "?"}]}, "messages[0]", "question"),
        ({"messages": [user("  ")]}, "messages", "empty"),
        ({"temperature": 3}, "temperature", "between 0 and 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "above 0"),
        ({"max_tokens": 0}, "max_tokens", "1 or more"),
        ({"max_completion_tokens": 9999}, "max_completion_tokens", "8192"),
        ({"seed": -1}, "seed", "between"),
        ({"n": 9}, "n", "between 1 and 8"),
        ({"stop": [""]}, "stop", "characters"),
        ({"stop": False}, "stop", "string of 1 to 200 characters or a list"),
        ({"stream": 1}, "stream", "true or false"),
        ({"logprobs": 1}, "logprobs", "true or false"),
        ({"top_logprobs": 3}, "top_logprobs", "needs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "between 0 and 20"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "JSON schema",
        ),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "must be"),
        ({"response_format": "json_object"}, "response_format", "must be"),
        ({"response_format": {"type": "json_object"}, "stop": "}"}, "stop", "JSON"),
        ({"frequency_penalty": 2.5}, "frequency_penalty", "between -2 and 2"),
        ({"presence_penalty": "x"}, "presence_penalty", "must be a number between -2 and 2"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"temprature": 1}, "temprature", "did you mean temperature"),
        (
            {"messages": [{**user("hi"), "nme": "me"}]},
            "messages[0].nme",
            "did you mean name",
        ),
        ({"stream_options": {"include": True}}, "stream_options.include", "Unknown field"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", 'missing: it must be "system", '),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing: it must be a string"),
        (
            {"messages": [{"role": "system", "content": [{"text": "x"}]}, user("hi")]},
            "messages[0].content[0].type",
            'missing: it must be "text"',
        ),
        ({"messages": [user({"type": "text"})]}, "messages[0].content", "must be a string or"),
        (
            {"messages": [user(text("x"), {"type": "text"})]},
            "messages[0].content[1].text",
            "missing",
        ),
        (
            {"messages": [user(text("x"), 5)]},
            "messages[0].content[1]",
            "an object with a type, not 5",
        ),
        ({"seed": 2**63}, "seed", "between 0 and 2^63 - 1"),
        ({"user": "x", "model": ["a" * 99]}, "model", "must be a string, not a list of 1"),
    ],
)
def test_what_makes_no_sense_is_a_400_that_names_the_field(
    client: httpx.Client, fields: dict[str, Any], param: str | None, words: str
) -> None:
    reply = client.post(CHAT, json={"messages": [user("hi")], **fields})
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]
    assert param is None or error["param"] == param


def test_neutral_values_of_missing_features_are_taken(client: httpx.Client) -> None:
    neutral: dict[str, Any] = {
        "logprobs": False,
        "frequency_penalty": 0,
        "response_format": {"type": "text"},
    }
    assert ask(client, **neutral, n=1, user="me", metadata={}).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PromptTooLongError("Too long."), 400, "context_length_exceeded"),
        (ImageError("The picture is damaged."), 400, "invalid_image"),
        (DoesNotFitError("No memory."), 503, "out_of_memory"),
        (CheckpointError("/secret/path is bad."), 500, "engine_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_of_the_engine_have_their_status(
    client: httpx.Client, engine: ScriptedEngine, error: Any, status: int, code: str, stream: bool
) -> None:
    engine.error = error
    reply = ask(client, stream=stream)
    engine.error = None
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert "secret" not in reply.text


def test_turns_are_left_out_only_where_that_was_asked_for(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    engine.extra = [TurnsDropped(count=2)]
    refused = ask(client)
    taken = ask(client, truncation="auto")
    engine.extra = []
    assert refused.status_code == 400
    assert "oldest turns (2)" in refused.json()["error"]["message"]
    assert taken.status_code == 200


NOTICE = PictureOpened(
    page=2, pages=3, notices=(Text("{file} is page 2 of {pages}.", file="图.tif", pages=3),)
)
REPORT = {
    "ignored": [],
    "page": 2,
    "pages": 3,
    "notices": ["图.tif is page 2 of 3."],
    "texts": {
        "notices": [
            {
                "template": "{file} is page 2 of {pages}.",
                "values": {"file": "图.tif", "pages": 3},
            }
        ]
    },
}


@pytest.mark.parametrize("extra", [[NOTICE], [TurnsDropped(count=1), NOTICE]])
def test_how_the_picture_was_read_is_in_the_reply_and_in_a_header(
    client: httpx.Client, engine: ScriptedEngine, extra: list[Any]
) -> None:
    engine.extra = extra
    fields = {"messages": [user(text("hello there"), picture(PNG))], "truncation": "auto"}
    whole = client.post(CHAT, json=fields)
    assert whole.json()["cogvlm2"] == REPORT
    stream = client.post(CHAT, json={**fields, "stream": True})
    chunks = [json.loads(line[6:]) for line in stream.text.split("\n\n")[:-2]]
    assert [chunk.get("cogvlm2") for chunk in chunks] == [REPORT, None, None, None]
    parts = {"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": PNG}
    asked = {"input": [user(*parts)], "truncation": "auto"}
    response = client.post("/v1/responses", json=asked)
    assert response.json()["cogvlm2"] == REPORT
    events = client.post("/v1/responses", json={**asked, "stream": True})
    first = json.loads(events.text.split("\n\n")[0].partition("data: ")[2])
    assert first["response"]["cogvlm2"] == REPORT
    engine.extra = []
    for reply in (whole, stream, response, events):
        assert reply.status_code == 200
        assert reply.headers["x-cogvlm2-notice"] == "\\u56fe.tif is page 2 of 3."
    ordinary = client.post(CHAT, json=fields)
    assert ordinary.json()["cogvlm2"] is None
    assert "x-cogvlm2-notice" not in ordinary.headers


@pytest.mark.parametrize("field", ["chat", "url", "responses"])
def test_a_page_of_a_picture_can_be_asked_for(
    client: httpx.Client, engine: ScriptedEngine, field: str
) -> None:
    before = len(engine.asked)
    if field == "responses":
        part: dict[str, Any] = {"type": "input_image", "image_url": PNG, "page": 3}
        asked = {"type": "input_text", "text": "hi"}
        reply = client.post("/v1/responses", json={"input": [user(asked, part)]})
    else:
        part = picture(PNG)
        (part if field == "chat" else part["image_url"])["page"] = 3
        reply = client.post(CHAT, json={"messages": [user(text("hi"), part)]})
    assert reply.status_code == 200
    assert [ask.page for ask in engine.asked[before:]] == [3]


def test_another_page_is_another_picture(client: httpx.Client) -> None:
    turns = [
        user(text("a"), {**picture(PNG), "page": 1}),
        {"role": "assistant", "content": "b"},
        user(text("c"), {**picture(PNG), "page": 2}),
    ]
    reply = client.post(CHAT, json={"messages": turns})
    assert reply.json()["error"]["code"] == "too_many_images"
    wrong = client.post(CHAT, json={"messages": [user(text("a"), {**picture(PNG), "page": 0})]})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "messages[0].content[1].page"


def test_models_plan_health_and_metrics(client: httpx.Client) -> None:
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["scripted"]
    assert client.get("/v1/models/scripted").json()["id"] == "scripted"
    assert client.get("/v1/models/other").status_code == 404
    assert ask(client, model="other").json()["error"]["code"] == "model_not_found"
    assert client.get("/v1/plan").json()["plan"] == {"peak_bytes": 17}
    assert client.get("/health").json()["status"] == "ready"
    assert ask(client).status_code == 200
    page = client.get("/metrics").text
    assert 'cogvlm2_answers_total{reason="eos"}' in page
    assert "cogvlm2_engine_ready 1" in page
    assert client.get("/nowhere").json()["error"]["type"] == "not_found_error"
    assert client.get(CHAT).status_code == 405


def test_while_the_model_loads_requests_get_503() -> None:
    engine = ScriptedEngine(loads=False)
    with running(engine) as server, client_of(server) as client:
        reply = ask(client)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert client.get("/health").status_code == 503
        assert client.get("/v1/plan").status_code == 503


def test_a_full_queue_is_a_429_with_retry_after() -> None:
    engine = ScriptedEngine()
    with running(engine, max_waiting=1) as server, client_of(server) as client:
        replies: list[int] = []
        threads = [in_thread(lambda: replies.append(ask(client, "wait").status_code)) for _ in "ab"]
        wait_until(lambda: server.service.waiting == 1)
        reply = ask(client)
        assert reply.status_code == 429
        assert int(reply.headers["retry-after"]) >= 1
        engine.go.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert replies == [200, 200]


def test_clients_take_turns() -> None:
    engine = ScriptedEngine()
    with running(engine, max_waiting=20) as server, client_of(server) as client:
        threads = [in_thread(lambda: ask(client, "wait", user="greedy"))]
        assert engine.begun.wait(PATIENCE_S)
        for number, name in enumerate(["greedy", "greedy", "greedy", "other"]):
            threads.append(in_thread(lambda n=name: ask(client, n, user=n)))
            wait_until(lambda n=number: server.service.waiting == n + 1)
        engine.go.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    order = [a.question for a in engine.asked]
    assert order.index("other") <= 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_turn(stream: bool) -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        body = {"messages": [user("wait for ever")], "stream": stream}
        leaving = httpx.Client(base_url=server.address)
        thread = in_thread(lambda: swallow(leaving, body))
        assert engine.begun.wait(PATIENCE_S)
        hang_up(leaving)
        assert engine.over.wait(PATIENCE_S)
        assert ask(client).status_code == 200
        thread.join(PATIENCE_S)


def test_a_client_that_hangs_up_in_the_line_leaves_it() -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        first = in_thread(lambda: ask(client, "wait"))
        assert engine.begun.wait(PATIENCE_S)
        leaving = httpx.Client(base_url=server.address)
        thread = in_thread(lambda: swallow(leaving, {"messages": [user("never asked")]}))
        wait_until(lambda: server.service.waiting == 1)
        hang_up(leaving)
        wait_until(lambda: server.service.waiting == 0)
        engine.go.set()
        first.join(PATIENCE_S)
        thread.join(PATIENCE_S)
        assert [a.question for a in engine.asked] == ["wait"]


def test_the_engines_death_is_a_503_and_those_in_the_line_are_answered() -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        replies: dict[str, httpx.Response] = {}

        def put(words: str) -> threading.Thread:
            return in_thread(lambda: replies.__setitem__(words, ask(client, words)))

        first = put("wait")
        assert engine.begun.wait(PATIENCE_S)
        second = put("patient")
        wait_until(lambda: server.service.waiting == 1)
        engine.die()
        first.join(PATIENCE_S)
        second.join(PATIENCE_S)
        assert replies["wait"].status_code == 503
        assert "killed" in replies["wait"].json()["error"]["message"]
        assert replies["patient"].status_code == 200
        assert engine.starts == 2


def test_an_answer_that_takes_too_long_is_ended_cleanly() -> None:
    engine = ScriptedEngine()
    with running(engine, limits=Limits(answer_s=0.05)) as server, client_of(server) as client:
        body = ask(client, "wait more").json()
        assert body["choices"][0]["finish_reason"] == "length"


def test_stopping_ends_a_stream_cleanly() -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        lines: list[str] = []
        thread = in_thread(lambda: lines.extend(ask(client, "wait", stream=True).text.split("\n")))
        assert engine.begun.wait(PATIENCE_S)
        server.stop()
        thread.join(PATIENCE_S)
        assert "data: [DONE]" in lines


def test_fifty_clients_at_once_lose_and_cross_nothing() -> None:
    engine = ScriptedEngine()
    with running(engine, max_waiting=64) as server, client_of(server) as client:
        answers: dict[int, str] = {}

        def put(number: int) -> None:
            body = ask(client, f"question {number}", user=str(number % 7)).json()
            answers[number] = body["choices"][0]["message"]["content"]

        threads = [in_thread(lambda n=n: put(n)) for n in range(50)]
        for thread in threads:
            thread.join(PATIENCE_S)
        assert answers == {n: f"question {n}" for n in range(50)}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
field_names = st.sampled_from(
    ["messages", "model", "stop", "seed", "n", "stream", "stream_options", "temperature", "top_k",
     "max_tokens", "max_completion_tokens", "truncation", "template", "user", "tools", "logprobs",
     "top_logprobs",
     "prompt", "response_format", "echo", "top_p", "input", "instructions", "include", "text",
     "metadata", "store"]
) | st.text(max_size=8)  # fmt: skip
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system", "tool"]) | json_values,
            "content": st.text(max_size=9)
            | json_values
            | st.lists(
                st.fixed_dictionaries(
                    {
                        "type": st.sampled_from(
                            ["text", "image_url", "input_text", "input_image", 3]
                        )
                    },
                    optional={"text": json_values, "image_url": json_values},
                ),
                max_size=3,
            ),
        },
    ),
    max_size=4,
)
LENIENT = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=1000, deadline=None, suppress_health_check=LENIENT)
@given(
    st.dictionaries(field_names, json_values, max_size=4),
    st.none() | messages,
    st.sampled_from([ChatRequest, CompletionRequest, ResponseRequest]),
)
def test_mutated_bodies_are_read_or_refused_with_a_400(
    fields: dict[str, Any], conversation: object, kind: Any
) -> None:
    messages_field = "input" if kind is ResponseRequest else "messages"
    values = (
        {messages_field: [user("hi")], **fields}
        if conversation is None
        else {**fields, messages_field: conversation}
    )
    try:
        values = read_json(json.dumps(values).encode())
        outcome: Any = answer_request(read_request(values, kind), Limits())
    except ApiError as error:
        outcome = error
    assert outcome.question if isinstance(outcome, AnswerRequest) else outcome.status == 400


@settings(max_examples=60, deadline=None, suppress_health_check=LENIENT)
@given(
    st.binary(max_size=80)
    | st.dictionaries(field_names, json_values).map(json.dumps).map(str.encode)
)
def test_no_body_gives_a_500(client: httpx.Client, body: bytes) -> None:
    for path in (CHAT, "/v1/completions"):
        headers = {"content-type": "application/json"}
        reply = client.post(path, content=body, headers=headers)
        assert reply.status_code in (200, 400, 404)


def swallow(client: httpx.Client, body: object) -> None:
    try:
        client.post(CHAT, json=body, timeout=PATIENCE_S)
    except httpx.HTTPError:
        return


def hang_up(client: httpx.Client) -> None:
    """Close the client's connection under its reader."""
    import socket

    pool = client._transport._pool  # type: ignore[attr-defined]
    for connection in pool.connections:
        stream = connection._connection._network_stream
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_an_address_works_with_and_without_v1(client: httpx.Client, prefix: str) -> None:
    """Programs add only the last part to the address that a person gives them."""
    [model] = client.get(f"{prefix}/models").json()["data"]
    assert client.get(f"{prefix}/models/{model['id']}").status_code == 200
    asked = {"messages": [{"role": "user", "content": "hello"}]}
    for path, body in (
        ("chat/completions", asked),
        ("completions", {"prompt": "hello"}),
        ("responses", {"input": "hello"}),
    ):
        assert client.post(f"{prefix}/{path}", json=body).status_code == 200
    refused = client.post(f"{prefix}/embeddings", json={"model": model["id"], "input": "hello"})
    assert refused.status_code == 400
    assert "does not support embeddings" in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/v1/chat/completions", "/v1/api/chat", "/v1/images/edits"])
def test_another_address_is_an_error_that_names_the_right_ones(
    client: httpx.Client, path: str
) -> None:
    reply = client.post(path, json={})
    assert reply.status_code == 404
    message = reply.json()["error"]["message"]
    assert message == (
        f"This server has no {path}. OpenAI's API begins with /v1, and Ollama's with /api."
    )


def test_the_page_gets_previews_within_the_limits_of_a_question(client: httpx.Client) -> None:
    path = "/page/preview"
    tiff = base64.b64encode(three_pages()).decode()
    url = f"data:image/tiff;base64,{tiff}"
    reply = client.post(path, json={"picture": url, "page": 2})
    assert reply.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(reply.content)) as preview:
        assert preview.size == (30, 20)
        assert np.asarray(preview)[2, 2, 0] > 150  # the red page
    for body, code in (
        ({"picture": url, "page": 9}, "invalid_image"),
        ({"picture": "data:image/tiff;base64,AAAA"}, "invalid_image"),
        ({"picture": "https://a.example/a.png"}, "invalid_image_url"),
        ({}, None),
    ):
        reply = client.post(path, json=body)
        assert reply.status_code == 400
        assert code in (None, reply.json()["error"]["code"])


def test_a_strict_server_continues_an_answer_that_is_marked(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "so far"}]
    path = "/v1/chat/completions"
    assert client.post(path, json={"messages": messages}).status_code == 400
    body = {"messages": messages, "continue_final_message": True}
    assert client.post(path, json=body).status_code == 200
    assert engine.asked[-1].continue_from == " so far"
    body["messages"] = [*messages, {"role": "system", "content": "x"}]
    assert client.post(path, json=body).status_code == 400
