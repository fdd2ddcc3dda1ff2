"""Features and prefixes of pictures on the disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from cogvlm2_lite.finetune.picture_files import FEATURES, PREFIX, PictureFiles

TENSORS = [torch.arange(20, dtype=torch.bfloat16).reshape(4, 5), torch.tensor([[1.5]])]


def same(found: list[torch.Tensor] | None) -> bool:
    return found is not None and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(found, TENSORS, strict=True)
    )


def test_tensors_come_back_to_the_bit_for_the_same_model_only(tmp_path: Path) -> None:
    PictureFiles(tmp_path, "model a", 10_000).put(FEATURES, "picture", TENSORS)
    assert same(PictureFiles(tmp_path, "model a", 10_000).get(FEATURES, "picture"))
    assert PictureFiles(tmp_path, "model b", 10_000).get(FEATURES, "picture") is None
    assert PictureFiles(tmp_path, "model a", 10_000).get(PREFIX, "picture") is None
    assert PictureFiles(tmp_path, "model a", 10_000).get(FEATURES, "other") is None


@pytest.mark.parametrize("damage", ["cut", "longer", "bit", "empty", "check"])
def test_a_damaged_file_is_noticed_and_made_again(tmp_path: Path, damage: str) -> None:
    files = PictureFiles(tmp_path, "model", 10_000)
    files.put(FEATURES, "picture", TENSORS)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "bit":
        data[-30] ^= 1
    if damage == "check":
        data[-1] ^= 1
    changed = {"cut": data[:-1], "longer": data + b"x", "empty": b""}.get(damage, data)
    file.write_bytes(bytes(changed))
    assert files.get(FEATURES, "picture") is None
    assert list(tmp_path.iterdir()) == []
    files.put(FEATURES, "picture", TENSORS)
    assert same(files.get(FEATURES, "picture"))


def test_nothing_is_added_above_the_limit_and_nothing_is_replaced(tmp_path: Path) -> None:
    PictureFiles(tmp_path, "model", 10_000).put(FEATURES, "0", TENSORS)
    one = next(tmp_path.iterdir()).stat().st_size
    files = PictureFiles(tmp_path, "model", 2 * one + 10)
    for number in range(5):
        files.put(FEATURES, str(number), TENSORS)
    assert files.held_bytes == 2 * one == sum(f.stat().st_size for f in tmp_path.iterdir())
    assert [same(files.get(FEATURES, str(n))) for n in range(5)] == [True, True, *[False] * 3]


def test_prefixes_get_what_the_features_leave(tmp_path: Path) -> None:
    nbytes = sum(tensor.nbytes for tensor in TENSORS)
    files = PictureFiles(tmp_path, "model", 1000)
    files.reserve(5, nbytes=190)
    files.put(PREFIX, "0", TENSORS)
    assert nbytes < 50
    assert files.get(PREFIX, "0") is not None
    files.put(PREFIX, "1", TENSORS)
    assert files.get(PREFIX, "1") is None
    files.put(FEATURES, "1", TENSORS)
    assert files.get(FEATURES, "1") is not None


def test_a_full_disk_is_no_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = PictureFiles(tmp_path, "model", 10_000)
    files.put(FEATURES, "0", TENSORS)

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        files.put(FEATURES, "1", TENSORS)
    assert len(list(tmp_path.iterdir())) == 1
    files.put(FEATURES, "2", TENSORS)  # it does not grow any more
    assert files.get(FEATURES, "2") is None
    assert same(files.get(FEATURES, "0"))


def test_a_folder_that_can_not_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    files = PictureFiles(tmp_path / "file" / "cache", "model", 10_000)
    files.put(FEATURES, "0", TENSORS)
    assert files.get(FEATURES, "0") is None
