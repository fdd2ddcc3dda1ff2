"""Sentences that keep their template and values, also across a pipe and in JSON."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from cogvlm2_lite.errors import EngineError, UsageError
from cogvlm2_lite.text import Text, join, listed, read_templates, with_templates
from cogvlm2_lite.worker.protocol import Failed, decode, encode


def test_a_text_is_its_sentence_and_knows_template_and_values() -> None:
    text = Text("{file} has {count} pixels.", file=Path("a.png"), count=5)
    assert text == "a.png has 5 pixels."
    assert (text.template, text.values) == (
        "{file} has {count} pixels.",
        {"file": "a.png", "count": 5},
    )
    assert copy.deepcopy(text).template == text.template


def test_without_values_braces_are_letters() -> None:
    assert Text('Write {"a": 1}.') == 'Write {"a": 1}.'
    assert Text("{file} {x}", file="{odd}", x=1) == "{odd} 1"
    assert Text(Text("{file}", file="{odd}"), file="other") == "{odd}"
    assert Text("Like {{}}.", file="a").template == "Like {}."


def test_an_error_fills_message_and_hint_and_names_its_field() -> None:
    error = UsageError("{param} is {value}.", hint="Not {value}.", param="top_p", value=2)
    assert (error.message, error.hint, error.param) == ("top_p is 2.", "Not 2.", "top_p")
    assert error.text == "top_p is 2. Not 2."
    assert EngineError("Only {this}").text.template == "Only {this}"


def test_sentences_are_joined_as_nested_texts() -> None:
    assert join("", "") == ""
    one = Text("{n} is one.", n=1)
    assert join("", one).template == "{n} is one."
    both = join(one, "Two.")
    assert both == "1 is one. Two."
    assert both.values == {"part1": one, "part2": "Two."}
    assert listed(["a", "b"]) == "a, b"
    assert listed([]) == ""


def test_json_keeps_the_text_and_adds_its_template() -> None:
    nested = Text("{reason} ({count})", reason=Text("It is {size}", size="1 GiB"), count=2)
    values = {"message": nested, "hint": Text(), "rows": [{"notes": [Text("{n}", n=1)]}]}
    written = json.loads(json.dumps(with_templates(values)))
    assert written["message"] == "It is 1 GiB (2)"
    assert written["texts"] == {"message": nested.as_dict()}
    assert written["rows"] == [
        {"notes": ["1"], "texts": {"notes": [{"template": "{n}", "values": {"n": 1}}]}}
    ]
    read = read_templates(written)
    assert read == {"message": "It is 1 GiB (2)", "hint": "", "rows": [{"notes": ["1"]}]}
    assert read["message"].values["reason"].template == "It is {size}"


def test_the_pipe_of_the_engine_carries_templates() -> None:
    message = Text("{why}: {file}", why=Text("{size} more", size="1 GiB"), file="x")
    sent = Failed(request=1, kind="UsageError", message=message, hint=Text(), param="vram")
    back = decode(encode(sent)[8:])
    assert isinstance(back, Failed)
    assert back == sent
    assert back.message.as_dict() == message.as_dict()
