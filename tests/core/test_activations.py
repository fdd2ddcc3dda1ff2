"""Activations between stages: what is written is read, and what is counted is on the disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.engine.activations import Activations, FolderActivations, MemoryActivations

SAMPLES, STAGES = 3, 4


def made(stage: int, sample: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    generator = torch.Generator().manual_seed(10 * stage + sample)
    return torch.randn(1, 3 + sample, 5, generator=generator).to(dtype)


def walk(activations: Activations, stages: int = STAGES) -> None:
    """Add the inputs of a stage to what it makes, so that every stage needs the one before."""
    for stage in range(activations.done, stages):
        for sample in range(SAMPLES):
            new = made(stage, sample)
            if stage:
                new = new + activations.read(stage, (sample, 0))
            activations.write(stage + 1, (sample, 0), new)
        activations.finish(stage + 1)


def result(activations: Activations) -> list[Tensor]:
    return [activations.read(STAGES, (sample, 0)) for sample in range(SAMPLES)]


@pytest.fixture
def expected() -> list[Tensor]:
    kept = MemoryActivations()
    walk(kept)
    return result(kept)


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_written_is_read_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    kept = FolderActivations(tmp_path / "w", "a test")
    kept.resume()
    with closing(kept):
        for sample in range(SAMPLES):
            kept.write(1, (sample, 7), made(0, sample, dtype).transpose(1, 2))
        kept.finish(1)
        for sample in (2, 0, 1, 2):
            found = kept.read(1, (sample, 7))
            assert found.dtype == dtype
            assert torch.equal(found, made(0, sample, dtype).transpose(1, 2))


def test_read_once_takes_the_room_of_one_stage() -> None:
    kept = MemoryActivations(read_once=True)
    kept.write(0, (0, 0), torch.zeros(8))
    kept.write(0, (1, 0), torch.zeros(8))
    kept.write(1, (0, 0), kept.read(0, (0, 0)))
    assert kept.held_bytes == 2 * 32


def test_a_folder_keeps_the_inputs_of_one_stage_and_goes_on_there(
    tmp_path: Path, expected: list[Tensor]
) -> None:
    with closing(FolderActivations(tmp_path / "w", "a test")) as kept:
        kept.resume()
        walk(kept, 2)
        kept.write(3, (0, 0), made(9, 9))  # a stage that is never finished
        assert {p.name for p in (tmp_path / "w").iterdir()} == {
            "state.json", "activations-2", "activations-3",
        }  # fmt: skip
    with closing(FolderActivations(tmp_path / "w", "a test")) as again:
        assert again.earlier_identity == "a test"
        again.resume()
        assert again.done == 2
        assert {p.name for p in (tmp_path / "w").iterdir()} == {"state.json", "activations-2"}
        assert again.held_bytes == sum(made(0, n).nbytes for n in range(SAMPLES))
        walk(again)
        assert same(result(again), expected)


def test_a_folder_of_the_version_before_starts_from_the_beginning(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    (folder / "activations-2").mkdir(parents=True)
    (folder / "activations-2" / "000000").write_bytes(b"of another layout")
    (folder / "state.json").write_text(json.dumps({"identity": "a test", "done": 2}))
    kept = FolderActivations(folder, "a test")
    kept.resume()
    assert kept.done == 0
    assert [p.name for p in folder.iterdir()] == ["state.json"]


def test_room_counts_what_the_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    kept = FolderActivations(tmp_path, "a test")
    (tmp_path / "matrix").write_bytes(bytes(30))
    assert (kept.free_bytes, kept.room_bytes) == (1000, 1030)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks up open files in /proc")
def test_activations_are_on_the_disk_before_their_stage_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, only what was forced to the disk is there."""
    synced: dict[str, int] = {}
    fsync, replace = os.fsync, Path.replace

    def note(number: int) -> None:
        fsync(number)
        synced[str(Path(f"/proc/self/fd/{number}").readlink())] = os.fstat(number).st_size

    def check(self: Path, target: Path) -> Path:
        counted = json.loads(self.read_text())
        if counted["activations"]:
            file = tmp_path / f"activations-{counted['done']}"
            assert synced[str(file)] == file.stat().st_size > 0
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", check)
    with closing(FolderActivations(tmp_path, "a test")) as kept:
        kept.resume()
        walk(kept)
    assert len(synced) >= STAGES


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test kills forks of itself")
def test_kill_9_at_any_moment_changes_nothing_in_the_end(
    tmp_path: Path, expected: list[Tensor]
) -> None:
    """Each child dies at a later file operation than the one before it, and the next resumes."""
    deaths = 0
    for moment in range(1, 60):
        child = os.fork()
        if child == 0:
            left = [moment % 9 + 1]

            def die(event: str, _: object, left: list[int] = left) -> None:
                if event in ("open", "os.rename", "os.remove", "os.scandir"):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(die)
            kept = FolderActivations(tmp_path / "w", "a test")
            kept.resume()
            walk(kept)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        deaths += os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert deaths >= 8
    with closing(FolderActivations(tmp_path / "w", "a test")) as kept:
        kept.resume()
        walk(kept)
        assert same(result(kept), expected)
