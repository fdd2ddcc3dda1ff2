"""Client packages that ask for answers of a given type, against a server whose answers match it.

The engine writes what a test lays down, and checks it with the grammar of the schema that arrived:
so a schema that a package writes must be usable, and the package must find the answer in the reply.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

import cogvlm2_lite
from cogvlm2_lite.engine.json_text import JsonGrammar
from cogvlm2_lite.errors import CogVLM2LiteError, EngineError
from cogvlm2_lite.events import Prefilled, TextDelta
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.server.calls import CallReader, call_schema
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.schemas import usable_schema
from cogvlm2_lite.worker.client import Outcome
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.scripted_server import ScriptedEngine, finished, running

DEMO = Path(cogvlm2_lite.__file__).parent / "demo" / "checkpoint"
TOKENIZER = Tokenizer.from_folder(DEMO)
GRAMMAR = JsonGrammar(TOKENIZER, [TOKENIZER.encode("<|end_of_text|>")[0]])


class Color(Enum):
    """The color of a sign."""

    RED = "red"
    BLUE = "blue"


class Sign(BaseModel):
    """One sign."""

    text: str
    color: Color
    height_m: Annotated[float, Field(gt=0)] | None = None


class Bus(BaseModel):
    """One bus."""

    kind: Literal["bus"]
    seats: int = Field(ge=1, le=99)


class Car(BaseModel):
    """One car."""

    kind: Literal["car"]
    plate: str = Field(pattern=r"^[A-Z]{2}[0-9]{2}$")


class Scene(BaseModel):
    """What is in a picture."""

    signs: list[Sign] = Field(max_length=3)
    vehicle: Bus | Car
    weather: Literal["sunny", "rain"]
    numbers: dict[str, int] = {}


SCENE: dict[str, Any] = {
    "signs": [{"text": "ROAD", "color": "red", "height_m": 2.5}],
    "vehicle": {"kind": "car", "plate": "AB12"},
    "weather": "rain",
    "numbers": {},
}
WANTED = Scene.model_validate(SCENE)
ASKED: Any = [{"role": "user", "content": "What is in the picture?"}]


PARSED = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
"""The package's type of `parsed` is not the one that it puts there."""


class WritingEngine(ScriptedEngine):
    """Writes `texts` one after another; a text that its schema does not accept is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: deque[str] = deque()

    def _answer(self, ask: Ask, deliver: Callable[[Outcome], None]) -> None:
        text = self.texts.popleft() if self.texts else json.dumps(SCENE)
        try:
            self._check(text, ask.sampling.json_schema)
        except CogVLM2LiteError as error:
            deliver(error)
            return
        deliver(Prefilled(tokens=5, reused_tokens=0, seconds=0.1))
        for begin in range(0, len(text), 9):
            deliver(TextDelta(text=text[begin : begin + 9]))
        deliver(finished(ask))

    def _check(self, text: str, schema: str) -> None:
        if not schema:
            return
        answer, complete = GRAMMAR.begin(schema), False
        for token in TOKENIZER.encode(text):
            complete = answer.push(token)
        if not complete:
            raise EngineError("The answer is not complete.")


@pytest.fixture(scope="module")
def engine() -> WritingEngine:
    return WritingEngine()


@pytest.fixture(scope="module")
def address(engine: WritingEngine) -> Iterator[str]:
    with running(engine, limits=Limits(), model="demo") as server:
        yield f"{server.address}/v1"


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        yield client


@PARSED
def test_openai_parses_a_chat_and_takes_its_message_back(client: openai.OpenAI) -> None:
    made = client.chat.completions.parse(model="demo", messages=ASKED, response_format=Scene)
    message = made.choices[0].message
    assert message.parsed == WANTED
    more: Any = [*ASKED, message.model_dump(mode="json"), *ASKED]
    again = client.chat.completions.parse(model="demo", messages=more, response_format=Scene)
    assert again.choices[0].message.parsed == WANTED


def test_openai_parses_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="demo", messages=ASKED, response_format=Scene
    ) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == WANTED


def test_openai_parses_a_response_and_its_stream(client: openai.OpenAI) -> None:
    made = client.responses.parse(model="demo", input="What is there?", text_format=Scene)
    assert made.output_parsed == WANTED
    with client.responses.stream(model="demo", input="What is there?", text_format=Scene) as stream:
        assert stream.get_final_response().output_parsed == WANTED
    given: Any = [{"role": "user", "content": "?"}, *made.output, {"role": "user", "content": "?"}]
    assert client.responses.create(model="demo", input=given).output_text


@pytest.mark.parametrize("choice", ["required", "named"])
@pytest.mark.parametrize("streamed", [False, True])
def test_openai_parses_the_arguments_of_a_tool(
    client: openai.OpenAI, choice: str, streamed: bool
) -> None:
    tool = openai.pydantic_function_tool(Scene)
    named: Any = {"type": "function", "function": {"name": "Scene"}}
    asked: Any = {
        "model": "demo",
        "messages": ASKED,
        "tools": [tool],
        "tool_choice": choice if choice == "required" else named,
        "parallel_tool_calls": False,
    }
    if streamed:
        with client.chat.completions.stream(**asked) as stream:
            made = stream.get_final_completion()
    else:
        made = client.chat.completions.parse(**asked)
    [call] = made.choices[0].message.tool_calls or ()
    assert call.function.name == "Scene"
    assert call.function.parsed_arguments == WANTED
    result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    message = made.choices[0].message.model_dump(mode="json")
    more: Any = [*ASKED, message, result]
    assert client.chat.completions.create(model="demo", messages=more).choices


class Place(BaseModel):
    """Where a picture was taken, with a schema that refers to itself."""

    name: str
    inside: Place | None = None


PLACE = {"name": "Rome", "inside": {"name": "}Italy }", "inside": None}}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_required_call_of_several_tools_is_the_one_that_was_chosen(
    client: openai.OpenAI, engine: WritingEngine, streamed: bool
) -> None:
    tools: Any = [openai.pydantic_function_tool(kind) for kind in (Scene, Place)]
    for name, arguments in (("Place", PLACE), ("Scene", SCENE)):
        engine.texts.append(json.dumps({"name": name, "arguments": arguments}))
        asked: Any = {"model": "demo", "messages": ASKED, "tools": tools}
        if streamed:
            with client.chat.completions.stream(**asked, tool_choice="required") as stream:
                made: Any = stream.get_final_completion()
        else:
            made = client.chat.completions.create(**asked, tool_choice="required")
        [choice] = made.choices
        [call] = choice.message.tool_calls
        assert (call.function.name, choice.finish_reason) == (name, "tool_calls")
        assert json.loads(call.function.arguments) == arguments
        assert choice.message.content is None


@pytest.mark.parametrize("streamed", [False, True])
def test_a_response_is_the_call_of_a_function(
    client: openai.OpenAI, engine: WritingEngine, streamed: bool
) -> None:
    tools: Any = [
        {"type": "function", "name": kind.__name__, "parameters": kind.model_json_schema()}
        for kind in (Scene, Place)
    ]
    engine.texts.append(json.dumps({"name": "Place", "arguments": PLACE}))
    asked: Any = {"model": "demo", "input": "Where is it?", "tools": tools}
    if streamed:
        with client.responses.stream(**asked, tool_choice="required") as stream:
            made: Any = stream.get_final_response()
    else:
        made = client.responses.create(**asked, tool_choice="required")
    [call] = made.output
    assert (call.type, call.name, call.status) == ("function_call", "Place", "completed")
    assert json.loads(call.arguments) == PLACE
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    given: Any = [{"role": "user", "content": "Where?"}, call, result]
    assert client.responses.create(model="demo", input=given).output_text
    named: Any = {"type": "function", "name": "Scene"}
    made = client.responses.create(**asked, tool_choice=named)
    assert json.loads(made.output[0].arguments) == SCENE


FUNCTIONS: Any = [
    {"name": kind.__name__, "parameters": kind.model_json_schema()} for kind in (Scene, Place)
]
"""Scene and Place in OpenAI's older form."""


@pytest.mark.parametrize("streamed", [False, True])
def test_a_function_of_the_older_fields_is_called_in_the_older_form(
    client: openai.OpenAI, engine: WritingEngine, streamed: bool
) -> None:
    asked: Any = {"model": "demo", "messages": ASKED, "functions": FUNCTIONS}
    create: Any = client.chat.completions.create
    engine.texts.append(json.dumps(PLACE))
    made = create(**asked, function_call={"name": "Place"}, stream=streamed)
    if streamed:
        chunks = [chunk.choices[0] for chunk in made]
        calls = [c.delta.function_call for c in chunks if c.delta.function_call]
        name = "".join(call.name or "" for call in calls)
        arguments, reason = "".join(c.arguments for c in calls), chunks[-1].finish_reason
        assert not any(c.delta.tool_calls or c.delta.content for c in chunks)
    else:
        [choice] = made.choices
        call, reason = choice.message.function_call, choice.finish_reason
        name, arguments = call.name, call.arguments
        assert choice.message.content is None
        assert choice.message.tool_calls is None
        result = {"role": "function", "name": "Place", "content": "done"}
        again: Any = [*ASKED, choice.message.model_dump(mode="json"), result]
        assert create(model="demo", messages=again, functions=FUNCTIONS).choices
    assert (name, json.loads(arguments), reason) == ("Place", PLACE, "function_call")


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_a_function_of_the_older_fields_that_need_not_be_called_is_not(
    client: openai.OpenAI, engine: WritingEngine, choice: Any
) -> None:
    engine.texts.append("A sign.")
    create: Any = client.chat.completions.create
    [made] = create(model="demo", messages=ASKED, functions=FUNCTIONS, function_call=choice).choices
    assert (made.message.content, made.finish_reason) == ("A sign.", "stop")
    assert made.message.function_call is None


TOOLS: Any = [{"type": "function", "function": function} for function in FUNCTIONS]
ONLY_PLACE = [{"type": "function", "function": {"name": "Place"}}]


def allowed(mode: str, names: Any = ONLY_PLACE) -> dict[str, Any]:
    """A `tool_choice` of the chat API that leaves some of the tools."""
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": names}}


def test_allowed_tools_that_are_required_are_the_only_ones(
    client: openai.OpenAI, engine: WritingEngine
) -> None:
    create: Any = client.chat.completions.create
    engine.texts.append(json.dumps(PLACE))
    made = create(model="demo", messages=ASKED, tools=TOOLS, tool_choice=allowed("required"))
    [call] = made.choices[0].message.tool_calls
    assert (call.function.name, made.choices[0].finish_reason) == ("Place", "tool_calls")
    assert json.loads(call.function.arguments) == PLACE
    engine.texts.append("A sign.")
    made = create(model="demo", messages=ASKED, tools=TOOLS, tool_choice=allowed("auto"))
    assert made.choices[0].message.content == "A sign."
    for number, names in enumerate((["Place"], ["Scene", "Place"])):
        tools: Any = [{"type": "function", **function} for function in FUNCTIONS]
        some: Any = [{"type": "function", "name": name} for name in names]
        choice: Any = {"type": "allowed_tools", "mode": "required", "tools": some}
        answer = {"name": "Place", "arguments": PLACE} if number else PLACE
        engine.texts.append(json.dumps(answer))
        asked: Any = {"model": "demo", "input": "Where?", "tools": tools}
        [item] = client.responses.create(**asked, tool_choice=choice).output
        assert json.loads(item.arguments) == PLACE
        assert item.name == "Place"
        engine.texts.append("A sign.")
        auto: Any = {**choice, "mode": "auto"}
        assert client.responses.create(**asked, tool_choice=auto).output_text == "A sign."


@pytest.mark.parametrize(
    ("choice", "status"),
    [
        (allowed("required", [{"type": "function", "function": {"name": "Other"}}]), 400),
        (allowed("required", []), 400),
        (allowed("perhaps"), 400),
        ({"type": "allowed_tools"}, 400),
        ({"type": "function", "function": {"name": "Other"}}, 400),
        ({"type": "web_search_preview"}, 400),
        ("sometimes", 400),
        ({"type": "auto"}, 200),
        ({"type": "none"}, 200),
        ("any", 200),
        ({"type": "any"}, 200),
        ({"type": "tool", "name": "Scene"}, 200),
        ({"name": "Scene"}, 200),
    ],
)
def test_other_forms_of_tool_choice(
    client: openai.OpenAI, engine: WritingEngine, choice: Any, status: int
) -> None:
    body = {"messages": ASKED, "tools": TOOLS[:1], "tool_choice": choice}
    reply = httpx.post(f"{client.base_url}chat/completions", json=body)
    assert reply.status_code == status, reply.text
    if status == 400:
        assert reply.json()["error"]["param"] == "tool_choice"


def test_a_call_that_was_cut_off_has_what_there_is() -> None:
    for functions, whole in (
        (["f"], '{"a": {"b": 1}}'),
        (["f", "g"], json.dumps({"name": "g", "arguments": {"a": {"b": 1}}})),
    ):
        for length in range(len(whole) + 1):
            for step in (1, 7):
                reader = CallReader(functions)
                pieces = [
                    reader.push(whole[begin : min(begin + step, length)])
                    for begin in range(0, length, step)
                ]
                pieces.append(reader.finish(complete=length == len(whole)))
                assert "".join(pieces) == reader.arguments
                assert '{"a": {"b": 1}}'.startswith(reader.arguments.removesuffix("}"))
        assert (reader.name, reader.arguments) == (functions[-1], '{"a": {"b": 1}}')


@pytest.mark.parametrize(
    ("field", "more", "value"),
    [
        ({"$ref": "#/$defs/x"}, {"$defs": {"x": {"const": "a"}}}, "a"),
        ({"$ref": "#x"}, {"$defs": {"x": {"$anchor": "x", "const": "a"}}}, "a"),
        (
            {"$ref": "#/$defs/x"},
            {"$defs": {"x": {"const": "a"}}, "$id": "https://example.com"},
            "a",
        ),
        ({"enum": [{"$ref": "#/a"}]}, {}, {"$ref": "#/a"}),
        ({"const": {"$ref": "#"}}, {}, {"$ref": "#"}),
    ],
)
def test_the_schema_of_one_of_several_functions_means_the_same_as_alone(
    field: Any, more: dict[str, Any], value: Any
) -> None:
    alone = {
        "type": "object",
        "properties": {"default": field},
        "required": ["default"],
        **more,
    }
    answer = {"default": value}
    calls = call_schema({"f": alone, "g": {"type": "object"}})
    for schema, text in ((alone, answer), (calls, {"name": "f", "arguments": answer})):
        grammar = GRAMMAR.begin(json.dumps(usable_schema(schema)[0]))
        assert [grammar.push(token) for token in TOKENIZER.encode(json.dumps(text))][-1]


STRING = {"type": "string"}
NAMED = {"type": "object", "properties": {"not": STRING}, "required": ["not"]}


def kind_of(word: str) -> dict[str, Any]:
    """Return the schema of an object with a kind, as discriminated unions have it."""
    return {"type": "object", "properties": {"kind": {"const": word}}, "required": ["kind"]}


@pytest.mark.parametrize(
    ("schema", "answer", "ignored"),
    [
        (NAMED, {"not": "a"}, []),
        (NAMED | {"not": {"required": ["b"]}}, {"not": "a"}, ["not"]),
        (NAMED | {"minProperties": 1}, {"not": "a"}, []),
        ({"type": "object", "minProperties": 1, "properties": {"a": STRING}}, {},
         ["minProperties"]),
        ({"type": "array", "items": STRING, "uniqueItems": True}, ["a", "a"], ["uniqueItems"]),
        ({"type": "array", "items": STRING, "uniqueItems": False}, ["a"], []),
        ({"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": NAMED | {"if": {}}}},
         [{"not": "a"}], ["if"]),
        (NAMED | {"unevaluatedProperties": False}, {"not": "a"}, []),
        ({"allOf": [NAMED], "unevaluatedProperties": False}, {"not": "a"},
         ["unevaluatedProperties"]),
        ({"prefixItems": [STRING], "minItems": 1, "unevaluatedItems": False}, ["a"], []),
        ({"type": "array", "items": STRING, "contains": False}, ["a"], ["contains"]),
        ({"type": "array", "items": STRING, "contains": {"const": "b"}, "minContains": 2}, ["a"],
         ["contains", "minContains"]),
        (STRING | {"pattern": "(?<=a)b|\\bc"}, "x", ["pattern"]),
        (STRING | {"format": "file-path"}, "/a", ["format"]),
        (STRING | {"format": "date"}, "2024-05-17", []),
        (STRING | {"pattern": "^(?!a)b$"}, "x", ["pattern"]),
        (STRING | {"pattern": "^b$"}, "b", []),
        ({"type": "array", "items": {"oneOf": [{"type": "number"}, {"type": "integer"}]}}, [1.5],
         ["oneOf"]),
        ({"oneOf": [STRING, {"type": "integer"}]}, "a", []),
        ({"oneOf": [NAMED, {"type": "object"}], "discriminator": {"propertyName": "not"}},
         {"not": "a"}, []),
        ({"oneOf": [{"const": "a", "title": "A"}, {"enum": ["b", 1]}]}, "a", []),
        ({"oneOf": [{"const": "a"}, {"enum": ["b", "a"]}]}, "a", ["oneOf"]),
        ({"oneOf": [kind_of("cat"), kind_of("dog")]}, {"kind": "dog"}, []),
        ({"oneOf": [kind_of("cat"), kind_of("cat")]}, {"kind": "cat"}, ["oneOf"]),
    ],
)  # fmt: skip
def test_keywords_that_answers_cannot_be_held_to_are_ignored_and_named(
    client: openai.OpenAI, engine: WritingEngine, schema: Any, answer: Any, ignored: list[str]
) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    engine.texts.append(json.dumps(answer))
    made: Any = client.chat.completions.create(
        model="demo", messages=ASKED, response_format=form, max_tokens=9
    )
    assert json.loads(made.choices[0].message.content) == answer
    names = [f"json_schema.{name}" for name in ignored]
    assert (made.cogvlm2 or {"ignored": []})["ignored"] == names


UNUSED: dict[str, Any] = {
    "type": "object",
    "properties": {"a": STRING | {"pattern": "(?=b)b"}},
    "required": ["a"],
    "not": {"required": ["b"]},
    "if": {},
}
LEFT_OUT = [f"json_schema.{name}" for name in ("pattern", "not", "if")]
FUNCTION = {"name": "f", "parameters": UNUSED}
RESPONSES_FORM = {"format": {"type": "json_schema", "name": "a", "schema": UNUSED}}
OLLAMA = {"model": "demo", "format": UNUSED}
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": ASKED, "response_format":
        {"type": "json_schema", "json_schema": {"name": "a", "schema": UNUSED}}}),
    ("/v1/chat/completions", {"messages": ASKED, "guided_json": UNUSED}),
    ("/v1/chat/completions", {"messages": ASKED, "tool_choice": "required",
        "tools": [{"type": "function", "function": FUNCTION}]}),
    ("/v1/chat/completions", {"messages": ASKED, "functions": [FUNCTION],
        "function_call": {"name": "f"}}),
    ("/v1/responses", {"input": "a", "text": RESPONSES_FORM}),
    ("/v1/responses", {"input": "a", "tool_choice": "required",
        "tools": [{"type": "function", **FUNCTION}]}),
    ("/api/chat", OLLAMA | {"messages": [{"role": "user", "content": "a"}]}),
    ("/api/generate", OLLAMA | {"prompt": "a"}),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), BODIES)
def test_the_keywords_that_were_left_out_are_named_in_every_form_of_reply(
    client: openai.OpenAI, engine: WritingEngine, path: str, body: dict[str, Any], stream: bool
) -> None:
    engine.texts.append('{"a": "x"}')
    server = str(client.base_url).removesuffix("/v1/")
    reply = httpx.post(server + path, json=body | {"stream": stream})
    assert reply.headers["x-cogvlm2-ignored"] == ", ".join(LEFT_OUT)
    assert json.dumps(LEFT_OUT, separators=(",", ":")) in reply.text.replace(", ", ",")


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_names_the_fields_that_were_left_out(
    client: openai.OpenAI, engine: WritingEngine, stream: bool
) -> None:
    engine.texts.append("x")
    body = {"prompt": "a", "guided_json": UNUSED, "min_p": 0.1, "stream": stream}
    reply = httpx.post(f"{client.base_url}completions", json=body)
    assert reply.headers["x-cogvlm2-ignored"] == "guided_json, min_p"
    assert '"ignored":["guided_json","min_p"]' in reply.text


OPEN = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
PART = {"type": "object", "properties": {"b": STRING}}
WIDE = 2**53


@pytest.mark.parametrize(
    ("schema", "wanted", "unwanted"),
    [
        (OPEN, {"a": 1}, [{"a": 1, "b": 1}, {"a": WIDE}, {"a": -WIDE}]),
        ({"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": OPEN}}, [{"a": 1}],
         [[{"a": 1, "b": 2}]]),
        (OPEN | {"properties": {"a": OPEN}}, {"a": {"a": 1}}, [{"a": {"a": 1, "b": 1}}]),
        ({"anyOf": [OPEN, {"type": "null"}]}, {"a": 1}, [{"a": 1, "b": 1}]),
        ({"type": "object", "oneOf": [kind_of("cat"), kind_of("dog")]}, {"kind": "cat"},
         [{"kind": "cat", "b": 1}]),
        (OPEN | {"anyOf": [{"required": ["a"]}, {"required": []}]}, {"a": 1}, [{"a": 1, "b": 1}]),
        ({"type": "object", "properties": {"a": STRING, "b": STRING},
          "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
         {"b": "c"}, [{}, {"a": "c", "c": 1}]),
        # A type is implied.
        ({"properties": {"a": {"enum": [1, "b"]}}, "required": ["a"]}, {"a": 1}, [1, "b", {}]),
        (OPEN | {"properties": {"a": {"items": STRING}}}, {"a": ["b"]}, [{"a": "b"}]),
        ({"anyOf": [{"properties": {"a": STRING}}, {"type": "null"}]}, None, [True]),
        ({"type": "array", "items": {"type": ["integer", "null"]}}, [None, 1], [[WIDE]]),
        # Schemas that need fields or numbers which they don't list keep them.
        (OPEN | {"additionalProperties": True}, {"a": 1, "b": 1}, []),
        (OPEN | {"patternProperties": {"^x": STRING}}, {"a": 1, "x1": "b"}, []),
        (OPEN | {"required": ["a", "c"]}, {"a": 1, "c": 1}, []),
        ({"type": "object", "required": ["c"], "anyOf": [OPEN, PART]}, {"a": 1, "c": 1}, []),
        (OPEN | {"anyOf": [{"required": ["c"]}]}, {"a": 1, "c": 1}, []),
        ({"type": "object"}, {"b": 1}, []),
        ({"type": "object", "properties": {}}, {"b": 1}, []),
        ({"allOf": [OPEN, PART]}, {"a": 1, "b": "c"}, []),
        (OPEN | {"allOf": [PART]}, {"a": 1, "b": "c"}, []),
        (OPEN | {"$ref": "#/$defs/B", "$defs": {"B": PART}}, {"a": 1, "b": "c"}, []),
        ({"type": "array", "items": {"type": "integer", "minimum": WIDE}}, [WIDE], [[1]]),
        ({"type": "array", "items": {"enum": [WIDE]}}, [WIDE], [[1]]),
    ],
)  # fmt: skip
def test_an_answer_has_only_the_fields_and_numbers_that_a_schema_lists(
    schema: Any, wanted: Any, unwanted: list[Any]
) -> None:
    used, ignored = usable_schema(schema)
    assert ignored == ()
    for value in (wanted, *unwanted):
        answer = GRAMMAR.begin(json.dumps(used))
        try:
            complete = [answer.push(token) for token in TOKENIZER.encode(json.dumps(value))][-1]
        except CogVLM2LiteError:
            complete = False
        assert complete == (value == wanted), value


@PARSED
@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_langchain_gets_structured_output(address: str, method: Any) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    with httpx.Client() as plain:
        chat = langchain_openai.ChatOpenAI(
            model="demo", base_url=address, api_key="none", http_client=plain, max_retries=0
        )
        typed = chat.with_structured_output(Scene, method=method)
        assert typed.invoke("What is there?") == WANTED
        assert list(typed.stream("What is there?"))[-1] == WANTED


@pytest.mark.parametrize("mode", ["JSON_SCHEMA", "TOOLS", "JSON", "MD_JSON"])
def test_instructor_gets_structured_output(address: str, mode: str) -> None:
    instructor = pytest.importorskip("instructor")
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode[mode])
        made = client.chat.completions.create(
            model="demo", messages=ASKED, response_model=Scene, max_retries=0
        )
    assert made.model_dump() == WANTED.model_dump()


def agent_answer(address: str, api: str, output: Any) -> object:
    """Return what an agent of pydantic-ai gets for an output type."""
    agents = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")
    made = models.OpenAIChatModel if api == "chat" else models.OpenAIResponsesModel

    async def ask() -> object:
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            model = made("demo", provider=providers.OpenAIProvider(openai_client=client))
            return (await agents.Agent(model, output_type=output).run("What is there?")).output

    return asyncio.run(ask())


@pytest.mark.parametrize("output", ["NativeOutput", "ToolOutput", "PromptedOutput"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_pydantic_ai_gets_structured_output(address: str, output: str, api: str) -> None:
    kind = getattr(pytest.importorskip("pydantic_ai"), output)
    assert agent_answer(address, api, kind(Scene)) == WANTED


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_pydantic_ai_chooses_one_of_several_outputs(
    address: str, engine: WritingEngine, api: str
) -> None:
    engine.texts.append(json.dumps({"name": "final_result_Place", "arguments": PLACE}))
    assert agent_answer(address, api, [Scene, Place]) == Place.model_validate(PLACE)
