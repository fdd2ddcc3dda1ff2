"""Ollama's API, as its own Python client and other programs use it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.events import PictureOpened
from cogvlm2_lite.server.guard import Access
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.ollama import keep_alive_s
from cogvlm2_lite.server.ollama_routes import short_number
from cogvlm2_lite.server.run import LocalServer
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.worker.client import EngineState
from tests.helpers.chat_client import KEY, client_of, in_thread
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.served import PICTURES, Served
from tests.helpers.waiting import PATIENCE_S

BYTES = b"the bytes of a picture, of any kind at all"
PICTURE = base64.b64encode(BYTES).decode()
HELLO = {"role": "user", "content": "hello there"}
ENGINE = ScriptedEngine()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(ENGINE, limits=Limits(), model="demo") as server:
        yield server.address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[ollama.Client]:
    with ollama.Client(address, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture(scope="module")
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=PATIENCE_S) as http:
        yield http


@pytest.fixture(autouse=True)
def loaded() -> None:
    ENGINE.extra = []


@contextmanager
def served(engine: ScriptedEngine) -> Iterator[tuple[LocalServer, ollama.Client]]:
    with (
        running(engine, limits=Limits(), model="demo") as server,
        ollama.Client(server.address, timeout=PATIENCE_S) as client,
    ):
        yield server, client


def wait_until_unloaded(client: ollama.Client) -> None:
    while client.ps().models:
        continue


def lines(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in reply.text.splitlines()]


# --- the official client -------------------------------------------------------------------------


def test_the_client_chats(client: ollama.Client) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "one", "images": [BYTES]},
        {"role": "assistant", "content": "1"},
        HELLO,
    ]
    options = {
        "num_predict": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 5, "stop": ["x"],
        "repeat_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.25, "num_ctx": 8192,
    }  # fmt: skip
    reply = client.chat("demo", messages, options=options, think=False, keep_alive="5m")
    assert reply.message.content == "hello there"
    assert (reply.message.role, reply.model) == ("assistant", "demo")
    assert (reply.done, reply.done_reason) == (True, "stop")
    assert (reply.prompt_eval_count, reply.eval_count) == (14, 3)
    assert (reply.prompt_eval_duration, reply.eval_duration) == (10**8, 10**8)
    assert reply.total_duration is not None
    assert reply.total_duration >= 2 * 10**8
    ask = ENGINE.asked[-1]
    assert ask.image == BYTES
    assert (ask.history, ask.question) == ((("Be short.\none", "1"),), "hello there")
    sampling = ask.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_k) == (7, 0.5, 3)
    assert (sampling.top_p, sampling.seed, sampling.stop) == (0.9, 5, ("x",))
    assert sampling.repetition_penalty == 1.1
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, 0.25)


def test_the_client_reads_a_stream(client: ollama.Client) -> None:
    *pieces, last = client.chat("demo:latest", [HELLO], stream=True)
    assert [piece.message.content for piece in pieces] == ["hello", " there"]
    assert not any(piece.done or piece.done_reason for piece in pieces)
    assert (last.done, last.done_reason, last.eval_count) == (True, "stop", 3)
    assert last.model == "demo:latest"


def test_the_client_generates(client: ollama.Client) -> None:
    reply = client.generate("demo", "hello there", system="Be short.", images=[BYTES])
    assert reply.response == "Be short. hello there"
    assert ENGINE.asked[-1].image == BYTES
    *pieces, last = client.generate("demo", "hello there", stream=True)
    assert "".join(piece.response or "" for piece in pieces) == "hello there"
    assert (last.response, last.done_reason) == ("", "stop")


def test_the_context_of_a_reply_continues_its_conversation(client: ollama.Client) -> None:
    first = client.generate("demo", "hello 你好", system="Be short.")
    assert first.context
    second = client.generate("demo", "and then?", context=first.context)
    ask = ENGINE.asked[-1]
    assert ask.history == (("Be short.\nhello 你好", "Be short. hello 你好"),)
    assert ask.question == "and then?"
    assert second.context
    client.generate("demo", "third", context=second.context)
    assert [question for question, _ in ENGINE.asked[-1].history] == [
        "Be short.\nhello 你好",
        "and then?",
    ]
    for foreign in ([128000, 9906, 1917], [1, 2, 3], list(b'{"a": 1}')):
        client.generate("demo", "third", context=foreign)
        assert ENGINE.asked[-1].history == ()


def test_the_client_lists_and_shows_the_model(client: ollama.Client) -> None:
    [model] = client.list().models
    assert model.model == "demo:latest"
    assert model.digest is not None
    assert len(model.digest) == 64
    for name in ("demo", "demo:latest"):
        shown = client.show(name)
        assert shown.capabilities == ["completion", "vision"]
        assert shown.modelinfo is not None
        assert shown.modelinfo["cogvlm2.context_length"] == 64
        assert shown.details is not None
        assert shown.details.family == "cogvlm2"


CHANGED = "models can't be changed over the API: start `cogvlm2-lite serve`"
PICTURES_FILE = Path(__file__)
"""Any file: a blob of a model, as `ollama create` sends it."""


def test_the_client_sees_errors_as_text(client: ollama.Client) -> None:
    cases: list[tuple[Any, int, str]] = [
        (lambda: client.chat("llava", [HELLO]), 404, "model 'llava' not found"),
        (lambda: client.show("llava"), 404, "not found"),
        (lambda: client.embed("demo", "text"), 400, "does not support embeddings"),
        (lambda: client.embeddings("demo", "text"), 400, "does not support embeddings"),
        (lambda: client.pull("llava"), 404, "model 'llava' not found"),
        (lambda: list(client.pull("llava", stream=True)), 404, "model 'llava' not found"),
        (lambda: client.push("demo"), 400, CHANGED),
        (lambda: list(client.push("demo", stream=True)), 400, CHANGED),
        (lambda: client.push("llava"), 404, "not found"),
        (lambda: client.create("new", from_="demo", system="Be short."), 400, CHANGED),
        (lambda: client.copy("demo", "other"), 400, CHANGED),
        (lambda: client.copy("llava", "other"), 404, "not found"),
        (lambda: client.delete("demo"), 400, CHANGED),
        (lambda: client.delete("llava"), 404, "not found"),
        (lambda: client.create_blob(PICTURES_FILE), 400, CHANGED),
        (
            lambda: client.generate("demo", "x", options={"temperature": 9.0}),
            400,
            "options.temperature must be a number between 0 and 2, not 9",
        ),
        (lambda: client.generate("demo", "x", suffix="y"), 400, "suffix"),
        (lambda: client.chat("demo", [HELLO], keep_alive="long"), 400, "keep_alive must be"),
    ]
    for work, status, words in cases:
        with pytest.raises(ollama.ResponseError) as raised:
            work()
        assert raised.value.status_code == status
        assert words in raised.value.error


@pytest.mark.parametrize("name", ["demo", "demo:latest"])
def test_a_model_that_is_there_is_pulled_as_ollama_does_it(
    client: ollama.Client, name: str
) -> None:
    assert client.pull(name).status == "success"
    steps = list(client.pull(name, stream=True))
    assert [step.status for step in steps if step.digest is None] == [
        "pulling manifest", "verifying sha256 digest", "writing manifest", "success",
    ]  # fmt: skip
    [layer] = [step for step in steps if step.digest is not None]
    assert layer.status == f"pulling {layer.digest.removeprefix('sha256:')[:12]}"
    assert layer.total == layer.completed


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (19_503_443_200, "19.5B"), (8_000_000_000, "8B"), (494_030_000, "494.03M"),
        (7_000_000, "7M"), (22_400, "22K"), (999, "999"),
    ],
)  # fmt: skip
def test_parameters_are_counted_as_ollama_writes_them(count: int, written: str) -> None:
    assert short_number(count) == written


def test_a_blob_is_never_there(http: httpx.Client) -> None:
    assert http.head("/api/blobs/sha256:" + "0" * 64).status_code == 404


def test_a_stream_that_fails_ends_with_an_error() -> None:
    engine = ScriptedEngine()
    with served(engine) as (_, client):
        question = {"role": "user", "content": "one wait"}
        stream = client.chat("demo", [question], stream=True)
        assert next(iter(stream)).message.content == "one"
        in_thread(engine.die)
        with pytest.raises(ollama.ResponseError, match="killed"):
            list(stream)


def test_formats_are_json_or_a_schema(client: ollama.Client, http: httpx.Client) -> None:
    body = {"messages": [HELLO], "format": "json", "options": {"stop": ["x"]}}
    assert http.post("/api/chat", json=body).headers["x-cogvlm2-ignored"] == "options.stop"
    sampling = ENGINE.asked[-1].sampling
    assert (sampling.json_object, sampling.stop) == (True, ())
    schema = {"type": "object", "properties": {"sign": {"type": "string"}}}
    client.generate("demo", "x", format=schema)
    closed = schema | {"additionalProperties": False}
    assert json.loads(ENGINE.asked[-1].sampling.json_schema) == closed
    client.chat("demo", [HELLO], format="")
    assert not ENGINE.asked[-1].sampling.json_object
    client.chat("demo", [HELLO], format={})  # any JSON, as in Ollama
    assert ENGINE.asked[-1].sampling.json_schema == "{}"
    reply = http.post("/api/chat", json={"messages": [HELLO], "format": "xml"})
    assert reply.status_code == 400
    assert reply.json() == {"error": 'format must be "json" or a JSON schema, not "xml".'}


def test_logprobs(client: ollama.Client) -> None:
    reply = client.chat("demo", [HELLO], logprobs=True, top_logprobs=2)
    assert reply.logprobs is not None
    assert [one.token for one in reply.logprobs] == ["hello", " there"]
    assert [len(one.top_logprobs or ()) for one in reply.logprobs] == [2, 2]


# --- shapes of other programs --------------------------------------------------------------------


def test_requests_of_curl_have_no_json_type(http: httpx.Client) -> None:
    body = json.dumps({"model": "demo", "prompt": "hello there"}).encode()
    form = {"content-type": "application/x-www-form-urlencoded"}
    read = lines(http.post("/api/generate", content=body, headers=form))
    assert [line["response"] for line in read] == ["hello", " there", ""]
    assert [line["done"] for line in read] == [False, False, True]
    assert all(line["model"] == "demo" and line["created_at"].endswith("Z") for line in read)
    # A page of another website could send such a request; browsers always name its origin.
    for header in ({"referer": "http://example.org/"}, {"sec-fetch-site": "none"}):
        reply = http.post("/api/generate", content=body, headers=form | header)
        assert (reply.status_code, list(reply.json())) == (415, ["error"])


HOME_ASSISTANT_TOOL = {
    "type": "function",
    "function": {"name": "HassTurnOn", "description": "", "parameters": {"type": "object"}},
}


def test_home_assistant(http: httpx.Client) -> None:
    """The ollama integration: a stream with tools, past calls and their results."""
    body = {
        "model": "demo:latest",
        "messages": [
            {"role": "system", "content": "You are a voice assistant."},
            {"role": "user", "content": "Turn on the lamp"},
            {
                "role": "assistant", "content": "", "thinking": "Hm.",
                "tool_calls": [
                    {"function": {"name": "HassTurnOn", "arguments": {"name": "lamp"}}}
                ],
            },
            {"role": "tool", "content": '{"success": true}', "tool_name": "HassTurnOn"},
        ],
        "tools": [HOME_ASSISTANT_TOOL],
        "stream": True, "think": False, "format": None, "options": {"num_ctx": 8192},
        "keep_alive": "-1s",
    }  # fmt: skip
    reply = http.post("/api/chat", json=body)
    read = lines(reply)
    assert read[-1]["done_reason"] == "stop"
    ask = ENGINE.asked[-1]
    assert ask.question == '[Result of HassTurnOn: {"success": true}]'
    assert ask.history[0][1] == '[Call of HassTurnOn: {"name": "lamp"}]'
    assert set(reply.headers["x-cogvlm2-ignored"].split(", ")) == {"options.num_ctx", "tools"}
    assert read[-1]["cogvlm2"]["ignored"] == ["options.num_ctx", "tools"]


def test_home_assistant_with_the_asynchronous_client(address: str) -> None:
    """As a task with a picture and a structure: message objects, a schema, tools of none."""
    schema = {"type": "object", "properties": {"cars": {"type": "integer"}}, "required": ["cars"]}
    messages = [
        ollama.Message(role="system", content="You are a Home Assistant expert."),
        ollama.Message(
            role="user", content="How many cars?", images=[ollama.Image(value=PICTURES["sign"])]
        ),
    ]

    async def ask() -> list[str | None]:
        async with ollama.AsyncClient(host=address, timeout=PATIENCE_S) as client:
            assert [model.model for model in (await client.list()).models] == ["demo:latest"]
            stream = await client.chat(
                model="demo:latest", messages=messages, tools=None, stream=True, keep_alive=-1,
                options={"num_ctx": 8192}, think=None, format=schema,
            )  # fmt: skip
            return [part.message.content async for part in stream]

    pieces = asyncio.run(ask())
    assert "".join(piece or "" for piece in pieces).endswith("How many cars?")
    asked = ENGINE.asked[-1]
    assert asked.image == PICTURES["sign"].read_bytes()
    used = json.loads(asked.sampling.json_schema)
    assert used["required"] == schema["required"]
    assert set(used["properties"]) == set(schema["properties"])


def test_frigate(client: ollama.Client, http: httpx.Client) -> None:
    assert not client.show("demo").get("error")
    options = {"temperature": 0.5, "repeat_penalty": 1.05, "presence_penalty": 0.3}
    frames = [b"the first frame of a clip, as bytes of JPEG", BYTES]
    reply = client.generate("demo", "Describe the person.", images=frames, options=options)
    assert str(reply["response"]).strip() == "Describe the person."
    assert ENGINE.asked[-1].image == BYTES
    past: list[dict[str, Any]] = [
        {"role": "user", "content": "Who was there?"},
        {"role": "assistant", "content": "",
         "tool_calls": [{"function": {"name": "search", "arguments": {"label": "person"}}}]},
        {"role": "tool", "content": "[]", "tool_call_id": "call_1", "name": "search"},
    ]  # fmt: skip
    client.chat("demo", past, options=options)
    assert ENGINE.asked[-1].question == "[Result: []]"
    lines(http.post("/api/chat", json={"messages": past}))
    assert ENGINE.asked[-1].question == "[Result of search: []]"


def test_photoprism(http: httpx.Client) -> None:
    body = {
        "model": "demo:latest", "system": "Return JSON.", "prompt": "List labels.", "suffix": "",
        "format": "json", "images": [f"data:image/jpeg;base64,{PICTURE}"], "stream": False,
        "raw": False, "context": None, "think": "false", "keep_alive": None,
        "options": {"temperature": 0.01, "top_p": 0.9, "seed": 3421, "stop": None, "min_p": 0.1},
    }  # fmt: skip
    reply = http.post("/api/generate", json=body).json()
    assert (reply["done"], reply["response"]) == (True, "Return JSON. List labels.")
    assert ENGINE.asked[-1].sampling.json_object


def test_llmvision(http: httpx.Client) -> None:
    body = {
        "model": "demo", "stream": False,
        "messages": [
            {"role": "system", "content": "Describe."},
            {"role": "user", "content": "Camera 1:", "images": [PICTURE]},
            {"role": "user", "content": "What is there?"},
        ],
        "options": {"num_predict": -1, "temperature": 0.2, "num_ctx": 2048}, "keep_alive": 300,
    }  # fmt: skip
    reply = http.post("/api/chat", json=body).json()
    assert reply["message"]["content"].endswith("What is there?")
    assert ENGINE.asked[-1].image == BYTES
    assert ENGINE.asked[-1].sampling.max_new_tokens == Limits().answer_tokens


@pytest.mark.parametrize(
    "images",
    [
        [PICTURE],
        PICTURE,
        [f"data:image/jpeg;base64,{PICTURE}"],
        [PICTURE.rstrip("=")],
        [f"{PICTURE[:20]}\r\n{PICTURE[20:]}\n"],
        ["", PICTURE],
        [base64.b64encode(b"an older picture").decode(), PICTURE],
    ],
)
def test_pictures_as_people_write_them(http: httpx.Client, images: Any) -> None:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/api/generate", {"prompt": "What is it?", "images": images}),
        ("/api/generate", {"images": images}),
        ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": images}]}),
        ("/api/chat", {"messages": [{"role": "user", "images": images}]}),
    ]
    for path, body in bodies:
        lines(http.post(path, json=body))
        assert ENGINE.asked[-1].image == BYTES


@pytest.mark.parametrize("image", ["/home/me/x.png", "https://example.org/x.png", "%%%"])
def test_a_picture_that_is_none_is_an_error(http: httpx.Client, image: str) -> None:
    reply = http.post("/api/generate", json={"prompt": "x", "images": [image]})
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("images[0] must be a picture in base64")
    message = {"role": "user", "content": "x", "images": [PICTURE, image]}
    reply = http.post("/api/chat", json={"messages": [message]})
    assert reply.json()["error"].startswith("messages[0].images[1] must be")


@pytest.mark.parametrize("image", [{"type": "Buffer", "data": [137, 80]}, [137, 80], 137])
def test_a_picture_that_is_no_string_is_an_error(http: httpx.Client, image: object) -> None:
    """JavaScript writes a Buffer as such an object."""
    message = {"role": "user", "content": "x", "images": [image]}
    reply = http.post("/api/chat", json={"messages": [message]})
    assert reply.status_code == 400
    wanted = "messages[0].images must be a list of strings, each a picture in base64, not a list of"
    assert reply.json()["error"].startswith(wanted)


def test_raw_prompts_get_no_template(http: httpx.Client) -> None:
    body = {"prompt": "once", "raw": True, "system": "no", "template": "{{ .Prompt }}"}
    *_, last = lines(http.post("/api/generate", json=body))
    assert (ENGINE.asked[-1].template, ENGINE.asked[-1].question) == ("base", "once")
    assert "context" not in last
    lines(http.post("/api/generate", json={**body, "raw": False}))
    assert (ENGINE.asked[-1].template, ENGINE.asked[-1].question) == (None, "no\nonce")


def test_a_last_message_of_the_assistant_is_continued(http: httpx.Client) -> None:
    messages = [HELLO, {"role": "assistant", "content": "hello"}]
    lines(http.post("/api/chat", json={"messages": messages}))
    assert ENGINE.asked[-1].continue_from == " hello"


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("/api/chat", {"messages": "x"}, "messages"),
    ("/api/chat", {"messages": [{"content": "x"}]}, "messages[0].role"),
    ("/api/chat", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ("/api/chat", {"messages": [HELLO], "stream": "yes"}, "stream"),
    ("/api/chat", {"messages": [HELLO], "options": []}, "options"),
    ("/api/chat", {"messages": [HELLO], "options": {"seed": "x"}}, "options.seed"),
    ("/api/chat", {"messages": [HELLO], "options": {"num_predict": "x"}}, "options.num_predict"),
    ("/api/generate", {"prompt": 7}, "prompt"),
    ("/api/generate", {"prompt": " "}, "prompt"),
    ("/api/generate", {"prompt": "x", "keep_alive": [1]}, "keep_alive"),
    ("/api/generate", {"prompt": "x", "images": [7]}, "images"),
    ("/api/show", {"model": 7}, "model"),
]


@pytest.mark.parametrize(("path", "body", "words"), BROKEN)
def test_errors_name_ollamas_field(
    http: httpx.Client, path: str, body: dict[str, Any], words: str
) -> None:
    reply = http.post(path, json=body)
    assert reply.status_code == 400
    assert list(reply.json()) == ["error"]
    assert reply.json()["error"].startswith(words)


def test_notices_about_a_picture_are_in_the_reply(http: httpx.Client) -> None:
    notice = Text("Page 1 of 3.")
    ENGINE.extra = [PictureOpened(page=1, pages=3, notices=(notice,))]
    reply = http.post("/api/generate", json={"images": [PICTURE], "stream": False})
    assert reply.headers["x-cogvlm2-notice"] == notice
    assert reply.json()["cogvlm2"]["pages"] == 3


# --- probes --------------------------------------------------------------------------------------


def test_clients_find_ollama_and_browsers_the_page(http: httpx.Client) -> None:
    assert http.head("/").status_code == 200
    for accept in ("application/json", "application/json, text/plain, */*"):
        assert http.get("/", headers={"accept": accept}).text == "Ollama is running"
    for accept in ("*/*", "text/html,application/xhtml+xml,*/*;q=0.8"):
        page = http.get("/", headers={"accept": accept})
        assert page.headers["content-type"].startswith("text/html")
    assert http.head("/api/tags").status_code == 200
    major, minor, _ = map(int, http.get("/api/version").json()["version"].split("."))
    assert (major, minor) >= (0, 6)


def test_the_guard_covers_every_route_and_answers_in_ollamas_form() -> None:
    paths = [
        ("GET", "/api/tags"), ("GET", "/api/ps"), ("GET", "/api/version"), ("POST", "/api/show"),
        ("POST", "/api/chat"), ("POST", "/api/generate"), ("POST", "/api/embed"),
        ("POST", "/api/embeddings"), ("POST", "/api/nothing"), ("POST", "/api/pull"),
        ("POST", "/api/push"), ("POST", "/api/create"), ("POST", "/api/copy"),
        ("DELETE", "/api/delete"), ("POST", "/api/blobs/sha256:0"),
    ]  # fmt: skip
    with running(access=Access(key=KEY), limits=Limits()) as server, client_of(server) as http:
        for method, path in paths:
            reply = http.request(method, path, json={})
            assert (reply.status_code, type(reply.json()["error"])) == (401, str)
            for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
                reply = http.request(method, path, json={}, headers=headers)
                assert (reply.status_code, type(reply.json()["error"])) == (403, str)
        key = {"authorization": f"Bearer {KEY}"}
        with ollama.Client(server.address, headers=key) as client:
            assert client.list().models


# --- loading and unloading -----------------------------------------------------------------------


def test_the_model_is_unloaded_and_loaded_again() -> None:
    engine = ScriptedEngine()
    with served(engine) as (server, client), client_of(server) as http:
        assert client.generate("demo").done_reason == "load"
        [process] = client.ps().models
        assert (process.model, process.context_length, process.size) == ("demo:latest", 64, 17)
        assert client.chat("demo", [HELLO], keep_alive=0).message.content == "hello there"
        assert client.generate("demo", keep_alive=0).done_reason == "unload"
        assert engine.state is EngineState.EMPTY
        assert client.ps().models == []
        assert http.get("/health").status_code == 200  # the next request is answered
        reply = http.post("/v1/chat/completions", json={"messages": [HELLO]})
        assert reply.status_code == 200
        assert (engine.state, engine.reloads, engine.starts) == (EngineState.READY, 1, 1)
        assert client.chat("demo", [], keep_alive="0s").done_reason == "unload"
        assert client.chat("demo", []).done_reason == "load"
        assert engine.reloads == 2


def test_a_model_is_unloaded_when_its_time_is_over() -> None:
    engine = ScriptedEngine()
    with served(engine) as (_, client):
        client.chat("demo", [HELLO], keep_alive="1h")
        [process] = client.ps().models
        assert process.expires_at is not None
        client.chat("demo", [HELLO], keep_alive="20ms")
        wait_until_unloaded(client)
        assert engine.state is EngineState.EMPTY
        *_, last = client.chat("demo", [HELLO], keep_alive=-1, stream=True)
        assert (last.done_reason, engine.reloads) == ("stop", 1)


def test_a_model_that_cannot_be_loaded_again_is_an_error_and_tried_again() -> None:
    engine = ScriptedEngine()
    with served(engine) as (_, client):
        client.generate("demo", keep_alive=0)
        engine.reload_error = "Another program uses the memory."
        for number in (1, 2):
            with pytest.raises(ollama.ResponseError, match="Another program uses") as raised:
                client.chat("demo", [HELLO])
            assert (raised.value.status_code, engine.reloads) == (503, number)
        engine.reload_error = None
        assert client.chat("demo", [HELLO]).message.content == "hello there"


def test_answers_in_progress_are_finished_before_the_model_is_unloaded() -> None:
    engine = ScriptedEngine(parallel=2)
    with served(engine) as (_, client):
        stream = iter(client.chat("demo", [{"role": "user", "content": "a wait b"}], stream=True))
        assert next(stream).message.content == "a"
        assert client.generate("demo", keep_alive=0).done_reason == "unload"
        assert engine.state is EngineState.READY
        engine.go.set()
        assert [piece.message.content for piece in stream][-2:] == [" b", ""]
        wait_until_unloaded(client)
        assert engine.state is EngineState.EMPTY


def test_requests_wait_for_the_first_loading() -> None:
    engine = ScriptedEngine(loads=False)
    with served(engine) as (server, client):
        assert client.ps().models == []
        got: list[Any] = []
        thread = in_thread(lambda: got.append(client.chat("demo", [HELLO])))
        while not server.service.busy:
            continue
        engine.load()
        thread.join(PATIENCE_S)
        assert got[0].message.content == "hello there"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (0, 0), (-1, None), (300, 300), (2.5, 2.5), ("0", 0), ("0s", 0), ("-1", None),
        ("-1s", None), ("-1m", None), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("300ms", 0.3),
        ("24h", 86400), ("300", 300), (1e300, None), ("999999999999h", None),
    ],
)  # fmt: skip
def test_keep_alive(value: Any, seconds: float | None) -> None:
    assert keep_alive_s(value) == seconds


def test_a_real_model_behind_serve() -> None:
    served = Served()
    try:
        with ollama.Client(served.address, timeout=PATIENCE_S) as client:
            [model] = client.list().models
            assert model.size is not None
            assert model.size > 10**6
            details, shown = model.details, client.show(model.model)
            tensors = Catalog.open(model_folder("demo"), read_config(model_folder("demo"))).tensors
            count = sum(tensor.spec.numel for tensor in tensors.values())
            assert shown.modelinfo["general.parameter_count"] == count
            assert details.parameter_size == f"{count / 1e6:.2f}M"
            assert details.quantization_level == tensors["lm_head.weight"].dtype == "BF16"
            question = "What is written on the sign?"
            message = {"role": "user", "content": question, "images": [PICTURES["sign"]]}
            options = {"temperature": 0, "num_predict": 20}
            assert model.model is not None
            for _ in range(2):  # the second one comes while the model is being unloaded
                reply = client.chat(model.model, [message], options=options, keep_alive=0)
                assert (reply.message.content, reply.done_reason) == ("ROAD", "stop")
            wait_until_unloaded(client)
            assert client.generate("demo").done_reason == "load"
            sign = PICTURES["sign"]
            *pieces, last = client.generate("demo", question, images=[sign], stream=True)
            assert "".join(piece.response or "" for piece in pieces) == "ROAD"
            assert (last.done_reason, last.response) == ("stop", "")
    finally:
        served.stop()
