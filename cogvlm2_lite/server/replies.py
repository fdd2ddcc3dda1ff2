"""Builds replies in the form of OpenAI's API, complete or as chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import msgspec
from msgspec import Struct, structs

from cogvlm2_lite.events import (
    Event,
    Finished,
    FinishReason,
    ImageEncoded,
    Notice,
    PictureOpened,
    Prefilled,
    Progress,
    PromptScored,
    Replanned,
    Streaming,
    TextDelta,
    TokenLogprobs,
    TurnsDropped,
)
from cogvlm2_lite.server.api_errors import ApiError, dumps
from cogvlm2_lite.server.calls import CallReader
from cogvlm2_lite.server.logprobs import (
    chosen_tokens,
    completion_logprobs,
    extend,
    prompt_logprobs,
    stripped,
)
from cogvlm2_lite.server.requests import AnswerRequest, Prompt
from cogvlm2_lite.server.response_bodies import (
    CalledFunction,
    ChatAnswer,
    ChatChoice,
    ChatCompletion,
    ChatFinishReason,
    ChatLogprobs,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionTokensDetails,
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


class _Answer:
    """One answer of a reply, while its events come.

    number     of the answer in the reply
    text       the answer so far
    logprobs   those of its tokens so far; None if they were not requested
    call       the call that the answer is; None if it is text
    """

    def __init__(
        self, number: int, text: str, logprobs: Logprobs | None, call: CallReader | None
    ) -> None:
        self.number = number
        self.text = text
        self.logprobs = logprobs
        self.call = call
        self.call_id = f"call_{secrets.token_hex(12)}"
        self.reused_tokens = 0


class CompletionReply:
    """Builds the reply to one request, with one answer or several.

    model        the name of the model
    chat         the form of /v1/chat/completions; else that of /v1/completions
    progress     report progress before the first token
    with_logprobs       logprobs were asked for
    usage_chunk  end a stream with the token counts
    continued    the answer continues a text that the client has
    functions    the answer calls one of these (calls.py); (): it is text
    required     the request left it to the model which of them it calls
    old_call     the call has OpenAI's older form, `function_call`
    answers      number of answers that will come
    count        number of answers to each prompt
    prompts      texts or tokens that are put before their answers; (): none
    scored       the engine reports the text and the logprobs of each prompt
    only_prompt  answers are left out
    predicted    the request has a prediction of the answer
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
        functions: Sequence[str] = (),
        required: bool = False,
        old_call: bool = False,
        answers: int = 1,
        count: int = 1,
        prompts: Sequence[Prompt] = (),
        scored: bool = False,
        only_prompt: bool = False,
        predicted: bool = False,
    ) -> None:
        self.report: Report | None = None
        self._functions = functions
        self._required = required
        self._old_call = old_call
        self._model = model
        # Most answers begin with the space that follows "Answer:"; other texts keep their spaces.
        self._strips = chat and not continued
        self._usage_chunk = usage_chunk
        self._chat = chat
        self._progress = progress
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._with_logprobs = with_logprobs
        self._answers = answers
        self._count = count
        self._prompts = prompts
        self._scored = scored
        self._only_prompt = only_prompt
        self._predicted = predicted
        self._choices: list[ChatChoice | CompletionChoice] = []
        self._usage: Usage | None = None
        self._answer = self._new_answer(0)

    def _new_answer(self, number: int) -> _Answer:
        logprobs: Logprobs | None = None
        if self._with_logprobs:
            logprobs = ChatLogprobs(content=[]) if self._chat else completion_logprobs(())
        prompt = self._prompts[number // self._count] if self._prompts else ""
        text = prompt if isinstance(prompt, str) and not self._scored else ""
        call = CallReader(self._functions) if self._functions else None
        return _Answer(number, text, logprobs, call)

    def whole(self, _: Finished) -> ChatCompletion | Completion:
        """Return the reply to a request without stream, after `chunks` got all events."""
        assert self._usage is not None
        if self._chat:
            return ChatCompletion(
                id=self._id,
                created=self._created,
                model=self._model,
                choices=[one for one in self._choices if isinstance(one, ChatChoice)],
                usage=self._usage,
                cogvlm2=self.report,
                system_fingerprint=FINGERPRINT,
            )
        return Completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[one for one in self._choices if isinstance(one, CompletionChoice)],
            usage=self._usage,
            cogvlm2=self.report,
            system_fingerprint=FINGERPRINT,
        )

    def _choice(self, reason: ChatFinishReason) -> ChatChoice | CompletionChoice:
        """Return the current answer, which is complete."""
        answer = self._answer
        if not self._chat:
            assert not isinstance(answer.logprobs, ChatLogprobs)
            return CompletionChoice(
                text=answer.text,
                finish_reason="length" if reason == "length" else "stop",
                logprobs=answer.logprobs,
                index=answer.number,
            )
        message = ChatAnswer(content=answer.text)
        if answer.call is not None:
            message = ChatAnswer(content=None)
            if answer.call.name:
                call = CalledFunction(name=answer.call.name, arguments=answer.call.arguments)
                calls = [ToolCall(id=answer.call_id, function=call)]
                message = (
                    ChatAnswer(content=None, function_call=call)
                    if self._old_call
                    else ChatAnswer(content=None, tool_calls=calls)
                )
        assert not isinstance(answer.logprobs, CompletionLogprobs)
        return ChatChoice(
            message=message, finish_reason=reason, logprobs=answer.logprobs, index=answer.number
        )

    def begin(self) -> Iterator[dict[str, Any]]:
        """Return the stream's first chunk."""
        for chunk in self._begin_answer():
            yield chunk if self.report is None else {**chunk, "cogvlm2": self.report}

    def _begin_answer(self) -> Iterator[dict[str, Any]]:
        if not self._chat:
            if self._answer.text or self.report is not None:  # the prompt
                yield self._chunk(self._answer.text, None)
        elif self._answer.call is None:
            yield self._chunk({"role": "assistant", "content": ""}, None)
        else:
            delta: dict[str, Any] = {"role": "assistant", "content": None}
            if self._answer.call.name:
                delta |= self._begin_call(self._answer.call.name)
            yield self._chunk(delta, None)

    def _begin_call(self, name: str) -> dict[str, Any]:
        call = {"name": name, "arguments": ""}
        if self._old_call:
            return {"function_call": call}
        one = {"index": 0, "id": self._answer.call_id, "type": "function", "function": call}
        return {"tool_calls": [one]}

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Return the chunks that report an event."""
        if isinstance(event, Prefilled):
            self._answer.reused_tokens = event.reused_tokens
        match event:
            case PictureOpened():
                return
            case TextDelta():
                if not self._only_prompt:
                    yield from self._delta(event)
            case PromptScored():
                yield from self._echo(event)
            case Finished():
                yield from self._finish(event)
            case _:
                if self._progress:
                    yield {**self._frame(), "choices": [], **_progress_report(event)}

    def _echo(self, scored: PromptScored) -> Iterator[dict[str, Any]]:
        """Return the chunk with the prompt, which comes before its answer."""
        answer, logprobs = self._answer, None
        answer.text = scored.text
        if answer.logprobs is not None:
            logprobs = prompt_logprobs(scored)
            extend(answer.logprobs, logprobs)
        yield self._chunk(scored.text, None, logprobs)

    def _finish(self, finished: Finished) -> Iterator[dict[str, Any]]:
        """Return the last chunks of an answer, and the first one of the next answer."""
        reason: ChatFinishReason = REASONS[finished.reason]
        if self._only_prompt:
            reason, finished = "length", structs.replace(finished, completion_tokens=0)
        call, number = self._answer.call, self._answer.number
        if call is not None:
            if piece := call.finish(complete=reason == "stop"):
                yield self._chunk(self._arguments(piece), None)
            if reason == "stop" and self._old_call:
                reason = "function_call"
            elif reason == "stop" and self._required:
                reason = "tool_calls"
        yield self._chunk({} if self._chat else "", reason)
        self._choices.append(self._choice(reason))
        counts = usage(finished, self._answer.reused_tokens, predicted=self._predicted)
        self._usage = _sum(self._usage, counts, same_prompt=number % self._count > 0)
        if number + 1 < self._answers:
            self._answer = self._new_answer(number + 1)
            yield from self._begin_answer()
        elif self._usage_chunk:
            yield {**self._frame(), "choices": [], "usage": self._usage}

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
        answer, text, tokens = self._answer, event.text, event.tokens
        if self._strips and not answer.text:
            text, tokens = stripped(event)
        logprobs = self._take_logprobs(tokens, event.text)
        answer.text += text
        if answer.call is not None:
            yield from self._call_delta(answer.call, text, logprobs)
        elif text or event.tokens:
            yield self._chunk({"content": text} if self._chat else text, None, logprobs)

    def _call_delta(
        self, call: CallReader, text: str, logprobs: Logprobs | None
    ) -> Iterator[dict[str, Any]]:
        known = bool(call.name)
        piece = call.push(text)
        if call.name and not known:
            yield self._chunk(self._begin_call(call.name), None)
        if piece or logprobs:
            yield self._chunk(self._arguments(piece) if piece else {}, None, logprobs)

    def _arguments(self, piece: str) -> dict[str, Any]:
        """Return the change of the message by a piece of a call's arguments."""
        call = {"arguments": piece}
        if self._old_call:
            return {"function_call": call}
        return {"tool_calls": [{"index": 0, "function": call}]}

    def _take_logprobs(self, tokens: Sequence[TokenLogprobs], text: str) -> Logprobs | None:
        """Return the logprobs of a piece, and store them for the complete reply."""
        answer = self._answer
        if answer.logprobs is None:
            return None
        if self._chat:
            logprobs: Logprobs = ChatLogprobs(content=chosen_tokens(tokens))
        else:
            logprobs = completion_logprobs(tokens, text, len(answer.text))
        extend(answer.logprobs, logprobs)
        return logprobs

    def _chunk(
        self,
        delta: dict[str, Any] | str,
        reason: str | None,
        logprobs: Logprobs | None = None,
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": self._answer.number,
            "finish_reason": reason,
            "logprobs": logprobs,
        }
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


def usage(finished: Finished, reused_tokens: int, *, predicted: bool = False) -> Usage:
    """Return OpenAI's counts.

    reused_tokens  those of the prompt that were in the cache
    predicted      the request has a prediction; otherwise what speculation proposed is not counted
    """
    details = CompletionTokensDetails()
    if predicted:
        accepted = finished.accepted_tokens
        details = CompletionTokensDetails(
            accepted_prediction_tokens=accepted,
            rejected_prediction_tokens=finished.draft_tokens - accepted,
        )
    return Usage(
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        total_tokens=finished.prompt_tokens + finished.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=reused_tokens, image_tokens=finished.image_tokens
        ),
        completion_tokens_details=details,
    )


def _sum(before: Usage | None, counts: Usage, *, same_prompt: bool) -> Usage:
    """Add the counts of an answer; a prompt with several answers counts once."""
    if before is None:
        return counts
    prompt, details = before.prompt_tokens, before.prompt_tokens_details
    if not same_prompt:
        prompt += counts.prompt_tokens
        more = counts.prompt_tokens_details
        details = PromptTokensDetails(
            cached_tokens=details.cached_tokens + more.cached_tokens,
            image_tokens=details.image_tokens + more.image_tokens,
        )
    completion = before.completion_tokens + counts.completion_tokens
    kinds, more_kinds = before.completion_tokens_details, counts.completion_tokens_details
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=details,
        completion_tokens_details=CompletionTokensDetails(
            accepted_prediction_tokens=kinds.accepted_prediction_tokens
            + more_kinds.accepted_prediction_tokens,
            rejected_prediction_tokens=kinds.rejected_prediction_tokens
            + more_kinds.rejected_prediction_tokens,
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
