"""A conversion can be stopped at any moment, and the next run gives the same bytes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

from cogvlm2_lite.architectures.architecture import expected_tensors
from cogvlm2_lite.errors import ConversionError
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.writer import Data, ShardWriter
from quantize.command import main
from quantize.events import Finished, Planned, Progress
from quantize.job import JOB_NAME, JOURNAL_NAME, exclusive_run, partial_folder
from quantize.pipeline import Effort, check_file_sizes, convert, in_order
from quantize.recipe import QuantizeOptions, make_recipe
from quantize.rounding import split_into_runs
from tests.helpers.checkpoints import write_sparse
from tests.helpers.conversion import (
    CHECKPOINT,
    QUICK,
    SMALL_SHARDS,
    hashes,
    open_catalog,
    quantize,
    write_source,
)
from tests.helpers.crashes import Crash, Fuse, crash, crash_after, disk_full
from tests.helpers.shapes import REAL


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reference") / "q"
    quantize(CHECKPOINT, folder)
    return hashes(folder)


def test_a_crash_at_any_write_leaves_work_that_can_be_finished(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    for writes in range(0, 330, 29):
        destination = tmp_path / str(writes)
        crash_after(destination, writes)
        assert not destination.exists()
        quantize(CHECKPOINT, destination)
        assert hashes(destination) == reference
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(f"{writes}.")] == []


def test_many_crashes_in_a_row_still_end_in_the_same_bytes(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    crashes = 0
    for _ in range(100):
        try:
            fused = replace(QUICK, writer=Fuse(20, crash), sync_bytes=1)
            quantize(CHECKPOINT, tmp_path / "q", effort=fused)
            break
        except Crash:
            crashes += 1
    assert crashes > 10
    assert hashes(tmp_path / "q") == reference


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test kills forks of itself")
def test_sigkill_at_any_moment_changes_nothing_in_the_end(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    """Nothing is cleaned up here: no handler, no flush, no lock given back."""
    program = """
import os, signal, sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from tests.helpers.conversion import CHECKPOINT, QUICK, quantize
from tests.helpers.crashes import Fuse

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

for writes in map(int, sys.argv[2:]):
    child = os.fork()
    if child == 0:
        quantize(CHECKPOINT, Path(sys.argv[1]), effort=replace(QUICK, writer=Fuse(writes, kill)))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
"""
    moments = ["0", "1", "9", "30", "31", "57", "3", "80", "0", "44"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "q"), *moments],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["-9"] * len(moments)
    assert not (tmp_path / "q").exists()
    assert partial_folder(tmp_path / "q").exists()
    quantize(CHECKPOINT, tmp_path / "q")
    assert hashes(tmp_path / "q") == reference


@pytest.mark.parametrize(
    "effort",
    [
        Effort(threads=1, run_bytes=1_000),
        Effort(threads=3, run_bytes=7_777),
        Effort(threads=2, run_bytes=1 << 30, sync_bytes=1),
    ],
)
def test_threads_and_run_sizes_change_no_byte(
    tmp_path: Path, reference: dict[str, str], effort: Effort
) -> None:
    quantize(CHECKPOINT, tmp_path / "q", effort=effort)
    assert hashes(tmp_path / "q") == reference


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    crash_after(tmp_path / "q", 150)
    events = quantize(CHECKPOINT, tmp_path / "q")
    plan, progress = events[0], [e for e in events if isinstance(e, Progress)]
    assert isinstance(plan, Planned)
    assert plan.ready_bytes > plan.result_bytes / 10
    assert progress[0].done_bytes > plan.source_bytes / 10
    assert progress[-1].share == 1


@pytest.mark.parametrize(
    "tail", [b'{"tensor": "model.la', b"\0\0\0\0", b'{"tensor": 3}\n', b"{}\n"]
)
def test_a_torn_last_line_of_the_journal_is_dropped(
    tmp_path: Path, reference: dict[str, str], tail: bytes
) -> None:
    crash_after(tmp_path / "q", 150)
    with (partial_folder(tmp_path / "q") / JOURNAL_NAME).open("ab") as journal:
        journal.write(tail)
    quantize(CHECKPOINT, tmp_path / "q")
    assert hashes(tmp_path / "q") == reference


def test_a_lost_journal_only_costs_time(tmp_path: Path, reference: dict[str, str]) -> None:
    crash_after(tmp_path / "q", 150)
    (partial_folder(tmp_path / "q") / JOURNAL_NAME).unlink()
    quantize(CHECKPOINT, tmp_path / "q")
    assert hashes(tmp_path / "q") == reference


def test_a_shard_that_lost_its_end_is_redone_from_there(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    crash_after(tmp_path / "q", 150)
    shard = partial_folder(tmp_path / "q") / "model-00001-of-00004.safetensors"
    os.truncate(shard, shard.stat().st_size // 2)
    quantize(CHECKPOINT, tmp_path / "q")
    assert hashes(tmp_path / "q") == reference


def test_check_finds_a_byte_that_changed_between_two_runs(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    for rehash in (False, True):
        crash_after(tmp_path / "q", 150)
        shard = partial_folder(tmp_path / "q") / "model-00001-of-00004.safetensors"
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        quantize(CHECKPOINT, tmp_path / "q", effort=replace(QUICK, rehash=rehash))
        assert (hashes(tmp_path / "q") == reference) == rehash
        for file in (tmp_path / "q").iterdir():
            file.unlink()


def test_stopping_between_two_events_keeps_the_work(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    steps = convert(CHECKPOINT, tmp_path / "q", SMALL_SHARDS, QUICK)
    assert isinstance(next(steps), Planned)
    assert list(tmp_path.iterdir()) == []
    assert isinstance(next(steps), Progress)
    steps.close()
    assert [p.name for p in tmp_path.iterdir()] == ["q.partial"]
    plan = quantize(CHECKPOINT, tmp_path / "q")[0]
    assert isinstance(plan, Planned)
    assert plan.ready_bytes > 0
    assert hashes(tmp_path / "q") == reference


def test_a_full_disk_in_the_middle_keeps_the_work(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    fused = replace(QUICK, writer=Fuse(100, disk_full), sync_bytes=1)
    with pytest.raises(ConversionError, match=r"The disk of .* is full") as caught:
        quantize(CHECKPOINT, tmp_path / "q", effort=fused)
    assert "continues where it stopped" in caught.value.hint
    plan = quantize(CHECKPOINT, tmp_path / "q")[0]
    assert isinstance(plan, Planned)
    assert plan.ready_bytes > 0
    assert hashes(tmp_path / "q") == reference


def test_other_settings_are_refused_with_both_values(tmp_path: Path) -> None:
    crash_after(tmp_path / "q", 50)
    with pytest.raises(ConversionError) as caught:
        quantize(CHECKPOINT, tmp_path / "q", replace(SMALL_SHARDS, lm_head="nf4"))
    assert 'was started with lm_head "bf16", but now it is "nf4"' in caught.value.message
    assert "--restart" in caught.value.hint


class SmallFiles(ShardWriter):
    """A writer on a disk whose files end early, as those of FAT32 do."""

    most = 280_000

    def write(self, data: Data) -> None:
        if self._stream.tell() + memoryview(data).nbytes > self.most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        super().write(data)


def test_a_disk_whose_files_end_early_names_the_option_and_goes_on_with_it(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    small_files = replace(QUICK, writer=SmallFiles, sync_bytes=1)
    with pytest.raises(ConversionError) as caught:
        quantize(CHECKPOINT, tmp_path / "q", effort=small_files)
    assert "allows no file of 293 KiB: on FAT32, files end at 4 GiB" in caught.value.message
    assert "with --shard-size 150000" in caught.value.hint
    assert caught.value.param == "shard_size"
    smaller = replace(SMALL_SHARDS, shard_bytes=150_000)
    plan = quantize(CHECKPOINT, tmp_path / "q", smaller, small_files)[0]
    assert isinstance(plan, Planned)
    assert plan.ready_bytes == 0
    quantize(CHECKPOINT, tmp_path / "fresh", smaller)
    assert hashes(tmp_path / "q") == hashes(tmp_path / "fresh")
    assert not partial_folder(tmp_path / "q").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit on Windows")
def test_a_limit_of_the_system_is_explained_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import resource

    words = [str(CHECKPOINT), str(tmp_path / "q"), "--calibrate", "none"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        assert main(words) == 1
        assert "--shard-size 4GB" in capsys.readouterr().err
        assert main([*words, "--shard-size", "100KB"]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("system", "shard_bytes", "refused"),
    [
        ("vfat", 5 * 10**9, True), ("FAT32", 5 * 10**9, True), ("vfat", 4 * 10**9, False),
        ("exfat", 5 * 10**9, False), ("ext4", 5 * 10**9, False), ("", 5 * 10**9, False),
    ],
)  # fmt: skip
def test_fat32_is_noticed_before_the_work(
    tmp_path: Path, system: str, shard_bytes: int, refused: bool
) -> None:
    recipe = make_recipe(made_of_19b(tmp_path), QuantizeOptions(shard_bytes=shard_bytes))
    if not refused:
        check_file_sizes(tmp_path / "q", recipe, system)
        return
    with pytest.raises(ConversionError) as caught:
        check_file_sizes(tmp_path / "q", recipe, system)
    assert "allows no file of 4.66 GiB" in caught.value.message
    assert "--shard-size 4GB" in caught.value.hint


def made_of_19b(folder: Path) -> Catalog:
    """Write the sizes of the released model as a file of holes."""
    specs = expected_tensors(REAL)
    sizes = {n: ("BF16", s.shape, 2 * s.numel) for n, s in specs.items()}
    write_sparse(folder / "model.safetensors", sizes, {})
    return Catalog.open(folder, REAL)


def test_another_source_with_the_same_headers_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s")
    fused = replace(QUICK, writer=Fuse(50, crash), sync_bytes=1)
    with pytest.raises(Crash):
        quantize(source, tmp_path / "q", effort=fused)
    shard = source / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ConversionError, match="from another source"):
        quantize(source, tmp_path / "q")


def test_restart_throws_the_old_work_away(tmp_path: Path) -> None:
    crash_after(tmp_path / "q", 50)
    wanted = replace(SMALL_SHARDS, lm_head="nf4")
    quantize(CHECKPOINT, tmp_path / "q", wanted, replace(QUICK, restart=True))
    quantize(CHECKPOINT, tmp_path / "fresh", wanted)
    assert hashes(tmp_path / "q") == hashes(tmp_path / "fresh")


def test_a_strange_folder_in_the_way_is_left_alone(tmp_path: Path) -> None:
    strange = partial_folder(tmp_path / "q")
    strange.mkdir()
    (strange / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(ConversionError, match=r"thesis\.txt is in it"):
            quantize(CHECKPOINT, tmp_path / "q", effort=replace(QUICK, restart=restart))
    assert (strange / "thesis.txt").read_text() == "years of work"


def test_a_run_killed_before_its_first_file_is_taken_up(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    partial_folder(tmp_path / "q").mkdir()
    (partial_folder(tmp_path / "q") / (JOB_NAME + ".tmp")).write_text("{")
    quantize(CHECKPOINT, tmp_path / "q")
    assert JOB_NAME + ".tmp" not in hashes(tmp_path / "q")
    assert hashes(tmp_path / "q") == reference


@pytest.mark.parametrize("leftover", [[], [JOB_NAME], [JOB_NAME, JOURNAL_NAME]])
def test_a_run_killed_between_manifest_and_rename_is_taken_up(
    tmp_path: Path, reference: dict[str, str], leftover: list[str]
) -> None:
    quantize(CHECKPOINT, tmp_path / "q")
    partial = (tmp_path / "q").rename(partial_folder(tmp_path / "q"))
    for name in leftover:
        (partial / name).write_text("{}")
    events = quantize(CHECKPOINT, tmp_path / "q")
    assert [type(e) for e in events] == [Planned, Finished]
    assert hashes(tmp_path / "q") == reference


def test_a_finished_folder_is_finished(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "q")
    events = quantize(CHECKPOINT, tmp_path / "q")
    assert len(events) == 1
    assert isinstance(events[0], Finished)
    assert events[0].already


def test_two_runs_at_once_are_refused_and_a_dead_one_does_not_count(tmp_path: Path) -> None:
    with (
        exclusive_run(tmp_path / "q"),
        pytest.raises(ConversionError, match="Another run is writing"),
    ):
        quantize(CHECKPOINT, tmp_path / "q")
    (tmp_path / "q.lock").touch()
    quantize(CHECKPOINT, tmp_path / "q")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q"]


def test_the_manifest_names_neither_time_nor_place(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "q", QuantizeOptions())
    text = (tmp_path / "q/cogvlm2_lite_manifest.json").read_text()
    assert str(tmp_path) not in text
    assert sorted(json.loads(text)) == [
        "files", "format_version", "settings", "shards", "source", "tensors", "tool",
    ]  # fmt: skip


def test_memory_is_bounded_by_runs_whatever_the_size_of_a_tensor() -> None:
    recipe = make_recipe(open_catalog(CHECKPOINT), SMALL_SHARDS)
    for tensor in recipe.tensors:
        runs = list(split_into_runs(tensor, 5_000))
        row = tensor.source.spec.shape[-1] * 4
        assert max(run.count for run in runs) <= max(5_000, row)
        assert [run.begin for run in runs] == list(
            accumulate((run.count for run in runs[:-1]), initial=0)
        )
        assert sum(run.count for run in runs) == tensor.source.nbytes


def test_no_more_runs_are_started_than_may_wait() -> None:
    started: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        for taken, result in enumerate(in_order(pool, lambda i: i * i, _noting(started), ahead=3)):
            assert result == taken**2
            assert len(started) <= taken + 4
    assert started == list(range(50))


def _noting(started: list[int]) -> Iterator[int]:
    for number in range(50):
        started.append(number)
        yield number
