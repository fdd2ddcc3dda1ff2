"""What a batch will do: which pictures are asked about, which answers stand, and which files exist.

Nothing is written here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from cogvlm2_lite.batch.answered import EDITED, Answered
from cogvlm2_lite.batch.drafts import DraftTexts
from cogvlm2_lite.batch.pictures import (
    Found,
    check_names,
    find_pictures,
    is_same_picture,
    names_in,
)
from cogvlm2_lite.batch.saved import KnownAnswers, SavedAnswers
from cogvlm2_lite.batch.table import CSV, Table, choose_table
from cogvlm2_lite.batch.texts import Existing, Owner, TextFiles, choose_names
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text, listed, marked


@dataclass(frozen=True, kw_only=True)
class Task:
    """The options of a batch.

    folder   of the pictures
    output   folder of answers.jsonl and answers.csv, and of the text files unless they are
             next_to_pictures
    only     names of the pictures to ask about; None: all of the folder
    overwrite  ask again about pictures that have an answer
    existing   what to do with text files that this program did not write
    texts, table  whether to write text files, and answers.csv; answers.jsonl is always written,
             because a later run resumes from it
    prefix, suffix  put around every answer in the text files, as captions need it
    retry    ask once more, with sampling, if an answer repeated itself
    template of the prompt; None: the model's own
    upright, page  how pictures are opened, as for open_image
    drafts   texts that the answers probably resemble; they change no answer. None: none
    model    weights.identity.identify_model; numbers: options that change an answer in small ways
             (number type, RoPE mode, kind of key/value cache)
    """

    folder: Path
    question: str
    output: Path
    next_to_pictures: bool = True
    recursive: bool = False
    overwrite: bool = False
    limit: int | None = None
    only: tuple[str, ...] | None = None
    existing: Existing = Existing.KEEP
    texts: bool = True
    table: bool = True
    prefix: str = ""
    suffix: str = ""
    retry: bool = True
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    template: str | None = None
    upright: bool = True
    page: int | None = None
    model: str = ""
    numbers: tuple[str, ...] = ()
    drafts: DraftTexts | None = None

    @cached_property
    def settings_key(self) -> str:
        """16 hexadecimal digits that differ for settings that may change an answer."""
        usual = asdict(Sampling())
        # Only what was changed: a setting that a later version adds does not make old answers void.
        sampling = {n: v for n, v in asdict(self.sampling).items() if v != usual[n]}
        content = [sampling, self.template, self.upright, self.page, self.numbers]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The pictures of a batch and what exists.

    names    all pictures, in order
    known    the answers of earlier runs that stand
    rewrite  pictures with an answer whose text file has to be written (again)
    others   the places of the answers to the same question about other pictures, which the table
             keeps if only some pictures are asked about
    notes    sentences for the user: what exists and what will happen
    persons  text files that this program did not write, or that were edited since
    saved, files, table  where the answers go; table is None without one
    """

    names: tuple[str, ...]
    known: KnownAnswers
    rewrite: tuple[str, ...]
    notes: tuple[Text, ...]
    persons: int
    saved: SavedAnswers
    files: TextFiles | None
    table: Table | None
    others: Mapping[str, int]

    @cached_property
    def todo(self) -> tuple[str, ...]:
        """The pictures without an answer."""
        return tuple(name for name in self.names if name not in self.known)


def plan_batch(task: Task) -> Planned:
    """Return the pictures, the answers of earlier runs, and what will happen to existing files.

    Raises UsageError without pictures, for a name of `only` that leads out of the folder, and for
    an answers.jsonl that `batch` did not write.
    """
    found = _pictures(task)
    saved, text_names = SavedAnswers(task.output), _RecordedNames()
    answers = map(text_names.see, saved.scan_answers())
    table = choose_table(task.output, answers) if task.table else None
    deque(answers, maxlen=0)
    files = _text_files(task, found.names, text_names) if task.texts else None
    survey = _Survey(task=task, saved=saved, files=files)
    names = tuple(name for name in found.names[: task.limit] if survey.add(name))
    return Planned(
        names=names,
        known=KnownAnswers(saved, survey.known),
        rewrite=tuple(survey.rewrite),
        notes=(
            *survey.notes(),
            *_left_out(found),
            *_table_note(table),
            *_draft_note(task, names),
        ),
        persons=survey.persons,
        saved=saved,
        files=files,
        table=table,
        others={} if task.only is None and task.limit is None else _others(task, saved, names),
    )


def _others(task: Task, saved: SavedAnswers, names: Sequence[str]) -> dict[str, int]:
    """Return the places of the newest answers to the question about other pictures."""
    found = {}
    for picture in saved.pictures - set(names):
        places = saved.places(picture)
        records = saved.read_at(places)
        fits = [p for p, r in zip(places, records, strict=True) if r.question == task.question]
        if fits and os.path.lexists(task.folder / picture):
            found[picture] = fits[-1]
    return found


def _pictures(task: Task) -> Found:
    if task.only is None:
        return find_pictures(task.folder, recursive=task.recursive)
    return Found(names=check_names(task.only, task.folder))


class _RecordedNames:
    """The text files that answers.jsonl has for the pictures."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def see(self, answered: Answered) -> Answered:
        if answered.text is not None:
            self._found[answered.picture] = answered.text.file
        return answered

    def __call__(self, picture: str) -> str:
        return self._found.get(picture, "")


def _text_files(task: Task, names: Sequence[str], recorded: Callable[[str], str]) -> TextFiles:
    if task.only is not None:  # the other pictures of these folders have text files, too
        folders = sorted({PurePosixPath(name).parent for name in names})
        others = [
            (folder / name).as_posix()
            for folder in folders
            for name in names_in(task.folder / folder)
        ]
        names = sorted({*names, *others}, key=lambda name: name.split("/"))
    return TextFiles(
        folder=task.folder if task.next_to_pictures else task.output,
        names=choose_names(names, recorded),
        existing=task.existing,
        prefix=task.prefix,
        suffix=task.suffix,
    )


# --- what exists ----------------------------------------------------------------------------------

_AGAIN = {
    "question": marked("{count} for another question"),
    "model": marked("{count} for another model"),
    "settings": marked("{count} for other settings"),
    "picture": marked("{count} whose picture has changed"),
}

_EXISTING = {
    Existing.KEEP: Text("They are kept; their answers are in answers.jsonl."),
    Existing.SKIP: Text("Their pictures are skipped."),
    Existing.APPEND: Text("The answers are added at their end."),
    Existing.PREPEND: Text("The answers are added at their start."),
    Existing.OVERWRITE: Text("They are replaced."),
}


@dataclass(kw_only=True, eq=False)
class _Survey:
    """Looks at one picture after the other, and counts what it finds.

    known    the places of the answers that stand
    old      those that do not record their model
    again    pictures to ask again, by reason
    persons  text files that this program did not write; ours: those that will be replaced
    foreign  those of `persons` to which no answer can be added
    edited   those that had the answer before a person edited them; it is not added again
    """

    task: Task
    saved: SavedAnswers
    files: TextFiles | None
    known: dict[str, int] = field(default_factory=dict)
    rewrite: list[str] = field(default_factory=list)
    old: int = 0
    again: Counter[str] = field(default_factory=Counter)
    persons: int = 0
    foreign: int = 0
    edited: int = 0
    ours: int = 0

    def add(self, name: str) -> bool:
        """Look at a picture. Returns whether it takes part in the batch."""
        places = self.saved.places(name)
        records = self.saved.read_at(places)
        place = None if self.task.overwrite else self._standing(name, records)
        if place is not None:
            self.known[name] = places[place]
            last = records[place]
            self.old += not last.is_recorded and last.reason != EDITED
            self._look_at_text(records[place], records)
            return True
        owner = self.files.owner(name, records) if self.files else Owner.NOBODY
        self._count_persons(name, owner)
        if owner is Owner.PERSON and self.task.existing is Existing.SKIP:
            return False
        self.ours += owner is Owner.PROGRAM
        if not self.task.overwrite:
            self.again.update(self._changed(records))
        return True

    def _standing(self, name: str, records: Sequence[Answered]) -> int | None:
        """Return the index of the newest answer to this very question; None: ask."""
        task, newer = self.task, False
        for index in reversed(range(len(records))):
            answered = records[index]
            if not answered.stands or answered.question != task.question:
                continue
            if answered.reason == EDITED:
                same = True  # a person's words stand for every model
            elif not answered.is_recorded or not task.model:
                # Unknown models and settings are taken to be the same, but not after a run of
                # another model, which this answer may have been left for.
                same = not newer
            else:
                same = (answered.model, answered.settings) == (task.model, task.settings_key)
                newer = True
            if same and (not answered.sha256 or is_same_picture(answered, task.folder / name)):
                return index
        return None

    def _changed(self, records: Sequence[Answered]) -> tuple[str, ...]:
        """Return what changed since the newest answer; nothing without one."""
        last = next((record for record in reversed(records) if record.stands), None)
        if last is None:
            return ()
        if last.question != self.task.question:
            return ("question",)
        if last.is_recorded and last.model != self.task.model:
            return ("model",)
        if last.is_recorded and last.settings != self.task.settings_key:
            return ("settings",)
        return ("picture",)

    def _look_at_text(self, answered: Answered, records: Sequence[Answered]) -> None:
        if self.files is None:
            return
        try:
            owner, writing = self.files.plan(answered, records)
        except OSError:
            self.rewrite.append(answered.picture)  # the run will report it
            return
        if writing is not None and writing.content is not None:
            self.rewrite.append(answered.picture)
        before = self.foreign
        self._count_persons(answered.picture, owner)
        adds = self.task.existing in (Existing.APPEND, Existing.PREPEND)
        if owner is Owner.PERSON and writing is None and adds:
            self.edited += self.foreign == before

    def _count_persons(self, name: str, owner: Owner) -> None:
        if owner is Owner.PERSON and self.files is not None:
            self.persons += 1
            self.foreign += not self.files.takes_answer(name)

    def notes(self) -> list[Text]:
        """Return what was found, as sentences."""
        found = []
        if self.known:
            found.append(Text("Already answered: {count}.", count=len(self.known)))
        if self.old:
            found.append(
                Text(
                    "{count} of these do not record their model and settings, because version 0.2 "
                    "wrote them; they stand unless you ask again.",
                    count=self.old,
                )
            )
        if self.again:
            reasons = [Text(_AGAIN[why], count=count) for why, count in self.again.items()]
            found.append(Text("Asked again: {reasons}.", reasons=listed(reasons)))
        if self.persons:
            found.append(
                Text(
                    "Text files that this program did not write, or that were edited since: "
                    "{count}. {what}",
                    count=self.persons,
                    what=_EXISTING[self.task.existing],
                )
            )
        if self.foreign:
            found.append(
                Text(
                    "{count} of these are not in UTF-8, so nothing is added: they are kept, and "
                    "their answers are in answers.jsonl.",
                    count=self.foreign,
                )
            )
        if self.edited:
            found.append(
                Text(
                    "{count} of these had the answer before they were edited, so it is not added "
                    "again.",
                    count=self.edited,
                )
            )
        if self.ours:
            found.append(
                Text(
                    "Text files with earlier answers of this program: {count}. They are replaced.",
                    count=self.ours,
                )
            )
        if self.rewrite:
            found.append(
                Text(
                    "Text files written from saved answers, without the model: {count}.",
                    count=len(self.rewrite),
                )
            )
        return found


def _left_out(found: Found) -> list[Text]:
    return [Text("Left out: {files}.", files=listed(found.left_out))] if found.left_out else []


def _draft_note(task: Task, names: tuple[str, ...]) -> list[Text]:
    if task.drafts is None:
        return []
    return [
        Text(
            "Pictures with a draft text: {count} of {total}.",
            count=task.drafts.count(names),
            total=len(names),
        )
    ]


def _table_note(table: Table | None) -> list[Text]:
    if table is None or not table.is_another:
        return []
    return [
        Text(
            "{file} was not written by this program, or was edited since. It is kept, and the "
            "table is written to {other}.",
            file=CSV,
            other=table.file.name,
        )
    ]
