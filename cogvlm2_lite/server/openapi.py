"""The OpenAPI 3.1 document of this server, which it sends at /openapi.json.

It is generated from the types of requests and replies (bodies.py, response_bodies.py). This module
adds what msgspec does not know: the limits of this server, and that unknown fields are rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from cogvlm2_lite.server import ollama_bodies as bodies
from cogvlm2_lite.server import response_bodies as replies
from cogvlm2_lite.server.bodies import (
    DATA_URL,
    MAX_URL_CHARACTERS,
    ChatRequest,
    CompletionRequest,
    MarkdownRequest,
    PreviewRequest,
    ResponseRequest,
)
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.validation import Body, OpenBody

_Schema = dict[str, Any]
_REF = "#/components/schemas/{name}"
_REQUESTS = (
    ChatRequest, CompletionRequest, ResponseRequest, MarkdownRequest, PreviewRequest,
    *bodies.REQUESTS,
)  # fmt: skip
_STATUSES = {
    400: "The request is invalid; `param` names the field at fault.",
    401: "The API key is missing or wrong.",
    403: "The Host or the Origin is not allowed.",
    404: "There is no model of that name.",
    408: "The request took too long to arrive.",
    413: "The request or its picture is too large.",
    415: "The Content-Type is not application/json, or the body is compressed.",
    429: "Too many requests are waiting, or they use too much memory.",
    500: "Internal server error; the server's log has the details.",
    503: "The model is loading, its process ended, or it does not fit into memory.",
}
_RETRY = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}
_NOTICE = {
    "X-CogVLM2-Notice": {
        "schema": {"type": "string"},
        "description": "What a person should know of how the picture was read; `cogvlm2` in the "
        "reply has the same. Only there with a notice.",
    }
}


def document(limits: Limits) -> dict[str, Any]:
    """Return the document of a server with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CogVLM2 Lite",
            "version": "1",
            "description": "The parts of OpenAI's and Ollama's APIs that one model for pictures "
            "and text needs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": _asking(
                "chat",
                "Answer a conversation about a picture.",
                ChatRequest,
                replies.ChatCompletion,
            ),
            "/v1/responses": _asking(
                "respond", "The same in OpenAI's newer API.", ResponseRequest, replies.Response
            ),
            "/v1/completions": _asking(
                "complete", "Continue plain text.", CompletionRequest, replies.Completion
            ),
            "/v1/models": _reading("models", "List the one model.", replies.ModelList),
            "/v1/models/{name}": {
                **_reading("model", "Describe the model.", replies.Model, 404),
                "parameters": [
                    {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
                ],
            },
            "/v1/plan": _reading(
                "plan", "Report what is in memory in which phase.", replies.Plan, 503
            ),
            **_ollama(),
            "/health": _health(),
            "/metrics": _metrics(),
            "/page/markdown": _markdown(),
            "/page/preview": _preview(),
            "/openapi.json": _reading("document", "Return this document.", replies.Document),
        },
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Required only if the server was started with a key.",
                }
            },
            "schemas": {**_requests(limits), **_replies()},
        },
    }


# --- operations ----------------------------------------------------------------------------------


def _asking(name: str, summary: str, request: type, reply: type) -> dict[str, Any]:
    event = {
        "type": "object",
        "description": 'An event, if "stream" is true.',
        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
        "required": ["data"],
        "additionalProperties": False,
    }
    stream = {"schema": event}
    content = {"application/json": {"schema": _ref(reply)}, "text/event-stream": stream}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "requestBody": _json_of(request),
            "responses": {
                "200": {"description": "The answer.", "content": content, "headers": _NOTICE},
                **_errors(*_STATUSES),
            },
        }
    }


def _reading(name: str, summary: str, reply: type, *errors: int) -> dict[str, Any]:
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
    content = {"application/json": {"schema": _ref(replies.Health)}}
    return {
        "get": {
            "operationId": "health",
            "summary": "Report whether the model is ready.",
            "security": [],
            "responses": {
                "200": {"description": "The model is ready.", "content": content},
                "503": {"description": "The model is not ready.", "content": content},
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


def _preview() -> dict[str, Any]:
    """Return the operation that the page uses to show pictures of unusual formats."""
    request = {"application/json": {"schema": _ref(PreviewRequest)}}
    return {
        "post": {
            "operationId": "preview",
            "summary": "Return a picture as a small JPEG file, for the page.",
            "requestBody": {"required": True, "content": request},
            "responses": {
                "200": {"description": "The file.", "content": {"image/jpeg": {}}},
                **_errors(400, 401, 403, 408, 413, 415, 429, 500),
            },
        }
    }


def _markdown() -> dict[str, Any]:
    """Return the operation that the page uses to show an answer."""
    request = {"application/json": {"schema": _ref(MarkdownRequest)}}
    reply = {"application/json": {"schema": _ref(replies.Markdown)}}
    return {
        "post": {
            "operationId": "markdown",
            "summary": "Parse Markdown into trees of elements, for the page.",
            "requestBody": {"required": True, "content": request},
            "responses": {
                "200": {"description": "A tree for each text.", "content": reply},
                **_errors(400, 401, 403, 408, 413, 415, 429, 500),
            },
        }
    }


def _errors(*statuses: int, kind: type = replies.Error) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(kind)}}
    return {
        str(status): {
            "description": _STATUSES[status],
            "content": content,
            **({"headers": _RETRY} if status in (429, 503) else {}),
        }
        for status in statuses
    }


def _ollama() -> dict[str, Any]:
    """Return the paths of Ollama's API."""
    chat = _ollama_asking(
        "ollamaChat", "Answer a conversation.", bodies.OllamaChatRequest, bodies.OllamaChatReply
    )
    generate = _ollama_asking(
        "ollamaGenerate", "Answer a prompt.", bodies.OllamaGenerateRequest,
        bodies.OllamaGenerateReply,
    )  # fmt: skip
    show = _ollama_sending(
        "ollamaShow", "Describe the model.", bodies.OllamaModelRequest, bodies.OllamaShown
    )
    embed, embeddings = (
        _ollama_sending(name, "Not supported.", bodies.OllamaEmbedRequest, None)
        for name in ("ollamaEmbed", "ollamaEmbeddings")
    )
    pull = _ollama_sending(
        "ollamaPull", "Report that the model is there.", bodies.OllamaPullRequest,
        bodies.OllamaStatus,
    )  # fmt: skip
    pulled = pull["post"]["responses"]["200"]["content"]
    pulled["application/x-ndjson"] = {"schema": _ref(bodies.OllamaStatus)}
    return {
        "/api/pull": pull,
        "/api/chat": chat,
        "/api/generate": generate,
        "/api/tags": _ollama_reading("ollamaTags", "List the one model.", bodies.OllamaTags),
        "/api/show": show,
        "/api/ps": _ollama_reading(
            "ollamaLoaded", "List the model while it is in memory.", bodies.OllamaLoadedModels
        ),
        "/api/version": _ollama_reading(
            "ollamaVersion", "Return the version of the API.", bodies.OllamaVersion
        ),
        "/api/embed": embed,
        "/api/embeddings": embeddings,
    }


def _ollama_asking(name: str, summary: str, request: type, reply: type) -> dict[str, Any]:
    operation = _asking(name, summary, request, reply)
    post = operation["post"]
    # One line of the stream; a stream is the default.
    post["responses"]["200"]["content"] = {
        "application/json": {"schema": _ref(reply)},
        "application/x-ndjson": {"schema": _ref(reply)},
    }
    post["responses"] |= _errors(*_STATUSES, kind=replies.OllamaError)
    return operation


def _ollama_sending(name: str, summary: str, request: type, reply: type | None) -> dict[str, Any]:
    """Return an operation with a small request; reply: None if it always fails."""
    found = {"application/json": {"schema": _ref(reply)}} if reply else {}
    done = {"200": {"description": summary, "content": found}} if reply else {}
    statuses = (400, 401, 403, 404, 408, 413, 415, 429, 500)
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "requestBody": _json_of(request),
            "responses": {**done, **_errors(*statuses, kind=replies.OllamaError)},
        }
    }


def _ollama_reading(name: str, summary: str, reply: type) -> dict[str, Any]:
    operation = _reading(name, summary, reply)
    operation["get"]["responses"] |= _errors(401, 403, 500, kind=replies.OllamaError)
    return operation


# --- schemas -------------------------------------------------------------------------------------


def _requests(limits: Limits) -> dict[str, _Schema]:
    schemas = _components(_REQUESTS)
    open_names = {kind.__name__ for kind in _with_subclasses(OpenBody)}
    for name, schema in schemas.items():
        if name not in open_names and limits.strict:
            schema["additionalProperties"] = False
    return {name: _limited(schema, limits) for name, schema in schemas.items()}


def _with_subclasses(kind: type[Body]) -> Iterator[type[Body]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)


def _replies() -> dict[str, _Schema]:
    schemas = _components((*replies.ALL, *bodies.REPLIES))
    for name, schema in schemas.items():
        if "properties" in schema:
            optional = {**replies.OPTIONAL, **bodies.OPTIONAL}.get(name, ())
            schema["required"] = [field for field in schema["properties"] if field not in optional]
    return schemas


def _limited(schema: Any, limits: Limits) -> Any:
    """Return a schema with the server's limits filled in, at any depth."""
    if isinstance(schema, list):
        return [_limited(member, limits) for member in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _limited(member, limits) for name, member in schema.items()}
    if isinstance(schema.get("maximum"), str):
        schema["maximum"] = getattr(limits, schema["maximum"])
    if schema.get("pattern") == DATA_URL and limits.remote_images:
        del schema["pattern"]
        web = {"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "maxLength": MAX_URL_CHARACTERS}
        schema["anyOf"] = [{"pattern": DATA_URL}, web]
    return schema


def _components(kinds: Iterable[type]) -> dict[str, _Schema]:
    return msgspec.json.schema_components(kinds, ref_template=_REF)[1]


def _json_of(request: type) -> dict[str, Any]:
    """Return the body of a request in JSON."""
    return {"required": True, "content": {"application/json": {"schema": _ref(request)}}}


def _ref(kind: type) -> _Schema:
    return {"$ref": _REF.format(name=kind.__name__)}
