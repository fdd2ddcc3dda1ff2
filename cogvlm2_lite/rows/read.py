"""Reads training data in the forms that people have: rows of a picture and a conversation.

The form is recognised by its content and can be forced. Rows that can't be used are skipped with
their place and a reason, never silently. Nothing is fetched from the network. No torch here.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.inputs.formats import readable_suffixes
from cogvlm2_lite.units import MIB

CAPTION_QUESTIONS = ("Describe this image in detail.", "请详细描述这张图片。")
"""Asked about captions without a question: English, and Chinese for captions with such letters."""

_MOST_PICTURE_BYTES = 50 * MIB
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_IMAGE_MARK = re.compile(r"<image>\n|\n?<image>")

_PICTURE_KEYS = ("image", "images", "image_path", "picture", "img", "file_name")
_QUESTION_KEYS = ("question", "query", "prompt", "input", "instruction", "problem")
_ANSWER_KEYS = ("answer", "response", "output", "target", "completion", "text", "caption")
_TALK_KEYS = ("messages", "conversations", "conversation")
_REFUSED_KEYS = (
    "loss_scale", "weight", "rejected_response", "tools", "tool_calls", "videos", "audios",
)  # fmt: skip
_ROLES = {
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip


class Reason(Enum):
    """Why a row is skipped."""

    NO_ANSWER = "no answer"
    EMPTY_ANSWER = "empty answer"
    EMPTY_QUESTION = "empty question"
    ROLES = "roles do not alternate"
    ROLE = "unknown role"
    SEVERAL_PICTURES = "more than one picture"
    MISSING = "picture missing"
    OUTSIDE = "picture outside of the data's folder"
    REMOTE = "picture on the network"
    UNREADABLE = "picture not decodable"
    LARGE = "picture larger than 50 MB"
    SPECIAL_TOKEN = "special token in the text"
    ENCODING = "invalid UTF-8"
    JSON = "invalid JSON"
    UNSUPPORTED = "unsupported key"
    TOO_LONG = "question too long"
    FAILED = "row with an error"
    TWICE = "the same row again"


@dataclass(frozen=True)
class Turn:
    """One question and its answer; `trained` is False for a past that is only shown."""

    question: str
    answer: str
    trained: bool = True


@dataclass(frozen=True, kw_only=True)
class Row:
    """A picture, or none, and a conversation about it.

    source, line  where it is, for messages
    picture       a file, or the bytes of a data URL
    """

    source: str
    line: int
    turns: tuple[Turn, ...]
    picture: Path | bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A row that is not used."""

    source: str
    line: int
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a data set has.

    form  its form, in words
    """

    form: str
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]

    def commonest(self, most: int = 5) -> list[tuple[Reason, int]]:
        """Return the most frequent reasons for skipped rows."""
        return Counter(each.reason for each in self.skipped).most_common(most)


class _Skip(Exception):  # noqa: N818 - a signal inside of this module
    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail


def read_rows(
    source: Path, *, form: str | None = None, labels: str | None = None, ask: Sequence[str] = ()
) -> Rows:
    """Read a file or a folder.

    form    "sft", "json", "table" or "captions"; None: recognised
    labels  for CogVLM-SFT folders with several label folders: "en", "zh" or "both"
    ask     questions for captions without one, taken in turn; (): the defaults

    Raises UsageError if there is nothing of a known form.
    """
    source = source.absolute()  # pictures of a folder are found by their whole paths
    if source.is_dir():
        return _read_folder(source, form, labels, ask)
    if not source.is_file():
        raise UsageError(
            "There is no folder or file {file}.",
            hint="Use a .jsonl, .json, .csv or .tsv file, or a folder of pictures with captions.",
            file=source,
        )
    kind = form or {".csv": "table", ".tsv": "table"}.get(source.suffix.lower(), "json")
    if kind == "table":
        return _collect("table", _table(source), source.parent, ask)
    return _collect("JSON", _json_rows(source), source.parent, ask)


# --- collecting rows ------------------------------------------------------------------------------

_Raw = tuple[str, int, "Mapping[str, Any] | _Skip"]
"""Source, line, and the row's fields or why it can't be read."""


def _collect(form: str, raw: Iterable[_Raw], base: Path, ask: Sequence[str]) -> Rows:
    rows: list[Row] = []
    skipped: list[Skipped] = []
    seen: set[tuple[object, ...]] = set()
    captions = 0
    for source, line, fields in raw:
        try:
            if isinstance(fields, _Skip):
                raise fields
            turns, picture = _row(fields, base)
            if not turns[-1].question and picture is not None and len(turns) == 1:
                question = _question(turns[-1].answer, ask, captions)
                turns = (Turn(question, turns[-1].answer),)
                captions += 1
            if any(not turn.question.strip() for turn in turns):
                raise _Skip(Reason.EMPTY_QUESTION)
            if not any(turn.trained for turn in turns):
                raise _Skip(Reason.NO_ANSWER)
            if any(turn.trained and not turn.answer.strip() for turn in turns):
                raise _Skip(Reason.EMPTY_ANSWER)
            key = (str(picture) if isinstance(picture, Path) else picture, turns)
            if key in seen:
                raise _Skip(Reason.TWICE)
            seen.add(key)
            rows.append(Row(source=source, line=line, turns=turns, picture=picture))
        except _Skip as skip:
            skipped.append(
                Skipped(source=source, line=line, reason=skip.reason, detail=skip.detail)
            )
    return Rows(form=form, rows=tuple(rows), skipped=tuple(skipped))


def _question(caption: str, ask: Sequence[str], number: int) -> str:
    if ask:
        return ask[number % len(ask)]
    return CAPTION_QUESTIONS[1 if _CHINESE.search(caption) else 0]


def _row(fields: Mapping[str, Any], base: Path) -> tuple[tuple[Turn, ...], Path | bytes | None]:
    for key in _REFUSED_KEYS:
        if fields.get(key) not in (None, "", [], {}):
            raise _Skip(Reason.UNSUPPORTED, key)
    if fields.get("error"):
        raise _Skip(Reason.FAILED)
    pictures: list[str] = []
    for key in _PICTURE_KEYS:
        value = fields.get(key)
        if isinstance(value, str) and value:
            pictures.append(value)
        elif isinstance(value, list):
            pictures += [str(each) for each in value]
    turns = _turns(fields, pictures)
    if len(set(pictures)) > 1:
        raise _Skip(Reason.SEVERAL_PICTURES)
    return turns, _picture(pictures[0], base) if pictures else None


def _turns(fields: Mapping[str, Any], pictures: list[str]) -> tuple[Turn, ...]:
    talk = next((fields[key] for key in _TALK_KEYS if isinstance(fields.get(key), list)), None)
    marks = [0]
    if talk is not None:
        messages = list(_messages(talk, pictures, marks))
    else:
        messages = list(_question_and_answer(fields, marks))
    if marks[0] > 1:
        raise _Skip(Reason.SEVERAL_PICTURES)
    return _pair_up(messages)


_Message = tuple[str, str, bool]
"""Role, text, and whether it is trained."""


def _messages(talk: list[Any], pictures: list[str], marks: list[int]) -> Iterator[_Message]:
    for entry in talk:
        if not isinstance(entry, dict):
            raise _Skip(Reason.ROLE)
        if "human" in entry and "assistant" in entry:
            yield "user", _text(entry["human"], pictures, marks), True
            yield "assistant", _text(entry["assistant"], pictures, marks), True
            continue
        word = str(entry.get("role", entry.get("from", ""))).lower()
        role = _ROLES.get(word)
        if role is None:
            raise _Skip(Reason.ROLE, word)
        content = entry.get("content", entry.get("value"))
        trained = entry.get("loss", True) is not False
        yield role, _text(content, pictures, marks), trained


def _question_and_answer(fields: Mapping[str, Any], marks: list[int]) -> Iterator[_Message]:
    history = fields.get("history") or []
    if not isinstance(history, list):
        raise _Skip(Reason.ROLES, "history")
    for pair in history:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _Skip(Reason.ROLES, "history")
        yield "user", _text(pair[0], [], marks), False
        yield "assistant", _text(pair[1], [], marks), False
    answer_key = next((key for key in _ANSWER_KEYS if isinstance(fields.get(key), str)), None)
    if answer_key is None:
        raise _Skip(Reason.NO_ANSWER)
    question = ""
    if isinstance(fields.get("instruction"), str):  # Alpaca's form
        parts = [fields["instruction"], fields.get("input") or ""]
        question = "\n".join(part for part in parts if isinstance(part, str) and part)
    else:
        key = next((key for key in _QUESTION_KEYS if isinstance(fields.get(key), str)), None)
        question = "" if key is None else fields[key]
    system = fields.get("system")
    if isinstance(system, str) and system.strip():
        yield "system", system, False
    yield "user", _text(question, [], marks), True
    yield "assistant", _text(fields[answer_key], [], marks), True


def _text(content: Any, pictures: list[str], marks: list[int]) -> str:
    """Return the text of a message; pictures among its parts are added to `pictures`."""
    if isinstance(content, list):
        texts = []
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text":
                texts.append(str(part.get("text", "")))
            elif kind in ("image", "image_url"):
                keys = ("image", "path", "url", "image_url")
                where = next((part[key] for key in keys if key in part), "")
                pictures.append(str(where.get("url", "") if isinstance(where, dict) else where))
            else:
                raise _Skip(Reason.UNSUPPORTED, str(kind))
        content = "".join(texts)
    if not isinstance(content, str):
        raise _Skip(Reason.NO_ANSWER)
    marks[0] += content.count("<image>")
    return _IMAGE_MARK.sub("", content)


def _pair_up(messages: Sequence[_Message]) -> tuple[Turn, ...]:
    """Return the turns; two users in a row are joined, and a trailing one is dropped."""
    system, question = "", None
    turns: list[Turn] = []
    for role, text, trained in messages:
        if role == "system":
            system = text.strip()
        elif role == "user":
            question = text if question is None else f"{question}\n{text}"
        elif question is None:
            raise _Skip(Reason.ROLES)
        else:
            if system and not turns:
                question = f"{system}\n\n{question}"
            turns.append(Turn(question, text, trained))
            question = None
    if not turns:
        raise _Skip(Reason.NO_ANSWER)
    return tuple(turns)


def _picture(where: str, base: Path) -> Path | bytes:
    if where.startswith("data:"):
        head, _, body = where.partition(",")
        try:
            data = base64.b64decode(body, validate=True) if head.endswith(";base64") else b""
        except (binascii.Error, ValueError):
            data = b""
        if not data:
            raise _Skip(Reason.UNREADABLE)
        if len(data) > _MOST_PICTURE_BYTES:
            raise _Skip(Reason.LARGE)
        return data
    parts = urlsplit(where)
    if parts.scheme in ("http", "https", "ftp"):
        raise _Skip(Reason.REMOTE)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(where)
    file = path if path.is_absolute() else base / path
    try:
        real = file.resolve(strict=True)
        if not real.is_relative_to(base.resolve()):
            raise _Skip(Reason.OUTSIDE)
        if not real.is_file():
            raise _Skip(Reason.MISSING)
        if real.stat().st_size > _MOST_PICTURE_BYTES:
            raise _Skip(Reason.LARGE)
    except (OSError, ValueError) as error:  # missing, a loop of links, a zero byte in the name
        raise _Skip(Reason.MISSING) from error
    return real


# --- files ----------------------------------------------------------------------------------------


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(
            "{file} can't be read: {why}.", file=file, why=error.strerror or error
        ) from error


def _json_rows(file: Path) -> Iterator[_Raw]:
    raw = _read_bytes(file)
    begins = raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if begins == b"[" and file.suffix.lower() != ".jsonl":
        text = _decoded(raw)
        try:
            content = None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, list):
            raise UsageError("{file} is not a list of rows in JSON.", file=file)
        for number, entry in enumerate(content, 1):
            fields = entry if isinstance(entry, dict) else _Skip(Reason.JSON)
            yield file.name, number, fields
        return
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip(b" \t\r\xef\xbb\xbf"):
            continue
        yield file.name, number, _json_line(line)


def _json_line(line: bytes) -> Mapping[str, Any] | _Skip:
    text = _decoded(line)
    if text is None:
        return _Skip(Reason.ENCODING)
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return _Skip(Reason.JSON)
    return entry if isinstance(entry, dict) else _Skip(Reason.JSON)


def _table(file: Path) -> Iterator[_Raw]:
    text = _decoded(_read_bytes(file))
    if text is None:
        raise UsageError(
            "{file} is not in UTF-8.", hint="Save the table again as CSV in UTF-8.", file=file
        )
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    header = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    if not set(header) & set(_PICTURE_KEYS) or not set(header) & set(_ANSWER_KEYS):
        raise UsageError(
            "{file} has no column for pictures and answers.",
            hint="Its first line must name them, for example image,question,answer.",
            file=file,
        )
    try:
        for fields in reader:
            yield file.name, reader.line_num, {k: v for k, v in fields.items() if k and v}
    except csv.Error as error:
        raise UsageError(
            "{file}, line {line}: {why}.", file=file, line=reader.line_num, why=error
        ) from error


# --- folders --------------------------------------------------------------------------------------


def _read_folder(folder: Path, form: str | None, labels: str | None, ask: Sequence[str]) -> Rows:
    sft = [each for each in (folder, *_subfolders(folder)) if _is_sft(each)]
    if sft and form in (None, "sft"):
        raw = [row for each in sft for row in _sft(each, labels)]
        return _collect("CogVLM-SFT", raw, folder, ask)
    own = {"metadata.jsonl": _json_rows, "answers.jsonl": _json_rows, "metadata.json": _kohya}
    for name, read in own.items():
        if (folder / name).is_file() and form in (None, "json"):
            return _collect(name, read(folder / name), folder, ask)
    if form in (None, "captions"):
        return _collect("captions", _captions(folder), folder, ask)
    raise UsageError("{folder} has no data of the form {form}.", folder=folder, form=form)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir())


def _label_folders(folder: Path) -> list[Path]:
    names = ("labels_en", "labels_zh", "labels")
    return [folder / name for name in names if (folder / name).is_dir()]


def _is_sft(folder: Path) -> bool:
    return (folder / "images").is_dir() and bool(_label_folders(folder))


def _sft(folder: Path, labels: str | None) -> Iterator[_Raw]:
    found = _label_folders(folder)
    if labels in ("en", "zh"):
        found = [each for each in found if each.name in (f"labels_{labels}", "labels")]
    elif len(found) > 1 and labels != "both":
        raise UsageError(
            "{folder} has labels in several languages.",
            hint="Choose with --labels en, zh or both.",
            folder=folder,
        )
    pictures = {each.stem: each for each in sorted((folder / "images").iterdir())}
    for each in found:
        for file in sorted(each.glob("*.json")):
            name = f"{each.name}/{file.name}"
            picture = pictures.get(file.stem)
            if picture is None:
                yield name, 1, _Skip(Reason.MISSING)
                continue
            text = _decoded(_read_bytes(file))
            fields = _Skip(Reason.ENCODING) if text is None else _json_line(text.encode())
            if isinstance(fields, dict):
                captions = fields.get("captions")
                if isinstance(captions, list) and captions and isinstance(captions[0], dict):
                    fields = {"caption": str(captions[0].get("content", ""))}
                fields = {**fields, "image": str(picture)}
            yield name, 1, fields


def _kohya(file: Path) -> Iterator[_Raw]:
    text = _decoded(_read_bytes(file))
    fields = None if text is None else _json_line(text.encode())
    if not isinstance(fields, dict):
        raise UsageError("{file} is not an object in JSON.", file=file)
    for number, (path, entry) in enumerate(fields.items(), 1):
        own = entry if isinstance(entry, dict) else {}
        caption = own.get("caption") or own.get("tags")
        if not isinstance(caption, str):
            yield file.name, number, _Skip(Reason.NO_ANSWER)
        else:
            yield file.name, number, {"image": path, "caption": caption}


def _captions(folder: Path) -> Iterator[_Raw]:
    suffixes = readable_suffixes()
    pictures = sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes and f.is_file())

    def texts(picture: Path) -> list[Path]:
        return [picture.with_suffix(end) for end in (".txt", ".caption")]

    if not any(text.is_file() for picture in pictures for text in texts(picture)):
        raise UsageError(
            "{folder} has no pictures with captions.",
            hint="A caption is a text file with the picture's name: photo.jpg and photo.txt.",
            folder=folder,
        )
    for number, picture in enumerate(pictures, 1):
        name = str(picture.relative_to(folder))
        file = next((text for text in texts(picture) if text.is_file()), None)
        if file is None:
            yield name, number, _Skip(Reason.NO_ANSWER)
            continue
        caption = _decoded(_read_bytes(file))
        if caption is None:
            yield name, number, _Skip(Reason.ENCODING)
        else:
            yield name, number, {"image": str(picture), "caption": caption.strip()}
