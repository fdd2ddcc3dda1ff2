"""From files and folders to the fields of rows, one by one, with the place of each."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.rows.fields import ANSWER_KEYS, PICTURE_KEYS, is_picture
from cogvlm2_lite.rows.row import Reason, SkipRowError

Raw = tuple[str, int, "Mapping[str, Any] | SkipRowError"]
"""Source, line, and the row's fields or why it can't be read."""

_SUFFIXES = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "table", ".tsv": "table",
}  # fmt: skip
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD_BYTES = 4096
_MOST_CELL = 200_000_000
"""Characters of a cell: one may hold a picture as a data: URL."""
_REPEATED = re.compile(r"\d+_.+")
"""kohya's folders: "10_cats" has pictures that are to be repeated ten times."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Data of one form.

    folder  what paths in it are relative to, and what they must not leave
    repeats names of folders whose number of repeats is ignored
    """

    form: str
    folder: Path
    raw: Iterator[Raw]
    repeats: tuple[str, ...] = ()


def open_file(file: Path, form: str | None) -> Found:
    """Return the rows of a file. Raises UsageError for one of another kind."""
    head = _head(file)
    if head.startswith(_ARCHIVES):
        raise UsageError("{file} is an archive.", hint="Unpack it and use the folder.", file=file)
    if head.startswith(_UTF16):
        raise _not_utf8(file)
    kind = form or _SUFFIXES.get(file.suffix.lower())
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if kind is None and begin in (b"{", b"["):
        kind = "json"
    if kind == "table":
        return Found(form="table", folder=file.parent, raw=_table(file))
    if kind != "json":
        raise UsageError(
            "{file} is not data of a known form.",
            hint="Use a .jsonl, .json, .csv or .tsv file, or a folder of pictures with captions.",
            file=file,
        )
    content = None
    if begin == b"[" or file.suffix.lower() == ".json":
        content = _whole(file)
    if content is None:
        return Found(form="JSON", folder=file.parent, raw=_lines(file))
    if isinstance(content, list):
        return Found(form="JSON", folder=file.parent, raw=_entries(file, content))
    if _is_kohya(content):
        return Found(form="metadata.json", folder=file.parent, raw=_kohya(file, content))
    return Found(form="JSON", folder=file.parent, raw=_entries(file, [content]))


def open_folder(folder: Path, form: str | None, labels: str | None) -> Found:
    """Return the rows of a folder. Raises UsageError if it has none of a known form."""
    try:
        sft = [each for each in (folder, *_subfolders(folder)) if _is_sft(each)]
        if sft and form in (None, "sft"):
            raw = [row for each in sft for row in _sft(each, folder, labels)]
            return Found(form="CogVLM-SFT", folder=folder, raw=iter(raw))
        if form in (None, "json"):
            for name in ("metadata.jsonl", "answers.jsonl", "metadata.json"):
                if (folder / name).is_file():
                    found = open_file(folder / name, "json")
                    return Found(form=name, folder=folder, raw=found.raw)
        pictures = [] if form in ("json", "table", "sft") else _pictures(folder)
        if any(_caption_file(picture) is not None for picture in pictures):
            names = {part for each in pictures for part in each.relative_to(folder).parts[:-1]}
            repeats = tuple(sorted(name for name in names if _REPEATED.fullmatch(name)))
            raw_captions = _captions(folder, pictures)
            return Found(form="captions", folder=folder, raw=raw_captions, repeats=repeats)
        files = [
            each
            for each in sorted(folder.iterdir())
            if _SUFFIXES.get(each.suffix.lower()) in ((form,) if form else ("json", "table"))
            and each.is_file()
            and not each.name.startswith(".")
        ]
    except OSError as error:
        raise _unreadable(folder, error) from error
    if len(files) == 1:
        return open_file(files[0], form)
    if files:
        raise UsageError(
            "{folder} has several files of data: {files}.",
            hint="Use one of the files instead of the folder.",
            folder=folder,
            files=", ".join(each.name for each in files[:5]),
        )
    if form not in (None, "captions"):
        raise UsageError("{folder} has no data of the form {form}.", folder=folder, form=form)
    raise UsageError(
        "{folder} has no pictures with captions.",
        hint="A caption is a text file with the picture's name: photo.jpg and photo.txt.",
        folder=folder,
    )


# --- bytes ----------------------------------------------------------------------------------------


def _unreadable(file: Path, error: OSError) -> UsageError:
    return UsageError("{file} can't be read: {why}.", file=file, why=error.strerror or error)


def _not_utf8(file: Path) -> UsageError:
    return UsageError(
        "{file} is not in UTF-8.", hint="Save it again with the encoding UTF-8.", file=file
    )


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError as error:
        raise _unreadable(file, error) from error


def _read_text(file: Path) -> str:
    """Return a text; bytes that are not UTF-8 become halves of characters, see `fields`."""
    try:
        return file.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as error:
        raise _unreadable(file, error) from error


# --- JSON -----------------------------------------------------------------------------------------


def _whole(file: Path) -> list[Any] | dict[str, Any] | None:
    """Return the content of a file with one list or object; None: it has rows line by line.

    Raises UsageError with the line for a file that has neither.
    """
    text = _read_text(file)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip()[:1] == "{" and _is_row(text.lstrip().partition("\n")[0]):
            return None
        if file.suffix.lower() != ".json" and not re.match(r"\s*\[\s*\n", text):
            return None  # rows line by line, of which the first is wrong
        raise UsageError(
            "{file} is not valid JSON: line {line}, column {column}: {why}.",
            hint="Correct it. A common reason is a comma after the last entry.",
            file=file,
            line=error.lineno,
            column=error.colno,
            why=error.msg,
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError("{file} is not a list of rows in JSON.", file=file) from error
    if isinstance(content, list | dict):
        return content
    raise UsageError("{file} is not a list of rows in JSON.", file=file)


def _is_row(line: str) -> bool:
    return not isinstance(_parse(line), SkipRowError)


def _entries(file: Path, content: list[Any]) -> Iterator[Raw]:
    for number, entry in enumerate(content, 1):
        wrong = SkipRowError(Reason.JSON, "not an object")
        yield file.name, number, entry if isinstance(entry, dict) else wrong


def _lines(file: Path) -> Iterator[Raw]:
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                text = line.decode("utf-8", "surrogateescape").strip(" \t\r\n\ufeff")
                if text:
                    yield file.name, number, _parse(text)
    except OSError as error:
        raise _unreadable(file, error) from error


def _parse(text: str) -> Mapping[str, Any] | SkipRowError:
    try:
        entry = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            text.encode()
        except UnicodeEncodeError:
            return SkipRowError(Reason.ENCODING)
        return SkipRowError(Reason.JSON, f"column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        return SkipRowError(Reason.JSON, str(error))
    return entry if isinstance(entry, dict) else SkipRowError(Reason.JSON, "not an object")


def _is_kohya(content: Mapping[str, Any]) -> bool:
    """Return whether an object has captions by path, as kohya's scripts write them."""
    values = list(content.values())
    return bool(values) and all(isinstance(each, dict) for each in values)


def _kohya(file: Path, content: Mapping[str, Any]) -> Iterator[Raw]:
    stems: dict[str, Path] | None = None
    for number, (path, entry) in enumerate(content.items(), 1):
        caption = entry.get("caption") or entry.get("tags")
        if not isinstance(caption, str):
            yield file.name, number, SkipRowError(Reason.NO_ANSWER)
            continue
        if not is_picture(Path(path)):  # without --full_path its scripts write stems
            if stems is None:
                stems = {each.stem: each for each in reversed(_pictures(file.parent))}
            path = str(stems.get(Path(path.replace("\\", "/")).name, path))
        yield file.name, number, {"image": path, "caption": caption}


# --- tables ---------------------------------------------------------------------------------------


def _table(file: Path) -> Iterator[Raw]:
    limit = csv.field_size_limit(_MOST_CELL)
    try:
        yield from _cells(file)
    finally:
        csv.field_size_limit(limit)


def _cells(file: Path) -> Iterator[Raw]:
    # Python's own splitting of lines would also split at U+2028 and others.
    text = io.StringIO(_read_text(file), newline="")
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    line = 1
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        _check_header(file, header)
        line = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells[len(header) :]):
                yield file.name, line, SkipRowError(Reason.CELLS)
            elif any(cells):
                yield (
                    file.name,
                    line,
                    {k: v for k, v in zip(header, cells, strict=False) if k and v},
                )
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(
            "{file}, line {line}: {why}.",
            hint="A quote inside of a quoted cell must be doubled.",
            file=file,
            line=line,
            why=error,
        ) from error


def _check_header(file: Path, header: list[str]) -> None:
    if not set(header) & set(PICTURE_KEYS) or not set(header) & set(ANSWER_KEYS):
        raise UsageError(
            "{file} has no column for pictures and answers.",
            hint="Its first line must name them, for example image,question,answer.",
            file=file,
        )
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise UsageError("{file} has two columns {name}.", file=file, name=twice[0])


# --- folders --------------------------------------------------------------------------------------


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
    )


def _label_folders(folder: Path) -> list[Path]:
    names = ("labels_en", "labels_zh", "labels")
    return [folder / name for name in names if (folder / name).is_dir()]


def _is_sft(folder: Path) -> bool:
    return (folder / "images").is_dir() and bool(_label_folders(folder))


def _sft(folder: Path, base: Path, labels: str | None) -> Iterator[Raw]:
    found = _label_folders(folder)
    if labels in ("en", "zh"):
        found = [each for each in found if each.name in (f"labels_{labels}", "labels")]
    elif len(found) > 1 and labels != "both":
        raise UsageError(
            "{folder} has labels in several languages.",
            hint="Choose with --labels en, zh or both.",
            folder=folder,
        )
    files = sorted((folder / "images").iterdir(), reverse=True)
    pictures = {each.stem: each for each in files if is_picture(each)}
    for each in found:
        for file in sorted(each.iterdir()):
            if file.suffix.lower() != ".json" or file.name.startswith("."):
                continue
            fields = _label(file)
            picture = pictures.get(file.stem)
            if not isinstance(fields, SkipRowError):
                if picture is None:
                    fields = SkipRowError(Reason.MISSING, file.stem)
                else:
                    fields = {**fields, "image": str(picture)}
            yield str(file.relative_to(base)), 1, fields


def _label(file: Path) -> Mapping[str, Any] | SkipRowError:
    """Return the conversation of a label file, or the caption of its details part."""
    fields = _parse(_read_text(file))
    if isinstance(fields, SkipRowError) or not isinstance(fields.get("captions"), list):
        return fields
    texts = (each.get("content") for each in fields["captions"] if isinstance(each, dict))
    return {"caption": next((text for text in texts if text), None)}


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder and its subfolders, without hidden ones."""

    def is_hidden(file: Path) -> bool:
        parts = file.relative_to(folder).parts
        return any(part.startswith(".") or part == "__MACOSX" for part in parts)

    files = sorted(folder.rglob("*"))
    return [each for each in files if is_picture(each) and not is_hidden(each) and each.is_file()]


def _caption_file(picture: Path) -> Path | None:
    ends = (".txt", ".TXT", ".caption")
    return next((f for f in map(picture.with_suffix, ends) if f.is_file()), None)


def _captions(folder: Path, pictures: list[Path]) -> Iterator[Raw]:
    for number, picture in enumerate(pictures, 1):
        name, file = str(picture.relative_to(folder)), _caption_file(picture)
        if file is None:
            yield name, number, SkipRowError(Reason.NO_ANSWER)
        else:
            yield name, number, {"image": str(picture), "caption": _read_text(file)}
