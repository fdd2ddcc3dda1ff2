"""Requests as other programs send them are answered; tests/server/requests has one of each kind."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from PIL import Image

from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.events import TextDelta, TurnsDropped
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.server.guard import Access
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.worker.client import Outcome
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.chat_client import client_of
from tests.helpers.scripted_server import ScriptedEngine, running

JSON = {"content-type": "application/json"}
REQUESTS = Path(__file__).with_name("requests")
MORE: dict[str, dict[str, Any]] = json.loads((REQUESTS / "more.json").read_text(encoding="utf-8"))
"""Bodies in the form of further programs, all of which are answered."""
EXPECTED: dict[str, dict[str, Any]] = json.loads((REQUESTS / "expected.json").read_text())


class DecodingEngine(ScriptedEngine):
    """Opens the picture and counts the turns of a request, as the real engine does."""

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        self.extra = [TurnsDropped(count=20)] if len(ask.history) > 100 else []
        if ask.image is not None:
            try:
                open_image(ask.image, page=ask.page)
            except ImageError as error:
                deliver(error)
                return ask.request
        return super().submit(ask, deliver)


ENGINE = DecodingEngine()


@pytest.fixture(scope="module")
def tolerant() -> Iterator[httpx.Client]:
    with (
        running(ENGINE, limits=Limits(), model="demo") as server,
        client_of(server) as client,
    ):
        yield client


def request_body(name: str) -> bytes:
    """Return a stored request; the large ones are compressed."""
    packed = REQUESTS / f"{name}.gz"
    return (
        gzip.decompress(packed.read_bytes()) if packed.exists() else (REQUESTS / name).read_bytes()
    )


def path_of(body: dict[str, Any]) -> str:
    if "input" in body:
        return "/v1/responses"
    return "/v1/chat/completions" if "messages" in body else "/v1/completions"


@pytest.mark.parametrize("name", EXPECTED)
def test_a_request_of_another_program_gets_the_wanted_status(
    tolerant: httpx.Client, name: str
) -> None:
    raw = request_body(name)
    reply = tolerant.post(path_of(json.loads(raw)), content=raw, headers=JSON)
    wanted = EXPECTED[name]["wanted"]
    if wanted == "4xx":
        assert 400 <= reply.status_code < 500, reply.text[:300]
    else:
        assert reply.status_code == wanted, reply.text[:300]


@pytest.mark.parametrize("name", MORE)
def test_a_request_of_one_more_program_is_answered(tolerant: httpx.Client, name: str) -> None:
    reply = tolerant.post(path_of(MORE[name]), json=MORE[name])
    assert reply.status_code == 200, reply.text[:300]


SCHEMA = {
    "type": "object",
    "properties": {"sign": {"type": "string"}},
    "required": ["sign"],
    "additionalProperties": False,
}
HELLO = {"role": "user", "content": "hello"}


def asked_by(client: httpx.Client, engine: ScriptedEngine, **fields: Any) -> tuple[Ask, Any]:
    """Send a chat request; return what the engine got, and the reply."""
    reply = client.post("/v1/chat/completions", json={"messages": [HELLO], **fields})
    assert reply.status_code == 200, reply.text
    return engine.asked[-1], reply


@pytest.fixture(scope="module")
def engine(tolerant: httpx.Client) -> ScriptedEngine:
    return ENGINE


def test_what_was_left_out_is_in_the_reply_the_header_and_once_in_the_log(
    tolerant: httpx.Client, engine: ScriptedEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    fields = {
        "min_p_new": 0.1, "tools": [{"type": "function"}], "stream_options": {"odd": 1},
        "metadata": {"a": "b"}, "grammar": None, "logit_bias": {},
    }  # fmt: skip
    for _ in range(2):
        _, reply = asked_by(tolerant, engine, **fields)
        ignored = ["tools", "min_p_new", "stream_options.odd"]
        assert reply.json()["cogvlm2"]["ignored"] == ignored
        assert reply.headers["x-cogvlm2-ignored"] == ", ".join(ignored)
    assert capfd.readouterr().err.count("min_p_new") == 1
    _, plain = asked_by(tolerant, engine)
    assert plain.json()["cogvlm2"] is None
    assert "x-cogvlm2-ignored" not in plain.headers


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"max_tokens": -1}, "max_new_tokens", 8192),
        ({"max_tokens": 32000}, "max_new_tokens", 8192),
        ({"max_completion_tokens": 0}, "max_new_tokens", 2048),
        ({"n_predict": 7}, "max_new_tokens", 7),
        ({"top_k": -1}, "top_k", 0),
        ({"seed": -1}, "seed", None),
        ({"seed": 2**64 - 1}, "seed", 2**63 - 1),
        ({"stop": ["", "x", None]}, "stop", ("x",)),
        ({"stop": ""}, "stop", ()),
        ({"repeat_penalty": 1.1}, "repetition_penalty", 1.1),
        ({"logprobs": True, "top_logprobs": 50}, "logprobs", 20),
        ({"response_format": "json_object"}, "json_object", True),
        ({"response_format": "text"}, "json_object", False),
        ({"response_format": {"type": "json_object"}, "stop": "x"}, "stop", ()),
        ({"response_format": {"type": "json_object"}, "stop": "x"}, "json_object", True),
        ({"guided_json": SCHEMA}, "json_schema", json.dumps(SCHEMA)),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", json.dumps(SCHEMA)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            "json_schema",
            json.dumps(SCHEMA),
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            "json_schema",
            json.dumps(SCHEMA),
        ),
    ],
)  # fmt: skip
def test_values_that_others_clamp_reach_the_engine(
    tolerant: httpx.Client, engine: ScriptedEngine, fields: dict[str, Any], name: str, value: Any
) -> None:
    ask, _ = asked_by(tolerant, engine, **fields)
    assert getattr(ask.sampling, name) == value


def test_top_p_of_zero_keeps_the_most_likely_token_alone(
    tolerant: httpx.Client, engine: ScriptedEngine
) -> None:
    ask, _ = asked_by(tolerant, engine, top_p=0)
    assert 0 < ask.sampling.top_p < 1e-5


@pytest.mark.parametrize(
    ("messages", "history", "question", "continued"),
    [
        ([HELLO, {"role": "assistant", "content": "The sign"}], (), "hello", " The sign"),
        ([{"role": "assistant", "content": "The sign"}], (), " ", " The sign"),
        (
            [{"role": "user", "content": ""}, {"role": "assistant", "content": "The sign"}],
            (),
            " ",
            " The sign",
        ),
        ([HELLO, {"role": "system", "content": "briefly"}], (), "hello\nbriefly", ""),
        ([{"role": "system", "content": "nice"}], (), "nice", ""),
        ([{"role": "assistant", "content": "Hi"}, HELLO], (("", "Hi"),), "hello", ""),
        (
            [{"role": "user", "content": ""}, {"role": " User ", "content": "hello"}],
            (),
            "hello",
            "",
        ),
        ([{"role": "user", "content": ["a", {"type": "text", "text": "b"}]}], (), "a\nb", ""),
        (
            [
                HELLO,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "content": "42", "tool_call_id": "1"},
                {"role": "user", "content": "so?"},
            ],
            (("hello", "[Call of f: {}]"),),
            "[Result: 42]\nso?",
            "",
        ),
    ],
)
def test_conversations_as_programs_write_them(
    tolerant: httpx.Client,
    engine: ScriptedEngine,
    messages: list[Any],
    history: tuple[tuple[str, str], ...],
    question: str,
    continued: str,
) -> None:
    ask, _ = asked_by(tolerant, engine, messages=messages)
    assert (ask.history, ask.question, ask.continue_from) == (history, question, continued)


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def data_url(color: str) -> tuple[str, bytes]:
    file = BytesIO()
    Image.new("RGB", (30, 20), color).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(), file.getvalue()


def test_pictures_in_the_results_of_tools_are_shown_to_the_model(
    tolerant: httpx.Client, engine: ScriptedEngine
) -> None:
    red, of_red = data_url("red")
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [
        HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "name": "look", "content": [{"type": "text", "text": "ok"}, part(red)]},
    ]
    ask, _ = asked_by(tolerant, engine, messages=turns)
    assert (ask.image, ask.question) == (of_red, "[Result of look: ok]")
    for output in ([{"type": "input_image", "image_url": red}], {"image_url": red}):
        items = [{"type": "computer_call_output", "call_id": "1", "output": output}]
        reply = tolerant.post("/v1/responses", json={"input": items})
        assert reply.status_code == 200, reply.text
        assert engine.asked[-1].image == of_red


def test_a_file_part_may_hold_a_picture(tolerant: httpx.Client, engine: ScriptedEngine) -> None:
    red, of_red = data_url("red")
    file = {"filename": "a.png", "file_data": red}
    turns = [{"role": "user", "content": [{"type": "file", "file": file}]}]
    ask, _ = asked_by(tolerant, engine, messages=turns)
    assert ask.image == of_red
    for pdf in ({"file_data": "data:application/pdf;base64,AAAA"}, {"file_id": "file-1"}, {}):
        turns = [{"role": "user", "content": [{"type": "file", "file": pdf}]}]
        reply = tolerant.post("/v1/chat/completions", json={"messages": turns})
        assert reply.status_code == 400


@pytest.mark.parametrize(
    ("item", "history"),
    [
        ({"type": "custom_tool_call", "name": "patch", "input": "x"}, "[Call of patch: x]"),
        ({"type": "mcp_call", "name": "f", "arguments": "{}", "output": None}, "[Call of f: {}]"),
        (
            {"type": "local_shell_call", "action": {"command": ["ls"]}},
            '[Call of local_shell_call: {"command": ["ls"]}]',
        ),
    ],
)
def test_calls_of_a_response_become_text(
    tolerant: httpx.Client, engine: ScriptedEngine, item: dict[str, Any], history: str
) -> None:
    for result in ("custom_tool_call_output", "local_shell_call_output", "function_call_output"):
        items = [HELLO, item, {"type": result, "call_id": "1", "output": "done"}]
        reply = tolerant.post("/v1/responses", json={"input": items})
        assert reply.status_code == 200, reply.text
        ask = engine.asked[-1]
        assert (ask.history, ask.question) == ((("hello", history),), "[Result: done]")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("reasoning", 200),
        ("web_search_call", 200),
        ("mcp_list_tools", 200),
        ("item_reference", 400),
    ],
)
def test_items_that_say_nothing_are_ignored_but_not_those_that_are_elsewhere(
    tolerant: httpx.Client, kind: str, status: int
) -> None:
    reply = tolerant.post("/v1/responses", json={"input": [{"type": kind, "id": "x"}, HELLO]})
    assert reply.status_code == status
    if status == 200:
        assert reply.json()["cogvlm2"]["ignored"] == [f"input.{kind}"]


@pytest.mark.parametrize(("given", "count"), [(False, None), (True, 1), (9, 5), (0, 0)])
def test_logprobs_of_a_completion_are_clamped(
    tolerant: httpx.Client, engine: ScriptedEngine, given: Any, count: int | None
) -> None:
    reply = tolerant.post("/v1/completions", json={"prompt": "hello", "logprobs": given})
    assert reply.status_code == 200, reply.text
    assert engine.asked[-1].sampling.logprobs == count


def test_of_several_pictures_the_newest_counts_wherever_it_is(
    tolerant: httpx.Client, engine: ScriptedEngine
) -> None:
    (red, _), (green, of_green) = data_url("red"), data_url("green")
    turns = [
        {"role": "user", "content": [part(red), {"type": "text", "text": "a"}]},
        {"role": "assistant", "content": [part(green), {"type": "text", "text": "b"}]},
        {"role": "user", "content": "c"},
    ]
    ask, reply = asked_by(tolerant, engine, messages=turns)
    assert ask.image == of_green
    assert ask.history == (("a", "b"),)
    assert "2 pictures" in reply.json()["cogvlm2"]["notices"][0]
    assert "2 pictures" in reply.headers["x-cogvlm2-notice"]


def test_several_pictures_can_be_refused() -> None:
    turns = [{"role": "user", "content": [part(data_url("red")[0]), part(data_url("blue")[0])]}]
    with (
        running(limits=Limits(pictures="refuse")) as server,
        client_of(server) as client,
    ):
        reply = client.post("/v1/chat/completions", json={"messages": turns})
    assert reply.json()["error"]["code"] == "too_many_images"


def test_a_picture_without_words_is_described(
    tolerant: httpx.Client, engine: ScriptedEngine
) -> None:
    turns = [{"role": "user", "content": [part(data_url("red")[0])]}]
    ask, _ = asked_by(tolerant, engine, messages=turns)
    assert ask.question == "Describe this image."


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_function_is_called_with_the_answer(
    tolerant: httpx.Client, engine: ScriptedEngine, stream: bool
) -> None:
    with OpenAI(base_url=f"{tolerant.base_url}/v1", api_key="x") as client:
        create: Any = client.chat.completions.create
        made = create(
            model="demo",
            messages=[{"role": "user", "content": "hello there"}],
            tools=[{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
            tool_choice={"type": "function", "function": {"name": "f"}},
            stream=stream,
        )
        deltas = [c.choices[0].delta for c in made] if stream else [made.choices[0].message]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert calls[0].function.name == "f"
    assert "".join(call.function.arguments for call in calls) == "hello there"
    assert engine.asked[-1].sampling.json_schema == json.dumps(SCHEMA)
    reply = tolerant.post(
        "/v1/chat/completions",
        json={"messages": [HELLO], "tools": [{}], "tool_choice": "required"},
    )
    assert reply.status_code == 400


def test_only_the_new_text_of_a_continued_answer_is_sent(
    tolerant: httpx.Client, engine: ScriptedEngine
) -> None:
    engine.extra = [TextDelta(text=" The sign")]  # the engine repeats what it continues
    turns = [HELLO, {"role": "assistant", "content": "The sign"}]
    _, reply = asked_by(tolerant, engine, messages=turns)
    assert reply.json()["choices"][0]["message"]["content"] == " hello"


def test_other_programs_may_send_the_key_in_a_header_of_its_own() -> None:
    key = "a-key-of-sixteen-letters"
    with (
        running(access=Access(key=key, origins=("app://obsidian.md",))) as server,
        client_of(server) as client,
    ):
        assert client.get("/v1/models", headers={"x-api-key": key}).status_code == 200
        assert client.get("/v1/models", headers={"x-api-key": key[:-1]}).status_code == 401
        preflight = client.options(
            "/v1/models",
            headers={
                "origin": "app://obsidian.md",
                "access-control-request-headers": "X-Stainless-Lang, authorization",
            },
        )
        assert preflight.status_code == 204
        allowed = preflight.headers["access-control-allow-headers"]
        assert allowed == "x-stainless-lang, authorization"


def test_client_libraries_recognise_a_conversation_that_is_too_long(
    tolerant: httpx.Client, engine: ScriptedEngine
) -> None:
    """litellm and others look for OpenAI's sentence and not for the code."""
    turns = [turn for _ in range(101) for turn in (HELLO, {"role": "assistant", "content": "b"})]
    reply = tolerant.post("/v1/chat/completions", json={"messages": [*turns, HELLO]})
    error = reply.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "This model's maximum context length is 64 tokens." in error["message"]
