"""Builds the reply of POST /v1/responses, complete or as the events of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cogvlm2_lite.events import Event, Finished, Prefilled, TextDelta
from cogvlm2_lite.server.api_errors import ApiError, dumps
from cogvlm2_lite.server.bodies import ResponseRequest, TextFormat
from cogvlm2_lite.server.calls import CallReader
from cogvlm2_lite.server.logprobs import chosen_tokens, stripped
from cogvlm2_lite.server.replies import COMMENT, EVENT_STREAM, REASONS
from cogvlm2_lite.server.response_bodies import (
    ChosenToken,
    FunctionCall,
    IncompleteDetails,
    InputTokensDetails,
    ItemStatus,
    OutputMessage,
    OutputText,
    Report,
    Response,
    ResponseSettings,
    ResponseUsage,
)


def _form(form: TextFormat | None) -> dict[str, Any]:
    """Return the form of an answer as the reply repeats it."""
    if form is None or form.type != "json_schema":
        return {"type": form.type if form is not None else "text"}
    return {"type": form.type, "name": form.name or "answer", "schema": form.schema}


def _code(error: ApiError) -> str:
    """Return one of the few codes that this API has for errors in a stream."""
    if error.code == "invalid_image":
        return error.code
    return {400: "invalid_prompt", 429: "rate_limit_exceeded"}.get(error.status, "server_error")


class ResponseReply:
    """Builds the reply to one request.

    model   the name of the model
    body    the request, whose settings the reply repeats
    with_logprobs  logprobs were asked for
    continued      the answer continues a text that the client has
    functions      the answer calls one of these (calls.py); (): it is text
    """

    content_type = EVENT_STREAM

    def __init__(
        self,
        model: str,
        body: ResponseRequest,
        *,
        with_logprobs: bool,
        continued: bool = False,
        functions: Sequence[str] = (),
    ) -> None:
        self.report: Report | None = None
        self._with_logprobs = with_logprobs
        self._strips = not continued
        self._text = ""
        self._logprobs: list[ChosenToken] = []
        self._call = CallReader(functions) if functions else None
        self._call_begun = False
        self._number = 0
        self._reused_tokens = 0
        self._item_id = f"{'fc' if functions else 'msg'}_{secrets.token_hex(16)}"
        self._call_id = f"call_{secrets.token_hex(12)}"
        form = body.text.format if body.text is not None else None
        self._settings = ResponseSettings(
            id=f"resp_{secrets.token_hex(16)}",
            created_at=int(time.time()),
            model=model,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            temperature=body.temperature or 0.0,
            top_p=body.top_p or 1.0,
            text={"format": _form(form)},
            truncation=body.truncation or "disabled",
            user=body.user,
            cogvlm2=None,
        )

    def whole(self, finished: Finished) -> Response:
        """Return the reply to a request without stream, after `chunks` got all events."""
        cut = REASONS[finished.reason] == "length"
        return Response(
            **self._known(),
            status="incomplete" if cut else "completed",
            incomplete_details=IncompleteDetails() if cut else None,
            output=[self._item("incomplete" if cut else "completed")],
            usage=self._usage(finished),
        )

    def begin(self) -> Iterator[dict[str, Any]]:
        """Return the stream's first events."""
        frame = self._frame("in_progress")
        yield self._event("response.created", response=frame)
        yield self._event("response.in_progress", response=frame)
        if self._call is None:
            item = OutputMessage(id=self._item_id, status="in_progress", content=[])
            yield self._event("response.output_item.added", output_index=0, item=item)
            yield self._of_part("response.content_part.added", part=self._part())

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Return the events of the stream that report an event of the engine."""
        match event:
            case Prefilled():
                self._reused_tokens = event.reused_tokens
            case TextDelta():
                yield from self._delta(event)
            case Finished():
                if self._call is not None:
                    piece = self._call.finish(complete=REASONS[event.reason] != "length")
                    yield from self._call_delta(self._call, piece)
                yield from self._end(self.whole(event))
            case _:
                return

    def _delta(self, event: TextDelta) -> Iterator[dict[str, Any]]:
        text, tokens = event.text, event.tokens
        if self._strips and not self._text:
            text, tokens = stripped(event)  # most answers begin with the space after "Answer:"
        logprobs = chosen_tokens(tokens) if self._with_logprobs else []
        self._text += text
        self._logprobs += logprobs
        if self._call is not None:
            yield from self._call_delta(self._call, self._call.push(text))
        elif text or logprobs:
            yield self._of_part("response.output_text.delta", delta=text, logprobs=logprobs)

    def _call_delta(self, call: CallReader, piece: str) -> Iterator[dict[str, Any]]:
        """Return the events about a piece of a call's arguments; the first one has the name."""
        if call.name and not self._call_begun:
            self._call_begun = True
            item = self._made_call(call, "in_progress", "")
            yield self._event("response.output_item.added", output_index=0, item=item)
        if piece:
            yield self._of_item("response.function_call_arguments.delta", delta=piece)

    def failed(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Return the last event of a stream that an error ended."""
        reason = {"code": _code(error), "message": str(error.message), **error.template()}
        response = {**self._frame("failed"), "error": reason}
        yield self._event("response.failed", response=response)

    def framed(self, chunk: Mapping[str, Any]) -> bytes:
        """Return a server-sent event; in this API each has a name."""
        return f"event: {chunk['type']}\n".encode() + b"data: " + dumps(chunk) + b"\n\n"

    @property
    def comment(self) -> bytes:
        """A comment of server-sent events."""
        return COMMENT

    @property
    def end(self) -> bytes:
        """Empty: response.completed is the last event."""
        return b""

    def _known(self) -> dict[str, Any]:
        """Return the fields that are known from the beginning."""
        return {**msgspec.structs.asdict(self._settings), "cogvlm2": self.report}

    def _frame(self, status: str) -> dict[str, Any]:
        """Return the response before its end."""
        missing: dict[str, Any] = {
            "error": None,
            "incomplete_details": None,
            "output": [],
            "usage": None,
        }
        return {**self._known(), "status": status, **missing}

    def _end(self, response: Response) -> Iterator[dict[str, Any]]:
        if self._call is None:
            done = "response.output_text.done"
            yield self._of_part(done, text=self._text, logprobs=self._logprobs)
            yield self._of_part("response.content_part.done", part=self._part())
        elif self._call_begun:
            done = "response.function_call_arguments.done"
            call = self._call
            yield self._of_item(done, name=call.name, arguments=call.arguments)
        if self._call is None or self._call_begun:
            item = response.output[0]
            yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event(f"response.{response.status}", response=response)

    def _event(self, kind: str, **values: Any) -> dict[str, Any]:
        event = {"type": kind, "sequence_number": self._number, **values}
        self._number += 1
        return event

    def _of_item(self, kind: str, **values: Any) -> dict[str, Any]:
        return self._event(kind, item_id=self._item_id, output_index=0, **values)

    def _of_part(self, kind: str, **values: Any) -> dict[str, Any]:
        return self._of_item(kind, content_index=0, **values)

    def _part(self) -> OutputText:
        return OutputText(text=self._text, logprobs=list(self._logprobs))

    def _item(self, status: ItemStatus) -> OutputMessage | FunctionCall:
        """Return what the answer is: a message or a call."""
        if self._call is not None:
            return self._made_call(self._call, status, self._call.arguments)
        return OutputMessage(id=self._item_id, status=status, content=[self._part()])

    def _made_call(self, call: CallReader, status: ItemStatus, arguments: str) -> FunctionCall:
        return FunctionCall(
            id=self._item_id,
            call_id=self._call_id,
            status=status,
            name=call.name,
            arguments=arguments,
        )

    def _usage(self, finished: Finished) -> ResponseUsage:
        return ResponseUsage(
            input_tokens=finished.prompt_tokens,
            input_tokens_details=InputTokensDetails(
                cached_tokens=self._reused_tokens, image_tokens=finished.image_tokens
            ),
            output_tokens=finished.completion_tokens,
            total_tokens=finished.prompt_tokens + finished.completion_tokens,
        )
