"""Conversations as files: whole, escaped, and never half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gui.data.export import export, picture_kind
from gui.data.import_json import parse_export, read_export
from gui.data.saving import How, SaveError
from gui.data.state import Conversation, Turn
from tests.helpers.desk import finished

PNG = b"\x89PNG\r\n\x1a\n and so on"


def talk() -> Conversation:
    conversation = Conversation(id=1, picture="x")
    conversation.add(Turn(id=1, parent=None, question="What <b>is</b> it?\nSay it.", created=1e9))
    conversation.finish(1, finished(" **A** <script>alert(1)</script>"))
    conversation.add(Turn(id=2, parent=None, question="Again?", created=2e9))
    conversation.finish(2, finished("No."))
    conversation.choose(1)
    return conversation


def test_markdown_has_the_shown_branch_and_its_picture_beside(tmp_path: Path) -> None:
    export(talk(), PNG, tmp_path / "a talk.md")
    text = (tmp_path / "a talk.md").read_text()
    assert "![](<a talk.png>)" in text
    assert "> What <b>is</b> it?\n> Say it.\n\n**A** <script>" in text
    assert "Again?" not in text
    assert (tmp_path / "a talk.png").read_bytes() == PNG


def test_an_export_replaces_nothing_without_a_question(tmp_path: Path) -> None:
    (tmp_path / "talk.png").write_bytes(b"my own picture")
    export(talk(), PNG, tmp_path / "talk.md")
    assert (tmp_path / "talk.png").read_bytes() == b"my own picture"
    assert (tmp_path / "talk-2.png").read_bytes() == PNG
    assert "![](talk-2.png)" in (tmp_path / "talk.md").read_text()
    for kind in ("md", "html", "json"):
        (tmp_path / f"mine.{kind}").write_text("mine")
        with pytest.raises(SaveError, match="already exists"):
            export(talk(), PNG, tmp_path / f"mine.{kind}")
        assert (tmp_path / f"mine.{kind}").read_text() == "mine"
    export(talk(), PNG, tmp_path / "talk.md", How.REPLACE)  # the user agreed
    assert sorted(f.name for f in tmp_path.glob("talk*")) == ["talk-2.png", "talk.md", "talk.png"]
    long = tmp_path / ("n" * 252 + ".md")
    export(talk(), PNG, long)
    assert (tmp_path / ("n" * 251 + ".png")).read_bytes() == PNG


def test_html_escapes_and_loads_nothing(tmp_path: Path) -> None:
    export(talk(), PNG, tmp_path / "talk.html")
    text = (tmp_path / "talk.html").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert 'src="data:image/png;base64,' in text
    assert "http" not in text.replace("http-equiv", "")


def test_an_export_names_the_adapter(tmp_path: Path) -> None:
    taught = talk()
    turn = Turn(id=3, parent=1, question="Now?", created=3e9, adapter="my_<b>forms")
    taught.add(turn)
    for suffix, shown in (
        (".md", r"adapter my\_\<b\>forms"), (".txt", "adapter my_<b>forms"),
        (".html", "adapter my_&lt;b&gt;forms"), (".json", '"adapter": "my_<b>forms"'),
    ):  # fmt: skip
        file = tmp_path / f"talk{suffix}"
        export(taught, b"", file)
        assert file.read_text("utf-8").count(shown) == 1
    assert read_export(tmp_path / "talk.json").conversation.turns[3].adapter == turn.adapter
    content = json.loads((tmp_path / "talk.json").read_text("utf-8"))
    for each in content["turns"]:  # of an earlier version
        del each["adapter"]
    assert parse_export(json.dumps(content).encode(), "old.json").conversation.turns[3].id == 3


def test_json_has_every_version(tmp_path: Path) -> None:
    export(talk(), b"", tmp_path / "talk.json")
    content = json.loads((tmp_path / "talk.json").read_text())
    assert [turn["question"] for turn in content["turns"]][1] == "Again?"
    assert content["turns"][0]["status"] == "done"
    assert content["picture"] is None


def test_a_place_that_can_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="can't be written"):
        export(talk(), b"", tmp_path / "file" / "talk.md")


def test_pictures_are_told_by_their_first_bytes() -> None:
    assert picture_kind(PNG) == "png"
    assert picture_kind(b"\xff\xd8\xff\xe0") == "jpg"
    assert picture_kind(b"II*\x00") == "tif"
    assert picture_kind(b"\x00\x00\x00\x1cftypavif") == "avif"
    assert picture_kind(b"\x00\x00\x00\x24ftypheic") == "heic"
