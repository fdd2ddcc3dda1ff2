"""A batch replaces no file that it did not write, and knows which answers stand."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cogvlm2_lite.batch.answered import Answered, WrittenText
from cogvlm2_lite.batch.saved import JSONL
from cogvlm2_lite.batch.table import CSV
from cogvlm2_lite.batch.texts import Existing, choose_names
from cogvlm2_lite.batch.work import Task, edit_answer, run_batch
from cogvlm2_lite.cli.batch import main
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import CogVLM2LiteError, DoesNotFitError, UsageError
from cogvlm2_lite.events import (
    TOO_LARGE_FOR_FLOAT16,
    Event,
    Finished,
    FinishReason,
    Notice,
    PictureOpened,
)
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.identity import identify_model
from cogvlm2_lite.worker.client import Outcome
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.worker_engine import FakeEngine

posix = pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux only")


def finished(text: str, reason: FinishReason = FinishReason.EOS) -> Finished:
    return Finished(
        text=text, reason=reason, prompt_tokens=1, image_tokens=1, completion_tokens=2,
        encode_s=0, prefill_s=0, decode_s=0,
    )  # fmt: skip


class Speaker(FakeEngine):
    """Answers every question with the same words, or with what `say` returns."""

    def __init__(self, say: Callable[[Ask], Finished] | str = "a cat") -> None:
        super().__init__()
        self.become_ready()
        self.events: tuple[Event, ...] = ()
        self.say = say if callable(say) else lambda ask: finished(say)

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        self.asked.append(ask)
        for event in self.events:
            deliver(event)
        deliver(self.say(ask))
        return ask.request


def picture(file: Path, shade: int = 0) -> bytes:
    """Write a small picture of one colour and return its bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(stream, "PNG")
    return file.read_bytes()


def batch(folder: Path, engine: Speaker, *options: str, question: str = "What?") -> int:
    """Run the command about a folder."""
    command = ["demo", str(folder), "--question", question, *options]
    return main(command, start=lambda _: nullcontext(engine))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / JSONL).read_bytes().splitlines()]


def table(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


# --- text files -----------------------------------------------------------------------------------


def test_a_persons_caption_is_kept_and_the_answer_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "mine.png")
    picture(tmp_path / "new.png", 1)
    (tmp_path / "mine.txt").write_bytes("我的猫\r\n".encode("gbk"))
    assert batch(tmp_path, Speaker()) == 0
    shown = capsys.readouterr().err
    assert "To ask: 2 of 2 pictures, 2 at once." in shown
    assert "did not write, or that were edited since: 1. They are kept" in shown
    assert (tmp_path / "mine.txt").read_bytes() == "我的猫\r\n".encode("gbk")
    assert (tmp_path / "new.txt").read_text() == "a cat\n"
    assert [line["answer"] for line in lines(tmp_path)] == ["a cat", "a cat"]
    assert [line["text"] and line["text"]["file"] for line in lines(tmp_path)] == [None, "new.txt"]


def test_skip_does_not_ask_where_a_caption_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "mine.png")
    picture(tmp_path / "new.png", 1)
    (tmp_path / "mine.txt").write_text("my cat")
    engine = Speaker()
    assert batch(tmp_path, engine, "--existing", "skip") == 0
    assert len(engine.asked) == 1
    assert (tmp_path / "mine.txt").read_text() == "my cat"
    (tmp_path / "only").write_text("mine.png")
    options = ("--existing", "skip", "--only", str(tmp_path / "only"))
    assert batch(tmp_path, Speaker(), *options) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "All pictures were skipped."


@posix
def test_a_persons_file_keeps_its_permissions(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("my cat")
    (tmp_path / "a.txt").chmod(0o640)
    batch(tmp_path, Speaker(), "--existing", "append")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("how", "before", "after"),
    [
        ("append", b"my cat", b"my cat\na cat\n"),
        ("append", b"my cat\n", b"my cat\na cat\n"),
        ("append", "\ufeff猫\r\n".encode(), "\ufeff猫\r\na cat\n".encode()),
        ("prepend", b"my cat\n", b"a cat\nmy cat\n"),
        ("prepend", "\ufeff猫".encode(), "\ufeffa cat\n猫".encode()),
        ("overwrite", b"my cat", b"a cat\n"),
        ("append", "猫".encode("utf-16"), "猫".encode("utf-16")),  # UTF-8 would destroy it
    ],
)
def test_an_answer_is_added_to_a_caption_once(
    tmp_path: Path, how: str, before: bytes, after: bytes
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(before)
    for _ in range(2):
        assert batch(tmp_path, Speaker(), "--existing", how) == 0
        assert (tmp_path / "a.txt").read_bytes() == after
    if how == "append" and after != before:
        batch(tmp_path, Speaker(), "--existing", how, "--prefix", "So: ")
        expected = after.replace(b"a cat\n", b"So: a cat\n")
        assert (tmp_path / "a.txt").read_bytes() == expected
        (tmp_path / "a.txt").write_bytes(expected + b"and a dog")
        batch(tmp_path, Speaker(), "--existing", how, "--prefix", "So: ")
        assert (tmp_path / "a.txt").read_bytes() == expected + b"and a dog"


@pytest.mark.parametrize("how", ["append", "prepend"])
def test_captions_that_can_not_take_an_answer_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    for number, encoding in enumerate(("utf-8", "gbk", "utf-16")):
        picture(tmp_path / f"{encoding}.png", number)
        (tmp_path / f"{encoding}.txt").write_bytes("我的猫".encode(encoding))
    told = "2 of these are not in UTF-8, so nothing is added"
    for _ in range(2):  # asked now, and from saved answers
        assert batch(tmp_path, Speaker(), "--existing", how) == 0
        shown = capsys.readouterr().err
        assert told in shown
    assert "a cat" in (tmp_path / "utf-8.txt").read_text(encoding="utf-8")
    assert (tmp_path / "gbk.txt").read_bytes() == "我的猫".encode("gbk")
    batch(tmp_path, Speaker())
    assert told not in capsys.readouterr().err


def test_an_edited_caption_gets_no_answer_again_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    assert batch(tmp_path, Speaker()) == 0
    (tmp_path / "a.txt").write_text("my cat")
    assert batch(tmp_path, Speaker(), "--existing", "append") == 0
    assert (tmp_path / "a.txt").read_text() == "my cat"
    told = "1 of these had the answer before they were edited, so it is not added again."
    assert told in capsys.readouterr().err


def test_a_picture_in_place_of_the_folder_is_no_missing_folder(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a\.png is not a folder"):
        batch(tmp_path / "a.png", Speaker())


def test_an_answer_that_was_edited_by_hand_is_a_persons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    batch(tmp_path, Speaker())
    (tmp_path / "a.txt").write_text("a cat, two years old\n")
    capsys.readouterr()
    assert batch(tmp_path, Speaker("a dog"), "--overwrite") == 0
    assert "edited since: 1. They are kept" in capsys.readouterr().err
    assert batch(tmp_path, Speaker(), question="Why?") == 0
    assert batch(tmp_path, Speaker(), "--prefix", "x ") == 0
    assert (tmp_path / "a.txt").read_text() == "a cat, two years old\n"


def test_the_same_words_by_a_person_stay_a_persons(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a cat\n")
    batch(tmp_path, Speaker())
    batch(tmp_path, Speaker("a dog"), question="Why?")
    assert (tmp_path / "a.txt").read_text() == "a cat\n"


def test_an_own_text_is_replaced_by_the_answer_to_another_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    batch(tmp_path, Speaker())
    capsys.readouterr()
    batch(tmp_path, Speaker("a dog"), question="Why?")
    shown = capsys.readouterr().err
    assert "Asked again: 1 for another question." in shown
    assert "earlier answers of this program: 1. They are replaced." in shown
    assert (tmp_path / "a.txt").read_text() == "a dog\n"
    engine = Speaker()
    batch(tmp_path, engine)  # the first answer is still saved
    assert (tmp_path / "a.txt").read_text() == "a cat\n"
    assert not engine.asked
    assert table(tmp_path / CSV)[1] == ["a.png", "a cat", ""]


@posix
def test_a_link_in_place_of_a_text_file_is_not_followed_or_replaced(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.png", 1)
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "in" / "a.txt").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "in" / "b.txt")
    assert batch(tmp_path / "in", Speaker()) == 0
    assert (tmp_path / "in" / "a.txt").is_symlink()
    assert (tmp_path / "target").read_text() == "theirs"


def test_a_deleted_text_and_new_words_around_it_need_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    batch(tmp_path, Speaker())
    (tmp_path / "a.txt").unlink()
    (tmp_path / CSV).unlink()
    capsys.readouterr()

    def load(_: object) -> Any:
        raise AssertionError("loaded")

    command = ["demo", str(tmp_path), "--question", "What?"]
    assert main(command, start=load) == 0
    shown = capsys.readouterr()
    assert "To ask: 0 of 2 pictures. Already answered: 2." in shown.err
    assert "without the model: 1." in shown.err
    assert shown.out == f"All 2 pictures already have an answer. Answers are in {tmp_path}.\n"
    assert (tmp_path / "a.txt").read_text() == "a cat\n"
    assert len(table(tmp_path / CSV)) == 3
    assert main([*command, "--prefix", "photo of ", "--suffix", "!"], start=load) == 0
    assert (tmp_path / "b.txt").read_text() == "photo of a cat!\n"
    assert main(command, start=load) == 0
    assert (tmp_path / "b.txt").read_text() == "a cat\n"


def test_a_text_that_could_not_be_written_comes_without_the_model(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").mkdir()
    assert batch(tmp_path, Speaker()) == 1
    assert table(tmp_path / CSV)[1][2].startswith("The text file can't be written")
    engine = Speaker()
    assert batch(tmp_path, engine) == 1  # it still can't
    (tmp_path / "a.txt").rmdir()
    assert batch(tmp_path, engine) == 0
    assert not engine.asked
    assert (tmp_path / "a.txt").read_text() == "a cat\n"
    assert table(tmp_path / CSV)[1] == ["a.png", "a cat", ""]


def test_a_kill_between_line_and_text_leaves_nothing_that_looks_foreign(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    batch(tmp_path, Speaker())
    batch(tmp_path, Speaker(), "--prefix", "new ")
    (tmp_path / "a.txt").write_text("a cat\n")  # as before the second run: killed before the rename
    batch(tmp_path, Speaker(), "--prefix", "new ")
    assert (tmp_path / "a.txt").read_text() == "new a cat\n"
    assert not [f for f in tmp_path.iterdir() if f.name.endswith(".tmp")]


# --- answers.jsonl and answers.csv ----------------------------------------------------------------


@pytest.mark.parametrize(
    "theirs",
    [
        b'{"theirs": 1}',
        b'{"theirs": 1}\n',
        b"[]\n",
        b"notes",
        b'{"picture": 5}\n',
        b'{"picture": "a.png", "question": "What?", "answer": "my own"}\n',
    ],
)
def test_a_foreign_jsonl_is_refused_and_not_cut(tmp_path: Path, theirs: bytes) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / JSONL).write_bytes(theirs)
    for options in ([], ["--overwrite"]):
        with pytest.raises(UsageError, match="did not write"):
            batch(tmp_path, Speaker(), *options)
    assert (tmp_path / JSONL).read_bytes() == theirs


def test_a_line_without_its_break_is_kept(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    batch(tmp_path, Speaker())
    file = tmp_path / JSONL
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().rstrip(b"\n"))  # saved by an editor
    picture(tmp_path / "b.png")
    engine = Speaker()
    assert batch(tmp_path, engine) == 0
    assert len(engine.asked) == 1
    assert len(file.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    "theirs", ["name;value\n1;2\n", "", "picture,answer,error\na.png,mine,\n", "\x00\x01"]
)
def test_a_foreign_csv_is_kept_and_the_table_gets_another_name(
    tmp_path: Path, theirs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / CSV).write_text(theirs)
    for _ in range(2):
        assert batch(tmp_path, Speaker()) == 0
        assert (tmp_path / CSV).read_text() == theirs
        assert table(tmp_path / "answers-2.csv")[1] == ["a.png", "a cat", ""]
        assert "answers.csv was not written by this program" in capsys.readouterr().err
    assert not (tmp_path / "answers-3.csv").exists()


def test_a_table_that_was_edited_is_a_persons(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    batch(tmp_path, Speaker())
    edited = (tmp_path / CSV).read_text().replace("a cat", "a cat, checked")
    (tmp_path / CSV).write_text(edited)
    batch(tmp_path, Speaker("a dog"), "--overwrite")
    assert (tmp_path / CSV).read_text() == edited
    assert table(tmp_path / "answers-2.csv")[1] == ["a.png", "a dog", ""]


def test_a_table_that_is_edited_during_the_run_is_kept(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    task = Task(folder=tmp_path, question="What?", output=tmp_path)
    steps = run_batch(task, Speaker())
    for _ in range(4):
        next(steps)
    (tmp_path / CSV).write_text("mine, meanwhile")
    list(steps)
    assert (tmp_path / CSV).read_text() == "mine, meanwhile"
    assert not (tmp_path / "answers-3.csv").exists()
    assert len(table(tmp_path / "answers-2.csv")) == 4


def test_a_row_is_in_the_table_right_after_its_answer(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    steps = run_batch(Task(folder=tmp_path, question="What?", output=tmp_path), Speaker())
    for _ in range(4):
        next(steps)
    assert [row[0] for row in table(tmp_path / CSV)[1:]] == ["a.png", "b.png"]


def test_the_table_runs_nothing_in_a_spreadsheet(tmp_path: Path) -> None:
    dangerous = ["=1+1", "+1", "-2", "@SUM(A1)", "\uff1d1+1", '=HYPERLINK("http://x")']
    for number in range(len(dangerous)):
        picture(tmp_path / f"={number}.png", number)
    answers = iter(dangerous)
    assert batch(tmp_path, Speaker(lambda ask: finished(next(answers)))) == 0
    rows = table(tmp_path / CSV)[1:]
    assert [row[1] for row in rows] == [f"'{answer}" for answer in dangerous]
    assert all(row[0].startswith("'=") for row in rows)
    assert [line["answer"] for line in lines(tmp_path)] == dangerous
    assert (tmp_path / "=0.txt").read_text() == "=1+1\n"
    batch(tmp_path, Speaker())
    assert not (tmp_path / "answers-2.csv").exists()


def test_a_table_of_version_0_2_is_its_own(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    old = {"picture": "a.png", "question": "What?", "answer": "-5", "error": "", "reason": "eos",
           "tokens": 2, "seconds": 0.5}  # fmt: skip
    (tmp_path / JSONL).write_text(json.dumps(old) + "\n")
    (tmp_path / CSV).write_text("\ufeffpicture,answer,error\na.png,-5,\n")
    batch(tmp_path, Speaker())
    assert table(tmp_path / CSV)[1] == ["a.png", "'-5", ""]


def test_a_table_that_can_not_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    steps = run_batch(Task(folder=tmp_path, question="What?", output=tmp_path), Speaker())
    for _ in range(2):
        next(steps)
    (tmp_path / CSV).unlink()
    (tmp_path / CSV).mkdir()
    list(steps)
    assert len(lines(tmp_path)) == 2
    assert len(table(tmp_path / "answers-2.csv")) == 3


# --- which answers stand --------------------------------------------------------------------------


def again(folder: Path, *options: str, question: str = "What?") -> int:
    """Run the command once more and return how many pictures were asked about."""
    engine = Speaker()
    assert batch(folder, engine, *options, question=question) == 0
    return len(engine.asked)


def test_other_settings_are_asked_again_and_the_same_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    batch(tmp_path, Speaker())
    assert again(tmp_path) == 0
    capsys.readouterr()
    for options in (
        ["--temperature", "0.5"], ["--template", "vqa"], ["--max-new-tokens", "5"],
        ["--kv", "int8"], ["--activations", "int8"], ["--rope", "exact"], ["--stop", "x"],
    ):  # fmt: skip
        assert again(tmp_path, *options) == 1
        assert "Asked again: 1 for other settings." in capsys.readouterr().err
        assert again(tmp_path, *options) == 0
    assert again(tmp_path) == 0
    assert again(tmp_path, "--vram", "8GiB", "--parallel", "2", "--device", "cpu") == 0


def test_the_key_of_settings_is_the_same_in_every_version(tmp_path: Path) -> None:
    """Another value here makes all saved answers void: people would wait for them again."""
    task = Task(folder=tmp_path, question="What?", output=tmp_path)
    assert task.settings_key == "3074ffa8fce6c0f3"
    other = replace(task, sampling=Sampling(temperature=0.5), numbers=("auto", "exact", "full"))
    assert other.settings_key == "5b04654b3d92880f"


def test_another_model_is_asked_again_and_a_copy_of_it_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.png")
    for name in ("copy", "tuned"):
        shutil.copytree(checkpoint_folder(), tmp_path / name)
    (shard,) = (tmp_path / "tuned").glob("*.safetensors")
    with shard.open("r+b") as stream:  # one weight in the middle of the last tensor
        stream.seek(-64, os.SEEK_END)
        stream.write(b"\x01" * 64)
    batch(folder, Speaker())
    capsys.readouterr()

    def asked(model: str) -> int:
        engine = Speaker("a dog")
        command = [model, str(folder), "--question", "What?"]
        main(command, start=lambda _: nullcontext(engine))
        return len(engine.asked)

    assert asked(str(tmp_path / "copy")) == 0
    assert asked(str(tmp_path / "tuned")) == 1
    assert "Asked again: 1 for another model." in capsys.readouterr().err
    assert (folder / "a.txt").read_text() == "a dog\n"
    assert asked(str(tmp_path / "tuned")) == 0


def test_a_changed_picture_is_asked_again_whatever_its_time_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.png"
    before = picture(file)
    os.utime(file, (1e9, 1e9))
    batch(tmp_path, Speaker())
    file.write_bytes(before[:-1] + b"x")
    os.utime(file, (1e9, 1e9))
    capsys.readouterr()
    assert again(tmp_path) == 1
    assert "Asked again: 1 whose picture has changed." in capsys.readouterr().err
    os.utime(file, (1e9 + 5, 1e9 + 5))  # touched only
    assert again(tmp_path) == 0


def test_answers_of_version_0_2_stand_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    old = asdict(Answered(picture="a.png", question="What?", answer="an old cat", reason="eos"))
    old = {name: old[name] for name in list(old)[:7]}
    other = {**old, "picture": "b.png", "question": "Why?"}
    loop = {**old, "picture": "c.png", "reason": "repetition"}
    (tmp_path / JSONL).write_text("".join(json.dumps(row) + "\n" for row in (old, other, loop)))
    (tmp_path / "a.txt").write_text("an old cat\n")
    assert again(tmp_path) == 2
    assert "1 of these do not record their model" in capsys.readouterr().err
    assert again(tmp_path, "--prefix", "so, ") == 0
    assert (tmp_path / "a.txt").read_text() == "so, an old cat\n"  # version 0.2 wrote it
    assert again(tmp_path, "--overwrite") == 3


# --- names ----------------------------------------------------------------------------------------


def texts(*pictures: str, recorded: dict[str, str] | None = None) -> list[str]:
    chosen = choose_names(pictures, lambda name: (recorded or {}).get(name, ""))
    return [chosen.get(name, re.sub(r"\.\w+$", ".txt", name)) for name in pictures]


def test_no_two_pictures_share_a_text_file() -> None:
    assert texts("photo.jpg", "photo.png") == ["photo.txt", "photo.png.txt"]
    assert texts("a.JPG", "a.jpg", "A.png") == ["a.txt", "a.jpg.txt", "A.png.txt"]
    assert texts("é.jpg", "e\u0301.png") == ["é.txt", "e\u0301.png.txt"]
    assert texts("p.jpg", "p.png", "p.png.jpg") == ["p.txt", "p.png-2.txt", "p.png.txt"]
    assert texts("x/p.jpg", "y/p.jpg") == ["x/p.txt", "y/p.txt"]
    assert texts("p.bmp", "p.jpg", recorded={"p.jpg": "p.txt"}) == ["p.bmp.txt", "p.txt"]
    assert texts("p.jpg", recorded={"p.jpg": "../../else.txt"}) == ["p.txt"]
    assert texts("p.jpg", recorded={"p.jpg": "p.jpg"}) == ["p.txt"]
    assert texts("p.txt") == ["p.txt.txt"]  # a picture of that name, chosen by --only
    long = "ü" * 125 + ".jpg", "ü" * 125 + ".png"
    first, second = texts(*long)
    assert first == "ü" * 125 + ".txt"
    assert len(second.encode()) <= 255
    assert second.endswith(".txt")


def test_a_picture_keeps_its_text_file_when_another_one_comes(tmp_path: Path) -> None:
    picture(tmp_path / "photo.png")
    batch(tmp_path, Speaker("png"))
    picture(tmp_path / "photo.jpg", 1)
    batch(tmp_path, Speaker("jpg"))
    found = {f.name: f.read_text() for f in tmp_path.glob("*.txt")}
    assert found == {"photo.txt": "png\n", "photo.jpg.txt": "jpg\n"}
    (tmp_path / "only").write_text("photo.jpg\n")
    assert again(tmp_path, "--only", str(tmp_path / "only")) == 0
    assert {f.name for f in tmp_path.glob("*.txt")} == set(found)


def test_a_chosen_picture_does_not_take_the_text_file_of_another(tmp_path: Path) -> None:
    for name in ("photo.jpg", "photo.png"):
        picture(tmp_path / name)
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfphoto.png\r\n")
    assert again(tmp_path, "--only", str(tmp_path / "list")) == 1
    assert [f.name for f in tmp_path.glob("*.txt")] == ["photo.png.txt"]


STRANGE = [
    "照片.png".encode("gbk"),
    b"~photo.png",
    b"~",
    b"two\nlines.png",
    b"\x1b[31mred\x07.png",
    b"back\\x41slash.png",
    b"tab\t .png",
    b"-dash.png",
    "长".encode() * 83 + b".png",
    b"n" * 251 + b".png",
    "next\u0085line\u202e.png".encode(),
    "surrogate \U0001f600.png".encode(),
]


@posix
@pytest.mark.parametrize("json_events", [False, True])
def test_any_file_name_is_answered(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], json_events: bool
) -> None:
    names = [os.fsdecode(name) for name in STRANGE if name.endswith(b".png")]
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + "/图".encode("gbk")))
    for number, name in enumerate(names):
        picture(folder / name, number)
    options = ["--json"] if json_events else []
    assert batch(folder, Speaker(), *options) == 0
    for name in names:
        assert (folder / f"{name[:-4]}.txt").read_text() == "a cat\n"
    for line in (folder / JSONL).read_bytes().splitlines():
        msgspec.json.decode(line, type=dict[str, object])
    shown = [line["picture"] for line in lines(folder)]
    assert len(set(shown)) == len(names)
    for name in shown:
        name.encode()  # valid Unicode
    assert len(table(folder / CSV)) == len(names) + 1
    output = capfd.readouterr().out
    if json_events:
        # msgspec refuses what is not JSON or not Unicode, where Python's json is lenient.
        events = [msgspec.json.decode(line) for line in output.encode().splitlines()]
        assert sorted(events[0]["pictures"]) == sorted(shown)
    else:
        assert len(output.splitlines()) == len(names) + 1
    assert again(folder) == 0
    # What the program prints can be used to choose pictures.
    only = tmp_path / "only"
    only.write_text("".join(f"{row[0].removeprefix(chr(39))}\n" for row in table(folder / CSV)[1:]))
    engine = Speaker()
    assert batch(folder, engine, "--overwrite", "--only", str(only)) == 0
    assert len(engine.asked) == len(names)
    only.write_bytes(STRANGE[0] + b"\n")  # or the bytes themselves
    engine = Speaker()
    assert batch(folder, engine, "--overwrite", "--only", str(only)) == 0
    assert len(engine.asked) == 1


def test_lists_of_names_are_read_as_notepad_writes_them(tmp_path: Path) -> None:
    for name in ("a.png", "照 b.png", "c.png"):
        picture(tmp_path / name)
    file = tmp_path / "list"
    for raw in (
        "\ufeffa.png\r\n照 b.png\r\n".encode(),
        "\ufeffa.png\r\n照 b.png".encode("utf-16-le"),
        "\ufeff./a.png\n\n照 b.png\n".encode("utf-16-be"),
    ):
        file.write_bytes(raw)
        engine = Speaker()
        assert batch(tmp_path, engine, "--overwrite", "--only", str(file)) == 0
        assert len(engine.asked) == 2
    file.write_text(f"{tmp_path / 'a.png'}\n{tmp_path / 'c.png'}\n")
    engine = Speaker()
    assert batch(tmp_path, engine, "--overwrite", "--only", str(file)) == 0
    assert len(engine.asked) == 2
    for line in ("../x.png", "/x.png", ".", "a\0.png", str(tmp_path), f"{tmp_path}/../x.png"):
        file.write_text(line)
        with pytest.raises(UsageError, match="is not a path below"):
            batch(tmp_path, Speaker(), "--only", str(file))


# --- what is left out -----------------------------------------------------------------------------


def test_files_left_out_are_counted_by_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("inputs.formats", "batch.pictures"):
        monkeypatch.setattr(
            f"cogvlm2_lite.{module}.missing_package",
            lambda kind: "pillow-heif" if kind == "HEIC" else "",
        )
    for name in ("a.jfif", "b.jpe", "c.dib", "d.apng", "e.mpo", "f.PNG"):
        picture(tmp_path / name)
    for name in ("._a.jpg", ".hidden.png", ".thumbs/x.png", "notes.md"):
        picture(tmp_path / name)
    for number in range(12):
        (tmp_path / f"IMG_{number}.HEIC").write_bytes(b"x")
    (tmp_path / "drawing.svg").write_bytes(b"x")
    engine = Speaker()
    assert batch(tmp_path, engine, "--recursive", "--no-text") == 0
    assert len(engine.asked) == 6
    shown = capsys.readouterr().err
    assert "12 HEIC files need pillow-heif" in shown
    assert "1 SVG file can't be opened" in shown


def test_pictures_under_other_names_and_unfinished_ones_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "mmexport1700000000").write_bytes(data)
    (tmp_path / "photo.jpg_large").write_bytes(data)
    (tmp_path / "notes").write_text("a text")
    (tmp_path / "d.jpg.aria2").touch()
    (tmp_path / "e.png.incomplete").touch()
    engine = Speaker()
    assert batch(tmp_path, engine, "--no-text") == 0
    assert len(engine.asked) == 1
    shown = capsys.readouterr().err
    assert "pictures whose names do not end like those of pictures (.jpg): 2" in shown
    assert "unfinished downloads: 2" in shown


@posix
def test_folders_links_and_downloads_are_not_left_out_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "deep" / "b.png", 1)
    picture(tmp_path / "other" / "c.png", 2)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "in" / "circle").symlink_to("circle")
    (tmp_path / "in" / "d.jpg.crdownload").touch()
    assert again(tmp_path / "in") == 1
    shown = capsys.readouterr().err
    assert "unfinished downloads: 1" in shown
    assert "subfolders that were not searched: 2" in shown
    assert again(tmp_path / "in", "--recursive") == 1
    assert "folders that are links: 1" in capsys.readouterr().err
    (tmp_path / "in" / "gone.png").symlink_to("nowhere")
    assert batch(tmp_path / "in", Speaker()) == 1
    assert "gone.png can't be read" in capsys.readouterr().out


@posix
def test_a_folder_that_can_not_take_answers_is_reported_before_the_model_is_loaded(
    tmp_path: Path,
) -> None:
    picture(tmp_path / "in" / "a.png")

    def load(_: object) -> Any:
        raise AssertionError("loaded")

    command = ["demo", str(tmp_path / "in"), "--question", "?", "--output"]
    with pytest.raises(DoesNotFitError, match="can't be written"):
        main([*command, "/proc/new"], start=load)


def test_a_folder_of_other_kinds_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jxl").write_bytes(b"x")
    with pytest.raises(UsageError) as caught:
        batch(tmp_path, Speaker())
    assert "has no pictures" in caught.value.message
    assert caught.value.hint == "Left out: 1 JPEG XL file can't be opened."
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError) as caught:
        batch(tmp_path, Speaker())
    assert caught.value.hint.endswith("not searched: 1. Add --recursive to include subfolders.")


# --- answers that are none ------------------------------------------------------------------------


def test_an_empty_answer_and_a_repeated_one_are_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("empty", "good", "loop")):
        picture(tmp_path / f"{name}.png", number)
    data = {(tmp_path / f"{name}.png").read_bytes(): name for name in ("empty", "good", "loop")}

    def say(ask: Ask) -> Finished:
        name = data[ask.image or b""]
        if name == "loop":
            return finished("round and round", FinishReason.REPETITION)
        return finished("" if name == "empty" else "a cat")

    engine = Speaker(say)
    assert batch(tmp_path, engine) == 1
    assert len(engine.asked) == 4
    assert "3 pictures, 2 failed" in capsys.readouterr().out
    assert [line["error"] for line in lines(tmp_path)] == [
        "The answer is empty.",
        "",
        "The answer repeated itself, and so did a second one with sampling.",
    ]
    assert [f.name for f in tmp_path.glob("*.txt")] == ["good.txt"]
    assert again(tmp_path) == 2


def test_a_huge_and_an_empty_file_fail_alone(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with (tmp_path / "huge.png").open("wb") as stream:
        stream.truncate(1 << 40)
    (tmp_path / "none.png").touch()
    engine = Speaker()
    assert batch(tmp_path, engine) == 1
    assert len(engine.asked) == 1
    errors = [line["error"] for line in lines(tmp_path)]
    assert errors[0] == ""
    assert "more than" in errors[1]
    assert "empty" in errors[2]


def test_pages_and_notices_reach_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.tif")
    engine = Speaker()
    notice = Text("This is page {page} of {pages}.", page=2, pages=3)
    engine.events = (PictureOpened(page=2, pages=3, notices=(notice,)),)
    assert batch(tmp_path, engine, "--page", "2", "--as-stored") == 0
    assert [(ask.page, ask.upright) for ask in engine.asked] == [(2, False)]
    assert "a.tif: This is page 2 of 3." in capsys.readouterr().err
    assert lines(tmp_path)[0]["notices"] == ["This is page 2 of 3."]
    assert again(tmp_path, "--page", "2", "--as-stored") == 0
    assert again(tmp_path, "--page", "1", "--as-stored") == 1
    with pytest.raises(UsageError, match="counted from 1"):
        batch(tmp_path, engine, "--page", "0")
    batch(tmp_path, engine, "--page", "3", "--json")
    answered = json.loads(capsys.readouterr().out.splitlines()[-2])["answered"]
    assert answered["texts"]["notices"] == [notice.as_dict()]


def test_a_model_is_identified_by_its_content() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", identify_model(checkpoint_folder()))


# --- any order of events --------------------------------------------------------------------------

FILES = ("a.txt", "b.txt", "b.png.txt", CSV, "answers-2.csv")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sampled_from(FILES), st.sampled_from(["mine\n", "a cat\n"])),
        st.tuples(st.just("delete"), st.sampled_from(FILES), st.none()),
        st.tuples(
            st.just("run"),
            st.sampled_from(["What?", "Why?"]),
            st.lists(
                st.sampled_from(
                    ["--overwrite", "--prefix=so ", "--existing=skip", "--existing=append"]
                ),
                unique=True,
                max_size=2,
            ),
        ),
    ),
    min_size=3,
    max_size=7,
)


@given(steps=STEPS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_person_and_the_program_do_nothing_of_the_persons_is_lost(steps: Any) -> None:
    with TemporaryDirectory() as name:
        folder, theirs = Path(name), dict[str, bytes]()
        for picture_name in ("a.png", "b.jpg", "b.png"):
            picture(folder / picture_name)
        for kind, what, more in steps:
            if kind == "edit":
                (folder / what).write_text(more)
                theirs[what] = more.encode()
            elif kind == "delete":
                (folder / what).unlink(missing_ok=True)
                theirs.pop(what, None)
            else:
                engine = Speaker(lambda ask: finished(f"{ask.question} A cat."))
                batch(folder, engine, *more, question=what)
            for file, content in theirs.items():
                assert content in (folder / file).read_bytes()
                if not any("--existing=append" in (step[2] or []) for step in steps):
                    assert (folder / file).read_bytes() == content
        batch(folder, Speaker(lambda ask: finished(f"{ask.question} A cat.")))
        for file in {"a.txt", "b.txt", "b.png.txt"} - theirs.keys():
            assert (folder / file).read_text() == "What? A cat.\n"


# --- two batches in one folder --------------------------------------------------------------------


def test_a_second_batch_in_the_same_folder_is_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    command = ["demo", str(tmp_path / "in"), "--question", "?", "--output", str(tmp_path / "out")]

    def load(_: object) -> Any:
        # The first batch loads its model now, so it holds the folder.
        with pytest.raises(UsageError) as caught:
            main(command, start=load)
        seen.append(caught.value)
        raise CogVLM2LiteError("stop here")

    seen: list[UsageError] = []
    with pytest.raises(CogVLM2LiteError, match="stop here"):
        main(command, start=load)
    assert "Another batch is writing its answers to" in seen[0].message
    assert "another folder" in seen[0].hint
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_without_locks_is_said_once_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def has_no_locks(*_: object, **__: object) -> None:
        raise NotImplementedError("the file system has no flock")

    monkeypatch.setattr("filelock.FileLock.acquire", has_no_locks)
    picture(tmp_path / "in" / "a.png")
    command = ["demo", str(tmp_path / "in"), "--question", "?", "--output", str(tmp_path / "out")]
    engine = Speaker(lambda ask: finished("A cat."))
    assert main(command, start=lambda _: nullcontext(engine)) == 0
    assert capsys.readouterr().err.count("has no locks") == 1
    assert (tmp_path / "out" / "a.txt").read_text() == "A cat.\n"


def test_a_text_file_that_comes_while_the_picture_is_asked_about_is_kept(tmp_path: Path) -> None:
    from cogvlm2_lite.batch.texts import Writing, write

    file = tmp_path / "a.txt"
    record = WrittenText(file="a.txt", sha256="", start=0, end=4)
    file.write_text("mine")
    with pytest.raises(FileExistsError):
        write(Writing(path=file, content=b"ours", written=record, is_new=True))
    assert file.read_text() == "mine"


# --- answers that a person changes ----------------------------------------------------------------


def test_an_edited_answer_stands_for_every_model_and_its_text_is_the_persons(
    tmp_path: Path,
) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    batch(tmp_path, Speaker())
    task = Task(folder=tmp_path, question="What?", output=tmp_path)
    saved = Answered.read((tmp_path / JSONL).read_bytes().splitlines()[0])
    task = replace(task, question=saved.question)
    assert edit_answer(task, "a.png", "my own words")
    assert edit_answer(task, "a.png", "my better words")
    assert (tmp_path / "a.txt").read_text() == "my better words\n"
    with (tmp_path / CSV).open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream))
    assert [row[0] for row in rows] == ["picture", "a.png", "b.png"]
    assert rows[1][1] == "my better words"
    other = Speaker()
    list(run_batch(replace(task, model="another"), other))
    assert (tmp_path / "a.txt").read_text() == "my better words\n"
    list(run_batch(replace(task, existing=Existing.APPEND), Speaker()))
    assert (tmp_path / "a.txt").read_text() == "my better words\n"
    (tmp_path / "a.txt").write_text("changed elsewhere")
    assert not edit_answer(task, "a.png", "once more")
    assert (tmp_path / "a.txt").read_text() == "changed elsewhere"


def test_a_run_about_some_pictures_keeps_the_rows_of_the_others(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    batch(tmp_path, Speaker())
    saved = Answered.read((tmp_path / JSONL).read_bytes().splitlines()[0])
    task = Task(folder=tmp_path, question=saved.question, output=tmp_path)
    list(run_batch(replace(task, only=("b.png",), overwrite=True), Speaker()))
    with (tmp_path / CSV).open(encoding="utf-8-sig", newline="") as stream:
        assert [row[0] for row in csv.reader(stream)] == ["picture", "a.png", "b.png", "c.png"]


def test_pictures_that_begin_again_in_float32_report_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that were in progress begin again, and the engine reports each of them."""
    engine = Speaker()
    engine.events = (Notice(text=TOO_LARGE_FOR_FLOAT16),)
    for number in range(3):
        picture(tmp_path / f"{number}.png", number)
    assert batch(tmp_path, engine) == 0
    assert capsys.readouterr().err.count("it computes in float32 from now on") == 1
