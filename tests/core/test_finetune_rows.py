"""Training data in the forms that people have, and every reason to skip a row."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.rows.read import CAPTION_QUESTIONS, Reason, Row, Turn, read_rows

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "图片.png"):
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


def rows(folder: Path, *entries: Any) -> tuple[tuple[Row, ...], list[Reason]]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries), "utf-8")
    found = read_rows(file)
    return found.rows, [each.reason for each in found.skipped]


def talk(folder: Path, entry: dict[str, Any]) -> tuple[Turn, ...]:
    (row,), skipped = rows(folder, entry)
    assert not skipped
    return row.turns


ONE = (Turn("What?", "red"),)
FORMS: dict[str, dict[str, Any]] = {
    "question and answer": {"image": "a.png", "question": "What?", "answer": "red"},
    "query and response": {"images": ["a.png"], "query": "What?", "response": "red"},
    "alpaca": {"image": "a.png", "instruction": "What?", "input": "", "output": "red"},
    "sharegpt": {
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}
        ],
    },
    "llava, image last": {
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "red"}
        ],
    },
    "openai": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "a.png"}},
                    {"type": "text", "text": "What?"},
                ],
            },
            {"role": "assistant", "content": "red"},
        ]
    },
    "swift": {"image": "a.png", "conversation": [{"human": "What?", "assistant": "red"}]},
    "batch": {"picture": "a.png", "question": "What?", "answer": "red", "error": ""},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_is_the_same_row(form: str, folder: Path) -> None:
    (row,), skipped = rows(folder, FORMS[form])
    assert not skipped
    assert row.turns == ONE
    assert row.picture == (folder / "a.png").resolve()


def test_conversations_keep_their_past_and_what_is_only_shown(folder: Path) -> None:
    entry = {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "A?"},
            {"role": "user", "content": "B?"},
            {"role": "assistant", "content": "c", "loss": False},
            {"role": "user", "content": "D?"},
            {"role": "assistant", "content": "e"},
            {"role": "user", "content": "dropped"},
        ]
    }
    assert talk(folder, entry) == (Turn("Be short.\nA?\nB?", "c", trained=False), Turn("D?", "e"))
    with_past = {"history": [["A?", "b"]], "question": "C?", "answer": "d"}
    assert talk(folder, with_past) == (Turn("A?", "b"), Turn("C?", "d"))


SKIPPED: dict[str, tuple[Any, Reason]] = {
    "no answer": ({"image": "a.png", "question": "What?"}, Reason.NO_ANSWER),
    "an empty answer": ({"image": "a.png", "question": "?", "answer": " "}, Reason.EMPTY_ANSWER),
    "an empty question": ({"question": "", "answer": "red"}, Reason.EMPTY_QUESTION),
    "an answer first": ({"messages": [{"role": "assistant", "content": "red"}]}, Reason.ROLES),
    "a strange role": ({"messages": [{"role": "tool", "content": "red"}]}, Reason.ROLE),
    "two pictures": (
        {"images": ["a.png", "b.png"], "question": "?", "answer": "red"}, Reason.SEVERAL_PICTURES
    ),
    "two marks": (
        {"image": "a.png", "question": "<image><image>?", "answer": "r"}, Reason.SEVERAL_PICTURES
    ),
    "missing": ({"image": "none.png", "question": "?", "answer": "red"}, Reason.MISSING),
    "outside": ({"image": "/etc/hosts", "question": "?", "answer": "red"}, Reason.OUTSIDE),
    "dots": ({"image": "../" * 20 + "etc/hosts", "question": "?", "answer": "red"}, Reason.OUTSIDE),
    "remote": ({"image": "https://a/b.png", "question": "?", "answer": "red"}, Reason.REMOTE),
    "bad data": (
        {"image": "data:image/png;base64,!", "question": "?", "answer": "r"}, Reason.UNREADABLE
    ),
    "zero in the name": ({"image": "a\0.png", "question": "?", "answer": "r"}, Reason.MISSING),
    "weights": ({"question": "?", "answer": "red", "weight": 2}, Reason.UNSUPPORTED),
    "tools": ({"question": "?", "answer": "red", "tools": [{}]}, Reason.UNSUPPORTED),
    "an error of batch": (
        {"picture": "a.png", "question": "?", "answer": "", "error": "x"}, Reason.FAILED
    ),
    "no object": (["a"], Reason.JSON),
}  # fmt: skip


@pytest.mark.parametrize("what", SKIPPED, ids=str)
def test_a_row_that_can_not_be_used_is_named(what: str, folder: Path) -> None:
    entry, reason = SKIPPED[what]
    found, skipped = rows(folder, entry, FORMS["batch"])
    assert skipped == [reason]
    assert len(found) == 1


def test_the_same_row_counts_once_and_lines_are_told(folder: Path) -> None:
    file = folder / "rows.jsonl"
    good = json.dumps(FORMS["batch"]).encode()
    file.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\n{broken\n\xff\xfe\n" + good + b"\n")
    found = read_rows(file)
    assert len(found.rows) == 1
    assert [(each.line, each.reason) for each in found.skipped] == [
        (3, Reason.JSON), (4, Reason.ENCODING), (5, Reason.TWICE),
    ]  # fmt: skip


def test_a_symlink_out_of_the_folder_is_outside(folder: Path, tmp_path_factory: Any) -> None:
    secret = tmp_path_factory.mktemp("other") / "s.png"
    secret.write_bytes(PNG)
    (folder / "link.png").symlink_to(secret)
    _, skipped = rows(folder, {"image": "link.png", "question": "?", "answer": "r"})
    assert skipped == [Reason.OUTSIDE]


def test_captions_in_text_files(folder: Path) -> None:
    (folder / "a.txt").write_text(" a red circle\n", "utf-8")
    (folder / "图片.caption").write_text("红色的圆形", "utf-8")
    found = read_rows(folder)
    assert found.form == "captions"
    assert [row.turns for row in found.rows] == [
        (Turn(CAPTION_QUESTIONS[0], "a red circle"),),
        (Turn(CAPTION_QUESTIONS[1], "红色的圆形"),),
    ]
    assert [each.reason for each in found.skipped] == [Reason.NO_ANSWER]
    asked = read_rows(folder, ask=("One?", "Two?"))
    assert [row.turns[0].question for row in asked.rows] == ["One?", "One?"]  # rows 1 and 3


def test_a_folder_may_be_named_from_where_one_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.txt").write_text("a red circle")
    monkeypatch.chdir(folder.parent)
    (row,) = read_rows(Path(folder.name)).rows
    assert row.picture == (folder / "a.png").resolve()
    part = folder / "sft"
    for name in ("images", "labels"):
        (part / name).mkdir(parents=True)
    (part / "images" / "1.png").write_bytes(PNG)
    (part / "labels" / "1.json").write_text('{"captions": [{"role": "caption", "content": "x"}]}')
    assert len(read_rows(Path(folder.name) / "sft").rows) == 1


def test_metadata_of_datasets_and_kohya(folder: Path) -> None:
    (folder / "metadata.json").write_text(
        json.dumps({"a.png": {"caption": "one"}, "b.png": {"tags": "x, y"}, "图片.png": {}}),
        "utf-8",
    )
    found = read_rows(folder)
    assert [row.turns[0].answer for row in found.rows] == ["one", "x, y"]
    (folder / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "two"}\n', "utf-8")
    assert [row.turns[0].answer for row in read_rows(folder).rows] == ["two"]


@pytest.mark.parametrize(("name", "mark"), [("t.csv", ","), ("t.tsv", "\t")])
def test_tables(name: str, mark: str, folder: Path) -> None:
    lines = [
        ["image", "question", "answer"],
        ["a.png", "What?", '"one\ntwo"'],
        ["b.png", "", "cap"],
    ]
    text = "\ufeff" + "\r\n".join(mark.join(cells) for cells in lines)
    (folder / name).write_bytes(text.encode())
    found = read_rows(folder / name)
    assert [row.turns for row in found.rows] == [
        (Turn("What?", "one\ntwo"),), (Turn(CAPTION_QUESTIONS[0], "cap"),),
    ]  # fmt: skip
    (folder / name).write_text("x,y\n1,2\n")
    with pytest.raises(UsageError, match="no column for pictures and answers"):
        read_rows(folder / name)


def test_folders_of_cogvlm_sft(tmp_path: Path) -> None:
    part = tmp_path / "llava_details"
    for name in ("images", "labels_en", "labels_zh"):
        (part / name).mkdir(parents=True)
    (part / "images" / "1.jpeg").write_bytes(PNG)
    english = {
        "conversations": [
            {"role": "user", "content": "What?"},
            {"role": "assistant", "content": "red"},
        ]
    }
    (part / "labels_en" / "1.json").write_text(json.dumps(english))
    (part / "labels_en" / "2.json").write_text(json.dumps(english))
    chinese = {"captions": [{"role": "caption", "content": "红色"}]}
    (part / "labels_zh" / "1.json").write_text(json.dumps(chinese, ensure_ascii=False), "utf-8")
    with pytest.raises(UsageError, match="labels in several languages"):
        read_rows(tmp_path)
    found = read_rows(tmp_path, labels="en")
    assert [row.turns for row in found.rows] == [ONE]
    assert [each.reason for each in found.skipped] == [Reason.MISSING]
    both = read_rows(tmp_path, labels="both")
    assert [row.turns[0].answer for row in both.rows] == ["red", "红色"]


def test_what_is_no_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder or file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="no pictures with captions"):
        read_rows(tmp_path)
    (tmp_path / "a.json").write_text("[{")
    with pytest.raises(UsageError, match=r"line 1, column 3"):
        read_rows(tmp_path / "a.json")


TEXT = st.text(max_size=8) | st.none() | st.integers() | st.lists(st.text(max_size=4), max_size=2)
KEYS = st.sampled_from(
    [
        "image",
        "images",
        "question",
        "answer",
        "messages",
        "history",
        "conversations",
        "loss",
        "role",
    ]
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(KEYS, TEXT | st.dictionaries(KEYS, TEXT)), max_size=3))
def test_strange_rows_end_as_rows_or_reasons(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]]
) -> None:
    file = tmp_path_factory.mktemp("strange") / "rows.json"
    file.write_text(json.dumps(entries), "utf-8")
    found = read_rows(file)
    assert len(found.rows) + len(found.skipped) == len(entries)
