"""The files from which a killed run continues: `OUT/training`.

    run.json                  settings, fingerprints of base and data: the identity of the run
    log.jsonl                 a line per step and per evaluation
    samples.jsonl             a line per answered held-out question
    state-STEP.safetensors    the trained matrices and the optimizer's moments, float32
    state.json                names the two newest states with their sha256 and steps; written last

The order of the data follows from the seed, so no generator has a state. Lines after the newest
state are of steps that are done again; they are dropped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.adapter_names import CONFIG_NAME, OWN_NAME, WEIGHTS_NAME
from cogvlm2_lite.weights.writer import (
    PlannedPiece,
    ShardLayout,
    ShardWriter,
    sync_folder,
    write_file_durably,
)

_MOST_SHOWN = 16
"""Letters of a fingerprint in a message."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run is.

    step       steps done in all
    updates    steps that changed the numbers
    bad        steps that changed nothing because their loss or gradient was not finite
    bad_row    how many of them came last
    evaluated  step of the last evaluation; -1: none
    best_step  step with the lowest held-out loss so far
    """

    step: int = 0
    updates: int = 0
    bad: int = 0
    bad_row: int = 0
    evaluated: int = -1
    best_step: int = 0
    best_loss: float | None = None


class Lines:
    """A file of JSON lines that only grows. A last line that was cut by a kill is dropped.

    A full disk does not lose a line: it is written later, together with the next.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries = _read_lines(file)
        self._waiting: list[str] = []

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop all lines but the wanted ones."""
        self.entries = [each for each in self.entries if wanted(each)]
        text = "".join(map(_as_line, self.entries)).encode()
        if self.file.is_file() and self.file.read_bytes() != text:
            write_file_durably(self.file, text)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append a line."""
        self.entries.append(dict(entry))
        self._waiting.append(_as_line(entry))
        with suppress(OSError):  # `flush` reports it, before a state is saved
            self.flush()

    def flush(self) -> None:
        """Write the lines that are not on the disk yet. Raises OSError, and keeps them then."""
        if not self._waiting:
            return
        with self.file.open("ab", buffering=0) as stream:
            end = stream.seek(0, os.SEEK_END)
            try:
                rest = memoryview("".join(self._waiting).encode())
                while rest:
                    rest = rest[stream.write(rest) :]
                os.fsync(stream.fileno())
            except OSError:
                with suppress(OSError):
                    stream.truncate(end)
                raise
        self._waiting.clear()


_State = dict[str, Any]
"""A state in state.json: its file, the sha256 of that, and its place."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / "training"
        self._state = self.folder / "state.json"
        self.log = Lines(self.folder / "log.jsonl")
        self.samples = Lines(self.folder / "samples.jsonl")
        self._saved: _State | None = None
        self._before: _State | None = None

    @property
    def saved_step(self) -> int | None:
        """Step of the newest state, or None."""
        return None if self._saved is None else int(self._saved["place"]["step"])

    def open(self, identity: Mapping[str, Any], *, restart: bool, tool: str = "") -> None:
        """Prepare the folder for a run.

        identity  what decides the numbers; larger "epochs" are accepted with a constant schedule
        tool      name and version of this program, for information

        Raises UsageError if it belongs to a run with other settings, naming the first difference.
        """
        file = self.folder / "run.json"
        if restart:
            self._delete_run()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._delete_temporary_files()
        known = self._known(file)
        if known is not None and self._state.is_file():
            self._compare(known, identity)
        elif known != dict(identity):
            self._delete_run()  # nothing was saved
        if known != dict(identity):
            content = json.dumps({"tool": tool, **identity}, indent=1, ensure_ascii=False)
            write_file_durably(file, (content + "\n").encode())

    def load(self) -> tuple[Place, dict[str, Tensor], Text | None] | None:
        """Return the newest state that is whole, or None; drops lines of later steps.

        With the state comes a notice if it is not the newest. Raises UsageError if there were
        states and none is whole.
        """
        if not self._state.is_file():
            self._cut(0)
            return None
        newest = self._read_state()
        damaged = None
        for each in (newest, newest.get("before")):
            if each is None:
                continue
            tensors = self._tensors(each)
            if tensors is None:
                damaged = self.folder / each["file"]
                continue
            place = Place(**each["place"])
            self._saved = {key: each[key] for key in ("file", "sha256", "place")}
            self._before = newest.get("before") if each is newest else None
            self._cut(place.step)
            notice = None
            if damaged is not None:
                notice = Text(
                    "{file} is damaged. The run continues from step {step}.",
                    file=damaged,
                    step=place.step,
                )
            return place, tensors, notice
        raise _damaged(damaged or self._state)

    def save(self, place: Place, tensors: Mapping[str, Tensor]) -> None:
        """Save a state; the one before stays. Raises OSError, and the one before still counts."""
        self.log.flush()
        self.samples.flush()
        name = f"state-{place.step}.safetensors"
        if self.saved_step not in (None, place.step):  # else the step was evaluated since
            self._before = self._saved
        # The tensors of a step are always the same, so a file that is replaced keeps its sha256.
        digest = _write_tensors(self.folder / name, tensors)
        self._saved = {"file": name, "sha256": digest, "place": asdict(place)}
        content = {**self._saved, "before": self._before}
        write_file_durably(self._state, (json.dumps(content) + "\n").encode())
        kept = {each["file"] for each in (self._saved, self._before) if each is not None}
        for old in self.folder.glob("state-*.safetensors"):
            if old.name not in kept:
                old.unlink(missing_ok=True)

    # --- opening ----------------------------------------------------------------------------------

    def _known(self, file: Path) -> dict[str, Any] | None:
        if not file.is_file():
            return None
        try:
            known = json.loads(file.read_text("utf-8"))
        except ValueError:
            known = None
        if not isinstance(known, dict):
            raise _damaged(file)
        known.pop("tool", None)
        return known

    def _compare(self, known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        for key, value in identity.items():
            old = known.get(key)
            if old == value or (key == "epochs" and _may_grow(identity, old, value)):
                continue
            hint = "Use the same settings to continue, another folder, or --restart to start again."
            if key == "epochs":
                hint = (
                    "More epochs can be added to a run with --schedule constant. Otherwise use the "
                    "same number, another folder, or --restart to start again."
                )
            raise UsageError(
                "{folder} has a run with {key} = {old}, not {new}.",
                hint=hint,
                folder=self.out,
                key=key,
                old=_shown(old),
                new=_shown(value),
            )

    def _delete_run(self) -> None:
        """Delete what an earlier run wrote; its cache of pictures may be used again."""
        if not (self.folder / "run.json").is_file():
            return
        for name in (CONFIG_NAME, OWN_NAME, WEIGHTS_NAME, "loss.svg"):
            (self.out / name).unlink(missing_ok=True)
        shutil.rmtree(self.out / "last", ignore_errors=True)
        for pattern in ("state*", "*.jsonl", "events.out.tfevents.*", "run.json"):
            for old in self.folder.glob(pattern):
                old.unlink(missing_ok=True)
        self.log, self.samples = Lines(self.log.file), Lines(self.samples.file)

    def _delete_temporary_files(self) -> None:
        """Delete what a kill left behind."""
        for folder in (self.out, self.out / "last", self.folder):
            for pattern in ("*.tmp", ".cogvlm2-*.tmp"):
                for old in folder.glob(pattern):
                    old.unlink(missing_ok=True)

    # --- states -----------------------------------------------------------------------------------

    def _read_state(self) -> _State:
        try:
            content = json.loads(self._state.read_text("utf-8"))
            for each in (content, content.get("before")):
                if each is not None:
                    Place(**each["place"])
                    str(each["file"]), str(each["sha256"])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise _damaged(self._state) from None
        assert isinstance(content, dict)
        return content

    def _tensors(self, state: _State) -> dict[str, Tensor] | None:
        """Return the tensors of a state, or None if its file is not as it was written."""
        file = self.folder / state["file"]
        try:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return load_file(file) if digest == state["sha256"] else None
        except (OSError, SafetensorError):
            return None

    def _cut(self, step: int) -> None:
        """Drop the lines of later steps, and answers of an evaluation that was not finished."""
        self.log.keep(lambda line: int(line["step"]) <= step)
        evaluated = {int(line["step"]) for line in self.log.entries if "held_out" in line}
        self.samples.keep(lambda line: int(line["step"]) in evaluated)


def _may_grow(identity: Mapping[str, Any], old: object, new: object) -> bool:
    constant = identity.get("schedule") == "constant"
    return constant and isinstance(old, int) and isinstance(new, int) and new > old


def _shown(value: object) -> str:
    if isinstance(value, str) and len(value) > 2 * _MOST_SHOWN:  # a fingerprint
        value = value[:_MOST_SHOWN] + "..."
    return json.dumps(value, ensure_ascii=False)


def _damaged(file: Path) -> UsageError:
    return UsageError("{file} is damaged.", hint="Start again with --restart.", file=file)


def _write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write float32 tensors durably, without a second copy in memory; return the sha256."""
    layout = ShardLayout(
        pieces=tuple(
            PlannedPiece(name=name, dtype="F32", shape=tuple(tensor.shape))
            for name, tensor in sorted(tensors.items())
        )
    )
    digest = hashlib.sha256(layout.header)
    temporary = file.with_name(file.name + ".tmp")
    try:
        with ShardWriter(temporary, layout) as writer:
            for piece in layout.pieces:
                data = tensors[piece.name].detach().contiguous().cpu().numpy().data
                writer.begin(piece.name)
                writer.write(data)
                writer.end()
                digest.update(data)
            writer.sync()
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(file.parent)
    return digest.hexdigest()


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """Return all complete lines before the first damaged one."""
    entries: list[dict[str, Any]] = []
    if file.is_file():
        for line in file.read_text("utf-8", errors="replace").split("\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
                break
            entries.append(entry)
    return entries


def _as_line(entry: Mapping[str, Any]) -> str:
    """Return a line of strict JSON: numbers that are not finite become null."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in entry.items()
    }
    return json.dumps(plain, ensure_ascii=False) + "\n"
