"""What clients may ask, read from JSON into plain values. Everything unknown is refused by name.

Nothing here touches the network, the file system or the engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.fields import check_fields, choice, flag, integer, number, refuse, shown
from cogvlm2_lite.server.fields import text as text_of
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.messages import Messages

_DEFAULT_TOKENS = 2048
_MAX_STOPS = 16
_MAX_STOP_LETTERS = 200
_MOST_LOGPROBS = 20  # OpenAI's ceilings, for chats and for bare text
_MOST_TEXT_LOGPROBS = 5

_SAMPLING_FIELDS = (
    "temperature", "top_p", "top_k", "seed", "stop", "repetition_penalty", "frequency_penalty",
    "presence_penalty", "max_tokens",
)  # fmt: skip
_BOTH = (*_SAMPLING_FIELDS, "model", "stream", "stream_options", "n", "user")
IGNORED = frozenset(("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"))
CHAT_FIELDS = IGNORED | frozenset(
    (*_BOTH, "messages", "max_completion_tokens", "truncation", "template", "logprobs",
     "top_logprobs", "response_format")
)  # fmt: skip
TEXT_FIELDS = IGNORED | frozenset((*_BOTH, "prompt", "logprobs"))
# Fields of OpenAI's API that this server lacks, with the values that mean "not wanted".
TOOLS: Mapping[str, tuple[object, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
}
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    **TOOLS,
    "logit_bias": (None, {}),
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
class AnswerRequest:
    """One question to the model, as a client put it.

    model      the name that was asked for; None: any
    image      bytes of the picture's file
    image_url  where it is instead, for the server to fetch
    messages_field where the conversation stood in the request
    client     whose turn it is when requests wait: what the client calls its user
    truncate   leave out the oldest turns instead of refusing a conversation that is too long
    progress   tell about the work before the first word, in chunks of a kind of our own
    """

    model: str | None
    question: str
    history: tuple[tuple[str, str], ...] = ()
    image: bytes | None = field(default=None, repr=False)
    image_url: str = ""
    sampling: Sampling
    template: str | None = None
    stream: bool = False
    usage_chunk: bool = False
    progress: bool = False
    messages_field: str = "messages"
    client: str = ""
    truncate: bool = False


def read_json(body: bytes) -> dict[str, Any]:
    """Read the object in a request's body; ApiError for anything else."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ApiError(400, "The JSON of the request is nested too deeply.") from None
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ApiError(400, "The body of the request is not JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body of the request must be a JSON object.")
    return value


def read_chat(values: Mapping[str, Any], limits: Limits) -> AnswerRequest:
    """Read the body of /v1/chat/completions; ApiError names the field at fault."""
    check_fields(values, CHAT_FIELDS, NEUTRAL)
    if values.get("messages") is None:
        refuse("messages", "is missing: a list of messages with role and content")
    messages = Messages(limits)
    messages.read(values["messages"])
    template = choice(values, "template", (None, "chat", "vqa"))
    both = ("max_completion_tokens", "max_tokens")
    tokens = next((name for name in both if values.get(name) is not None), "max_tokens")
    for name in both:
        _ceiling(values, name, limits)
    json_object = json_wanted(values.get("response_format"), "response_format")
    if json_object and values.get("stop"):
        refuse("stop", "can't be combined with json_object: it would cut the object off")
    return make_request(
        values,
        limits,
        tokens_field=tokens,
        messages=messages,
        template=template,
        logprobs=top_of(values, flag(values, "logprobs"), '"logprobs": true'),
        json_object=json_object,
    )


def read_completion(values: Mapping[str, Any], limits: Limits) -> AnswerRequest:
    """Read the body of /v1/completions: bare text, without the words of the chat's template."""
    check_fields(values, TEXT_FIELDS, NEUTRAL)
    prompt = values.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        refuse("prompt", "must be one text")
    if not prompt:
        refuse("prompt", "is empty")
    logprobs = None if values.get("logprobs") is None else integer(values, "logprobs", 0)
    if logprobs is not None and not 0 <= logprobs <= _MOST_TEXT_LOGPROBS:
        refuse("logprobs", f"must be between 0 and {_MOST_TEXT_LOGPROBS}, not {shown(logprobs)}")
    return make_request(
        values,
        limits,
        tokens_field="max_tokens",
        messages=Messages.of(prompt),
        messages_field="prompt",
        template="base",
        logprobs=logprobs,
    )


def json_wanted(form: object, param: str) -> bool:
    """Read the form of an answer: text, or a JSON object."""
    if form is None:
        return False
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        refuse(
            param,
            "can't be json_schema here: ask for json_object, and name the fields in the question",
            "unsupported_value",
        )
    if kind not in ("text", "json_object") or not isinstance(form, dict) or len(form) > 1:
        refuse(param, 'must be {"type": "text"} or {"type": "json_object"}')
    return bool(kind == "json_object")


def top_of(values: Mapping[str, Any], wanted: bool, how: str) -> int | None:
    """Read how many likeliest tokens to tell; None: no likelihoods at all.

    wanted  likelihoods were asked for
    how     what asks for them
    """
    top = integer(values, "top_logprobs", 0)
    if not 0 <= top <= _MOST_LOGPROBS:
        refuse("top_logprobs", f"must be between 0 and {_MOST_LOGPROBS}, not {shown(top)}")
    if top and not wanted:
        refuse("top_logprobs", f"needs {how} beside it")
    return top if wanted else None


def make_request(
    values: Mapping[str, Any],
    limits: Limits,
    *,
    tokens_field: str,
    messages: Messages,
    template: str | None = None,
    logprobs: int | None = None,
    json_object: bool = False,
    messages_field: str = "messages",
) -> AnswerRequest:
    """Join what was read with the fields that all requests share."""
    letters = len(messages.question) + sum(len(asked) + len(said) for asked, said in messages.turns)
    if letters > limits.text_letters:
        most = limits.text_letters
        text = f"The text has {letters} letters, more than {most}: no context holds so much."
        raise ApiError(400, text, "context_length_exceeded", messages_field)
    if integer(values, "n", 1) != 1:
        refuse("n", "must be 1: the model gives one answer per request", "unsupported_value")
    options = values.get("stream_options")
    options = _stream_options({} if options is None else options)
    model = text_of(values, "model")
    return AnswerRequest(
        model=model or None,
        question=messages.question,
        history=tuple(messages.turns),
        image=messages.picture,
        image_url=messages.picture_url,
        sampling=replace(
            _sampling(values, tokens_field, limits), logprobs=logprobs, json_object=json_object
        ),
        template=template,
        stream=flag(values, "stream"),
        usage_chunk=flag(options, "include_usage"),
        progress=flag(options, "include_progress"),
        messages_field=messages_field,
        client=text_of(values, "user")[:200],
        truncate=choice(values, "truncation", (None, "auto", "disabled")) == "auto",
    )


def _stream_options(options: object) -> Mapping[str, Any]:
    if not isinstance(options, dict):
        refuse("stream_options", "must be an object")
    unknown = set(options) - {"include_usage", "include_progress", "include_obfuscation"}
    if unknown:
        refuse("stream_options", f"has an unknown field {shown(min(unknown))}")
    flag(options, "include_obfuscation")  # there is none to leave out
    return options


def _sampling(values: Mapping[str, Any], tokens_field: str, limits: Limits) -> Sampling:
    tokens = _ceiling(values, tokens_field, limits)
    temperature = number(values, "temperature", 0.0)
    if temperature > 2:
        refuse("temperature", f"must be between 0 and 2, not {shown(temperature)}")
    try:
        return Sampling(
            max_new_tokens=tokens,
            temperature=temperature,
            top_p=number(values, "top_p", 1.0),
            top_k=integer(values, "top_k", 0),
            repetition_penalty=number(values, "repetition_penalty", 1.0),
            frequency_penalty=number(values, "frequency_penalty", 0.0),
            presence_penalty=number(values, "presence_penalty", 0.0),
            seed=None if values.get("seed") is None else integer(values, "seed", 0),
            stop=_stops(values.get("stop")),
        )
    except UsageError as error:
        raise ApiError(400, error.message, "invalid_value", error.message.split()[0]) from None


def _ceiling(values: Mapping[str, Any], name: str, limits: Limits) -> int:
    """Read how many tokens an answer may have."""
    tokens = integer(values, name, min(_DEFAULT_TOKENS, limits.answer_tokens))
    if not 1 <= tokens <= limits.answer_tokens:
        refuse(name, f"must be 1 or more and at most {limits.answer_tokens}, not {tokens}")
    return tokens


def _stops(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        refuse("stop", "must be a text or a list of texts")
    if len(stops) > _MAX_STOPS or any(not 0 < len(s) <= _MAX_STOP_LETTERS for s in stops):
        refuse("stop", f"must be up to {_MAX_STOPS} texts of 1 to {_MAX_STOP_LETTERS} letters")
    return tuple(stops)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
