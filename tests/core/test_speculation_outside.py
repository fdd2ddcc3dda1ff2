"""Speculation seen from outside: the words of `ask` are the same with every draft and budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speculation_texts import with_wrong_letters
from cogvlm2_lite.cli.ask import main
from cogvlm2_lite.demo.shipped import sample_pictures
from cogvlm2_lite.engine.model import Model, load
from cogvlm2_lite.events import Finished

PICTURE = next(p.path for p in sample_pictures() if p.path.stem == "three-shapes")
ANSWER = "A yellow cross, a pink square and a purple diamond."
WRONG = "A red bus, and nothing else, is standing in front of an old yellow house."
STREAMED = ("--ram", "426MiB", "--context", "256")
"""384 MiB of it are left for other programs."""


def ask_demo(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    words = ["demo", str(PICTURE), "What is in the picture?", "--device", "cpu", "--json"]
    assert main([*words, *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("budget", [(), STREAMED], ids=["resident", "streamed"])
@pytest.mark.parametrize("sampling", [(), ("--temperature", "0.8", "--seed", "5")])
def test_no_draft_changes_an_answer(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    budget: tuple[str, ...],
    sampling: tuple[str, ...],
) -> None:
    plain = ask_demo(capsys, "--speculation", "off", *sampling)
    expected = plain[-1]
    assert (expected["draft_tokens"], expected["accepted_tokens"]) == (0, 0)
    if not sampling:
        assert expected["text"].strip() == ANSWER
    drafts = {
        "right": expected["text"],
        "nearly": with_wrong_letters(expected["text"], 0.1, 1),
        "wrong": WRONG,
    }
    accepted = {}
    for name, text in drafts.items():
        file = tmp_path / f"{name}.txt"
        file.write_text(text)
        events = ask_demo(capsys, "--draft-text", str(file), *budget, *sampling)
        assert any(event["event"] == "streaming" for event in events) == bool(budget)
        assert (events[-1]["text"], events[-1]["token_ids"]) == (
            expected["text"],
            expected["token_ids"],
        )
        accepted[name] = events[-1]["accepted_tokens"]
    assert accepted["right"] > len(expected["token_ids"]) / 2 > accepted["wrong"]


@pytest.fixture(scope="module")
def demo() -> Model:
    return load("demo", device="cpu")


@pytest.mark.parametrize(
    "draft",
    [
        "A yellow\ud800 cross",
        "<|end_of_text|> A yellow cross<|end_of_text|>",
        "A yellow cross, " * 20_000,
        "\0\x01\x7f\u202e\ufeff\u0301",
        "🟨✝️🏳️‍🌈 黄色的十字",
        " ",
    ],
)
def test_a_strange_draft_changes_nothing(demo: Model, draft: str) -> None:
    *_, last = demo.answer("What is in the picture?", PICTURE, draft_text=draft)
    assert isinstance(last, Finished)
    assert last.text.strip() == ANSWER
