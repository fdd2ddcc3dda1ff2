"""Builds replies in the form of OpenAI's API, complete or as chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from cogvlm2_lite.events import (
    Event,
    Finished,
    FinishReason,
    ImageEncoded,
    Notice,
    PictureOpened,
    Prefilled,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TokenLogprobs,
    TurnsDropped,
)
from cogvlm2_lite.server.api_errors import ApiError, dumps
from cogvlm2_lite.server.logprobs import chosen_tokens, completion_logprobs, extend
from cogvlm2_lite.server.requests import AnswerRequest
from cogvlm2_lite.server.response_bodies import (
    CalledFunction,
    ChatAnswer,
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    PromptTokensDetails,
    Report,
    ToolCall,
    Usage,
)
from cogvlm2_lite.server.response_bodies import FinishReason as Reason
from cogvlm2_lite.text import TEXTS, with_templates

FINGERPRINT = f"cogvlm2-lite-{version('cogvlm2-lite')}"
EVENT_STREAM = "text/event-stream; charset=utf-8"
COMMENT = b": still working\n\n"
"""A server-sent event without data."""
Logprobs = ChatLogprobs | CompletionLogprobs
REASONS: Mapping[FinishReason, Reason] = {
    FinishReason.EOS: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.REPETITION: "length",
    FinishReason.CANCELLED: "length",
}


class Reply(Protocol):
    """Builds the reply to one request, from the events of its answer.

    report        how the request was read; set before `begin` and `whole`
    content_type  of a stream
    """

    report: Report | None
    content_type: str

    def whole(self, finished: Finished) -> Struct:
        """Return the reply to a request without stream, after `chunks` got all events."""
        ...

    def begin(self) -> Iterator[dict[str, Any]]:
        """Return the stream's first chunks."""
        ...

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Return the chunks that report an event."""
        ...

    def failed(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Return the chunks that report a failure in the middle of a stream."""
        ...

    def framed(self, chunk: Mapping[str, Any]) -> bytes:
        """Return the bytes of a chunk in a stream."""
        ...

    @property
    def comment(self) -> bytes:
        """What a stream sends while there is no chunk; clients ignore it. b"": nothing."""
        ...

    @property
    def end(self) -> bytes:
        """What follows the last chunk."""
        ...


class CompletionReply:
    """Builds the reply to one request.

    model        the name of the model
    chat         the form of /v1/chat/completions; else that of /v1/completions
    progress     report progress before the first token
    with_logprobs       logprobs were asked for
    usage_chunk  end a stream with the token counts
    continued    the answer continues a text that the client has
    function     the answer is the arguments of this function; "": it is text
    """

    content_type = EVENT_STREAM

    def __init__(
        self,
        model: str,
        *,
        chat: bool,
        progress: bool = False,
        with_logprobs: bool = False,
        usage_chunk: bool = False,
        continued: bool = False,
        function: str = "",
    ) -> None:
        self.report: Report | None = None
        self._function = function
        self._call_id = f"call_{secrets.token_hex(12)}"
        self._model = model
        # Most answers begin with the space that follows "Answer:"; other texts keep their spaces.
        self._strips = chat and not continued
        self._usage_chunk = usage_chunk
        self._chat = chat
        self._progress = progress
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._text = ""
        self._reused_tokens = 0
        # The logprobs so far; None if they were not requested.
        self._logprobs: Logprobs | None = None
        if with_logprobs:
            self._logprobs = ChatLogprobs(content=[]) if chat else completion_logprobs(())

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._text

    def whole(self, finished: Finished) -> ChatCompletion | Completion:
        """Return the reply to a request without stream, after `chunks` got all events."""
        reason, logprobs = REASONS[finished.reason], self._logprobs
        if self._chat:
            assert not isinstance(logprobs, CompletionLogprobs)
            answer = ChatAnswer(content=self._text)
            if self._function:
                call = CalledFunction(name=self._function, arguments=self._text)
                calls = [ToolCall(id=self._call_id, function=call)]
                answer = ChatAnswer(content=None, tool_calls=calls)
            return ChatCompletion(
                id=self._id,
                created=self._created,
                model=self._model,
                choices=[ChatChoice(message=answer, finish_reason=reason, logprobs=logprobs)],
                usage=usage(finished, self._reused_tokens),
                cogvlm2=self.report,
                system_fingerprint=FINGERPRINT,
            )
        assert not isinstance(logprobs, ChatLogprobs)
        return Completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[CompletionChoice(text=self._text, finish_reason=reason, logprobs=logprobs)],
            usage=usage(finished, self._reused_tokens),
            system_fingerprint=FINGERPRINT,
        )

    def begin(self) -> Iterator[dict[str, Any]]:
        """Return the stream's first chunk."""
        if self._chat:
            delta: dict[str, Any] = {"role": "assistant", "content": ""}
            if self._function:
                call = {"name": self._function, "arguments": ""}
                one = {"index": 0, "id": self._call_id, "type": "function", "function": call}
                delta = {"role": "assistant", "content": None, "tool_calls": [one]}
            first = self._chunk(delta, None)
            yield first if self.report is None else {**first, "cogvlm2": self.report}

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Return the chunks that report an event."""
        if isinstance(event, Prefilled):
            self._reused_tokens = event.reused_tokens
        match event:
            case PictureOpened():
                return
            case TextDelta():
                yield from self._delta(event)
            case Finished():
                yield self._chunk({} if self._chat else "", REASONS[event.reason])
                if self._usage_chunk:
                    counts = usage(event, self._reused_tokens)
                    yield {**self._frame(), "choices": [], "usage": counts}
            case _:
                if self._progress:
                    yield {**self._frame(), "choices": [], **_progress_report(event)}

    def failed(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Return the chunk that reports a failure in the middle of a stream."""
        yield msgspec.to_builtins(error.body())

    def framed(self, chunk: Mapping[str, Any]) -> bytes:
        """Return a server-sent event."""
        return b"data: " + dumps(chunk) + b"\n\n"

    @property
    def comment(self) -> bytes:
        """A comment of server-sent events."""
        return COMMENT

    @property
    def end(self) -> bytes:
        """What follows the last chunk."""
        return b"data: [DONE]\n\n"

    def _delta(self, event: TextDelta) -> Iterator[dict[str, Any]]:
        text = event.text.lstrip() if self._strips and not self._text else event.text
        logprobs = self._take_logprobs(event.tokens, event.text)
        self._text += text
        if text or event.tokens:
            yield self._chunk(self._piece(text) if self._chat else text, None, logprobs)

    def _piece(self, text: str) -> dict[str, Any]:
        """Return the change that a piece of the answer makes to a chat's message."""
        if self._function:
            return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
        return {"content": text}

    def _take_logprobs(self, tokens: Sequence[TokenLogprobs], text: str) -> Logprobs | None:
        """Return the logprobs of a piece, and store them for the complete reply."""
        if self._logprobs is None:
            return None
        if self._chat:
            logprobs: Logprobs = ChatLogprobs(content=chosen_tokens(tokens))
        else:
            logprobs = completion_logprobs(tokens, text, len(self._text))
        extend(self._logprobs, logprobs)
        return logprobs

    def _chunk(
        self,
        delta: dict[str, Any] | str,
        reason: str | None,
        logprobs: Logprobs | None = None,
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": logprobs}
        choice["delta" if self._chat else "text"] = delta
        return {**self._frame(), "choices": [choice]}

    def _frame(self) -> dict[str, Any]:
        """Return what all chunks of a stream have."""
        name = "chat.completion.chunk" if self._chat else "text_completion"
        return {
            "id": self._id,
            "object": name,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
        }


def report_of(asked: AnswerRequest, opened: PictureOpened | None) -> Report | None:
    """Return how a request was read; None if it was read as it stands."""
    if opened is None and not asked.ignored and not asked.notices:
        return None
    notices = [*asked.notices, *(opened.notices if opened else ())]
    return Report(
        ignored=list(asked.ignored),
        page=opened.page if opened else 1,
        pages=opened.pages if opened else 1,
        notices=list(map(str, notices)),
        texts=with_templates({"notices": notices}).get(TEXTS, {}),
    )


def usage(finished: Finished, reused_tokens: int) -> Usage:
    """Return OpenAI's counts. reused_tokens: those of the prompt that were in the cache."""
    return Usage(
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        total_tokens=finished.prompt_tokens + finished.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=reused_tokens, image_tokens=finished.image_tokens
        ),
    )


def _progress_report(event: Event) -> dict[str, Any]:
    """Return the progress report of an event, for our own page."""
    report: dict[str, Any] = {}
    match event:
        case Progress():
            report = {
                "phase": event.phase,
                "done": event.done,
                "total": event.total,
                "held_bytes": event.held_bytes,
            }
        case ImageEncoded():
            report = {"image_tokens": event.image_tokens, "reused": event.reused}
        case Prefilled():
            report = {"tokens": event.tokens, "reused_tokens": event.reused_tokens}
        case TurnsDropped():
            report = {"dropped_turns": event.count}
        case Notice() | Replanned():
            report = {"notice": str(event.text), **event.text.as_dict()}
        case Streaming():
            report = {"token_bytes": event.token_bytes}
    return {"cogvlm2": report}
