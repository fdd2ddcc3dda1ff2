"""The small trained checkpoint in the package, and pictures it can answer about."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.errors import CheckpointError, NoFolderError
from cogvlm2_lite.events import Turn
from cogvlm2_lite.folders.explain import explain_file
from cogvlm2_lite.places import expand_home

_HERE = Path(__file__).parent
_MOST_SHOWN = 200
_INCOMPLETE = "Install the package again from a complete source."


@dataclass(frozen=True, kw_only=True)
class SampleQuestion:
    """A question, the turns before it, and the right answer ("" if it is unknown)."""

    question: str
    answer: str = ""
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SamplePicture:
    """An included picture with questions about it."""

    path: Path
    questions: tuple[SampleQuestion, ...]


def checkpoint_folder() -> Path:
    """Return the folder of the demo model; CheckpointError if it was not installed."""
    folder = _HERE / "checkpoint"
    if not (folder / "config.json").is_file():
        raise CheckpointError("The demo model is not part of this installation.", hint=_INCOMPLETE)
    return folder


def model_names(word: str, folder: Path) -> tuple[str, str]:
    """Return a model's name for people, and that for a folder of results.

    word    as the user wrote it: the demo model has one name wherever it is installed
    folder  that of the model, with its whole path
    """
    if word == DEMO_WORD and folder == checkpoint_folder().resolve():
        return word, word
    return str(folder), folder.name


def fingerprint(folder: Path) -> str:
    """Return a hash of a checkpoint folder's content, as 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(f"{path.name}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def sample_pictures() -> tuple[SamplePicture, ...]:
    """Return the included pictures, in the order of pictures.json.

    Raises CheckpointError if they were not installed.
    """
    folder = _HERE / "pictures"
    try:
        content = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            "The demo pictures are not part of this installation.", hint=_INCOMPLETE
        ) from error
    return tuple(
        SamplePicture(
            path=folder / entry["file"],
            questions=tuple(
                SampleQuestion(
                    question=asked["question"],
                    answer=asked["answer"],
                    history=tuple(Turn(*turn) for turn in asked["history"]),
                )
                for asked in entry["questions"]
            ),
        )
        for entry in content["pictures"]
    )


DEMO_WORD = "demo"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long, or in a folder without permission
        return False


def model_folder(name: str, *, released: str = "") -> Path:
    """Return the folder that MODEL names.

    released  the word for the released model, for the hint, if the command takes it

    Raises NoFolderError if there is no such folder, or if it can't be read.
    """
    folder = expand_home(name)
    if name == DEMO_WORD and not _exists(folder / "config.json"):
        return checkpoint_folder()
    try:
        mode = folder.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NoFolderError(
            "There is no folder {name!r}.",
            hint="Choose the folder of a downloaded checkpoint (this program downloads nothing), "
            "`{demo}` for the small included model, or `{released}` for the released model."
            if released
            else "Choose the folder of a downloaded checkpoint (this program downloads nothing), "
            "or `{demo}` for the small included model.",
            name=name,
            demo=DEMO_WORD,
            released=released,
        ) from None
    except (OSError, ValueError) as error:
        raise NoFolderError(
            "The folder {name!r} can't be read: {why}.",
            hint="Check the path and its permissions.",
            name=name[:_MOST_SHOWN],
            why=getattr(error, "strerror", None) or error,
        ) from error
    if stat.S_ISREG(mode):
        raise explain_file(folder)
    return folder
