"""`cogvlm2-lite chat`: several turns, one picture per conversation, nothing lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from cogvlm2_lite.cli.chat import main
from cogvlm2_lite.cli.interrupts import stopped_by_interrupt
from cogvlm2_lite.cli.words import dropped_path, file_in
from cogvlm2_lite.errors import PromptTooLongError, UsageError
from cogvlm2_lite.events import Cancel
from tests.helpers.pages import save_three_pages
from tests.helpers.scripted_model import ScriptedModel

Capture = pytest.CaptureFixture[str]
Line = str | type[BaseException]


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    Image.new("RGB", (30, 20), (255, 0, 0)).save(path)
    return str(path)


@pytest.fixture
def other(tmp_path: Path) -> str:
    path = tmp_path / "other photo.png"
    Image.new("RGB", (40, 20), (0, 0, 255)).save(path)
    return str(path)


def typing(lines: Iterable[Line]) -> Callable[[str], str]:
    """A person who types these lines, then presses Ctrl-D."""
    waiting: Iterator[Line] = iter(lines)

    def read_line(prompt: str) -> str:
        line = next(waiting, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return read_line


def chat(lines: Iterable[Line], *options: str, model: ScriptedModel | None = None) -> ScriptedModel:
    model = model or ScriptedModel([" First answer. ", " Second answer."])
    assert main([os.devnull, *options], load=model.load, read_line=typing(lines)) == 0
    return model


def test_turns_build_a_history_about_one_picture(photo: str, capsys: Capture) -> None:
    model = chat(["What is this?", "", "And why?"], "--image", photo)
    assert capsys.readouterr().out == "First answer. \nSecond answer.\n"
    assert [a.history for a in model.asked] == [[], [("What is this?", "First answer.")]]
    assert all(a.image is not None and a.image.name == "photo.png" for a in model.asked)


@pytest.mark.parametrize("option", ["--temperature=500", "--top-p=0", "--repetition-penalty=0"])
def test_values_out_of_range_are_refused_before_the_model_is_loaded(option: str) -> None:
    model = ScriptedModel()
    with pytest.raises(UsageError):
        chat([], option, model=model)
    assert model.loaded == []


def test_a_chat_may_have_no_picture() -> None:
    assert chat(["Hello"]).asked[0].image is None


def test_a_first_picture_joins_the_conversation(photo: str, capsys: Capture) -> None:
    model = chat(["Hello", f"/image {photo}", "What is this?"])
    assert model.asked[1].image is not None
    assert model.asked[1].history == [("Hello", "First answer.")]
    assert "photo.png, 30 x 20 PNG" in capsys.readouterr().err


def test_a_second_picture_starts_a_new_conversation_and_says_why(
    photo: str, other: str, capsys: Capture
) -> None:
    model = chat(["What?", f"/image {other}", "And this?"], "--image", photo)
    assert model.asked[1].history == []
    assert model.asked[1].image is not None
    assert model.asked[1].image.width == 40
    assert "one picture per conversation" in capsys.readouterr().err


def test_a_page_is_named_and_another_one_can_be_chosen(tmp_path: Path, capsys: Capture) -> None:
    scan = str(save_three_pages(tmp_path))
    model = chat(
        ["What?", "/page", "/page 3", "And here?", "/page 4", "/page x", "/page"], "--image", scan
    )
    err = capsys.readouterr().err
    assert [a.image.page for a in model.asked if a.image is not None] == [1, 3]
    assert model.asked[1].history == []
    assert "scan.tif, 30 x 20 TIFF, page 1 of 3" in err
    assert err.count("This is page 1 of 3") == 1
    assert "Page 1 of 3." in err
    assert "takes one picture per conversation" in err
    assert "page 4 can't be read" in err
    assert "x is not the number of a page" in err
    assert err.rstrip().endswith("Page 3 of 3.")
    for name in ("a.md", "a.json"):
        chat(["What?", f"/save {tmp_path / name}"], "--image", scan, "--page", "2")
    assert "TIFF, page 2 of 3, sha256" in (tmp_path / "a.md").read_text()
    saved = json.loads((tmp_path / "a.json").read_text())["conversations"][0]["picture"]
    assert (saved["page"], saved["pages"]) == (2, 3)
    first = chat(["What?"], "--image", scan, "--page", "2").asked[0].image
    assert first is not None
    assert first.page == 2


def test_a_page_needs_a_picture(capsys: Capture) -> None:
    with pytest.raises(UsageError, match="needs a picture"):
        chat([], "--page", "2")
    chat(["/page 2"])
    assert "There is no picture yet." in capsys.readouterr().err


def test_a_picture_may_be_changed_before_anything_is_asked(
    photo: str, other: str, capsys: Capture
) -> None:
    model = chat([f"/image {other}", "What?"], "--image", photo)
    assert model.asked[0].image is not None
    assert model.asked[0].image.width == 40
    assert "one picture per conversation" not in capsys.readouterr().err


def test_the_same_picture_again_changes_nothing(photo: str, capsys: Capture) -> None:
    model = chat(["What?", f"/image {photo}", "Why?"], "--image", photo)
    assert len(model.asked[1].history) == 1
    assert "already about photo.png" in capsys.readouterr().err


def test_a_file_dropped_on_the_window_is_opened(other: str, capsys: Capture) -> None:
    escaped = other.replace(" ", "\\ ") if os.name != "nt" else other
    model = chat([f"'{other}'", "What?", f"{escaped}"])
    assert model.asked[0].image is not None
    assert "already about other photo.png" in capsys.readouterr().err


def test_clear_forgets_the_turns_and_keeps_the_picture(photo: str) -> None:
    model = chat(["What?", "/clear", "Why?"], "--image", photo)
    assert model.asked[1].history == []
    assert model.asked[1].image is not None


def test_a_bad_picture_leaves_the_conversation_as_it_was(photo: str, capsys: Capture) -> None:
    model = chat(["What?", "/image gone.png", "Why?"], "--image", photo)
    assert len(model.asked[1].history) == 1
    assert "There is no file 'gone.png'" in capsys.readouterr().err


def test_an_error_of_the_model_does_not_end_the_chat(capsys: Capture) -> None:
    model = ScriptedModel([PromptTooLongError("Too long.", hint="Shorten it."), " Fine."])
    chat(["long", "short"], model=model)
    shown = capsys.readouterr()
    assert "Error: Too long.\n  Shorten it.\n" in shown.err
    assert shown.out == "Fine.\n"
    assert model.asked[1].history == []


def test_ctrl_c_stops_the_answer_and_not_the_program(capsys: Capture) -> None:
    model = ScriptedModel([" one two three", " next"])
    words = 0

    def press_after_two() -> None:
        nonlocal words
        words += 1
        if words == 3:
            signal.raise_signal(signal.SIGINT)

    model.during = press_after_two
    before = signal.getsignal(signal.SIGINT)
    chat(["count", "go on"], model=model)
    shown = capsys.readouterr()
    assert shown.out == "one\nnext\n"
    assert "(stopped)" in shown.err
    assert model.asked[1].history == [("count", "one")]
    assert signal.getsignal(signal.SIGINT) == before


def test_an_answer_stopped_before_its_first_word_is_no_turn() -> None:
    model = ScriptedModel([" never", " next"])
    pressed: list[bool] = []

    def press_once() -> None:
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    model.during = press_once
    chat(["a", "b"], model=model)
    assert model.asked[1].history == []


def test_a_second_ctrl_c_interrupts_for_real() -> None:
    cancel = Cancel()
    with stopped_by_interrupt(cancel):
        signal.raise_signal(signal.SIGINT)
        assert cancel.is_set
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_at_the_prompt_says_how_to_leave(capsys: Capture) -> None:
    model = chat([KeyboardInterrupt, "still here"])
    assert len(model.asked) == 1
    assert "/quit or Ctrl-D" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["/quit", "/exit"])
def test_quit_leaves(word: str) -> None:
    assert chat([word, "never asked"]).asked == []


def test_help_names_every_command(capsys: Capture) -> None:
    chat(["/help"])
    shown = capsys.readouterr().err
    for command in ("/image", "/clear", "/save", "/plan", "/help", "/quit"):
        assert command in shown


def test_an_unknown_command_is_answered_with_the_nearest(capsys: Capture) -> None:
    model = chat(["/iamge x.png", "/xyzzy"])
    shown = capsys.readouterr().err
    assert "Unknown command /iamge." in shown
    assert "Did you mean /image?" in shown
    assert "/help lists the commands" in shown
    assert model.asked == []


def test_the_plan_can_be_seen(capsys: Capture) -> None:
    chat(["/plan"])
    assert "language expert" in capsys.readouterr().err


def test_save_writes_all_conversations_of_the_session(
    photo: str, other: str, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "my chat.json"
    chat(["What?", f"/image {other}", "这是什么?", f"/save {target}"], "--image", photo)
    saved = json.loads(target.read_text(encoding="utf-8"))
    names = [c["picture"]["name"] for c in saved["conversations"]]
    assert names == ["photo.png", "other photo.png"]
    turn = saved["conversations"][1]["turns"][0]
    assert (turn["question"], turn["answer"]) == ("这是什么?", "Second answer.")
    assert turn["asked_at"][10] == "T"
    assert turn["reason"] == "eos"
    assert "Saved 2 turns" in capsys.readouterr().err
    assert list(tmp_path.glob("*.part")) == []


def test_markdown_names_the_speakers_and_the_picture(photo: str, tmp_path: Path) -> None:
    target = tmp_path / "chat.md"
    chat(["What?", f"/save {target}"], "--image", photo)
    text = target.read_text(encoding="utf-8")
    for part in ("## photo.png", "**You**", "What?", "First answer."):
        assert part in text


def test_saving_again_replaces_only_a_file_of_this_session(tmp_path: Path, capsys: Capture) -> None:
    mine, foreign = tmp_path / "mine.md", tmp_path / "foreign.md"
    foreign.write_text("precious", encoding="utf-8")
    chat(["a", f"/save {mine}", "b", f"/save {mine}", f"/save {foreign}"])
    assert mine.read_text(encoding="utf-8").count("**You**") == 2
    assert foreign.read_text(encoding="utf-8") == "precious"
    assert "already exists and is not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("/save", "needs a file name"),
        ("/save chat.txt", "must end in .md or .json"),
        ("/save no/such/folder/chat.md", "can't be written"),
    ],
)
def test_a_chat_that_can_not_be_saved_says_why_and_goes_on(
    line: str, part: str, capsys: Capture
) -> None:
    model = chat(["a", line, "b"])
    assert part in capsys.readouterr().err
    assert len(model.asked) == 2


def test_nothing_to_save_is_said(tmp_path: Path, capsys: Capture) -> None:
    chat([f"/save {tmp_path / 'chat.md'}"])
    assert "nothing to save" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_paths_are_read_as_terminals_write_them() -> None:
    assert dropped_path(" 'my photo.png' ") == Path("my photo.png")
    assert dropped_path('"my photo.png"') == Path("my photo.png")
    assert dropped_path("my photo.png") == Path("my photo.png")
    assert dropped_path("it's.png") == Path("it's.png")
    assert dropped_path("file:///a/b%20c.png") == Path("/a/b c.png")
    assert dropped_path("file:///C:/b%20c.png") == Path("C:/b c.png")
    assert dropped_path("~/a.png") == Path.home() / "a.png"


@pytest.mark.skipif(os.name == "nt", reason="a backslash is part of a path there")
def test_backslashes_of_a_dropped_path_are_taken_away() -> None:
    assert dropped_path("/a/my\\ photo\\(1\\).png") == Path("/a/my photo(1).png")
    assert dropped_path("a\\ b's.png") == Path("a b's.png")


def test_questions_are_not_mistaken_for_files() -> None:
    for line in ("What is in a/b?", "/image x", "x/" * 3000, "a/\0", "~nobody-here/x"):
        assert file_in(line) is None


ADAPTERS = ("--adapter", "invoices=runs/1", "--adapter", "runs/captions:0.5")


def test_an_adapter_is_chosen_and_named_in_the_transcript(tmp_path: Path, capsys: Capture) -> None:
    for name in ("a.md", "a.json"):
        lines = ["one", "/adapter captions", "two", "/adapter base", "three", "/adapter"]
        model = chat([*lines, f"/save {tmp_path / name}"], *ADAPTERS)
        assert [asked.adapter for asked in model.asked] == ["invoices", "captions", None]
        assert [len(asked.history) for asked in model.asked] == [0, 1, 2]
    shown = capsys.readouterr().err
    assert shown.count("Adapter: invoices (of base, invoices, captions)") == 2
    assert shown.count("Adapter: base (of base, invoices, captions)") == 4
    text = (tmp_path / "a.md").read_text("utf-8")
    for head in ("**null:invoices**", "**null:captions**", "**null**"):
        assert head in text
    (conversation,) = json.loads((tmp_path / "a.json").read_text("utf-8"))["conversations"]
    found = [turn.get("adapter") for turn in conversation["turns"]]
    assert found == ["invoices", "captions", None]


def test_a_name_of_no_adapter_changes_nothing(capsys: Capture) -> None:
    model = chat(["/adapter nobody", "one", "/adapters"], *ADAPTERS)
    assert model.asked[0].adapter == "invoices"
    shown = capsys.readouterr().err
    assert "There is no adapter 'nobody'." in shown
    assert "Choose one of base, invoices, captions." in shown
    assert "Did you mean /adapter?" in shown
    assert chat(["/adapter", "/adapter base", "one"]).asked[0].adapter is None
    assert "No adapter is loaded" in capsys.readouterr().err
