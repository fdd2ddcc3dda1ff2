"""Error replies in the forms of OpenAI's and Ollama's APIs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from cogvlm2_lite.errors import (
    CogVLM2LiteError,
    DoesNotFitError,
    EngineError,
    ImageError,
    PromptTooLongError,
    UsageError,
)
from cogvlm2_lite.server.response_bodies import Error, ErrorDetail, OllamaError
from cogvlm2_lite.text import Text, marked

NO_EMBEDDINGS = marked(
    "This model does not support embeddings: it answers questions about pictures."
)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


@dataclass(eq=False)  # a frozen class could not get a traceback
class ApiError(Exception):
    """An error reply; the server sends it with its status.

    status       of HTTP
    message      one sentence; a Text also has a template and values
    code         OpenAI's short word, such as "context_length_exceeded"
    param        the field that is at fault
    retry_after  seconds until a retry makes sense; 0: no header
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after: int = 0

    def body(self) -> Error:
        """Return the JSON of OpenAI's errors."""
        return Error(
            error=ErrorDetail(
                message=str(self.message),
                type=_TYPES.get(self.status, "server_error"),
                param=self.param,
                code=self.code,
                **self.template(),
            )
        )

    def template(self) -> dict[str, Any]:
        """Return the message as "template" and "values", for translation."""
        return Text(self.message).as_dict()

    def for_field(self, messages_field: str) -> ApiError:
        """Return the same error for a request whose conversation is not in `messages`."""
        if self.param != "messages" or messages_field == "messages":
            return self
        return replace(self, param=messages_field)

    def headers(self) -> dict[str, str]:
        """Return the headers that the reply needs."""
        return {"retry-after": str(self.retry_after)} if self.retry_after else {}


def context_error(context: int, why: Text) -> ApiError:
    """Return the reply for a conversation that does not fit into the context.

    Client libraries recognise the error by its first sentence, which is OpenAI's.
    """
    text = Text(
        "This model's maximum context length is {context} tokens. {why}", context=context, why=why
    )
    return ApiError(400, text, "context_length_exceeded", "messages")


def api_error_of(error: CogVLM2LiteError, context: int = 0) -> ApiError:
    """Return the reply for an error of the engine. It names no file of this machine.

    context  tokens of question, picture and answer together
    """
    text = error.text
    match error:
        case PromptTooLongError():
            return context_error(context, text)
        case ImageError():
            return ApiError(400, text, "invalid_image", "messages")
        case UsageError():
            return ApiError(400, text, "invalid_value", error.param)
        case DoesNotFitError():
            return ApiError(503, text, "out_of_memory", retry_after=30)
        case EngineError():
            return ApiError(503, text, "engine_unavailable", retry_after=10)
        case _:
            return ApiError(
                500, "The model can't answer; the server's log has the reason.", "engine_error"
            )


def reply_body(error: ApiError, path: str) -> Error | OllamaError:
    """Return the JSON of an error in the form of the API that a path belongs to."""
    if path.startswith("/api/"):
        return OllamaError(error=str(error.message))
    return error.body()


def dumps(value: object) -> bytes:
    """Return JSON as UTF-8; lone surrogates, which UTF-8 lacks, become question marks.

    value  may hold the types of response_bodies.py
    """
    text = json.dumps(
        value,
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
        default=msgspec.to_builtins,
    )
    return text.encode("utf-8", errors="replace")
