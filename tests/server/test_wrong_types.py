"""A value of a wrong type anywhere in a request is an error that names its field, or is ignored.

Each value of some requests is replaced by values that no program should send there. Other tests
send whole requests; these ones are read without a server, because there are thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.bodies import ChatRequest, CompletionRequest, ResponseRequest
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.ollama import read_chat, read_generate
from cogvlm2_lite.server.requests import read_asked
from cogvlm2_lite.server.validation import read_json

R = TypeVar("R", ChatRequest, CompletionRequest, ResponseRequest)
RED, BLUE = "data:image/png;base64,cmVk", "data:image/png;base64,Ymx1ZQ=="
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"oneOf": [{"type": "integer"}, {"$ref": "#/$defs/b"}]}},
    "required": ["a"],
    "$defs": {"b": {"type": "array", "items": {"type": "string", "pattern": "a"}}},
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

CHAT = {
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": RED, "detail": "low"}, "page": 1},
                {"type": "input_image", "image_url": BLUE},
                {"type": "file", "file": {"file_data": RED}},
                {"type": "refusal", "refusal": "no"},
                {"type": "thinking", "thinking": "hm"},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL], "function_call": FUNCTION},
        {"role": "tool", "name": "f", "content": [{"type": "image_url", "image_url": BLUE}]},
        {"role": "user", "content": "q", "images": ["QUJD" * 12]},
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "stop": ["a"],
    "stream_options": {"include_usage": True},
    "n": 2,
    "logprobs": True,
    "top_logprobs": 2,
}
WITH_SCHEMA = {
    "messages": [{"role": "user", "content": "q"}],
    "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
    "guided_json": SCHEMA,
    "tools": [TOOL],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [TOOL]},
    },
}
RESPONSE = {
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": RED, "detail": "auto"},
            ],
        },
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "computer_call_output", "output": {"type": "x", "image_url": BLUE}},
        {"type": "mcp_call", "name": "f", "arguments": "{}", "output": "x"},
        {"role": "user", "content": "q"},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
    "include": ["message.output_text.logprobs"],
}
COMPLETION = {"prompt": [[1, 2], [3]], "echo": True, "logprobs": 2, "stop": "x", "max_tokens": 0}
OPTIONS = {"temperature": 0, "stop": ["a"], "num_predict": 5, "seed": 1, "top_k": 3, "top_p": 0.5}
OLLAMA_CHAT = {
    "messages": [
        {"role": "user", "content": "x", "images": ["cmVk"], "tool_calls": [CALL], "tool_name": "f"}
    ],
    "tools": [TOOL],
    "options": OPTIONS,
    "format": SCHEMA,
    "keep_alive": "5m",
}
OLLAMA_GENERATE = {
    "prompt": "x",
    "images": ["cmVk"],
    "system": "s",
    "context": list(b'[["a","b"]]'),
    "options": OPTIONS,
    "format": "json",
    "keep_alive": 0,
}
WRONG: tuple[Any, ...] = (
    None, True, -1, 1.5, 10**30, "", "\ud83d", [], {}, [None], {"type": []}, {"type": {}},
    {"type": "text"}, {"type": "image_url"}, {"$ref": "#/x"}, {"url": 5},
)  # fmt: skip


def reader_of(kind: type[R]) -> Callable[[Mapping[str, Any], Limits], object]:
    return lambda values, limits: read_asked(values, kind, limits)


def with_wrong_values(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value, each with another part replaced or left out."""
    yield from WRONG
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {key: one for key, one in value.items() if key != name}
            yield from ({**value, name: wrong} for wrong in with_wrong_values(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            for wrong in with_wrong_values(inner):
                yield [*value[:index], wrong, *value[index + 1 :]]


@pytest.mark.parametrize("limits", [Limits(), Limits(pictures="sheet")], ids=["newest", "sheet"])
@pytest.mark.parametrize(
    ("body", "read"),
    [
        pytest.param(CHAT, reader_of(ChatRequest), id="chat"),
        pytest.param(WITH_SCHEMA, reader_of(ChatRequest), id="chat with a schema"),
        pytest.param(RESPONSE, reader_of(ResponseRequest), id="response"),
        pytest.param(COMPLETION, reader_of(CompletionRequest), id="completion"),
        pytest.param(OLLAMA_CHAT, read_chat, id="Ollama's chat"),
        pytest.param(OLLAMA_GENERATE, read_generate, id="Ollama's generate"),
    ],
)
def test_a_wrong_value_anywhere_is_an_error_of_the_request_or_ignored(
    body: dict[str, Any], read: Callable[[Mapping[str, Any], Limits], object], limits: Limits
) -> None:
    read(body, limits)
    for wrong in with_wrong_values(body):
        if isinstance(wrong, dict):
            with suppress(ApiError):
                read(wrong, limits)


@pytest.mark.parametrize("schema", ["{{{", [1], 7, "[]"])
def test_a_schema_in_guided_json_that_is_none_is_an_error(schema: object) -> None:
    body = {"messages": [{"role": "user", "content": "q"}], "guided_json": schema}
    with pytest.raises(ApiError, match="guided_json must be a JSON schema"):
        read_asked(body, ChatRequest, Limits())


def test_large_bounds_are_written_in_full() -> None:
    body = read_json(b'{"messages":[{"role":"user","content":[{"type":"image_url","page":0}]}]}')
    with pytest.raises(ApiError, match=r"between 1 and 2147483647, not 0"):
        read_asked(body, ChatRequest, Limits())
