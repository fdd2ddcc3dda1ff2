"""Rows of pictures with answers, in the forms that `finetune` reads, as questions to ask.

A row is asked for its last trained answer, with its past in the model's template. The loss is that
of every trained answer of the row. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.errors import DataError
from cogvlm2_lite.evaluate.files import FilePicture
from cogvlm2_lite.evaluate.items import Data, DataFile, Item, Picture, picture_key
from cogvlm2_lite.evaluate.protocols import Query
from cogvlm2_lite.evaluate.work import Question, ScoredText
from cogvlm2_lite.inputs.prompt import build_prompt
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.rows import held_out
from cogvlm2_lite.rows.labels import NO_LABEL, Labelled, Labeller
from cogvlm2_lite.rows.read import Row, Rows, Skipped, read_rows

ROWS = "rows"
"""The benchmark of a person's own rows, in run.json and events."""

WITHOUT_SPACE, WITH_SPACE = "without a space", "with a space"
"""How an answer begins behind the prompt; the names of its losses."""

_MOST_LISTED = 5
_LEAST_NEW_TOKENS, _MOST_LONG = 64, 100
_STEP = 256


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a model reads a row.

    template  the prompt template
    spaces    whether an answer begins with a space; both: the loss is measured in both forms
    """

    template: str
    spaces: tuple[bool, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the losses that are measured."""
        return tuple(WITH_SPACE if space else WITHOUT_SPACE for space in self.spaces)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How DATA is read; the fields are those of `read_rows`.

    upright  whether the orientation in a photo's EXIF tag counts
    """

    form: str | None = None
    labels: str | None = None
    ask: tuple[str, ...] = ()
    upright: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class RowData:
    """Rows that can be used.

    data     the rows as items
    rows     by the id of their item
    skipped  what can't be used
    form     the form of the data, in words
    upright  whether the orientation in a photo's EXIF tag counts
    """

    data: Data
    rows: Mapping[str, Row]
    skipped: tuple[Skipped, ...]
    form: str
    upright: bool = True

    def place(self, id: str) -> str:
        """Return the place of a row's picture: below the folder of the data, or elsewhere.

        Of a picture in the row itself it is a hash; "" without one.
        """
        return _place(self.rows[id], _folder(self.data.files[0].path))


@dataclass(frozen=True, kw_only=True)
class MemoryPicture:
    """A picture that stands in the row itself, as a data: URL."""

    data: bytes
    name: str

    @property
    def key(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def read(self) -> bytes:
        """Return the bytes of the picture file."""
        return self.data


def read_row_data(source: Path, options: DataOptions) -> RowData:
    """Read rows. Raises UsageError, and DataError if there are none that can be used."""
    found, upright = _read(source, options)
    rows = dict(_named(found.rows))
    if not rows:
        raise no_rows(source, found.skipped)
    data = Data(
        benchmark=ROWS,
        name=_name(source),
        files=(_fingerprint(source.absolute(), rows),),
        items=tuple(_item(id, row) for id, row in rows.items()),
        notices=found.remarks,
    )
    return RowData(data=data, rows=rows, skipped=found.skipped, form=found.form, upright=upright)


def _read(source: Path, options: DataOptions) -> tuple[Rows, bool]:
    """Return the rows, and whether the orientation in a photo's EXIF tag counts."""
    if source.name == held_out.NAME:
        rows, upright = held_out.read_held_out(source)
        if rows:
            return Rows(form="held-out rows of finetune", rows=tuple(rows), skipped=()), upright
    found = read_rows(source, form=options.form, labels=options.labels, ask=options.ask)
    return found, options.upright


def no_rows(source: Path, skipped: Sequence[Skipped]) -> DataError:
    """Return the error for data without any row that can be used."""
    return DataError(
        "{file} has no rows that can be used: {reasons}.",
        hint="Rows need an answer, and a picture that can be found.",
        file=source,
        reasons=reasons_text(skipped) or "it is empty",
    )


def reasons_text(skipped: Sequence[Skipped]) -> str:
    """Return how many rows are skipped for the commonest reasons: "2 no answer, 1 ...."."""
    counts = Counter(each.reason.value for each in skipped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common(_MOST_LISTED))


def skipped_lines(skipped: Sequence[Skipped]) -> bytes:
    """Return skipped.jsonl."""
    lines = (
        {"source": each.source, "line": each.line, "reason": each.reason.value,
         "detail": each.detail}
        for each in skipped
    )  # fmt: skip
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return text.encode("utf-8", "replace")


def _named(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Yield rows with unique ids: folders of one data set may have files of one name."""
    seen: Counter[str] = Counter()
    for row in rows:
        id = f"{row.source}:{row.line}"
        seen[id] += 1
        yield (id if seen[id] == 1 else f"{id} ({seen[id]})"), row


def _name(source: Path) -> str:
    path = source.absolute()
    name = path.stem if path.is_file() else path.name
    if path.name == held_out.NAME:  # every run has a file of this name
        name = f"{path.parent.parent.name}-{name}"
    return re.sub(r"[^\w-]+", "-", name).strip("-") or ROWS


def _item(id: str, row: Row) -> Item:
    turn = row.turns[_asked_turn(row)]
    return Item(
        id=id,
        group=id,
        question=turn.question.strip(),
        answers=(turn.answer.strip(),),
        pictures=tuple(_pictures(id, row)),
    )


def _asked_turn(row: Row) -> int:
    """Return the place of the last trained answer."""
    return max(place for place, turn in enumerate(row.turns) if turn.trained)


def _pictures(id: str, row: Row) -> Iterator[Picture]:
    if isinstance(row.picture, Path):
        yield FilePicture(path=row.picture, name=row.picture.name)
    elif row.picture is not None:
        yield MemoryPicture(data=row.picture, name=id)


def _fingerprint(source: Path, rows: Mapping[str, Row]) -> DataFile:
    """Return what tells one content of DATA from another. Bytes of pictures are in the answers."""
    digest, folder = hashlib.md5(usedforsecurity=False), _folder(source)
    for id, row in rows.items():
        picture = _place(row, folder)
        turns = [[turn.question, turn.answer, turn.trained] for turn in row.turns]
        digest.update(json.dumps([id, picture, turns]).encode())
    return DataFile(path=source, size=len(rows), md5=digest.hexdigest())


def _place(row: Row, folder: Path) -> str:
    """Return the place of a picture below the data's folder, which may be copied as a whole."""
    if row.picture is None:
        return ""
    if isinstance(row.picture, bytes):
        return hashlib.sha256(row.picture).hexdigest()
    inside = row.picture.is_relative_to(folder)
    return (row.picture.relative_to(folder) if inside else row.picture).as_posix()


# --- choosing -------------------------------------------------------------------------------------


def groups_in_order(found: RowData, seed: int | None) -> list[list[Item]]:
    """Return the items about each picture together; an item without a picture is alone.

    seed  decides the order, which is the same on every computer, so that beginnings of it are
          nested samples; None: the order of the data
    """
    together: dict[str, list[Item]] = {}
    for item in found.data.items:
        together.setdefault(picture_key(item) or f"\n{item.id}", []).append(item)
    groups = list(together.values())
    if seed is None:
        return groups

    def place(group: Sequence[Item]) -> bytes:
        first = group[0].id
        key = found.place(first) or first
        return hashlib.sha256(f"{seed}|{ROWS}|{key}".encode()).digest()

    return sorted(groups, key=place)


def _folder(source: Path) -> Path:
    """Return the folder of DATA, without links."""
    return (source if source.is_dir() else source.parent).resolve()


# --- questions ------------------------------------------------------------------------------------


class Asker:
    """Makes the questions of rows for one model, with the tokens that `finetune` trains."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self._tokenizer = Tokenizer.from_folder(folder)
        self._config = config

    def question(
        self, item: Item, row: Row, form: Form, *, upright: bool = True
    ) -> Question | Skipped:
        """Return the question of an item in a form, or why it can't be asked."""
        has_picture = row.picture is not None
        scored: list[ScoredText] = []
        asked: Labelled | None = None
        for space, name in zip(form.spaces, form.names, strict=True):
            labeller = Labeller(self._tokenizer, self._config, template=form.template, space=space)
            for made in labeller.samples(row.turns, has_picture=has_picture):
                if isinstance(made, tuple):
                    turn, reason = made
                    return Skipped(
                        source=row.source, line=row.line, reason=reason, detail=f"answer {turn}"
                    )
                scored.append(self._scored(made, name, has_picture=has_picture))
                asked = made
        assert asked is not None  # rows without a trained answer are not read
        past = [(t.question.strip(), t.answer.strip()) for t in row.turns[: asked.turn - 1]]
        text = build_prompt(
            item.question,
            past[asked.dropped_turns :],
            form.template,
            architecture=self._config.architecture,
        )
        return Question(
            item=item,
            query=Query(text, "base"),
            upright=upright,
            scored=tuple(scored),
        )

    def new_tokens(self, items: Sequence[Item]) -> int:
        """Return a ceiling of answers: twice the longest expected one, and 64 at least.

        Of many answers, only those with the most letters are looked at.
        """
        longest = sorted((item.answers[0] for item in items), key=len)[-_MOST_LONG:]
        tokens = max((len(self._tokenizer.encode(f" {text}")) + 1 for text in longest), default=0)
        return max(2 * tokens, _LEAST_NEW_TOKENS)

    def _scored(self, made: Labelled, name: str, *, has_picture: bool) -> ScoredText:
        image_tokens = self._config.vision.image_tokens if has_picture else 0
        ids = made.input_ids[0, 1 + image_tokens :].tolist()
        return ScoredText(name=name, ids=tuple(ids), last=int((made.labels != NO_LABEL).sum()))


def context_for_rows(questions: Sequence[Question], config: ModelConfig, new_tokens: int) -> int:
    """Return a length of the key/value cache that every row and its answer fit in."""
    longest = max((len(text.ids) for each in questions for text in each.scored), default=0)
    needed = 1 + config.vision.image_tokens + longest + new_tokens
    return min(-(-needed // _STEP) * _STEP, config.max_position_embeddings)
