"""Files of benchmarks: checks that all formats share, and pictures in files of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from cogvlm2_lite.errors import DataError
from cogvlm2_lite.evaluate.items import DataFile, Picture, read_picture_file
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.text import Text

GET_AGAIN = "Get the file again."
_POINTER = b"version https://git-lfs"
_POINTER_BYTES = 1024
"""Pointers of Git LFS are smaller."""
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class FilePicture:
    """A picture in a file of its own."""

    path: Path
    name: str

    @property
    def key(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        """Return the bytes of the file. Raises ImageError."""
        return read_picture_file(self.path, self.name)


def check_start(path: Path, stream: BinaryIO, *, text: bool = True) -> None:
    """Raise DataError for a file that is empty, a Git LFS pointer, or not text. Seeks to 0."""
    head = stream.read(_POINTER_BYTES)
    stream.seek(0)
    if not head:
        raise DataError("{file} is empty (0 bytes).", hint=GET_AGAIN, file=escape_line(path.name))
    if head.startswith(_POINTER):
        raise DataError(
            "{file} is a Git LFS pointer: the download is incomplete.",
            hint="Run `git lfs pull` in its folder, or download the file itself.",
            file=escape_line(path.name),
        )
    if text and b"\0" in head:
        raise DataError(
            "{file} is not a text file in UTF-8.",
            hint="Save it in UTF-8.",
            file=escape_line(path.name),
        )


def not_utf8(path: Path, where: Text) -> DataError:
    """Return the error for a file with bytes that are not UTF-8."""
    return DataError(
        "{file} is not in UTF-8 ({where}).",
        hint="Save it in UTF-8, or get it again.",
        file=escape_line(path.name),
        where=where,
    )


def unreadable_file(path: Path, error: OSError) -> DataError:
    """Return the error for a file that the system does not open."""
    return DataError(
        "{file} can't be read: {why}.",
        hint="Check the path and the permissions of the file.",
        file=path,
        why=error.strerror or error,
    )


def hash_file(path: Path) -> DataFile:
    """Return a file's size and md5. Raises DataError."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise unreadable_file(path, error) from error
    return DataFile(path=path, size=size, md5=digest.hexdigest())


def leads_out(name: str) -> bool:
    """Return whether a relative file name may leave its folder, on any system."""
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    rooted = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor
    return bool(rooted or ".." in parts or "\0" in name)


def find_inside(folders: Iterable[Path], name: str, where: str) -> Path | None:
    """Return the first existing file of this name in the folders, or None.

    Raises DataError for a name that leads out of them.
    """
    if leads_out(name):
        raise DataError(
            "{where} names the picture {name!r}, which is outside of the data folder.",
            hint="Use an unchanged copy of the file.",
            where=where,
            name=name[:200],
        )
    return next((folder / name for folder in folders if is_file(folder / name)), None)


def is_file(path: Path) -> bool:
    """Return whether a path is a regular file; False if the system rejects the name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def check_pictures(pictures: Sequence[Picture | str]) -> None:
    """Raise DataError if pictures are missing, given as names, or only pointers of Git LFS."""
    missing = [one for one in pictures if isinstance(one, str)]
    if missing:
        raise DataError(
            "{count} of {all} picture files are missing; the first is {name}.",
            hint="Put the pictures of the benchmark next to its file, as its authors pack them.",
            count=len(missing),
            all=len(pictures),
            name=escape_line(missing[0][:200]),
        )
    pointer = next((one for one in pictures if _is_pointer(one)), None)
    if pointer is not None:
        raise DataError(
            "The picture {name} is a Git LFS pointer: the download is incomplete.",
            hint="Run `git lfs pull` in its folder, or download the pictures themselves.",
            name=pointer if isinstance(pointer, str) else pointer.name,
        )


def _is_pointer(picture: Picture | str) -> bool:
    if not isinstance(picture, FilePicture):
        return False
    try:
        if picture.path.stat().st_size > _POINTER_BYTES:
            return False
        return picture.path.read_bytes().startswith(_POINTER)
    except OSError:
        return False  # an error of this item, when it is asked
