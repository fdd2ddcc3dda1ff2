"""Translates Ollama's API: its requests to chat requests, and answers to its replies.

This module uses neither the network nor the file system nor the engine.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

import msgspec

from cogvlm2_lite.events import Event, Finished, TextDelta
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.server.api_errors import ApiError, dumps
from cogvlm2_lite.server.bodies import ChatRequest
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.logprobs import chosen_tokens, stripped
from cogvlm2_lite.server.ollama_bodies import (
    OllamaChatReply,
    OllamaChatRequest,
    OllamaGenerateReply,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaMessageReply,
    OllamaRequest,
)
from cogvlm2_lite.server.replies import REASONS
from cogvlm2_lite.server.requests import AnswerRequest, read_asked
from cogvlm2_lite.server.response_bodies import ChosenToken, Report
from cogvlm2_lite.server.tolerance import normal_data_url
from cogvlm2_lite.server.validation import read_body, reject, shown
from cogvlm2_lite.text import Text

_OPTIONS = {
    "num_predict": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "stop": "stop",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
"""Ollama's options by name, and the fields of a chat request that do the same."""

_FIELDS = {ours: f"options.{name}" for name, ours in _OPTIONS.items()}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST_S = 10.0**8
Only = Literal["load", "unload"]


def read_chat(values: Mapping[str, Any], limits: Limits) -> tuple[OllamaChatRequest, AnswerRequest]:
    """Return the body of /api/chat and its question; ApiError names the field at fault."""
    body = read_body(values, OllamaChatRequest)
    if not body.messages:
        return body, _only_load(body)
    messages = [
        _message(message, f"messages[{index}]", limits)
        for index, message in enumerate(body.messages)
    ]
    asked = _asked(body, messages, limits, lambda param: param)
    return body, _with_ignored(asked, values, body)


def read_generate(
    values: Mapping[str, Any], limits: Limits
) -> tuple[OllamaGenerateRequest, AnswerRequest]:
    """Return the body of /api/generate and its question; ApiError names the field at fault."""
    body = read_body(values, OllamaGenerateRequest)
    images = _images(body.images, "images", limits)
    if not body.prompt and not images:
        return body, _only_load(body)
    turns = _read_context(body.context or [])
    raw = body.raw is True
    messages: list[dict[str, Any]] = []
    for question, answer in () if raw else turns or ():
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    if body.system and not raw:
        messages.append({"role": "system", "content": body.system})
    messages.append({"role": "user", "content": [*_text_part(body.prompt), *images]})
    asked = _asked(body, messages, limits, lambda _: "prompt")
    if raw:
        asked = replace(asked, template="base")
    asked = replace(asked, messages_field="prompt")
    ignored = [name for name in ("template",) if values.get(name)]
    ignored += ["context"] if turns is None else []
    return body, _with_ignored(asked, values, body, *ignored)


def keep_alive_s(value: float | str | None) -> float | None:
    """Return the seconds of a `keep_alive`; None: for ever. Raises ApiError for other texts."""
    if value is None:
        return None
    if isinstance(value, str):
        value = _duration(value.strip())
    return None if value < 0 or value > _LONGEST_S else value


def _duration(text: str) -> float:
    """Return the seconds of a duration such as "5m", "1h30m", "-1s" or "300"."""
    sign, unsigned = (-1.0, text[1:]) if text[:1] == "-" else (1.0, text.removeprefix("+"))
    parts = _DURATION.findall(unsigned)
    if parts and "".join(number + unit for number, unit in parts) == unsigned:
        return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not re.fullmatch(r"\d{1,12}(\.\d{1,12})?", unsigned):
        reject(
            "keep_alive",
            "{param} must be {expected}, not {value}.",
            expected=Text('a number of seconds or a duration such as "5m"'),
            value=shown(text),
        )
    return sign * float(unsigned)


# --- requests ------------------------------------------------------------------------------------


def _only_load(body: OllamaRequest) -> AnswerRequest:
    """Return the request of a body without a question, which only loads or unloads the model."""
    return AnswerRequest(
        model=None,
        question="",
        sampling=Sampling(),
        stream=body.stream is not False,
        keep_s=keep_alive_s(body.keep_alive),
        waits=True,
    )


def _asked(
    body: OllamaRequest,
    messages: list[dict[str, Any]],
    limits: Limits,
    param_of: Callable[[str], str],
) -> AnswerRequest:
    """Return the question of a conversation.

    param_of  the name of Ollama's field for a place in `messages`
    """
    keep_s = keep_alive_s(body.keep_alive)
    values: dict[str, Any] = {
        "messages": messages,
        "stream": body.stream is not False,
        "truncation": "disabled" if body.truncate is False else "auto",
        "logprobs": body.logprobs,
        "top_logprobs": body.top_logprobs if body.logprobs else None,
        "response_format": _form(body.format),
    }
    for name, field in _OPTIONS.items():
        if (value := (body.options or {}).get(name)) is not None:
            values[field] = value
    try:
        _, asked = read_asked(values, ChatRequest, replace(limits, strict=False))
    except ApiError as error:
        _raise_renamed(error, param_of)
    ignored = tuple(_FIELDS.get(name, name) for name in asked.ignored)
    return replace(asked, keep_s=keep_s, waits=True, ignored=ignored)


def _raise_renamed(error: ApiError, param_of: Callable[[str], str]) -> NoReturn:
    """Raise an error about a field of the chat request with the name that Ollama has for it."""
    param = error.param or ""
    name = _FIELDS.get(param.partition("[")[0])
    if name is None:
        name = "format" if param.startswith("response_format") else param_of(param)
    if isinstance(message := error.message, Text) and message.values.get("param") == param:
        message = Text(message.template, **{**message.values, "param": name})
    raise replace(error, message=message, param=name) from None


def _with_ignored(
    asked: AnswerRequest, values: Mapping[str, Any], body: OllamaRequest, *names: str
) -> AnswerRequest:
    """Return the request with the names of what was not used added."""
    unknown = [n for n, v in values.items() if n not in body.__struct_fields__ and v is not None]
    options = body.options or {}
    unknown += [f"options.{n}" for n, v in options.items() if n not in _OPTIONS and v is not None]
    # Programs turn thinking off for every model, which asks for nothing here.
    unsupported = [name for name in ("think", "tools") if values.get(name)]
    shortened = [name[:60] for name in (*unknown, *unsupported, *names)]
    return replace(asked, ignored=(*asked.ignored, *shortened))


def _form(form: dict[str, Any] | str | None) -> dict[str, Any] | None:
    """Return the form of an answer as chat requests have it."""
    if form is None or form == "":
        return None
    if form == "json":
        return {"type": "json_object"}
    if isinstance(form, str):
        reject(
            "format",
            "{param} must be {expected}, not {value}.",
            expected=Text('"json" or a JSON schema'),
            value=shown(form),
        )
    return {"type": "json_schema", "json_schema": {"schema": form}}


def _message(message: OllamaMessage, where: str, limits: Limits) -> dict[str, Any]:
    """Return a message in OpenAI's form."""
    parts: str | list[Any] = message.content or ""
    if images := _images(message.images, f"{where}.images", limits):
        parts = [*(_text_part(parts) if isinstance(parts, str) else parts), *images]
    made: dict[str, Any] = {"role": message.role, "content": parts}
    if message.tool_calls:
        made["tool_calls"] = message.tool_calls
    if name := message.tool_name or message.name:
        made["name"] = name
    return made


def _text_part(text: str | None) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _images(images: list[str] | str | None, where: str, limits: Limits) -> list[dict[str, Any]]:
    """Return the parts of pictures. Raises ApiError for one that is not base64."""
    listed = [images] if isinstance(images, str) else images or []
    return [
        {"type": "image_url", "image_url": {"url": _url(image, f"{where}[{index}]", limits)}}
        for index, image in enumerate(listed)
        if image
    ]


def _url(image: str, where: str, limits: Limits) -> str:
    start = image[:8].lstrip().lower()
    if limits.remote_images and start.startswith("http"):
        return image
    url = normal_data_url(image if start.startswith("data:") else f"data:;base64,{image}")
    try:
        base64.b64decode(url.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        reject(
            where,
            "{param} must be a picture in base64, because this server opens neither web addresses "
            "nor files.",
            "invalid_base64",
        )
    return url


def _read_context(context: list[int]) -> list[tuple[str, str]] | None:
    """Return the turns of an earlier reply's `context`; None if another server made it."""
    if not context:
        return []
    try:
        return msgspec.json.decode(bytes(context), type=list[tuple[str, str]])
    except (ValueError, msgspec.DecodeError):
        return None


def _context(asked: AnswerRequest, answer: str) -> list[int]:
    """Return the conversation as Ollama's clients return it: a list of numbers.

    They are the bytes of its text, and not tokens, so that the server has to remember nothing.
    """
    return list(dumps([*asked.history, (asked.question, answer.strip())]))


# --- replies -------------------------------------------------------------------------------------


class OllamaReply:
    """Builds the reply to one request.

    model  the name of the model, as the request has it
    chat   the form of /api/chat; else that of /api/generate
    only   the model was only loaded or unloaded
    """

    content_type = "application/x-ndjson"

    def __init__(
        self, model: str, asked: AnswerRequest, *, chat: bool, only: Only | None = None
    ) -> None:
        self.report: Report | None = None
        self._model = model
        self._asked = asked
        self._chat = chat
        self._only = only
        # Raw prompts and continued answers keep their spaces.
        self._strips = asked.template != "base" and not asked.continue_from
        self._text = ""
        self._logprobs: list[ChosenToken] = []
        self._started = time.perf_counter_ns()

    def whole(self, finished: Finished) -> OllamaChatReply | OllamaGenerateReply:
        """Return the reply to a request without stream, after `chunks` got all events."""
        return self._last(finished, self._text, self._logprobs)

    def begin(self) -> Iterator[dict[str, Any]]:
        """Return the stream's first lines: none."""
        return iter(())

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Return the lines that report an event."""
        if isinstance(event, TextDelta):
            text, tokens = event.text, event.tokens
            if self._strips and not self._text:
                text, tokens = stripped(event)
            self._text += text
            logprobs = chosen_tokens(tokens)
            self._logprobs += logprobs
            if text or logprobs:
                yield self._line(text, logprobs)
        elif isinstance(event, Finished):
            line: dict[str, Any] = msgspec.to_builtins(self._last(event, "", []))
            yield line

    def failed(self, error: ApiError) -> Iterator[dict[str, Any]]:
        """Return the line that reports a failure in the middle of a stream."""
        yield {"error": str(error.message)}

    def framed(self, chunk: Mapping[str, Any]) -> bytes:
        """Return a line of JSON."""
        return dumps(chunk) + b"\n"

    @property
    def comment(self) -> bytes:
        """A line without text, because every line must be a reply."""
        return self.framed(self._line("", []))

    @property
    def end(self) -> bytes:
        """What follows the last line."""
        return b""

    def _line(self, text: str, logprobs: list[ChosenToken]) -> dict[str, Any]:
        line: dict[str, Any] = msgspec.to_builtins(self._made(text, logprobs, done=False))
        return line

    def _last(
        self, finished: Finished, text: str, logprobs: list[ChosenToken]
    ) -> OllamaChatReply | OllamaGenerateReply:
        """Return the reply's last line, with the counts."""
        if self._only is not None:
            return self._made(text, [], done=True, done_reason=self._only)
        total = time.perf_counter_ns() - self._started
        prompt = _nanoseconds(finished.encode_s + finished.prefill_s)
        answer = _nanoseconds(finished.decode_s)
        last: dict[str, Any] = {
            "done_reason": REASONS[finished.reason],
            "total_duration": max(total, prompt + answer),
            # As Ollama counts it: the time until the work began, waiting included.
            "load_duration": max(total - prompt - answer, 0),
            "prompt_eval_count": finished.prompt_tokens,
            "prompt_eval_duration": prompt,
            "eval_count": finished.completion_tokens,
            "eval_duration": answer,
        }
        if self.report is not None:
            last["cogvlm2"] = self.report
        if not self._chat and self._asked.template != "base":
            last["context"] = _context(self._asked, self._text)
        return self._made(text, logprobs, done=True, **last)

    def _made(
        self, text: str, logprobs: list[ChosenToken], **fields: Any
    ) -> OllamaChatReply | OllamaGenerateReply:
        if logprobs:
            fields["logprobs"] = logprobs
        fields |= {"model": self._model, "created_at": timestamp(time.time())}
        if self._chat:
            return OllamaChatReply(message=OllamaMessageReply(content=text), **fields)
        return OllamaGenerateReply(response=text, **fields)


def timestamp(seconds: float) -> str:
    """Return a time since 1970 as Ollama writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return max(round(seconds * 1e9), 0)
