"""The history on disk: what was written is there again, and foreign files are left alone."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from gui.data.history import (
    _APPLICATION,
    _MIGRATIONS,
    FILE,
    PICTURES,
    UNDO_S,
    VERSION,
    History,
    HistoryError,
)
from gui.data.state import Status
from tests.helpers.desk import finished

WRITER = """
import sys
from pathlib import Path
from gui.data.history import History
from tests.helpers.desk import finished
history = History(Path(sys.argv[1]))
talk = history.create()
for number in range(10_000):
    turn = history.ask(talk, f"question {number}", talk.leaf)
    print(f"asked {number}", flush=True)
    for word in range(5):
        talk.append(turn.id, f"{word} ")
        history.write(talk.turns[turn.id])
    talk.finish(turn.id, finished("0 1 2 3 4 "))
    history.write(talk.turns[turn.id])
    print(f"answered {number}", flush=True)
"""


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        picture = history.save_picture(b"picture bytes")
        talk = history.create(picture=picture)
        turn = history.ask(talk, "What is it?", None, adapter="dogs")
        talk.append(turn.id, "A dog")
        talk.note(turn.id, "weights came from RAM")
        talk.finish(turn.id, finished("A dog."))
        history.write(talk.turns[turn.id])
    with History(tmp_path) as history:
        [row] = history.list()
        again = history.load(row.id)
        assert (row.title, again.leaf) == ("What is it?", turn.id)
        assert again.turns[turn.id] == talk.turns[turn.id]
        assert history.picture(again.picture) == b"picture bytes"


def test_a_question_is_on_disk_before_any_answer(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        history.ask(history.create(), "Kept?", None)
        with History(tmp_path) as other:
            [row] = other.list("kept")
            # The other opened it: for that one, the answer will come no more.
            assert [t.status for t in other.load(row.id).path()] == [Status.INTERRUPTED]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
@pytest.mark.slow
def test_ten_kills_lose_nothing_that_was_written(tmp_path: Path) -> None:
    chance = random.Random(7)
    for number in range(10):
        folder = tmp_path / str(number)
        root = Path(__file__).parents[2]
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)],
            cwd=root, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        told = process.communicate()[0].split("\n")
        answered = sum(line.startswith("answered") for line in told[:-1])
        with History(folder) as history:
            talk = history.load(history.list()[0].id)
            turns = talk.path()
        assert len(turns) >= answered
        assert all(turn.answer == "0 1 2 3 4 " for turn in turns[:answered])
        assert all(turn.status.is_over for turn in turns)


def test_search_looks_in_titles_questions_and_answers(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        for question, answer in (("About cats", "Yes"), ("Dogs", "A GREAT Dane"), ("鸟", "麻雀")):
            talk = history.create()
            turn = history.ask(talk, question, None)
            talk.finish(turn.id, finished(answer))
            history.write(talk.turns[turn.id])
        assert [row.title for row in history.list("CAT")] == ["About cats"]
        assert [row.title for row in history.list("great")] == ["Dogs"]
        assert [row.title for row in history.list("麻")] == ["鸟"]
        assert len(history.list()) == 3


def test_a_deleted_conversation_comes_back_until_it_is_swept(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        talk = history.create(picture=history.save_picture(b"x"))
        history.delete(talk.id)
        assert history.list() == []
        history.restore(talk.id)
        assert len(history.list()) == 1
        history.delete(talk.id)
        history.purge(now=time.time() + UNDO_S + 1)
        assert not list((tmp_path / PICTURES).iterdir())
        with pytest.raises(HistoryError):
            history.load(talk.id)


@pytest.mark.parametrize("version", range(1, VERSION))
def test_a_database_of_every_earlier_version_opens(version: int, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        for script in _MIGRATIONS[:version]:
            database.executescript(script)
        database.executescript(
            "INSERT INTO conversation (id, title, leaf, created, changed) "
            "VALUES (1, 'Old', 1, 1, 1);"
            "INSERT INTO turn (id, conversation, question, answer, status, created) "
            "VALUES (1, 1, 'Which?', 'That.', 'done', 1);"
            f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {version};"
        )
    with History(tmp_path) as history:
        old = history.load(1)
        assert [(turn.answer, turn.adapter) for turn in old.path()] == [("That.", "")]
        new = history.ask(old, "And now?", 1, adapter="invoices")
        assert history.load(1).turns[new.id].adapter == "invoices"


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    History(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(HistoryError, match="newer version"):
        History(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()
    with pytest.raises(HistoryError, match="another program"):
        History(tmp_path)


def test_a_damaged_file_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(HistoryError, match="damaged"):
        History(tmp_path)
    assert (tmp_path / FILE).read_bytes().startswith(b"no database")


def test_a_locked_file_is_told(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryError, match="Another program"):
            history.create()
        other.execute("ROLLBACK")
        other.close()
        history.create()


def test_a_damaged_picture_is_told(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        name = history.save_picture(b"right")
        (tmp_path / PICTURES / name).write_bytes(b"wrong")
        with pytest.raises(HistoryError, match="damaged"):
            history.picture(name)
