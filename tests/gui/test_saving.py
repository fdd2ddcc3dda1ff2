"""Saving to files: nothing of the user's is replaced unasked, and the chosen kind is what comes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cogvlm2_lite.events import TextDelta
from cogvlm2_lite.files import free_name, write_new
from gui.data.export import KINDS
from gui.data.saving import How, SaveError, name_from, save, save_table, with_suffix
from tests.helpers.desk import Desk, Script
from tests.helpers.dialogs import Step, choose, press, save_as, working

TABLE = "| a | b |\n|---|---|\n| 1 | =2 |\n\n\\(x^2\\) and **bold**"


def talk(desk: Desk, title: str = "What?") -> None:
    desk.open_demo()
    desk.ask(title)


def export(desk: Desk, *steps: Step) -> None:
    """Export the first conversation of the list by its menu."""
    places = desk.chat.list.visualItemRect(desk.chat.list.item(0))
    with working(choose("Export…"), *steps):
        desk.chat.list.customContextMenuRequested.emit(places.center())


def wait_message(desk: Desk, text: str) -> None:
    desk.qtbot.waitUntil(lambda: text in desk.chat.message, timeout=10_000)


@pytest.mark.parametrize(
    ("kind", "begin"),
    [("Markdown", "# What?"), ("HTML", "<!doctype"), ("JSON", "{"), ("Text", "What?\n\n[")],
)
def test_the_chosen_kind_is_written(
    desk: Desk, script: Script, tmp_path: Path, kind: str, begin: str
) -> None:
    script.events = [TextDelta(text=TABLE)]
    talk(desk)
    export(desk, save_as(str(tmp_path / "my talk"), kind))
    wait_message(desk, "was saved as")
    suffix = {"Markdown": "md", "HTML": "html", "JSON": "json", "Text": "txt"}[kind]
    [file] = tmp_path.glob("my talk*")
    assert file.name == f"my talk.{suffix}"
    assert file.read_text(encoding="utf-8").startswith(begin)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_the_suggested_name_is_the_title_and_a_chosen_kind_replaces_its_suffix(
    desk: Desk, tmp_path: Path
) -> None:
    desk.program.settings.set("export_folder", str(tmp_path))
    talk(desk, 'Is 3/4 < 5? "Yes": a.b')
    seen: list[str] = []
    export(desk, save_as(None, "JSON", seen))
    wait_message(desk, "was saved as")
    assert seen == ["Is 3 4 5 Yes a.b.md"]
    assert (tmp_path / "Is 3 4 5 Yes a.b.json").exists()


def test_an_existing_file_is_asked_about_once_with_all_choices(desk: Desk, tmp_path: Path) -> None:
    desk.program.settings.set("export_folder", str(tmp_path))
    talk(desk)
    mine = tmp_path / "talk.md"
    mine.write_text("mine")
    export(desk, save_as("talk"), press("Cancel"))
    assert mine.read_text() == "mine"
    export(desk, save_as("talk"), press("Keep it"))
    wait_message(desk, "talk-2.md")
    assert mine.read_text() == "mine"
    assert "It is **red**." in (tmp_path / "talk-2.md").read_text()
    export(desk, save_as("talk"), press("Other name"), save_as("other"))
    wait_message(desk, "other.md")
    export(desk, save_as("talk"), press("Add"))
    wait_message(desk, "talk.md")
    assert mine.read_text().startswith("mine\n\n# What?")
    export(desk, save_as("talk"), press("Replace"))
    desk.qtbot.waitUntil(lambda: mine.read_text().startswith("# What?"))


def test_a_file_that_comes_after_the_question_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("mine")
    with pytest.raises(SaveError, match="already exists"):
        save(file, b"ours")
    (tmp_path / "link.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SaveError, match="already exists"):
        save(tmp_path / "link.csv", b"ours")
    assert file.read_text() == "mine"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["link.csv", "new.csv"]


def test_a_new_file_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    write_new(tmp_path / "a", b"one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"two")
    assert [f.read_bytes() for f in tmp_path.iterdir()] == [b"one"]


def test_rows_are_added_without_their_head_and_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.csv"
    save_table([["a", "b"], ["1", "=2"]], real)
    (tmp_path / "link.csv").symlink_to(real)
    save_table([["a", "b"], ["3", "4"]], tmp_path / "link.csv", How.ADD)
    assert real.read_text(encoding="utf-8-sig") == "a,b\n1,'=2\n3,4\n"
    assert (tmp_path / "link.csv").is_symlink()
    assert free_name(real) == tmp_path / "real-2.csv"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("a/b\\c:d", "a b c d"), ("...", ""), ("CON", "CON-"), ("x\n\ty", "x y"),
        ("图片里有什么?", "图片里有什么"), ("n" * 300, "n" * 120), ("end. ", "end"),
    ],
)  # fmt: skip
def test_a_title_becomes_a_name_for_every_system(title: str, name: str) -> None:
    assert name_from(title) == name


@pytest.mark.parametrize(
    ("typed", "chosen", "file"),
    [
        ("a", 0, "a.md"), ("a", 1, "a.html"), ("a.html", 0, "a.html"), ("a.md", 2, "a.json"),
        ("v2.5", 0, "v2.5.md"), ("v2.5", 3, "v2.5.txt"), ("a.htm", 1, "a.htm"),
        ("A.MD", 0, "A.MD"),
    ],
)  # fmt: skip
def test_the_suffix_is_that_of_the_kind(typed: str, chosen: int, file: str) -> None:
    assert with_suffix(Path(typed), KINDS[chosen].filter, KINDS).name == file


def test_html_is_rendered_and_json_is_read_back(desk: Desk, script: Script, tmp_path: Path) -> None:
    script.events = [TextDelta(text=TABLE + "\n\n<script>alert(1)</script> ![](http://x/y.png)")]
    talk(desk)
    conversation = desk.chat.conversation
    assert conversation is not None
    desk.chat.export_to(conversation.id, tmp_path / "t.html")
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "<td>=2</td>" in page
    assert "<strong>bold</strong>" in page
    assert "<math" in page
    assert "<script" not in page
    assert "<img" not in page
    desk.chat.export_to(conversation.id, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["turns"][0]["answer"].startswith("| a |")
