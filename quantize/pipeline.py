"""Convert a 16-bit checkpoint into a 4-bit folder: `convert` lists the steps."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.devices import Compute
from cogvlm2_lite.engine.replan import out_of_memory
from cogvlm2_lite.errors import CheckpointError, ConversionError, DoesNotFitError
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, MIB, format_bytes
from cogvlm2_lite.weights.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    ShardRecord,
    TensorRecord,
    read_manifest,
)
from cogvlm2_lite.weights.writer import ShardWriter, write_file_durably
from cogvlm2_lite.weights.zeros import PieceCheck, checked_roles, zeros_error
from quantize.calibration.calibrate import CalibratedWeights, Calibrator, Task
from quantize.calibration.evaluation import Decision, HeldOutEvaluation, read_decision
from quantize.events import Event, Finished, KeptRow, PartRow, Planned, Progress, Upgraded
from quantize.folder import describe_folder
from quantize.job import (
    JOB_NAME,
    Identity,
    Job,
    Survey,
    change_settings,
    discard,
    exclusive_run,
    partial_folder,
    publish,
    read_identity,
    survey,
)
from quantize.merge import Merge, Pairs, merge_notes, merged_source
from quantize.plain_rows import PlainRows
from quantize.recipe import (
    BY_BUDGET,
    PlannedShard,
    PlannedTensor,
    QuantizeOptions,
    Recipe,
    choose_head,
    make_recipe,
)
from quantize.report import write_reports
from quantize.rounding import Inputs, Rounded, companions, round_run, split_into_runs
from quantize.source import SourceFiles, companion_files, identify, open_source, refuse_zeros

TOOL = f"cogvlm2-lite {cogvlm2_lite.__version__}"

_RESERVE_BYTES = 64 * MIB
"""Disk space kept free for the journal, the manifest, the index and the file system itself."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAT32_BYTES = 4 * GIB - 1
"""Largest file of a FAT32 file system."""
_FAT32 = frozenset({"vfat", "msdos", "fat", "fat32"})

Calibrate = Callable[[Recipe, Path], Task]
"""Takes the recipe and the working folder; returns the task of a calibration."""

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How the work is done. Nothing here changes a byte of the result."""

    threads: int = 2
    run_bytes: int = 16 * MIB
    """Source bytes that a thread processes at a time."""
    sync_bytes: int = 256 * MIB
    """Written bytes after which the files are synced; a kill loses at most that much work."""
    rehash: bool = False
    """Read again what an earlier run wrote, instead of trusting its journal."""
    restart: bool = False
    """Delete what an earlier run left."""
    work: Path | None = None
    """Folder that keeps a calibration for later runs; None: the working folder, until the end."""
    writer: Callable[..., ShardWriter] = ShardWriter


def convert(
    source: Path,
    destination: Path,
    settings: QuantizeOptions,
    effort: Effort,
    calibrate: Calibrate | None = None,
    merge: Merge | None = None,
) -> Generator[Event, None, None]:
    """Make a folder from another one, in other storage kinds; yield Planned, Progress..., Finished.

    calibrate  returns the task of a calibration, which settings.calibration names; None: no
               calibration
    merge      the adapter that is added to the weights; not together with a calibration, which
               would see the weights without it
    The caller may stop after any event: everything up to the last commit is kept in
    DESTINATION.partial, and the next call resumes there.
    Raises UsageError, CheckpointError, DoesNotFitError or ConversionError.
    """
    started = time.monotonic()
    destination = destination.resolve()
    with _explain_os_errors(destination, settings.shard_bytes):
        # 1  Open the shards: headers only.
        catalog = open_source(source, destination, quantized=settings.merges)
        adapter = None if merge is None else merge.read(catalog)
        pairs = {} if adapter is None else adapter.pairs
        settings = choose_head(catalog, settings)
        identified = identify(catalog)
        if adapter is not None:
            identified = merged_source(identified, adapter)
        identity = Identity(tool=TOOL, source=identified, settings=settings.to_json())
        if _is_finished(destination, identity):
            yield _finished(destination, started, already=True)
            return
        refuse_zeros(catalog)
        # 2  Decide the storage kind of every tensor and the file and offset of every byte.
        base = make_recipe(catalog, settings, touched=pairs.keys())
        limit = _limit(base)
        changed = _changed_settings(destination, identity)
        anew = effort.restart or bool(changed)
        keeps = not effort.restart and not (changed and settings.budget)
        decided = read_decision(partial_folder(destination)) if keeps else None
        recipe = _apply(base, decided)
        # Nothing is hashed before the lock is held.
        found = Survey(done={}) if anew else survey(destination, identity, recipe, rehash=False)
        plan = _planned(source, destination, recipe, found, limit)
        about = [] if adapter is None else merge_notes(adapter)
        yield replace(plan, notes=[*about, *plan.notes])
        destination.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_run(destination), _lock_work_folder(effort.work):
            # 3  Resume from what an earlier run left, and check that the rest fits on the disk.
            if effort.restart:
                discard(destination)
            elif anew:
                change_settings(destination, identity)
            found = survey(destination, identity, recipe, rehash=effort.rehash)
            _check_room(destination, recipe, found, limit if decided is None else None)
            check_file_sizes(destination, recipe, _file_system(destination))
            if not found.complete:
                with Job(destination, identity, found) as job:
                    # 4  Run samples block by block, choose every code, then spend the budget.
                    calibrated = None
                    if calibrate is not None:
                        task = calibrate(base, effort.work or job.folder)
                        with _explain_out_of_memory(task.compute):
                            yield from Calibrator(task).run()
                            decided = decided or (
                                yield from HeldOutEvaluation(task, base, limit, job.folder).run()
                            )
                        recipe = _apply(base, decided)
                        yield from _decision_events(recipe, decided)
                        calibrated = CalibratedWeights(task.folder, decided.dropped)
                    # 5  Read, round and write.
                    yield from _write_shards(recipe, job, found, effort, calibrated, pairs)
                    # 6  Write the small files; the manifest comes last.
                    _write_rest(source, recipe, job, identity, calibrated, decided)
            # 7  Rename it to its final name.
            publish(destination)
    yield _finished(destination, started, already=False)


# --- before the work ------------------------------------------------------------------------------


def _limit(recipe: Recipe) -> int | None:
    """Return the bytes of a budget; None without one. Raises UsageError if it is too small.

    A share is one of NF4 with a 16-bit lm_head, also if the budget chooses lm_head.
    """
    settings = recipe.settings
    if settings.budget is None:
        return None
    plain = recipe.nbytes
    if settings.lm_head == BY_BUDGET and settings.budget.share is not None:
        plain = make_recipe(recipe.catalog, replace(settings, lm_head="bf16")).nbytes
    return settings.budget.limit(plain, recipe.weights)


def _apply(recipe: Recipe, decided: Decision | None) -> Recipe:
    """Return the recipe with the upgrades of a decision."""
    if decided is None or not decided.kinds:
        return recipe
    return make_recipe(recipe.catalog, recipe.settings, decided.kinds)


def _lock_work_folder(work: Path | None) -> AbstractContextManager[None]:
    """Hold the lock of a folder that several conversions may share."""
    if work is None:
        return nullcontext()
    work.mkdir(parents=True, exist_ok=True)
    return exclusive_run(work.resolve() / "calibration")


def _is_finished(destination: Path, identity: Identity) -> bool:
    """Return whether the destination already is the result of this conversion.

    Raises ConversionError for any other folder that is not empty.
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return False
    found = read_identity(destination) if destination.is_dir() else None
    difference = identity.difference(found) if found else Text()
    if found and not difference:
        return True
    raise ConversionError(
        "{folder} already exists and was made {difference}."
        if found
        else "{folder} already exists and is not empty.",
        hint="Choose a folder that does not exist yet, or delete or rename this one.",
        folder=destination,
        difference=difference,
    )


def _changed_settings(destination: Path, identity: Identity) -> frozenset[str]:
    """Return in what unfinished work differs from this conversion, if it may be continued."""
    folder = partial_folder(destination)
    if not (folder / JOB_NAME).is_file() or (folder / MANIFEST_NAME).exists():
        return frozenset()
    earlier = read_identity(folder)
    return frozenset() if earlier is None else identity.changes(earlier)


def _ready_bytes(recipe: Recipe, found: Survey) -> int:
    return recipe.nbytes if found.complete else found.ready_bytes(recipe)


def _free_bytes(destination: Path) -> int:
    """Return the free bytes of the disk that the destination will be on."""
    return shutil.disk_usage(_existing_parent(destination)).free


def _existing_parent(destination: Path) -> Path:
    folder = destination.parent
    while not folder.exists():
        folder = folder.parent
    return folder


def _planned(
    source: Path, destination: Path, recipe: Recipe, found: Survey, limit: int | None
) -> Planned:
    parts = [
        PartRow(
            part=row.part.value,
            weights=row.weights,
            source_bytes=row.source_bytes,
            result_bytes=row.result_bytes,
            kinds=dict(row.kinds),
            bits_per_weight=round(row.bits_per_weight, 4),
        )
        for row in recipe.by_part()
    ]
    return Planned(
        source=str(source),
        destination=str(destination),
        parts=parts,
        source_bytes=recipe.catalog.nbytes,
        result_bytes=recipe.nbytes,
        ready_bytes=_ready_bytes(recipe, found),
        free_bytes=_free_bytes(destination),
        kept=[KeptRow(tensor=t.name, kind=t.kind, reason=t.reason) for t in recipe.kept()],
        notes=_notes(source, recipe, limit),
    )


def _notes(source: Path, recipe: Recipe, limit: int | None) -> list[Text]:
    notes: list[Text] = []
    if limit is not None and limit > recipe.nbytes:
        notes.append(
            Text(
                "The budget leaves {size} ({share}) more. After calibration it is spent on the "
                "matrices that need it most, as int8 or 16 bits. Plain transformers can't load "
                "int8 matrices."
                if "int8" in recipe.settings.upgrade_kinds
                else "The budget leaves {size} ({share}) more. After calibration it is spent on "
                "the matrices that need it most, in 16 bits: for a GPU, int8 is slower than both.",
                size=format_bytes(limit - recipe.nbytes),
                share=f"{limit / recipe.nbytes - 1:.1%}",
            )
        )
    if not (source / "tokenizer.json").is_file():
        notes.append(
            Text(
                "The source has no tokenizer.json, so the result will have none; questions need "
                "one."
            )
        )
    if any(tensor.kind == "int8" for tensor in recipe.tensors):
        notes.append(
            Text(
                "int8 is CogVLM2 Lite's own storage kind: plain transformers can't load this "
                "folder."
            )
        )
    return notes


def _check_room(destination: Path, recipe: Recipe, found: Survey, limit: int | None) -> None:
    copied = sum(f.stat().st_size for f in companion_files(recipe.catalog.folder))
    missing = max(recipe.nbytes, limit or 0) - _ready_bytes(recipe, found)
    needed = missing + copied + _RESERVE_BYTES if missing else 0
    free = _free_bytes(destination)
    if free < needed:
        raise DoesNotFitError(
            "{size} must still be written to {folder}, where {reserve} must stay free. It has "
            "{free} free: {missing} more is needed.",
            hint="Free that much, or choose a destination on another disk. Nothing was written.",
            size=format_bytes(missing),
            folder=destination.parent,
            reserve=format_bytes(_RESERVE_BYTES),
            free=format_bytes(free),
            missing=format_bytes(needed - free),
        )


def check_file_sizes(destination: Path, recipe: Recipe, system: str) -> None:
    """Raise ConversionError if the files are too large for the destination's file system.

    system  its name, such as "vfat" or "ext4"
    """
    largest = max(shard.layout.size for shard in recipe.shards)
    if system.lower() in _FAT32 and largest > _FAT32_BYTES:
        raise _file_too_large(destination, recipe.settings.shard_bytes)


def _file_system(destination: Path) -> str:
    """Return the name of the file system that the destination will be on; "" if unknown."""
    folder = _existing_parent(destination).resolve()
    try:
        mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    except OSError:
        return ""
    return next((mounts[place] for place in (folder, *folder.parents) if place in mounts), "")


def _file_too_large(destination: Path, shard_bytes: int) -> ConversionError:
    """Return the error for a disk whose files can't be as large as --shard-size."""
    return ConversionError(
        "The disk of {folder} allows no file of {size}: on FAT32, files end at 4 GiB.",
        hint="Run the same command again with --shard-size {smaller}: a calibration so far is "
        "kept, and the weight files are written anew. Or choose a destination on another disk.",
        param="shard_size",
        folder=destination.parent,
        size=format_bytes(shard_bytes),
        smaller="4GB" if shard_bytes > _FAT32_BYTES else shard_bytes // 2,
    )


# --- the work -------------------------------------------------------------------------------------


def _decision_events(recipe: Recipe, decided: Decision) -> Iterator[Event]:
    """Yield which matrices the budget was spent on, and the losses of the whole model."""
    for tensor in recipe.kept():
        if tensor.name in decided.kinds:
            yield Upgraded(tensor=tensor.name, kind=tensor.kind, nbytes=tensor.nbytes)
    if decided.evaluated is not None:
        yield decided.evaluated


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What the functions of step 5 share."""

    job: Job
    found: Survey
    effort: Effort
    meter: _Meter
    results: Iterator[Rounded]
    """The runs of all missing tensors, in order."""
    files: SourceFiles


def _write_shards(
    recipe: Recipe,
    job: Job,
    found: Survey,
    effort: Effort,
    calibrated: CalibratedWeights | None,
    pairs: Pairs,
) -> Iterator[Progress]:
    """Write every tensor that is not there yet, in file order."""
    todo = [tensor for tensor in recipe.tensors if tensor.name not in found.done]
    meter = _Meter(total=recipe.catalog.nbytes, todo=todo)
    runs = (run for tensor in todo for run in split_into_runs(tensor, effort.run_bytes))
    with _one_torch_thread(), SourceFiles() as files, ThreadPoolExecutor(effort.threads) as pool:
        inputs = Inputs(files=files, plain=PlainRows(files), calibrated=calibrated, pairs=pairs)
        results = in_order(pool, lambda run: round_run(run, inputs), runs, effort.threads + 1)
        work = _Work(job=job, found=found, effort=effort, meter=meter, results=results, files=files)
        try:
            for shard in recipe.shards:
                yield from _write_shard(shard, work)
        finally:
            pool.shutdown(cancel_futures=True)


def _write_shard(shard: PlannedShard, work: _Work) -> Iterator[Progress]:
    """Append the missing tensors of one file and commit them regularly."""
    rest = [t for t in shard.tensors if t.name not in work.found.done]
    if not rest:
        return
    file, keep = work.job.folder / shard.name, work.found.keep(shard)
    with work.effort.writer(file, shard.layout, keep=keep) as writer:
        written = 0
        for tensor in rest:
            yield from _write_tensor(tensor, writer, work)
            written += tensor.nbytes
            if written >= work.effort.sync_bytes or tensor is rest[-1]:
                writer.sync()
                work.job.commit()
                written = 0


def _write_tensor(tensor: PlannedTensor, writer: ShardWriter, work: _Work) -> Iterator[Progress]:
    """Write one tensor: its weight run by run, then its other pieces."""
    hashes: dict[str, str] = {}
    scales: list[Tensor] = []
    count = sum(1 for _ in split_into_runs(tensor, work.effort.run_bytes))
    writer.begin(tensor.name)
    check = PieceCheck(tensor.source, "weight") if checked_roles(tensor.source) else None
    for rounded in islice(work.results, count):
        writer.write(rounded.weight)
        if check is not None and rounded.zeros is not None:
            check.add_runs(rounded.zeros)
        if rounded.scales is not None:
            scales.append(rounded.scales)
        yield from work.meter.advance(rounded.run.count, tensor.name)
    if check is not None and (problem := check.problem()):
        raise zeros_error(tensor.name, tensor.source.pieces["weight"].file.name, problem)
    hashes["weight"] = writer.end()
    for role, data in companions(tensor, scales, work.files).items():
        writer.begin(tensor.pieces[role].name)
        writer.write(data)
        hashes[role] = writer.end()
    if rest := tensor.source.nbytes - tensor.source.pieces["weight"].nbytes:
        yield from work.meter.advance(rest, tensor.name)
    work.job.finish_tensor(tensor.name, hashes)


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[In], Out], items: Iterable[In], ahead: int
) -> Iterator[Out]:
    """Yield work(item) in the order of the items; threads compute at most `ahead` items early."""
    waiting: deque[Future[Out]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Make torch compute every operation in the calling thread.

    The work is already split into runs; splitting each operation again would only add overhead.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Meter:
    """Counts source bytes and reports the progress at intervals."""

    _EVERY_S = 0.5

    def __init__(self, *, total: int, todo: list[PlannedTensor]) -> None:
        self._total = total
        self._before = total - sum(tensor.source.nbytes for tensor in todo)
        self._done = self._before
        self._started = time.monotonic()
        self._shown = self._started

    def advance(self, count: int, tensor: str) -> Iterator[Progress]:
        self._done += count
        now = time.monotonic()
        if now - self._shown < self._EVERY_S and self._done < self._total:
            return
        self._shown = now
        rate = (self._done - self._before) / max(now - self._started, 1e-6)
        yield Progress(
            done_bytes=self._done,
            total_bytes=self._total,
            share=round(self._done / self._total, 6),
            bytes_per_s=round(rate),
            seconds_left=round((self._total - self._done) / rate, 1),
            tensor=tensor,
        )


# --- after the work -------------------------------------------------------------------------------


def _write_rest(
    source: Path,
    recipe: Recipe,
    job: Job,
    identity: Identity,
    calibrated: CalibratedWeights | None,
    decided: Decision | None,
) -> None:
    """Write the index, config and tokenizer files and, after all of them, the manifest."""
    records = {}
    rows = calibrated.rows(recipe.catalog) if calibrated is not None else []
    contents = describe_folder(source, recipe)
    if not recipe.settings.merges:
        contents |= write_reports(recipe, rows, decided)
    for name, content in contents.items():
        write_file_durably(job.folder / name, content)
        digest = hashlib.sha256(content).hexdigest()
        records[name] = FileRecord(nbytes=len(content), sha256=digest)
    manifest = Manifest(
        tool=identity.tool,
        source=identity.source,
        settings=identity.settings,
        files=records,
        shards={
            shard.name: ShardRecord(
                nbytes=shard.layout.size,
                header_sha256=hashlib.sha256(shard.layout.header).hexdigest(),
            )
            for shard in recipe.shards
        },
        tensors={
            tensor.name: TensorRecord(
                kind=tensor.kind, shard=shard.name, sha256=dict(job.done[tensor.name])
            )
            for shard in recipe.shards
            for tensor in shard.tensors
        },
    )
    write_file_durably(job.folder / MANIFEST_NAME, manifest.to_bytes())


def _finished(destination: Path, started: float, *, already: bool) -> Finished:
    manifest = read_manifest(destination)
    if manifest is None:
        raise CheckpointError(
            "{folder} has no manifest any more.",
            hint="Another program changed the folder. Run the command again.",
            folder=destination,
        )
    return Finished(
        folder=str(destination),
        already=already,
        seconds=round(time.monotonic() - started, 3),
        result_bytes=sum(shard.nbytes for shard in manifest.shards.values()),
        manifest_sha256=hashlib.sha256((destination / MANIFEST_NAME).read_bytes()).hexdigest(),
    )


@contextmanager
def _explain_out_of_memory(compute: Compute) -> Iterator[None]:
    """Turn an error of torch about memory into a DoesNotFitError that explains it."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        first_line = str(error).strip().partition("\n")[0].rstrip(".")
        raise DoesNotFitError(
            "The memory of {device} is not enough for the calibration: {why}.",
            hint="Finished blocks are kept. Close other programs that use this memory and run the "
            "same command again: it continues where it stopped. Or add --device cpu --restart.",
            device=compute.device,
            why=first_line,
        ) from error


@contextmanager
def _explain_os_errors(destination: Path, shard_bytes: int) -> Iterator[None]:
    """Turn an OSError into a ConversionError that explains it.

    Errors from reading the source are CheckpointErrors already, so these concern the destination.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or partial_folder(destination)
        if error.errno == errno.EFBIG:
            raise _file_too_large(destination, shard_bytes) from error
        if error.errno in _FULL:
            raise ConversionError(
                "The disk of {folder} is full ({free} free).",
                hint="Free some space and run the same command again: it continues where it "
                "stopped.",
                folder=destination.parent,
                free=format_bytes(_free_bytes(destination)),
            ) from error
        raise ConversionError(
            "{folder} can't be used: {why}.",
            hint="Check its permissions and the disk, or choose another destination. Finished work "
            "is kept.",
            folder=place,
            why=error.strerror or error,
        ) from error
