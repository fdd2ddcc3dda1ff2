"""File names of any bytes as text, JSON and lines."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogvlm2_lite.file_names import cut_name, escape_line, escape_name, to_json, unescape_name

NAMES = [
    "photo.png",
    os.fsdecode("照片.png".encode("gbk")),
    os.fsdecode(b"caf\xe9.jpg"),
    "caf\\xe9.jpg",
    "C:\\xylophone\\ud800.png",
    "two\nlines\r.png",
    "\x1b[31m\x85\u2028.png",
    "~照片 \U0001f600.png",
    "\ud800half.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_back_and_is_valid_text(name: str) -> None:
    for escape in (escape_name, escape_line):
        text = escape(name)
        text.encode()
        assert unescape_name(text) == name
    assert len(escape_line(name).splitlines()) == 1
    assert json.loads(to_json({"picture": escape_name(name)}).encode())["picture"] == escape_name(
        name
    )


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("photo 1.png", "照片.png", "C:\\data\\x.png", "~a.png"):
        assert escape_line(name) == name


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))
def test_no_two_names_share_a_form(first: bytes, second: bytes) -> None:
    names = {os.fsdecode(first), os.fsdecode(second)}
    assert len({escape_line(name) for name in names}) == len(names)
    assert {unescape_name(escape_line(name)) for name in names} == names


def test_json_of_a_message_with_such_a_name_is_utf_8() -> None:
    line = to_json({"error": os.fsdecode(b"caf\xe9.jpg") + ' can\'t be read: "x".'})
    assert json.loads(line.encode())["error"] == 'caf\\xe9.jpg can\'t be read: "x".'


def test_a_cut_name_ends_with_a_whole_character() -> None:
    assert cut_name("照片", 5) == "照"
    assert cut_name("ab", 5) == "ab"
