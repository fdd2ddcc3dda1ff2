"""The server against its own OpenAPI document, and against bodies nobody would think of."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cogvlm2_lite.server.bodies import ChatRequest, CompletionRequest, ResponseRequest
from cogvlm2_lite.server.guard import Access
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.openapi import document
from cogvlm2_lite.server.run import LocalServer
from tests.helpers.chat_client import CHAT, KEY, PNG, client_of, picture, text, user
from tests.helpers.scripted_server import ScriptedEngine, running

SCHEMA = schemathesis.openapi.from_dict(document(Limits(strict=True)))
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with running(ScriptedEngine(), access=Access(key=KEY), max_waiting=64) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[httpx.Client]:
    with client_of(server, authorization=f"Bearer {KEY}") as client:
        yield client


@SCHEMA.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_server_keeps_to_its_document(case: Any, server: LocalServer) -> None:
    """Every field of every request with values at and beyond its bounds, then random ones."""
    with_a_question(case.body)
    case.call_and_validate(
        base_url=server.address, headers={"authorization": f"Bearer {KEY}"}, checks=CHECKS
    )


def with_a_question(body: Any) -> None:
    """Put questions around a body's messages: no schema can say that the last is the user's.

    A list that is empty stays so, which is a reason to refuse it. A wrong field stays wrong.
    """
    if isinstance(body, dict):
        for name in ("messages", "input"):
            talk = body.get(name)
            if isinstance(talk, list) and talk:
                body[name] = [user("first"), *talk, user("last")]
        if isinstance(body.get("model"), str):
            body["model"] = "scripted"


def test_the_document_names_exactly_what_is_read() -> None:
    schemas = document(Limits(strict=True))["components"]["schemas"]
    for kind in (ChatRequest, CompletionRequest, ResponseRequest):
        schema = schemas[kind.__name__]
        assert set(schema["properties"]) == set(kind.__struct_fields__)
        assert schema["additionalProperties"] is False


def test_every_route_is_in_the_document(client: httpx.Client) -> None:
    found = client.get("/openapi.json").json()
    assert found == document(Limits(strict=True))
    for path in found["paths"]:
        reply = client.delete(path.replace("{name}", "scripted"))
        assert reply.status_code == 405
        error = reply.json()["error"]
        if path.startswith("/api/"):
            assert "does not allow that method" in error
        else:
            assert error["type"] == "invalid_request_error"


ADDRESSES = {
    CHAT: {
        "messages": [
            {"role": "system", "content": "Be short."},
            user(text("one \u4e2d"), picture(PNG)),
            {"role": "assistant", "content": "ONE"},
            user("two"),
        ],
        "temperature": 0.5, "stop": ["x"], "seed": 4, "top_k": 3, "max_tokens": 20,
        "logprobs": True, "top_logprobs": 2, "stream": False, "user": "me",
    },
    "/v1/responses": {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "one"},
                                         {"type": "input_image", "image_url": PNG}]},
            {"type": "message", "role": "assistant", "content": "ONE"},
            {"role": "user", "content": "two"},
        ],
        "instructions": "Be short.", "text": {"format": {"type": "text"}}, "stream": True,
        "include": ["message.output_text.logprobs"], "top_logprobs": 1, "max_output_tokens": 20,
    },
    "/v1/completions": {"prompt": ["once upon"], "logprobs": 2, "max_tokens": 9, "echo": False},
    "/api/chat": {
        "messages": [
            {"role": "user", "content": "one", "images": ["AAAA"]},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "tool", "content": "two", "tool_name": "f"},
        ],
        "options": {"num_predict": -1, "seed": 4, "stop": ["x"], "top_k": 3, "num_ctx": 4096},
        "format": {"type": "object"}, "keep_alive": "5m", "think": False, "logprobs": True,
    },
    "/api/generate": {
        "prompt": "one", "images": ["AAAA"], "system": "Be short.", "stream": False, "raw": False,
        "context": [91, 91, 34, 97, 34, 44, 34, 98, 34, 93, 93], "keep_alive": 300,
        "options": {"temperature": 0.5},
    },
    "/api/show": {"model": "scripted"},
}  # fmt: skip
ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e308, 10**400, "", "\x00", "\ud800", "x" * 5000, [], {}, [[]],
    {"a": []}, [None], "data:image/png;base64,", "file:///etc/passwd", 2**63, "NaN",
]  # fmt: skip


def mutated_value(value: Any, chance: random.Random) -> Any:
    """Change one place in a JSON value: put something odd there, leave it out or double it."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(sorted(value))
        rest = {n: v for n, v in value.items() if n != name}
        if chance.random() < 0.1:
            return rest
        if chance.random() < 0.1:
            return {**rest, name[:-1]: value[name]}
        return {**value, name: mutated_value(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        if chance.random() < 0.2:
            return value[:place] + value[place + 1 :] * 2
        return [*value[:place], mutated_value(value[place], chance), *value[place + 1 :]]
    return chance.choice(ODD)


def mutated_bytes(body: bytes, chance: random.Random) -> bytes:
    """Change, cut, or double some bytes."""
    changed = bytearray(body)
    for _ in range(chance.randrange(1, 8)):
        place = chance.randrange(len(changed))
        match chance.randrange(3):
            case 0:
                changed[place] = chance.randrange(256)
            case 1:
                del changed[place : place + chance.randrange(20)]
            case _:
                changed[place:place] = changed[place : place + chance.randrange(20)]
        if not changed:
            return b""
    return bytes(changed)


def test_a_thousand_mutated_bodies_never_give_a_500(client: httpx.Client) -> None:
    chance = random.Random(0)
    seen: dict[int, int] = {}
    for number in range(1000):
        path = chance.choice(list(ADDRESSES))
        body: Any = ADDRESSES[path]
        for _ in range(chance.randrange(1, 3)):
            body = mutated_value(body, chance)
        data = json.dumps(body).encode()
        if number % 2:
            data = mutated_bytes(json.dumps(ADDRESSES[path]).encode(), chance)
        headers = {"content-type": "application/json"}
        reply = client.post(path, content=data, headers=headers)
        assert reply.status_code in (200, 400, 404), (path, data)
        seen[reply.status_code] = seen.get(reply.status_code, 0) + 1
        if reply.status_code == 400:
            error = reply.json()["error"]
            assert isinstance(error, str) if path.startswith("/api/") else error["message"]
    assert seen[200] > 50
    assert seen[400] > 300
