"""The working folder of a conversion, and what a later run can reuse of it.

DEST.partial is next to DEST and contains

    job.json        what is converted: program, source, settings
    journal.jsonl   one line per finished tensor with the sha256 of its pieces; a line is written
                    only after the tensor's bytes are on the disk
    calibration/    the results of a calibration so far (calibrate.py)
    model-*         the shards, written in order

The manifest is written last. After it, only the two job files are deleted and the folder is
renamed. So a killed run can be resumed at any time, and DEST never looks finished before it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from cogvlm2_lite.errors import ConversionError
from cogvlm2_lite.lock_file import hold_lock
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.manifest import MANIFEST_NAME, read_manifest
from cogvlm2_lite.weights.writer import sync_folder, write_file_durably
from quantize.recipe import PlannedShard, PlannedTensor, Recipe

JOB_NAME = "job.json"
JOURNAL_NAME = "journal.jsonl"
CALIBRATION_FOLDER = "calibration"
DECISION_NAME = "decision.json"

_LOCK_WAIT_S = 0.2
"""Long enough for a lock file that an earlier run is deleting at this moment."""

_CHANGEABLE = ("budget", "target", "shard_bytes")
"""Settings that may change before an unfinished job is continued."""

Hashes = Mapping[str, str]
"""sha256 of each piece of one tensor, by role."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What is converted. A run may only resume the work of an equal one."""

    tool: str
    source: Mapping[str, str]
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the content of job.json."""
        return {"tool": self.tool, "source": dict(self.source), "settings": dict(self.settings)}

    def difference(self, other: Identity) -> Text:
        """Return the first thing in which two differ, with both values; empty for equal ones."""
        if self.tool != other.tool:
            return Text("with {old}, but this is {new}", old=other.tool, new=self.tool)
        if self.source != other.source:
            names = [k for k in self.source if self.source[k] != other.source.get(k)]
            mine, theirs = self.source[names[0]], other.source.get(names[0], "none")
            return Text(
                "from another source ({name} {old}, now {new})",
                name=names[0],
                old=theirs[:12],
                new=mine[:12],
            )
        for key in dict.fromkeys([*self.settings, *other.settings]):
            now, before = self.settings.get(key), other.settings.get(key)
            if now != before:
                return Text(
                    "with {name} {old}, but now it is {new}",
                    name=key,
                    old=_show(before),
                    new=_show(now),
                )
        return Text()

    def changes(self, other: Identity) -> frozenset[str]:
        """Return the settings in which two differ, if an unfinished job may change them all.

        Empty for equal ones, and for those that differ in anything else: the calibration does not
        depend on the budget and on the size of the files, but on everything else.
        """
        names = frozenset(
            name for name in _CHANGEABLE if self.settings.get(name) != other.settings.get(name)
        )
        ours, theirs = ({**i.settings, **dict.fromkeys(_CHANGEABLE)} for i in (self, other))
        alike = self.tool == other.tool and self.source == other.source and ours == theirs
        return names if alike else frozenset()


def _show(value: Any) -> str:
    return json.dumps(value)


def partial_folder(destination: Path) -> Path:
    """Return the working folder of a destination."""
    return destination.with_name(destination.name + ".partial")


def read_identity(folder: Path) -> Identity | None:
    """Return what a working or finished folder was made from; None if that is not recorded."""
    manifest = read_manifest(folder)
    if manifest is not None:
        return Identity(tool=manifest.tool, source=manifest.source, settings=manifest.settings)
    try:
        content = json.loads((folder / JOB_NAME).read_text(encoding="utf-8"))
        return Identity(
            tool=content["tool"], source=content["source"], settings=content["settings"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


# --- one run at a time ----------------------------------------------------------------------------


@contextmanager
def exclusive_run(destination: Path) -> Iterator[None]:
    """Hold the lock of a destination; the system frees it when the process dies.

    Raises ConversionError when another run holds it.
    """
    file = destination.with_name(destination.name + ".lock")
    with ExitStack() as held:
        try:
            held.enter_context(hold_lock(file, wait_s=_LOCK_WAIT_S))
        except BlockingIOError as error:
            raise ConversionError(
                "Another run is writing {folder} now ({file} is locked: {why}).",
                hint="Wait until it has ended, or choose another destination.",
                folder=destination,
                file=file.name,
                why=error.strerror,
            ) from error
        yield


# --- what an earlier run left ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The tensors that an earlier run has finished: always the first ones, without a gap."""

    done: Mapping[str, Hashes]
    """By tensor name, in the recipe's order."""
    complete: bool = False
    """True if only the final renaming is missing."""

    def keep(self, shard: PlannedShard) -> int:
        """Return how many bytes at the beginning of a shard are kept."""
        ends = [_end(shard, t) for t in shard.tensors if t.name in self.done]
        return max(ends, default=0)

    def ready_bytes(self, recipe: Recipe) -> int:
        """Return the bytes of all shards that need not be written again."""
        return sum(self.keep(shard) for shard in recipe.shards)


def survey(destination: Path, identity: Identity, recipe: Recipe, *, rehash: bool) -> Survey:
    """Return what can be reused of the working folder; change nothing.

    rehash  read finished tensors again and compare their sha256, instead of trusting the journal
    Raises ConversionError when the folder belongs to a conversion with other settings.
    """
    folder = partial_folder(destination)
    if not folder.exists():
        return Survey(done={})
    found = read_identity(folder)
    if found is None:
        _refuse_foreign(folder)
        return Survey(done={})
    difference = identity.difference(found)
    if difference:
        raise ConversionError(
            "{folder} was started {difference}.",
            hint="Use the same options as before to continue it, or add --restart to delete it "
            "and start over.",
            folder=folder,
            difference=difference,
        )
    if (folder / MANIFEST_NAME).exists():
        return Survey(done={}, complete=True)
    journal = _read_journal(folder / JOURNAL_NAME)
    done: dict[str, Hashes] = {}
    for shard, tensor in ((s, t) for s in recipe.shards for t in s.tensors):
        hashes = journal.get(tensor.name)
        if hashes is None or not _is_intact(folder, shard, tensor, hashes, rehash):
            break
        done[tensor.name] = hashes
    return Survey(done=done)


def _refuse_foreign(folder: Path) -> None:
    """Raise ConversionError for a folder that no conversion made.

    A conversion that was killed at its start leaves an empty one, which is accepted.
    """
    strange = [p.name for p in folder.iterdir() if p.name != JOB_NAME + ".tmp"]
    if strange:
        raise ConversionError(
            "{folder} exists, but was not made by an earlier quantize or merge ({file} is in it).",
            hint="Move it away, or choose another destination.",
            folder=folder,
            file=strange[0],
        )


def _read_journal(file: Path) -> dict[str, Hashes]:
    """Return the entries of complete lines; a line that was cut off counts as not written."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return {}
    entries: dict[str, Hashes] = {}
    for line in raw.split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
            entries[entry["tensor"]] = {**entry["sha256"]}
        except (ValueError, KeyError, TypeError):
            break
    return entries


def _end(shard: PlannedShard, tensor: PlannedTensor) -> int:
    last = list(tensor.pieces.values())[-1]
    return shard.layout.begins[last.name] + last.nbytes


def _is_intact(
    folder: Path, shard: PlannedShard, tensor: PlannedTensor, hashes: Hashes, rehash: bool
) -> bool:
    """Compare a tensor of the journal with its file: always the size, with `rehash` the bytes."""
    file = folder / shard.name
    if not file.exists() or file.stat().st_size < _end(shard, tensor):
        return False
    if set(hashes) != set(tensor.pieces):
        return False
    if not rehash:
        return True
    with file.open("rb") as stream:
        if stream.read(len(shard.layout.header)) != shard.layout.header:
            return False
        for role, piece in tensor.pieces.items():
            if hash_range(stream, shard.layout.begins[piece.name], piece.nbytes) != hashes[role]:
                return False
    return True


def hash_range(stream: IO[bytes], begin: int, count: int) -> str:
    """Return the sha256 of a range of a file, or of its existing part if the file ends earlier."""
    digest = hashlib.sha256()
    stream.seek(begin)
    while count > 0 and (data := stream.read(min(count, 4 * MIB))):
        digest.update(data)
        count -= len(data)
    return digest.hexdigest()


# --- the work -------------------------------------------------------------------------------------


class Job:
    """The open working folder: knows which tensors are done and records new ones.

    A context manager that keeps the journal open.
    """

    def __init__(self, destination: Path, identity: Identity, found: Survey) -> None:
        """Make the folder, or resume after the tensors in `found`."""
        self.folder = partial_folder(destination)
        self.destination = destination
        self.done: dict[str, Hashes] = dict(found.done)
        self._unwritten: dict[str, Hashes] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / JOB_NAME).exists():
            content = json.dumps(identity.to_json(), indent=1).encode()
            write_file_durably(self.folder / JOB_NAME, content)
            sync_folder(self.folder.parent)
        # Written anew without a line that was cut off, which must not stay before new lines.
        lines = b"".join(_line(name, hashes) for name, hashes in self.done.items())
        write_file_durably(self.folder / JOURNAL_NAME, lines)
        self._journal = (self.folder / JOURNAL_NAME).open("ab", buffering=0)

    def finish_tensor(self, name: str, hashes: Hashes) -> None:
        """Note a tensor whose bytes are written, but perhaps not on the disk yet."""
        self._unwritten[name] = hashes

    def commit(self) -> None:
        """Write the noted tensors to the journal. Call it after their shard was synced."""
        lines = b"".join(_line(name, hashes) for name, hashes in self._unwritten.items())
        self._journal.write(lines)
        os.fsync(self._journal.fileno())
        self.done |= self._unwritten
        self._unwritten = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()


def _line(name: str, hashes: Hashes) -> bytes:
    return json.dumps({"tensor": name, "sha256": dict(hashes)}).encode() + b"\n"


def publish(destination: Path) -> None:
    """Rename a complete working folder to its final name, in one step."""
    folder = partial_folder(destination)
    shutil.rmtree(folder / CALIBRATION_FOLDER, ignore_errors=True)
    for name in (JOURNAL_NAME, JOB_NAME):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
    if destination.exists():
        destination.rmdir()  # empty, made by the user; others were rejected at the start
    folder.rename(destination)
    sync_folder(destination.parent)


def change_settings(destination: Path, identity: Identity) -> None:
    """Keep the calibration for another budget or size of files; delete what depends on them."""
    folder = partial_folder(destination)
    for file in (*folder.glob("model-*"), folder / JOURNAL_NAME):
        file.unlink(missing_ok=True)
    if "budget" in identity.settings:  # how it is spent depends on the headers of the files, too
        (folder / CALIBRATION_FOLDER / DECISION_NAME).unlink(missing_ok=True)
    content = json.dumps(identity.to_json(), indent=1).encode()
    write_file_durably(folder / JOB_NAME, content)


def discard(destination: Path) -> None:
    """Delete the working folder of a destination, if there is one and a conversion made it."""
    folder = partial_folder(destination)
    if not folder.exists():
        return
    if read_identity(folder) is None:
        _refuse_foreign(folder)
    shutil.rmtree(folder)
