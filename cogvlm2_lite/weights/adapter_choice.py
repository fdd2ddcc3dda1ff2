"""Which adapters to load, under which names, and how strongly they act. No torch here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, structs

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.places import expand_home

BASE = "base"
"""What users call the model without an adapter; no adapter may have this name."""
MOST_WEIGHT = 10.0
_LONGEST_NAME = 100
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.I)


class AdapterChoice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An adapter to load.

    name    what requests and front ends call it; choices of one name are added up
    folder  has its files
    weight  its effect is multiplied by this
    """

    name: str
    folder: Path
    weight: float = 1.0


def read_choices(texts: Sequence[str], *, add_up: bool) -> tuple[AdapterChoice, ...]:
    """Return the choices that texts of the form [NAME=]FOLDER[:WEIGHT] describe.

    A text that can be read in several ways means a folder that exists, and of those the one with
    the longest path. NAME is the folder's name by default.

    add_up  all of them act together, under one name

    Raises UsageError for a name or weight that can't be used, and if folders of equal names would
    be added up that nobody gave this name.
    """
    read = [_read(text) for text in texts]
    choices = tuple(choice for choice, _ in read)
    if add_up:
        name = "+".join(names_of(choices))
        return tuple(structs.replace(choice, name=name) for choice in choices)
    for choice, is_named in read:
        if not is_named and sum(one.name == choice.name for one in choices) > 1:
            raise UsageError(
                "Two adapters are called {name!r}.",
                hint="Name them: --adapter one=FOLDER --adapter two=FOLDER. Adapters to which you "
                "give the same name are added up.",
                name=choice.name,
            )
    return choices


def _read(text: str) -> tuple[AdapterChoice, bool]:
    """Return the choice that a text describes, and whether the text has a name."""
    readings = _readings(text)
    # Without such a folder, what the text looks like is used for the error.
    existing = [one for one in readings if _is_folder(one[1])]
    name, folder, weight = existing[0] if existing else _most_likely(readings)
    own = folder.name if folder.name not in ("", "..") else folder.resolve().name
    choice = AdapterChoice(
        name=_checked_name(own if name is None else name, text),
        folder=folder,
        weight=_checked_weight(weight),
    )
    return choice, name is not None


_Reading = tuple[str | None, Path, str]
"""Name, folder and weight."""


def _readings(text: str) -> list[_Reading]:
    """Return what a text may mean, the longest paths first."""
    name, equals, rest = text.partition("=")
    parts: list[tuple[str | None, str]] = [(None, text)]
    if equals and rest and name.strip() and not re.search(r"[/\\]", name):  # "runs/a=b" has none
        parts.append((name.strip(), rest))
    # Shells do not expand the ~ of NAME=~/adapter.
    found: list[_Reading] = [(called, expand_home(path), "") for called, path in parts]
    for called, path in parts:
        folder, _, weight = path.rpartition(":")
        if folder and _NUMBER.fullmatch(weight.strip()):  # that of "C:\\x" is none
            found.append((called, expand_home(folder), weight.strip()))
    return found


def _most_likely(readings: Sequence[_Reading]) -> _Reading:
    """Return the reading with the name and the weight that the text seems to have."""
    named = any(name is not None for name, _, _ in readings)
    return [one for one in readings if (one[0] is not None) == named][-1]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # the name is too long
        return False


def _checked_name(name: str, text: str) -> str:
    if name.lower() == BASE:
        raise UsageError(
            "An adapter can't be called {name!r}: that is the model without an adapter.",
            hint="Choose another name, as in --adapter mine={text}",
            name=name,
            text=escape_line(text.rpartition("=")[2]),
        )
    if not name or len(name) > _LONGEST_NAME or not name.isprintable() or "/" in name:
        raise UsageError(
            "{name!r} can't be the name of an adapter.",
            hint="Choose a short name without a slash, as in --adapter mine=FOLDER",
            name=name[:_LONGEST_NAME],
        )
    return name


def _checked_weight(text: str) -> float:
    weight = float(text or 1)
    if not abs(weight) <= MOST_WEIGHT:  # also no number at all
        raise UsageError(
            "The weight of an adapter must be between {least} and {most}, not {value}.",
            hint="1 is the adapter as it was trained; 0.5 halves its effect.",
            least=f"{-MOST_WEIGHT:g}",
            most=f"{MOST_WEIGHT:g}",
            value=text,
        )
    return weight


def names_of(choices: Sequence[AdapterChoice]) -> tuple[str, ...]:
    """Return the names of the adapters that choices load, in order."""
    return tuple(dict.fromkeys(choice.name for choice in choices))


def unknown_adapter(name: str, names: Sequence[str]) -> UsageError:
    """Return the error for the name of an adapter that is not loaded."""
    return UsageError(
        "There is no adapter {name!r}.",
        hint="Choose one of {names}." if names else "Load one with --adapter FOLDER.",
        name=name,
        names=", ".join((BASE, *names)),
    )
