"""Converts the body of a request to a question for the engine.

This module uses neither the network nor the file system nor the engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cogvlm2_lite.inputs.limits import MOST_ON_SHEET
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.bodies import (
    LARGEST_SEED,
    LOGPROBS,
    MAX_PROMPTS,
    ChatRequest,
    CompletionRequest,
    Prediction,
    ResponseRequest,
    StreamOptions,
)
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.messages import Messages, Picture
from cogvlm2_lite.server.tolerance import tolerate
from cogvlm2_lite.server.validation import read_body, reject, shown
from cogvlm2_lite.text import Text, marked

Prompt = str | tuple[int, ...]
"""A text, or its tokens."""
AskingBody = ChatRequest | CompletionRequest | ResponseRequest
R = TypeVar("R", ChatRequest, CompletionRequest, ResponseRequest)
_DEFAULT_TOKENS = 2048
_NO_SCHEMA = marked("{param} is missing: it must be a JSON schema.")
_ONE_OF_SEVERAL = marked(
    "The conversation has {count} pictures, and the model takes one: the answer is about the "
    "newest."
)

_ON_A_SHEET = marked(
    "The conversation has {count} pictures, and the model takes one: they are on one sheet, with "
    "the numbers 1 to {count}."
)
_NEWEST_ON_A_SHEET = marked(
    "The conversation has {count} pictures, and the model takes one: the newest {most} are on one "
    "sheet, with the numbers 1 to {most}."
)


@dataclass(frozen=True, kw_only=True)
class AnswerRequest:
    """The question and settings of one request.

    model           the requested name; None: any
    adapter         the adapter that answers, as in Ask of the worker's protocol
    pictures        one picture, or several for one sheet; (): none
    messages_field  the request's field that holds the conversation
    client          the `user` field; waiting clients take turns
    truncate        leave out the oldest turns of a conversation that is too long
    progress        report progress before the first token, in chunks of our own kind
    continue_from   the beginning of the answer, which is continued; "": none
    draft_text      a text that the answer probably resembles; "": none
    functions       the answer calls one of these (calls.py); (): it is text
    required        the request left it to the model which of them it calls
    old_call        the call is answered in OpenAI's older form, `function_call`
    prompts         texts or tokens that are continued one after another; (): there is only the
                    question
    prompt_ids      the prompt in tokens, in place of the question
    count           answers to each prompt, one after another, with seeds that count up
    echo            the reply begins with the prompt
    only_prompt     the reply has only the prompt, and no token of an answer
    follows         an earlier answer of the same request has been through the queue
    ignored         names of the request's fields that were left out
    notices         what else was not done as the request asked
    keep_s          seconds that the model stays in memory after the last request; None: always
    waits           wait while the model is loading; otherwise that is an error
    """

    model: str | None
    adapter: str | None = None
    question: str
    history: tuple[tuple[str, str], ...] = ()
    pictures: tuple[Picture, ...] = ()
    sampling: Sampling
    template: str | None = None
    stream: bool = False
    usage_chunk: bool = False
    progress: bool = False
    messages_field: str = "messages"
    client: str = ""
    truncate: bool = False
    continue_from: str = ""
    draft_text: str = ""
    functions: tuple[str, ...] = ()
    required: bool = False
    old_call: bool = False
    prompts: tuple[Prompt, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    count: int = 1
    echo: bool = False
    only_prompt: bool = False
    follows: bool = False
    ignored: tuple[str, ...] = ()
    notices: tuple[Text, ...] = ()
    keep_s: float | None = None
    waits: bool = False

    @property
    def scores_prompt(self) -> bool:
        """Whether the reply has the prompt's logprobs, or the text of one in tokens."""
        in_tokens = any(isinstance(prompt, tuple) for prompt in self.prompts)
        return self.echo and (in_tokens or self.sampling.logprobs is not None)

    def each(self) -> Iterator[AnswerRequest]:
        """Yield a request for each answer."""
        seed = self.sampling.seed
        for prompt_number, prompt in enumerate(self.prompts or (self.question,)):
            for number in range(self.count):
                own = None if seed is None else (seed + number) & LARGEST_SEED
                sampling = replace(self.sampling, seed=own)
                follows = prompt_number + number > 0
                question, ids = (prompt, ()) if isinstance(prompt, str) else ("", prompt)
                yield replace(
                    self, question=question, prompt_ids=ids, sampling=sampling, follows=follows
                )


def read_request(values: Mapping[str, Any], kind: type[R]) -> R:
    """Read the body of a request. Raises ApiError that names the field at fault."""
    if isinstance(items := values.get("input"), list):
        for index, item in enumerate(items):
            # Items of other types have no role, and their type is the better error.
            name = item.get("type") if isinstance(item, dict) else None
            if name not in (None, "message"):
                reject(
                    f"input[{index}].type",
                    "{param} must be {expected}, not {value}.",
                    expected='"message"',
                    value=shown(name),
                )
    return read_body(values, kind)


def read_asked(values: Mapping[str, Any], kind: type[R], limits: Limits) -> tuple[R, AnswerRequest]:
    """Return the body of a request and its question; ApiError names the field at fault."""
    if limits.strict:
        body = read_request(values, kind)
        return body, answer_request(body, limits)
    tolerated = tolerate(values, kind, answer_tokens=limits.answer_tokens, pictures=limits.pictures)
    body = read_request(tolerated.values, kind)
    asked = answer_request(body, limits)
    notices: tuple[Text, ...] = ()
    if tolerated.pictures > 1 and limits.pictures != "refuse":
        template = _ONE_OF_SEVERAL
        if limits.pictures == "sheet":
            template = _ON_A_SHEET if tolerated.pictures <= MOST_ON_SHEET else _NEWEST_ON_A_SHEET
        notices = (Text(template, count=tolerated.pictures, most=MOST_ON_SHEET),)
    asked = replace(
        asked,
        functions=tolerated.functions,
        required=tolerated.required,
        old_call=tolerated.old_call,
        only_prompt=tolerated.only_prompt,
        ignored=tolerated.ignored,
        notices=notices,
    )
    return body, asked


def answer_request(body: AskingBody, limits: Limits) -> AnswerRequest:
    """Return the question of a body. Raises ApiError that names the field at fault."""
    match body:
        case ChatRequest():
            return _chat(body, limits)
        case CompletionRequest():
            messages = Messages(limits, "prompt")
            prompts = _prompts(body.prompt)
            texts = [prompt for prompt in prompts if isinstance(prompt, str)]
            messages.ask("\n".join(texts))
            sampling = _sampling(body, "max_tokens", limits, body.logprobs)
            asked = _request(body, messages, sampling, limits, template="base")
            return replace(asked, prompts=prompts, echo=body.echo is True)
        case ResponseRequest():
            return _response(body, limits)


def _prompts(given: str | list[str | int | list[int]]) -> tuple[Prompt, ...]:
    """Return the prompts of /v1/completions: one or several, each a text or tokens."""
    if isinstance(given, str):
        return (given,)
    tokens = tuple(one for one in given if isinstance(one, int))
    if len(tokens) == len(given):
        return (tokens,)
    prompts = tuple(tuple(one) if isinstance(one, list) else one for one in given)
    if tokens or len(prompts) > MAX_PROMPTS:
        reject(
            "prompt",
            "{param} must be {expected}, not {value}.",
            expected=Text("a text, tokens, or a list of up to {most} of them", most=MAX_PROMPTS),
            value=shown(given),
        )
    return tuple(prompt for prompt in prompts if not isinstance(prompt, int))


def _chat(body: ChatRequest, limits: Limits) -> AnswerRequest:
    form = body.response_format
    json_object = form is not None and form.type == "json_object"
    schema = None
    if form is not None and form.type == "json_schema":
        if form.json_schema is None:
            reject("response_format.json_schema", _NO_SCHEMA)
        schema = form.json_schema.schema
    if (json_object or schema is not None) and body.stop:
        reject("stop", "{param} can't be combined with JSON: it would cut the answer off.")
    messages = Messages(limits)
    messages.read(body.messages, continues=body.continue_final_message is True)
    limit_field = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    logprobs = _logprobs(body.logprobs is True, body.top_logprobs, '"logprobs": true')
    sampling = _sampling(
        body, limit_field, limits, logprobs, json_object=json_object, schema=schema
    )
    asked = _request(body, messages, sampling, limits, template=body.template)
    return replace(asked, draft_text=_draft_text(body.prediction, limits))


def _draft_text(prediction: Prediction | None, limits: Limits) -> str:
    if prediction is None:
        return ""
    content = prediction.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    _check_length(len(text), limits, "prediction")
    return text


def _response(body: ResponseRequest, limits: Limits) -> AnswerRequest:
    form = body.text.format if body.text is not None else None
    messages = Messages(limits, "input")
    if body.instructions:
        messages.ask(body.instructions)
    if isinstance(body.input, str):
        messages.ask(body.input)
        messages.check()
    else:
        messages.read(body.input)
    logprobs = _logprobs(bool(body.include), body.top_logprobs, f'"include": ["{LOGPROBS}"]')
    json_object = form is not None and form.type == "json_object"
    schema = None
    if form is not None and form.type == "json_schema":
        if form.schema is None:
            reject("text.format.schema", _NO_SCHEMA)
        schema = form.schema
    sampling = _sampling(
        body, "max_output_tokens", limits, logprobs, json_object=json_object, schema=schema
    )
    return _request(body, messages, sampling, limits)


def _logprobs(enabled: bool, top: int | None, how: str) -> int | None:
    """Return how many likely tokens to report for each token; None: no logprobs."""
    if top and not enabled:
        reject("top_logprobs", "{param} needs {option} as well.", option=how)
    return (top or 0) if enabled else None


def _request(
    body: AskingBody,
    messages: Messages,
    sampling: Sampling,
    limits: Limits,
    *,
    template: str | None = None,
) -> AnswerRequest:
    """Return the request with the fields that all bodies share."""
    count = len(messages.question) + sum(len(q) + len(a) for q, a in messages.turns)
    _check_length(count, limits, messages.field)
    options = body.stream_options or StreamOptions()
    truncation = None if isinstance(body, CompletionRequest) else body.truncation
    answers = None if isinstance(body, ResponseRequest) else body.n
    return AnswerRequest(
        model=body.model or None,
        question=messages.question,
        history=tuple(messages.turns),
        pictures=messages.pictures,
        sampling=sampling,
        template=template,
        stream=body.stream is True,
        usage_chunk=options.include_usage is True,
        progress=options.include_progress is True,
        messages_field=messages.field,
        continue_from=f" {messages.continue_from.strip()}"
        if messages.continue_from.strip()
        else "",
        client=(body.user or "")[:200],
        truncate=truncation == "auto",
        count=answers or 1,
    )


def _check_length(count: int, limits: Limits, field: str) -> None:
    """Raise ApiError for a text with more characters than any context has room for."""
    if count > limits.text_letters:
        text = Text(
            "The text has {count} characters, more than {most}: no context is that long.",
            count=count,
            most=limits.text_letters,
        )
        raise ApiError(400, text, "context_length_exceeded", field)


def _sampling(
    body: AskingBody,
    limit_field: str,
    limits: Limits,
    logprobs: int | None,
    *,
    json_object: bool = False,
    schema: Mapping[str, Any] | None = None,
) -> Sampling:
    """Return the settings of the answer.

    limit_field  the field with the maximum number of tokens
    """
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        tokens = getattr(body, name, None)
        if tokens is not None and tokens > limits.answer_tokens:
            reject(
                name,
                "{param} must be between {least} and {most}, not {value}.",
                least=1,
                most=limits.answer_tokens,
                value=shown(tokens),
            )
    older = body if isinstance(body, ChatRequest | CompletionRequest) else None
    stop = (older and older.stop) or ()
    return Sampling(
        max_new_tokens=getattr(body, limit_field) or min(_DEFAULT_TOKENS, limits.answer_tokens),
        temperature=_default(body.temperature, 0.0),
        top_p=_default(body.top_p, 1.0),
        top_k=body.top_k or 0,
        repetition_penalty=_default(body.repetition_penalty, 1.0),
        frequency_penalty=(older and older.frequency_penalty) or 0.0,
        presence_penalty=(older and older.presence_penalty) or 0.0,
        seed=body.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        logprobs=logprobs,
        json_object=json_object,
        json_schema="" if schema is None else json.dumps(schema),
    )


def _default(value: float | None, default: float) -> float:
    return default if value is None else value
