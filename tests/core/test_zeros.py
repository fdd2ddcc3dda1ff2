"""Weights that were never written are found: by pages at loading, completely by `verify`."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import Role, expected_tensors
from cogvlm2_lite.cli.doctor import main as doctor
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.zeros import PAGE, PieceCheck, Runs, find_runs, look_for_zeros
from tests.helpers.checkpoints import (
    LINEARS,
    SPECS,
    Tensors,
    four_bit,
    golden_tensors,
    open_folder,
    write_folder,
    write_index,
    write_sparse,
)
from tests.helpers.scripted_model import ScriptedModel
from tests.helpers.shapes import REAL

MATRIX = "model.layers.1.mlp.vision_mlp.down_proj.weight"
EVERYTHING = 1 << 30
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def dense() -> Tensors:
    return golden_tensors()


def found(folder: Path, *, most_bytes: int = EVERYTHING) -> list[str]:
    return [z.tensor for z in look_for_zeros(open_folder(folder), most_bytes=most_bytes)]


def with_zeros(dense: Tensors, name: str, rows: slice) -> Tensors:
    value = dense[name].clone()
    value[rows] = 0
    return {**dense, name: value}


# --- runs -----------------------------------------------------------------------------------------


def longest_run(data: bytes, value: int) -> int:
    """Return the longest run by looking at every byte."""
    best = length = 0
    for byte in data:
        length = length + 1 if byte == value else 0
        best = max(best, length)
    return best


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(0, 12_000), st.binary(min_size=1, max_size=40)), max_size=5
    ),
    cuts=st.lists(st.integers(0, 60_000), max_size=3),
    value=st.sampled_from([0, 0x77]),
)
def test_runs_of_a_page_are_found_exactly_however_the_bytes_are_cut(
    parts: list[tuple[int, bytes]], cuts: list[int], value: int
) -> None:
    data = b"".join(bytes([value]) * count + rest for count, rest in parts)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    whole, joined = find_runs(data, value), Runs()
    for begin, end in pairwise(edges):
        joined = joined.followed_by(find_runs(data[begin:end], value))
    true = longest_run(data, value)
    for runs in (whole, joined):
        assert runs.size == len(data)
        assert runs.head == len(data) - len(data.lstrip(bytes([value])))
        assert runs.tail == len(data) - len(data.rstrip(bytes([value])))
        if true >= PAGE:
            assert runs.longest == true
            assert data[runs.place : runs.place + true] == bytes([value]) * true
        assert runs.longest <= true


# --- which tensors --------------------------------------------------------------------------------


def test_models_as_they_are_have_no_empty_parts(tmp_path: Path, dense: Tensors) -> None:
    demo = checkpoint_folder()
    assert list(look_for_zeros(Catalog.open(demo, read_config(demo)), most_bytes=EVERYTHING)) == []
    assert found(write_folder(tmp_path / "m", dense)) == []
    for number, kind in enumerate(("nf4", "fp4")):
        folder = write_folder(tmp_path / f"q{number}", four_bit(dense, quant_type=kind))
        assert found(folder) == []


def test_every_tensor_of_zeros_is_found_except_those_that_may_be_zero(
    tmp_path: Path, dense: Tensors
) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in dense.items()}
    allowed = {
        name
        for name, spec in SPECS.items()
        if spec.role is Role.BIAS or name.endswith((".boi", ".eoi", ".cls_embedding"))
    }
    assert set(found(write_folder(tmp_path / "m", zeros))) == set(SPECS) - allowed
    kept = {name: zeros[name] if name in allowed else tensor for name, tensor in dense.items()}
    assert found(write_folder(tmp_path / "k", kept)) == []


def test_a_page_of_zeros_inside_a_matrix_is_found_with_its_place(
    tmp_path: Path, dense: Tensors
) -> None:
    row = dense[MATRIX].shape[1] * 2
    rows = -(-PAGE // row)
    folder = write_folder(tmp_path / "m", with_zeros(dense, MATRIX, slice(5, 5 + rows)))
    (zeros,) = look_for_zeros(open_folder(folder), most_bytes=EVERYTHING)
    assert zeros.tensor == MATRIX
    assert zeros.problem.endswith(f"of zeros follow its byte {5 * row}")
    assert zeros.error.message.startswith(f"{MATRIX} in model.safetensors was not downloaded")
    assert "Download or copy it again" in zeros.error.hint
    fewer = with_zeros(dense, MATRIX, slice(5, 5 + rows - 2))
    assert found(write_folder(tmp_path / "n", fewer)) == []


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_rows_of_unused_tokens_may_be_zero(tmp_path: Path, dense: Tensors, name: str) -> None:
    rows = len(dense[name])
    assert (
        found(write_folder(tmp_path / "m", with_zeros(dense, name, slice(-rows // 10, None)))) == []
    )
    half = with_zeros(dense, name, slice(rows // 2, None))
    assert found(write_folder(tmp_path / "n", half)) == [name]


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double_quant", [True, False])
def test_a_matrix_that_was_empty_when_it_was_quantized_is_found(
    tmp_path: Path, dense: Tensors, kind: str, double_quant: bool
) -> None:
    empty = with_zeros(dense, MATRIX, slice(None))
    tensors = four_bit(empty, quant_type=kind, double_quant=double_quant, only=(MATRIX,))
    assert MATRIX in found(write_folder(tmp_path / "m", tensors))


def test_codes_that_were_not_downloaded_are_found(tmp_path: Path, dense: Tensors) -> None:
    tensors = four_bit(dense)
    tensors[MATRIX] = torch.zeros_like(tensors[MATRIX])
    assert found(write_folder(tmp_path / "m", tensors)) == [MATRIX]
    assert MATRIX in LINEARS


def test_the_released_sizes_allow_the_reserved_tokens_and_two_rows(tmp_path: Path) -> None:
    specs = expected_tensors(REAL)
    file = tmp_path / "model.safetensors"
    write_sparse(file, {n: ("BF16", s.shape, 2 * s.numel) for n, s in specs.items()}, {})
    catalog = Catalog.open(tmp_path, REAL)

    def wrong(name: str, zeros: int) -> bool:
        check = PieceCheck(catalog.tensors[name], "weight")
        check.add(b"\1" * 10)
        check.add_runs(Runs(size=zeros, head=zeros, tail=zeros, longest=zeros))
        check.add(b"\1")
        return check.problem() is not None

    row = 2 * 4096
    assert not wrong("lm_head.weight", 500 * row)
    assert wrong("lm_head.weight", 512 * row)
    assert not wrong("model.layers.3.self_attn.language_expert_dense.weight", 2 * row - 1)
    assert wrong("model.layers.3.self_attn.language_expert_dense.weight", 2 * row)


# --- a large folder: holes and pages --------------------------------------------------------------


def fill(file: Path, begin: int, count: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(begin)
        stream.write(np.random.default_rng(0).integers(1, 255, count, np.uint8).tobytes())


def half_a_model(folder: Path) -> Catalog:
    """Write a model of 19B sizes whose second file is a hole; only a little disk is used."""
    specs = expected_tensors(REAL)
    names = list(specs)
    weight_map = {}
    for number, mine in enumerate((names[:1000], names[1000:])):
        file = f"model-{number}.safetensors"
        sizes = {n: ("BF16", specs[n].shape, 2 * specs[n].numel) for n in mine}
        write_sparse(folder / file, sizes, {})
        weight_map.update(dict.fromkeys(mine, file))
    write_index(folder, weight_map)
    return Catalog.open(folder, REAL)


@pytest.mark.skipif(sys.platform == "win32", reason="a file with holes takes room there")
def test_holes_of_a_large_file_are_found_without_reading_it(tmp_path: Path) -> None:
    catalog = half_a_model(tmp_path)
    zeros = next(iter(look_for_zeros(catalog, most_bytes=1 << 20)))
    assert "of zeros follow its byte" in zeros.problem


def test_pages_of_zeros_are_found_by_samples(
    tmp_path: Path, dense: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cogvlm2_lite.weights.zeros.os.SEEK_HOLE", 99, raising=False)
    folder = write_folder(tmp_path / "m", with_zeros(dense, MATRIX, slice(None)))
    assert found(folder, most_bytes=1 << 20) == [MATRIX]  # about one page of every matrix


# --- where it is shown ----------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path, dense: Tensors) -> Path:
    return write_folder(tmp_path / "m", with_zeros(dense, MATRIX, slice(None)))


def test_loading_warns_and_goes_on(empty: Path) -> None:
    model = cogvlm2_lite.load(empty, device="cpu")
    assert model.warnings == model.remarks[:1]
    assert model.warnings[0].startswith(f"{MATRIX} in model.safetensors was not downloaded")
    assert "Answers may be wrong. The download of the file was not" in model.warnings[0]


def test_doctor_names_it_in_place_of_the_plan(empty: Path, capsys: Capture) -> None:
    assert doctor([str(empty)], load=ScriptedModel().load) == 0
    shown = capsys.readouterr().out
    assert f"{MATRIX} in model.safetensors was not downloaded completely" in shown
    assert "language expert" not in shown


def test_a_damaged_read_is_an_error(tmp_path: Path, dense: Tensors) -> None:
    catalog = open_folder(write_folder(tmp_path / "m", dense))
    catalog.shards[0].file.unlink()
    with pytest.raises(cogvlm2_lite.errors.CheckpointError, match="can't be read"):
        list(look_for_zeros(catalog, most_bytes=EVERYTHING))
