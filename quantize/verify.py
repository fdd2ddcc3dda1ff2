"""Check every byte of a quantized folder against its manifest."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import CheckpointError, UsageError
from cogvlm2_lite.folders.explain import explain_file
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.header import MAX_HEADER_BYTES
from cogvlm2_lite.weights.manifest import Manifest, ShardRecord, TensorRecord, read_manifest
from cogvlm2_lite.weights.writer import drop_from_cache
from cogvlm2_lite.weights.zeros import PieceCheck, checked_roles
from quantize.events import Damaged, Event, Progress, Verified
from quantize.recipe import piece_name
from quantize.source import SourceFiles

_STEP = 8 * MIB
_EVERY_S = 0.5


def verify(folder: Path) -> Iterator[Event]:
    """Read a folder and compare it with its manifest; yield Progress, Damaged, Verified.

    Without a manifest only names, shapes and sizes are compared, and the weights are searched for
    long runs of zeros; Verified reports that. Raises UsageError if there is no such folder, and
    CheckpointError for a folder without a manifest that is not a complete model.
    """
    if folder.is_file():
        raise explain_file(folder)
    if not folder.is_dir():
        raise UsageError(
            "There is no folder {folder}.",
            hint="Use the folder that quantize wrote.",
            folder=folder,
        )
    check = _Check(folder=folder, started=time.monotonic())
    manifest = None
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        yield check.damaged("cogvlm2_lite_manifest.json", "", error.message)
    if manifest is not None:
        check.total = sum(s.nbytes for s in manifest.shards.values())
        with suppress(CheckpointError):  # reported below
            check.stored = Catalog.open(folder, read_config(folder)).tensors
        yield from _check_files(check, manifest)
        for name, record in manifest.shards.items():
            tensors = {n: t for n, t in manifest.tensors.items() if t.shard == name}
            yield from _check_shard(check, name, record, tensors)
    elif check.found == 0:
        yield from _check_zeros(check, Catalog.open(folder, read_config(folder)))
    if manifest is not None and check.found == 0:
        # The bytes match the manifest. Check that they form a complete model, as loading does.
        yield from _check_structure(check)
    yield Verified(
        folder=str(folder),
        ok=check.found == 0,
        damaged=check.found,
        has_manifest=manifest is not None,
        checked_bytes=check.done,
        seconds=round(time.monotonic() - check.started, 3),
    )


@dataclass(kw_only=True)
class _Check:
    """What has been read and found so far."""

    folder: Path
    started: float
    total: int = 0
    done: int = 0
    found: int = 0
    shown: float = 0.0
    stored: Mapping[str, StoredTensor] = field(default_factory=dict)
    """The tensors whose bytes are searched for zeros."""

    def zeros(self, tensor: str, role: str) -> PieceCheck | None:
        """Return the check of a piece that must not be zero; None for others."""
        stored = self.stored.get(tensor)
        if stored is None or role not in checked_roles(stored):
            return None
        return PieceCheck(stored, role)

    def damaged(self, file: str, tensor: str, problem: Text) -> Damaged:
        self.found += 1
        return Damaged(file=file, tensor=tensor, problem=problem)

    def advance(self, count: int, tensor: str) -> Iterator[Progress]:
        self.done += count
        now = time.monotonic()
        if now - self.shown < _EVERY_S and self.done < self.total:
            return
        self.shown = now
        rate = self.done / max(now - self.started, 1e-6)
        yield Progress(
            done_bytes=self.done,
            total_bytes=self.total,
            share=round(self.done / max(self.total, 1), 6),
            bytes_per_s=round(rate),
            seconds_left=round(max(self.total - self.done, 0) / max(rate, 1.0), 1),
            tensor=tensor,
        )


def _wrong_size(size: int, expected: int) -> Text:
    return Text("has {size} bytes instead of {expected}", size=size, expected=expected)


def _check_structure(check: _Check) -> Iterator[Damaged]:
    try:
        Catalog.open(check.folder, read_config(check.folder))
    except CheckpointError as error:
        yield check.damaged(str(check.folder), "", error.message)


def _check_zeros(check: _Check, catalog: Catalog) -> Iterator[Event]:
    """Search all weights of a folder without a manifest for zeros that a model does not have."""
    check.stored = catalog.tensors
    check.total = sum(shard.size for shard in catalog.shards)
    for shard in catalog.shards:
        check.done += shard.size - sum(piece.nbytes for piece in shard.pieces.values())
    with SourceFiles() as files:
        for name, stored in catalog.tensors.items():
            empty = Text()
            for role, piece in stored.pieces.items():
                zeros, begin = check.zeros(name, role), 0
                for count in _parts(piece.nbytes):
                    if zeros is not None:
                        zeros.add(files.read(name, piece, begin, count))
                    begin += count
                    yield from check.advance(count, name)
                empty = (zeros.problem() if zeros else None) or empty
            if empty:
                yield check.damaged(stored.pieces["weight"].file.name, name, empty)


def _check_files(check: _Check, manifest: Manifest) -> Iterator[Damaged]:
    """Compare the config, index and tokenizer files."""
    for name, record in manifest.files.items():
        try:
            content = (check.folder / name).read_bytes()
        except OSError as error:
            yield check.damaged(name, "", Text("can't be read: {why}", why=error.strerror or error))
            continue
        if len(content) != record.nbytes:
            sizes = _wrong_size(len(content), record.nbytes)
            yield check.damaged(name, "", sizes)
        elif hashlib.sha256(content).hexdigest() != record.sha256:
            yield check.damaged(name, "", Text("was changed: its sha256 is different"))


def _check_shard(
    check: _Check, name: str, record: ShardRecord, tensors: Mapping[str, TensorRecord]
) -> Iterator[Event]:
    """Compare one safetensors file, piece by piece; report what can't be read and skip it."""
    try:
        size = (check.folder / name).stat().st_size
        if size != record.nbytes:
            problem = _wrong_size(size, record.nbytes)
            yield check.damaged(name, "", problem)
        header = _read_header(check.folder / name)
        if hashlib.sha256(header).hexdigest() != record.header_sha256:
            yield check.damaged(
                name, "", Text("its header was changed, so its tensors can't be found")
            )
            return
        check.done += len(header)
        yield from _check_tensors(check, name, header, tensors)
    except OSError as error:
        yield check.damaged(name, "", Text("can't be read: {why}", why=error.strerror or error))


def _read_header(file: Path) -> bytes:
    with file.open("rb") as stream:
        first = stream.read(8)
        return first + stream.read(min(int.from_bytes(first, "little"), MAX_HEADER_BYTES))


def _check_tensors(
    check: _Check, name: str, header: bytes, tensors: Mapping[str, TensorRecord]
) -> Iterator[Event]:
    """Hash every piece of a file whose header has been checked."""
    entries = json.loads(header[8:])
    promised = {
        piece_name(n, role, record.kind) for n, record in tensors.items() for role in record.sha256
    }
    if promised != entries.keys() - {"__metadata__"}:
        yield check.damaged(name, "", Text("its tensors are not those that the manifest lists"))
        return
    with (check.folder / name).open("rb") as stream:
        for tensor, record in tensors.items():
            wrong, empty = [], Text()
            for role, sha256 in record.sha256.items():
                begin, end = entries[piece_name(tensor, role, record.kind)]["data_offsets"]
                digest, zeros = hashlib.sha256(), check.zeros(tensor, role)
                stream.seek(len(header) + begin)
                for part in _parts(end - begin):
                    data = stream.read(part)
                    digest.update(data)
                    if zeros is not None:
                        zeros.add(data)
                    yield from check.advance(part, tensor)
                drop_from_cache(stream.fileno(), len(header) + begin, end - begin)
                if digest.hexdigest() != sha256:
                    wrong.append(role)
                empty = (zeros.problem() if zeros else None) or empty
            if empty and not wrong:
                # The source was not complete when it was quantized.
                yield check.damaged(name, tensor, empty)
            if wrong:
                yield check.damaged(
                    name, tensor, Text("sha256 differs in {names}", names=", ".join(wrong))
                )


def _parts(count: int) -> Iterator[int]:
    for begin in range(0, count, _STEP):
        yield min(_STEP, count - begin)
