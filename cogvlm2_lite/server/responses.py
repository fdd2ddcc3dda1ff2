"""POST /v1/responses, as far as a chat needs it: its requests and its replies."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cogvlm2_lite.events import Event, Finished, Prefilled, TextDelta
from cogvlm2_lite.server.api_errors import ApiError, dumps
from cogvlm2_lite.server.fields import check_fields, choice, refuse, shown, text
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.logprobs import chat_content
from cogvlm2_lite.server.messages import RESPONSES, Messages
from cogvlm2_lite.server.replies import REASONS
from cogvlm2_lite.server.requests import (
    IGNORED,
    TOOLS,
    AnswerRequest,
    json_wanted,
    make_request,
    top_of,
)

_LOGPROBS = "message.output_text.logprobs"
FIELDS = (IGNORED - {"store"}) | {
    "input", "instructions", "max_output_tokens", "model", "stream", "stream_options", "text",
    "temperature", "top_p", "top_k", "seed", "repetition_penalty", "truncation", "user", "include",
    "top_logprobs", "previous_response_id", "store",
}  # fmt: skip
# Fields of OpenAI's API that this server lacks, with the values that mean "not wanted".
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    **TOOLS,
    "max_tool_calls": (None,),
    "background": (None, False),
    "conversation": (None,),
    "prompt": (None,),
    "reasoning": (None, {}),
}


def read_response(values: Mapping[str, Any], limits: Limits) -> AnswerRequest:
    """Read the body of /v1/responses; ApiError names the field at fault."""
    check_fields(values, FIELDS, NEUTRAL)
    if values.get("previous_response_id") is not None:
        refuse(
            "previous_response_id",
            "can't be used: this server keeps no answers, so send the whole conversation as input",
            "unsupported_parameter",
        )
    if values.get("store") is not None and values["store"] is not False:
        refuse("store", "must be false: this server keeps no answers", "unsupported_parameter")
    if not isinstance(values.get("metadata"), dict | None):
        refuse("metadata", "must be an object")
    given = values.get("input")
    if given is None:
        refuse("input", "is missing: a text, or a list of messages")
    messages = Messages(limits, RESPONSES)
    if instructions := text(values, "instructions"):
        messages.instruct(instructions)
    messages.read([{"role": "user", "content": given}] if isinstance(given, str) else given)
    scored = _wants_logprobs(values.get("include"))
    top = top_of(values, scored, f'"include": ["{_LOGPROBS}"]')
    return make_request(
        values,
        limits,
        tokens_field="max_output_tokens",
        messages=messages,
        messages_field="input",
        logprobs=top,
        json_object=_wants_json(values),
    )


def _wants_logprobs(include: object) -> bool:
    if include is None:
        return False
    if not isinstance(include, list) or any(name != _LOGPROBS for name in include):
        refuse("include", f'must be a list that holds nothing but "{_LOGPROBS}"')
    return bool(include)


def _wants_json(values: Mapping[str, Any]) -> bool:
    options = values.get("text")
    if options is None:
        return False
    if not isinstance(options, dict) or options.get("verbosity") is not None:
        refuse("text", 'must be an object with a "format" and nothing else')
    if unknown := set(options) - {"format", "verbosity"}:
        refuse("text", f"has an unknown field {shown(min(unknown))}")
    return json_wanted(options.get("format"), "text.format")


class ResponseReply:
    """Builds the reply to one request.

    model   the name of the model
    values  the request, of which the reply repeats what it settled
    scored  the likelihoods of tokens were asked for
    """

    def __init__(self, model: str, values: Mapping[str, Any], *, scored: bool) -> None:
        self._scored = scored
        self._text = ""
        self._logprobs: list[dict[str, Any]] = []
        self._number = 0
        self._reused_tokens = 0
        self._message_id = f"msg_{secrets.token_hex(16)}"
        self._frame: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(16)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": values.get("instructions"),
            "max_output_tokens": values.get("max_output_tokens"),
            "metadata": values.get("metadata") or {},
            "model": model,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": values.get("temperature") or 0.0,
            "text": {"format": {"type": "text"}, **(values.get("text") or {})},
            "tool_choice": "none",
            "tools": [],
            "top_p": values.get("top_p") or 1.0,
            "truncation": choice(values, "truncation", (None, "auto", "disabled")) or "disabled",
            "usage": None,
            "user": values.get("user"),
        }

    def whole(self, finished: Finished) -> dict[str, Any]:
        """Give the reply to a request without stream, after `chunks` saw all events."""
        cut = REASONS[finished.reason] == "length"
        return {
            **self._frame,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._message("incomplete" if cut else "completed")],
            "usage": self._usage(finished),
        }

    def begin(self) -> Iterator[dict[str, Any]]:
        """Give the stream's first events."""
        yield self._event("response.created", response=self._frame)
        yield self._event("response.in_progress", response=self._frame)
        item = {**self._message("in_progress"), "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._of_part("response.content_part.added", part=self._part())

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Give the events of the stream that tell an event of the engine."""
        match event:
            case Prefilled():
                self._reused_tokens = event.reused_tokens
            case TextDelta():
                # Answers mostly begin with the space that follows "Answer:".
                text = event.text if self._text else event.text.lstrip()
                scores = chat_content(event.tokens) if self._scored else []
                self._text += text
                self._logprobs += scores
                if text or scores:
                    name = "response.output_text.delta"
                    yield self._of_part(name, delta=text, logprobs=scores)
            case Finished():
                yield from self._end(self.whole(event))
            case _:
                return

    def failed(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Give the last event of a stream that something put an end to."""
        reason = {"code": "server_error", "message": error.message}
        response = {**self._frame, "status": "failed", "error": reason}
        yield self._event("response.failed", response=response)

    def framed(self, chunk: Mapping[str, Any]) -> bytes:
        """Give a server-sent event; this API names it beside its data."""
        return f"event: {chunk['type']}\n".encode() + b"data: " + dumps(chunk) + b"\n\n"

    @property
    def end(self) -> bytes:
        """Nothing: response.completed says that it is the last event."""
        return b""

    def _end(self, response: dict[str, Any]) -> Iterator[dict[str, Any]]:
        done = "response.output_text.done"
        yield self._of_part(done, text=self._text, logprobs=self._logprobs)
        yield self._of_part("response.content_part.done", part=self._part())
        item = response["output"][0]
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event(f"response.{response['status']}", response=response)

    def _event(self, kind: str, **values: Any) -> dict[str, Any]:
        event = {"type": kind, "sequence_number": self._number, **values}
        self._number += 1
        return event

    def _of_part(self, kind: str, **values: Any) -> dict[str, Any]:
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        return self._event(kind, **place, **values)

    def _part(self) -> dict[str, Any]:
        return {
            "type": "output_text",
            "text": self._text,
            "annotations": [],
            "logprobs": list(self._logprobs),
        }

    def _message(self, status: str) -> dict[str, Any]:
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [self._part()],
        }

    def _usage(self, finished: Finished) -> dict[str, Any]:
        return {
            "input_tokens": finished.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": self._reused_tokens,
                "cache_write_tokens": 0,  # OpenAI's newer clients want the field
                "image_tokens": finished.image_tokens,
            },
            "output_tokens": finished.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        }
