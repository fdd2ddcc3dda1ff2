"""Reads the parquet files of Hugging Face data sets, with the optional package pyarrow.

A benchmark is recognized by the columns. Of a picture, only a hash and its place are kept; the
column of its row group is read again when it is asked about.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.errors import DataError, ImageError
from cogvlm2_lite.evaluate.files import (
    FilePicture,
    check_pictures,
    check_start,
    find_inside,
    hash_file,
    unreadable_file,
)
from cogvlm2_lite.evaluate.items import DataFile, Picture, no_picture
from cogvlm2_lite.evaluate.literals import list_of_texts
from cogvlm2_lite.evaluate.rows import LETTERS, Row, number_text
from cogvlm2_lite.evaluate.tsv import decode_base64
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.text import Text

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_BATCH_ROWS = 32
_IMAGE = re.compile(r"image(_\d+)?")
_NAME = re.compile(r"(?P<split>\w+?)(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5})(?:-\w+)?)?\.parquet")
_MISSING = "nan"
"""What some data sets have for a missing text."""

COLUMNS: Mapping[str, tuple[frozenset[str], ...]] = {
    "textvqa": (frozenset({"question_id", "question", "answers", "image", "image_classes"}),),
    "docvqa": (frozenset({"questionId", "question", "answers", "image"}),),
    "chartqa": (
        frozenset({"type", "question", "answer", "image"}),
        frozenset({"query", "label", "image"}),
    ),
    "ocrbench": (frozenset({"dataset", "question", "question_type", "answer", "image"}),),
    "mmmu": (frozenset({"id", "question", "options", "answer", "image_1"}),),
    "mmvet": (frozenset({"question_id", "question", "answer", "capability", "image"}),),
    "mmbench": (frozenset({"index", "question", "A", "B", "image", "category"}),),
}
"""By which columns a benchmark is recognized."""

SPLITS: Mapping[str, tuple[str, ...]] = {
    "textvqa": ("validation",),
    "docvqa": ("validation",),
    "chartqa": ("test",),
    "ocrbench": ("test",),
    "mmmu": ("validation",),
    "mmvet": ("test",),
    "mmbench": ("dev", "validation"),
}
"""The split that is asked, by the names that data sets give to it."""


@dataclass(frozen=True, kw_only=True)
class ParquetPicture:
    """A picture in a row of a file: bytes, or base64 text."""

    path: Path
    group: int
    row: int
    column: str
    name: str
    key: str

    def read(self) -> bytes:
        """Return the bytes of the picture file. Raises ImageError."""
        arrow = _arrow()
        try:
            with arrow.ParquetFile(self.path) as file:
                first = 0
                for batch in file.iter_batches(
                    batch_size=_BATCH_ROWS, row_groups=[self.group], columns=[self.column]
                ):
                    if self.row < first + len(batch):
                        return _bytes(batch[0][self.row - first].as_py(), self.name)
                    first += len(batch)
        except _errors() as error:
            raise ImageError(
                "{file} can't be read: {why}.", file=self.name, why=_reason(error)
            ) from error
        raise no_picture(self.name, Text("the file was changed"))


def split_of(path: Path) -> str:
    """Return the split that a file name has: "validation-00000-of-00001.parquet"; "" if none."""
    if re.fullmatch(r"\d{4}\.parquet", path.name):  # converted by Hugging Face: validation/0000
        return path.parent.name
    found = _NAME.fullmatch(path.name)
    return found["split"] if found else ""


def missing_shard(paths: Sequence[Path]) -> str:
    """Return the name of a file that is missing of several that belong together; "" if none."""
    for path in paths:
        found = _NAME.fullmatch(path.name)
        if found and found["shards"] and int(found["shards"]) <= 10_000:
            beside = {
                other["shard"]
                for one in paths
                if one.parent == path.parent and (other := _NAME.fullmatch(one.name))
            }
            for shard in range(int(found["shards"])):
                if f"{shard:05}" not in beside:
                    return f"{found['split']}-{shard:05}-of-{found['shards']}.parquet"
    return ""


def benchmark_of(path: Path) -> str:
    """Return the benchmark that a file's columns belong to; "" for others. Raises DataError."""
    arrow = _arrow()
    try:
        with path.open("rb") as stream:
            check_start(path, stream, text=False)
        columns = frozenset(arrow.read_schema(path).names)
    except _errors() as error:
        raise _damaged(path, error) from error
    for name, needed in COLUMNS.items():
        if any(columns >= one for one in needed):
            return name
    return ""


def read_parquet(benchmark: str, paths: Sequence[Path]) -> tuple[list[Row], list[DataFile]]:
    """Read files that belong together. Raises DataError."""
    _arrow()  # or an error that names the extra
    rows: list[Row] = []
    for path in paths:
        try:
            with path.open("rb") as stream:
                check_start(path, stream, text=False)
            rows += _file_rows(benchmark, path, len(rows))
        except _errors() as error:
            raise _damaged(path, error) from error
    if not rows:
        raise DataError("{file} has no rows.", hint="Get the file again.", file=paths[0].name)
    return rows, [hash_file(path) for path in paths]


def _file_rows(benchmark: str, path: Path, place: int) -> Iterator[Row]:
    arrow = _arrow()
    with arrow.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name in _WANTED[benchmark]]
        columns += [name for name in file.schema_arrow.names if _IMAGE.fullmatch(name)]
        pictures: list[Picture | str] = []
        for group in range(file.num_row_groups):
            for number, values in enumerate(_values(file, group, columns)):
                where = escape_line(f"{path.parent.name}/{path.name}, row {place + 1}")
                found = list(_pictures(path, group, number, values, where))
                pictures += found
                shown = tuple(one for one in found if not isinstance(one, str))
                row = _READERS[benchmark](values, where, place, shown)
                place += 1
                yield row
        check_pictures(pictures)


def _values(file: ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=columns):
        yield from batch.to_pylist()


def _pictures(
    path: Path, group: int, number: int, values: Mapping[str, Any], where: str
) -> Iterator[Picture | str]:
    """Yield the pictures of a row; the name of one whose file is missing."""
    columns = sorted((c for c in values if _IMAGE.fullmatch(c)), key=lambda c: (len(c), c))
    for column in columns:
        value = values[column]
        name = value.get("path") if isinstance(value, dict) else None
        stored = value.get("bytes") if isinstance(value, dict) else value
        if stored:
            data = stored.encode() if isinstance(stored, str) else stored
            key = hashlib.sha256(data).hexdigest()
            yield ParquetPicture(
                path=path, group=group, row=number, column=column, name=where, key=key
            )
        elif name:
            beside = find_inside((path.parent, path.parent.parent), name, where)
            label = f"{where}: {escape_line(beside.name)}" if beside else ""
            yield name if beside is None else FilePicture(path=beside, name=label)
        elif column in ("image", "image_1"):
            yield where


def _bytes(value: Any, name: str) -> bytes:
    stored = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(stored, str):
        return decode_base64(stored.encode(), name)
    if not isinstance(stored, bytes):
        raise no_picture(name, Text("the file was changed"))
    return stored


def _text(values: Mapping[str, Any], key: str) -> str:
    """Return a text or number as text; "" if it is missing."""
    found = values.get(key)
    if found is None or found == _MISSING or found != found:
        return ""
    return str(found)


def _texts(values: Mapping[str, Any], key: str) -> list[Any] | str | None:
    found = values.get(key)
    return found if found is None or isinstance(found, list) else _text(values, key)


def _textvqa(values: Mapping[str, Any], where: str, _: int, pictures: tuple[Picture, ...]) -> Row:
    id = _text(values, "question_id")
    return Row(
        where=where, id=id, question_id=id, question=_text(values, "question"),
        answer=_texts(values, "answers"), pictures=pictures,
    )  # fmt: skip


def _docvqa(values: Mapping[str, Any], where: str, _: int, pictures: tuple[Picture, ...]) -> Row:
    id, types = _text(values, "questionId"), values.get("question_types") or ()
    return Row(
        where=where, id=id, question_id=id, question=_text(values, "question"),
        answer=_texts(values, "answers"), pictures=pictures,
        labels={"question_types": ",".join(map(str, types))},
    )  # fmt: skip


def _chartqa(
    values: Mapping[str, Any], where: str, place: int, pictures: tuple[Picture, ...]
) -> Row:
    kind = _text(values, "type") or {"0": "human", "1": "augmented"}.get(
        _text(values, "human_or_machine"), ""
    )
    split = next((f"test_{half}" for half in ("human", "augmented") if half in kind), "")
    return Row(
        where=where,
        id=str(place),
        question=_text(values, "question") or _text(values, "query"),
        answer=_texts(values, "answer" if "answer" in values else "label"),
        labels={"split": split},
        pictures=pictures,
    )


def _ocrbench(
    values: Mapping[str, Any], where: str, place: int, pictures: tuple[Picture, ...]
) -> Row:
    found = _texts(values, "answer")
    answers = [found] if isinstance(found, str) else list(found or ())
    question, category = _text(values, "question"), _text(values, "question_type")
    return Row(
        where=where,
        id=str(place),
        question=question,
        answer=answers,
        labels={"category": category},
        pictures=pictures,
        source={
            "dataset_name": _text(values, "dataset"), "id": str(place), "image_path": "",
            "question": question, "answers": answers, "type": category,
        },
    )  # fmt: skip


def _mmmu(values: Mapping[str, Any], where: str, _: int, pictures: tuple[Picture, ...]) -> Row:
    listed = values.get("options")
    options = list_of_texts(listed) if isinstance(listed, str) else tuple(map(str, listed or ()))
    if options is None or len(options) > len(LETTERS):
        raise DataError("{where} has options that are not a list.", where=where)
    id = _text(values, "id")
    return Row(
        where=where, id=id, question_id=id, question=_text(values, "question"),
        options=dict(zip(LETTERS, options, strict=False)), answer=_texts(values, "answer"),
        pictures=pictures,
    )  # fmt: skip


def _mmvet(values: Mapping[str, Any], where: str, _: int, pictures: tuple[Picture, ...]) -> Row:
    id = _text(values, "question_id")
    return Row(
        where=where, id=id, question_id=id, question=_text(values, "question"),
        answer=_texts(values, "answer"), labels={"capability": _text(values, "capability")},
        pictures=pictures,
    )  # fmt: skip


def _mmbench(values: Mapping[str, Any], where: str, _: int, pictures: tuple[Picture, ...]) -> Row:
    level = _text(values, "l2-category") or _text(values, "L2-category")
    return Row(
        where=where,
        id=number_text(_text(values, "index")),
        question=_text(values, "question"),
        hint=_text(values, "hint"),
        options={letter: text for letter in LETTERS if (text := _text(values, letter))},
        answer=_texts(values, "answer"),
        labels={
            "category": _text(values, "category"),
            "l2-category": level,
            "split": _text(values, "split"),
        },
        group=number_text(_text(values, "g_index")),
        pictures=pictures,
    )


_READERS = {
    "textvqa": _textvqa, "docvqa": _docvqa, "chartqa": _chartqa, "ocrbench": _ocrbench,
    "mmmu": _mmmu, "mmvet": _mmvet, "mmbench": _mmbench, "mmbench_cn": _mmbench,
}  # fmt: skip
_MMBENCH = frozenset(
    ("index", "g_index", "question", "hint", "answer", "category", "l2-category", "L2-category",
     "split", *LETTERS)
)  # fmt: skip
_WANTED: Mapping[str, frozenset[str]] = {
    "textvqa": frozenset(("question_id", "question", "answers")),
    "docvqa": frozenset(("questionId", "question", "answers", "question_types")),
    "chartqa": frozenset(
        ("type", "question", "answer", "query", "label", "human_or_machine")
    ),
    "ocrbench": frozenset(("dataset", "question", "question_type", "answer")),
    "mmmu": frozenset(("id", "question", "options", "answer")),
    "mmvet": frozenset(("question_id", "question", "answer", "capability")),
    "mmbench": _MMBENCH,
    "mmbench_cn": _MMBENCH,
}  # fmt: skip
"""The columns that are read, beside those of pictures."""


def _arrow() -> Any:
    """Return pyarrow.parquet; it is optional, and takes half a second to load."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            "Reading parquet files needs the package pyarrow, which is not installed.",
            hint='Run: pip install "cogvlm2-lite[evaluate]"',
        ) from error
    return pyarrow.parquet


def _errors() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises for damaged files."""
    import pyarrow

    return (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError)


def _reason(error: Exception) -> str:
    """Return the first sentence of an error of pyarrow."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition(". ")[0][:200].rstrip(".")


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return unreadable_file(path, error)
    return DataError(
        "{file} is damaged or cut: {why}.",
        hint="Get the file again.",
        file=escape_line(path.name),
        why=_reason(error),
    )
