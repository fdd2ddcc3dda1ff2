"""`cogvlm2-lite ask`: one question, for people and for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cogvlm2_lite.cli.answers import AnswerView
from cogvlm2_lite.cli.ask import main, split_words
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.errors import CheckpointError, ImageError, PromptTooLongError, UsageError
from cogvlm2_lite.events import (
    Event,
    Finished,
    FinishReason,
    Notice,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TurnsDropped,
)
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, MIB
from tests.helpers.pages import COLORS, save_three_pages
from tests.helpers.scripted_model import ScriptedModel, Terminal

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "my photo.png"
    image = Image.new("RGB", (30, 20), (255, 0, 0))
    image.paste("white", (20, 10, 30, 20))
    image.save(path)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def test_a_file_name_that_looks_like_an_option_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-photo.png").touch()
    for name, hint in (("-photo.png", "write ./-photo.png"), ("-x", "See `cogvlm2-lite ask")):
        with pytest.raises(UsageError, match="has no option") as caught:
            main(["demo", name, "What?"])
        assert hint in caught.value.hint


def test_the_answer_and_nothing_else_goes_to_standard_output(
    folder: str, photo: str, capsys: Capture
) -> None:
    model = ScriptedModel()
    assert main([folder, photo, "What is this?"], load=model.load) == 0
    shown = capsys.readouterr()
    assert shown.out == "A red bus.\n"
    assert shown.err == ""
    asked = model.asked[0]
    assert asked.question == "What is this?"
    assert asked.image is not None
    assert asked.image.name == "my photo.png"
    assert asked.history == []
    assert model.loaded[0].folder == Path(folder)


def test_what_was_chosen_otherwise_than_asked_is_told(
    folder: str, photo: str, capsys: Capture
) -> None:
    model = ScriptedModel(remarks=["7 GiB are free: planned with what is free."])
    options = ["--vram", "30GiB", "--ram", "8GiB", "--context", "4096", "--offload", "never"]
    main([folder, photo, "What?", *options], load=model.load)
    assert "planned with what is free" in capsys.readouterr().err
    loaded = model.loaded[0]
    assert (loaded.vram, loaded.ram) == ("30GiB", "8GiB")
    assert (loaded.context, loaded.offload) == (4096, "never")
    main([folder, photo, "What?", "--json"], load=model.load)
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["remarks"] == list(model.remarks)


def test_a_person_sees_progress_and_timings(
    folder: str, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("WT_SESSION", "x")
    out, err = Terminal(), Terminal()
    main([folder, photo, "What?"], load=ScriptedModel().load, console=Console(out, err))
    assert out.getvalue() == "A red bus.\n"
    assert "Encoding the picture 1/2" in err.getvalue()
    assert "picture 1.50 s" in err.getvalue()
    assert "prompt 21 tokens in 0.25 s" in err.getvalue()
    assert "answer 5 tokens at 2.0/s" in err.getvalue()


def end_of(text: str) -> Finished:
    return Finished(
        text=text, reason=FinishReason.EOS, prompt_tokens=1, image_tokens=0, completion_tokens=1,
        encode_s=0.0, prefill_s=0.0, decode_s=0.0,
    )  # fmt: skip


def test_a_token_that_takes_long_has_a_share_that_leaves_the_text_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("WT_SESSION", "x")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "5")
    slow = [Progress(phase="decode", done=done, total=32) for done in (8, 16)]
    ended = end_of("A red bus, far away,")
    words = ["A", " red", " bus, far away,"]
    events: list[Event] = [TextDelta(text=words[0]), *slow, TextDelta(text=words[1]), *slow]
    events += [TextDelta(text=words[2]), *slow, ended]  # " 25%" has no room in 20 columns now

    both = Terminal()  # the screen gets both
    AnswerView(Console(both, both), timings=False).show(iter(events))
    share = "\x1b7\x1b[K\x1b[2m {}%\x1b[0m\x1b8"
    shares = share.format(25) + share.format(50) + "\x1b[K"
    assert both.getvalue() == f"A{shares} red{shares} bus, far away,\n"

    monkeypatch.setenv("COLUMNS", "80")
    file, err = io.StringIO(), Terminal()
    AnswerView(Console(file, err), timings=False).show(iter(events))
    assert file.getvalue() == "A red bus, far away,\n"
    assert "Next token 16/32 (50%)" in err.getvalue()


def test_streamed_weights_are_told_once_and_memory_is_shown() -> None:
    out, err = Terminal(), Terminal()
    console = Console(out, err)
    told = Streaming(picture_bytes=3 * GIB, prompt_bytes=0, token_bytes=250 * MIB)
    going = Progress(phase="encode", done=21, total=63, held_bytes=5 * GIB)
    ended = end_of("Yes.")
    for _ in range(2):
        AnswerView(console, timings=False).show(iter([told, going, TextDelta(text="Yes."), ended]))
    assert err.getvalue().count("Not all weights fit in memory") == 1
    assert "3.00 GiB for each new picture, 250 MiB for each token" in err.getvalue()
    assert "Encoding the picture 21/63 (33%), 5.00 GiB in memory" in err.getvalue()


def test_loading_shows_the_share_and_the_memory_in_one_line(folder: str) -> None:
    class Warming(ScriptedModel):
        def warm_up(self) -> Iterator[Progress]:
            yield Progress(phase="load", done=8, total=32, held_bytes=GIB)

    out, err = Terminal(), Terminal()
    main([folder, "What?"], load=Warming().load, console=Console(out, err))
    assert "Loading the model 8/32 (25%), 1.00 GiB in memory" in err.getvalue()


def test_quiet_leaves_out_progress_and_timings(folder: str, photo: str) -> None:
    out, err = Terminal(), Terminal()
    model = ScriptedModel()
    main([folder, photo, "What?", "--quiet"], load=model.load, console=Console(out, err))
    assert out.getvalue() == "A red bus.\n"
    assert err.getvalue() == ""


def test_how_a_picture_was_read_is_told_once_and_not_in_the_answer(
    folder: str, tmp_path: Path, capsys: Capture
) -> None:
    scan = str(save_three_pages(tmp_path))
    model = ScriptedModel()
    assert main([folder, scan, "What?"], load=model.load) == 0
    shown = capsys.readouterr()
    assert shown.out == "A red bus.\n"
    assert shown.err.count("page 1 of 3") == 1
    assert main([folder, scan, "What?", "--page", "2"], load=model.load) == 0
    assert capsys.readouterr().err == ""
    assert main([folder, scan, "What?", "--quiet"], load=model.load) == 0
    assert capsys.readouterr().err == ""
    colors = [tuple(a.image.rgb[0, 0].tolist()) for a in model.asked if a.image is not None]
    assert colors == [COLORS[0], COLORS[1], COLORS[0]]


def test_json_has_the_page_and_the_notices(folder: str, tmp_path: Path, capsys: Capture) -> None:
    scan = str(save_three_pages(tmp_path))
    main([folder, scan, "What?", "--json"], load=ScriptedModel().load)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    opened = next(line for line in lines if line["event"] == "picture_opened")
    for line in (opened, lines[-1]):
        assert (line["page"], line["pages"]) == (1, 3)
        assert "page 1 of 3" in line["notices"][0]
        assert line["texts"]["notices"][0]["values"]["pages"] == 3
    main([folder, scan, "What?", "--json", "--page", "3"], load=ScriptedModel().load)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["page"], last["pages"], last["notices"]) == (3, 3, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["What?", "--page", "2"], "--page needs a picture"),
        (["scan.tif", "What?", "--page", "4"], "3 pages"),
        (["scan.tif", "What?", "--page", "0"], "from 1"),
    ],
)
def test_a_page_that_does_not_exist_is_refused_before_the_model_is_loaded(
    options: list[str], message: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_three_pages(tmp_path)
    monkeypatch.chdir(tmp_path)
    model = ScriptedModel()
    with pytest.raises((UsageError, ImageError), match=message):
        main([folder, *options], load=model.load)
    assert model.loaded == []


@pytest.fixture
def screenshot(tmp_path: Path) -> str:
    """A picture of 100 x 400 pixels with a bar of another color in each hundred rows."""
    path = tmp_path / "screenshot.png"
    image = Image.new("RGB", (100, 400), "white")
    for place, color in enumerate(("red", "lime", "blue", "black")):
        image.paste(color, (20, 100 * place + 30, 80, 100 * place + 70))
    image.save(path)
    return str(path)


def test_a_long_picture_is_asked_about_part_by_part(
    folder: str, screenshot: str, capsys: Capture
) -> None:
    model = ScriptedModel([" Red.", " Lime.", " Blue.", " Black.", " Five."])
    assert main([folder, screenshot, "Which color?", "--tiles"], load=model.load) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    count = len(model.asked)
    assert count in (4, 5)
    assert shown.out.startswith(f"part 1 of {count}\nRed.\npart 2 of {count}\nLime.\npart 3")
    assert {(a.image.width, a.image.height) for a in model.asked if a.image} == {(100, 100)}
    assert {a.question for a in model.asked} == {"Which color?"}
    one = ScriptedModel()
    assert main([folder, screenshot, "What?", "--tile", str(count)], load=one.load) == 0
    assert capsys.readouterr().out == f"part {count} of {count}\nA red bus.\n"
    assert [a.image.sha256 for a in one.asked if a.image] == [
        a.image.sha256 for a in model.asked[-1:] if a.image
    ]


def test_the_notice_of_an_extreme_shape_names_tiles(
    folder: str, screenshot: str, photo: str, capsys: Capture
) -> None:
    main([folder, screenshot, "What?"], load=ScriptedModel().load)
    err = capsys.readouterr().err
    assert "4 times as tall as wide" in err
    assert "--tiles asks about each of its" in err
    model = ScriptedModel()
    main([folder, photo, "What?", "--tiles"], load=model.load)
    assert capsys.readouterr().out == "A red bus.\n"
    assert model.asked[0].image is not None
    assert (model.asked[0].image.width, model.asked[0].image.height) == (30, 20)


def test_json_of_parts_names_the_part(folder: str, screenshot: str, capsys: Capture) -> None:
    main([folder, screenshot, "What?", "--json", "--tiles"], load=ScriptedModel().load)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ends = [line for line in lines if line["event"] == "finished"]
    assert [line["event"] for line in lines].count("loaded") == 1
    assert [(end["part"], end["parts"]) for end in ends] == [
        (number, len(ends)) for number in range(1, len(ends) + 1)
    ]
    assert all(end["notices"] == [] for end in ends)
    main([folder, screenshot, "What?", "--json"], load=ScriptedModel().load)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "part" not in last
    assert "as tall as wide" in last["notices"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["What?", "--tiles"], "--tiles needs a picture"),
        (["What?", "--tile", "2"], "--tile needs a picture"),
        (["screenshot.png", "What?", "--tile", "9"], "--tile must be between 1 and"),
        (["screenshot.png", "What?", "--tile", "0"], "--tile must be between 1 and"),
        (["my photo.png", "What?", "--tile", "2"], "--tile must be 1"),
        (["screenshot.png", "What?", "--tile", "2", "--tiles"], "not allowed with"),
    ],
)
def test_a_part_that_does_not_exist_is_refused_before_the_model_is_loaded(
    options: list[str],
    message: str,
    folder: str,
    screenshot: str,
    photo: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    model = ScriptedModel()
    with pytest.raises(UsageError, match=message):
        main([folder, *options], load=model.load)
    assert model.loaded == []


def test_without_a_picture_the_question_is_text_only(folder: str, capsys: Capture) -> None:
    model = ScriptedModel([" 4"])
    main([folder, "What is 2+2?"], load=model.load)
    assert model.asked[0].image is None
    assert capsys.readouterr().out == "4\n"


def test_options_may_stand_between_picture_and_question(folder: str, photo: str) -> None:
    model = ScriptedModel()
    main([folder, "--quiet", photo, "--top-k", "3", "What?"], load=model.load)
    assert model.asked[0].question == "What?"
    assert model.asked[0].image is not None


def test_a_picture_comes_from_standard_input(
    folder: str, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(Path(photo).read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    model = ScriptedModel()
    main([folder, "-", "What?"], load=model.load)
    assert model.asked[0].image is not None
    assert model.asked[0].image.width == 30


def test_every_option_reaches_the_model(folder: str, photo: str) -> None:
    model = ScriptedModel()
    options = (
        "--device cuda:1 --dtype float16 --rope exact --template vqa --max-new-tokens 7 "
        "--temperature 0.6 --top-p 0.9 --top-k 5 --repetition-penalty 1.1 --seed 3 --stop END "
        "--stop 。 --no-repetition-guard"
    )
    main([folder, photo, "What?", *options.split()], load=model.load)
    loaded = model.loaded[0]
    assert (loaded.device, loaded.dtype, loaded.rope) == ("cuda:1", "float16", "exact")
    assert model.asked[0].template == "vqa"
    sampling = model.asked[0].sampling
    assert sampling is not None
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (7, 0.6, 0.9)
    assert (sampling.top_k, sampling.repetition_penalty, sampling.seed) == (5, 1.1, 3)
    assert sampling.stop == ("END", "。")
    assert sampling.repetition_guard is False


def test_the_defaults_are_greedy_with_the_guard(folder: str) -> None:
    model = ScriptedModel()
    main([folder, "What?"], load=model.load)
    sampling = model.asked[0].sampling
    assert sampling is not None
    assert (sampling.temperature, sampling.seed, sampling.max_new_tokens) == (0.0, None, 2048)
    assert sampling.repetition_guard is True
    assert model.asked[0].template is None


def test_photographs_are_turned_upright_unless_told_otherwise(folder: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    model = ScriptedModel()
    main([folder, str(path), "What?"], load=model.load)
    main([folder, str(path), "What?", "--as-stored"], load=model.load)
    assert [a.image.width for a in model.asked if a.image] == [20, 30]


def test_json_prints_one_event_per_line(folder: str, photo: str, capsys: Capture) -> None:
    model = ScriptedModel([" 一辆红色的 bus"], extra=[TurnsDropped(count=2)])
    assert main([folder, photo, "What?", "--json"], load=model.load) == 0
    out = capsys.readouterr().out
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["event"] for e in events] == [
        "loaded", "turns_dropped", "progress", "image_encoded", "prefilled", "text_delta",
        "text_delta", "finished",
    ]  # fmt: skip
    assert events[0]["plan"]["peak_bytes"] == model.plan.peak_bytes
    assert events[-1]["text"] == " 一辆红色的 bus"
    assert events[-1]["reason"] == "eos"
    assert events[-1]["tokens_per_s"] == 2.0
    assert "一辆" in out  # readable, not escaped


def test_json_reports_an_error_as_an_event(folder: str, photo: str, capsys: Capture) -> None:
    model = ScriptedModel([PromptTooLongError("Too long.", hint="Shorten it.")])
    assert main([folder, photo, "What?", "--json"], load=model.load) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {
        "event": "error",
        "kind": "PromptTooLongError",
        "message": "Too long.",
        "hint": "Shorten it.",
        "param": None,
        "texts": {
            "message": {"template": "Too long.", "values": {}},
            "hint": {"template": "Shorten it.", "values": {}},
        },
    }


@pytest.mark.parametrize("mistake", [["--jsn"], ["--top-k", "many"], [""]])
def test_json_reports_a_mistake_in_the_options_as_an_event(
    folder: str, mistake: list[str], capsys: Capture
) -> None:
    assert main([folder, "What?", "--json", *mistake], load=ScriptedModel().load) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["kind"] == "UsageError"
    assert printed.err == ""


def test_the_plan_is_shown_on_request(folder: str, capsys: Capture) -> None:
    main([folder, "What?", "--show-plan"], load=ScriptedModel().load)
    assert "language expert" in capsys.readouterr().err


def test_notices_and_empty_answers_are_said(folder: str, capsys: Capture) -> None:
    model = ScriptedModel([""], extra=[TurnsDropped(count=1), Notice(text=Text("Something odd."))])
    main([folder, "What?"], load=model.load)
    shown = capsys.readouterr()
    assert "Something odd." in shown.err
    assert "the oldest turn was left out" in shown.err
    assert "answer is empty" in shown.err
    assert shown.out == ""


class Squeezed(ScriptedModel):
    """Runs out of memory before its first word and again after it."""

    def answer(self, *args: Any, **kwargs: Any) -> Iterator[Event]:
        for event in super().answer(*args, **kwargs):
            if isinstance(event, TextDelta):
                yield Replanned(text=Text("Before."), budget_bytes=(1,))
                yield event
                yield Replanned(text=Text("Amid."), budget_bytes=(1,))
            else:
                yield event


def test_a_new_plan_is_told_without_breaking_the_answer(folder: str) -> None:
    out = io.StringIO()
    main([folder, "What?"], load=Squeezed([" one"]).load, console=Console(out, out))
    assert out.getvalue() == "Before.\none\nAmid.\n"


def test_a_bad_picture_is_reported_before_the_model_is_loaded(folder: str) -> None:
    model = ScriptedModel()
    with pytest.raises(ImageError):
        main([folder, "gone.png", "What?"], load=model.load)
    assert model.loaded == []


def test_a_missing_model_folder_is_named() -> None:
    with pytest.raises(CheckpointError, match="nowhere") as caught:
        main(["nowhere/at/all", "What?"], load=ScriptedModel().load)
    assert "demo" in caught.value.hint


@pytest.mark.parametrize(
    "option", ["--temperature=-1", "--temperature=500", "--top-p=0", "--max-new-tokens=0"]
)
def test_values_out_of_range_are_refused_before_the_model_is_loaded(
    folder: str, option: str
) -> None:
    model = ScriptedModel()
    with pytest.raises(UsageError):
        main([folder, "What?", option], load=model.load)
    assert model.loaded == []


def test_words_are_told_apart(photo: str) -> None:
    assert split_words(["a.png", "What?"]) == ("a.png", "What?")
    assert split_words(["What is it?"]) == (None, "What is it?")
    assert split_words(["x" * 5000])[0] is None
    assert split_words(["a\0b"])[0] is None


@pytest.mark.parametrize(
    ("words", "part"),
    [(["a", "b", "c"], "3 arguments"), ([" "], "empty"), (["a.png", ""], "empty")],
)
def test_words_that_make_no_question_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        split_words(words)


def test_a_picture_without_a_question_is_noticed(photo: str) -> None:
    with pytest.raises(UsageError, match="no question about it"):
        split_words([photo])
