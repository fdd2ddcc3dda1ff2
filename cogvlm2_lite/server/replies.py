"""Answers in OpenAI's words: whole ones, and chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from cogvlm2_lite.events import (
    Event,
    Finished,
    FinishReason,
    ImageEncoded,
    Notice,
    Prefilled,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TokenScore,
    TurnsDropped,
)
from cogvlm2_lite.server.api_errors import ApiError, dumps
from cogvlm2_lite.server.logprobs import chat_content, text_lists

REASONS = {
    FinishReason.EOS: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.REPETITION: "length",
    FinishReason.CANCELLED: "length",
}


class Reply(Protocol):
    """Builds the reply to one request, from the events of its answer."""

    def whole(self, finished: Finished) -> dict[str, Any]:
        """Give the reply to a request without stream, after `chunks` saw all events."""
        ...

    def begin(self) -> Iterator[dict[str, Any]]:
        """Give the stream's first chunks."""
        ...

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Give the chunks that tell an event."""
        ...

    def failed(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Give the chunks that tell a failure in the middle of a stream."""
        ...

    def framed(self, chunk: Mapping[str, Any]) -> bytes:
        """Give the bytes of a chunk in a stream."""
        ...

    @property
    def end(self) -> bytes:
        """What follows the last chunk."""
        ...


class CompletionReply:
    """Builds the reply to one request.

    model  the name of the model
    chat   the form of /v1/chat/completions; else that of /v1/completions
    scored the likelihoods of tokens were asked for
    usage_chunk  a stream ends with the counts
    """

    def __init__(
        self,
        model: str,
        *,
        chat: bool,
        progress: bool = False,
        scored: bool = False,
        usage_chunk: bool = False,
    ) -> None:
        self._model = model
        self._usage_chunk = usage_chunk
        self._chat = chat
        self._progress = progress
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._text = ""
        # The lists of likelihoods as far as they have come; None when nobody asked for them.
        self._scores: dict[str, list[Any]] | None = None
        if scored:
            self._scores = {"content": []} if chat else text_lists((), "", 0)

    @property
    def text(self) -> str:
        """The answer as far as it has come."""
        return self._text

    def whole(self, finished: Finished) -> dict[str, Any]:
        """Give the reply to a request without stream, after `chunks` saw all events."""
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": REASONS[finished.reason],
            "logprobs": self._logprobs(self._scores),
        }
        if self._chat:
            choice["message"] = {"role": "assistant", "content": self._text, "refusal": None}
        else:
            choice["text"] = self._text
        name = "chat.completion" if self._chat else "text_completion"
        return {**self._frame(name), "choices": [choice], "usage": usage(finished)}

    def begin(self) -> Iterator[dict[str, Any]]:
        """Give the stream's first chunk."""
        if self._chat:
            yield self._chunk({"role": "assistant", "content": ""}, None)

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Give the chunks that tell an event."""
        match event:
            case TextDelta():
                yield from self._delta(event)
            case Finished():
                yield self._chunk({} if self._chat else "", REASONS[event.reason])
                if self._usage_chunk:
                    counts = usage(event)
                    yield {**self._frame(self._stream_name), "choices": [], "usage": counts}
            case _:
                if self._progress:
                    yield {**self._frame(self._stream_name), "choices": [], **_remark(event)}

    def failed(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Give the chunk that tells a failure in the middle of a stream."""
        yield error.body()

    def framed(self, chunk: Mapping[str, Any]) -> bytes:
        """Give a server-sent event."""
        return b"data: " + dumps(chunk) + b"\n\n"

    @property
    def end(self) -> bytes:
        """What follows the last chunk."""
        return b"data: [DONE]\n\n"

    @property
    def _stream_name(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _delta(self, event: TextDelta) -> Iterator[dict[str, Any]]:
        # Answers mostly begin with the space that follows "Answer:"; bare text keeps its own.
        text = event.text if self._text or not self._chat else event.text.lstrip()
        scores = self._take_scores(event.tokens, event.text)
        self._text += text
        if text or event.tokens:
            yield self._chunk({"content": text} if self._chat else text, None, scores)

    def _take_scores(self, tokens: Sequence[TokenScore], text: str) -> dict[str, list[Any]] | None:
        """Give a piece's likelihoods, and keep them for the whole reply."""
        if self._scores is None:
            return None
        if self._chat:
            scores: dict[str, list[Any]] = {"content": chat_content(tokens)}
        else:
            scores = text_lists(tokens, text, len(self._text))
        for name, values in scores.items():
            self._scores[name] += values
        return scores

    def _logprobs(self, scores: dict[str, list[Any]] | None) -> dict[str, Any] | None:
        if scores is None or not self._chat:
            return scores
        return {**scores, "refusal": None}

    def _chunk(
        self,
        delta: dict[str, str] | str,
        reason: str | None,
        scores: dict[str, list[Any]] | None = None,
    ) -> dict[str, Any]:
        logprobs = self._logprobs(scores)
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": logprobs}
        choice["delta" if self._chat else "text"] = delta
        return {**self._frame(self._stream_name), "choices": [choice]}

    def _frame(self, name: str) -> dict[str, Any]:
        return {"id": self._id, "object": name, "created": self._created, "model": self._model}


def usage(finished: Finished) -> dict[str, Any]:
    """Give OpenAI's counts, exact; prompt tokens include those of the picture."""
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        "prompt_tokens_details": {"image_tokens": finished.image_tokens},
    }


def _remark(event: Event) -> dict[str, Any]:
    """Tell what happens before and beside the words, for pages of our own."""
    told: dict[str, Any] = {}
    match event:
        case Progress():
            told = {
                "phase": event.phase,
                "done": event.done,
                "total": event.total,
                "held_bytes": event.held_bytes,
            }
        case ImageEncoded():
            told = {"image_tokens": event.image_tokens, "reused": event.reused}
        case Prefilled():
            told = {"tokens": event.tokens, "reused_tokens": event.reused_tokens}
        case TurnsDropped():
            told = {"dropped_turns": event.count}
        case Notice() | Replanned():
            told = {"notice": event.text}
        case Streaming():
            told = {"token_bytes": event.token_bytes}
    return {"cogvlm2": told}
