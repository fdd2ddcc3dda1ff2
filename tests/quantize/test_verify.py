"""`verify` names whatever is not as it was written."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.errors import CheckpointError, UsageError
from cogvlm2_lite.weights.manifest import MANIFEST_NAME, read_manifest
from quantize.events import Damaged, Progress, Verified
from quantize.verify import verify
from tests.helpers.conversion import CHECKPOINT, quantize, write_source


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "q"
    quantize(CHECKPOINT, folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "q")


def check(folder: Path) -> tuple[list[Damaged], Verified]:
    events = list(verify(folder))
    last = events[-1]
    assert isinstance(last, Verified)
    damaged = [e for e in events if isinstance(e, Damaged)]
    assert last.damaged == len(damaged)
    assert last.ok == (not damaged)
    return damaged, last


def test_a_fresh_folder_is_whole(folder: Path) -> None:
    damaged, last = check(folder)
    assert not damaged
    assert last.has_manifest
    manifest = read_manifest(folder)
    assert manifest is not None
    assert last.checked_bytes == sum(s.nbytes for s in manifest.shards.values())
    progress = [event for event in verify(folder) if isinstance(event, Progress)]
    assert progress[-1].share == 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found_in_its_file(finished: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(finished.iterdir())))
    content = bytearray(file.read_bytes())
    if file.name == MANIFEST_NAME:
        return  # the manifest itself is the measure
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    original = file.read_bytes()
    try:
        file.write_bytes(content)
        damaged, _ = check(finished)
    finally:
        file.write_bytes(original)
    assert [d.file for d in damaged] == [file.name]


def test_a_damaged_tensor_is_named(folder: Path) -> None:
    shard = folder / "model-00001-of-00004.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    damaged, _ = check(folder)
    assert len(damaged) == 1
    assert damaged[0].tensor.startswith("model.")
    assert "sha256 differs in" in damaged[0].problem


def test_a_shard_that_lost_its_end_names_the_tensors_that_are_gone(folder: Path) -> None:
    shard = folder / "model-00002-of-00004.safetensors"
    size = shard.stat().st_size
    os.truncate(shard, size - 40_000)
    damaged, _ = check(folder)
    assert f"has {size - 40_000} bytes instead of {size}" in damaged[0].problem
    assert len(damaged) > 1
    assert all(d.file == shard.name for d in damaged)
    assert all(d.tensor for d in damaged[1:])


def test_bytes_behind_the_end_are_noticed(folder: Path) -> None:
    shard = folder / "model-00001-of-00004.safetensors"
    with shard.open("ab") as stream:
        stream.write(b"more")
    damaged, _ = check(folder)
    assert [d.problem[:3] for d in damaged] == ["has"]


@pytest.mark.parametrize("name", ["model-00003-of-00004.safetensors", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    damaged, _ = check(folder)
    assert [d.file for d in damaged] == [name]
    assert "No such file" in damaged[0].problem


def test_without_a_manifest_only_the_structure_is_checked_and_that_is_said(folder: Path) -> None:
    (folder / MANIFEST_NAME).unlink()
    damaged, last = check(folder)
    assert not damaged
    assert not last.has_manifest
    shard = folder / "model-00001-of-00004.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(CheckpointError) as caught:
        list(verify(folder))
    assert f"{shard.name} is incomplete" in caught.value.message


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_matrix_that_was_empty_in_the_source_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_manifest: bool
) -> None:
    name = "model.layers.1.mlp.vision_mlp.down_proj.weight"
    source = write_source(tmp_path / "s", replace={name: torch.zeros(128, 192)})
    # As a version without the check wrote it.
    monkeypatch.setattr("quantize.pipeline.refuse_zeros", lambda catalog: None)
    monkeypatch.setattr("quantize.pipeline.checked_roles", lambda stored: ())
    quantize(source, tmp_path / "q")
    if not with_manifest:
        (tmp_path / "q" / MANIFEST_NAME).unlink()
    damaged, last = check(tmp_path / "q")
    assert [(d.tensor, d.problem) for d in damaged] == [(name, "it contains only zeros")]
    assert last.checked_bytes == sum(
        f.stat().st_size for f in (tmp_path / "q").glob("*.safetensors")
    )


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        list(verify(tmp_path / "none"))


def test_a_manifest_that_lists_other_tensors_is_noticed(folder: Path) -> None:
    file = folder / MANIFEST_NAME
    content = json.loads(file.read_text())
    del content["tensors"]["lm_head.weight"]
    file.write_text(json.dumps(content))
    damaged, _ = check(folder)
    assert "not those that the manifest lists" in damaged[0].problem


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"format_version": None}, "format version 'None'"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"files": []}, r"Expected `object`, got `array` - at `\$.files`"),
        ({"files": {"../x": {"nbytes": 1, "sha256": ""}}}, "not a plain file name"),
        (
            {"files": {"x": {"nbytes": -1, "sha256": ""}}},
            r"Expected `int` >= 0 - at `\$.files\[...\].nbytes`",
        ),
        (
            {"tensors": {"t": {"kind": 1, "shard": "s", "sha256": {}}}},
            r"Expected `str`, got `int` - at `\$.tensors\[...\].kind`",
        ),
    ],
)
def test_a_bad_manifest_is_refused_with_the_reason(
    folder: Path, change: dict[str, object], sentence: str
) -> None:
    file = folder / MANIFEST_NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=sentence):
        read_manifest(folder)
    damaged, last = check(folder)
    assert damaged[0].file == MANIFEST_NAME
    assert not last.ok


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    key=st.sampled_from(["tool", "source", "settings", "files", "shards", "tensors"]), value=_JSON
)
def test_no_manifest_ends_in_a_traceback(finished: Path, key: str, value: object) -> None:
    file = finished / MANIFEST_NAME
    original = file.read_bytes()
    try:
        file.write_text(json.dumps(json.loads(original) | {key: value}))
        with suppress(CheckpointError):  # anything else fails the test
            read_manifest(finished)
    finally:
        file.write_bytes(original)
