"""Everything that can go wrong for a user ends in one clear sentence, with nothing lost."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cogvlm2_lite.errors import (
    CheckpointError,
    CogVLM2LiteError,
    ConversionError,
    DoesNotFitError,
    UsageError,
)
from quantize.events import Planned
from quantize.pipeline import convert
from quantize.recipe import Keep, QuantizeOptions
from quantize.source import SourceFiles, read_positioned, read_seeking
from tests.helpers.conversion import (
    CHECKPOINT,
    QUICK,
    SMALL_SHARDS,
    open_catalog,
    quantize,
    write_source,
)


def refused(source: Path, destination: Path, kind: type[CogVLM2LiteError]) -> str:
    """Convert, expect an error with a hint, and give its sentence."""
    with pytest.raises(kind) as caught:
        quantize(source, destination)
    assert caught.value.hint
    return caught.value.message


def test_a_missing_source(tmp_path: Path) -> None:
    assert "There is no folder" in refused(tmp_path / "none", tmp_path / "q", UsageError)


def test_source_and_destination_are_the_same(tmp_path: Path) -> None:
    source = shutil.copytree(CHECKPOINT, tmp_path / "s")
    same = tmp_path / "x" / ".." / "s"
    assert "both the source and the destination" in refused(source, same, UsageError)


def test_a_destination_inside_the_source(tmp_path: Path) -> None:
    source = shutil.copytree(CHECKPOINT, tmp_path / "s")
    before = sorted(source.iterdir())
    assert "is inside the source" in refused(source, source / "deep/q", UsageError)
    assert sorted(source.iterdir()) == before


def test_a_destination_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q/thesis.txt").write_text("years of work")
    assert "is not empty" in refused(CHECKPOINT, tmp_path / "q", ConversionError)
    assert (tmp_path / "q/thesis.txt").read_text() == "years of work"


def test_a_destination_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("years of work")
    assert "already exists" in refused(CHECKPOINT, tmp_path / "q", ConversionError)
    assert (tmp_path / "q").read_text() == "years of work"


def test_a_destination_made_with_other_settings(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "q", QuantizeOptions(lm_head="nf4"))
    message = refused(CHECKPOINT, tmp_path / "q", ConversionError)
    assert 'was made with lm_head "nf4", but now it is "bf16"' in message


def test_an_empty_destination_is_welcome(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    quantize(CHECKPOINT, tmp_path / "q")
    assert (tmp_path / "q/config.json").exists()


def test_a_destination_whose_parent_is_missing_is_made(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "a/b/q")
    assert (tmp_path / "a/b/q/config.json").exists()


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused(CHECKPOINT, tmp_path / "file/q", ConversionError)
    assert "file can't be used: " in message


def test_a_source_that_is_quantized_already(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "q")
    message = refused(tmp_path / "q", tmp_path / "q2", CheckpointError)
    assert "is already quantized (nf4)" in message


def test_a_shard_that_ends_early_is_named(tmp_path: Path) -> None:
    source = shutil.copytree(CHECKPOINT, tmp_path / "s")
    shard = source / "model-00002-of-00003.safetensors"
    os.truncate(shard, shard.stat().st_size - 5)
    assert "model-00002-of-00003" in refused(source, tmp_path / "q", CheckpointError)
    assert not (tmp_path / "q.partial").exists()


def test_a_shard_that_shrinks_during_the_work_is_named_with_the_tensor(tmp_path: Path) -> None:
    source = shutil.copytree(CHECKPOINT, tmp_path / "s")
    steps = convert(source, tmp_path / "q", SMALL_SHARDS, QUICK)
    assert isinstance(next(steps), Planned)
    shard = source / "model-00001-of-00003.safetensors"
    last = list(open_catalog(source).shards[0].pieces)[-1]
    os.truncate(shard, shard.stat().st_size - 5)
    with pytest.raises(CheckpointError) as caught:
        list(steps)
    assert f"{shard.name} ends in the middle of {last}: it needs 5 more" in caught.value.message
    assert "run the same command again" in caught.value.hint


def test_a_shard_that_can_not_be_read_is_named_with_the_tensor(tmp_path: Path) -> None:
    source = shutil.copytree(CHECKPOINT, tmp_path / "s")
    steps = convert(source, tmp_path / "q", SMALL_SHARDS, QUICK)
    assert isinstance(next(steps), Planned)
    shard = source / "model-00001-of-00003.safetensors"
    shard.unlink()
    shard.mkdir()
    with pytest.raises(CheckpointError, match=r"model-00001-of-00003\S+ can't be read at model\."):
        list(steps)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_weight_that_is_no_number_is_named_with_its_place(
    tmp_path: Path, value: float, kind: str
) -> None:
    name = "model.layers.1.mlp.vision_mlp.down_proj.weight"
    weight = torch.full((128, 192), 0.5, dtype=torch.bfloat16)
    weight[101, 7] = value
    source = write_source(tmp_path / "s", replace={name: weight})
    keep = (Keep(pattern=name, kind="int8"),) if kind == "int8" else ()
    with pytest.raises(ConversionError) as caught:
        quantize(source, tmp_path / "q", QuantizeOptions(keep=keep))
    assert caught.value.message == (
        f"{name} has {value} at row 101, column 7, so it can't be rounded."
    )
    assert "model.safetensors" in caught.value.hint


EMPTY = "model.layers.1.mlp.vision_mlp.down_proj.weight"


def with_an_empty_matrix(folder: Path) -> Path:
    return write_source(folder, replace={EMPTY: torch.zeros(128, 192, dtype=torch.bfloat16)})


def test_an_empty_matrix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = with_an_empty_matrix(tmp_path / "s")
    message = refused(source, tmp_path / "q", CheckpointError)
    assert message == (
        f"{EMPTY} in model.safetensors was not downloaded completely: it contains only zeros."
    )
    assert not (tmp_path / "q.partial").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json"])
def test_a_pointer_is_not_copied_to_the_result(tmp_path: Path, name: str) -> None:
    source = shutil.copytree(CHECKPOINT, tmp_path / "s")
    (source / name).write_text("version https://git-lfs.github.com/spec/v1\noid x\nsize 9\n")
    message = refused(source, tmp_path / "q", CheckpointError)
    assert f"{name} is a Git LFS pointer" in message


@pytest.mark.parametrize("keep", ["bf16", "int8", ""])
def test_zeros_between_the_pages_that_are_looked_at_are_found_in_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    monkeypatch.setattr("quantize.pipeline.refuse_zeros", lambda catalog: None)
    weight = torch.full((128, 192), 0.5, dtype=torch.bfloat16)
    weight[40:60] = 0  # across runs
    source = write_source(tmp_path / "s", replace={EMPTY: weight})
    settings = QuantizeOptions(keep=(Keep(pattern=EMPTY, kind=keep),) if keep else ())
    with pytest.raises(CheckpointError) as caught:
        quantize(source, tmp_path / "q", settings, replace(QUICK, run_bytes=20 * 192))
    assert "7.50 KiB of zeros follow its byte 15360" in caught.value.message
    assert "Download or copy it again" in caught.value.hint


def test_a_disk_with_too_little_room_is_noticed_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 64 * 1024**2 + 1000))
    message = refused(CHECKPOINT, tmp_path / "q", DoesNotFitError)
    assert "1.11 MiB must still be written" in message
    assert "where 64.0 MiB must stay free. It has 64.0 MiB free: 1.11 MiB more" in message
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_exactly_enough_room_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = quantize(CHECKPOINT, tmp_path / "q")[0]
    assert isinstance(plan, Planned)
    copied = (CHECKPOINT / "generation_config.json").stat().st_size
    enough = plan.result_bytes + copied + 64 * 1024**2
    usage = namedtuple("usage", "total used free")
    for free, ok in ((enough, True), (enough - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(0, 0, free))
        if ok:
            quantize(CHECKPOINT, tmp_path / "ok")
        else:
            refused(CHECKPOINT, tmp_path / "no", DoesNotFitError)


def test_both_ways_of_reading_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(range(256)))
    import io
    from threading import Lock

    with io.FileIO(tmp_path / "f") as stream:
        for begin in (0, 100, 250):
            one, two = bytearray(10), bytearray(10)
            counts = [
                read(stream, memoryview(target), begin, Lock())
                for read, target in ((read_positioned, one), (read_seeking, two))
            ]
            assert counts[0] == counts[1] == min(10, 256 - begin)
            assert one == two


def test_source_files_read_parts_of_a_tensor() -> None:
    tensor = open_catalog(CHECKPOINT).tensors["lm_head.weight"]
    piece = tensor.pieces["weight"]
    whole = piece.file.read_bytes()[piece.begin : piece.end]
    with SourceFiles() as files:
        assert files.read("lm_head.weight", piece, 1000, 77) == whole[1000:1077]
