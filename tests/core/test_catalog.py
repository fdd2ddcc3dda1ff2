"""The catalog: what a folder holds, and everything that is refused before a byte of it is used."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cogvlm2_lite.architectures.architecture import Part, Role, expected_tensors
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.folders.explain import INDEX_NAME, SINGLE_NAME
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.header import MAX_HEADER_BYTES, read_shard
from cogvlm2_lite.weights.manifest import MANIFEST_NAME
from tests.helpers.checkpoints import (
    CHECKPOINT,
    CONFIG,
    LINEARS,
    SPECS,
    Tensors,
    four_bit,
    golden_tensors,
    header_of,
    open_folder,
    write_folder,
    write_index,
    write_sparse,
)
from tests.helpers.shapes import REAL

HEAD = "lm_head.weight"
NORM = "model.norm.weight"
SPARSE = pytest.mark.skipif(sys.platform == "win32", reason="a file with holes takes room there")


@pytest.fixture(scope="module")
def dense() -> Tensors:
    return golden_tensors()


@pytest.fixture(scope="module")
def nf4(dense: Tensors) -> Tensors:
    return four_bit(dense)


# --- what is read ---------------------------------------------------------------------------------


def test_the_golden_checkpoint_has_all_its_tensors_and_bytes() -> None:
    catalog = open_folder(CHECKPOINT)
    assert list(catalog.tensors) == list(SPECS)
    assert {tensor.kind for tensor in catalog.tensors.values()} == {"dense"}
    index = json.loads((CHECKPOINT / INDEX_NAME).read_text())
    assert catalog.nbytes == index["metadata"]["total_size"]
    assert sum(catalog.bytes_by_part().values()) == catalog.nbytes


def test_a_piece_is_where_its_bytes_are(tmp_path: Path, dense: Tensors) -> None:
    catalog = open_folder(write_folder(tmp_path / "m", dense, shards=2))
    for name, tensor in catalog.tensors.items():
        piece = tensor.pieces["weight"]
        raw = piece.file.read_bytes()[piece.begin : piece.end]
        assert raw == dense[name].view(torch.uint8).numpy().tobytes()


@SPARSE
def test_the_released_layout_opens_with_1221_tensors_and_39006214656_bytes(tmp_path: Path) -> None:
    specs = expected_tensors(REAL)
    names, weight_map = list(specs), {}
    for i in range(8):
        file = f"model-{i + 1:05d}-of-00008.safetensors"
        mine = names[i * 153 : (i + 1) * 153]
        write_sparse(
            tmp_path / file,
            {n: ("BF16", specs[n].shape, 2 * specs[n].numel) for n in mine},
            {},
        )
        weight_map.update(dict.fromkeys(mine, file))
    write_index(tmp_path, weight_map)
    catalog = Catalog.open(tmp_path, REAL)
    assert len(catalog.tensors) == 1221
    assert catalog.nbytes == 39_006_214_656
    assert catalog.bytes_by_part()[Part.LANGUAGE_EXPERT] == 2 * 6_979_321_856


def test_the_fingerprint_follows_the_content_and_not_the_place(
    tmp_path: Path, dense: Tensors
) -> None:
    one = open_folder(write_folder(tmp_path / "one", dense))
    two = open_folder(write_folder(tmp_path / "two", dense))
    assert one.fingerprint() == two.fingerprint()
    split = open_folder(write_folder(tmp_path / "split", dense, shards=2))
    half = {name: tensor.to(torch.float16) for name, tensor in dense.items()}
    other_type = open_folder(write_folder(tmp_path / "half", half))
    config = dataclasses.replace(CONFIG, pad_token_id=3)
    other_config = dataclasses.replace(one, config=config)
    prints = {c.fingerprint() for c in (one, split, other_type, other_config)}
    assert len(prints) == 4


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("group", [64, 128])
def test_a_folder_in_the_layout_of_transformers_is_read(
    tmp_path: Path, dense: Tensors, double_quant: bool, quant_type: str, group: int
) -> None:
    tensors = four_bit(dense, double_quant=double_quant, quant_type=quant_type, group=group)
    catalog = open_folder(write_folder(tmp_path / "m", tensors))
    for name, stored in catalog.tensors.items():
        assert stored.kind == (quant_type if name in LINEARS else "dense")
        if stored.quant is None:
            continue
        assert (stored.quant.group, stored.quant.nested) == (group, double_quant)
        assert (stored.quant.quant_type, stored.quant.dtype) == (quant_type, "bfloat16")
        assert ("nested_absmax" in stored.pieces) == double_quant
    assert catalog.nbytes == sum(tensor.nbytes for tensor in tensors.values())


def test_codes_may_be_called_bfloat16_by_their_writer(tmp_path: Path, nf4: Tensors) -> None:
    tensors = {**nf4, HEAD: nf4[HEAD].view(-1).view(torch.bfloat16).view(-1, 1)}
    catalog = open_folder(write_folder(tmp_path / "m", tensors))
    assert catalog.tensors[HEAD].kind == "nf4"
    assert catalog.nbytes == sum(tensor.nbytes for tensor in tensors.values())


def test_int8_counts_only_beside_our_manifest(tmp_path: Path, dense: Tensors) -> None:
    rows, columns = SPECS[HEAD].shape
    scales = torch.ones(rows, columns // 64)
    tensors = {**dense, HEAD: dense[HEAD].to(torch.int8), f"{HEAD}.scale": scales}
    folder = write_folder(tmp_path / "m", tensors)
    with pytest.raises(CheckpointError, match=f"int8 tensors \\(1: {HEAD}\\)"):
        open_folder(folder)
    (folder / MANIFEST_NAME).write_text("{}")
    assert open_folder(folder).tensors[HEAD].kind == "int8"


# --- one header -----------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}


def header_error(tmp_path: Path, raw: bytes) -> str:
    file = tmp_path / "a.safetensors"
    file.write_bytes(raw)
    with pytest.raises(CheckpointError) as caught:
        read_shard(file)
    assert "a.safetensors" in caught.value.message
    return caught.value.message


def test_a_good_header_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    two = entry(dtype="U8", shape=[4], data_offsets=[24, 28])
    header = header_of({"__metadata__": {"format": "pt"}, "two": two, "one": entry()})
    file.write_bytes(header + bytes(28))
    shard = read_shard(file)
    assert list(shard.pieces) == ["one", "two"]
    assert shard.pieces["two"].begin == len(header) + 24
    assert shard.pieces["two"].nbytes == 4
    assert shard.size == len(header) + 28


@pytest.mark.parametrize(
    ("entries", "data", "says"),
    [
        ({"a": entry(dtype="F64")}, 24, "'F64'; the known ones are F32"),
        ({"a": entry(dtype=["F32"])}, 24, "known ones are"),
        ({"a": entry(shape=[2, -3])}, 24, "invalid shape"),
        ({"a": entry(shape=[2, 3.0])}, 24, "invalid shape"),
        ({"a": entry(shape=[2, True])}, 24, "invalid shape"),
        ({"a": entry(shape=[2**63])}, 24, "invalid shape"),
        ({"a": entry(shape=[1] * 9)}, 24, "invalid shape"),
        ({"a": entry(shape="23")}, 24, "invalid shape"),
        ({"a": entry(shape=[2**62, 2**62])}, 24, "has 24 bytes, but F32"),
        ({"a": entry(shape=[2, 2])}, 24, "has 24 bytes, but F32 of shape (2, 2) needs 16"),
        ({"a": entry(data_offsets=[0])}, 24, "invalid data_offsets"),
        ({"a": entry(data_offsets=[-24, 0])}, 24, "invalid data_offsets"),
        ({"a": entry(data_offsets=[24, 0])}, 24, "invalid data_offsets"),
        ({"a": entry(data_offsets=[0, 24.0])}, 24, "invalid data_offsets"),
        ({"a": entry(data_offsets=[0, 2**64])}, 24, "invalid data_offsets"),
        ({"a": entry()}, 23, "bytes that its header lists (1 B are missing)"),
        ({"a": entry()}, 25, "end at byte"),
        ({"a": entry(data_offsets=[8, 32])}, 32, "a gap of 8 bytes before a"),
        ({"a": entry(), "b": entry(data_offsets=[20, 44])}, 44, "an overlap of 4 bytes before b"),
        ({"a": entry(), "b": entry()}, 24, "an overlap of 24 bytes"),
        ({"a": entry(extra=1)}, 24, "exactly dtype, shape and data_offsets"),
        ({"a": {"dtype": "F32"}}, 24, "exactly dtype, shape and data_offsets"),
        ({"a": 7}, 24, "exactly dtype, shape and data_offsets"),
        ({"a": entry(), "__metadata__": {"n": 1}}, 24, "must map names to strings"),
        ({"a": entry(), "__metadata__": "pt"}, 24, "must map names to strings"),
        ({"a\x1b[2J": entry(dtype="F8")}, 24, r"'a\x1b[2J' has the unknown type"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_refused(
    tmp_path: Path, entries: dict[str, Any], data: int, says: str
) -> None:
    assert says in header_error(tmp_path, header_of(entries) + bytes(data))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "has only 0 bytes"),
        (b"1234567", "has only 7 bytes"),
        ((100).to_bytes(8, "little") + b"{}", "claims to be 100 bytes long, but only 2 follow"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), "is allowed"),
        ((2**64 - 1).to_bytes(8, "little"), "is allowed"),
        ((2).to_bytes(8, "little") + b"\xff\xfe", "not valid UTF-8"),
        ((2).to_bytes(8, "little") + b"{]", "not valid JSON"),
        ((2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        ((9).to_bytes(8, "little") + b'{"a":NaN}', "NaN is not a JSON number"),
        ((13).to_bytes(8, "little") + b'{"a":1,"a":2}', "the key a is given twice"),
        ((40000).to_bytes(8, "little") + b"[" * 40000, "nested too deeply"),
    ],
)
def test_a_header_that_is_no_header_is_refused(tmp_path: Path, raw: bytes, says: str) -> None:
    assert says in header_error(tmp_path, raw)


def test_a_key_given_twice_inside_an_entry_is_refused(tmp_path: Path) -> None:
    raw = b'{"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}'
    message = header_error(tmp_path, len(raw).to_bytes(8, "little") + raw + bytes(8))
    assert "the key dtype is given twice" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_shard(tmp_path / "a.safetensors")


HEADER = header_of({"a": entry(), "b": entry(dtype="BF16", shape=[4], data_offsets=[24, 32])})


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_never_ends_in_anything_but_a_checkpoint_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    raw = bytearray(HEADER + bytes(32))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert", "delete"])):
            case "set":
                raw[place] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[max(place, 1) :]
            case "insert":
                raw[place:place] = data.draw(st.binary(min_size=1, max_size=9))
            case _:
                del raw[place : place + 1]
                raw = raw or bytearray(1)
    file = tmp_path / "a.safetensors"
    file.write_bytes(raw)
    try:
        shard = read_shard(file)
    except CheckpointError:
        return
    pieces = shard.pieces.values()
    assert sum(piece.nbytes for piece in pieces) == len(raw) - 8 - int.from_bytes(raw[:8], "little")
    assert all(0 < piece.begin <= piece.end <= len(raw) for piece in pieces)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(field=st.sampled_from(["dtype", "shape", "data_offsets", "", "extra"]), value=_json)
def test_any_json_in_a_field_gives_a_checkpoint_error_or_the_same_sizes(
    tmp_path: Path, field: str, value: object
) -> None:
    changed = value if field == "" else entry(**{field: value})
    file = tmp_path / "a.safetensors"
    file.write_bytes(header_of({"a": changed}) + bytes(24))
    try:
        shard = read_shard(file)
    except CheckpointError:
        return
    assert shard.pieces["a"].nbytes == 24


# --- the folder -----------------------------------------------------------------------------------


def folder_error(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder)
    assert caught.value.hint or "not a folder" in caught.value.message
    return caught.value


def test_missing_tensors_are_named_and_counted(tmp_path: Path, dense: Tensors) -> None:
    kept = {name: tensor for name, tensor in dense.items() if "layers.1.mlp" not in name}
    message = folder_error(write_folder(tmp_path / "m", kept)).message
    assert "lacks tensors: 10 of 69 (model.vision.transformer.layers.1.mlp.fc1.weight, " in message
    assert "and 7 more)" in message


def test_extra_tensors_are_named_and_counted(tmp_path: Path, dense: Tensors) -> None:
    extra = {f"model.layers.9.x{i}": torch.zeros(1) for i in range(5)}
    message = folder_error(write_folder(tmp_path / "m", {**dense, **extra})).message
    assert (
        "not have: 5 (model.layers.9.x0, model.layers.9.x1, model.layers.9.x2 and 2 more)"
        in message
    )


def test_a_tensor_in_two_shards_is_named(tmp_path: Path, dense: Tensors) -> None:
    folder = write_folder(tmp_path / "m", dense, shards=2)
    from safetensors.torch import load_file, save_file

    first, second = sorted(folder.glob("*.safetensors"))
    name = next(iter(load_file(first)))
    save_file({**load_file(second), name: dense[name]}, second)
    message = folder_error(folder).message
    assert f"{second.name} has tensors that are in {first.name} too: 1 ({name})" in message


@pytest.mark.parametrize("name", [HEAD, NORM, "model.vision.boi"])
def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path, dense: Tensors, name: str) -> None:
    wrong = {**dense, name: dense[name].reshape(-1, 2).contiguous()}
    message = folder_error(write_folder(tmp_path / "m", wrong)).message
    assert f"{name} has the shape [{dense[name].numel() // 2}, 2]" in message
    assert f"requires {list(dense[name].shape)}" in message


def test_a_dense_tensor_of_bytes_is_refused(tmp_path: Path, dense: Tensors) -> None:
    wrong = {**dense, NORM: dense[NORM].to(torch.uint8)}
    message = folder_error(write_folder(tmp_path / "m", wrong)).message
    assert f"{NORM} is stored as U8; expected BF16, F16, F32" in message


def test_an_index_that_promises_too_much_is_refused(tmp_path: Path, dense: Tensors) -> None:
    folder = write_folder(tmp_path / "m", dense, shards=2)
    weight_map = json.loads((folder / INDEX_NAME).read_text())["weight_map"]
    first, second = sorted(set(weight_map.values()))
    write_index(folder, {**weight_map, "model.ghost": first})
    assert "(model.ghost), but no file has model.ghost" in folder_error(folder).message
    moved = {name: second if name == HEAD else file for name, file in weight_map.items()}
    moved[NORM] = first if weight_map[NORM] == second else second
    write_index(folder, moved)
    assert NORM in folder_error(folder).message
    write_index(folder, {n: f for n, f in weight_map.items() if n != NORM})
    assert (
        f"has tensors that {INDEX_NAME} does not list: 1 ({NORM})" in folder_error(folder).message
    )


def test_a_missing_shard_is_named(tmp_path: Path, dense: Tensors) -> None:
    folder = write_folder(tmp_path / "m", dense, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    message = folder_error(folder).message
    assert "lacks files: 1 of 3 (model-00002-of-00003.safetensors)" in message


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors",
        "..\\model.safetensors", "C:model.safetensors", ".hidden.safetensors", "model.bin",
        "", "a\nb.safetensors", "x" * 300 + ".safetensors", 7, None, ["a.safetensors"],
    ],
)  # fmt: skip
def test_an_index_can_only_name_files_of_its_folder(
    tmp_path: Path, dense: Tensors, name: object
) -> None:
    folder = write_folder(tmp_path / "m", dense, shards=2)
    write_folder(tmp_path, dense)
    write_index(folder, dict.fromkeys(SPECS, name))
    assert "only plain .safetensors file names" in folder_error(folder).message


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_damaged_index_is_refused(tmp_path: Path, dense: Tensors, content: str) -> None:
    folder = write_folder(tmp_path / "m", dense, shards=2)
    (folder / INDEX_NAME).write_text(content)
    assert INDEX_NAME in folder_error(folder).message


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, dense: Tensors) -> None:
    folder = write_folder(tmp_path / "m", dense)
    (folder / SINGLE_NAME).rename(tmp_path / "outside.safetensors")
    (folder / SINGLE_NAME).symlink_to(tmp_path / "outside.safetensors")
    assert "outside of the folder" in folder_error(folder).message


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_the_links_of_a_hugging_face_cache_are_followed(tmp_path: Path, dense: Tensors) -> None:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "blobs").mkdir()
    folder = write_folder(tmp_path / "snapshots" / "abc", dense)
    (folder / SINGLE_NAME).rename(tmp_path / "blobs" / "123")
    (folder / SINGLE_NAME).symlink_to("../../blobs/123")
    assert len(open_folder(folder).tensors) == len(SPECS)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
def test_pickled_weights_are_never_opened(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"pytorch_model{suffix}").write_bytes(b"not even a pickle")
    error = folder_error(tmp_path)
    assert f"only as pickle files (pytorch_model{suffix})" in error.message
    assert "never opens pickle" in error.hint


def test_shards_without_their_index_are_refused(tmp_path: Path, dense: Tensors) -> None:
    folder = write_folder(tmp_path / "m", dense, shards=2)
    (folder / INDEX_NAME).unlink()
    assert f"no {INDEX_NAME}" in folder_error(folder).message


def test_two_models_in_one_folder_are_refused(tmp_path: Path, dense: Tensors) -> None:
    folder = write_folder(tmp_path / "m", dense, shards=2)
    write_folder(folder, dense)
    assert "unclear which weights count" in folder_error(folder).message


def test_an_empty_folder_and_no_folder_are_refused(tmp_path: Path) -> None:
    assert "no safetensors weights" in folder_error(tmp_path).message
    assert "not a folder" in folder_error(tmp_path / "absent").message


# --- 4-bit pieces ---------------------------------------------------------------------------------

STATE = f"{HEAD}.quant_state.bitsandbytes__nf4"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (f"{HEAD}.absmax", None, f"{HEAD} must come with absmax, nested_absmax"),
        (f"{HEAD}.quant_map", None, f"{HEAD} must come with absmax, nested_absmax"),
        (f"{HEAD}.nested_absmax", None, "nested_offset and nested_absmax belong together"),
        (f"{HEAD}.nested_quant_map", None, f"{HEAD} must come with absmax, nested_absmax"),
        (
            STATE,
            None,
            f"{HEAD} comes with absmax, nested_absmax, nested_quant_map, quant_map, but",
        ),
        (f"{HEAD}.scale", torch.ones(1), f"{HEAD} must come with absmax"),
        (f"{HEAD}.absmax", torch.ones(1024), "absmax is stored as F32; expected U8"),
        (f"{HEAD}.absmax", torch.ones(9, dtype=torch.uint8), "absmax has the shape [9]"),
        (f"{HEAD}.quant_map", torch.ones(15), "quant_map has the shape [15]"),
        (f"{HEAD}.nested_absmax", torch.ones(5), "nested_absmax has the shape [5]"),
        (f"{HEAD}.nested_quant_map", torch.ones(255), "nested_quant_map has the shape"),
        (HEAD, torch.zeros(100, 1, dtype=torch.uint8), f"{HEAD} has 100 bytes of U8"),
        (HEAD, torch.zeros(32768, 1, dtype=torch.int8), "bytes of I8; 4-bit codes"),
        (STATE, torch.zeros(9000, dtype=torch.uint8), "is 9000 bytes of U8"),
        (STATE, torch.zeros(9), "is 36 bytes of F32"),
        (f"{NORM}.absmax", torch.ones(2), f"does not have: 1 ({NORM}.absmax)"),
        ("model.embed_tokens.weight.absmax", torch.ones(2), "does not have: 1 (model.embed_tokens"),
    ],
)
def test_pieces_that_do_not_make_a_4_bit_matrix_are_refused(
    tmp_path: Path, nf4: Tensors, name: str, value: torch.Tensor | None, says: str
) -> None:
    tensors = {key: tensor for key, tensor in nf4.items() if key != name}
    if value is not None:
        tensors[name] = value
    assert says in folder_error(write_folder(tmp_path / "m", tensors)).message


def test_absmax_repacked_by_another_program_is_refused(tmp_path: Path, dense: Tensors) -> None:
    """bitsandbytes saves transposed bfloat16 scales after a forward on some CPUs."""
    tensors = four_bit(dense, double_quant=False)
    rows, columns = SPECS[HEAD].shape
    tensors[f"{HEAD}.absmax"] = torch.ones(columns // 64, rows, dtype=torch.bfloat16)
    message = folder_error(write_folder(tmp_path / "m", tensors)).message
    assert f"{HEAD}.absmax is stored as BF16; expected F32" in message


def with_state(nf4: Tensors, **changes: Any) -> Tensors:
    state = json.loads(bytes(nf4[STATE].tolist()))
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value
    raw = json.dumps(state).encode()
    return {**nf4, STATE: torch.tensor(list(raw), dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quant_type": "fp4"}, "quant_type must be nf4"),
        ({"blocksize": 48}, "blocksize must be one of"),
        ({"blocksize": 64.0}, "blocksize must be one of"),
        ({"blocksize": None}, "blocksize must be one of"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"dtype": []}, "dtype must be"),
        ({"shape": [1, 2]}, "shape must be [512, 128]"),
        ({"shape": None}, "shape must be [512, 128]"),
        ({"nested_blocksize": 128}, "nested_blocksize must be 256"),
        ({"nested_dtype": "bfloat16"}, "nested_dtype must be float32"),
        ({"nested_offset": "1"}, "nested_offset must be a finite number"),
        ({"nested_offset": None}, "nested_offset and nested_absmax belong together"),
        ({"nested_offset": 10**400}, "nested_offset must be a finite number"),
        ({"nested_offset": float("inf")}, "Infinity is not a JSON number"),
        ({"order": "transposed"}, "it has unknown keys"),
        ({"blocksize": 128}, "absmax has the shape"),
    ],
)
def test_a_quant_state_that_breaks_a_rule_is_refused(
    tmp_path: Path, nf4: Tensors, changes: dict[str, Any], says: str
) -> None:
    message = folder_error(write_folder(tmp_path / "m", with_state(nf4, **changes))).message
    assert f"{HEAD}." in message
    assert says in message


def test_a_whole_number_as_offset_is_taken(tmp_path: Path, nf4: Tensors) -> None:
    folder = write_folder(tmp_path / "m", with_state(nf4, nested_offset=2))
    quant = open_folder(folder).tensors[HEAD].quant
    assert quant is not None
    assert quant.nested_offset == 2.0


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.sampled_from(
        ["quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "x"]
    ),
    value=_json,
)
def test_any_json_in_a_quant_state_gives_a_checkpoint_error_or_the_same_matrix(
    tmp_path: Path, nf4: Tensors, key: str, value: object
) -> None:
    folder = write_folder(
        tmp_path / "m", with_state(nf4, **{key: [value] if value is None else value})
    )
    try:
        quant = open_folder(folder).tensors[HEAD].quant
    except CheckpointError:
        return
    assert quant is not None
    assert (quant.group, quant.quant_type) == (64, "nf4")


@SPARSE
def test_the_4_bit_real_layout_opens(tmp_path: Path) -> None:
    shapes: dict[str, tuple[str, tuple[int, ...], int]] = {}
    states: dict[str, bytes] = {}
    for name, spec in expected_tensors(REAL).items():
        if spec.role is not Role.LINEAR:
            shapes[name] = ("BF16", spec.shape, 2 * spec.numel)
            continue
        groups = spec.numel // 64
        shapes[name] = ("U8", (spec.numel // 2, 1), spec.numel // 2)
        shapes[f"{name}.absmax"] = ("U8", (groups,), groups)
        shapes[f"{name}.quant_map"] = ("F32", (16,), 64)
        shapes[f"{name}.nested_absmax"] = ("F32", (groups // 256,), groups // 64)
        shapes[f"{name}.nested_quant_map"] = ("F32", (256,), 1024)
        state = json.dumps(
            {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": spec.shape}
            | {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05}
        ).encode()
        states[f"{name}.quant_state.bitsandbytes__nf4"] = state
        shapes[f"{name}.quant_state.bitsandbytes__nf4"] = ("U8", (len(state),), len(state))
    write_sparse(tmp_path / SINGLE_NAME, shapes, states)
    catalog = Catalog.open(tmp_path, REAL)
    kinds = [tensor.kind for tensor in catalog.tensors.values()]
    assert len(kinds) == 1221
    assert kinds.count("nf4") == 577 == len(states)
    assert sum(len(tensor.pieces) for tensor in catalog.tensors.values()) == 1221 + 5 * 577
