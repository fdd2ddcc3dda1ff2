"""run.json: which settings the answers of a folder belong to.

Answers of other settings are never mixed or reused: a folder that belongs to another model, prompt
or data file is refused, with both values.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from cogvlm2_lite import __version__
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.answers import ANSWERS
from cogvlm2_lite.evaluate.items import Data, Item
from cogvlm2_lite.file_names import escape_name, to_json
from cogvlm2_lite.files import free_name, write_whole
from cogvlm2_lite.json_lines import unwritten
from cogvlm2_lite.text import Text

RUN = "run.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The settings of a run.

    version, date   of the program, and when the run began
    model           the folder; model_id: weights.identity.identify_model
    quantized       whether the folder has 4-bit weights that `quantize` made
    benchmark, data the benchmark, and the name of its data
    files           name, size and md5 of each data file, and whether the md5 is a published one
    items           how many the data has
    template        the templates that the protocol uses, joined by commas
    dtype, rope, kv, activations as in LoadOptions; compute: the device and number type in fact
    limit           as asked for; None: all
    chosen          how many items were chosen, and chosen_sha256: the hash of their ids
    """

    version: str = __version__
    date: str = ""
    model: str
    model_id: str
    quantized: bool = False
    benchmark: str
    data: str
    files: tuple[Mapping[str, Any], ...]
    items: int
    protocol: str
    template: str
    max_new_tokens: int
    dtype: str = "auto"
    rope: str = "reference"
    kv: str = "full"
    activations: str = "auto"
    compute: str = ""
    seed: int = 0
    limit: int | None = None
    chosen: int = 0
    chosen_sha256: str = ""

    @property
    def name(self) -> str:
        """The model's name for people and for folders."""
        return Path(self.model).name or self.model

    @property
    def data_hash(self) -> str:
        """A text that differs for other data files: the md5 of each."""
        return ", ".join(sorted(str(file["md5"]) for file in self.files))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {**asdict(self), "files": [dict(file) for file in self.files]}

    def with_chosen(self, items: Sequence[Item], limit: int | None) -> Run:
        """Return the run for a choice of items."""
        ids = "\n".join(sorted(item.id for item in items))
        digest = hashlib.sha256(ids.encode("utf-8", "surrogatepass")).hexdigest()
        return replace(self, limit=limit, chosen=len(items), chosen_sha256=digest)


def data_files(data: Data) -> tuple[Mapping[str, Any], ...]:
    """Return what run.json records of the data files."""
    return tuple(
        {
            "file": escape_name(str(file.path)),
            "size": file.size,
            "md5": file.md5,
            "known": file.known,
        }
        for file in data.files
    )


def read_run(folder: Path) -> Run | None:
    """Return the run of a folder; None if it has none. Raises UsageError for a damaged run.json."""
    file = folder / RUN
    try:
        values = json.loads(file.read_bytes())
        known = {one.name for one in fields(Run)}
        files = tuple(dict(each) for each in values.pop("files"))
        run = Run(**{k: v for k, v in values.items() if k in known}, files=files)
        _check_kinds(run)
        return run
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _damaged(file, error.strerror or error) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(file, Text("evaluate did not write it")) from error


def _check_kinds(run: Run) -> None:
    """Raise TypeError for a field that has a value of another kind."""
    whole = (run.items, run.max_new_tokens, run.seed, run.chosen, run.limit or 0)
    texts = (run.model, run.model_id, run.benchmark, run.data, run.protocol, run.template)
    if not all(isinstance(value, int) for value in whole):
        raise TypeError("a count is not a number")
    if not all(isinstance(value, str) for value in texts):
        raise TypeError("a name is not a text")
    _ = run.data_hash


def _damaged(file: Path, why: object) -> UsageError:
    return UsageError(
        "{file} can't be read: {why}.",
        hint="Choose another folder with --output, or add --restart to ask everything again.",
        file=file,
        why=why,
    )


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """A setting that must not change within a run.

    shown  returns the value for people; `value` is what is compared
    """

    name: str
    value: Callable[[Run], object]
    shown: Callable[[Run], object] | None = None

    def show(self, run: Run) -> object:
        return (self.shown or self.value)(run)


_SETTINGS = (
    _Setting(name=Text("the benchmark"), value=lambda run: run.benchmark),
    _Setting(
        name=Text("the model"),
        value=lambda run: run.model_id,
        shown=lambda run: f"{run.model} ({run.model_id})",
    ),
    _Setting(name=Text("the data with the md5"), value=lambda run: run.data_hash),
    _Setting(name=Text("the protocol"), value=lambda run: run.protocol),
    _Setting(name=Text("the template"), value=lambda run: run.template),
    _Setting(name="--max-new-tokens", value=lambda run: run.max_new_tokens),
    _Setting(name="--seed", value=lambda run: run.seed),
    _Setting(name="--dtype", value=lambda run: run.dtype),
    _Setting(name="--rope", value=lambda run: run.rope),
    _Setting(name="--kv", value=lambda run: run.kv),
    _Setting(name="--activations", value=lambda run: run.activations),
)
_OF_MODEL = ("the model", "--dtype", "--rope", "--kv", "--activations")
"""What two runs that are compared may differ in; --seed and --limit are compared by their items."""


def check_same(folder: Path, old: Run, new: Run) -> None:
    """Raise UsageError if a folder's answers belong to other settings than `new`."""
    for setting in _different(old, new):
        raise UsageError(
            "The answers in {folder} were made with {name} {value}, and now it is {found}.",
            hint="Add --restart to ask everything again, or choose another folder with --output.",
            folder=folder,
            name=setting.name,
            value=setting.show(old),
            found=setting.show(new),
        )


def check_compute(folder: Path, old: Run, compute: str) -> None:
    """Raise UsageError if a folder's answers were computed on another device or number type."""
    if old.compute and compute and old.compute != compute:
        raise UsageError(
            "The answers in {folder} were computed with {value}, and now it is {found}.",
            hint="Use --device and --dtype as before, add --restart to ask everything again, or "
            "choose another folder with --output.",
            folder=folder,
            value=old.compute,
            found=compute,
        )


def check_comparable(ours: Run, theirs: Run) -> None:
    """Raise UsageError if two runs did not ask the same data in the same way."""
    for setting in _different(ours, theirs):
        if setting.name in _OF_MODEL or setting.name == "--seed":
            continue
        raise UsageError(
            "{model} and {other} can't be compared: the first was asked with {name} {value}, the "
            "second with {found}.",
            hint="Ask both with the same data and options.",
            model=ours.name,
            other=theirs.name,
            name=setting.name,
            value=setting.show(ours),
            found=setting.show(theirs),
        )


def _different(old: Run, new: Run) -> Iterator[_Setting]:
    return (each for each in _SETTINGS if each.value(old) != each.value(new))


def check_folder(folder: Path, run: Run) -> Run | None:
    """Return the run that a folder has; None for a new folder. Nothing is written.

    Raises UsageError if its answers belong to other settings, or if nothing says to which.
    """
    old = read_run(folder)
    if old is not None:
        check_same(folder, old, run)
    elif (folder / ANSWERS).exists():
        raise UsageError(
            "{folder} has answers, but no {file} that says what was asked.",
            hint="Add --restart to ask everything again, or choose another folder with --output.",
            folder=folder,
            file=RUN,
        )
    return old


def write_run(folder: Path, run: Run) -> Run:
    """Write run.json and return the run with its date. Raises DoesNotFitError on a full disk."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    run = replace(run, date=run.date or now)
    text = to_json(run.as_dict(), indent=1) + "\n"
    write_file(folder / RUN, text.encode())
    return run


def write_file(file: Path, content: bytes) -> None:
    """Write a file of a run folder whole. Raises DoesNotFitError if that fails."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise unwritten(file, error) from error


def set_aside(folder: Path) -> Path | None:
    """Rename the answers of a folder, so that all is asked again; return the new name, if any."""
    try:
        (folder / RUN).unlink(missing_ok=True)
        answers = folder / ANSWERS
        if not answers.exists():
            return None
        target = free_name(folder / "answers-before-restart.jsonl")
        answers.rename(target)
        return target
    except OSError as error:
        raise unwritten(folder / ANSWERS, error) from error
