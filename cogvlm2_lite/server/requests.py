"""What clients may ask, read from JSON into plain values. Everything unknown is refused by name.

Nothing here touches the network, the file system or the engine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, NoReturn

from cogvlm2_lite.engine.settings import Sampling
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.server.refusals import Refusal
from cogvlm2_lite.units import MIB, format_bytes

_DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]{1,40}((?:;[a-zA-Z0-9=._-]{1,60}){0,4});base64,")
_DEFAULT_TOKENS = 2048
_MAX_STOPS = 16
_MAX_STOP_LETTERS = 200
_MAX_MESSAGES = 2000
_MOST_LOGPROBS = 20  # OpenAI's ceilings, for chats and for bare text
_MOST_TEXT_LOGPROBS = 5

_SAMPLING_FIELDS = (
    "temperature", "top_p", "top_k", "seed", "stop", "repetition_penalty", "frequency_penalty",
    "presence_penalty", "max_tokens",
)  # fmt: skip
_BOTH = (*_SAMPLING_FIELDS, "model", "stream", "stream_options", "n", "user")
_CHAT_FIELDS = frozenset(
    (*_BOTH, "messages", "max_completion_tokens", "truncation", "template", "logprobs",
     "top_logprobs", "response_format")
)  # fmt: skip
_TEXT_FIELDS = frozenset((*_BOTH, "prompt", "logprobs"))
_IGNORED = frozenset(("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"))
# Fields of OpenAI's API that this server lacks, with the values that mean "not wanted".
_UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
    "suffix": (None, ""),
    "echo": (None, False),
    "best_of": (None, 1),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Ceilings of one request.

    body_bytes      of the whole request, the picture as base64 included
    held_bytes      of all requests together that are read, waiting or being answered
    text_letters    of a conversation: far more than fits any context, but quickly counted
    picture_bytes   of the picture's file
    picture_pixels  checked by the engine before a pixel is decoded
    answer_tokens   of one answer
    answer_s        of one answer, from its start
    body_s          for a request to arrive
    """

    body_bytes: int = 32 * MIB
    held_bytes: int = 512 * MIB
    text_letters: int = 400_000
    picture_bytes: int = 20 * MIB
    picture_pixels: int = 60_000_000
    answer_tokens: int = 8192
    answer_s: float = 1800.0
    body_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One question to the model, as a client put it.

    model      the name that was asked for; None: any
    image      bytes of the picture's file
    client     whose turn it is when requests wait: what the client calls its user
    truncate   leave out the oldest turns instead of refusing a conversation that is too long
    progress   tell about the work before the first word, in chunks of a kind of our own
    """

    model: str | None
    question: str
    history: tuple[tuple[str, str], ...] = ()
    image: bytes | None = field(default=None, repr=False)
    sampling: Sampling
    template: str | None = None
    stream: bool = False
    usage_chunk: bool = False
    progress: bool = False
    client: str = ""
    truncate: bool = False


def read_json(body: bytes) -> dict[str, Any]:
    """Read the object in a request's body; Refusal for anything else."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise Refusal(400, "The JSON of the request is nested too deeply.") from None
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise Refusal(400, "The body of the request is not JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise Refusal(400, "The body of the request must be a JSON object.")
    return value


def read_chat(values: Mapping[str, Any], limits: Limits) -> Wanted:
    """Read the body of /v1/chat/completions; Refusal names the field at fault."""
    _check_fields(values, _CHAT_FIELDS)
    if values.get("messages") is None:
        _refuse("messages", "is missing: a list of messages with role and content")
    talk = _Talk(limits)
    talk.read(values["messages"])
    template = _choice(values, "template", (None, "chat", "vqa"))
    both = ("max_completion_tokens", "max_tokens")
    tokens = next((name for name in both if values.get(name) is not None), "max_tokens")
    return _wanted(
        values,
        limits,
        tokens_field=tokens,
        question=talk.question,
        history=tuple(talk.turns),
        image=talk.picture,
        template=template,
        logprobs=_chat_logprobs(values),
        json_object=_wants_json(values),
    )


def read_completion(values: Mapping[str, Any], limits: Limits) -> Wanted:
    """Read the body of /v1/completions: bare text, without the words of the chat's template."""
    _check_fields(values, _TEXT_FIELDS)
    prompt = values.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        _refuse("prompt", "must be one text")
    if not prompt:
        _refuse("prompt", "is empty")
    logprobs = None if values.get("logprobs") is None else _integer(values, "logprobs", 0)
    if logprobs is not None and not 0 <= logprobs <= _MOST_TEXT_LOGPROBS:
        _refuse("logprobs", f"must be between 0 and {_MOST_TEXT_LOGPROBS}, not {_shown(logprobs)}")
    return _wanted(
        values,
        limits,
        tokens_field="max_tokens",
        question=prompt,
        template="base",
        logprobs=logprobs,
    )


def _wants_json(values: Mapping[str, Any]) -> bool:
    """Read response_format: text, or a JSON object."""
    form = values.get("response_format")
    if form is None:
        return False
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        _refuse(
            "response_format",
            "can't be json_schema here: ask for json_object, and name the fields in the question",
            "unsupported_value",
        )
    if kind not in ("text", "json_object") or not isinstance(form, dict) or len(form) > 1:
        _refuse("response_format", 'must be {"type": "text"} or {"type": "json_object"}')
    if kind == "json_object" and values.get("stop"):
        _refuse("stop", "can't be combined with json_object: it would cut the object off")
    return bool(kind == "json_object")


def _chat_logprobs(values: Mapping[str, Any]) -> int | None:
    """Read how many likeliest tokens a chat wants to see; None: no likelihoods at all."""
    top = _integer(values, "top_logprobs", 0)
    if not 0 <= top <= _MOST_LOGPROBS:
        _refuse("top_logprobs", f"must be between 0 and {_MOST_LOGPROBS}, not {_shown(top)}")
    wanted = _flag(values, "logprobs")
    if top and not wanted:
        _refuse("top_logprobs", 'needs "logprobs": true beside it')
    return top if wanted else None


def _wanted(
    values: Mapping[str, Any],
    limits: Limits,
    *,
    tokens_field: str,
    question: str,
    history: tuple[tuple[str, str], ...] = (),
    image: bytes | None = None,
    template: str | None = None,
    logprobs: int | None = None,
    json_object: bool = False,
) -> Wanted:
    letters = len(question) + sum(len(asked) + len(said) for asked, said in history)
    if letters > limits.text_letters:
        most = limits.text_letters
        text = f"The text has {letters} letters, more than {most}: no context holds so much."
        raise Refusal(400, text, "context_length_exceeded", "messages")
    if _integer(values, "n", 1) != 1:
        _refuse("n", "must be 1: the model gives one answer per request", "unsupported_value")
    options = values.get("stream_options")
    options = _stream_options({} if options is None else options)
    model = _text(values, "model")
    return Wanted(
        model=model or None,
        question=question,
        history=history,
        image=image,
        sampling=replace(
            _sampling(values, tokens_field, limits), logprobs=logprobs, json_object=json_object
        ),
        template=template,
        stream=_flag(values, "stream"),
        usage_chunk=_flag(options, "include_usage"),
        progress=_flag(options, "include_progress"),
        client=_text(values, "user")[:200],
        truncate=_choice(values, "truncation", (None, "auto", "disabled")) == "auto",
    )


def _stream_options(options: object) -> Mapping[str, Any]:
    if not isinstance(options, dict):
        _refuse("stream_options", "must be an object")
    unknown = set(options) - {"include_usage", "include_progress", "include_obfuscation"}
    if unknown:
        _refuse("stream_options", f"has an unknown field {_shown(min(unknown))}")
    return options


class _Talk:
    """Collects messages into finished turns, the question and the conversation's picture."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._digest = ""
        self._asked: list[str] = []
        self._said: list[str] | None = None
        self.turns: list[tuple[str, str]] = []
        self.picture: bytes | None = None

    @property
    def question(self) -> str:
        return "\n".join(self._asked)

    def read(self, messages: object) -> None:
        """Read all messages. The last one must be the user's."""
        if not isinstance(messages, list) or not messages:
            _refuse("messages", "must be a list of at least one message")
        if len(messages) > _MAX_MESSAGES:
            _refuse("messages", f"has {len(messages)} messages, more than {_MAX_MESSAGES}")
        last = ""
        for index, message in enumerate(messages):
            last = self._message(message, f"messages[{index}]")
        if last != "user":
            _refuse("messages", "must end with a message of the user, the question")
        if not self.question.strip():
            _refuse("messages", "ends with a question that is empty")

    def _message(self, message: object, where: str) -> str:
        if not isinstance(message, dict):
            _refuse(where, "must be an object with role and content")
        unknown = set(message) - {"role", "content", "name", "refusal", "tool_calls", "audio"}
        if unknown:
            _refuse(where, f"has an unknown field {_shown(min(unknown))}")
        if message.get("tool_calls"):
            _refuse(where, "has tool calls, which the model does not know", "unsupported_value")
        role = message.get("role")
        content = message.get("content")
        if role in ("system", "developer"):
            # The model has no system role: the words stand before the question that follows.
            self._ask(self._plain(content, where))
        elif role == "user":
            self._ask(self._parts(content, where))
        elif role == "assistant":
            self._say("" if content is None else self._plain(content, where), where)
        else:
            _refuse(f"{where}.role", f"must be system, user or assistant, not {_shown(role)}")
        return "user" if role == "user" else "other"

    def _ask(self, text: str) -> None:
        if self._said is not None:
            self.turns.append((self.question, "\n".join(self._said)))
            self._asked, self._said = [], None
        self._asked.append(text)

    def _say(self, text: str, where: str) -> None:
        if not self._asked:
            _refuse(where, "is an answer, and no question stands before it")
        self._said = [*(self._said or ()), text]

    def _plain(self, content: object, where: str) -> str:
        if isinstance(content, list):
            texts = [self._part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
            if None in texts:
                _refuse(where, "has a picture; only messages of the user may have one")
            return "".join(text for text in texts if text)
        if not isinstance(content, str):
            _refuse(f"{where}.content", "must be a text")
        return content

    def _parts(self, content: object, where: str) -> str:
        if isinstance(content, str):
            return content
        if not isinstance(content, list) or not content:
            _refuse(f"{where}.content", "must be a text or a list of parts")
        texts = []
        for index, part in enumerate(content):
            at = f"{where}.content[{index}]"
            text = self._part(part, at)
            if text is None:
                self._take(_picture(part["image_url"], f"{at}.image_url", self._limits))
            else:
                texts.append(text)
        return "\n".join(texts)

    def _part(self, part: object, where: str) -> str | None:
        """Give a part's text; None for a picture."""
        if not isinstance(part, dict):
            _refuse(where, "must be an object with a type")
        kind = part.get("type")
        if kind == "image_url":
            if "image_url" not in part:
                _refuse(f"{where}.image_url", "is missing")
            return None
        if kind != "text":
            _refuse(f"{where}.type", f"must be text or image_url, not {_shown(kind)}")
        if not isinstance(part.get("text"), str):
            _refuse(f"{where}.text", "must be a text")
        return str(part["text"])

    def _take(self, picture: bytes) -> None:
        digest = hashlib.sha256(picture).hexdigest()
        if self.picture is not None and digest != self._digest:
            _refuse(
                "messages",
                "hold two different pictures, and the model takes one per conversation: ask about "
                "each in a conversation of its own",
                "too_many_images",
            )
        self.picture, self._digest = picture, digest


def _picture(value: object, where: str, limits: Limits) -> bytes:
    """Read the bytes of a `data:` address. No other address is ever opened."""
    if isinstance(value, dict):
        unknown = set(value) - {"url", "detail"}
        if unknown:
            _refuse(where, f"has an unknown field {_shown(min(unknown))}")
        if value.get("detail") not in (None, "auto", "low", "high"):
            _refuse(f"{where}.detail", f"must be auto, low or high, not {_shown(value['detail'])}")
        value = value.get("url")
    if not isinstance(value, str):
        _refuse(where, "must be an object with a url")
    head = _DATA_URL.match(value)
    if head is None:
        _refuse(
            where,
            "must begin with data:image/...;base64, - this server opens neither web addresses nor "
            "files",
            "invalid_image_url",
        )
    length = (len(value) - head.end()) * 3 // 4
    if length > limits.picture_bytes:
        most = format_bytes(limits.picture_bytes)
        raise Refusal(
            413, f"The picture has {format_bytes(length)}, more than {most}.",
            "image_too_large", where,
        )  # fmt: skip
    try:
        picture = base64.b64decode(value[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        _refuse(where, "holds no valid base64 after the comma", "invalid_base64")
    if not picture:
        _refuse(where, "holds no bytes after the comma", "invalid_image")
    return picture


def _sampling(values: Mapping[str, Any], tokens_field: str, limits: Limits) -> Sampling:
    tokens = _integer(values, tokens_field, min(_DEFAULT_TOKENS, limits.answer_tokens))
    if tokens > limits.answer_tokens:
        _refuse(tokens_field, f"must be at most {limits.answer_tokens}, not {tokens}")
    temperature = _number(values, "temperature", 0.0)
    if temperature > 2:
        _refuse("temperature", f"must be between 0 and 2, not {_shown(temperature)}")
    names = {"max_new_tokens": tokens_field}
    try:
        return Sampling(
            max_new_tokens=tokens,
            temperature=temperature,
            top_p=_number(values, "top_p", 1.0),
            top_k=_integer(values, "top_k", 0),
            repetition_penalty=_number(values, "repetition_penalty", 1.0),
            frequency_penalty=_number(values, "frequency_penalty", 0.0),
            presence_penalty=_number(values, "presence_penalty", 0.0),
            seed=None if values.get("seed") is None else _integer(values, "seed", 0),
            stop=_stops(values.get("stop")),
        )
    except UsageError as error:
        name, _, rest = error.message.partition(" ")
        name = names.get(name, name)
        raise Refusal(400, f"{name} {rest}", "invalid_value", name) from None


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        _refuse("stop", "must be a text or a list of texts")
    if len(stops) > _MAX_STOPS or any(not 0 < len(s) <= _MAX_STOP_LETTERS for s in stops):
        _refuse("stop", f"must be up to {_MAX_STOPS} texts of 1 to {_MAX_STOP_LETTERS} letters")
    return tuple(stops)


def _check_fields(values: Mapping[str, Any], known: frozenset[str]) -> None:
    for name, value in values.items():
        if name in known or name in _IGNORED:
            continue
        if name not in _UNSUPPORTED:
            near = get_close_matches(name[:40], known, n=1)
            more = f"; did you mean {near[0]}?" if near else ""
            _refuse(name[:100], f"is a field this server does not know{more}", "unknown_field")
        neutral = _UNSUPPORTED[name]
        if not any(value == n and isinstance(value, bool) == isinstance(n, bool) for n in neutral):
            _refuse(name, "is not supported by this server", "unsupported_parameter")


def _number(values: Mapping[str, Any], name: str, default: float) -> float:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        _refuse(name, f"must be a number, not {_shown(value)}")
    return float(value)


def _integer(values: Mapping[str, Any], name: str, default: int) -> int:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        _refuse(name, f"must be a whole number, not {_shown(value)}")
    return value


def _flag(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        _refuse(name, f"must be true or false, not {_shown(value)}")
    return value is True


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(name, f"must be a text, not {_shown(value)}")
    return value


def _choice(values: Mapping[str, Any], name: str, choices: Sequence[str | None]) -> str | None:
    value = values.get(name)
    if not (value is None or isinstance(value, str)) or value not in choices:
        words = ", ".join(word for word in choices if word)
        _refuse(name, f"must be one of {words}, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """Quote a client's value back to it, shortened."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of very many digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _refuse(param: str, what: str, code: str = "invalid_value") -> NoReturn:
    raise Refusal(400, f"{param} {what}.", code, param)
