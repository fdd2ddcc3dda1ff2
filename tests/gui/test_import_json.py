"""An exported conversation comes back whole; a damaged or hostile file leaves nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import FinishReason
from gui.data.export import export, to_json
from gui.data.history import History
from gui.data.import_json import parse_export, read_export
from gui.data.state import Conversation, Status, Turn
from tests.helpers.desk import Desk, finished

PNG = b"\x89PNG\r\n\x1a\n and so on"


def talk() -> Conversation:
    conversation = Conversation(id=7, title="A talk", picture="x")
    conversation.add(Turn(id=11, parent=None, question="One?", created=1e9))
    conversation.note(11, "A note.")
    conversation.finish(11, finished("1", FinishReason.LENGTH, token_ids=(5, 6)))
    conversation.add(Turn(id=12, parent=11, question="Two?", created=2e9))
    conversation.fail(12, "It was killed.")
    conversation.add(Turn(id=13, parent=11, question="Two again?", created=3e9))
    conversation.finish(13, finished("2"))
    conversation.choose(12)
    return conversation


def plain(conversation: Conversation) -> list[Turn]:
    """The turns with numbers counted from 0, to compare."""
    order = {number: place for place, number in enumerate(conversation.turns)}
    return [
        replace(turn, id=order[turn.id], parent=None if turn.parent is None else order[turn.parent])
        for turn in conversation.turns.values()
    ]


def test_what_was_exported_comes_back_with_all_versions(tmp_path: Path) -> None:
    export(talk(), PNG, tmp_path / "talk.json")
    taken = read_export(tmp_path / "talk.json")
    with History(tmp_path / "data") as history:
        history.create(title="other")
        kept = history.import_conversation(taken.conversation, taken.picture)
        assert plain(kept) == plain(talk())
        assert [turn.question for turn in kept.path()] == ["One?", "Two?"]
        assert (kept.title, history.picture(kept.picture)) == ("A talk", PNG)
        again = to_json(kept, PNG)
    assert plain(parse_export(again.encode(), "x").conversation) == plain(talk())


def change(**values: Any) -> bytes:
    return json.dumps({**json.loads(to_json(talk(), PNG)), **values}).encode()


def change_turn(place: int, **values: Any) -> bytes:
    content = json.loads(to_json(talk(), PNG))
    content["turns"][place].update(values)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "not a conversation of this program"),
        (b'{"program": "CogVLM2 Lite"}', "missing required field `title`"),
        (change(program="Other"), "not a conversation of this program"),
        (change(turns={}), r"Expected `array`, got `object` - at `\$.turns`"),
        (change(turns=[1]), r"Expected `object`, got `int` - at `\$.turns\[0\]`"),
        (change(leaf=99), "the turn that is shown"),
        (change(title=5), r"Expected `str`, got `int` - at `\$.title`"),
        (change(picture="@@"), "picture can't be read"),
        (change_turn(0, parent=12), "comes before the one"),
        (change_turn(1, parent=12), "comes before the one"),
        (change_turn(1, id=11), "two turns have the same number"),
        (change_turn(0, id=-1), r"`int` >= 0 - at `\$.turns\[0\].id`"),
        (change_turn(0, id=True), "Expected `int`, got `bool`"),
        (change_turn(0, status="odd"), "Invalid enum value 'odd'"),
        (change_turn(0, created=float("nan")), "is not JSON"),
        (change_turn(0, created=1e300), "`float` < 100000000000.0"),
        (change_turn(0, notes="x"), "Expected `array`, got `str`"),
        (change_turn(0, stats={"evil": 1}), "unknown field `evil`"),
        (change_turn(0, stats={"reason": "eos"}), "missing required field `prompt_tokens`"),
    ],
)
def test_a_damaged_file_is_told(data: bytes, why: str) -> None:
    with pytest.raises(CogVLM2LiteError, match=why) as caught:
        parse_export(data, "x.json")
    assert "Nothing was saved" in caught.value.hint


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["title", "leaf", "picture", "turns", "program"]
INNER = ["id", "parent", "question", "answer", "status", "notes", "error", "stats", "created"]


@given(st.sampled_from(FIELDS), st.sampled_from(INNER), VALUES, st.booleans())
def test_any_value_anywhere_is_taken_or_told(
    field: str, inner: str, value: object, deep: bool
) -> None:
    data = change_turn(0, **{inner: value}) if deep else change(**{field: value})
    try:
        taken = parse_export(data, "x.json")
    except CogVLM2LiteError:
        return
    with History(None) as history:
        kept = history.import_conversation(taken.conversation, taken.picture)
        to_json(kept, taken.picture)  # and it can be written again


def test_halves_of_letters_and_answers_that_were_coming_do_no_harm(tmp_path: Path) -> None:
    taken = parse_export(change_turn(2, answer="a\ud800b", status="streaming"), "x.json")
    with History(tmp_path) as history:
        turn = list(history.import_conversation(taken.conversation, b"").turns.values())[2]
    assert (turn.answer, turn.status) == ("a?b", Status.INTERRUPTED)


def test_the_window_shows_what_it_imported_and_says_what_it_refuses(
    desk: Desk, tmp_path: Path
) -> None:
    from cogvlm2_lite.demo.shipped import checkpoint_folder

    picture = (checkpoint_folder().parent / "pictures" / "sign.png").read_bytes()
    export(talk(), picture, tmp_path / "talk.json")
    desk.chat.sidebar.import_from(tmp_path / "talk.json")
    desk.qtbot.waitUntil(lambda: desk.chat.conversation is not None)
    shown = desk.chat.conversation
    assert shown is not None
    assert [turn.question for turn in shown.path()] == ["One?", "Two?"]
    desk.qtbot.waitUntil(lambda: desk.chat.picture == picture)
    assert desk.chat.list.item(0).text() == "A talk"
    (tmp_path / "bad.json").write_text("{}")
    for name, why in (("bad.json", "not a conversation"), ("gone.json", "can't be read")):
        desk.chat.sidebar.import_from(tmp_path / name)
        desk.qtbot.waitUntil(lambda why=why: why in desk.chat.message)
    assert desk.chat.list.count() == 1
