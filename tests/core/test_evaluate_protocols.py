"""Each protocol asks with the words of its source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.benchmarks import BENCHMARKS, CEILINGS, KNOWN_FILES, NAMES, PUBLISHED
from cogvlm2_lite.evaluate.find import find_data
from cogvlm2_lite.evaluate.items import Item
from cogvlm2_lite.evaluate.protocols import PROTOCOLS, Query, query

CHOICES = {"A": "x", "B": "N/A", "C": "y"}


def item(**values: object) -> Item:
    fields: dict[str, object] = {"id": "1", "group": "1", "question": "Which?", "answers": ("x",)}
    return Item(**(fields | values))  # type: ignore[arg-type]


def golden_queries(layouts: Path) -> Iterator[tuple[str, Item, str]]:
    expected = json.loads((layouts / "expected.json").read_text("utf-8"))["layouts"]
    for name, wanted in expected.items():
        if not any(one.get("query_vlmevalkit") for one in wanted["items"]):
            continue
        answered = not name.endswith("_test")
        data = find_data(wanted["benchmark"], layouts / wanted["path"], answers_needed=answered)
        for found, one in zip(data.items, wanted["items"], strict=True):
            if one["query_vlmevalkit"]:
                yield wanted["benchmark"], found, one["query_vlmevalkit"]


def test_the_default_asks_what_the_adapter_of_vlmevalkit_asks(layouts: Path) -> None:
    cases = list(golden_queries(layouts))
    assert len(cases) > 50
    for benchmark, found, text in cases:
        assert query(benchmark, found, "vlmevalkit") == Query(text, "chat")


LETTER = "Answer with the option's letter from the given choices directly."


@pytest.mark.parametrize(
    ("benchmark", "values", "protocol", "text", "template"),
    [
        ("textvqa", {}, "vlmevalkit-2024",
         "Which?\nPlease try to answer the question with short words or phrases if possible\n.",
         "chat"),
        ("docvqa", {}, "vqa-template", "Which?", "vqa"),
        ("ocrbench", {}, "vlmevalkit-2024", "Which?", "chat"),
        ("mmvet", {}, "vqa-template", "Which?", "chat"),
        ("mmbench", {"options": CHOICES}, "vlmevalkit-2024", f"Which?\nA. x\nC. y\n{LETTER}",
         "chat"),
        ("mmbench", {"options": CHOICES, "hint": "Look."}, "vqa-template",
         f"Look.\nWhich?\nA. x\nC. y\n{LETTER}\nShort Answer.", "chat"),
        ("mmbench_cn", {"options": {"A": "红", "B": "x"}}, "vlmevalkit-2024",
         "Which?\nA. 红\nB. x\n请直接回答选项字母。", "chat"),
        ("mmbench", {"options": CHOICES, "hint": "看\u3000图"}, "vlmevalkit",
         "看\u3000图\nWhich?\nA. x\nC. y\n请直接回答选项字母。\nShort Answer.", "chat"),
        ("mmbench", {"options": {"A": "x", "B": "あ。"}}, "vlmevalkit",
         f"Which?\nA. x\nB. あ。\n{LETTER}\nShort Answer.", "chat"),
        ("mmmu", {}, "vlmevalkit", f"Which?\n{LETTER}\nShort Answer.", "chat"),
        ("mmmu", {}, "vlmevalkit-2024", f"Which?\n{LETTER}", "chat"),
        ("mmmu", {}, "vqa-template",
         "Which?\n\nAnswer the question using a single word or phrase.", "chat"),
        ("mmmu", {"options": CHOICES}, "vqa-template",
         f"Which?\nA. x\nC. y\n{LETTER}\nShort Answer.", "chat"),
    ],
)  # fmt: skip
def test_other_protocols_ask_with_their_own_words(
    benchmark: str, values: dict[str, object], protocol: str, text: str, template: str
) -> None:
    assert query(benchmark, item(**values), protocol) == Query(text, template)  # type: ignore[arg-type]


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="Unknown protocol 'mine'"):
        query("textvqa", item(), "mine")


def test_every_benchmark_has_what_the_command_needs() -> None:
    assert set(CEILINGS) == set(BENCHMARKS)
    assert set(NAMES) == {*BENCHMARKS, "demo-vqa"} - {"vqa"}
    for known in KNOWN_FILES.values():
        assert known.benchmark in BENCHMARKS
        assert not known.instead or not KNOWN_FILES[known.instead].instead
        assert all(len(md5) == 32 for md5 in known.md5)
    for table in PUBLISHED.values():
        assert set(table) == set(BENCHMARKS) - {"vqa", "mmbench_cn"}
    assert PROTOCOLS[0] == "vlmevalkit"
