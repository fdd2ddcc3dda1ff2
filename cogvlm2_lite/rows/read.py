"""Reads training data in the forms that people have: rows of a picture and a conversation.

The form is recognised by its content and can be forced. Rows that can't be used are skipped with
their place and a reason, never silently. Nothing is fetched from the network. No torch here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.file_names import unescape_name
from cogvlm2_lite.rows.fields import ANSWER_KEYS, CONVERSATION_KEYS, find_picture, read_fields
from cogvlm2_lite.rows.files import Found, Raw, open_file, open_folder
from cogvlm2_lite.rows.row import Reason, Row, Rows, Skipped, SkipRowError, Turn
from cogvlm2_lite.text import Text

__all__ = ["CAPTION_QUESTIONS", "Reason", "Row", "Rows", "Skipped", "Turn", "read_rows"]

CAPTION_QUESTIONS = ("Describe this image in detail.", "请详细描述这张图片。")
"""Asked about captions without a question: English, and Chinese for Chinese captions."""

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_OTHER_WORDS = re.compile(r"[^\W\d_\u3400-\u4dbf\u4e00-\u9fff]+")
_BATCH_KEYS = frozenset({"picture", "question", "answer", "error"})


def read_rows(
    source: Path, *, form: str | None = None, labels: str | None = None, ask: Sequence[str] = ()
) -> Rows:
    """Read a file or a folder.

    form    "sft", "json", "table" or "captions"; None: recognised
    labels  for CogVLM-SFT folders with several label folders: "en", "zh" or "both"
    ask     questions for captions without one, taken in turn by row number; (): the defaults

    Raises UsageError if there is nothing of a known form.
    """
    source = source.absolute()  # pictures of a folder are found by their whole paths
    if source.is_dir():
        return _collect(open_folder(source, form, labels), ask)
    if not source.is_file():
        raise UsageError(
            "There is no folder or file {file}.",
            hint="Use a .jsonl, .json, .csv or .tsv file, or a folder of pictures with captions.",
            file=source,
        )
    return _collect(open_file(source, form), ask)


def _collect(found: Found, ask: Sequence[str]) -> Rows:
    rows: list[Row] = []
    skipped: list[Skipped] = []
    seen: set[object] = set()
    kinds: Counter[str] = Counter()
    for number, (source, line, fields) in enumerate(_newest(found.raw)):
        try:
            if isinstance(fields, SkipRowError):
                raise fields
            turns, where = read_fields(fields)
            if where is not None and fields.keys() >= _BATCH_KEYS:
                where = unescape_name(where)
            picture = None if where is None else find_picture(where, found.folder)
            _check(turns, is_caption=len(turns) == 1 and picture is not None)
            if (picture, turns) in seen:
                raise SkipRowError(Reason.TWICE)
            seen.add((picture, turns))
            if not turns[0].question:
                turns = (Turn(_question(turns[0].answer, ask, number), turns[0].answer),)
            rows.append(Row(source=source, line=line, turns=turns, picture=picture))
            kinds[_kind(fields)] += 1
        except SkipRowError as skip:
            skipped.append(
                Skipped(source=source, line=line, reason=skip.reason, detail=skip.detail)
            )
    form = found.form
    if form == "JSON" and kinds:
        form = f"JSON, {kinds.most_common(1)[0][0]}"
    return Rows(form=form, rows=tuple(rows), skipped=tuple(skipped), remarks=_remarks(found))


def _check(turns: Sequence[Turn], *, is_caption: bool) -> None:
    if not is_caption and any(not turn.question for turn in turns):
        raise SkipRowError(Reason.EMPTY_QUESTION)
    if not any(turn.trained for turn in turns):
        raise SkipRowError(Reason.NO_ANSWER, "no answer is trained")
    if any(turn.trained and not turn.answer for turn in turns):
        raise SkipRowError(Reason.EMPTY_ANSWER)


def _newest(raw: Iterable[Raw]) -> Iterable[Raw]:
    """Return the rows; of those that `batch` wrote, only the newest answer to a question counts.

    A picture that is asked again, or whose answer a person corrects, gets another line.
    """
    rows = list(raw)
    last: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows):
        asked = _asked(row)
        if asked is None:
            continue
        earlier = rows[last.get(asked, number)]
        if _answer(earlier) != _answer(row):
            rows[last[asked]] = (*earlier[:2], SkipRowError(Reason.REPLACED))
        last[asked] = number
    return rows


def _asked(row: Raw) -> tuple[str, str] | None:
    """Return picture and question of an answer of `batch`, or None for any other row."""
    fields = row[2]
    if isinstance(fields, SkipRowError) or not fields.keys() >= _BATCH_KEYS or fields["error"]:
        return None
    return str(fields["picture"]), str(fields["question"])


def _answer(row: Raw) -> Any:
    return None if isinstance(row[2], SkipRowError) else row[2]["answer"]


def _question(caption: str, ask: Sequence[str], number: int) -> str:
    if ask:
        return ask[number % len(ask)]
    chinese = len(_CHINESE.findall(caption)) > len(_OTHER_WORDS.findall(caption))
    return CAPTION_QUESTIONS[1 if chinese else 0]


def _kind(fields: Mapping[str, Any]) -> str:
    """Return the name of a row's form, for people."""
    for key in CONVERSATION_KEYS:
        entries = fields.get(key)
        if isinstance(entries, list) and entries and isinstance(entries[0], dict):
            return "ShareGPT" if "from" in entries[0] else key
    if "instruction" in fields:
        return "Alpaca"
    if fields.keys() >= _BATCH_KEYS:
        return "answers of batch"
    questions = fields.keys() - set(ANSWER_KEYS)
    return "questions and answers" if questions & {"query", "question", "prompt"} else "captions"


def _remarks(found: Found) -> tuple[Text, ...]:
    if not found.repeats:
        return ()
    names = ", ".join(found.repeats[:3])
    return (
        Text(
            "The numbers in names such as {names} are ignored: each row counts once.", names=names
        ),
    )
