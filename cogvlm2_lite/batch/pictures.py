"""The picture files of a folder, and what is left out of it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cogvlm2_lite.batch.answered import Answered
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.file_names import escape_line, unescape_name
from cogvlm2_lite.folders.downloads import UNFINISHED
from cogvlm2_lite.inputs.failures import check_file_size, picture_kind
from cogvlm2_lite.inputs.formats import (
    FOREIGN_SUFFIXES,
    kind_of,
    missing_package,
    readable_suffixes,
)
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.text import Text, join, listed, marked

_SETTLED_S = 2.0
"""A file that is younger may change again without a new time: file systems count in steps of up to
two seconds."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pictures of a folder, sorted by path, and the texts about files that were left out."""

    names: tuple[str, ...]
    left_out: tuple[Text, ...] = ()


def find_pictures(folder: Path, *, recursive: bool) -> Found:
    """Return the picture files of a folder.

    Hidden files and folders (those that begin with a dot, also macOS's `._photo.jpg`) are not
    looked at. Raises UsageError if there are no pictures, or if the folder can't be read.
    """
    if not folder.is_dir():
        raise UsageError(
            "{folder} is not a folder." if folder.exists() else "There is no folder {folder}.",
            hint="Use the folder that contains the pictures.",
            folder=folder,
        )
    suffixes = frozenset(readable_suffixes())
    names: list[str] = []
    left_out: Counter[tuple[str, str]] = Counter()
    places: Counter[str] = Counter()
    for name in _walk(folder, recursive=recursive, left_out=places):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in suffixes:
            names.append(name)
        elif suffix in FOREIGN_SUFFIXES:
            left_out[FOREIGN_SUFFIXES[suffix], ""] += 1
        elif kind := kind_of(name):
            left_out[kind, missing_package(kind)] += 1
        elif suffix in UNFINISHED and kind_of(name.removesuffix(name[-len(suffix) :])):
            places[_DOWNLOAD] += 1
        elif _is_picture_by_content(folder / name, tuple(suffixes)):
            places[_NO_SUFFIX] += 1
    texts = [_left_out(count, kind, package) for (kind, package), count in left_out.items()]
    texts += [Text(template, count=count) for template, count in places.items()]
    if not names:
        adds = not recursive and (not texts or places[_BELOW] > 0)
        more = Text("Add --recursive to include subfolders." if adds else "")
        raise UsageError(
            "{folder} has no pictures ({kinds}).",
            hint=join(Text("Left out: {files}.", files=listed(texts)), more) if texts else more,
            folder=folder,
            kinds=", ".join(sorted(suffixes)),
        )
    names.sort(key=_order)
    return Found(names=tuple(names), left_out=tuple(texts))


def names_in(folder: Path) -> list[str]:
    """Return the names of the pictures directly in a folder; none if it can't be read."""
    suffixes = readable_suffixes()
    return [
        name
        for name in _walk(folder, recursive=False, left_out=Counter())
        if PurePosixPath(name).suffix.lower() in suffixes
    ]


_UNREAD = marked("folders that can't be read: {count}")
_LINKED = marked("folders that are links: {count}")
_BELOW = marked("subfolders that were not searched: {count}")
_DOWNLOAD = marked("unfinished downloads: {count}")
_NO_SUFFIX = marked("pictures whose names do not end like those of pictures (.jpg): {count}")


def _is_picture_by_content(file: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file without a suffix, or with more behind it (.jpg_large), is a picture."""
    if file.suffix and not file.suffix.lower().startswith(suffixes):
        return False
    try:
        # Looked at first: opening a pipe would block.
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            return bool(picture_kind(stream.read(256)))
    except OSError:
        return False


def _walk(folder: Path, *, recursive: bool, left_out: Counter[str]) -> Iterator[str]:
    """Yield the files below a folder, as paths relative to it; count the folders left out."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(folder / below) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            if not below:
                raise UsageError(
                    "{folder} can't be read: {why}.",
                    hint="Check the permissions of the folder.",
                    folder=folder,
                    why=error.strerror or error,
                ) from error
            left_out[_UNREAD] += 1
            continue
        for entry in found:
            name = f"{below}/{entry.name}" if below else entry.name
            if _is(entry.is_dir):
                if not recursive:
                    left_out[_BELOW] += 1
                elif entry.is_symlink():  # it may lead in a circle
                    left_out[_LINKED] += 1
                else:
                    waiting.append(name)
            elif _is(entry.is_file) or entry.is_symlink():  # a broken link fails when it is read
                yield name


def _is(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:  # a link in a circle
        return False


def _order(name: str) -> list[str]:
    """Return the key for sorting as paths: a folder's pictures stay together."""
    return name.split("/")


def _left_out(count: int, kind: str, package: str) -> Text:
    if package:
        template = "{count} {kind} file needs {package}"
        many = "{count} {kind} files need {package}"
    else:
        template = "{count} {kind} file can't be opened"
        many = "{count} {kind} files can't be opened"
    return Text(template if count == 1 else many, count=count, kind=kind, package=package)


def read_names(raw: bytes, folder: Path) -> tuple[str, ...]:
    """Return the picture names of a list: one per line, relative to the folder.

    raw  the content of the file: UTF-8 or, with a byte order mark, UTF-16

    A name may be written as this program prints it (file_names.py): a line break in it is an
    escape. Bytes that are not UTF-8 are names that are not UTF-8.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", errors="surrogatepass")
    else:
        text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return tuple(_real_name(line, folder) for line in lines if line.strip())


def _real_name(line: str, folder: Path) -> str:
    name = unescape_name(line)
    return line if name == line or os.path.lexists(folder / line) else name


def _below(name: str, folder: Path) -> str:
    """Return a name relative to the folder; one that is not below it stays as it is."""
    path = PurePosixPath(name)
    for start in (folder.absolute(), folder.resolve()):
        if path.is_relative_to(start.as_posix()):
            return path.relative_to(start.as_posix()).as_posix()
    return path.as_posix()


def check_names(names: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Return chosen names, each once. Raises UsageError for one that leads out of the folder."""
    chosen = tuple(dict.fromkeys(_below(name, folder) for name in names if name))
    for name in chosen:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name or "\0" in name:
            raise UsageError(
                "{name} is not a path below {folder}.",
                hint="Name pictures by their paths below the folder, with / between names.",
                name=escape_line(name),
                folder=folder,
            )
    if not chosen:
        raise UsageError("No picture was chosen.", hint="Choose at least one.")
    return chosen


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """The bytes of a picture file as they were read, and what identifies them; see Answered."""

    data: bytes
    sha256: str
    stamp: str


def read_picture(path: Path) -> PictureFile:
    """Read a picture file. Raises OSError, and ImageError for a file that is too large."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block
        raise OSError(errno.EINVAL, "it is not an ordinary file")
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        check_file_size(status.st_size, path.name, DEFAULT_LIMITS)
        data = stream.read()
    settled = time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_S
    return PictureFile(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        stamp=_stamp(status) if settled and status.st_size == len(data) else "",
    )


def is_same_picture(answered: Answered, path: Path) -> bool:
    """Return whether a picture file has the content that an answer is about."""
    try:
        if answered.stamp and _stamp(path.stat()) == answered.stamp:
            return True
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == answered.sha256
    except OSError:
        return False


def _stamp(status: os.stat_result) -> str:
    # The time of the last change of the file's entry also changes when a program restores the time
    # of the content, as copying programs do.
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
