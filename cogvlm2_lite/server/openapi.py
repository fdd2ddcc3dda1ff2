"""The OpenAPI 3.1 document of this server, which it gives at /openapi.json.

Field lists come from the readers of requests, so that no field can be forgotten here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cogvlm2_lite.server import requests, responses
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.markdown import MOST_TEXTS
from cogvlm2_lite.server.messages import CHAT, DETAILS, LONGEST_URL, MAX_MESSAGES, RESPONSES, Form

_Schema = dict[str, Any]
_DATA_URL = (
    "^data:image/[a-zA-Z0-9.+-]{1,40}(;[a-zA-Z0-9=._-]{1,60}){0,4};base64,"
    "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$"
)
_MOST = 2**63 - 1
_STATUSES = {
    400: "The request makes no sense; `param` names the field at fault.",
    401: "The API key is missing or wrong.",
    403: "The Host is not of this server, or the Origin is a foreign website's.",
    404: "There is no model of that name.",
    408: "The request took too long to arrive.",
    413: "The request or its picture is too large.",
    415: "The Content-Type is not application/json.",
    429: "Too many requests wait, or they take too much memory.",
    500: "The server has a fault; its log says where.",
    503: "The model is being loaded, has died or does not fit into memory.",
}
_RETRY = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}


def document(limits: Limits) -> dict[str, Any]:
    """Give the document of a server with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CogVLM2 Lite",
            "version": "1",
            "description": "OpenAI's API, as far as one model that looks at pictures has a use "
            "for it. Fields that are not named here are refused.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": _asking(
                "chat", "Answer a conversation about a picture.", "ChatRequest", "ChatCompletion"
            ),
            "/v1/responses": _asking(
                "respond", "The same in the words of the newer API.", "ResponseRequest", "Response"
            ),
            "/v1/completions": _asking(
                "complete", "Go on with bare text.", "CompletionRequest", "Completion"
            ),
            "/v1/models": _reading("models", "List the one model.", "ModelList"),
            "/v1/models/{name}": {
                **_reading("model", "Describe the model.", "Model", 404),
                "parameters": [
                    {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
                ],
            },
            "/v1/plan": _reading("plan", "What is in memory in which phase.", "Plan", 503),
            "/health": _health(),
            "/metrics": _metrics(),
            "/page/markdown": _markdown(),
            "/openapi.json": _reading("document", "This document.", "Document"),
        },
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Asked for only where the server was started with a key.",
                }
            },
            "schemas": {**_requests(limits), **_replies()},
        },
    }


# --- operations ----------------------------------------------------------------------------------


def _asking(name: str, summary: str, request: str, reply: str) -> dict[str, Any]:
    event = _object({"event": {"type": "string"}, "data": {"type": "string"}}, ["data"])
    stream = {"schema": {**event, "description": 'An event, where "stream" is true.'}}
    content = {"application/json": {"schema": _ref(reply)}, "text/event-stream": stream}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _ref(request)}},
            },
            "responses": {
                "200": {"description": "The answer.", "content": content},
                **_errors(*_STATUSES),
            },
        }
    }


def _reading(name: str, summary: str, reply: str, *errors: int) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(reply)}}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "responses": {
                "200": {"description": summary, "content": content},
                **_errors(401, 403, 500, *errors),
            },
        }
    }


def _health() -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Health")}}
    return {
        "get": {
            "operationId": "health",
            "summary": "Say whether the model is ready.",
            "security": [],
            "responses": {
                "200": {"description": "It is.", "content": content},
                "503": {"description": "It is not, or not yet.", "content": content},
                **_errors(403, 500),
            },
        }
    }


def _metrics() -> dict[str, Any]:
    page = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "get": {
            "operationId": "metrics",
            "summary": "Counters, in the text format of Prometheus.",
            "responses": {
                "200": {"description": "The counters.", "content": page},
                **_errors(401, 403, 500),
            },
        }
    }


def _markdown() -> dict[str, Any]:
    """Describe what the page asks to show an answer."""
    texts = {"type": "array", "items": {"type": "string"}, "maxItems": MOST_TEXTS}
    parsed = {"type": "array", "items": {"type": "array"}}
    reply = {"application/json": {"schema": _record(texts=parsed)}}
    return {
        "post": {
            "operationId": "markdown",
            "summary": "Turn Markdown into trees of elements, for the page.",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _object({"texts": texts}, ["texts"])}},
            },
            "responses": {
                "200": {"description": "A tree for each text.", "content": reply},
                **_errors(400, 401, 403, 408, 413, 415, 429, 500),
            },
        }
    }


def _errors(*statuses: int) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Error")}}
    return {
        str(status): {
            "description": _STATUSES[status],
            "content": content,
            **({"headers": _RETRY} if status in (429, 503) else {}),
        }
        for status in statuses
    }


# --- requests ------------------------------------------------------------------------------------


def _requests(limits: Limits) -> dict[str, _Schema]:
    return {
        "ChatRequest": _body(
            {
                **_shared(limits, "max_tokens", "max_completion_tokens"),
                "messages": _messages(CHAT, _chat_picture(limits)),
                "template": _nullable({"enum": ["chat", "vqa"]}),
                "logprobs": _nullable({"type": "boolean"}),
                "top_logprobs": _integer(0, 20),
                "response_format": _form(),
            },
            requests.IGNORED,
            requests.NEUTRAL,
            ["messages"],
        ),
        "CompletionRequest": _body(
            {
                **_of(_shared(limits, "max_tokens"), requests.TEXT_FIELDS),
                "prompt": _one_of(
                    _text(1), {"type": "array", "items": _text(1), "minItems": 1, "maxItems": 1}
                ),
                "logprobs": _integer(0, 5),
            },
            requests.IGNORED,
            requests.NEUTRAL,
            ["prompt"],
        ),
        "ResponseRequest": _body(
            {
                **_of(_shared(limits, "max_output_tokens"), responses.FIELDS),
                "input": _one_of(_text(1), _messages(RESPONSES, _response_picture(limits))),
                "instructions": _nullable({"type": "string"}),
                "text": _nullable(_object({"format": _form(), "verbosity": {"type": "null"}})),
                "include": _nullable(
                    {"type": "array", "items": {"const": "message.output_text.logprobs"}}
                ),
                "top_logprobs": _integer(0, 20),
                "metadata": _nullable({"type": "object"}),
                "previous_response_id": {"type": "null"},
                "store": {"enum": [None, False]},
            },
            requests.IGNORED - {"store", "metadata"},
            responses.NEUTRAL,
            ["input"],
        ),
    }


def _of(properties: Mapping[str, _Schema], names: frozenset[str]) -> dict[str, _Schema]:
    return {name: schema for name, schema in properties.items() if name in names}


def _shared(limits: Limits, *ceilings: str) -> dict[str, _Schema]:
    """Give the fields that several requests have."""
    flags = ("include_usage", "include_progress", "include_obfuscation")
    stops = {"type": "string", "minLength": 1, "maxLength": 200}
    return {
        "model": _nullable({"type": "string"}),
        "stream": _nullable({"type": "boolean"}),
        "stream_options": _nullable(
            _object({name: _nullable({"type": "boolean"}) for name in flags})
        ),
        **{name: _integer(1, limits.answer_tokens) for name in ceilings},
        "temperature": _number(0, 2),
        "top_p": _nullable({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        "top_k": _integer(0, _MOST),
        "seed": _integer(0, _MOST),
        "stop": _nullable(_one_of(stops, {"type": "array", "items": stops, "maxItems": 16})),
        "repetition_penalty": _nullable({"type": "number", "exclusiveMinimum": 0, "maximum": 10}),
        "frequency_penalty": _number(-2, 2),
        "presence_penalty": _number(-2, 2),
        "n": {"enum": [None, 1]},
        "user": _nullable({"type": "string"}),
        "truncation": _nullable({"enum": ["auto", "disabled"]}),
    }


def _body(
    properties: Mapping[str, _Schema],
    ignored: frozenset[str],
    neutral: Mapping[str, Sequence[object]],
    required: Sequence[str],
) -> _Schema:
    """Give the schema of a body. Fields that the server lacks may only have a neutral value."""
    return _object(
        {
            **properties,
            **{name: {"description": "Ignored."} for name in sorted(ignored)},
            **{
                name: {"enum": list(values), "description": "Not supported."}
                for name, values in neutral.items()
            },
        },
        required,
    )


def _messages(form: Form, picture: _Schema) -> _Schema:
    """Give the schema of a conversation; that it ends with the user stands in words."""
    texts = {
        "type": "object",
        "properties": {"type": {"enum": list(form.texts)}, "text": {"type": "string"}},
        "required": ["type", "text"],
    }
    plain = _one_of({"type": "string"}, {"type": "array", "items": texts})
    parts = {"type": "array", "items": _one_of(texts, picture), "minItems": 1}
    spoken = _one_of({"type": "string"}, parts)
    return {
        "type": "array",
        "description": "The last one is the user's. All pictures together are one.",
        "minItems": 1,
        "maxItems": MAX_MESSAGES,
        "items": _one_of(
            _message(form, ["system", "developer"], plain, ["role", "content"]),
            _message(form, ["user"], spoken, ["role", "content"]),
            _message(form, ["assistant"], _nullable(plain), ["role"]),
        ),
    }


def _message(form: Form, roles: list[str], content: _Schema, required: list[str]) -> _Schema:
    properties: dict[str, _Schema] = {name: {} for name in sorted(form.fields)}
    properties |= {"role": {"enum": roles}, "content": content}
    if "tool_calls" in form.fields:
        properties["tool_calls"] = {"enum": [None, []]}
    if "type" in form.fields:
        properties["type"] = {"enum": [None, "message"]}
    return _object(properties, required)


def _chat_picture(limits: Limits) -> _Schema:
    url = _url(limits)
    address = _object({"url": url, "detail": {"enum": list(DETAILS)}}, ["url"])
    return _picture(CHAT, _one_of(url, address))


def _response_picture(limits: Limits) -> _Schema:
    return _picture(RESPONSES, _url(limits))


def _url(limits: Limits) -> _Schema:
    data = {"type": "string", "pattern": _DATA_URL}
    web = {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "maxLength": LONGEST_URL}
    return _one_of(data, web) if limits.remote_images else data


def _picture(form: Form, address: _Schema) -> _Schema:
    return {
        "type": "object",
        "properties": {
            "type": {"const": form.image},
            "image_url": address,
            "detail": {"enum": list(DETAILS)},
        },
        "required": ["type", "image_url"],
    }


def _form() -> _Schema:
    kinds = {"type": {"enum": ["text", "json_object"]}}
    return _nullable(_object(kinds, ["type"]))


# --- replies -------------------------------------------------------------------------------------


def _replies() -> dict[str, _Schema]:
    count = {"type": "integer", "minimum": 0}
    text = {"type": "string"}
    model = _record(id=text, object={"const": "model"}, created=count, owned_by=text)
    usage = _record(
        prompt_tokens=count,
        completion_tokens=count,
        total_tokens=count,
        prompt_tokens_details=_record(image_tokens=count),
    )
    reason = {"enum": ["stop", "length"]}
    logprobs = {"type": ["object", "null"]}
    message = _record(role={"const": "assistant"}, content=text, refusal={"type": "null"})
    said = _record(index=count, message=message, finish_reason=reason, logprobs=logprobs)
    written = _record(index=count, text=text, finish_reason=reason, logprobs=logprobs)
    return {
        "ChatCompletion": _completion("chat.completion", said, usage),
        "Completion": _completion("text_completion", written, usage),
        "Response": _response(count, text),
        "Model": model,
        "ModelList": _record(object={"const": "list"}, data={"type": "array", "items": model}),
        "Plan": _record(
            plan={"type": "object"},
            compute=text,
            context=count,
            image_tokens=count,
            parallel={"type": "integer", "minimum": 1},
        ),
        "Health": _record(status={"enum": ["stopped", "loading", "ready", "empty", "dead"]}),
        "Document": {"type": "object", "required": ["openapi", "paths"]},
        "Error": _record(
            error=_record(
                message=text,
                type=text,
                param={"type": ["string", "null"]},
                code={"type": ["string", "null"]},
            )
        ),
    }


def _completion(name: str, choice: _Schema, usage: _Schema) -> _Schema:
    return _record(
        id={"type": "string"},
        object={"const": name},
        created={"type": "integer"},
        model={"type": "string"},
        choices={"type": "array", "items": choice, "minItems": 1, "maxItems": 1},
        usage=usage,
    )


def _response(count: _Schema, text: _Schema) -> _Schema:
    part = _record(
        type={"const": "output_text"},
        text=text,
        annotations={"type": "array"},
        logprobs={"type": "array"},
    )
    message = _record(
        id=text,
        type={"const": "message"},
        role={"const": "assistant"},
        status={"enum": ["completed", "incomplete"]},
        content={"type": "array", "items": part},
    )
    usage = _record(
        input_tokens=count,
        input_tokens_details=_record(cached_tokens=count, image_tokens=count),
        output_tokens=count,
        output_tokens_details=_record(reasoning_tokens=count),
        total_tokens=count,
    )
    return _record(
        id=text,
        object={"const": "response"},
        created_at=count,
        status={"enum": ["completed", "incomplete"]},
        incomplete_details={"type": ["object", "null"]},
        error={"type": "null"},
        model=text,
        output={"type": "array", "items": message},
        usage=usage,
    )


# --- schemas -------------------------------------------------------------------------------------


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Mapping[str, _Schema], required: Sequence[str] = ()) -> _Schema:
    """Give a request's object: other fields are refused."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _record(**properties: _Schema) -> _Schema:
    """Give a reply's object: all of its fields are there, and more may be added one day."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _nullable(schema: _Schema) -> _Schema:
    return _one_of(schema, {"type": "null"})


def _one_of(*schemas: _Schema) -> _Schema:
    return {"anyOf": list(schemas)}


def _number(least: float, most: float) -> _Schema:
    return _nullable({"type": "number", "minimum": least, "maximum": most})


def _integer(least: int, most: int) -> _Schema:
    return _nullable({"type": "integer", "minimum": least, "maximum": most})


def _text(least: int) -> _Schema:
    return {"type": "string", "minLength": least}
