"""The text files of a batch: their names, whose they are, and what may be written into them.

A text file is this program's if its whole content has a hash that answers.jsonl records for its
picture. Any other file is a person's, also one that was edited since.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path, PurePosixPath

from cogvlm2_lite.batch.answered import EDITED, Answered, WrittenText
from cogvlm2_lite.file_names import cut_name
from cogvlm2_lite.files import write_new, write_whole

_MOST_NAME_BYTES = 255
_SUFFIX = ".txt"
_MOST_BYTES = 64 * 1024**2
_BOM = b"\xef\xbb\xbf"


class Existing(Enum):
    """What to do with a text file that this program did not write, or that was edited since."""

    KEEP = "keep"  # ask, and save the answer in answers.jsonl and answers.csv only
    SKIP = "skip"  # do not ask about the picture
    APPEND = "append"  # add the answer at the end of the file
    PREPEND = "prepend"  # add the answer at the start of the file
    OVERWRITE = "overwrite"


class Owner(Enum):
    """Whose the text file of a picture is."""

    NOBODY = "nobody"  # there is no file
    PROGRAM = "program"
    PERSON = "person"


@dataclass(frozen=True, kw_only=True)
class Writing:
    """The text file of an answer, and what answers.jsonl records of it.

    content  what to write; None: the file has it already
    is_new   there was no file
    """

    path: Path
    content: bytes | None
    written: WrittenText
    is_new: bool = False


@dataclass(frozen=True, kw_only=True)
class TextFiles:
    """The text files of a batch.

    folder    they are below it, each at the place of its picture
    own_edits  files of answers that a person changed in the window are this program's, too
    names     of those that are not called like their picture with .txt, by picture
    """

    folder: Path
    names: Mapping[str, str]
    existing: Existing
    prefix: str = ""
    suffix: str = ""
    own_edits: bool = False

    def name_of(self, picture: str) -> str:
        """Return the path of a picture's text file, relative to the folder."""
        return self.names.get(picture) or _plain_name(picture)

    def owner(self, picture: str, records: Iterable[Answered]) -> Owner:
        """Return whose a picture's text file is. records: its answers so far, in any order."""
        file = self.name_of(picture)
        try:
            content = _read(self.folder / file)
        except OSError:
            return Owner.PERSON
        if content is None:
            return Owner.NOBODY
        return Owner.PERSON if self._record(file, content, records) is None else Owner.PROGRAM

    def takes_answer(self, picture: str) -> bool:
        """Return whether an answer can be added to a person's file, which must be in UTF-8 then.

        A file that can't be read is an error of its picture, later.
        """
        if self.existing not in (Existing.APPEND, Existing.PREPEND):
            return True
        try:
            content = _read(self.folder / self.name_of(picture))
        except OSError:
            return True
        return content is None or _is_utf_8(content)

    def plan(self, answered: Answered, records: Sequence[Answered]) -> tuple[Owner, Writing | None]:
        """Return whose an answer's text file is, and what to write; None: it is to be kept.

        records  the answers about this picture so far

        Raises OSError if the file can't be read or replaced.
        """
        file = self.name_of(answered.picture)
        path = self.folder / file
        own = f"{self.prefix}{answered.answer}{self.suffix}\n".encode("utf-8", errors="replace")
        keeps = self.existing in (Existing.KEEP, Existing.SKIP)
        try:
            current = _read(path)
        except IsADirectoryError:
            raise
        except OSError:
            if keeps:
                return Owner.PERSON, None
            raise
        if current is None:
            return Owner.NOBODY, replace(_writing(path, file, b"", own, b""), is_new=True)
        ours = self._record(file, current, records)
        if ours is not None:
            before, after = current[: ours.start], current[ours.end :]
            return Owner.PROGRAM, _writing(path, file, before, own, after, current)
        return Owner.PERSON, self._change(path, file, current, own, answered, records)

    def _change(
        self,
        path: Path,
        file: str,
        current: bytes,
        own: bytes,
        answered: Answered,
        records: Iterable[Answered],
    ) -> Writing | None:
        """Return what to write into a person's file; None: it is to be kept."""
        keeps = self.existing in (Existing.KEEP, Existing.SKIP)
        if self.existing is Existing.OVERWRITE:
            return _writing(path, file, b"", own, b"", current)
        if keeps or not _is_utf_8(current):
            return None
        if any(r.text is not None and r.answer == answered.answer for r in records):
            return None  # it was added before, and the file was edited since
        if self.existing is Existing.APPEND:
            break_ = b"" if not current or current.endswith(b"\n") else b"\n"
            return _writing(path, file, current + break_, own, b"")
        mark = _BOM if current.startswith(_BOM) else b""
        return _writing(path, file, mark, own, current[len(mark) :])

    def _record(self, file: str, content: bytes, records: Iterable[Answered]) -> WrittenText | None:
        """Return the record of a text file with this content; None if this program has none."""
        digest = hashlib.sha256(content).hexdigest()
        for record in records:
            if record.text is not None:
                if record.reason == EDITED and not self.own_edits:
                    continue  # a person's
                if record.text.sha256 == digest:
                    return record.text
            elif record.stands and not record.sha256:
                # Version 0.2 recorded no hash; its files had the answer between the same texts.
                plain = f"{record.answer}\n"
                if content in (
                    plain.encode(),
                    f"{self.prefix}{plain[:-1]}{self.suffix}\n".encode(),
                ):
                    return WrittenText(file=file, sha256=digest, start=0, end=len(content))
        return None


def write(writing: Writing) -> None:
    """Write a text file, all of it or nothing, unless it has its content. Raises OSError.

    A file that was created since it was planned is not replaced: that raises FileExistsError.
    """
    content = writing.content
    if content is None:
        return
    writing.path.parent.mkdir(parents=True, exist_ok=True)
    if writing.is_new:
        write_new(writing.path, content)
    else:
        write_whole(writing.path, lambda file: file.write_bytes(content))


def _writing(
    path: Path, file: str, before: bytes, own: bytes, after: bytes, current: bytes | None = None
) -> Writing:
    content = before + own + after
    written = WrittenText(
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        start=len(before),
        end=len(before) + len(own),
    )
    return Writing(path=path, content=None if content == current else content, written=written)


def _read(path: Path) -> bytes | None:
    """Return the content of a text file; None if the file does not exist.

    Raises OSError for what this program never writes: a folder, a link, a device, a huge file.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a link or a device")
    if status.st_size > _MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return path.read_bytes()


def _is_utf_8(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


# --- names ----------------------------------------------------------------------------------------


def choose_names(pictures: Iterable[str], recorded: Callable[[str], str]) -> dict[str, str]:
    """Return the text files of those pictures whose file is not called like them with .txt.

    pictures  all pictures of the folders concerned, relative to one folder, sorted
    recorded  returns the text file that answers.jsonl has for a picture, or ""

    photo.jpg has photo.txt. Of photo.jpg and photo.png, the first one has photo.txt and the other
    photo.png.txt. A picture keeps the file that it had before, whatever pictures came since. Names
    that differ only in upper and lower case, or in how accents are composed, are the same, because
    many file systems take them for the same.
    """
    chosen: dict[str, str] = {}
    open_: list[str] = []
    pictures = list(pictures)
    taken = {_folded(picture) for picture in pictures}
    for picture in pictures:
        before = recorded(picture)
        if _is_text_of(before, picture) and _folded(before) not in taken:
            taken.add(_folded(before))
            if before != _plain_name(picture):
                chosen[picture] = before
        else:
            open_.append(picture)
    rest = []
    for picture in open_:
        plain = _folded(_plain_name(picture))
        if plain in taken:
            rest.append(picture)
        else:
            taken.add(plain)
    for picture in rest:
        chosen[picture] = _free_name(picture, taken)
        taken.add(_folded(chosen[picture]))
    return chosen


def _is_text_of(file: str, picture: str) -> bool:
    """Return whether a recorded file is next to its picture; a foreign record could name any."""
    return file.endswith(_SUFFIX) and file.rpartition("/")[0] == picture.rpartition("/")[0]


def _plain_name(picture: str) -> str:
    folder, slash, name = picture.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}{_SUFFIX}"


def _free_name(picture: str, taken: set[str]) -> str:
    path, number = PurePosixPath(picture), 1
    while True:
        end = _SUFFIX if number == 1 else f"-{number}{_SUFFIX}"
        name = path.name
        if len(os.fsencode(name + end)) > _MOST_NAME_BYTES:
            digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
            end = f"-{digest}{end}"
            name = cut_name(name, _MOST_NAME_BYTES - len(end))
        made = path.with_name(name + end).as_posix()
        if _folded(made) not in taken:
            return made
        number += 1


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())
