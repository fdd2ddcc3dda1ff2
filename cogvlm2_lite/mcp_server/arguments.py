"""The arguments and results of the tools; their JSON schemas are what clients see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.server.messages import DEFAULT_QUESTION

_MOST_LETTERS = 400_000
_MOST_TURNS = 100

_Path = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=10_000,
        description="Path of the picture file, absolute or relative to one of the allowed folders",
    ),
]
_Page = Annotated[
    int | None,
    Meta(
        description="Page of a TIFF file or frame of an animation, counted from 1 (default: the "
        "first)"
    ),
]
_Tokens = Annotated[int, Meta(ge=1, le=8192, description="Maximum length of the answer in tokens")]
_Adapter = Annotated[
    str | None,
    Meta(description="Adapter that answers (default: the first one)"),
]
_ReadPage = Annotated[int, Meta(description="The page that was read, counted from 1")]
_Pages = Annotated[int, Meta(description="Number of pages in the file")]
_Notices = Annotated[
    list[str], Meta(description="What a person should know of how the picture was read")
]


class _Arguments(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the arguments."""


class PastTurn(_Arguments, frozen=True, kw_only=True):
    """An earlier question about a picture, and its answer."""

    question: Annotated[str, Meta(max_length=_MOST_LETTERS, description="An earlier question")]
    answer: Annotated[
        str, Meta(max_length=_MOST_LETTERS, description="The answer that ask_picture gave")
    ]


class AskArguments(_Arguments, frozen=True, kw_only=True):
    """The arguments of ask_picture."""

    path: _Path
    question: Annotated[
        str, Meta(max_length=_MOST_LETTERS, description="The question about the picture")
    ] = DEFAULT_QUESTION
    history: Annotated[
        list[PastTurn],
        Meta(
            max_length=_MOST_TURNS,
            description="Earlier questions about the same picture and their answers, oldest first, "
            "so that the question can refer to them (default: none)",
        ),
    ] = []
    page: _Page = None
    max_tokens: _Tokens = 2048
    adapter: _Adapter = None


class ExtractArguments(_Arguments, frozen=True, kw_only=True):
    """The arguments of extract."""

    path: _Path
    schema: Annotated[
        dict[str, Any],
        Meta(description="JSON schema of the value to return; describe each field in it"),
    ]
    question: Annotated[
        str,
        Meta(max_length=_MOST_LETTERS, description="What to read from the picture"),
    ] = ""
    page: _Page = None
    max_tokens: _Tokens = 4096
    adapter: _Adapter = None


class ListArguments(_Arguments, frozen=True, kw_only=True):
    """The arguments of list_pictures."""

    folder: Annotated[
        str | None, Meta(description="List only this folder (default: all allowed folders)")
    ] = None
    contains: Annotated[
        str, Meta(description="List only paths that contain this text, in upper or lower case")
    ] = ""
    limit: Annotated[int, Meta(ge=1, le=1000, description="Maximum number of paths")] = 200


class AskResult(Struct, kw_only=True):
    """The result of ask_picture."""

    answer: Annotated[str, Meta(description="The model's answer")]
    finish_reason: Annotated[
        str, Meta(description="Why the answer ended: eos, length (it is cut off), repetition")
    ]
    page: _ReadPage
    pages: _Pages
    notices: _Notices


class ExtractResult(Struct, kw_only=True):
    """The result of extract."""

    value: Annotated[Any, Meta(description="The value, which matches the schema")]
    page: _ReadPage
    pages: _Pages
    notices: _Notices


class ListResult(Struct, kw_only=True):
    """The result of list_pictures."""

    folders: Annotated[list[str], Meta(description="The allowed folders")]
    pictures: Annotated[list[str], Meta(description="Paths of picture files")]
    total: Annotated[int, Meta(description="How many there are, also those above the limit")]


A = TypeVar("A", bound=_Arguments)


def read_arguments(values: dict[str, Any], kind: type[A]) -> A:
    """Return the arguments of a call. Raises UsageError that names the one at fault."""
    if isinstance(text := values.get("schema"), str):  # some models write the schema as a text
        try:
            values = {**values, "schema": msgspec.json.decode(text)}
        except msgspec.DecodeError:
            raise UsageError(
                "The JSON schema can't be used: {why}.", why="it is not JSON", param="schema"
            ) from None
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UsageError(
            "The arguments can't be used: {why}.",
            hint="The tool's input schema lists what it takes.",
            why=str(error),
        ) from None


def schema_of(kind: type[Struct], adapters: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON schema of arguments or a result, without references.

    adapters  what the argument `adapter` may be; (): clients do not see it
    """
    _, found = msgspec.json.schema_components([kind], ref_template="{name}")
    schema = _without_references(found[kind.__name__], found)
    assert isinstance(schema, dict)
    schema.pop("description", None)
    if adapters and "adapter" in schema["properties"]:
        schema["properties"]["adapter"]["enum"] = list(adapters)
    else:
        schema["properties"].pop("adapter", None)
    return schema


def _without_references(schema: Any, found: Mapping[str, Any]) -> Any:
    """Return a schema with what it refers to at its place; not all clients follow references."""
    if isinstance(schema, list):
        return [_without_references(one, found) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _without_references(found[schema["$ref"]], found)
    kept = {name: value for name, value in schema.items() if name != "title"}
    return {name: _without_references(value, found) for name, value in kept.items()}
