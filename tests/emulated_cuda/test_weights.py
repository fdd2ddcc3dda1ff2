"""Weights on an emulated GPU: how they get there, and how they are multiplied."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.bench.synthetic import released_config, synthetic_catalog
from cogvlm2_lite.memory.work import KERNEL_SCRATCH_BYTES
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.kernels import choice, cuda_self_test, scales
from cogvlm2_lite.weights.kernels.bitsandbytes_cuda import CudaKernel
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.kernels.dequantize import ChunkBytes, QuantizedKernels, gpu_chunks
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.manifest import MANIFEST_NAME
from cogvlm2_lite.weights.slots import Linear
from cogvlm2_lite.weights.storage.int8 import place_int8
from cogvlm2_lite.weights.storage.nf4 import FourBitWeight, place_four_bit
from tests.emulated_cuda import shapes
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Machine, Order
from tests.emulated_cuda.model_19b import ZeroReader
from tests.helpers.checkpoints import (
    SPECS,
    Tensors,
    four_bit,
    golden_tensors,
    open_folder,
    write_folder,
)
from tests.helpers.matrices import make_matrix, plain_matrix, random

CUDA = torch.device("cuda:0")
BF16 = torch.bfloat16
HEAD = "lm_head.weight"
FC1 = "model.vision.transformer.layers.0.mlp.fc1.weight"
SHAPES_19B = {
    "qkv": (6144, 4096),
    "dense": (4096, 4096),
    "gate": (14336, 4096),
    "down": (4096, 14336),
    "vision qkv": (5376, 1792),
    "fc1": (15360, 1792),
    "fc2": (1792, 15360),
    "lm_head": (128256, 4096),
}


@pytest.fixture
def gpu() -> Iterator[Machine]:
    with emulated_cuda(order=Order.LATE) as machine:
        yield machine


def moved(matrix: FourBitMatrix, device: torch.device = CUDA) -> FourBitMatrix:
    names = ("codes", "absmax", "levels", "nested_absmax", "nested_map", "offset")
    pieces = {name: getattr(matrix, name) for name in names}
    there: dict[str, Any] = {n: None if p is None else p.to(device) for n, p in pieces.items()}
    return replace(matrix, **there)


def placed(matrix: FourBitMatrix, chunks: ChunkBytes | None = None) -> FourBitWeight:
    kernels = choose_kernels(CUDA, BF16)
    assert kernels.name == "cuda", kernels.reason
    if chunks is not None:
        listed = kernels.four_bit
        smaller = QuantizedKernels(
            *listed.kernels[:-1], dequantizers=listed.dequantizers, chunk_bytes=chunks
        )
        kernels = replace(kernels, four_bit=smaller)
    return place_four_bit(moved(matrix), kernels, Scratch(CUDA))


# --- upload ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return four_bit(golden_tensors())


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory, tensors: Tensors) -> Path:
    return write_folder(tmp_path_factory.mktemp("weights") / "nf4", tensors)


def opened(folder: Path) -> WeightLoader:
    return WeightLoader(open_folder(folder), device=CUDA, dtype=BF16)


def filled(loader: WeightLoader, name: str) -> Linear:
    rows, columns = SPECS[name].shape
    slot = Linear(name, columns, rows)
    loader.fill(slot)
    return slot


def test_the_upload_of_a_matrix_reads_nothing_back_and_copies_only_what_is_used(
    nf4: Path, gpu: Machine
) -> None:
    loader = opened(nf4)
    gpu.syncs.clear()
    gpu.launches.clear()
    slot = filled(loader, HEAD)
    assert set(gpu.syncs) <= {"stream.synchronize", "event.synchronize"}  # its own waits
    # Codes, scales, levels, nested scales, their map and their offset.
    assert gpu.launches["copy to device"] <= 6
    x = torch.ones(1, slot.in_features, dtype=BF16, device=CUDA)
    assert torch.isfinite(slot(x)).all()


# --- chunks ---------------------------------------------------------------------------------------


def test_chunks_on_a_gpu_are_aligned_and_within_the_plan() -> None:
    chunks = gpu_chunks(cache_bytes=0)
    heights = {}
    for name, (rows, columns) in SHAPES_19B.items():
        for count in (5, 2307, 9217):
            heights[name] = chunks.rows(count, columns=columns, itemsize=2, multiple=1)
            assert heights[name] * columns * 2 <= 24 << 20
            for start in range(0, rows, heights[name]):
                assert start * 2 % 16 == 0
    assert (heights["fc1"], heights["fc2"], heights["down"]) == (6912, 768, 768)
    # Groups that cross rows: 588 columns have whole groups after 16 rows, 100 columns too.
    for columns, multiple in ((588, 16), (100, 16), (4095, 64), (7, 512)):
        for count in (1, 9217):
            height = chunks.rows(count, columns=columns, itemsize=2, multiple=multiple)
            assert height % 128 == height % multiple == 0
            assert height * columns * 2 <= 24 << 20
    # Too wide for 128 rows: as many as fit.
    assert chunks.rows(9, columns=1 << 19, itemsize=2, multiple=1) == 24
    assert chunks.rows(9, columns=1 << 30, itemsize=2, multiple=4) == 4


@pytest.mark.parametrize("mib", [0, 3, 24, 48, 96, 1000])
def test_chunks_for_one_row_stay_in_the_cache_of_a_gpu(mib: int) -> None:
    chunks = gpu_chunks(cache_bytes=mib << 20)
    for rows, columns in SHAPES_19B.values():
        height = chunks.rows(1, columns=columns, itemsize=2, multiple=1)
        least = 128 * columns * 2
        assert height % 128 == 0
        assert height * columns * 2 <= max(2 << 20, least, min(24, mib // 3) << 20)
        most = chunks.most_rows(columns=columns, itemsize=2, multiple=1)
        assert height <= most <= rows * 24


def test_chunks_on_a_cpu_are_as_they_were() -> None:
    chunks = ChunkBytes()
    for columns, one, many in ((1792, 1170, 4681), (15360, 136, 546), (14336, 146, 585)):
        for count, height in ((1, one), (48, one), (49, many), (9217, many)):
            assert chunks.rows(count, columns=columns, itemsize=2, multiple=1) == height
    assert chunks.rows(1, columns=588, itemsize=4, multiple=16) == 1776


def test_every_product_writes_to_aligned_slices(
    gpu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the chunks are divided by: here 300 rows would fit into one."""
    offsets = []

    def watched(x: Tensor, weights: Tensor, out: Tensor) -> Tensor:
        offsets.append(out.storage_offset() * out.itemsize)
        product: Tensor = torch.matmul(x, weights)
        return out.copy_(product)

    monkeypatch.setattr(torch, "mm", watched)
    chunks = replace(gpu_chunks(0), few_rows=200 * 128 * 2, many_rows=300 * 128 * 2)
    matrix = make_matrix(1000, 128)
    weight, x = placed(matrix, chunks), random(600, 128, dtype=BF16)
    out = weight.multiply(x.to(CUDA), None)
    assert offsets == [0, 512, 1024, 1536]
    assert torch.allclose(out.cpu().float(), x.float() @ plain_matrix(matrix).t(), atol=0.02)
    assert weight.scratch.nbytes == 256 * 128 * 2 + 1000 * 128 // 64 * 4


# --- bitsandbytes' choice -------------------------------------------------------------------------


GPUS = {
    "RTX 4060": ((24, 8, 9), (256, 128, 256, 128)),
    "RTX 3060": ((28, 8, 6), (128, 128, 128, 128)),
    "RTX 4090": ((128, 8, 9), (8, 8, 128, 64)),
    "A100": ((108, 8, 0), (128, 5, 64, 5)),
    "H200": ((132, 9, 0), (16, 7, 32, 5)),
}
"""Multiprocessors and compute capability, and the most rows that are fused for four matrices."""


@pytest.mark.parametrize("name", GPUS)
def test_no_matrix_is_dequantized_as_a_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, fused = GPUS[name]
    rules, found = shapes.fused_rule(), {}
    monkeypatch.setattr(rules, "_gpu_dispatch_props", lambda index: gpu)
    unremembered = rules._gemm_4bit_use_custom_fn.__wrapped__
    monkeypatch.setattr(rules, "_gemm_4bit_use_custom_fn", unremembered)
    kernel = CudaKernel(CUDA)
    for part, (rows, columns) in SHAPES_19B.items():
        taken = [
            count
            for count in range(1, 1400)
            if kernel.takes(count, height=rows, columns=columns, group=64, dtype=BF16)
        ]
        assert taken == list(range(1, len(taken) + 1))
        assert 4 <= len(taken) <= 512
        found[part] = len(taken)
    assert (found["qkv"], found["dense"], found["gate"], found["down"]) == fused


def missing(module: SimpleNamespace) -> None:
    del module._gemm_4bit_use_custom_fn


def of_other_arguments(module: SimpleNamespace) -> None:
    module._gemm_4bit_use_custom_fn = lambda shape: True


@pytest.mark.parametrize("change", [missing, of_other_arguments])
def test_without_bitsandbytes_choice_only_few_rows_are_fused(
    change: Callable[[SimpleNamespace], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(_gemm_4bit_use_custom_fn=None)
    change(module)
    monkeypatch.setitem(sys.modules, "bitsandbytes.backends.cuda.ops", module)
    kernel = CudaKernel(CUDA)
    shape: dict[str, Any] = {"height": 4096, "columns": 4096, "group": 64, "dtype": BF16}
    assert [kernel.takes(rows, **shape) for rows in (1, 4, 5, 300)] == [True, True, False, False]
    assert not kernel.takes(1, **{**shape, "columns": 100})


@pytest.mark.parametrize("rows", [300, 1024])
def test_many_rows_need_no_more_than_a_chunk_of_the_matrix(gpu: Machine, rows: int) -> None:
    chunks = ChunkBytes(few_rows=1 << 16, many_rows=1 << 16, few=4, height=128)
    weight = placed(make_matrix(2048, 128), chunks)
    x = random(rows, 128, dtype=BF16).to(CUDA)
    before = gpu.peak[0] = gpu.held[0]
    out = weight.multiply(x, None)
    torch.cuda.synchronize()
    assert gpu.peak[0] - before <= out.nbytes + (1 << 16) + 2048 * 128 // 64 * 4


@pytest.fixture(scope="module")
def released() -> Catalog:
    return synthetic_catalog(released_config(1, 1), lm_head_nf4=True)


@pytest.mark.parametrize(
    "part", ["query_key_value", "expert_dense", "up_proj", "down_proj", "head"]
)
def test_products_of_the_19b_model_need_no_more_than_the_plan_has(
    part: str, released: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm_head in 4 bits, too: dequantized as a whole it has 1 GiB, and its scales 31 MiB."""
    monkeypatch.setattr(choice, "rows_together", lambda *_: 3)
    name = next(n for n in released.tensors if part in n and ("language" in n or part == "head"))
    stored = released.tensors[name]
    rows, columns = stored.spec.shape
    with emulated_cuda(shapes_only=True) as machine:
        loader = WeightLoader(released, device=CUDA, dtype=BF16, reader=ZeroReader(released))
        slot = Linear(name, columns, rows)
        loader.fill(slot)
        before = machine.held[0]
        for count in (1, 3, 4, 5, 100, 257, 300, 600, 1024):
            x = torch.empty(1, count, columns, dtype=BF16, device=CUDA)
            machine.peak[0] = machine.held[0]
            out = slot(x)
            used = machine.peak[0] - before - x.nbytes - out.nbytes
            assert used <= KERNEL_SCRATCH_BYTES, count
            assert loader.scratch.nbytes <= 28 << 20
            del x, out


@pytest.mark.parametrize("shape", [(512, 128), (96, 100)])
def test_the_scales_of_a_large_matrix_are_computed_in_windows(
    shape: tuple[int, int], gpu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm_head has 8 million scales."""
    monkeypatch.setattr(scales, "WINDOW_GROUPS", 512)
    matrix = make_matrix(*shape)
    chunks = ChunkBytes(few_rows=1 << 12, many_rows=1 << 12)
    for weight in (placed(matrix, chunks), placed(matrix)):
        x = random(70, shape[1], dtype=BF16)
        exact = x.float() @ plain_matrix(matrix, BF16).float().t()
        assert torch.allclose(weight.multiply(x.to(CUDA), None).cpu().float(), exact, atol=0.02)
        assert torch.equal(weight.dequantize(BF16).cpu(), plain_matrix(matrix, BF16))
        assert weight.scratch._buffers["scales"].nbytes <= 512 * 4


# --- free memory ---


def test_cublas_is_there_before_free_memory_is_read(
    gpu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = []
    ask = torch.cuda.mem_get_info

    def asked(device: Any = None) -> tuple[int, int]:
        products.append(gpu.launches["aten.mm.default"])
        return ask(device)

    monkeypatch.setattr(torch.cuda, "mem_get_info", asked)
    (found,), trouble = CudaBackend().find()
    assert products == [1]
    assert trouble == ""
    assert found.free_bytes > 0


def test_a_gpu_without_room_for_cublas_is_found_too(gpu: Machine) -> None:
    """What does not fit is said by the plan, with numbers."""
    gpu.foreign_bytes[0] = gpu.total_bytes
    (found,), trouble = CudaBackend().find()
    assert (found.free_bytes, trouble) == (0, "")


# --- the self-test --------------------------------------------------------------------------------


@pytest.fixture
def untested() -> Iterator[None]:
    cuda_self_test.rows_together.cache_clear()
    yield
    cuda_self_test.rows_together.cache_clear()


class Scripted:
    """Stands in for bitsandbytes' product; its rows do not depend on each other, as on a GPU.

    wrong_at  a number of rows for which it computes something else
    mixes_at  a number of rows at which a row depends on the others, in its last bits
    """

    def __init__(self, *, wrong_at: int = 0, mixes_at: int = 0) -> None:
        self.wrong_at, self.mixes_at = wrong_at, mixes_at
        self.calls: list[int] = []

    def __call__(
        self,
        kernel: CudaKernel,
        x: Tensor,
        matrix: FourBitMatrix,
        bias: Tensor | None,
        scratch: Scratch,
    ) -> Tensor:
        flat = x.reshape(-1, matrix.columns)
        count = flat.shape[0]
        self.calls.append(count)
        plain = plain_matrix(moved(matrix, torch.device("cpu")), x.dtype).float().to(x.device)
        out = torch.stack([torch.mv(plain, row.float()) for row in flat])
        out = out if bias is None else out + bias.float()
        out = out * 1.1 if count == self.wrong_at else out
        result = out.to(x.dtype)
        if count == self.mixes_at:
            result = torch.nextafter(result, torch.full_like(result, 9.0))
        return result.view(*x.shape[:-1], matrix.rows)

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch, **options: int) -> Scripted:
        made = cls(**options)
        monkeypatch.setattr(CudaKernel, "multiply", lambda *args: made(*args))
        return made


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_wrong_products_are_noticed_at_load(
    rows: int, gpu: Machine, untested: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted.installed(monkeypatch, wrong_at=rows)
    kernels = choose_kernels(CUDA, BF16)
    assert kernels.name == "torch"
    assert (
        kernels.reason == "bitsandbytes' kernels for this GPU give other numbers than they should"
    )


@pytest.mark.parametrize(("rows", "together"), [(0, 3), (1, 1), (2, 1), (3, 1), (8, 3)])
def test_rows_are_multiplied_together_only_if_each_is_as_alone(
    rows: int, together: int, gpu: Machine, untested: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted.installed(monkeypatch, mixes_at=rows)
    chosen = choose_kernels(CUDA, BF16)
    first = chosen.four_bit.kernels[0]
    assert isinstance(first, CudaKernel)
    assert first.together == together
    assert ("3 answers read a matrix once" in chosen.reason) == (together == 3)


def test_several_answers_read_a_matrix_once_for_three(
    gpu: Machine, untested: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = Scripted.installed(monkeypatch)
    weight = placed(make_matrix(96, 128))
    xs = [x.to(CUDA) for x in random(8, 128, dtype=BF16).view(8, 1, 1, 128)]
    bias = random(96, dtype=BF16).to(CUDA)
    alone = [weight.multiply(x, bias).cpu() for x in xs]
    for count, calls in ((1, [1]), (2, [2]), (3, [3]), (4, [3, 1]), (8, [3, 3, 2])):
        scripted.calls.clear()
        found = weight.multiply_each(xs[:count], bias)
        assert scripted.calls == calls
        assert all(
            torch.equal(y.cpu(), expected) for y, expected in zip(found, alone, strict=False)
        )
        assert [y.shape for y in found] == [(1, 1, 96)] * count


@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(64, 128), (512, 128), (96, 192), (33, 100)])
def test_rows_of_several_answers_are_as_alone(
    shape: tuple[int, int], dtype: torch.dtype, gpu: Machine
) -> None:
    """Whatever the self-test found out about the product of this CPU."""
    kernels = choose_kernels(CUDA, dtype)
    weight = place_four_bit(moved(make_matrix(*shape)), kernels, Scratch(CUDA))
    xs = [x.to(CUDA) for x in random(5, shape[1], dtype=dtype).view(5, 1, 1, shape[1])]
    alone = [weight.multiply(x, None).cpu() for x in xs]
    together = [y.cpu() for y in weight.multiply_each(xs, None)]
    assert all(map(torch.equal, together, alone))


# --- int8 -----------------------------------------------------------------------------------------


def int8_matrix(rows: int, columns: int) -> Int8Matrix:
    codes = (torch.arange(rows * columns) * 89 % 255 - 127).to(torch.int8).view(rows, columns)
    return Int8Matrix(codes=codes, scales=torch.rand(rows, -(-columns // 64)) / 100)


@pytest.mark.parametrize("columns", [128, 100])
@pytest.mark.parametrize("count", [1, 300])
def test_int8_needs_no_temporary(columns: int, count: int, gpu: Machine) -> None:
    matrix = int8_matrix(1024, columns)
    kernels = choose_kernels(CUDA, BF16, "torch")
    there = Int8Matrix(codes=matrix.codes.to(CUDA), scales=matrix.scales.to(CUDA))
    weight = place_int8(there, kernels, Scratch(CUDA))
    x = random(count, columns, dtype=BF16)
    x_there = x.to(CUDA)
    before = gpu.peak[0] = gpu.held[0]
    out = weight.multiply(x_there, None)
    torch.cuda.synchronize()
    assert gpu.peak[0] - before <= out.nbytes + weight.scratch.nbytes + 1024
    assert weight.scratch.nbytes == 1024 * columns * 2
    wide = matrix.scales.repeat_interleave(64, dim=1)[:, :columns]
    exact = x.float() @ (matrix.codes * wide).to(BF16).float().t()
    assert torch.allclose(out.cpu().float(), exact, rtol=0.02, atol=0.05)


# --- buffers that a CUDA graph has addresses of ---------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 4-bit and int8 matrices of several sizes."""
    names = tuple(name for name in SPECS if name.endswith("_proj.weight") and "language" in name)
    tensors = four_bit(golden_tensors(), only=names)
    for name in (HEAD, FC1):
        rows, columns = SPECS[name].shape
        matrix = int8_matrix(rows, columns)
        tensors.update({name: matrix.codes, f"{name}.scale": matrix.scales})
    folder = write_folder(tmp_path_factory.mktemp("weights") / "mixed", tensors)
    (folder / MANIFEST_NAME).write_text("{}")
    return folder


def test_a_larger_matrix_leaves_a_captured_product_valid(mixed: Path, gpu: Machine) -> None:
    """A recorded decode step with int8 matrices, and then the next picture."""
    loader = opened(mixed)
    small, large = filled(loader, FC1), filled(loader, HEAD)
    x = random(1, small.in_features, dtype=BF16).to(CUDA)
    expected = small(x).cpu()
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream):
        y = small(x)
    held = loader.scratch.nbytes
    assert held == 512 * 128 * 2  # of the largest matrix
    large(random(300, large.in_features, dtype=BF16).to(CUDA))
    torch.cuda.synchronize()
    y.zero_()
    graph.replay()
    assert torch.equal(y.cpu(), expected)
    assert loader.scratch.nbytes == held
