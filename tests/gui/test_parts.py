"""Questions about a part of the picture: by mouse and keys, what the model gets, what is kept."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PySide6.QtCore import QPoint, QPointF, QRect, QSize, Qt
from PySide6.QtTest import QTest

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import FinishReason, ImageEncoded, TextDelta
from cogvlm2_lite.inputs.image import open_image, opened_image, resize_pixels
from cogvlm2_lite.worker.protocol import Ask
from gui.chat.dates import short_date
from gui.chat.list_rows import RowPainter
from gui.chat.parts import to_turned, to_upright
from gui.chat.viewer import Viewer
from gui.data.export import to_html, to_markdown
from gui.data.history import FILE, History
from gui.data.import_json import read_export
from gui.data.state import Part, Status, Turn
from tests.gui.test_viewer import LEFT, NONE, as_array, button, check_pixels, drag, drawn, png, show
from tests.helpers.desk import Desk, Script

SHIFT = Qt.KeyboardModifier.ShiftModifier
PIXELS = drawn(600, 400)
PICTURE = png(PIXELS)


def got(ask: Ask) -> NDArray[np.uint8]:
    """Return the pixels that the engine gets."""
    assert ask.image is not None
    assert ask.decoded is not None
    return np.frombuffer(ask.image, np.uint8).reshape(ask.decoded.height, ask.decoded.width, 3)


def draw(view: Viewer, place: QRect, modifiers: Qt.KeyboardModifier = SHIFT) -> None:
    """Drag over a rectangle of the picture."""
    scale = view.zoom
    first = view.from_picture(QPointF(place.topLeft()))
    last = first + QPointF(place.width() * scale, place.height() * scale)
    drag(view, first.toPoint(), last.toPoint(), modifiers)


def at_100_percent(desk: Desk) -> Viewer:
    """Show the picture so that mouse positions are whole pixels."""
    desk.program.window.resize(1500, 900)
    desk.open_demo()
    view = show(desk, PICTURE)
    desk.qtbot.wait(20)
    view.set_zoom(1.0)
    return view


def the_part(desk: Desk) -> Part:
    conversation = desk.chat.conversation
    assert conversation is not None
    [part] = conversation.path()[-1].parts
    return part


def cut(part: Part) -> NDArray[np.uint8]:
    """Return what the model must get, computed here on its own."""
    rows = PIXELS[part.y : part.y + part.height, part.x : part.x + part.width]
    return np.rot90(rows, -part.rotation)


def test_a_dragged_part_is_asked_about_in_full_pixels_and_the_whole_is_one_click_away(
    desk: Desk,
) -> None:
    view = at_100_percent(desk)
    draw(view, QRect(120, 80, 200, 100))
    assert desk.chat.composer.placeholderText() == "Ask about this part"
    assert desk.chat.panel.picture.target.isVisible()
    assert "200 × 100" in desk.chat.panel.picture.target_text.text()
    desk.ask("What is here?")
    part = the_part(desk)
    assert part == Part(x=120, y=80, width=200, height=100)
    asked = desk.engine.asked[-1]
    assert np.array_equal(got(asked), PIXELS[80:180, 120:320])
    assert asked.decoded is not None
    wanted = opened_image(
        PIXELS[80:180, 120:320], format="memory", original_size=(200, 100), name=""
    )
    assert asked.decoded.sha256 == wanted.sha256  # the key of the engine's cache
    desk.ask("And this?")  # about the same part, with the first answer
    assert np.array_equal(got(desk.engine.asked[-1]), PIXELS[80:180, 120:320])
    assert desk.engine.asked[-1].history == (("What is here?", "It is **red**."),)
    QTest.mouseClick(button(desk, "Ask about the whole picture"), LEFT)
    assert desk.chat.composer.placeholderText() == "Ask about the picture"
    desk.ask("And all of it?")
    assert np.array_equal(got(desk.engine.asked[-1]), PIXELS)


def test_the_tool_for_parts_works_without_shift_and_escape_ends_it(desk: Desk) -> None:
    view = at_100_percent(desk)
    tool = button(desk, "Ask about a part: drag a rectangle (P)")
    QTest.mouseClick(tool, LEFT)
    QTest.keyClick(view, Qt.Key.Key_Escape)
    assert not tool.isChecked()
    draw(view, QRect(10, 10, 50, 50), NONE)  # moves the picture
    assert desk.chat.panel.picture.marked == ()
    QTest.mouseClick(tool, LEFT)
    draw(view, QRect(10, 10, 50, 50), NONE)
    [part] = desk.chat.panel.picture.marked
    assert (part.width, part.height) == (50, 50)
    assert not tool.isChecked()  # the next drag moves again
    draw(view, QRect(300, 300, 3, 1))  # a click with Shift is no part
    assert desk.chat.panel.picture.marked == (part,)


def test_a_part_that_hangs_over_the_edge_is_cut_there(desk: Desk) -> None:
    view = at_100_percent(desk)
    draw(view, QRect(-30, 350, 100, 120))
    [part] = desk.chat.panel.picture.marked
    assert part == Part(x=0, y=350, width=70, height=50)


def test_a_part_is_chosen_by_keys(desk: Desk) -> None:
    view = at_100_percent(desk)
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_P)
    for key, modifiers in (
        (Qt.Key.Key_Left, NONE), (Qt.Key.Key_Up, NONE), (Qt.Key.Key_Right, SHIFT),
        (Qt.Key.Key_Down, SHIFT), (Qt.Key.Key_Return, NONE),
    ):  # fmt: skip
        QTest.keyClick(view, key, modifiers)
    desk.ask("What?")
    part = the_part(desk)
    assert (part.width, part.height) == (300 + 15, 200 + 15)
    assert (part.x, part.y) == (150 - 15, 100 - 15)
    assert np.array_equal(got(desk.engine.asked[-1]), cut(part))
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_P)  # starts with the part that is chosen
    QTest.keyClick(view, Qt.Key.Key_Escape)
    QTest.keyClick(view, Qt.Key.Key_Escape)
    assert desk.chat.panel.picture.marked == (part,)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_changes_what_the_model_gets_and_the_eye_shows_exactly_that(
    desk: Desk, turns: int
) -> None:
    view = at_100_percent(desk)
    for _ in range(turns):
        QTest.mouseClick(button(desk, "Rotate"), LEFT)
    size = (400, 600) if turns % 2 else (600, 400)
    desk.qtbot.waitUntil(lambda: view.picture_size.toTuple() == size)
    desk.ask("Whole?")
    assert np.array_equal(got(desk.engine.asked[-1]), np.rot90(PIXELS, -turns))
    view.set_zoom(1.0)
    draw(view, QRect(100, 150, 80, 60))
    desk.ask("Part?")
    part = the_part(desk)
    assert part.rotation == turns
    model_gets = got(desk.engine.asked[-1])
    assert np.array_equal(model_gets, np.rot90(PIXELS, -turns)[150:210, 100:180])
    assert np.array_equal(model_gets, cut(part))
    QTest.mouseClick(button(desk, "What the model sees"), LEFT)
    desk.qtbot.waitUntil(lambda: view.picture_size.toTuple() == (1344, 1344))
    view.set_zoom(1.0)
    opened = opened_image(model_gets, format="memory", original_size=(80, 60), name="")
    check_pixels(view, resize_pixels(opened, 1344))


def test_rectangles_turn_with_the_picture_and_back() -> None:
    size, place = QSize(600, 400), QRect(10, 20, 30, 40)
    assert to_turned(place, size, 1) == QRect(400 - 20 - 40, 10, 40, 30)
    for quarters in range(-4, 5):
        assert to_upright(to_turned(place, size, quarters), size, quarters) == place


def test_answers_about_other_parts_do_not_go_along_and_the_answer_says_so(desk: Desk) -> None:
    view = at_100_percent(desk)
    desk.ask("Whole?")
    draw(view, QRect(0, 0, 100, 100))
    desk.ask("Corner?")
    assert not desk.engine.asked[-1].history
    conversation = desk.chat.conversation
    assert conversation is not None
    assert "which the model does not get: 1" in conversation.path()[-1].notes[0]
    desk.ask("Corner again?")
    assert desk.engine.asked[-1].history == (("Corner?", "It is **red**."),)
    desk.chat.panel.picture.choose_whole()
    desk.ask("Whole again?")
    assert desk.engine.asked[-1].history == (("Whole?", "It is **red**."),)


def test_a_part_survives_reload_regenerate_edit_and_export(
    open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk = open_desk(tmp_path / "data")
    view = at_100_percent(desk)
    draw(view, QRect(40, 30, 200, 100))
    desk.ask("What is here?")
    part = the_part(desk)
    first = desk.chat.conversation
    assert first is not None
    desk.chat.export_to(first.id, tmp_path / "talk.json")
    desk.program.close()

    desk = open_desk(tmp_path / "data")
    desk.open_demo()
    desk.chat.show_conversation(desk.program.history.load(first.id))
    view = desk.chat.panel.view
    desk.qtbot.waitUntil(lambda: not view.picture_size.isEmpty(), timeout=20_000)
    desk.qtbot.waitUntil(lambda: desk.chat.panel.picture.marked == (part,))
    turn = first.path()[0]
    bubble = desk.chat.transcript.view_of(turn.id)
    assert bubble.picture is not None
    assert "200 × 100" in bubble.picture.accessibleName()
    desk.chat.panel.picture.choose_whole()
    QTest.mouseClick(bubble.picture, LEFT)  # shows the part large
    assert desk.chat.panel.picture.marked == (part,)
    assert view.zoom > 1
    desk.chat.panel.picture.choose_whole()
    desk.chat.answer_again(turn.id)  # as it was asked, whatever is chosen now
    desk.qtbot.waitUntil(lambda: not desk.chat.busy and len(desk.engine.asked) == 1)
    assert np.array_equal(got(desk.engine.asked[-1]), cut(part))
    desk.chat.ask_edited(turn.id, "What is there?")
    desk.qtbot.waitUntil(lambda: not desk.chat.busy and len(desk.engine.asked) == 2)
    assert the_part(desk) == part
    assert np.array_equal(got(desk.engine.asked[-1]), cut(part))

    conversation = desk.chat.conversation
    assert conversation is not None
    said = "Part of the picture: 200 x 100 pixels at (40, 30)"
    assert said in to_markdown(conversation, "")
    assert said in to_html(conversation, b"")
    imported = read_export(tmp_path / "talk.json").conversation
    assert [turn.parts for turn in imported.turns.values()] == [(part,)]
    kept = desk.program.history.import_conversation(imported, PICTURE)
    assert [turn.parts for turn in kept.turns.values()] == [(part,)]


@pytest.mark.parametrize(("key", "value"), [("x", -1), ("width", 0), ("rotation", 4), ("y", 2**40)])
def test_an_impossible_part_in_an_exported_file_is_refused(
    tmp_path: Path, key: str, value: int
) -> None:
    part = {"x": 1, "y": 2, "width": 3, "height": 4, "page": None, "rotation": 0, key: value}
    turn = {
        "id": 1, "parent": None, "question": "?", "answer": "", "status": "done", "notes": [],
        "error": "", "stats": None, "created": 0, "parts": [part],
    }  # fmt: skip
    content = {
        "program": "CogVLM2 Lite", "title": "", "leaf": 1, "picture": None, "turns": [turn],
    }  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(CogVLM2LiteError, match="damaged"):
        read_export(tmp_path / "x.json")


def test_a_part_outside_of_a_replaced_picture_is_an_error_and_no_other_part(desk: Desk) -> None:
    view = at_100_percent(desk)
    draw(view, QRect(400, 300, 150, 90))
    desk.ask("What?")
    conversation = desk.chat.conversation
    assert conversation is not None
    desk.program.settings.set("second_picture_new", False)
    show(desk, png(drawn(90, 70)))
    desk.ask("And this one?")
    assert got(desk.engine.asked[-1]).shape == (70, 90, 3)
    count = len(desk.engine.asked)
    desk.chat.answer_again(conversation.path()[0].id)
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert len(desk.engine.asked) == count
    assert "was replaced" in conversation.path()[-1].error


def test_a_history_of_an_earlier_version_gets_the_column_for_parts(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        old = history.create(title="old")
        history.ask(old, "?", None)
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("ALTER TABLE turn DROP COLUMN parts")
        database.execute("PRAGMA user_version = 3")  # of the version before parts
        database.commit()
    with History(tmp_path) as history:
        [turn] = history.load(old.id).turns.values()
        assert turn.parts == ()
        part = Part(x=1, y=2, width=3, height=4, page=2, rotation=3)
        history.ask(history.load(old.id), "?", None, (part,))
    with History(tmp_path) as history:
        assert list(history.load(old.id).turns.values())[-1].parts == (part,)


def test_the_list_has_small_pictures_and_dates(desk: Desk) -> None:
    at_100_percent(desk)
    desk.ask("What?")
    conversation = desk.chat.conversation
    assert conversation is not None
    rows = desk.chat.list.itemDelegate()
    assert isinstance(rows, RowPainter)
    desk.chat.list.viewport().repaint()
    desk.qtbot.waitUntil(lambda: rows.image(conversation.picture) is not None, timeout=20_000)
    item = desk.chat.list.item(0)
    seen = as_array(desk.chat.list.viewport().grab().toImage())
    place = desk.chat.list.visualItemRect(item)
    small = seen[place.top() + 12 : place.top() + 38, place.left() + 12 : place.left() + 38]
    assert len(np.unique(small.reshape(-1, 3), axis=0)) > 100  # many colors: the picture
    spoken = item.data(Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == f"What?, {short_date(conversation.changed)}"


def test_dates_are_short() -> None:
    now = datetime(2026, 3, 10, 15, 30, tzinfo=UTC).astimezone()
    assert ":" in short_date(now.timestamp(), now)
    yesterday = (now - timedelta(days=1)).timestamp()
    assert short_date(yesterday, now).startswith("Yesterday ")
    assert short_date((now - timedelta(days=5)).timestamp(), now) == "5 Mar"
    assert short_date((now - timedelta(days=400)).timestamp(), now) == "3 Feb 2025"
    assert short_date(0) == ""


@pytest.mark.slow
def test_the_engine_encodes_the_whole_and_a_part_once_each() -> None:
    from cogvlm2_lite import load

    sign = open_image(checkpoint_folder().parent / "pictures" / "sign.png")
    half = sign.rgb[: sign.height // 2]
    part = opened_image(half, format="memory", original_size=(0, 0), name="")
    model = load(checkpoint_folder(), device="cpu")
    reused = [
        event.reused
        for image in (sign, part, sign, part)
        for event in model.answer("What is it?", image=image)
        if isinstance(event, ImageEncoded)
    ]
    assert reused == [False, False, True, True]


# --- several parts -------------------------------------------------------------------------------

PARTS = tuple(Part(x=0, y=100 * n, width=600, height=150) for n in range(3))


def test_several_parts_are_asked_about_one_after_the_other_and_answered_together(
    desk: Desk, script: Script
) -> None:
    at_100_percent(desk)
    desk.chat.panel.picture.choose_parts(PARTS)
    assert desk.chat.composer.placeholderText() == "Ask about each of 3 parts"
    desk.ask("What does it say?")
    assert len(desk.engine.asked) == 3
    for part, ask in zip(PARTS, desk.engine.asked, strict=True):
        assert np.array_equal(got(ask), cut(part))
        assert (ask.question, ask.history) == ("What does it say?", ())
    conversation = desk.chat.conversation
    assert conversation is not None
    [turn] = desk.program.history.load(conversation.id).path()
    assert turn.parts == PARTS
    assert turn.status is Status.DONE
    assert turn.answer == "\n\n".join(
        f"**Part {number} of 3**\n\nIt is **red**." for number in (1, 2, 3)
    )
    assert turn.stats is not None
    assert (turn.stats.completion_tokens, turn.stats.encode_s) == (15, 1.5)
    assert not turn.is_cut
    desk.chat.panel.picture.choose_whole()
    desk.ask("Sum up.")  # all parts together are the whole picture
    assert desk.engine.asked[-1].history == (("What does it say?", turn.answer),)


def test_stop_ends_the_series_of_parts_and_keeps_the_answers(desk: Desk, script: Script) -> None:
    script.hold = True
    at_100_percent(desk)
    desk.chat.panel.picture.choose_parts(PARTS)
    desk.chat.composer.setPlainText("What?")
    desk.chat.send()
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers == 1 and len(desk.engine.asked) == 2)
    desk.qtbot.waitUntil(lambda: "Part 2 of 3" in desk.chat.conversation.path()[0].answer)
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    conversation = desk.chat.conversation
    assert conversation is not None
    [turn] = desk.program.history.load(conversation.id).path()
    assert turn.status is Status.STOPPED
    assert turn.answer.startswith("**Part 1 of 3**\n\nIt is **red**.\n\n**Part 2 of 3**")
    assert len(desk.engine.asked) == 2
    script.hold = False
    desk.chat.answer_again(turn.id)
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert len(desk.engine.asked) == 5


def ask_about_parts(desk: Desk, script: Script, *, answered: int) -> Turn:
    """Ask about three parts; the next part's answer stays open after so many."""
    script.hold = True
    at_100_percent(desk)
    desk.chat.panel.picture.choose_parts(PARTS)
    desk.chat.composer.setPlainText("What?")
    desk.chat.send()
    for _ in range(answered):
        desk.engine_says_all()
    count = answered + 1
    desk.qtbot.waitUntil(lambda: len(desk.engine.asked) == count and desk.engine.open_answers == 1)
    return the_turn(desk)


def the_turn(desk: Desk) -> Turn:
    assert desk.chat.conversation is not None
    return desk.chat.conversation.path()[-1]


def resume(desk: Desk, script: Script, text: str) -> Turn:
    """Press Continue, and wait for the end; every answer is then `text`."""
    script.hold, script.events = False, (TextDelta(text=text),)
    button = desk.chat.transcript.view_of(the_turn(desk).id).continue_button
    assert button.isVisible()
    assert button.toolTip() == "Ask about the parts that have no answer yet"
    QTest.mouseClick(button, LEFT)
    desk.qtbot.waitUntil(lambda: not desk.chat.busy and not desk.chat.waiting, timeout=20_000)
    desk.qtbot.waitUntil(button.isHidden)
    return the_turn(desk)


def said(*answers: str) -> str:
    count = len(answers)
    return "\n\n".join(
        f"**Part {number} of {count}**\n\n{text}" for number, text in enumerate(answers, 1)
    )


def test_a_stopped_series_of_parts_is_continued_with_the_missing_ones(
    desk: Desk, script: Script
) -> None:
    script.events = (TextDelta(text=" One.\n\n**Part 2 of 3**\n\nIs in the picture. "),)
    ask_about_parts(desk, script, answered=1)
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    asked = len(desk.engine.asked)
    turn = resume(desk, script, " Now.")
    again = desk.engine.asked[asked:]
    assert [ask.continue_from for ask in again] == ["", ""]
    for part, ask in zip(PARTS[1:], again, strict=True):
        assert np.array_equal(got(ask), cut(part))
    first = "One.\n\n**Part 2 of 3**\n\nIs in the picture."
    assert turn.answer == said(first, "Now.", "Now.")
    assert (turn.status, turn.ended) == (Status.DONE, 3)
    assert desk.chat.conversation is not None
    assert desk.program.history.load(desk.chat.conversation.id).path() == [turn]


def test_a_series_that_failed_or_was_killed_is_continued_after_a_restart(
    open_desk: Callable[[Path], Desk], tmp_path: Path, script: Script
) -> None:
    desk = open_desk(tmp_path / "data")
    ask_about_parts(desk, script, answered=2)
    killed = tmp_path / "killed"
    desk.qtbot.waitUntil(lambda: "Part 3" in last_on_disk(desk).answer, timeout=5_000)
    shutil.copytree(tmp_path / "data", killed)
    desk.engine.die("It crashed.")
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert the_turn(desk).status is Status.FAILED
    number = desk.chat.conversation.id
    for folder, status in ((tmp_path / "data", Status.FAILED), (killed, Status.INTERRUPTED)):
        desk.program.close()
        desk = open_desk(folder)
        desk.open_demo()
        desk.chat.show_conversation(desk.program.history.load(number))
        assert the_turn(desk).status is status
        turn = resume(desk, script, " Third.")
        [ask] = desk.engine.asked
        assert np.array_equal(got(ask), cut(PARTS[2]))
        assert turn.answer == said("It is **red**.", "It is **red**.", "Third.")
        assert (turn.status, turn.error) == (Status.DONE, "")


def last_on_disk(desk: Desk) -> Turn:
    assert desk.chat.conversation is not None
    assert desk.program.history.folder is not None
    with History(desk.program.history.folder) as other:
        return other.load(desk.chat.conversation.id).path()[-1]


def test_a_series_can_be_stopped_and_continued_again_and_again(desk: Desk, script: Script) -> None:
    ask_about_parts(desk, script, answered=0)
    desk.chat.stop()
    for place in range(3):
        desk.qtbot.waitUntil(lambda: not desk.chat.busy)
        turn = the_turn(desk)
        assert turn.ended == place
        if place < 2:
            desk.chat.continue_answer(turn.id)
            desk.engine_says_all()
            desk.qtbot.waitUntil(lambda: desk.engine.open_answers == 1)
            desk.chat.stop()
    assert resume(desk, script, "End.").answer == said("It is **red**.", "It is **red**.", "End.")


def test_a_series_in_an_export_and_of_an_earlier_version(
    desk: Desk, script: Script, tmp_path: Path
) -> None:
    ask_about_parts(desk, script, answered=1)
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    turn, talk = the_turn(desk), desk.chat.conversation
    assert talk is not None
    desk.chat.export_to(talk.id, tmp_path / "talk.json")
    kept = desk.program.history.import_conversation(
        read_export(tmp_path / "talk.json").conversation, PICTURE
    )
    assert kept.path()[0].ended == 1
    assert kept.can_continue(kept.path()[0])
    content = json.loads((tmp_path / "talk.json").read_text())
    content["turns"][0]["ended"] = 4
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    with pytest.raises(CogVLM2LiteError, match="lacks some of them"):
        read_export(tmp_path / "wrong.json")
    del content["turns"][0]["ended"], content["turns"][0]["ended_length"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = read_export(tmp_path / "old.json").conversation
    assert old.path()[0].answer == turn.answer
    assert not old.can_continue(old.path()[0])  # which parts have their answer is not known


def test_stop_works_while_a_part_is_being_cut(desk: Desk) -> None:
    at_100_percent(desk)
    desk.chat.panel.picture.choose_parts(PARTS[:1])
    desk.chat.composer.setPlainText("What?")
    desk.chat.send()
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    conversation = desk.chat.conversation
    assert conversation is not None
    assert conversation.path()[0].status is Status.STOPPED
    desk.ask("Again?")
    assert conversation.path()[-1].answer == "It is **red**."
    assert len(desk.engine.asked) == 1


def test_an_answer_about_a_part_that_reached_its_limit_is_continued_with_the_part(
    desk: Desk, script: Script
) -> None:
    view = at_100_percent(desk)
    draw(view, QRect(40, 30, 200, 100))
    script.ends = FinishReason.LENGTH
    desk.ask("What?")
    script.ends = FinishReason.EOS
    script.events = (TextDelta(text="It is **red** and round."),)
    desk.chat.panel.picture.choose_whole()
    conversation = desk.chat.conversation
    assert conversation is not None
    desk.chat.continue_answer(conversation.path()[0].id)
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert desk.engine.asked[-1].continue_from == "It is **red**."
    assert np.array_equal(got(desk.engine.asked[-1]), PIXELS[30:130, 40:240])


def test_a_click_on_the_bubble_of_a_turned_picture_turns_it_back(desk: Desk) -> None:
    view = at_100_percent(desk)
    desk.ask("Upright?")
    QTest.mouseClick(button(desk, "Rotate"), LEFT)
    desk.qtbot.waitUntil(lambda: view.picture_size.toTuple() == (400, 600))
    desk.ask("Turned?")
    conversation = desk.chat.conversation
    assert conversation is not None
    bubble = desk.chat.transcript.view_of(conversation.path()[0].id)
    assert bubble.picture is not None
    QTest.mouseClick(bubble.picture, LEFT)
    desk.qtbot.waitUntil(lambda: view.picture_size.toTuple() == (600, 400))
    desk.ask("Upright again?")
    assert np.array_equal(got(desk.engine.asked[-1]), PIXELS)
    assert QPoint(desk.program.history.load(conversation.id).rotation, 0) == QPoint(0, 0)
