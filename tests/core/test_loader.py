"""The loader: weights of any folder land in the slots, views where they can be views."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import CheckpointError, UsageError
from cogvlm2_lite.folders.explain import SINGLE_NAME
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.footprint import held_bytes
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.manifest import MANIFEST_NAME
from cogvlm2_lite.weights.reader import Reader
from cogvlm2_lite.weights.slots import Linear, Vector, WeightSlot
from cogvlm2_lite.weights.storage.dense import DenseWeight
from cogvlm2_lite.weights.storage.quantized import QuantizedWeight
from tests.helpers.checkpoints import (
    CHECKPOINT,
    LINEARS,
    SPECS,
    Tensors,
    four_bit,
    golden_tensors,
    header_of,
    open_folder,
    write_folder,
)
from tests.helpers.matrices import rounds_inputs

CPU = torch.device("cpu")
PLAIN = choose_kernels(CPU, torch.bfloat16, "torch")
HEAD = "lm_head.weight"
INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"


def slot_for(name: str) -> WeightSlot:
    spec = SPECS[name]
    if spec.role is Role.LINEAR:
        return Linear(name, spec.shape[1], spec.shape[0])
    return Vector(name, spec.shape)


@pytest.mark.skipif(sys.platform != "linux", reason="reading ahead is done on Linux only")
def test_weights_that_are_read_ahead_are_in_memory_before_their_first_use(tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint_folder(), tmp_path / "model")
    catalog = Catalog.open(folder, read_config(folder))
    reader, largest = Reader(catalog), max(catalog.tensors.values(), key=lambda t: t.nbytes)
    weight = reader.read(largest)["weight"]
    file = str(largest.pieces["weight"].file)

    def present_kb() -> int:
        mapped, found = False, 0
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if re.match("[0-9a-f]+-", line):
                mapped = file in line
            found += int(line.split()[1]) if mapped and line.startswith("Rss:") else 0
        return found

    assert present_kb() < weight.nbytes // 1024
    reader.read_ahead([largest])
    for thread in threading.enumerate():
        if thread.name == "read ahead":
            thread.join()
    assert present_kb() >= weight.nbytes // 1024


def fill_all(loader: WeightLoader) -> dict[str, WeightSlot]:
    slots = {name: slot_for(name) for name in SPECS}
    for slot in slots.values():
        loader.fill(slot)
    return slots


def matrix(slot: WeightSlot) -> DenseWeight:
    assert isinstance(slot, Linear)
    assert isinstance(slot.stored, DenseWeight)
    return slot.stored


def vector(slot: WeightSlot) -> Tensor:
    assert isinstance(slot, Vector)
    return slot.tensor


@pytest.fixture(scope="module")
def dense() -> Tensors:
    return golden_tensors()


def test_every_tensor_of_the_golden_checkpoint_is_loaded_exactly() -> None:
    slots = fill_all(WeightLoader(open_folder(CHECKPOINT), device=CPU, dtype=torch.float32))
    expected: Tensors = {}
    for file in CHECKPOINT.glob("*.safetensors"):
        expected.update(load_file(file))
    for name, slot in slots.items():
        value = matrix(slot).weight if name in LINEARS else vector(slot)
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_cast_to_the_compute_dtype(
    tmp_path: Path, dense: Tensors, dtype: torch.dtype
) -> None:
    catalog = open_folder(write_folder(tmp_path / "m", dense))
    loader = WeightLoader(catalog, device=CPU, dtype=dtype)
    for name, slot in fill_all(loader).items():
        value = matrix(slot).weight if name in LINEARS else vector(slot)
        keeps = name.endswith("inv_freq") or name == "model.embed_tokens.weight"
        assert value.dtype == (torch.bfloat16 if keeps else dtype)
        assert torch.equal(value, dense[name].to(value.dtype))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_inv_freq_keeps_the_type_it_is_stored_in(
    tmp_path: Path, dense: Tensors, stored: torch.dtype
) -> None:
    tensors = {**dense, INV_FREQ: dense[INV_FREQ].to(stored)}
    catalog = open_folder(write_folder(tmp_path / "m", tensors))
    slot = slot_for(INV_FREQ)
    WeightLoader(catalog, device=CPU, dtype=torch.bfloat16).fill(slot)
    assert vector(slot).dtype == stored


def test_a_matrix_in_the_compute_dtype_is_a_view_of_its_file(
    tmp_path: Path, dense: Tensors
) -> None:
    catalog = open_folder(write_folder(tmp_path / "m", dense))
    loader = WeightLoader(catalog, device=CPU, dtype=torch.bfloat16)
    one, two = slot_for(HEAD), slot_for(HEAD)
    assert loader.fill(one) == loader.fill(two) == dense[HEAD].nbytes
    assert matrix(one).weight.data_ptr() == matrix(two).weight.data_ptr()
    wide = WeightLoader(catalog, device=CPU, dtype=torch.float32)
    assert wide.fill(one) == 2 * dense[HEAD].nbytes
    assert matrix(one).weight.data_ptr() != matrix(two).weight.data_ptr()


def test_a_view_outlives_loader_and_file(tmp_path: Path, dense: Tensors) -> None:
    folder = write_folder(tmp_path / "m", dense)
    loader = WeightLoader(open_folder(folder), device=CPU, dtype=torch.bfloat16)
    slot = slot_for(HEAD)
    loader.fill(slot)
    del loader
    if os.name != "nt":
        (folder / SINGLE_NAME).unlink()
    assert torch.equal(matrix(slot).weight, dense[HEAD])


def test_clear_takes_weights_out(dense: Tensors, tmp_path: Path) -> None:
    catalog = open_folder(write_folder(tmp_path / "m", dense))
    loader = WeightLoader(catalog, device=CPU, dtype=torch.bfloat16)
    for name in (HEAD, INV_FREQ):
        slot = slot_for(name)
        assert loader.fill(slot) > 0
        loader.clear([slot])
        with pytest.raises(AssertionError, match="is not in memory"):
            slot(torch.zeros(1)) if isinstance(slot, Linear) else slot.tensor


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("kernels", [PLAIN, None])
def test_a_4_bit_folder_gives_the_matrices_bitsandbytes_dequantizes(
    tmp_path: Path,
    dense: Tensors,
    quant_type: str,
    double_quant: bool,
    kernels: KernelChoice | None,
) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    tensors = four_bit(dense, double_quant=double_quant, quant_type=quant_type)
    catalog = open_folder(write_folder(tmp_path / "m", tensors))
    loader = WeightLoader(catalog, device=CPU, dtype=torch.bfloat16, kernels=kernels)
    for name, slot in fill_all(loader).items():
        if name not in LINEARS:
            continue
        assert isinstance(slot, Linear)
        assert slot.stored is not None
        assert slot.stored.kind == quant_type
        codes, state = quantize_4bit(
            dense[name], compress_statistics=double_quant, quant_type=quant_type
        )
        if SPECS[name].shape[1] % 64 == 0:  # else bitsandbytes' CPU code restarts groups per row
            theirs = dequantize_4bit(codes, state)
            assert torch.equal(slot.stored.dequantize(torch.bfloat16), theirs)


def test_only_matrices_used_in_decoding_get_a_packed_copy(tmp_path: Path, dense: Tensors) -> None:
    try:
        kernels = choose_kernels(CPU, torch.bfloat16, "packed")
    except UsageError as error:
        pytest.skip(error.message)
    catalog = open_folder(write_folder(tmp_path / "m", four_bit(dense)))
    loader = WeightLoader(catalog, device=CPU, dtype=torch.bfloat16, kernels=kernels)
    assert loader.packs
    for name, slot in fill_all(loader).items():
        if name not in LINEARS:
            continue
        assert isinstance(slot, Linear)
        weight = slot.stored
        assert isinstance(weight, QuantizedWeight)
        assert (weight.packed is not None) == (SPECS[name].decodes)
        extra = SPECS[name].numel // 2 + SPECS[name].numel // 32 if weight.packed is not None else 0
        state = catalog.tensors[name].pieces["quant_state"].nbytes
        assert weight.nbytes == catalog.tensors[name].nbytes - state + extra


def test_plain_kernels_hold_no_packed_copy(tmp_path: Path, dense: Tensors) -> None:
    catalog = open_folder(write_folder(tmp_path / "m", four_bit(dense, only=(HEAD,))))
    loader = WeightLoader(catalog, device=CPU, dtype=torch.bfloat16, kernels=PLAIN)
    assert not loader.packs
    slot = slot_for(HEAD)
    stored = catalog.tensors[HEAD]
    assert loader.fill(slot) == stored.nbytes - stored.pieces["quant_state"].nbytes


def test_an_int8_matrix_is_loaded(tmp_path: Path, dense: Tensors) -> None:
    rows, columns = SPECS[HEAD].shape
    codes = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    scales = torch.rand(rows, columns // 64)
    folder = write_folder(tmp_path / "m", {**dense, HEAD: codes, f"{HEAD}.scale": scales})
    (folder / MANIFEST_NAME).write_text("{}")
    slot = slot_for(HEAD)
    loader = WeightLoader(open_folder(folder), device=CPU, dtype=torch.float32)
    assert loader.fill(slot) == codes.nbytes + scales.nbytes
    assert isinstance(slot, Linear)
    expected = codes.float() * scales.repeat_interleave(64, dim=1)
    eye = torch.eye(columns)
    assert torch.allclose(slot(eye), expected.t())


def test_a_quant_map_of_other_values_is_refused(tmp_path: Path, dense: Tensors) -> None:
    tensors = four_bit(dense, only=(HEAD,))
    tensors[f"{HEAD}.quant_map"] = torch.linspace(-1, 1, 16)
    catalog = open_folder(write_folder(tmp_path / "m", tensors))
    loader = WeightLoader(catalog, device=CPU, dtype=torch.float32)
    with pytest.raises(CheckpointError, match=f"{HEAD}.quant_map has other values than NF4"):
        loader.fill(slot_for(HEAD))


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fill_gives_the_bytes_that_the_plan_counts_with(
    tmp_path: Path, quantized: bool, stored: torch.dtype, dtype: torch.dtype
) -> None:
    tensors = golden_tensors(stored)
    folder = write_folder(tmp_path / "m", four_bit(tensors) if quantized else tensors)
    catalog = open_folder(folder)
    loader = WeightLoader(catalog, device=CPU, dtype=dtype)
    for name, tensor in catalog.tensors.items():
        filled = loader.fill(slot_for(name))
        assert filled == held_bytes(tensor, itemsize=dtype.itemsize, packs=loader.packs)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.4)])
def test_a_4_bit_model_computes_what_its_plain_weights_compute(
    tmp_path: Path, dense: Tensors, dtype: str, tolerance: float
) -> None:
    """Logits have a standard deviation of 2.2; bfloat16 alone moves them by up to 0.34."""
    quantized = write_folder(tmp_path / "nf4", four_bit(dense))
    loader = WeightLoader(open_folder(quantized), device=CPU, dtype=torch.float32, kernels=PLAIN)
    plain = {name: tensor.float() for name, tensor in dense.items()}
    for name in LINEARS:
        slot = slot_for(name)
        loader.fill(slot)
        assert isinstance(slot, Linear)
        assert slot.stored is not None
        plain[name] = slot.stored.dequantize(torch.float32)
    prompt = torch.arange(1, 20).unsqueeze(0)
    one, two = (
        cogvlm2_lite.load(folder, device="cpu", dtype=dtype).forward(prompt)
        for folder in (quantized, write_folder(tmp_path / "plain", plain))
    )
    if dtype == "float32" and rounds_inputs():
        tolerance = 0.05
    assert (one - two).abs().max() < tolerance


# --- the files ------------------------------------------------------------------------------------


def opened(tmp_path: Path, dense: Tensors) -> tuple[Catalog, Path]:
    folder = write_folder(tmp_path / "m", dense)
    return open_folder(folder), folder / SINGLE_NAME


def test_a_file_cut_off_after_it_was_opened_is_named(tmp_path: Path, dense: Tensors) -> None:
    catalog, file = opened(tmp_path, dense)
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size - 1)
    with pytest.raises(CheckpointError, match=f"changed .* had {size} bytes, now {size - 1}"):
        Reader(catalog).read(catalog.tensors[HEAD])


def test_a_file_cut_off_with_its_old_date_is_named(tmp_path: Path, dense: Tensors) -> None:
    catalog, file = opened(tmp_path, dense)
    status = file.stat()
    with file.open("r+b") as stream:
        stream.truncate(status.st_size - 1)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CheckpointError, match="was changed"):
        Reader(catalog).read(catalog.tensors[HEAD])


@pytest.mark.skipif(os.name == "nt", reason="a mapped file can't be cut off there")
def test_a_file_cut_off_while_in_use_is_named(tmp_path: Path, dense: Tensors) -> None:
    catalog, file = opened(tmp_path, dense)
    reader = Reader(catalog)
    reader.read(catalog.tensors[HEAD])
    with file.open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(CheckpointError, match="was changed while the model was in use"):
        reader.read(catalog.tensors[HEAD])


def test_a_file_written_to_after_it_was_opened_is_named(tmp_path: Path, dense: Tensors) -> None:
    catalog, file = opened(tmp_path, dense)
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    with pytest.raises(CheckpointError, match="was changed"):
        Reader(catalog).read(catalog.tensors[HEAD])


def test_a_file_that_vanished_is_named(tmp_path: Path, dense: Tensors) -> None:
    catalog, file = opened(tmp_path, dense)
    file.unlink()
    with pytest.raises(CheckpointError, match="can't be read: No such file"):
        Reader(catalog).read(catalog.tensors[HEAD])


def test_a_piece_at_an_odd_place_is_read(tmp_path: Path, dense: Tensors) -> None:
    """Other writers need not align: one byte before the numbers makes every address odd."""
    entries, data = {}, b""
    for name, tensor in dense.items():
        raw = tensor.view(torch.uint8).numpy().tobytes()
        entries[name] = {
            "dtype": "BF16", "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }  # fmt: skip
        data += raw
    header = header_of(entries)
    header = (len(header) - 7).to_bytes(8, "little") + header[8:] + b" "
    if len(header) % 2 == 0:
        header = (len(header) - 7).to_bytes(8, "little") + header[8:] + b" "
    folder = write_folder(tmp_path / "m", dense)
    (folder / SINGLE_NAME).write_bytes(header + data)
    catalog = open_folder(folder)
    assert catalog.tensors[HEAD].pieces["weight"].begin % 2 == 1
    reader = Reader(catalog)
    for name, stored in catalog.tensors.items():
        value = reader.read(stored)["weight"]
        assert value.data_ptr() % 2 == 0
        assert torch.equal(value, dense[name])
