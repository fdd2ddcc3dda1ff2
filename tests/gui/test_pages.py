"""Files with several pages, notices about pictures, and file names as they come."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QSysInfo, QUrl

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import CogVLM2LiteError, ImageError
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from gui.chat.dropped import DroppedContent, read_file, read_mime
from gui.data.export import to_html, to_json, to_markdown, to_text
from gui.data.history import FILE, History
from gui.data.import_json import parse_export
from gui.data.state import Conversation, Status
from tests.helpers.desk import Desk
from tests.helpers.giving import asked_about, drop, give_bytes
from tests.helpers.pages import COLORS, save_three_pages, three_pages

SIGN = (checkpoint_folder().parent / "pictures" / "sign.png").read_bytes()


def uris(*paths: bytes) -> QMimeData:
    """Return what a file manager drops: the bytes of names, percent-encoded."""
    mime = QMimeData()
    mime.setData("text/uri-list", b"\r\n".join(b"file://" + quoted(path) for path in paths))
    return mime


def quoted(path: bytes) -> bytes:
    return b"".join(b"/" if byte == 47 else b"%%%02X" % byte for byte in path)


def shown_color(desk: Desk) -> tuple[int, ...]:
    image = desk.chat.panel.view.grab().toImage()
    color = image.pixelColor(image.rect().center())
    return color.red(), color.green(), color.blue()


def open_three_pages(desk: Desk) -> None:
    desk.open_demo()
    give_bytes(desk.chat, three_pages())
    desk.qtbot.waitUntil(desk.chat.panel.pages.isVisible, timeout=15_000)


def choose_page(desk: Desk, page: int) -> None:
    desk.chat.panel.pages.setValue(page)
    desk.qtbot.waitUntil(lambda: shown_color(desk) == COLORS[page - 1], timeout=15_000)


def test_a_page_is_named_and_another_one_is_chosen_kept_and_asked_about(desk: Desk) -> None:
    panel = desk.chat.panel
    open_three_pages(desk)
    assert (panel.pages.text(), panel.pages.maximum()) == ("Page 1 of 3", 3)
    assert panel.notice.isVisible()
    assert "page 1 of 3" in panel.notice.text()
    choose_page(desk, 3)
    assert panel.pages.text() == "Page 3 of 3"
    assert not panel.notice.isVisible()
    desk.ask("What is it?")
    assert asked_about(desk.engine.asked[-1], three_pages(), 3)
    kept = desk.chat.conversation
    assert kept is not None
    desk.chat.start_new()
    assert not panel.pages.isVisible()
    desk.chat.show_conversation(desk.program.history.load(kept.id))
    desk.qtbot.waitUntil(panel.pages.isVisible, timeout=15_000)
    assert panel.pages.text() == "Page 3 of 3"
    give_bytes(desk.chat, SIGN)
    desk.chat.start_new()
    desk.ask("Without a picture?")
    assert desk.engine.asked[-1].image is None


@pytest.mark.parametrize("choice", ["new", "here", "removed"])
def test_another_page_is_another_picture(desk: Desk, choice: str) -> None:
    open_three_pages(desk)
    desk.ask("One?")
    first = desk.chat.conversation
    assert first is not None
    desk.chat.panel.pages.setValue(2)
    chip = desk.chat.chip
    desk.qtbot.waitUntil(lambda: shown_color(desk) == COLORS[1], timeout=15_000)
    assert chip.choice.isVisible()
    {"new": chip.new_button, "here": chip.here_button, "removed": chip.remove_button}[
        choice
    ].click()
    after = 1 if choice == "removed" else 2
    desk.qtbot.waitUntil(lambda: shown_color(desk) == COLORS[after - 1], timeout=15_000)
    desk.qtbot.waitUntil(lambda: desk.chat.panel.pages.value() == after, timeout=15_000)
    desk.ask("Two?")
    assert asked_about(desk.engine.asked[-1], three_pages(), after)
    assert (desk.chat.conversation is first) == (choice != "new")
    kept = desk.program.history.load(first.id).page
    assert kept == (2 if choice == "here" else None)


def about_two_pages(desk: Desk, folder: Path) -> Conversation:
    """Ask about page 1, which nobody chose, and then about page 2, in one conversation."""
    desk.open_demo()
    desk.chat.take(DroppedContent(files=(save_three_pages(folder),)))
    desk.qtbot.waitUntil(desk.chat.panel.pages.isVisible, timeout=15_000)
    desk.ask("One?")
    desk.chat.panel.pages.setValue(2)
    desk.qtbot.waitUntil(lambda: shown_color(desk) == COLORS[1], timeout=15_000)
    desk.chat.chip.here_button.click()
    desk.ask("Two?")
    assert desk.chat.conversation is not None
    return desk.chat.conversation


def test_a_turn_keeps_its_page_and_the_name_of_the_file(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path / "data")
    asked = about_two_pages(desk, tmp_path)
    desk.program.close()
    desk = open_desk(tmp_path / "data")
    desk.open_demo()
    kept = desk.program.history.load(asked.id)
    assert [(turn.page, turn.file) for turn in kept.path()] == [(1, "scan.tif"), (2, "scan.tif")]
    desk.chat.show_conversation(kept)
    desk.qtbot.waitUntil(lambda: shown_color(desk) == COLORS[1], timeout=15_000)
    first, second = (desk.chat.transcript.view_of(turn.id).picture for turn in kept.path())
    assert first is not None
    assert second is not None
    assert first.accessibleName() == "The whole picture, page 1 (scan.tif)"
    assert second.accessibleName() == "The whole picture, page 2 (scan.tif)"
    desk.chat.answer_again(kept.path()[0].id)  # about its own page, whatever is shown
    desk.qtbot.waitUntil(lambda: len(desk.engine.asked) == 1 and not desk.chat.busy)
    assert asked_about(desk.engine.asked[-1], three_pages(), 1)
    desk.chat.ask_edited(kept.path()[0].id, "And this?")
    desk.qtbot.waitUntil(lambda: len(desk.engine.asked) == 2 and not desk.chat.busy)
    assert asked_about(desk.engine.asked[-1], three_pages(), 1)
    assert kept.path()[-1].page == 1
    desk.ask("What else?")
    assert asked_about(desk.engine.asked[-1], three_pages(), 2)


def test_exports_name_file_and_page_of_each_turn(desk: Desk, tmp_path: Path) -> None:
    conversation = about_two_pages(desk, tmp_path)
    for text in (
        to_markdown(conversation, ""), to_html(conversation, b""), to_text(conversation)
    ):  # fmt: skip
        assert re.findall(r"scan\.tif, page (\d)", text) == ["1", "2"]
    taken = parse_export(to_json(conversation, three_pages()).encode(), "x").conversation
    kept = desk.program.history.import_conversation(taken, three_pages())
    assert [(turn.page, turn.file) for turn in kept.path()] == [(1, "scan.tif"), (2, "scan.tif")]


def test_an_odd_name_of_a_file_does_not_break_an_export(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        talk = history.create(title="odd")
        history.ask(talk, "?", None, file="a_b*<i>[x](y).png", page=7)
    assert r", a\_b\*\<i\>\[x\](y).png, page 7*" in to_markdown(talk, "")
    assert ", a_b*&lt;i&gt;[x](y).png, page 7<" in to_html(talk, b"")
    assert ", a_b*<i>[x](y).png, page 7] ?" in to_text(talk)


def test_an_ordinary_picture_has_no_page_but_its_name(desk: Desk) -> None:
    desk.open_demo()
    give_bytes(desk.chat, SIGN)
    desk.ask("What?")
    conversation = desk.chat.conversation
    assert conversation is not None
    [turn] = desk.program.history.load(conversation.id).path()
    assert (turn.page, turn.file) == (None, "Pasted picture")
    desk.chat.start_new()
    desk.ask("Without?")
    assert desk.chat.conversation is not None
    [turn] = desk.program.history.load(desk.chat.conversation.id).path()
    assert (turn.page, turn.file) == (None, "")


def test_a_history_without_sources_of_turns_still_opens(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        old = history.create(title="old")
        history.ask(old, "Old?", None)
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("DROP TABLE source")
        database.execute("DROP TABLE given")
        database.execute("PRAGMA user_version = 5")
    database.close()
    with History(tmp_path) as history:
        again = history.load(old.id)
        [turn] = again.path()
        assert (turn.question, turn.page, turn.file) == ("Old?", None, "")
        history.write(again._change(turn.id, status=Status.DONE, answer="Yes."))
        history.ask(again, "New?", turn.id, file="a.tif", page=3)
        assert [(t.file, t.page) for t in history.load(old.id).path()] == [("", None), ("a.tif", 3)]
        assert history.given(0) is None


def test_an_ordinary_picture_has_neither_notice_nor_pages(desk: Desk) -> None:
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(desk.chat.panel.view.isVisible, timeout=15_000)
    assert not desk.chat.panel.notice.isVisible()
    assert not desk.chat.panel.pages.isVisible()


def test_a_history_of_an_earlier_version_gets_the_column_for_pages(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        history.create(title="old")
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("ALTER TABLE conversation DROP COLUMN page")
        database.execute("ALTER TABLE turn DROP COLUMN parts")
        database.execute("PRAGMA user_version = 2")
    database.close()
    with History(tmp_path) as history:
        old = history.load(history.list()[0].id)
        assert (old.title, old.page) == ("old", None)
        old.page = 4
        history.save(old)
        assert history.load(old.id).page == 4
        taken = parse_export(to_json(old, b"").encode(), "x").conversation
        assert history.import_conversation(taken, b"").page == 4


NAMES = [
    b"it's.png",
    b"'quoted'.png",
    b"caf\xe9.png",
    "图片 1.png".encode(),
    b"~photo.png",
    b"line\nbreak.png",
    b"\x1b[31m\x01.png",
    b"<b>bold.png",
    b"100%25 #1?.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_file_of_any_name_is_used(desk: Desk, tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).write_bytes(SIGN)
    assert read_mime(uris(path)).files == (Path(os.fsdecode(path)),)
    drop(desk.chat.panel, uris(path))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN, timeout=15_000)


def test_files_of_any_names_become_a_conversation_each(desk: Desk, tmp_path: Path) -> None:
    paths = [
        os.fsencode(tmp_path) + b"/" + name for name in (b"it's.png", b"caf\xe9.png", b"a\nb.png")
    ]
    for path in paths[:-1]:
        Path(os.fsdecode(path)).write_bytes(SIGN)
    drop(desk.chat.panel, uris(*paths))
    desk.qtbot.waitUntil(desk.chat.several.isVisible)
    desk.chat.several.each_button.click()
    desk.qtbot.waitUntil(lambda: desk.chat.list.count() == 2, timeout=30_000)
    titles = [desk.chat.list.item(i).text() for i in range(2)]
    assert titles == ["it's.png", "caf\\xe9.png"]
    assert desk.chat.message.startswith("a\\x0ab.png can't be read")


@pytest.mark.parametrize("host", ["localhost", QSysInfo.machineHostName()])
def test_a_path_may_name_this_computer(tmp_path: Path, host: str) -> None:
    (tmp_path / "a.png").write_bytes(SIGN)
    mime = QMimeData()
    mime.setUrls([QUrl(f"file://{host}{tmp_path}/a.png")])
    assert read_mime(mime).files == (tmp_path / "a.png",)


def test_what_can_not_be_a_file_is_refused(tmp_path: Path) -> None:
    for name in (b"a\x00b.png", b"x" * 5000, b"gone.png"):
        with pytest.raises(CogVLM2LiteError, match="can't be read"):
            read_file(read_mime(uris(os.fsencode(tmp_path) + b"/" + name)).files[0])


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(DEFAULT_LIMITS.max_file_bytes + 1)
    with pytest.raises(ImageError, match="more than the"):
        read_file(tmp_path / "a.png")
