"""Reads the JSON files of the benchmarks' authors, with their folders of pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogvlm2_lite.errors import DataError
from cogvlm2_lite.evaluate.files import (
    GET_AGAIN,
    FilePicture,
    check_start,
    find_inside,
    hash_file,
    not_utf8,
    unreadable_file,
)
from cogvlm2_lite.evaluate.items import DataFile, Picture
from cogvlm2_lite.evaluate.rows import Row
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB, format_bytes

_MOST_BYTES = 256 * MIB
_SUFFIXES = (".jpg", ".png", ".jpeg", "")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the authors of a benchmark pack it.

    files    pattern of the names of the JSON files
    keys     by which an object of another name is recognized
    parts    the files that belong together, side by side
    read     makes rows of the content: (content, name of the file, finder of pictures)
    folders  with the pictures, relative to the JSON file
    withheld pattern of the names of files without answers, and the file to take instead
    """

    files: re.Pattern[str]
    keys: frozenset[str]
    read: Callable[[Any, str, _Finder], Iterator[Row]]
    folders: tuple[str, ...]
    parts: tuple[str, ...] = ()
    withheld: re.Pattern[str] | None = None
    instead: str = ""


class _Finder:
    """Finds pictures by the names in a file, and remembers those that are missing."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self.pictures: list[Picture | str] = []

    def find(self, names: Iterable[str], where: str) -> tuple[Picture, ...]:
        """Return the first existing picture of several names, in a tuple; empty without one."""
        tried = list(names)
        for name in tried:
            path = find_inside(self._folders, name, where)
            if path is not None:
                found = FilePicture(path=path, name=f"{where}: {escape_line(path.name)}")
                self.pictures.append(found)
                return (found,)
        self.pictures.append(tried[0])
        return ()


def benchmark_of_json(path: Path) -> str:
    """Return the benchmark that a file's keys belong to; "" for others. Raises DataError."""
    content = _content(path)
    if isinstance(content, dict) and not isinstance(content.get("data"), list):
        content = list(content.values())
    listed = content.get("data") if isinstance(content, dict) else content
    first = listed[0] if isinstance(listed, list) and listed else None
    keys = set(first) if isinstance(first, dict) else set()
    return next((name for name, layout in LAYOUTS.items() if layout.keys <= keys), "")


def read_original(
    benchmark: str, path: Path
) -> tuple[list[Row], list[DataFile], list[Picture | str]]:
    """Read a JSON file, and those that belong to it. Raises DataError.

    Returns the rows, the files, and all pictures, or the names of missing ones: a file without
    answers is reported before its pictures are.
    """
    layout = LAYOUTS[benchmark]
    paths = [path]
    if path.name in layout.parts:
        paths = [path.parent / name for name in layout.parts]
        if absent := [one.name for one in paths if not one.exists()]:
            raise DataError(
                "{file} is there without {absent}, which is the other half of the benchmark.",
                hint="Put both files into one folder.",
                file=escape_line(path.name),
                absent=absent[0],
            )
    finder = _Finder(path.parent / folder for folder in layout.folders)
    rows: list[Row] = []
    for one in paths:
        found = list(layout.read(_content(one), escape_line(one.name), finder))
        if not found:
            raise DataError("{file} has no questions.", hint=GET_AGAIN, file=escape_line(one.name))
        rows += found
    return rows, [hash_file(one) for one in paths], finder.pictures


def _content(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise DataError(
                "{file} has {size}, more than the {most} that a JSON file of questions may have.",
                file=escape_line(path.name),
                size=format_bytes(size),
                most=format_bytes(_MOST_BYTES),
            )
        with path.open("rb") as stream:
            check_start(path, stream)
            return json.loads(stream.read().decode("utf-8-sig"))
    except OSError as error:
        raise unreadable_file(path, error) from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, Text("byte {place}", place=error.start)) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise DataError(
            "{file} is not valid JSON: {why}.",
            hint="The download may be incomplete; get it again.",
            file=escape_line(path.name),
            why=str(error)[:200] or type(error).__name__,
        ) from error


class _Object:
    """An object of a file; missing keys and values of other types raise DataError."""

    def __init__(self, content: Any, where: str) -> None:
        if not isinstance(content, dict):
            raise DataError("{where} is not a JSON object.", hint=GET_AGAIN, where=where)
        self.where = where
        self.content: Mapping[str, Any] = content

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text, or a number as text."""
        found = self.content.get(key, default)
        if not isinstance(found, str | int | float) or isinstance(found, bool):
            raise DataError(
                "{where} has no text {key!r}.", hint=GET_AGAIN, where=self.where, key=key
            )
        return str(found)

    def texts(self, key: str) -> list[Any] | str | None:
        """Return a text, a list, or None if the key is missing."""
        found = self.content.get(key)
        if found is None or isinstance(found, str | list):
            return found
        return str(found)

    def joined(self, key: str) -> str:
        """Return a list of texts joined by commas; "" without one."""
        found = self.texts(key)
        return ",".join(map(str, found)) if isinstance(found, list) else found or ""


def _objects(content: Any, name: str) -> Iterator[tuple[int, _Object]]:
    """Yield place and object of each question: a list, or a list under the key `data`."""
    listed = content.get("data") if isinstance(content, dict) else content
    if not isinstance(listed, list):
        raise DataError(
            "{file} has no list of questions.",
            hint="Use the file of the benchmark's authors.",
            file=name,
        )
    for place, one in enumerate(listed):
        yield place, _Object(one, f"{name}, question {place + 1}")


def _textvqa(content: Any, name: str, finder: _Finder) -> Iterator[Row]:
    for _, one in _objects(content, name):
        id, image = one.text("question_id"), one.text("image_id")
        yield Row(
            where=one.where,
            id=id,
            question_id=id,
            question=one.text("question"),
            answer=one.texts("answers"),
            pictures=finder.find((image + suffix for suffix in _SUFFIXES), one.where),
        )


def _docvqa(content: Any, name: str, finder: _Finder) -> Iterator[Row]:
    for _, one in _objects(content, name):
        id, image = one.text("questionId"), one.text("image")
        yield Row(
            where=one.where,
            id=id,
            question_id=id,
            question=one.text("question"),
            answer=one.texts("answers"),
            labels={"question_types": one.joined("question_types")},
            pictures=finder.find((image, image.rpartition("/")[2]), one.where),
        )


def _chartqa(content: Any, name: str, finder: _Finder) -> Iterator[Row]:
    named = re.fullmatch(r"test_(human|augmented)\.json", name)
    half = named[1] if named else ""
    for place, one in _objects(content, name):
        yield Row(
            where=one.where,
            id=f"{half}_{place}" if half else str(place),
            question=one.text("query"),
            answer=one.texts("label"),
            labels={"split": f"test_{half}" if half else ""},
            pictures=finder.find((one.text("imgname"),), one.where),
        )


def _ocrbench(content: Any, name: str, finder: _Finder) -> Iterator[Row]:
    for place, one in _objects(content, name):
        answers = one.texts("answers")
        yield Row(
            where=one.where,
            id=str(place),
            question=one.text("question"),
            # A text is one answer here, whatever it looks like.
            answer=[answers] if isinstance(answers, str) else answers,
            labels={"category": one.text("type")},
            source=one.content,
            pictures=finder.find((one.text("image_path"),), one.where),
        )


def _mmvet(content: Any, name: str, finder: _Finder) -> Iterator[Row]:
    if not isinstance(content, dict):
        raise DataError("{file} is not a JSON object.", hint=GET_AGAIN, file=name)
    for id, values in content.items():
        one = _Object(values, escape_line(f"{name}, {id[:40]}"))
        yield Row(
            where=one.where,
            id=id,
            question_id=id,
            question=one.text("question"),
            answer=one.texts("answer"),
            labels={"capability": one.joined("capability")},
            pictures=finder.find((one.text("imagename"),), one.where),
        )


LAYOUTS: Mapping[str, Layout] = {
    "textvqa": Layout(
        files=re.compile(r"TextVQA_[\d.]+_val\.json"),
        keys=frozenset({"question_id", "image_id", "question"}),
        read=_textvqa,
        folders=(
            "train_images", "train_val_images/train_images", "val_images", "images", "test_images",
            "../train_images", "../train_val_images/train_images", "../images",
        ),
        withheld=re.compile(r"TextVQA_[\d.]+_test\.json"),
        instead="TextVQA_0.5.1_val.json",
    ),
    "docvqa": Layout(
        files=re.compile(r"val_v[\d.]+(_withQT)?\.json"),
        keys=frozenset({"questionId", "question", "image"}),
        read=_docvqa,
        folders=(
            ".", "documents", "spdocvqa_images", "images", "..", "../documents",
            "../spdocvqa_images", "../images",
        ),
        withheld=re.compile(r"test_v[\d.]+(_withQT)?\.json"),
        instead="val_v1.0_withQT.json",
    ),
    "chartqa": Layout(
        files=re.compile(r"test_(human|augmented)\.json"),
        keys=frozenset({"imgname", "query"}),
        read=_chartqa,
        folders=("png", "../png", "images"),
        parts=("test_human.json", "test_augmented.json"),
    ),
    "ocrbench": Layout(
        files=re.compile(r"OCRBench\.json"),
        keys=frozenset({"image_path", "question", "type"}),
        read=_ocrbench,
        folders=("../OCRBench_Images", "OCRBench_Images", "."),
    ),
    "mmvet": Layout(
        files=re.compile(r"mm-vet\.json"),
        keys=frozenset({"imagename", "question", "capability"}),
        read=_mmvet,
        folders=("images", ".", "../images"),
    ),
}  # fmt: skip
"""MMBench has only TSV files, MMMU only parquet and TSV files."""
