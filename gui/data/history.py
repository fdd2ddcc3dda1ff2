"""Conversations on disk: one SQLite file, and next to it the pictures by content hash. No Qt here.

A question is saved before the engine gets it, and an answer while it is generated, so that a kill
at any time loses only the text since the last write. A file that can't be used is not changed. A
turn that can't be saved (disk full, file locked) stays in memory as unsaved, and is saved with the
next write that succeeds.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.text import Text
from gui.data.settings import write_atomic
from gui.data.state import Conversation, Part, Stats, Status, Turn, title_of

FILE = "conversations.db"
PICTURES = "pictures"
UNDO_S = 3600.0
"""Deleted conversations are kept this long for an undo, and removed at a later start."""

_APPLICATION = 0x43563247  # "CV2G", to recognize a database of another program
_OPEN_BUSY_MS = 2000
_BUSY_MS = 40
"""How long a write waits for another writer. The window is blocked meanwhile."""
_SEARCH_S = 0.02
"""A search on the window's thread ends after this time; a longer one needs a thread."""
_SEARCH_STEPS = 200
"""Instructions of SQLite between two checks of the time."""
_MIGRATIONS = (
    """
    CREATE TABLE conversation (
        id INTEGER PRIMARY KEY,
        title TEXT NOT NULL DEFAULT '',
        picture TEXT NOT NULL DEFAULT '',
        pinned INTEGER NOT NULL DEFAULT 0,
        leaf INTEGER,
        created REAL NOT NULL,
        changed REAL NOT NULL,
        deleted REAL
    );
    CREATE TABLE turn (
        id INTEGER PRIMARY KEY,
        conversation INTEGER NOT NULL REFERENCES conversation(id) ON DELETE CASCADE,
        parent INTEGER REFERENCES turn(id) ON DELETE CASCADE,
        question TEXT NOT NULL,
        answer TEXT NOT NULL DEFAULT '',
        status TEXT NOT NULL,
        notes TEXT NOT NULL DEFAULT '[]',
        error TEXT NOT NULL DEFAULT '',
        stats TEXT,
        created REAL NOT NULL
    );
    CREATE INDEX turn_of_conversation ON turn(conversation);
    """,
    "ALTER TABLE conversation ADD COLUMN rotation INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE conversation ADD COLUMN page INTEGER;",
    "ALTER TABLE turn ADD COLUMN parts TEXT NOT NULL DEFAULT '[]';",
    """
    CREATE TABLE IF NOT EXISTS draft (
        conversation INTEGER PRIMARY KEY,
        text TEXT NOT NULL,
        turn INTEGER,
        edit TEXT NOT NULL DEFAULT ''
    );
    """,
    """
    CREATE TABLE IF NOT EXISTS given (
        conversation INTEGER PRIMARY KEY,
        picture TEXT NOT NULL,
        page INTEGER,
        name TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE IF NOT EXISTS source (
        turn INTEGER PRIMARY KEY REFERENCES turn(id) ON DELETE CASCADE,
        file TEXT NOT NULL,
        page INTEGER
    );
    """,
    """
    CREATE TABLE IF NOT EXISTS series (
        turn INTEGER PRIMARY KEY REFERENCES turn(id) ON DELETE CASCADE,
        ended INTEGER NOT NULL,
        length INTEGER NOT NULL
    );
    """,
    """
    CREATE TABLE IF NOT EXISTS adapted (
        turn INTEGER PRIMARY KEY REFERENCES turn(id) ON DELETE CASCADE,
        adapter TEXT NOT NULL
    );
    """,
)
VERSION = len(_MIGRATIONS)


class HistoryError(CogVLM2LiteError):
    """The conversations can't be read or written now. What is on disk is not changed."""


class SearchStoppedError(HistoryError):
    """A search was stopped before its end."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One row of the list of conversations."""

    id: int
    title: str
    pinned: bool
    picture: str
    changed: float


Summaries = list[Summary]


@dataclass(frozen=True, kw_only=True)
class Unsent:
    """What was typed in a conversation and not asked.

    text  of the question field
    turn  whose question is being changed, with `edit` as its new text; None: none is
    """

    text: str = ""
    turn: int | None = None
    edit: str = ""


@dataclass(frozen=True, kw_only=True)
class Given:
    """A picture that was given to a conversation and not asked about.

    picture  its name in the history
    page     as in Conversation
    name     of the file, or where the picture comes from
    """

    picture: str
    page: int | None
    name: str


class History:
    """The conversations of one user. Methods raise HistoryError and must be called from one thread,
    except those of pictures.

    folder      has the database and the pictures; None: everything is in memory
    most_pages  limit of the database in SQLite pages of 4 KiB; 0: no limit
    """

    def __init__(self, folder: Path | None, *, most_pages: int = 0) -> None:
        self.folder = folder
        self._pictures_in_memory: dict[str, bytes] = {}
        self._unsaved: dict[int, Turn] = {}
        self._drafts: dict[int, Unsent] = {}
        with _history_errors():
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            where = ":memory:" if folder is None else str(folder / FILE)
            self._db = sqlite3.connect(where, isolation_level=None, timeout=_OPEN_BUSY_MS / 1000)
        try:
            with _history_errors():
                self._prepare()
                self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
                if most_pages:
                    self._db.execute(f"PRAGMA max_page_count = {most_pages}")
        except CogVLM2LiteError:
            self._db.close()
            raise

    def close(self) -> None:
        """Try to save unsaved turns (`flush`), then close the file."""
        self.flush()
        self._db.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Conversations

    def create(
        self, *, picture: str = "", page: int | None = None, title: str = ""
    ) -> Conversation:
        """Create an empty conversation."""
        now = time.time()
        with self._writing():
            number = self._insert_conversation(title, picture, page, now)
        return Conversation(
            id=number, title=title, picture=picture, page=page, created=now, changed=now
        )

    def list(self, search: str = "") -> Summaries:
        """Return the conversations, pinned and newest first. search: a text in titles or turns."""
        with _history_errors():
            return _list(self._db, search)

    def list_soon(self, search: str) -> Summaries | None:
        """Return the same, or None if that takes too long for the window: use `search_file`."""
        if self.folder is None:
            return self.list(search)
        end = time.monotonic() + _SEARCH_S
        self._db.set_progress_handler(lambda: time.monotonic() > end, _SEARCH_STEPS)
        try:
            return self.list(search)
        except SearchStoppedError:
            return None
        finally:
            self._db.set_progress_handler(None, 0)

    def load(self, conversation_id: int) -> Conversation:
        """Read a conversation with its turns. Raises HistoryError if there is none."""
        with _history_errors():
            row = self._db.execute(
                "SELECT title, picture, rotation, pinned, leaf, created, changed, page "
                "FROM conversation WHERE id = ?",
                (conversation_id,),
            ).fetchone()
            turns = self._db.execute(
                "SELECT id, parent, question, answer, status, notes, error, stats, created, parts, "
                "file, page, ended, length, adapter FROM turn "
                "LEFT JOIN source ON source.turn = turn.id "
                "LEFT JOIN series ON series.turn = turn.id "
                "LEFT JOIN adapted ON adapted.turn = turn.id WHERE conversation = ? ORDER BY id",
                (conversation_id,),
            ).fetchall()
        if row is None:
            raise HistoryError("This conversation no longer exists.")
        return Conversation(
            id=conversation_id,
            title=row[0],
            picture=row[1],
            rotation=row[2],
            pinned=bool(row[3]),
            leaf=row[4],
            created=row[5],
            changed=row[6],
            page=row[7],
            turns={turn[0]: self._unsaved.get(turn[0]) or _turn(turn) for turn in turns},
        )

    def save(self, conversation: Conversation) -> None:
        """Save the fields of a conversation; other methods save its turns."""
        with self._writing():
            self._db.execute(
                "UPDATE conversation SET title = ?, picture = ?, page = ?, rotation = ?, "
                "pinned = ?, leaf = ?, changed = ? WHERE id = ?",
                (
                    conversation.title,
                    conversation.picture,
                    conversation.page,
                    conversation.rotation,
                    conversation.pinned,
                    conversation.leaf,
                    conversation.changed,
                    conversation.id,
                ),
            )

    def rename(self, conversation_id: int, title: str) -> None:
        """Change the title of a conversation."""
        with self._writing():
            self._db.execute(
                "UPDATE conversation SET title = ? WHERE id = ?", (title, conversation_id)
            )

    def pin(self, conversation_id: int, pinned: bool) -> None:
        """Pin a conversation to the top of the list, or unpin it."""
        with self._writing():
            self._db.execute(
                "UPDATE conversation SET pinned = ? WHERE id = ?", (pinned, conversation_id)
            )

    def delete(self, conversation_id: int) -> None:
        """Mark a conversation as deleted. `restore` undoes it until `purge` removes it."""
        with self._writing():
            self._db.execute(
                "UPDATE conversation SET deleted = ? WHERE id = ?", (time.time(), conversation_id)
            )

    def restore(self, conversation_id: int) -> None:
        """Undo `delete`."""
        with self._writing():
            self._db.execute(
                "UPDATE conversation SET deleted = NULL WHERE id = ?", (conversation_id,)
            )

    def import_conversation(
        self, foreign: Conversation, picture: bytes = b"", *, saved: str = ""
    ) -> Conversation:
        """Save an imported conversation completely or not at all. Returns it with new numbers.

        foreign  its turns in an order in which each follows its parent
        saved    name of its picture, if it was saved before
        """
        name = self.save_picture(picture) if picture else saved
        now = time.time()
        numbers: dict[int | None, int | None] = {None: None}
        with self._writing():
            number = self._insert_conversation(foreign.title, name, foreign.page, now)
            for turn in foreign.turns.values():
                made = self._db.execute(
                    "INSERT INTO turn (conversation, parent, question, answer, status, notes, "
                    "error, stats, created, parts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        number,
                        numbers[turn.parent],
                        *_columns(turn),
                        turn.created,
                        _parts_text(turn.parts),
                    ),
                ).lastrowid
                assert made is not None
                numbers[turn.id] = made
                self._insert_source(made, turn.file, turn.page)
                self._insert_adapter(made, turn.adapter)
                self._write_series(replace(turn, id=made))
            self._db.execute(
                "UPDATE conversation SET leaf = ? WHERE id = ?", (numbers[foreign.leaf], number)
            )
        return self.load(number)

    def _insert_conversation(self, title: str, picture: str, page: int | None, now: float) -> int:
        made = self._db.execute(
            "INSERT INTO conversation (title, picture, page, created, changed) "
            "VALUES (?, ?, ?, ?, ?)",
            (title, picture, page, now, now),
        )
        assert made.lastrowid is not None
        return made.lastrowid

    def _insert_source(self, turn: int, file: str, page: int | None) -> None:
        if file or page is not None:
            self._db.execute(
                "INSERT INTO source (turn, file, page) VALUES (?, ?, ?)", (turn, file, page)
            )

    def _insert_adapter(self, turn: int, adapter: str) -> None:
        if adapter:
            self._db.execute("INSERT INTO adapted (turn, adapter) VALUES (?, ?)", (turn, adapter))

    # Turns

    def ask(
        self,
        conversation: Conversation,
        question: str,
        parent: int | None,
        parts: tuple[Part, ...] = (),
        *,
        file: str = "",
        page: int | None = None,
        adapter: str = "",
    ) -> Turn:
        """Save a question and add it to the conversation, before the engine is asked.

        parts, file, page, adapter  as in Turn

        After a HistoryError the conversation is unchanged.
        """
        conversation.check_parent(parent)
        now = time.time()
        with self._writing():
            self._write_unsaved()
            made = self._db.execute(
                "INSERT INTO turn (conversation, parent, question, status, created, parts) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    conversation.id,
                    parent,
                    question,
                    Status.WAITING.value,
                    now,
                    _parts_text(parts),
                ),
            )
            assert made.lastrowid is not None
            self._insert_source(made.lastrowid, file, page)
            self._insert_adapter(made.lastrowid, adapter)
            turn = Turn(
                id=made.lastrowid,
                parent=parent,
                question=question,
                parts=parts,
                page=page,
                file=file,
                adapter=adapter,
                ended=0 if len(parts) > 1 else None,
                created=now,
            )
            self._write_series(turn)
            title = conversation.title or title_of(question)
            self._db.execute(
                "UPDATE conversation SET title = ?, leaf = ?, changed = ? WHERE id = ?",
                (title, turn.id, now, conversation.id),
            )
        self._unsaved.clear()
        conversation.add(turn)
        return turn

    def write(self, turn: Turn) -> None:
        """Save the current state of a turn. After a HistoryError it counts as unsaved."""
        self._unsaved[turn.id] = turn
        with self._writing():
            self._write_unsaved()
        self._unsaved.clear()

    def flush(self) -> bool:
        """Save unsaved turns. Returns False if some are still unsaved."""
        if self._unsaved:
            try:
                with self._writing():
                    self._write_unsaved()
            except HistoryError:
                return False
            self._unsaved.clear()
        return True

    def _write_unsaved(self) -> None:
        """Write the unsaved turns in the caller's transaction."""
        for turn in self._unsaved.values():
            self._db.execute(
                "UPDATE turn SET question = ?, answer = ?, status = ?, notes = ?, error = ?, "
                "stats = ? WHERE id = ?",
                (*_columns(turn), turn.id),
            )
            self._write_series(turn)

    def _write_series(self, turn: Turn) -> None:
        if turn.ended is not None:
            self._db.execute(
                "INSERT OR REPLACE INTO series (turn, ended, length) VALUES (?, ?, ?)",
                (turn.id, turn.ended, turn.ended_length),
            )

    # What was not asked

    def unsent(self, conversation_id: int) -> Unsent:
        """Return what was typed in a conversation; 0 is a new one that is not saved."""
        if conversation_id not in self._drafts:
            with _history_errors():
                row = self._db.execute(
                    "SELECT text, turn, edit FROM draft WHERE conversation = ?",
                    (conversation_id,),
                ).fetchone()
            self._drafts[conversation_id] = (
                Unsent(text=row[0], turn=row[1], edit=row[2]) if row else Unsent()
            )
        return self._drafts[conversation_id]

    def save_unsent(self, conversation_id: int, unsent: Unsent) -> None:
        """Save what was typed. After a HistoryError it is known until the window closes."""
        if self.unsent(conversation_id) == unsent:
            return
        self._drafts[conversation_id] = unsent
        with self._writing():
            self._db.execute("DELETE FROM draft WHERE conversation = ?", (conversation_id,))
            if unsent != Unsent():
                self._db.execute(
                    "INSERT INTO draft (conversation, text, turn, edit) VALUES (?, ?, ?, ?)",
                    (conversation_id, unsent.text, unsent.turn, unsent.edit),
                )

    def given(self, conversation_id: int) -> Given | None:
        """Return the picture that a conversation was given last; 0 is a new one."""
        with _history_errors():
            row = self._db.execute(
                "SELECT picture, page, name FROM given WHERE conversation = ?", (conversation_id,)
            ).fetchone()
        return Given(picture=row[0], page=row[1], name=row[2]) if row else None

    def save_given(self, conversation_id: int, given: Given | None) -> None:
        """Save which picture a conversation was given; None: it has no picture to be asked about.

        The picture itself is saved already.
        """
        if self.given(conversation_id) == given:
            return
        with self._writing():
            self._db.execute("DELETE FROM given WHERE conversation = ?", (conversation_id,))
            if given is not None:
                self._db.execute(
                    "INSERT INTO given (conversation, picture, page, name) VALUES (?, ?, ?, ?)",
                    (conversation_id, given.picture, given.page, given.name),
                )

    # Pictures

    def save_picture(self, data: bytes) -> str:
        """Save the bytes of a picture file and return its name (sha256). From any thread."""
        name = hashlib.sha256(data).hexdigest()
        if self.folder is None:
            self._pictures_in_memory[name] = data
            return name
        path = self.folder / PICTURES / name
        try:
            if not path.exists():
                write_atomic(path, data)
        except OSError as error:
            raise HistoryError(
                "The picture can't be saved: {why}.",
                hint="Free some space on the disk of {folder}, or make the folder writable.",
                why=error.strerror or error,
                folder=self.folder,
            ) from error
        return name

    def picture(self, name: str) -> bytes:
        """Return the bytes of a saved picture. From any thread.

        Raises HistoryError if it is missing or was changed.
        """
        try:
            data = (
                self._pictures_in_memory[name]
                if self.folder is None
                else (self.folder / PICTURES / name).read_bytes()
            )
        except (OSError, KeyError) as error:
            raise HistoryError("The picture of this conversation no longer exists.") from error
        if hashlib.sha256(data).hexdigest() != name:
            raise HistoryError("The picture of this conversation is damaged on disk.")
        return data

    def purge(self, now: float | None = None) -> None:
        """Remove conversations deleted UNDO_S ago, and pictures that none has or was given."""
        limit = (time.time() if now is None else now) - UNDO_S
        with self._writing():
            self._db.execute("DELETE FROM conversation WHERE deleted < ?", (limit,))
            for table in ("draft", "given"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE conversation != 0 "
                    "AND conversation NOT IN (SELECT id FROM conversation)"
                )
            rows = self._db.execute(
                "SELECT picture FROM conversation UNION SELECT picture FROM given"
            ).fetchall()
        used = {row[0] for row in rows}
        with _history_errors():
            if self.folder is None or not (self.folder / PICTURES).is_dir():
                return
            for path in (self.folder / PICTURES).iterdir():
                if path.name not in used:
                    path.unlink(missing_ok=True)

    # Database

    def _prepare(self) -> None:
        self._db.create_function("contains", 2, _contains, deterministic=True)
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        application = int(self._db.execute("PRAGMA application_id").fetchone()[0])
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and application != _APPLICATION:
            raise HistoryError(
                "{file} in {folder} is a database of another program.",
                hint="Move it away, then start the program again.",
                file=FILE,
                folder=self.folder,
            )
        if version > VERSION:
            raise HistoryError(
                "The conversations were written by a newer version (format {format}; this "
                "version knows {known}).",
                hint="Install the newer version again. Nothing was changed.",
                format=version,
                known=VERSION,
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        for number in range(version, VERSION):
            self._migrate(number)
        # No answer is running when the window starts: mark those that a kill interrupted.
        with self._writing():
            self._db.execute(
                "UPDATE turn SET status = ? WHERE status IN (?, ?)",
                (Status.INTERRUPTED.value, Status.WAITING.value, Status.STREAMING.value),
            )

    def _migrate(self, number: int) -> None:
        """Run one migration and record its number, in one transaction."""
        with self._writing():
            for statement in _MIGRATIONS[number].split(";"):
                if statement.strip():
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {number + 1}")
            self._db.execute(f"PRAGMA application_id = {_APPLICATION}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run the body in one transaction."""
        with _history_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


_REASONS = {
    sqlite3.SQLITE_FULL: (
        Text("The disk is full."),
        Text("Free some space; nothing that was saved is lost."),
    ),
    sqlite3.SQLITE_READONLY: (
        Text("The folder of the conversations can't be written to."),
        Text("Make it writable, then start the program again."),
    ),
    sqlite3.SQLITE_CANTOPEN: (
        Text("The file of the conversations can't be opened."),
        Text("Make its folder readable and writable, then start the program again."),
    ),
    sqlite3.SQLITE_BUSY: (
        Text("Another program uses the file of the conversations."),
        Text("Close it and try again."),
    ),
    sqlite3.SQLITE_LOCKED: (
        Text("Another program uses the file of the conversations."),
        Text("Close it and try again."),
    ),
    sqlite3.SQLITE_NOTADB: (
        Text("The file of the conversations is damaged or is not a database."),
        Text("Move it away to start again, or restore a copy."),
    ),
    sqlite3.SQLITE_CORRUPT: (
        Text("The file of the conversations is damaged."),
        Text("Move it away to start again, or restore a copy."),
    ),
    sqlite3.SQLITE_IOERR: (
        Text("The file of the conversations can't be read or written."),
        Text("Check that its disk is connected and has free space."),
    ),
}


@contextmanager
def _history_errors() -> Iterator[None]:
    """Raise errors of SQLite and of the system as HistoryError, by their codes."""
    try:
        yield
    except sqlite3.Error as error:
        raise _history_error(error) from error
    except OSError as error:
        raise HistoryError(
            "The folder of the conversations can't be used: {why}.",
            hint="Make the folder readable and writable, then start the program again.",
            why=error.strerror or error,
        ) from error


def search_file(folder: Path, search: str, stopped: Callable[[], bool]) -> list[Summary]:
    """Return what `History.list` returns, on any thread, with a connection of its own.

    Raises SearchStoppedError soon after `stopped` returns True.
    """
    with _history_errors():
        # "?" and "#" in the name would be read as parts of the address.
        address = (folder / FILE).resolve().as_uri() + "?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=_OPEN_BUSY_MS / 1000)) as db:
            db.create_function("contains", 2, _contains, deterministic=True)
            db.set_progress_handler(stopped, _SEARCH_STEPS)
            return _list(db, search)


def _list(db: sqlite3.Connection, search: str) -> list[Summary]:
    query = "SELECT id, title, pinned, picture, changed FROM conversation c WHERE deleted IS NULL"
    values: tuple[str, ...] = ()
    if search.strip():
        query += (
            " AND (contains(title, ?) OR EXISTS (SELECT 1 FROM turn WHERE conversation = c.id"
            " AND (contains(question, ?) OR contains(answer, ?))))"
        )
        values = (search.strip().casefold(),) * 3
    rows = db.execute(query + " ORDER BY pinned DESC, changed DESC", values).fetchall()
    return [
        Summary(id=row[0], title=row[1], pinned=bool(row[2]), picture=row[3], changed=row[4])
        for row in rows
    ]


def _history_error(error: sqlite3.Error) -> HistoryError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_INTERRUPT:
        return SearchStoppedError("The search was stopped.")
    known = _REASONS.get(code & 0xFF)
    if known is None:
        return HistoryError("The conversations can't be read or written: {why}.", why=error)
    return HistoryError(known[0], hint=known[1])


def _turn(row: tuple[Any, ...]) -> Turn:
    return Turn(
        id=row[0],
        parent=row[1],
        question=row[2],
        answer=row[3],
        status=Status(row[4]),
        notes=tuple(json.loads(row[5])),
        error=row[6],
        stats=_stats(json.loads(row[7])) if row[7] else None,
        created=row[8],
        parts=tuple(Part(**part) for part in json.loads(row[9])),
        file=row[10] or "",
        page=row[11],
        ended=row[12],
        ended_length=row[13] or 0,
        adapter=row[14] or "",
    )


def _parts_text(parts: tuple[Part, ...]) -> str:
    return json.dumps([asdict(part) for part in parts])


def _columns(turn: Turn) -> tuple[str | None, ...]:
    """Return question, answer, status, notes, error and stats as the database stores them."""
    stats = json.dumps(asdict(turn.stats)) if turn.stats else None
    notes = json.dumps(turn.notes)
    return turn.question, turn.answer, turn.status.value, notes, turn.error, stats


def _stats(values: dict[str, Any]) -> Stats:
    return Stats(**{**values, "token_ids": tuple(values.get("token_ids", ()))})


def _contains(text: str, wanted: str) -> bool:
    """Return True if a text contains `wanted`, which is case-folded, in any case."""
    return wanted in text.casefold()
