"""Draft texts as people have them: files of OCR programs and PDFs, pipes, and wrong files."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from cogvlm2_lite.batch.drafts import DraftTexts
from cogvlm2_lite.cli import ask, chat, evaluate, mcp, serve
from cogvlm2_lite.cli.answers import AnswerView
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import load_options
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import Finished, FinishReason
from cogvlm2_lite.inputs.draft_text import MAX_DRAFT_BYTES, open_draft_text
from tests.helpers.scripted_model import ScriptedModel, Terminal

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"Total: 12.50\r\nDue: 3 May\r\n\f",
            "Total: 12.50\nDue: 3 May",
        ),  # of tesseract on Windows
        (b"\n\n page one\n\fpage two\n\f", "page one\n\npage two"),
        ("\ufeff合计：12.50".encode(), "合计：12.50"),
        ("合计 12".encode("utf-16"), "合计 12"),
        (b"\f", ""),
        (b"", ""),
    ],
)
def test_the_text_of_a_file_is_read_as_programs_write_it(
    tmp_path: Path, data: bytes, expected: str
) -> None:
    file = tmp_path / "scan.txt"
    file.write_bytes(data)
    assert open_draft_text(file) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"%PDF-1.7\n1 0 obj", "not a text file in UTF-8. It is a PDF file. Extract"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "It is a picture (PNG)"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "It is a picture (JPEG)"),
        (b"PK\x03\x04\x14\0\x06\0", "Save it as plain text in UTF-8"),
        ("Größe".encode("latin-1"), "Save it as plain text in UTF-8"),
        ("合计".encode("utf-16")[:-1], "Save it as plain text in UTF-8"),
        (b"a" * (MAX_DRAFT_BYTES + 1), "has more than 1.00 MiB. Use only the text of this"),
    ],
)
def test_what_is_no_text_is_an_error_that_says_what_to_do(
    tmp_path: Path, data: bytes, message: str
) -> None:
    file = tmp_path / "scan.txt"
    file.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        open_draft_text(file)
    assert str(file) in caught.value.text
    assert message in caught.value.text


def test_a_file_that_can_not_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read: No such file"):
        open_draft_text(tmp_path / "missing.txt")
    with pytest.raises(UsageError, match="can't be read: Is a directory"):
        open_draft_text(tmp_path)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.png"
    Image.new("RGB", (30, 20), "red").save(path)
    path.with_suffix(".txt").write_text("A red bus.\n\f", encoding="utf-8")
    return path


def test_ask_gives_the_draft_of_a_file_or_of_a_pipe_to_the_model(
    scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, text = ScriptedModel(), str(scan.with_suffix(".txt"))
    folder = str(scan.parent)
    ask.main([folder, str(scan), "What?", "--draft-text", text], load=model.load)
    piped = io.TextIOWrapper(io.BytesIO("一辆红色巴士\n".encode()))
    monkeypatch.setattr("sys.stdin", piped)
    ask.main([folder, str(scan), "What?", "--draft-text", "-"], load=model.load)
    ask.main([folder, str(scan), "What?", "--speculation", "off"], load=model.load)
    assert [asked.draft_text for asked in model.asked] == ["A red bus.", "一辆红色巴士", ""]
    assert [options.speculation for options in model.loaded] == [True, True, False]


def test_a_draft_may_come_through_a_pipe_with_a_name(tmp_path: Path) -> None:
    reader, writer = os.pipe()  # as the shell's <(pdftotext scan.pdf -) is one
    os.write(writer, b"A blue bus.")
    os.close(writer)
    assert open_draft_text(Path(f"/dev/fd/{reader}")) == "A blue bus."
    os.close(reader)


def test_a_wrong_draft_ends_ask_and_chat_before_the_model_is_loaded(
    scan: Path, capsys: Capture
) -> None:
    model, folder = ScriptedModel(), str(scan.parent)
    for main in (ask.main, chat.main):
        words = [folder, "What?"] if main is ask.main else [folder]
        with pytest.raises(UsageError, match="is not a text file"):
            main([*words, "--draft-text", str(scan)], load=model.load)
    with pytest.raises(UsageError, match="both the picture and the draft"):
        ask.main([folder, "-", "What?", "--draft-text", "-"], load=model.load)
    with pytest.raises(UsageError, match="invalid choice: 'on'"):
        ask.main([folder, "What?", "--speculation", "on"], load=model.load)
    assert ask.main([folder, "What?", "--draft-text", "no.txt", "--json"], load=model.load)
    assert json.loads(capsys.readouterr().out)["message"].startswith("The draft text no.txt can")
    assert not model.loaded


def test_chat_has_the_draft_in_every_answer(scan: Path) -> None:
    model, lines = ScriptedModel(), iter(["What?", "Why?", "/quit"])
    text = str(scan.with_suffix(".txt"))
    chat.main(
        [str(scan.parent), "--draft-text", text],
        load=model.load,
        read_line=lambda _: next(lines),
    )
    assert [asked.draft_text for asked in model.asked] == ["A red bus."] * 2


def test_every_command_that_answers_can_turn_speculation_off(tmp_path: Path) -> None:
    parsers = {
        ask: ["m", "What?"], chat: ["m"], serve: ["m"], mcp: ["m"], evaluate: ["m", "textvqa"],
    }  # fmt: skip
    for command, words in parsers.items():
        parser = command.build_parser()
        for more, expected in (([], True), (["--speculation", "off"], False)):
            args = parser.read([*words, *more])
            args.parallel = 1
            assert load_options(args, tmp_path).speculation is expected


def test_the_line_of_timings_has_the_accepted_drafts() -> None:
    out = Terminal()
    ended = Finished(
        text="A", reason=FinishReason.EOS, prompt_tokens=1, image_tokens=0, completion_tokens=9,
        encode_s=0.0, prefill_s=0.0, decode_s=2.0, draft_tokens=8, accepted_tokens=6,
    )  # fmt: skip
    AnswerView(Console(out, out), timings=True).show(iter([ended]))
    assert "answer 9 tokens at 4.0/s · 6 of 8 draft tokens accepted" in out.getvalue()


def test_the_drafts_of_a_folder_are_found_by_either_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.txt", "a/2.png.txt", "3.txt", "4_ocr.txt"):
        (tmp_path / name).write_text(f"text of {name}\n\f")
    (tmp_path / "5.txt").write_bytes(b"%PDF-1.7")
    (tmp_path / "6.txt").mkdir()
    names = ("a/1.jpg", "a/2.png", "3.b.png", "4.png", "5.png", "6.png")
    drafts = DraftTexts.read(tmp_path, "txt")
    assert drafts.count(names) == 3
    assert drafts.of("a/1.jpg") == ("text of a/1.txt", ())
    assert drafts.of("a/2.png") == ("text of a/2.png.txt", ())
    for name in ("3.b.png", "4.png", "6.png"):
        assert drafts.of(name) == ("", ())
    text, (notice,) = drafts.of("5.png")
    assert text == ""
    assert "is a PDF file" in notice
    assert DraftTexts.read(tmp_path, "_ocr.txt").of("4.png")[0] == "text of 4_ocr.txt"
    for wrong in ("", " ", "sub/.txt", "..\\x.txt"):
        with pytest.raises(UsageError, match="must be the end of a file name"):
            DraftTexts.read(tmp_path, wrong)
