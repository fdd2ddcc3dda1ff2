"""Rewrites requests as programs send them into the form that bodies.py describes.

Programs send fields of other servers, values that others clamp, and conversations in forms that
OpenAI's API does not have. Everything that would be an error and has one sensible meaning is
rewritten here, before the request is checked; what a program asked for and does not get is listed.
What has no sensible meaning is left as it is, so that the check reports it. With `--strict`
nothing here runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard
from urllib.parse import unquote, unquote_to_bytes

from msgspec import Struct

from cogvlm2_lite.inputs.limits import MOST_ON_SHEET
from cogvlm2_lite.server.bodies import (
    LARGEST_SEED,
    LOGPROBS,
    MOST_LOGPROBS,
    MOST_TOP_LOGPROBS,
    ChatRequest,
    CompletionRequest,
    ResponseRequest,
)
from cogvlm2_lite.server.calls import call_schema
from cogvlm2_lite.server.schemas import usable_schema
from cogvlm2_lite.server.validation import Body, FieldRule, field_rules, reject, shown
from cogvlm2_lite.text import Text, marked

SeveralPictures = Literal["newest", "sheet", "refuse"]
"""What becomes of several pictures in a conversation."""

MAX_STOPS = 16
_LEAST_TOP_P = 1e-6
_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]{1,40}")
_UNTYPED = frozenset({"", "image", "image/*", "application/octet-stream", "*/*"})
_BARE_BASE64 = re.compile(r"[A-Za-z0-9+/_-][A-Za-z0-9+/_\-\s]{38,}")
_DRAWING = re.compile(r"(?i)\s*data:image/svg\+xml(;(?!base64,)[^;,]*)*,")
"""An SVG drawing as text; there is no decoder for it, so the model gets the text."""
_URL_SAFE = str.maketrans("-_", "+/")
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
_WITHOUT_WORDS = frozenset(
    {
        "reasoning", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response",
        "compaction",
    }
)  # fmt: skip
"""Items of a response that say nothing to this model."""
_DETAILS = frozenset({"auto", "low", "high", "original"})
_OTHER_NAMES = {"repeat_penalty": "repetition_penalty", "n_predict": "max_tokens"}
"""Names of llama.cpp's server for fields that OpenAI's API has, or that this one adds."""

_MUST_BE = marked("{param} must be {expected}, not {value}.")
_TOOL_FIELDS = (("tools", "tool_choice"), ("functions", "function_call"))
_ANSWER_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_NEVER_IGNORED = frozenset(
    {
        "suffix", "echo", "modalities", "tool_choice", "function_call", "store", "background",
        "conversation", "previous_response_id", "prompt",
    }
)  # fmt: skip
"""Features that this server lacks, and without which an answer would not be what was asked for."""


@dataclass(frozen=True, kw_only=True)
class Tolerated:
    """A request in the form that bodies.py describes.

    values     the JSON object
    ignored    names of fields that were left out, such as "min_p" or "stream_options.x"
    functions  names of the functions one of which must be called: the answer is in calls.py's form
    required   the request left the choice to the model, and did not name the function
    old_call   the request has `functions`, OpenAI's older form of `tools`
    only_prompt  max_tokens is 0: the prompt is returned, and no token of an answer
    pictures   how many different pictures the conversation had; the newest one is left, or the
               newest nine for a sheet
    """

    values: dict[str, Any]
    ignored: tuple[str, ...]
    functions: tuple[str, ...]
    required: bool
    old_call: bool
    only_prompt: bool
    pictures: int


def tolerate(
    values: Mapping[str, Any],
    kind: type[Body],
    *,
    answer_tokens: int,
    pictures: SeveralPictures = "newest",
) -> Tolerated:
    """Return a request without what the check would reject and other servers accept.

    values          JSON of the request; not changed
    answer_tokens   the most tokens of an answer; higher limits are lowered to it
    pictures        of several ones, leave the newest, or those of a sheet, whose numbers are put
                    into the texts; "refuse" leaves all of them, which is an error
    """
    reader = _Reader(answer_tokens, pictures)
    read = reader.request(dict(values), kind)
    return Tolerated(
        values=read,
        ignored=tuple(reader.ignored),
        functions=reader.functions,
        required=reader.required,
        old_call=reader.old_call,
        only_prompt=reader.only_prompt,
        pictures=len(reader.pictures),
    )


def normal_data_url(url: str) -> str:
    """Return a picture's data: URL in its usual form; other texts are returned as they are.

    Accepted are base64 alone, a missing or general type, capital letters, blanks, line breaks,
    percent escapes, the alphabet for URLs, and missing padding.
    """
    text = url.strip()
    if text[:5].lower() != "data:":
        bare = _BARE_BASE64.match(text[:200]) and ":" not in text[:200]
        return f"data:image/png;base64,{_normal_base64(text)}" if bare else url
    head, comma, data = text[5:].partition(",")
    if not comma or len(head) > 1000:
        return url
    kind, *parameters = (part.strip().lower() for part in head.split(";"))
    if kind == "base64":
        kind, parameters = "", [kind]
    if kind in _UNTYPED:
        kind = "image/png"  # the decoder looks at the bytes
    if not _IMAGE_TYPE.fullmatch(kind):
        return url
    if "base64" in parameters:
        data = _normal_base64(unquote(data) if "%" in data[:4096] else data)
    else:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return f"data:{kind};base64,{data}"


def _normal_base64(data: str) -> str:
    data = "".join(data.split()).translate(_URL_SAFE).rstrip("=")
    return data + "=" * (-len(data) % 4)


class _Reader:
    """Rewrites one request.

    ignored   names of what was left out, in order; each once
    functions, required, old_call, only_prompt  those of Tolerated
    pictures  the addresses of the conversation's different pictures, oldest first
    """

    def __init__(self, answer_tokens: int, several: SeveralPictures) -> None:
        self._answer_tokens = answer_tokens
        self._several = several
        self.ignored: dict[str, None] = {}
        self.functions: tuple[str, ...] = ()
        self.required = False
        self.old_call = False
        self.only_prompt = False
        self.pictures: dict[str, None] = {}

    def request(self, values: dict[str, Any], kind: type[Body]) -> dict[str, Any]:
        """Return the request without what the check would reject."""
        for other, name in _OTHER_NAMES.items():
            if other in values and name not in values and name in field_rules(kind):
                values[name] = values.pop(other)
        if (
            kind is CompletionRequest
            and values.get("echo") is True
            and values.get("max_tokens") == 0
        ):
            self.only_prompt, values["max_tokens"] = True, 1
        self._clamp(values)
        if kind is not CompletionRequest:
            self._call_function(values, kind)
        if kind is ChatRequest:
            self._choose_form(values)
        self._choose_tools(values)
        if isinstance(values.get("model"), str):
            values["model"] = values["model"].removesuffix(":latest")
        if kind is ChatRequest and isinstance(values.get("messages"), list):
            values["messages"] = self._conversation(values["messages"], _CHAT)
        if kind is ResponseRequest and isinstance(values.get("input"), list):
            values["input"] = self._conversation(values["input"], _RESPONSES)
        if kind is CompletionRequest:
            # Plain text to continue may be empty, which no prompt is.
            prompt = values.get("prompt")
            if isinstance(prompt, list):
                values["prompt"] = [text if text != "" else " " for text in prompt]
            elif prompt == "":
                values["prompt"] = " "
        known = self._known(values, kind)
        self._choose_schema(_inside(known, "response_format", "json_schema"))
        self._choose_schema(_inside(known, "text", "format"))
        return known

    # --- fields ----------------------------------------------------------------------------------

    def _known(self, values: dict[str, Any], kind: type[Struct], where: str = "") -> dict[str, Any]:
        """Leave out unknown fields, and known ones that ask for what this server lacks."""
        rules, known = field_rules(kind), {}
        for name, value in values.items():
            rule = rules.get(name)
            if rule is None or (name not in _NEVER_IGNORED and rule.rejects(value)):
                self._ignore(f"{where}{name}", value)
            else:
                known[name] = self._known_inside(name, value, rule, where)
        return known

    def _known_inside(self, name: str, value: object, rule: FieldRule, where: str) -> object:
        if rule.body is not None and isinstance(value, dict):
            return self._known(value, rule.body, f"{where}{name}.")
        return value

    def _ignore(self, name: str, value: object) -> None:
        """Note a field that is left out; one without a value asked for nothing."""
        if value is not None and value != [] and value != {}:
            self.ignored[name[:60]] = None

    def _clamp(self, values: dict[str, Any]) -> None:
        """Replace numbers that mean "no limit" or "any", as other servers do."""
        for name in _ANSWER_LIMITS:
            limit = values.get(name)
            if _is_whole(limit):
                if limit == 0:
                    del values[name]
                elif limit < 0 or limit > self._answer_tokens:
                    values[name] = self._answer_tokens
        if _is_whole(values.get("top_k")) and values["top_k"] < 0:
            values["top_k"] = 0
        seed = values.get("seed")
        if seed == -1:
            del values["seed"]
        elif _is_whole(seed):
            values["seed"] = seed & LARGEST_SEED
        if values.get("top_p") == 0 and not isinstance(values["top_p"], bool):
            values["top_p"] = _LEAST_TOP_P
        if values.get("logprobs") == 0 and "messages" in values:
            values["logprobs"] = False
        if "prompt" in values and isinstance(enabled := values.get("logprobs"), bool):
            values["logprobs"] = 1 if enabled else None  # the form of chats
        for name, most in (("logprobs", MOST_LOGPROBS), ("top_logprobs", MOST_TOP_LOGPROBS)):
            counts = name == "top_logprobs" or "prompt" in values
            if counts and _is_whole(count := values.get(name)) and count > most:
                values[name] = most
        if not isinstance(values.get("user"), str | None):
            self._ignore("user", values.pop("user"))
        if isinstance(values.get("include"), list):
            known = [name for name in values["include"] if name == LOGPROBS]
            for name in values["include"]:
                if name not in known:
                    self._ignore(f"include.{name}", name)
            values["include"] = known
        self._choose_stops(values)

    def _choose_stops(self, values: dict[str, Any]) -> None:
        stop = values.get("stop")
        if stop == "":
            del values["stop"]
        elif isinstance(stop, list):
            kept = [text for text in stop if text not in ("", None)]
            if len(kept) > MAX_STOPS:
                self._ignore("stop", kept)
            values["stop"] = kept[:MAX_STOPS]

    def _choose_tools(self, values: dict[str, Any]) -> None:
        """Leave tools out unless one is required: a model without them answers in words."""
        for tools, choice in _TOOL_FIELDS:
            asked = _ToolChoice.read(values.get(choice))
            if asked is not None and not asked.required:
                self._ignore(tools, values.pop(tools, None))
                values.pop(choice, None)
                values.pop("parallel_tool_calls", None)

    def _call_function(self, values: dict[str, Any], kind: type[Body]) -> None:
        """Turn a function that must be called into a form of the answer: its arguments."""
        for tools, choice in _TOOL_FIELDS:
            asked = _ToolChoice.read(values.get(choice))
            if asked is None or not asked.required:
                continue
            listed = values.get(tools)
            functions = [_function(tool) for tool in listed] if isinstance(listed, list) else []
            found = {
                name: _parameters(one)
                for one in functions
                if isinstance(name := one.get("name"), str) and asked.takes(name)
            }
            if not found:
                reject(
                    choice,
                    "{param} requires the call of a function, and {tools} does not have it.",
                    tools=tools,
                )
            self.functions, self.required = tuple(found), not asked.named
            self.old_call = tools == "functions"
            form = _json_form(call_schema(found))
            if kind is ChatRequest:
                values["response_format"] = form
            else:
                values["text"] = {"format": {"type": form["type"], **form["json_schema"]}}
            for field in (tools, choice, "parallel_tool_calls"):
                values.pop(field, None)
            return

    def _choose_form(self, values: dict[str, Any]) -> None:
        """Read JSON schemas at the places where other servers have them."""
        form = values.get("response_format")
        if form in ("text", "json_object"):
            values["response_format"] = form = {"type": form}
        schema = values.pop("guided_json", None)
        if schema:
            read = _parsed(schema) if isinstance(schema, str) else schema
            if not isinstance(read, dict):
                expected = Text("a JSON schema")
                reject("guided_json", _MUST_BE, expected=expected, value=shown(schema))
            schema = read
        if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
            schema = form.get("schema") or schema
        if isinstance(schema, dict) and schema:
            values["response_format"] = form = _json_form(schema)
        if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
            self._ignore("stop", values.pop("stop", None))  # it would cut the answer off

    def _choose_schema(self, holder: object) -> None:
        """Leave keywords out of a JSON schema that answers can't be held to."""
        if isinstance(holder, dict) and isinstance(holder.get("schema"), dict):
            holder["schema"], ignored = usable_schema(holder["schema"])
            for name in ignored:
                self._ignore(f"json_schema.{name}", name)

    # --- conversations ---------------------------------------------------------------------------

    def _conversation(self, messages: list[Any], form: _Form) -> list[Any]:
        """Return the messages with known roles, fields and parts, and the pictures that count."""
        read = [new for message in messages for new in self._message(message, form)]
        found = [
            (message, part)
            for message in read
            if isinstance(message, dict)
            for part in _parts(message)
            if _is_picture(part)
        ]
        if self._several == "sheet" and len({_identity(part) for _, part in found}) > 1:
            self._number(read, found, form)
        else:
            self._keep_newest(read, found, form)
        return [message for message in read if not _is_empty(message)] or read

    def _keep_newest(
        self, read: list[Any], found: list[tuple[dict[str, Any], Any]], form: _Form
    ) -> None:
        """Leave the newest picture alone; one of another role becomes the user's."""
        *_, newest = [None, *self.pictures]
        keep: tuple[Any, Any] | None = None
        for message, part in reversed(found):
            if message["role"] == "user" and _address(part) == newest:
                keep = message, part
                break
        pictures = [part for _, part in found]
        for message, part in found:
            movable = message["role"] != "user" or self._several != "refuse"
            if movable and (keep is None or part is not keep[1]):
                message["content"] = [one for one in _parts(message) if one is not part]
        if keep is None and pictures:
            _add(_users(read)[-1], form, after=[pictures[-1]])

    def _number(
        self, read: list[Any], found: list[tuple[dict[str, Any], Any]], form: _Form
    ) -> None:
        """Move the newest pictures to the end, and write their numbers where they were.

        The numbers count in the order in which the pictures first came, so that a picture keeps its
        number when the conversation goes on.
        """
        self.pictures = {_identity(part): None for _, part in found}
        newest = list({_identity(part): None for _, part in reversed(found)})[:MOST_ON_SHEET]
        kept = [identity for identity in self.pictures if identity in newest]
        numbers = {identity: number for number, identity in enumerate(kept, 1)}
        has_words = _last_question_has_words(read)
        pictures: dict[str, Any] = {}
        for message, part in found:
            number = numbers.get(identity := _identity(part))
            if number is not None:
                pictures[identity] = part
            kind = form.answer if message["role"] == "assistant" else form.text
            words = f"[Picture {number}]" if number else "[A picture that is no longer shown]"
            # Only the parts of the user's messages are joined by line breaks.
            end = "" if message["role"] == "user" else "\n"
            text = {"type": kind, "text": words + end}
            message["content"] = [text if one is part else one for one in _parts(message)]
        users = _users(read)
        opening = f"The image shows {len(kept)} pictures with the numbers 1 to {len(kept)}."
        _add(users[0], form, before=[{"type": form.text, "text": opening}])
        asked = [] if has_words else [{"type": form.text, "text": "Describe each picture."}]
        _add(users[-1], form, after=[*asked, *(pictures[identity] for identity in kept)])

    def _message(self, message: object, form: _Form) -> Iterator[Any]:
        """Yield a message in the form of the API; none if it says nothing to this model."""
        if not isinstance(message, dict):
            yield message
            return
        kind = message.get("type")
        if (
            form is _RESPONSES
            and isinstance(kind, str)
            and kind != "message"
            and "role" not in message
        ):
            yield from self._tool_item(message, kind, form)
            return
        role = message.get("role")
        role = role.strip().lower() if isinstance(role, str) else role
        content = self._content(message, role, form)
        if role in ("tool", "function"):
            yield {"role": "user", "content": _tool_result(message.get("name"), content, form)}
            return
        calls = [*_calls(message.get("tool_calls")), *_calls([message.get("function_call")])]
        if role == "assistant" and calls:
            content = "\n".join(filter(None, [_words(content), *calls]))
        known = ("role", "content", "tool_calls", "function_call", "images", *form.message_fields)
        for name, value in message.items():
            if name not in known:
                self._ignore(f"{form.field}.{name}", value)
        kept = {name: message[name] for name in form.message_fields if name in message}
        yield {**kept, "role": role, "content": content}

    def _tool_item(self, item: dict[str, Any], kind: str, form: _Form) -> Iterator[Any]:
        """Yield an item about a tool as a message."""
        match kind:
            case "function_call" | "custom_tool_call" | "mcp_call":
                text = _call(item.get("name"), item.get("arguments", item.get("input")))
                yield {"role": "assistant", "content": text}
                if item.get("output") is not None:  # of an mcp_call
                    yield {"role": "user", "content": _tool_result(None, item["output"], form)}
            case "local_shell_call" | "shell_call" | "apply_patch_call":
                text = _call(kind, item.get("action", item.get("operation")))
                yield {"role": "assistant", "content": text}
            case kind if kind.endswith("_call_output"):
                output = item.get("output")
                if isinstance(output, dict) and "image_url" in output:
                    output = [{**output, "type": "input_image"}]  # a computer's screenshot
                if isinstance(output, list):
                    output = [part for raw in output for part in self._part(raw, form.text, form)]
                yield {"role": "user", "content": _tool_result(None, output, form)}
            case kind if kind in _WITHOUT_WORDS or kind.endswith("_call"):
                self._ignore(f"{form.field}.{kind}", item)
            case _:
                yield item  # such as a reference to an item that is not here

    def _content(self, message: dict[str, Any], role: object, form: _Form) -> Any:
        """Return a message's content: a text, or a list of parts that the API has."""
        content = message.get("content")
        if content is None:
            content = ""
        images = message.get("images")
        if isinstance(images, list) and images and role == "user" and form is _CHAT:
            texts = content if isinstance(content, list) else [content] if content else []
            content = [*texts, *({"type": "image_url", "image_url": url} for url in images)]
        if not isinstance(content, list):
            return content
        text = form.answer if role == "assistant" else form.text
        return [part for raw in content for part in self._part(raw, text, form)]

    def _part(self, part: object, text: str, form: _Form) -> Iterator[Any]:
        """Yield a part of a message in the form of the API; none if it is ignored."""
        if isinstance(part, str):
            yield {"type": text, "text": part}
            return
        if not isinstance(part, dict):
            yield part
            return
        match part.get("type"):
            case str(kind) if kind in _TEXT_PARTS and isinstance(part.get("text"), str | None):
                yield {"type": text, "text": part.get("text") or ""}
            case "refusal" if isinstance(part.get("refusal"), str):
                yield {"type": text, "text": part["refusal"]}
            case str(kind) if kind in _THOUGHTS:
                self._ignore(f"{form.field}.{kind}", part)
            case "file" | "input_file" if (url := _picture_file(part)) is not None:
                yield from self._part({"type": form.picture, "image_url": url}, text, form)
            case "image_url" | "input_image" if (url := _address(part)) is not None:
                if drawing := _DRAWING.match(url):
                    self._ignore("image/svg+xml", url)
                    yield {"type": text, "text": unquote(url[drawing.end() :])}
                    return
                url = normal_data_url(url)
                self.pictures.pop(url, None)
                self.pictures[url] = None
                yield {"type": form.picture, "image_url": {"url": url, **_options_of(part)}}
            case _:
                yield part


@dataclass(frozen=True, kw_only=True)
class _ToolChoice:
    """What a request says about the call of functions.

    required  a function must be called
    names     those that may be called; None: all
    named     the request names the one function, and leaves the model no choice
    """

    required: bool
    names: tuple[object, ...] | None = None
    named: bool = False

    def takes(self, name: str) -> bool:
        """Return whether a function may be called."""
        return self.names is None or name in self.names

    @staticmethod
    def read(value: object) -> _ToolChoice | None:
        """Return the meaning of a `tool_choice` or `function_call`; None if it has none here."""
        if isinstance(value, dict) and value.get("type") == "allowed_tools":
            inner = value.get("allowed_tools")
            allowed = inner if isinstance(inner, dict) else value
            choice = _ToolChoice.read(allowed.get("mode"))
            tools = allowed.get("tools")
            if choice is None or not isinstance(tools, list):
                return None
            return replace(choice, names=tuple(_function(tool).get("name") for tool in tools))
        name = _function(value).get("name")
        if isinstance(name, str):
            return _ToolChoice(required=True, names=(name,), named=True)
        word = value.get("type") if isinstance(value, dict) else value
        match word:
            case "required" | "any":
                return _ToolChoice(required=True)
            case None | "auto" | "none":
                return _ANY_OR_NONE
        return None


_ANY_OR_NONE = _ToolChoice(required=False)
"""The model may answer in words, which it always does."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What the messages of an API look like.

    field           of the request that has them
    text, answer, picture  types of parts: of the user's text, of an answer's, of a picture
    message_fields  fields of a message that stay, besides role and content
    """

    field: str
    text: str
    answer: str
    picture: str
    message_fields: tuple[str, ...]


_CHAT = _Form(
    field="messages", text="text", answer="text", picture="image_url", message_fields=("name",)
)
_RESPONSES = _Form(
    field="input",
    text="input_text",
    answer="output_text",
    picture="input_image",
    message_fields=("type", "id", "status", "phase"),
)


def _json_form(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def _inside(values: object, *names: str) -> object:
    """Return the value at a path of names, or None if a name on the path is missing."""
    for name in names:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _function(tool: object) -> dict[str, Any]:
    """Return what a tool or a choice names, in the newer or the older form."""
    if not isinstance(tool, dict):
        return {}
    function = tool.get("function")
    return function if isinstance(function, dict) else tool


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a function's arguments."""
    schema = function.get("parameters")
    return schema if isinstance(schema, dict) and schema else {"type": "object"}


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _parts(message: dict[str, Any]) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _is_picture(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in ("image_url", "input_image")


def _identity(part: dict[str, Any]) -> str:
    """Return the address and the page of a picture's part; equal for the same picture."""
    return f"{_options_of(part).get('page')} {_address(part)}"


def _users(messages: list[Any]) -> list[dict[str, Any]]:
    """Return the messages of the user. One is added to a conversation without any."""
    users = [m for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    if not users:
        users = [{"role": "user", "content": []}]
        messages += users
    return users


def _add(
    message: dict[str, Any], form: _Form, *, before: Sequence[Any] = (), after: Sequence[Any] = ()
) -> None:
    """Add parts to a message."""
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": form.text, "text": content}]
    if isinstance(content, list):  # other types are an error that the check reports
        message["content"] = [*before, *content, *after]


def _last_question_has_words(messages: list[Any]) -> bool:
    """Return whether the user's last question is more than pictures."""
    answered = [isinstance(one, dict) and one.get("role") == "assistant" for one in messages]
    end = len(messages)
    while end and answered[end - 1]:
        end -= 1
    begin = end
    while begin and not answered[begin - 1]:
        begin -= 1
    last = [one for one in messages[begin:end] if isinstance(one, dict)]
    return any(_words(_without_pictures(one.get("content"))).strip() for one in last)


def _without_pictures(content: object) -> object:
    if not isinstance(content, list):
        return content
    return [part for part in content if not _is_picture(part)]


def _address(part: dict[str, Any]) -> str | None:
    """Return the address in a picture's part; None if it has none."""
    value = part.get("image_url")
    url = value.get("url") if isinstance(value, dict) else value
    return url if isinstance(url, str) else None


def _options_of(part: dict[str, Any]) -> dict[str, Any]:
    """Return the known options of a picture's part, which may be at either of two places."""
    inner = part.get("image_url")
    inner = inner if isinstance(inner, dict) else {}
    found = {name: value for name, value in (*inner.items(), *part.items()) if value is not None}
    options = {"page": found["page"]} if "page" in found else {}
    detail = found.get("detail")
    if isinstance(detail, str) and detail in _DETAILS:
        options["detail"] = detail
    return options


def _is_empty(message: object) -> bool:
    """Return whether a message says nothing. An answer without words still ends its turn."""
    if not isinstance(message, dict) or message.get("role") == "assistant":
        return False
    content = message.get("content")
    if isinstance(content, list):
        return not any(_is_picture(part) or _words([part]).strip() for part in content)
    return content == ""


def _words(content: object) -> str:
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    parts: Iterable[Any] = content if isinstance(content, list) else ()
    texts = (part.get("text", part) if isinstance(part, dict) else part for part in parts)
    return "\n".join(text if isinstance(text, str) else json.dumps(text) for text in texts)


def _calls(calls: object) -> Iterator[str]:
    """Yield past tool calls as text."""
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            function = call.get("function")
            named = function if isinstance(function, dict) else call
            yield _call(named.get("name"), named.get("arguments"))


def _call(name: object, arguments: object) -> str:
    given = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return f"[Call of {name}: {given}]"


def _tool_result(name: object, result: object, form: _Form) -> str | list[Any]:
    """Return the content of a message with the result of a tool, which may have pictures."""
    text = result if isinstance(result, str) else _words(_without_pictures(result))
    words = f"[Result of {name}: {text}]" if isinstance(name, str) else f"[Result: {text}]"
    pictures = [part for part in result if _is_picture(part)] if isinstance(result, list) else []
    return [{"type": form.text, "text": words}, *pictures] if pictures else words


def _picture_file(part: dict[str, Any]) -> str | None:
    """Return the data: URL of a file part that holds a picture; None for other files."""
    inner = part.get("file")
    data = (inner if isinstance(inner, dict) else part).get("file_data")
    found = isinstance(data, str) and data[:11].lower() == "data:image/"
    return data if found else None
