"""The files from which a killed run continues: `OUT/training`.

    run.json                  settings, fingerprints of base and data: the identity of the run
    log.jsonl                 a line per step and per evaluation
    state-STEP.safetensors    the trained matrices and the optimizer's moments, float32
    state.json                names the newest state, its sha256, and its step; written last

The order of the data follows from the seed, so no generator has a state. Log lines after the
newest state are of steps that are done again; they are dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.writer import sync_folder, write_file_durably

_KEPT_STATES = 2


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run is: steps done in all, and the best held-out loss so far with its step."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None


class RunFolder:
    """The folder of one run."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / "training"
        self._state = self.folder / "state.json"
        self._log = self.folder / "log.jsonl"

    def open(self, identity: Mapping[str, Any], *, restart: bool) -> None:
        """Prepare the folder for a run.

        Raises UsageError if it belongs to a run with other settings, naming the first difference.
        """
        file = self.folder / "run.json"
        if restart and self.folder.is_dir():
            for old in (*self.folder.glob("state*"), self._log, file):
                old.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            try:
                known = json.loads(file.read_text("utf-8"))
            except ValueError:
                known = {}
            for key, value in identity.items():
                if known.get(key) != value:
                    raise UsageError(
                        "{folder} has a run with {key} = {old}, not {new}.",
                        hint="Use the same settings to continue, another folder, or --restart to "
                        "start again.",
                        folder=self.out,
                        key=key,
                        old=json.dumps(known.get(key), ensure_ascii=False),
                        new=json.dumps(value, ensure_ascii=False),
                    )
            return
        write_file_durably(file, (json.dumps(dict(identity), indent=1) + "\n").encode())

    def load(self) -> tuple[Place, dict[str, Tensor]] | None:
        """Return the newest state, or None. Drops log lines of later steps."""
        if not self._state.is_file():
            self._cut_log(0)
            return None
        content = json.loads(self._state.read_text("utf-8"))
        raw = (self.folder / content["file"]).read_bytes()
        if hashlib.sha256(raw).hexdigest() != content["sha256"]:
            raise UsageError(
                "{file} is damaged.",
                hint="Start again with --restart.",
                file=self.folder / content["file"],
            )
        place = Place(**content["place"])
        self._cut_log(place.step)
        return place, load(raw)

    def save(self, place: Place, tensors: Mapping[str, Tensor]) -> None:
        """Save a state; the two newest stay. Raises OSError, and the one before still counts."""
        raw = save(dict(tensors))
        name = f"state-{place.step}.safetensors"
        write_file_durably(self.folder / name, raw)
        content = {
            "file": name,
            "sha256": hashlib.sha256(raw).hexdigest(),
            "place": asdict(place),
        }
        write_file_durably(self._state, (json.dumps(content) + "\n").encode())
        states = sorted(self.folder.glob("state-*.safetensors"), key=_step_of)
        for old in states[:-_KEPT_STATES]:
            old.unlink(missing_ok=True)
        sync_folder(self.folder)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append a line to the log."""
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(entry), ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    @property
    def log(self) -> list[dict[str, Any]]:
        """All whole lines of the log."""
        if not self._log.is_file():
            return []
        entries = []
        for line in self._log.read_text("utf-8", errors="replace").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                break  # cut by a kill
        return entries

    def _cut_log(self, step: int) -> None:
        kept = [entry for entry in self.log if int(entry["step"]) <= step]
        if self._log.is_file():
            text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept)
            write_file_durably(self._log, text.encode())


def _step_of(file: Path) -> int:
    return int(file.stem.removeprefix("state-"))
