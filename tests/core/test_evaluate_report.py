"""The report of a run: what it says, and that questions and answers stay text in it."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.evaluate.paired import compare_runs
from cogvlm2_lite.evaluate.report import HTML, MARKDOWN, write_report
from cogvlm2_lite.evaluate.tables import Result, score_lines
from cogvlm2_lite.evaluate.totals import ItemScore, Part
from tests.helpers.evaluations import (
    PAIRED,
    UNDECIDED,
    Drawn,
    answered,
    data,
    item,
    score,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "</dd></dl><img src=x onerror=alert(1)>",
    "]]><style>*{display:none}</style>",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) `x` https://evil.example",
    "| a | b |\n|---|---|\n# Title\n\n---\n<b>x</b>",
    "\u202egnp.exe\u202c \x00\x1b[31m red \ud800",
)
HARMLESS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "section", "div",
    "span", "b", "br", "dl", "dt", "dd", "img", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def write(folder: Path, *values: Any, **others: Any) -> None:
    write_report(folder, result_of(*values, **others))


def lines_of(*values: Any, **others: Any) -> list[str]:
    return score_lines(result_of(*values, **others))


def result_of(*values: Any, **others: Any) -> Result:
    names = ("data", "items", "answers", "score")
    return Result(**dict(zip(names, values, strict=True)), **others)


def read(folder: Path) -> tuple[Page, str]:
    html = (folder / HTML).read_text(encoding="utf-8")
    return Page(html), (folder / MARKDOWN).read_text(encoding="utf-8")


def test_a_report_shows_the_score_its_interval_and_how_it_was_measured(tmp_path: Path) -> None:
    items = [item(n) for n in range(10)]
    every = data("textvqa", items)
    answers = {i.id: answered(i, "x") for i in items[:4]}
    found = score(every, answers, ["0", "1", "2"], beside={"vlmevalkit": 70.0})
    write(
        tmp_path, every, items[:5], answers, found, protocol="vlmevalkit", model="/m/my-nf4", seed=7
    )
    page, markdown = read(tmp_path)
    lines = "\n".join(
        lines_of(every, items[:5], answers, found, protocol="vlmevalkit", model="my-nf4", seed=7)
    )
    for text in (page.text, markdown.replace("\\", ""), lines):
        assert "75.0 points" in text
        assert "95 % interval 70.0 to 80.0" in text
        assert "vlmevalkit" in text
        assert "84.2" in text
        assert "published, protocol unknown" in text.lower()
        assert "4 of 10 questions, a subset chosen with seed 7" in text
        assert "1 of the chosen 5 have no answer yet" in text
        assert "discipline" in text
        assert "Art" in text


def test_only_the_number_of_the_model_that_a_folder_was_made_from_is_shown(tmp_path: Path) -> None:
    every = data("docvqa", [item(0)])
    answers = {"0": answered(every.items[0], "x")}
    found = score(every, answers, ["0"])
    for model, shown in (
        ("cogvlm2-llama3-chinese-chat-19B-nf4", [False, True]),
        ("cogvlm2-llama3-chat-19B-int4", [True, False]),
        ("mine", [True, True]),
    ):
        text = "\n".join(lines_of(every, every.items, answers, found, protocol="p", model=model))
        assert [number in text for number in ("92.3", "88.4")] == shown


def test_a_comparison_shows_who_was_right_the_loss_and_the_verdict(tmp_path: Path) -> None:
    every = data("mmmu", [item(0)])
    answers = {"0": answered(every.items[0], "x")}
    found = score(every, answers, ["0"])
    kl = Measured(value=0.0123, low=0.01, high=0.02)
    for paired, wanted in (
        (PAIRED, ["A loss is shown.", "+1.6 points, 95 % interval 0.0 to +3.5", "p = 0.049"]),
        (UNDECIDED, ["Not decided with 500 questions.", "About 4321 questions", "shows no gain"]),
    ):
        write(
            tmp_path, every, every.items, answers, found, protocol="vlmevalkit", model="nf4",
            paired=paired, other="bf16", kl=kl,
        )  # fmt: skip
        page, markdown = read(tmp_path)
        lines = lines_of(
            every, every.items, answers, found, protocol="vlmevalkit", model="nf4",
            paired=paired, other="bf16", kl=kl,
        )  # fmt: skip
        for text in (page.text, markdown, "\n".join(lines)):
            for words in (
                *wanted, "both right", "only bf16 right", "both wrong", "184",
                "18.3 % of the answers have another text", "0.01230 nats per token",
            ):  # fmt: skip
                assert words in text


def test_the_names_follow_which_model_is_the_reference() -> None:
    every = data("mmmu", [item(0)])
    answers = {"0": answered(every.items[0], "x")}
    found = score(every, answers, ["0"])
    for is_reference in (False, True):
        model, other = ("/a/bf16", "/b/nf4") if is_reference else ("/b/nf4", "/a/bf16")
        lines = lines_of(
            every, every.items, answers, found, protocol="p", model=model, other=other,
            paired=PAIRED, is_reference=is_reference,
        )  # fmt: skip
        text = "\n".join(lines)
        assert "Loss of nf4 against bf16: +1.6 points" in text
        assert "Scores: 60.8 and 62.4" in text
        assert re.search(r"only bf16 right +12\n +only nf4 right +4", text)


def test_wrong_answers_stand_beside_their_pictures_spread_over_all(tmp_path: Path) -> None:
    items = [item(n, answers=("yes", "yes", "no")) for n in range(60)]
    items[0] = item(0, pictures=(Drawn("damaged", None),))
    every = data("textvqa", items)
    answers = {i.id: answered(i, f"wrong {i.id}") for i in items}
    write(
        tmp_path, every, items, answers, score(every, answers, ["1", "4"]), protocol="p", model="m"
    )
    page, markdown = read(tmp_path)
    pictures = [values["src"] or "" for tag, values in page.tags if tag == "img"]
    assert len(pictures) == 19
    assert "20 of 58, evenly spread over the questions." in page.text
    assert "The picture can't be shown." in page.text
    assert "yes | no" in page.text
    assert re.findall(r"Question (\d+):", markdown)[-1] == "57"
    image = Image.open(io.BytesIO(base64.b64decode(pictures[0].partition(",")[2])))
    assert image.size == (480, 270)
    assert (tmp_path / HTML).stat().st_size < 3_000_000


def test_one_rotation_stands_for_a_group_and_options_are_shown(tmp_path: Path) -> None:
    items = [
        item(n, group=str(n % 3), options={"A": "duck", "B": "frog"}, answers=("B",))
        for n in range(6)
    ]
    every = data("mmbench", items)
    answers = {i.id: answered(i, "A") for i in items}
    found = score(every, answers, [], items={i.id: ItemScore(score=0.0, read="A") for i in items})
    write(tmp_path, every, items, answers, found, protocol="p", model="m")
    page, _ = read(tmp_path)
    assert page.text.count("Read as") == 3
    assert "B. frog" in page.text
    assert "3 of 6" in page.text


def test_answers_that_were_cut_or_failed_are_listed(tmp_path: Path) -> None:
    items = [item(n) for n in range(30)]
    every = data("textvqa", items)
    answers = {i.id: answered(i, f"long {i.id}", reason="length") for i in items[:25]}
    answers |= {i.id: answered(i, "", error="The picture is damaged.") for i in items[25:]}
    found = score(every, answers, list(answers), counts={"errors": 5, "token_limit": 25})
    write(tmp_path, every, items, answers, found, protocol="p", model="m")
    page, markdown = read(tmp_path)
    for text in (page.text, markdown):
        assert "The first 20 of 25." in text
        assert "long 19" in text
        assert "long 20" not in text
        assert text.count("The picture is damaged.") == 5
        assert "reached the token limit" in text


def test_mm_vet_without_grades_is_answered_and_not_graded(tmp_path: Path) -> None:
    every = data("mmvet", [item(n) for n in range(3)])
    answers = {i.id: answered(i, "x") for i in every.items}
    found = score(every, answers, [], value=None, low=None, high=None, parts=(), items={})
    lines = lines_of(every, every.items, answers, found, protocol="p", model="m")
    assert lines[0] == "MM-Vet: 3 answered, not graded (needs a GPT-4 judge)"
    write(tmp_path, every, every.items, answers, found, protocol="p", model="m")
    page, markdown = read(tmp_path)
    assert "not graded" in page.text
    assert "Wrong answers" not in page.text + markdown
    assert "points" not in page.text


def test_answers_without_grades_are_compared_by_their_words_only(tmp_path: Path) -> None:
    every = data("mmvet", [item(n) for n in range(4)])
    answers = {i.id: answered(i, "x") for i in every.items}
    other = answers | {"0": answered(every.items[0], "y")}
    found = score(every, answers, [], value=None, low=None, high=None, parts=(), items={})
    write(
        tmp_path, every, every.items, answers, found, protocol="p", model="m", other="bf16",
        paired=compare_runs(every, every.items, answers, other),
    )  # fmt: skip
    page, markdown = read(tmp_path)
    for text in (page.text, markdown):
        assert "Not graded." in text
        assert "25.0 % of the answers have another text." in text
        assert "Loss of" not in text
        assert "Question by question" not in text


def test_without_a_complete_question_there_is_no_score_yet(tmp_path: Path) -> None:
    every = data("mmbench", [item(0)])
    answers = {"0": answered(every.items[0], "A")}
    found = score(every, answers, [], value=None, low=None, high=None, parts=(), items={})
    write(tmp_path, every, every.items, answers, found, protocol="p", model="m")
    page, markdown = read(tmp_path)
    for text in (page.text, markdown):
        assert "no score yet" in text
        assert "GPT-4" not in text


def test_a_part_of_ocrbench_is_never_shown_as_hits_of_1000() -> None:
    every = data("ocrbench", [item(n) for n in range(10)])
    answers = {i.id: answered(i, "x") for i in every.items[:4]}
    found = score(
        every, answers, ["0", "1", "2"], unit="hits", hits=3, estimate=(750.0, 420.0, 930.0),
        parts=(Part(name="Scene", value=75.0, asked=4, kind="category", hits=3),),
    )  # fmt: skip
    lines = lines_of(every, every.items[:4], answers, found, protocol="p", model="m")
    assert lines[0] == (
        "OCRBench: 3 of 4 right, estimate of all 1000: 750, 95 % interval 420 to 930"
    )
    assert any(re.fullmatch(r"  Scene +3 +4", line) for line in lines)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_text(tmp_path: Path, text: str) -> None:
    hostile = item(0, question=text, hint=text, answers=(text,), options={"A": text})
    limit, failed = item(1, id=text), item(2, labels={"category": text})
    every = data("mmbench", [hostile, limit, failed], name="mmbench")
    answers = {
        "0": answered(hostile, text),
        text: answered(limit, text, reason="length"),
        "2": answered(failed, "", error=text),
    }
    found = score(
        every, answers, [], beside={text: 1.0}, judge=text,
        parts=(Part(name=text, value=1.0, asked=1, kind="category"),),
    )  # fmt: skip
    write(
        tmp_path, every, every.items, answers, found, protocol="p", model=f"/m/{text}",
        paired=PAIRED, other=text,
    )  # fmt: skip
    page, markdown = read(tmp_path)
    assert {tag for tag, _ in page.tags} <= HARMLESS
    for tag, values in page.tags:
        assert not {name for name in values if name.startswith("on") or name == "href"}
        if tag == "img":
            assert (values["src"] or "").startswith("data:image/jpeg;base64,")
    policy = next(v["content"] for t, v in page.tags if t == "meta" and "http-equiv" in v)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    rendered = Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
    allowed = {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
    assert {tag for tag, _ in rendered.tags} <= allowed
    for shown in (page.text, rendered.text):
        assert not re.search(r"[\x00\x1b\u202e\ud800]", shown)
        assert "display:none" in shown or "display:none" not in text
    lines = lines_of(
        every, every.items, answers, found, protocol="p", model="m", paired=PAIRED, other=text
    )
    assert all("\n" not in line for line in lines)


def test_a_long_answer_is_shortened(tmp_path: Path) -> None:
    every = data("textvqa", [item(0)])
    answers = {"0": answered(every.items[0], "x" * 50_000)}
    write(tmp_path, every, every.items, answers, score(every, answers, []), protocol="p", model="m")
    page, _ = read(tmp_path)
    assert "… (50000 characters)" in page.text
    assert len(page.text) < 8000


def test_a_report_is_made_anew_and_a_persons_file_is_kept(tmp_path: Path) -> None:
    every = data("textvqa", [item(0)])
    answers = {"0": answered(every.items[0], "x")}
    (tmp_path / HTML).write_text("mine")
    for right in ([], ["0"]):
        write(
            tmp_path, every, every.items, answers, score(every, answers, right), protocol="p",
            model="m",
        )  # fmt: skip
    assert (tmp_path / HTML).read_text() == "mine"
    assert "100.0 points" in (tmp_path / MARKDOWN).read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "report-2.html", "report-3.html", "report.html", "report.md",
    ]  # fmt: skip


def test_a_folder_that_cant_be_written_is_one_sentence(tmp_path: Path) -> None:
    every = data("textvqa", [item(0)])
    (tmp_path / "file").write_text("")
    with pytest.raises(CogVLM2LiteError, match="can't be written") as caught:
        write(
            tmp_path / "file", every, every.items, {}, score(every, {}, []), protocol="p", model="m"
        )
    assert "The answers are kept" in caught.value.hint
