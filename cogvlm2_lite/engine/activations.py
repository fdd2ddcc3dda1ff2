"""Activations between two stages of a layer-major walk, in host memory or in a folder.

The inputs of stage N are stored under the number N. A stage reads its inputs and writes the inputs
of the next stage; when those are safe, the stage is finished.

Activations in a folder survive the end of the process, even by kill -9 or a power cut:

    state.json      the identity of these activations, how many stages are finished, and the offset
                    of each activation of the next stage in its file
    activations-N   the inputs of stage N, one after another

state.json counts a stage only when its activations are on the disk.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cogvlm2_lite.weights.writer import sync_folder, write_file_durably

Key = tuple[int, int]
"""A sample's number, and which of its activations: 0 if it has only one. Samples that share a
prefix have one for the prefix and one for each suffix; the search for a budget has one for each
distinct variant of the model so far."""

_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


class Activations(Protocol):
    """Stores the activations of all samples between two stages."""

    @property
    def done(self) -> int:
        """Number of finished stages."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the stored activations now, in host memory or on the disk."""

    def write(self, stage: int, key: Key, activation: Tensor) -> None:
        """Store an input of a stage."""

    def read(self, stage: int, key: Key) -> Tensor:
        """Return an input of a stage, in host memory."""

    def finish(self, done: int) -> None:
        """Count `done` stages as finished, after what they wrote is safe.

        The inputs of the last of them are deleted, unless they are kept for a backward walk.
        """

    def forget(self, stage: int) -> None:
        """Delete the inputs of a stage."""


class MemoryActivations:
    """Activations in host memory.

    read_once    each input is read once and deleted when it is read, so that all samples together
                 take the memory of one stage
    keep_inputs  the inputs of every stage are kept until `forget`, for a backward walk
    """

    def __init__(self, *, read_once: bool = False, keep_inputs: bool = False) -> None:
        self.done = 0
        self._read_once, self._keep_inputs = read_once, keep_inputs
        self._held: dict[int, dict[Key, Tensor]] = {}

    @property
    def held_bytes(self) -> int:
        return sum(x.nbytes for inputs in self._held.values() for x in inputs.values())

    def write(self, stage: int, key: Key, activation: Tensor) -> None:
        """Store an input of a stage."""
        self._held.setdefault(stage, {})[key] = activation.detach().cpu()

    def read(self, stage: int, key: Key) -> Tensor:
        """Return an input of a stage."""
        inputs = self._held[stage]
        return inputs.pop(key) if self._read_once else inputs[key]

    def finish(self, done: int) -> None:
        """Count stages as finished; delete the inputs of the last one unless they are kept."""
        self.done = done
        if not self._keep_inputs:
            self.forget(done - 1)

    def forget(self, stage: int) -> None:
        """Delete the inputs of a stage."""
        self._held.pop(stage, None)


@dataclass(frozen=True)
class _Stored:
    """An activation in its file: offset in bytes, type and shape."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class FolderActivations:
    """Activations in a folder, from which a later process can continue.

    identity  identifies everything that the activations depend on
    """

    def __init__(self, folder: Path, identity: str) -> None:
        """Read the state of the folder; nothing is changed before `resume` or `restart`."""
        self._folder, self._identity = folder, identity
        self._state = _read_state(folder)
        self.done = 0
        self._index: dict[Key, _Stored] = {}
        self._written: dict[Key, _Stored] = {}
        self._reading: tuple[int, BufferedReader] | None = None
        self._writing: tuple[int, BufferedWriter] | None = None

    @property
    def earlier_identity(self) -> str | None:
        """The identity of the activations in the folder; None if there are none."""
        return None if self._state is None else str(self._state["identity"])

    @property
    def held_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._folder.glob("activations-*"))

    @property
    def free_bytes(self) -> int:
        """Free bytes on the folder's disk."""
        return shutil.disk_usage(self._folder).free

    @property
    def room_bytes(self) -> int:
        """Bytes that the folder may hold: the free bytes of its disk plus those of its files."""
        held = sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())
        return self.free_bytes + held

    def resume(self) -> None:
        """Continue after the last finished stage, and delete the files of an unfinished one.

        With a folder of a version that stored activations in another form, start from the
        beginning.
        """
        if self.earlier_identity == self._identity:
            assert self._state is not None
            self.done, self._index = _read_index(self._state)
        if not self.done:
            self._write_state()
        for path in self._folder.glob("activations-*"):
            if path != self._file(self.done) or not self._index:
                _delete(path)

    def restart(self) -> None:
        """Delete everything in the folder and start from the beginning."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._state = None
        self.resume()

    def write(self, stage: int, key: Key, activation: Tensor) -> None:
        """Append an input of a stage to its file."""
        if self._writing is None or self._writing[0] != stage:
            self.close()
            self._written = {}
            self._writing = (stage, self._file(stage).open("wb"))
        stream, content = self._writing[1], activation.detach().cpu().contiguous()
        self._written[key] = _Stored(stream.tell(), content.dtype, tuple(content.shape))
        stream.write(_bytes_of(content))

    def read(self, stage: int, key: Key) -> Tensor:
        """Return an input of a stage."""
        assert stage == self.done, f"the inputs of stage {stage} are not the ones that are kept"
        if self._reading is None or self._reading[0] != stage:
            self._reading = (stage, self._file(stage).open("rb"))
        stored = self._index[key]
        found = torch.empty(stored.shape, dtype=stored.dtype)
        self._reading[1].seek(stored.offset)
        count = self._reading[1].readinto(_bytes_of(found))
        assert count == found.nbytes, f"{self._file(stage)} lost its end"
        return found

    def finish(self, done: int) -> None:
        """Force what was written to the disk, count the stages, and delete older activations."""
        if self._writing is not None:
            self._writing[1].flush()
            os.fsync(self._writing[1].fileno())
            sync_folder(self._folder)
        self.close()
        self.done, self._index, self._written = done, self._written, {}
        self._write_state()
        if done:
            self.forget(done - 1)

    def forget(self, stage: int) -> None:
        """Delete the inputs of a stage."""
        _delete(self._file(stage))

    def _file(self, stage: int) -> Path:
        return self._folder / f"activations-{stage}"

    def close(self) -> None:
        """Close the files; the outputs of an unfinished stage do not count."""
        for opened in (self._reading, self._writing):
            if opened is not None:
                opened[1].close()
        self._reading = self._writing = None

    def _write_state(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        places = [
            [*key, stored.offset, str(stored.dtype), list(stored.shape)]
            for key, stored in self._index.items()
        ]
        content = {"identity": self._identity, "done": self.done, "activations": places}
        write_file_durably(self._folder / "state.json", json.dumps(content).encode())


def _read_state(folder: Path) -> dict[str, Any] | None:
    """Return the content of state.json; None if there is no such file."""
    try:
        text = (folder / "state.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    content: dict[str, Any] = json.loads(text)
    return content


def _read_index(state: dict[str, Any]) -> tuple[int, dict[Key, _Stored]]:
    """Return the number of finished stages, and where the activations of the next one are.

    If an older version wrote the folder, no stage counts as finished.
    """
    if "activations" not in state:
        return 0, {}
    index = {
        (sample, part): _Stored(offset, _DTYPES[dtype], tuple(shape))
        for sample, part, offset, dtype, shape in state["activations"]
    }
    return int(state["done"]), index


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return a view of the bytes of a contiguous tensor in host memory."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy().data)


def _delete(path: Path) -> None:
    """Delete a file, or the folder of an older version."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
