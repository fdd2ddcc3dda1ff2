"""Finds downloads that have not finished, and files that a download saved under another name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cogvlm2_lite.errors import CheckpointError

UNFINISHED = (
    ".aria2", ".part", ".partial", ".incomplete", ".crdownload", ".download", ".opdownload",
    ".downloading", ".filepart", ".xltd", ".td", ".!ut", ".!qb", ".tmp", ".temp",
)  # fmt: skip
"""Endings that browsers and download programs give to a file until it is complete."""

_CONTROL = (".aria2", ".st")
"""Endings of the files that aria2 and axel keep next to a file until it is complete. The file has
its final name and often its final size from the beginning."""

_HIDDEN_PLACES = (".cache/huggingface/download", "._____temp", ".git/lfs/incomplete")
"""Where hf, ModelScope and Git LFS keep unfinished files inside a model folder."""

_COPY = re.compile(r"[ _]?\(\d{1,3}\)| - copy(?: \(\d+\))?| copy(?: \d+)?| ?- ?副本")
"""What systems and browsers add to the name of a second copy."""

_DOUBLED = {
    ".txt": "", ".json.json": ".json", ".safetensors.safetensors": ".safetensors",
}  # fmt: skip
"""Endings that Windows, which hides known ones, makes of a proper ending."""


def control_file(file: Path) -> Path | None:
    """Return the control file next to a file whose download has not finished; None without one."""
    marks = (file.with_name(file.name + ending) for ending in _CONTROL)
    return next((mark for mark in marks if mark.exists()), None)


def refuse_unfinished(file: Path) -> None:
    """Raise CheckpointError if a control file shows that a file is not complete yet."""
    mark = control_file(file)
    if mark is None:
        return
    raise CheckpointError(
        "The download of {file} has not finished: {mark} is next to it.",
        hint="Continue the download with the same program until {mark} disappears. The size of "
        "the file says nothing, because its space was reserved at the beginning.",
        file=file,
        mark=mark.name,
    )


def unfinished_downloads(folder: Path) -> list[Path]:
    """Return the unfinished downloads in a folder, sorted by name."""
    return sorted(_unfinished(folder))


def _unfinished(folder: Path) -> Iterator[Path]:
    for file in files_in(folder):
        name = file.name.lower()
        # rsync writes to .NAME.XXXXXX first.
        if name.endswith(UNFINISHED) or re.fullmatch(r"\..+\.safetensors\.\w{6}", name):
            yield file
    # Safari makes a folder of this name.
    yield from (entry for entry in folder.glob("*.download") if entry.is_dir())
    for place in _HIDDEN_PLACES:
        yield from (f for f in files_in(folder / place) if f.suffix not in (".lock", ".metadata"))
    if folder.parent.name == "snapshots":
        blobs = files_in(folder.parent.parent / "blobs")
        yield from (f for f in blobs if f.name.endswith(".incomplete"))


def saved_as(folder: Path, name: str) -> Path | None:
    """Return a file that is probably `name` under another name, such as "model (1).safetensors"."""
    others = (file for file in files_in(folder) if file.name != name)
    return next((file for file in others if _original(file.name) == name.lower()), None)


def _original(name: str) -> str:
    """Return a file name without what browsers and systems add to it, in lower case."""
    plain = re.sub(r"[?@]download=.*$", "", name.lower().replace("%20", " "))
    plain = _COPY.sub("", plain)
    for ending, proper in _DOUBLED.items():
        if plain.endswith(ending):
            plain = plain.removesuffix(ending) + proper
    return plain


def files_in(folder: Path) -> list[Path]:
    """Return the files directly in a folder, sorted; none if it can't be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries if not entry.is_dir())
    except OSError:
        return []
