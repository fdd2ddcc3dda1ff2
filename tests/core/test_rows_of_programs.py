"""Data as other programs export them, and the mistakes that real files have."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.rows.read import CAPTION_QUESTIONS, Reason, Rows, Turn, read_rows
from tests.core.test_finetune_rows import PNG

ONE = (Turn("What?", "red"),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", "images/c.PNG"):
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


def lines(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Rows:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / name).write_bytes(text.encode())
    return read_rows(folder / name)


def reasons(found: Rows) -> list[Reason]:
    return [each.reason for each in found.skipped]


# --- one row as several programs write it ---------------------------------------------------------

ASK, TELL = {"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "red"}
SHOWN: dict[str, dict[str, Any]] = {
    "LLaMA-Factory, ShareGPT with images": {"messages": [ASK, TELL], "images": ["a.png"]},
    "Swift, images with places": {"messages": [ASK, TELL], "images": [{"path": "a.png"}]},
    "datasets, a place without bytes": {
        "image": {"bytes": None, "path": "a.png"}, "question": "What?", "answer": "red"
    },
    "TRL, a part that refers to images": {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        ],
        "images": ["a.png"],
    },
    "Qwen-VL, parts without types": {
        "messages": [
            {"role": "user", "content": [{"image": "a.png"}, {"text": "What?"}]},
            {"role": "assistant", "content": [{"text": "red"}]},
        ],
    },
    "LLaVA with an id and the same picture twice": {
        "id": "7", "image": "a.png", "file_name": "a.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}
        ],
    },
    "Windows": {"image": ".\\a.png", "question": "What?", "answer": "red"},
    "a number": {"image": "a.png", "question": "What?", "answer": "red", "error": None},
}  # fmt: skip


@pytest.mark.parametrize("program", SHOWN)
def test_rows_of_programs_are_the_same_row(program: str, folder: Path) -> None:
    found = lines(folder, SHOWN[program])
    assert not found.skipped
    assert found.rows[0].turns == ONE
    assert found.rows[0].picture == folder / "a.png"


def test_places_of_pictures(folder: Path) -> None:
    places = ("c.PNG", "images/c.PNG", "images\\c.PNG", (folder / "images/c.PNG").as_uri())
    for place in places:
        (row,) = lines(folder, {"image": place, "question": "?", "answer": "x"}).rows
        assert row.picture == folder / "images" / "c.PNG", place
    data = "data:image/png;base64,iVBO\nRw0KGgo="
    (row,) = lines(folder, {"image": data, "question": "?", "answer": "x"}).rows
    assert row.picture == PNG[:8]
    wrong = {
        "C:\\Users\\me\\a.png": Reason.MISSING, "/data/upload/1/8f-a.png": Reason.MISSING,
        "s3://bucket/a.png": Reason.REMOTE, "HTTP://host/a.png": Reason.REMOTE,
        "file:///etc/hosts": Reason.OUTSIDE, "images": Reason.MISSING, "http://[": Reason.REMOTE,
    }  # fmt: skip
    for place, reason in wrong.items():
        found = lines(folder, {"image": place, "question": "?", "answer": "x"})
        assert reasons(found) == [reason], place


def test_what_a_text_says_of_pictures_must_fit(folder: Path) -> None:
    base = {"question": "<image>\nWhat?", "answer": "red"}
    assert reasons(lines(folder, base)) == [Reason.MISSING]
    twice = {**base, "images": ["a.png", "a.png"]}
    assert reasons(lines(folder, twice)) == [Reason.SEVERAL_PICTURES]
    assert reasons(lines(folder, {**base, "image": 5})) == [Reason.UNSUPPORTED]
    (row,) = lines(folder, {"question": "What?\n<image>", "answer": "red", "image": "a.png"}).rows
    assert row.turns == ONE
    in_the_middle = {"question": "Look\n<image>\nhere", "answer": "red", "image": "a.png"}
    (row,) = lines(folder, in_the_middle).rows
    assert row.turns[0].question == "Look\nhere"


def test_keys_of_messages_that_change_the_training_are_refused(folder: Path) -> None:
    for key, value in {"weight": 0, "tool_calls": [{}], "loss_scale": 0.5, "loss": "no"}.items():
        found = lines(folder, {"messages": [{**ASK, "content": "?"}, {**TELL, key: value}]})
        assert [(each.reason, each.detail) for each in found.skipped] == [(Reason.UNSUPPORTED, key)]


def test_the_system_message_of_a_row_stands_before_its_first_question(folder: Path) -> None:
    row = {
        "system": "Be short.", "image": "a.png",
        "conversation": [{"human": "A?", "assistant": "b"}, {"human": "C?", "assistant": "d"}],
    }  # fmt: skip
    assert lines(folder, row).rows[0].turns == (Turn("Be short.\nA?", "b"), Turn("C?", "d"))


def test_first_keys_of_questions_and_answers(folder: Path) -> None:
    row = {"query": "Q?", "question": "other?", "response": 3, "text": "other"}
    assert lines(folder, row).rows[0].turns == (Turn("Q?", "3"),)
    alpaca = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    assert lines(folder, alpaca).rows[0].turns == (Turn("Add.\n1 and 2", "3"),)


def test_halves_of_characters_are_not_utf_8(folder: Path) -> None:
    (folder / "x.jsonl").write_bytes(
        b'{"question": "?", "answer": "\\ud83d"}\n{"question": "?", "answer": "\xe9"}\n'
        b'{"question": "?", "answer": "ok"}\r\n'
    )
    found = read_rows(folder / "x.jsonl")
    assert reasons(found) == [Reason.ENCODING, Reason.ENCODING]
    assert len(found.rows) == 1
    (folder / "x.json").write_bytes(b'[{"question": "?", "answer": "\xe9"}]')
    assert reasons(read_rows(folder / "x.json")) == [Reason.ENCODING]


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.JSON", "x.ndjson", "x"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
def test_lists_and_lines_under_every_name(name: str, begin: bytes, folder: Path) -> None:
    row = {"question": "What?", "answer": "red"}
    for text in (
        json.dumps([row], indent=2), json.dumps(row), json.dumps(row) + "\r\n\r\n",
        "[\r\n" + json.dumps(row) + "\r\n]",
    ):  # fmt: skip
        (folder / name).write_bytes(begin + text.encode())
        assert [each.turns for each in read_rows(folder / name).rows] == [ONE]


def test_one_object_over_several_lines_is_a_row(folder: Path) -> None:
    (folder / "x.json").write_text(json.dumps({"question": "What?", "answer": "red"}, indent=1))
    assert read_rows(folder / "x.json").rows[0].turns == ONE


def test_a_mistake_in_json_has_its_line(folder: Path) -> None:
    (folder / "x.json").write_text('[\n{"question": "?", "answer": "x"},\n]')
    with pytest.raises(UsageError, match="line 3, column 1") as found:
        read_rows(folder / "x.json")
    assert "comma" in found.value.hint
    (folder / "x.jsonl").write_text('{"question": "?", "answer": "x"},\n{"answer"')
    found_rows = read_rows(folder / "x.jsonl")
    assert [(e.line, e.reason) for e in found_rows.skipped] == [(1, Reason.JSON), (2, Reason.JSON)]
    assert found_rows.skipped[0].detail.startswith("column 33")


WRONG: dict[str, tuple[bytes, str]] = {
    "x.zip": (b"PK\x03\x04abc", "is an archive"),
    "x.tar.gz": (b"\x1f\x8b\x08", "is an archive"),
    "x.jsonl": (b"\xff\xfe{\0", "is not in UTF-8"),
    "x.parquet": (b"PAR1", "not data of a known form"),
    "x.txt": (b"some words", "not data of a known form"),
    "a.json": (b"5", "not a list of rows"),
    "deep.json": (b"[" * 100_000, "not a list of rows"),
    "a.csv": (b"\xff\xfei\0", "is not in UTF-8"),
    "twice.csv": (b"image,text,text\na.png,x,y\n", "two columns text"),
    "quote.csv": (b'image,text\na.png,"x" y\n', "line 2"),
    "empty.csv": (b"", "no column"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_of_other_kinds_get_a_clear_error(name: str, folder: Path) -> None:
    data, message = WRONG[name]
    (folder / name).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        read_rows(folder / name)


def test_cells_that_would_be_lost_are_named(folder: Path) -> None:
    (folder / "x.csv").write_bytes(
        '\ufeffImage,Caption\r\na.png,"one\r\ntwo"\r\n'.encode()
        + "b.png,red, and big\r\n\r\nc.PNG,ü\u2028x\r\n".encode()
    )
    found = read_rows(folder / "x.csv")
    assert [row.turns[0].answer for row in found.rows] == ["one\r\ntwo", "ü\u2028x"]
    assert [(each.line, each.reason) for each in found.skipped] == [(4, Reason.CELLS)]
    (folder / "big.csv").write_text(f"image,text\na.png,{'x' * 200_000}\n")
    assert len(read_rows(folder / "big.csv").rows[0].turns[0].answer) == 200_000


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4))
def test_tables_that_python_writes_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, answers: list[str]
) -> None:
    file = tmp_path_factory.mktemp("table") / "x.csv"
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(("question", "answer", "image"))
    for number, answer in enumerate(answers):
        writer.writerow((f"q{number}", answer, ""))
    file.write_bytes(stream.getvalue().encode())
    if any("\0" in answer for answer in answers):
        return  # Python's reader refuses them
    found = read_rows(file)
    expected = [answer.strip() for answer in answers]
    assert [row.turns[0].answer for row in found.rows] == [each for each in expected if each]


# --- folders --------------------------------------------------------------------------------------


def test_what_systems_leave_in_folders_is_no_data(folder: Path) -> None:
    for name in ("._a.png", "Thumbs.db", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    for name in ("__MACOSX", ".thumbnails"):
        (folder / name).mkdir()
        (folder / name / "t.png").write_bytes(b"x")
    for name in ("a", "b", "images/c"):
        (folder / f"{name}.txt").write_text("one,\ntwo")
    found = read_rows(folder)
    assert not found.skipped
    assert [row.source for row in found.rows] == ["a.png", "b.png", "images/c.PNG"]
    assert found.rows[0].turns[0].answer == "one,\ntwo"


def test_text_comes_before_caption_and_repeats_are_remarked(tmp_path: Path) -> None:
    part = tmp_path / "10_my cat"
    part.mkdir()
    (part / "1.JPG").write_bytes(PNG)
    (part / "1.txt").write_text("tag, other tag")
    (part / "1.caption").write_text("not this")
    found = read_rows(tmp_path)
    assert [row.turns[0].answer for row in found.rows] == ["tag, other tag"]
    assert "10_my cat" in found.remarks[0]


def test_kohya_names_pictures_by_stem(folder: Path) -> None:
    content = {"c": {"caption": "one"}, "a.png": {"tags": "x, y"}, "none": {"caption": "z"}}
    (folder / "meta_cap.json").write_text(json.dumps(content))
    found = read_rows(folder / "meta_cap.json")
    assert [row.turns[0].answer for row in found.rows] == ["one", "x, y"]
    assert found.rows[0].picture == folder / "images" / "c.PNG"
    assert reasons(found) == [Reason.MISSING]


def test_a_folder_with_one_file_of_rows_is_that_file(folder: Path) -> None:
    lines(folder, {"image": "a.png", "conversations": [{"from": "human", "value": "What?"},
        {"from": "gpt", "value": "red"}]}, name="train.json")  # fmt: skip
    found = read_rows(folder)
    assert found.form == "JSON, ShareGPT"
    assert found.rows[0].turns == ONE
    (folder / "other.csv").write_text("image,text\n")
    with pytest.raises(UsageError, match=r"several files of data: other.csv, train.json"):
        read_rows(folder)
    assert read_rows(folder, form="json").rows == found.rows


def test_answers_of_batch_count_once_with_the_last_correction(folder: Path) -> None:
    first = {
        "picture": "a.png",
        "question": "What?",
        "answer": "blue",
        "error": "",
        "reason": "eos",
    }
    found = lines(
        folder, {**first, "answer": "", "error": "The GPU was lost."}, first,
        {**first, "answer": "red", "reason": "edited"}, {**first, "question": "Where?"},
        name="answers.jsonl",
    )  # fmt: skip
    assert [row.turns[0] for row in read_rows(folder).rows] == [ONE[0], Turn("Where?", "blue")]
    assert reasons(found) == [Reason.FAILED, Reason.REPLACED]


def test_cogvlm_sft_takes_pictures_only(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for name in ("images/1.PNG", "images/._1.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "images/1.txt").write_text("no picture")
    label = {"conversations": [{"role": "user", "content": "What?"}, TELL]}
    (tmp_path / "labels/1.json").write_text(json.dumps(label, indent=2))
    (tmp_path / "labels/._1.json").write_bytes(b"x")
    found = read_rows(tmp_path)
    assert not found.skipped
    assert found.rows[0].turns == ONE
    assert found.rows[0].source == "labels/1.json"


def test_questions_of_captions(folder: Path) -> None:
    rows = [{"image": name, "text": "red"} for name in ("a.png", "b.png", "c.PNG", "a.png")]
    (folder / "x.json").write_text(json.dumps(rows))
    found = read_rows(folder / "x.json", ask=("One?", "Two?"))
    assert [row.turns[0].question for row in found.rows] == ["One?", "Two?", "One?"]
    assert reasons(found) == [Reason.TWICE]  # although it would get another question
    captions = {
        "A sign that says 出口": 0, "红色的circle": 1, "全角,标点。": 1, "1, 2": 0,
    }  # fmt: skip
    for caption, place in captions.items():
        (row,) = lines(folder, {"image": "a.png", "text": caption}).rows
        assert row.turns == (Turn(CAPTION_QUESTIONS[place], caption),)


def test_large_pictures_are_named(folder: Path) -> None:
    with (folder / "large.png").open("wb") as stream:
        stream.truncate(50_000_001)
    assert reasons(lines(folder, {"image": "large.png", "text": "x"})) == [Reason.LARGE]


def test_a_picture_may_be_its_base64_text(folder: Path) -> None:
    data = bytes(range(256)) * 2
    text = base64.b64encode(data).decode()
    (folder / "x.tsv").write_text(f"index\timage\tquestion\tanswer\n0\t{text}\tWhat?\tred\n")
    assert read_rows(folder / "x.tsv").rows[0].picture == data
    name = "a" * 400
    assert reasons(lines(folder, {"image": name + "-", "text": "x"})) == [Reason.MISSING]
