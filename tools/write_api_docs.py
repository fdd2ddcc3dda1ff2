"""Write docs/api.md from the docstrings of the public Python API: python tools/write_api_docs.py"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import structs

from cogvlm2_lite import errors, events
from cogvlm2_lite.engine.model import Model, load
from cogvlm2_lite.inputs.prompt import build_prompt
from cogvlm2_lite.sampling import Sampling

PAGE = Path(__file__).parents[1] / "docs" / "api.md"

_INTRODUCTION = """\
# The Python API

This page is written by `python tools/write_api_docs.py` from the docstrings. What is listed here
stays compatible within a minor version; everything else may change.

```python
import cogvlm2_lite

model = cogvlm2_lite.load("cogvlm2-nf4")
for event in model.answer("What is written on the sign?", image="photo.jpg"):
    print(event)
```
"""

_METHODS = (Model.answer, Model.warm_up, Model.encode_image, Model.forward)


def render() -> str:
    """Return the text of docs/api.md."""
    kinds = get_args(events.Event)
    tree = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.CogVLM2LiteError)
    ]
    sections = [
        _INTRODUCTION,
        "## Load a model\n",
        _function(load, "cogvlm2_lite.load"),
        _class(Model, "cogvlm2_lite.Model"),
        *(_function(method, f"Model.{method.__name__}") for method in _METHODS),
        "## Settings of an answer\n",
        _class(Sampling, "cogvlm2_lite.Sampling"),
        _class(events.Cancel, "cogvlm2_lite.events.Cancel"),
        "## Events\n",
        f"{inspect.getdoc(events)}\n",
        *(_class(kind, kind.__name__) for kind in kinds),
        _class(events.FinishReason, "FinishReason"),
        _class(events.TokenLogprobs, "TokenLogprobs"),
        _class(events.CandidateToken, "CandidateToken"),
        "## Prompts\n",
        _function(build_prompt, "cogvlm2_lite.build_prompt"),
        "## Errors\n",
        f"```text\n{inspect.getdoc(errors)}\n```\n",
        *(_class(kind, f"cogvlm2_lite.errors.{kind.__name__}") for kind in tree),
    ]
    return "\n".join(sections)


def _function(function: Callable[..., Any], name: str) -> str:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    lines, star = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            lines.append("    *,")
            star = True
        default = (
            "" if parameter.default is parameter.empty else f" = {_literal(parameter.default)}"
        )
        lines.append(f"    {parameter.name}: {parameter.annotation}{default},")
    result = inspect.signature(function).return_annotation
    inner = "\n".join(["", *lines, ""]) if lines else ""
    head = f"{name}({inner}) -> {result}"
    return f"### `{name}`\n\n```python\n{head}\n```\n\n{_text(function)}"


def _class(kind: type, name: str) -> str:
    fields = ""
    if dataclasses.is_dataclass(kind):
        rows = [f"{f.name}: {f.type}{_default(f)}" for f in dataclasses.fields(kind)]
        fields = "```python\n" + "\n".join(rows) + "\n```\n\n" if rows else ""
    elif issubclass(kind, msgspec.Struct):
        types = kind.__annotations__
        rows = [f"{f.name}: {types[f.name]}{_default(f)}" for f in structs.fields(kind)]
        fields = "```python\n" + "\n".join(rows) + "\n```\n\n"
    elif issubclass(kind, Enum):
        rows = [f"{member.name} = {_literal(member.value)}" for member in kind]
        fields = "```python\n" + "\n".join(rows) + "\n```\n\n"
    return f"### `{name}`\n\n{fields}{_text(kind)}"


def _default(field: dataclasses.Field[Any] | structs.FieldInfo) -> str:
    required = field.default in (dataclasses.MISSING, msgspec.NODEFAULT)
    return "" if required else f" = {_literal(field.default)}"


def _literal(value: object) -> str:
    """Write a value as the formatter would: texts in double quotes, an object of ours as "..."."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    plain = value is None or isinstance(value, int | float | tuple)
    return repr(value) if plain else "..."


def _text(thing: object) -> str:
    """Return a docstring: its first paragraph as text, the rest with its columns kept."""
    first, _, rest = (inspect.getdoc(thing) or "").partition("\n\n")
    block = f"\n```text\n{rest.strip()}\n```\n" if rest.strip() else ""
    return f"{first}\n{block}"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
