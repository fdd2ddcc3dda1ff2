"""Makes items of the rows of any file format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from cogvlm2_lite.errors import DataError
from cogvlm2_lite.evaluate.benchmarks import DISCIPLINES
from cogvlm2_lite.evaluate.items import MISSING_WORDS, Item, Picture
from cogvlm2_lite.evaluate.literals import list_of_texts
from cogvlm2_lite.text import Text

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ROTATION = 1_000_000
"""MMBench: a question's rotations have its index plus multiples of this."""

_MMMU_ID = re.compile(r"(dev|validation|test)_(\w+)_(\d+)")
_CHOICES = ("mmbench", "mmbench_cn", "mmmu")
_WITH_LISTS = ("textvqa", "docvqa", "chartqa", "ocrbench", "vqa")
"""Benchmarks whose answers may be list literals. Open questions of MMMU have them, too."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a file, with the same names whatever the format.

    answer    text, or texts; None without one
    labels    as in Item.labels, with the names of the TSV: category, l2-category, split,
              capability, question_types
    question_id  the id in the benchmark's original files, if this row has it
    group     MMBench's g_index, if the file has it
    source    the object of OCRBench.json, where the file has its keys
    """

    where: str
    id: str
    question: str
    answer: str | Sequence[Any] | None
    pictures: tuple[Picture, ...]
    hint: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    question_id: str = ""
    group: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)


def items_of(benchmark: str, rows: Iterable[Row]) -> list[Item]:
    """Return the items of rows. Raises DataError for a row without question, and for equal ids."""
    items: dict[str, Item] = {}
    for row in rows:
        if not row.question.strip():
            raise DataError("{where} has no question.", where=row.where)
        if row.id in items:
            raise DataError(
                "{where} has the id {id!r}, which another row has, so their answers could not be "
                "told apart.",
                hint="Use an unchanged copy of the file.",
                where=row.where,
                id=row.id[:100],
            )
        items[row.id] = _item(benchmark, row)
    return list(items.values())


def _item(benchmark: str, row: Row) -> Item:
    labels = {name: text for name, text in row.labels.items() if text}
    question_id = row.question_id
    if benchmark == "mmmu":
        labels = _mmmu_labels(labels, question_id, is_open=not row.options)
    elif benchmark == "mmvet":
        question_id = question_id or (row.id if row.id.startswith("v1_") else f"v1_{row.id}")
        capability = labels.pop("category", "") or labels.get("capability", "")
        names = (name.strip() for name in capability.split(","))
        labels["capability"] = ",".join(name for name in names if name)
    return Item(
        id=row.id,
        group=_group(row) if benchmark in ("mmbench", "mmbench_cn") else row.id,
        question=row.question,
        hint=row.hint,
        options=row.options,
        answers=_references(benchmark, row),
        pictures=row.pictures,
        labels=labels,
        fields=dict(_fields(benchmark, row, question_id)),
    )


def _group(row: Row) -> str:
    if row.group:
        return row.group
    if not row.id.isdecimal():
        raise DataError(
            "{where} has the index {id!r}, but MMBench numbers its rows.",
            where=row.where,
            id=row.id[:100],
        )
    return str(int(row.id) % ROTATION)


def _references(benchmark: str, row: Row) -> tuple[str, ...]:
    if row.answer is None:
        return ()
    if not isinstance(row.answer, str):
        found = tuple(str(one) for one in row.answer if one is not None)
    else:
        lists = benchmark in _WITH_LISTS or (benchmark == "mmmu" and not row.options)
        literal = list_of_texts(row.answer) if lists else None
        found = (row.answer,) if literal is None else literal
    if benchmark in _CHOICES and row.options:
        found = tuple(one.strip() for one in found)
    # The test sets have empty answers, or a question mark in MMMU.
    withheld = ("", "?") if benchmark == "mmmu" else ("",)
    return () if all(one in withheld for one in found) else found


def _mmmu_labels(labels: dict[str, str], question_id: str, *, is_open: bool) -> dict[str, str]:
    named = _MMMU_ID.fullmatch(question_id)
    subject = named[2] if named else labels.get("category", "")
    kept = {
        "subject": subject,
        "discipline": DISCIPLINES.get(subject) or labels.get("l2-category", ""),
        "question_type": "open" if is_open else "multiple-choice",
        "split": labels.get("split") or (named[1] if named else ""),
    }
    return {name: text for name, text in kept.items() if text}


def _fields(benchmark: str, row: Row, question_id: str) -> Iterator[tuple[str, Any]]:
    """Yield what an export needs."""
    id = question_id or row.id
    if benchmark == "textvqa":
        yield "question_id", _number(id)
    elif benchmark == "docvqa":
        yield "questionId", _number(id)
    elif (benchmark == "mmmu" and question_id) or benchmark == "mmvet":
        yield "question_id", question_id
    elif row.source:
        yield "row", dict(row.source)


def _number(id: str) -> int | str:
    return int(id) if re.fullmatch(r"-?[0-9]{1,18}", id) else id


def number_text(text: str) -> str:
    """Return an index as VLMEvalKit reads it: an integer without blanks and leading zeros."""
    found = re.fullmatch(r"\s*([+-]?[0-9]{1,18})\s*", text)
    return str(int(found[1])) if found else text


def is_original_id(text: str) -> bool:
    """Return whether a text is an id of MMMU or MM-Vet, such as "validation_Art_7" or "v1_0"."""
    return bool(_MMMU_ID.fullmatch(text) or re.fullmatch(r"v1_\d+", text))


def mmmu_id_of_picture(name: str) -> str:
    """Return "validation_Art_7" for "validation_Art_7_1.png", or ""."""
    found = re.fullmatch(r"((?:dev|validation|test)_\w+_\d+)_\d+\.\w+", PurePosixPath(name).name)
    return found[1] if found else ""


def check_answers(items: Sequence[Item]) -> None:
    """Raise DataError if some items have no answer, and others have."""
    without = [item.id for item in items if not item.answers]
    if without and len(without) < len(items):
        raise DataError(
            "{count} of {all} questions have no answer; the first has the id {id}.",
            hint="Use a complete copy of the file.",
            count=len(without),
            all=len(items),
            id=without[0],
        )


def item_notices(benchmark: str, items: Sequence[Item]) -> Iterator[Text]:
    """Yield what a person should know about the items."""
    vanish = sum(
        bool(item.hint and item.hint in MISSING_WORDS)
        or len(item.shown_options) < len(item.options)
        for item in items
    )
    if vanish:
        yield Text(
            "Options and hints such as 'None' or 'N/A' are left out of the prompt, because "
            "VLMEvalKit reads them as missing (questions concerned: {count}).",
            count=vanish,
        )
    if benchmark in _CHOICES:
        outside = sum(
            bool(item.options and item.answers) and item.answers[0] not in item.options
            for item in items
        )
        if outside:
            yield Text(
                "Questions whose answer is none of their options count as wrong: {count}.",
                count=outside,
            )
    several = sum(len(item.pictures) > 1 for item in items)
    if several:
        yield Text(
            "Of several pictures, only the first is shown: the model takes one (questions "
            "concerned: {count}).",
            count=several,
        )
