"""Our CUDA kernels, compiled for the CPU, against exact arithmetic and torch."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.model.gates import silu_gate
from cogvlm2_lite.model.kv_cache import _Rows
from cogvlm2_lite.model.norms import RMSNorm
from cogvlm2_lite.model.rotary import RopeMode, Rotation, inverse_frequencies, rotary_table
from cogvlm2_lite.weights.kernels.choice import GPU_KERNELS, choose_kernels
from cogvlm2_lite.weights.kernels.cuda.kernels import OwnInt8
from cogvlm2_lite.weights.kernels.cuda.operators import make_product
from cogvlm2_lite.weights.kernels.cuda.sources import (
    KERNELS,
    AddNorm,
    Attention,
    Matrix,
    Product,
    source,
    text,
)
from cogvlm2_lite.weights.kernels.int8 import dequantize_int8
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.nf4 import quantize_nf4
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.storage.nf4 import place_four_bit
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.own_kernels import cpu
from tests.emulated_cuda.own_kernels.cpu import COMPILER, compiled, launch, on_cpu

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")

PRODUCT = "cogvlm2_lite.stored_product.default"
HALVES = [torch.bfloat16, torch.float16]
HEADS, GROUP, HEAD, SPLITS = 2, 4, 128, 16


@pytest.fixture(scope="module", params=HALVES, ids=["bfloat16", "float16"])
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.dtype, Mapping[str, ctypes.CDLL]]:
    return request.param, compiled(tmp_path_factory.mktemp("kernels"), request.param)


Kernels = tuple[torch.dtype, Mapping[str, ctypes.CDLL]]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(ours: Tensor, exact: Tensor) -> float:
    """Return the relative Frobenius error."""
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


def four_bits(rows: int, columns: int, *, nested: bool) -> tuple[FourBitMatrix, Tensor]:
    """Return a matrix and its exact weights, float64."""
    matrix = quantize_nf4(0.02 * numbers(rows, columns, seed=1), group=64, double_quant=nested)
    scales = matrix.absmax
    if nested:
        assert matrix.nested_map is not None
        assert matrix.nested_absmax is not None
        outer = matrix.nested_absmax.repeat_interleave(256)[: matrix.absmax.numel()]
        scales = matrix.nested_map[matrix.absmax.long()] * outer + matrix.nested_offset
    codes = torch.stack([matrix.codes >> 4, matrix.codes & 15], -1).view(-1).long()
    weights = matrix.levels[codes].double() * scales.double().repeat_interleave(64)
    return matrix, weights.view(rows, columns)


def int8(rows: int, columns: int) -> tuple[Int8Matrix, Tensor]:
    codes = torch.arange(rows * columns).view(rows, columns).mul(37).to(torch.int8)
    scales = numbers(rows, columns // 64, seed=2).abs() / 100
    exact = dequantize_int8(codes, scales, torch.empty(rows, columns, dtype=torch.float64))
    return Int8Matrix(codes=codes, scales=scales), exact


def product(kernels: Kernels, x: Tensor, matrix: Any, bias: Tensor | None = None) -> Tensor:
    """Return x @ matrix.T by our kernel, through the operator's implementation."""
    _, libraries = kernels
    seed = x.shape[0]

    def launcher(device: torch.device, dtype: torch.dtype) -> Any:
        return lambda name, arguments, grid: launch(libraries, name, arguments, grid, seed=seed)

    operator = make_product(launcher)
    if isinstance(matrix, FourBitMatrix):
        return operator(
            x, matrix.codes, matrix.absmax, matrix.nested_absmax, matrix.nested_map,
            matrix.levels, matrix.nested_offset, bias, matrix.rows,
        )  # fmt: skip
    if isinstance(matrix, Int8Matrix):
        return operator(x, matrix.codes, matrix.scales, None, None, None, 0.0, bias, matrix.rows)
    return operator(x, matrix, None, None, None, None, 0.0, bias, matrix.shape[0])


@pytest.mark.parametrize("kind", ["nested", "flat", "int8", "dense"])
@pytest.mark.parametrize(("rows", "columns"), [(48, 256), (20, 2304)])
def test_products(kernels: Kernels, kind: str, rows: int, columns: int) -> None:
    dtype, _ = kernels
    matrix: Any
    if kind == "int8":
        matrix, exact = int8(rows, columns)
    elif kind == "dense":
        matrix = (0.02 * numbers(rows, columns)).to(dtype)
        exact = matrix.double()
    else:
        matrix, exact = four_bits(rows, columns, nested=kind == "nested")
    x, bias = numbers(8, columns, seed=3).to(dtype), numbers(rows, seed=4).to(dtype)
    all_rows = product(kernels, x, matrix, bias)
    expected = x.double() @ exact.t() + bias.double()
    # What torch rounds, the weights and the result, is rounded here at most.
    reference = F.linear(x.double(), exact.to(dtype).double(), bias.double()).to(dtype)
    assert error(all_rows, expected) < 1.1 * error(reference, expected) + 1e-5
    # No row depends on how many go with it.
    for count in (1, 3):
        part = product(kernels, x[2 : 2 + count].contiguous(), matrix, bias)
        assert torch.equal(part, all_rows[2 : 2 + count])


@pytest.mark.parametrize("kind", ["nested", "flat", "int8"])
def test_gated_products_round_where_torch_rounds(kernels: Kernels, kind: str) -> None:
    dtype, libraries = kernels
    make = int8 if kind == "int8" else lambda r, c: four_bits(r, c, nested=kind == "nested")
    (gate, _), (up, _) = make(32, 512), make(32, 512)
    if isinstance(up, FourBitMatrix):
        up, _ = four_bits(32, 512, nested=kind == "nested")
    x, out = numbers(5, 512).to(dtype), torch.empty(5, 32, dtype=dtype)
    parts = []
    for matrix in (gate, up):
        four = isinstance(matrix, FourBitMatrix)
        scales = matrix.absmax if four else matrix.scales
        outer = matrix.nested_absmax if four else None
        parts.append(
            Matrix(
                matrix.codes.data_ptr(),
                scales.data_ptr(),
                outer.data_ptr() if outer is not None else None,
            )
        )
    four = isinstance(gate, FourBitMatrix)
    arguments = Product(
        x=x.data_ptr(), first=parts[0], second=parts[1],
        levels=gate.levels.data_ptr() if four else None,
        scale_map=gate.nested_map.data_ptr() if four and gate.nested_map is not None else None,
        second_map=up.nested_map.data_ptr() if four and up.nested_map is not None else None,
        out=out.data_ptr(),
        offset=gate.nested_offset if four else 0, second_offset=up.nested_offset if four else 0,
        inputs=5, rows=32, columns=512,
    )  # fmt: skip
    launch(libraries, f"gated_{kind}", arguments, (2, 1))
    gates, ups = product(kernels, x, gate), product(kernels, x, up)
    expected = silu_gate(gates, ups)
    # torch's silu in float32 may differ in the last bit.
    assert error(out, expected) < (0.003 if dtype == torch.bfloat16 else 0.0004)


def rotation(position: int, dtype: torch.dtype) -> Rotation:
    mode = RopeMode.EXACT if dtype == torch.float32 else RopeMode.REFERENCE
    table = rotary_table(inverse_frequencies(HEAD), position + 1, mode=mode, dtype=dtype)
    return table.rows(torch.tensor([[position]]))


@pytest.mark.parametrize("kind", [KVKind.FULL, KVKind.INT8], ids=str)
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("slot", "capacity"), [(0, 256), (5, 256), (700, 1024)])
def test_attention(kernels: Kernels, kind: KVKind, exact: bool, slot: int, capacity: int) -> None:
    dtype, libraries = kernels
    old, turned = (
        numbers(2, HEADS, slot, HEAD),
        rotation(slot + 3, torch.float32 if exact else dtype),
    )
    caches = [_Rows((1, HEADS, HEAD), kind, dtype, torch.device("cpu")) for _ in range(2)]
    for cache, x in zip(caches, old, strict=True):
        cache.grow(capacity, 0)
        for stored in cache.stored:  # what is not written yet must not count
            stored.fill_(float("nan") if stored.is_floating_point() else 99)
        cache.write(0, x[None].to(dtype))
    qkv = numbers((HEADS * GROUP + 2 * HEADS) * HEAD, seed=6).to(dtype)
    out = torch.full((HEADS * GROUP * HEAD,), float("nan"), dtype=dtype)
    partial = torch.full((HEADS, SPLITS, GROUP, HEAD + 2), float("nan"))
    place = torch.tensor([slot])
    (keys, *key_scales), (values, *value_scales) = (cache.stored for cache in caches)
    arguments = Attention(
        qkv=qkv.data_ptr(), cosines=turned.cos.data_ptr(), sines=turned.sin.data_ptr(),
        keys=keys.data_ptr(), values=values.data_ptr(),
        key_scales=key_scales[0].data_ptr() if key_scales else None,
        value_scales=value_scales[0].data_ptr() if value_scales else None,
        slot=place.data_ptr(), partial=partial.data_ptr(), out=out.data_ptr(),
        kv_heads=HEADS, capacity=capacity, exact=exact,
    )  # fmt: skip
    launch(libraries, "attend", arguments, (HEADS, SPLITS), seed=slot)
    launch(libraries, "merge", arguments, (HEADS * GROUP, 1))

    q, k, v = (
        part.view(1, -1, 1, HEAD)
        for part in qkv.split([HEADS * GROUP * HEAD, HEADS * HEAD, HEADS * HEAD])
    )
    q, k = turned.apply(q), turned.apply(k)
    expected = [_Rows((1, HEADS, HEAD), kind, dtype, torch.device("cpu")) for _ in range(2)]
    for cache, x, new in zip(expected, old, (k, v), strict=True):
        cache.grow(capacity, 0)
        cache.write(0, x[None].to(dtype))
        cache.write(slot, new)
    for ours, theirs in zip(caches, expected, strict=True):  # the cache has the same bits
        for one, other in zip(ours.stored, theirs.stored, strict=True):
            assert torch.equal(one[:, :, : slot + 1], other[:, :, : slot + 1])
    wide = []
    for cache in expected:
        codes, *scales = (stored[0, :, : slot + 1].double() for stored in cache.stored)
        wide.append(codes * scales[0] if scales else codes)
    scores = q.double().view(HEADS, GROUP, HEAD) @ wide[0].transpose(1, 2) * HEAD**-0.5
    right = scores.softmax(-1) @ wide[1]
    assert error(out.view(HEADS, GROUP, HEAD), right) < (0.003 if dtype == torch.bfloat16 else 4e-4)


@pytest.mark.parametrize("adds", [False, True])
def test_sum_and_norm(kernels: Kernels, adds: bool) -> None:
    dtype, libraries = kernels
    x, y = numbers(3, 4096).to(dtype), numbers(3, 4096, seed=1).to(dtype)
    norm = RMSNorm("norm", 4096, 1e-5)
    norm.weight.value = numbers(4096, seed=2).to(dtype)
    total, out = torch.empty_like(x), torch.empty_like(x)
    arguments = AddNorm(
        x=x.data_ptr(), added=y.data_ptr() if adds else None, weight=norm.weight.value.data_ptr(),
        sum=total.data_ptr(), out=out.data_ptr(), columns=4096, epsilon=1e-5,
    )  # fmt: skip
    launch(libraries, "add_norm", arguments, (3, 1))
    if adds:
        assert torch.equal(total, x + y)
    expected = norm(x + y if adds else x)
    # The sum of squares has another order: a few numbers are rounded the other way.
    assert (out != expected).float().mean() < 0.02
    assert error(out, expected) < (0.001 if dtype == torch.bfloat16 else 1e-4)


# --- controls: faults that these tests must see ---------------------------------------------------


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("product", "barrier();  // the tables are not needed any more", ";"),
        (
            "product",
            "  fill_tables<KIND, GATED>(p);\n  barrier();",
            "  fill_tables<KIND, GATED>(p);",
        ),
        ("product", "j & 1 ? four.z : four.x", "j & 1 ? four.x : four.z"),
        ("product", "word >> (8 * index - bits)", "word >> (8 * index - bits + 1)"),
        ("attention", "    barrier();\n    // 3.", "    // 3."),
        ("attention", "(visible + SPLITS - 1) / SPLITS", "visible / SPLITS"),
        ("rows", "  barrier();\n  float sum = 0;", "  float sum = 0;"),
    ],
)
def test_faults_are_seen(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    file: str,
    right: str,
    wrong: str,
) -> None:
    from cogvlm2_lite.weights.kernels.cuda import sources

    assert right in text(f"{file}.cu")
    changed = text(f"{file}.cu").replace(right, wrong)
    monkeypatch.setattr(
        sources, "text", lambda name: changed if name == f"{file}.cu" else text(name)
    )
    assert wrong in source(file, primitives="")
    broken = torch.bfloat16, compiled(tmp_path_factory.mktemp("broken"), torch.bfloat16, [file])
    test: Any = {
        "product": lambda: test_products(broken, "nested", 48, 4096),
        "attention": lambda: test_attention(broken, KVKind.FULL, True, 700, 1024),
        "rows": lambda: test_sum_and_norm(broken, adds=True),
    }[file]
    with pytest.raises(AssertionError):
        test()


def test_too_little_shared_memory_is_seen(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = replace(KERNELS["attend"], shared_bytes=9 * 1024)
    monkeypatch.setattr(cpu, "KERNELS", {**KERNELS, "attend": smaller})
    with pytest.raises(AssertionError, match="behind the block's shared memory"):
        test_attention(kernels, KVKind.FULL, False, 5, 256)


# --- in the product, on an emulated GPU -----------------------------------------------------------


def test_they_are_used_only_if_asked_for(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype, libraries = kernels
    device = torch.device("cuda", 0)
    with emulated_cuda() as machine, on_cpu(libraries):
        assert choose_kernels(device, dtype).name == "cuda"
        monkeypatch.setenv(GPU_KERNELS, "own")
        chosen = choose_kernels(device, dtype)
        assert chosen.name == "own"
        plain, _ = four_bits(48, 512, nested=True)
        pieces = {
            name: getattr(plain, name).to(device)
            for name in ("codes", "absmax", "levels", "nested_absmax", "nested_map")
        }
        weight = place_four_bit(replace(plain, **pieces), chosen, Scratch(device))
        xs = [x.to(device) for x in numbers(11, 1, 1, 512).to(dtype)]
        alone = [weight.multiply(x, None).cpu() for x in xs]
        before = machine.launches[PRODUCT]
        together = weight.multiply_each(xs, None)
        # Eleven answers read the weights twice.
        assert machine.launches[PRODUCT] - before == 2
        assert all(torch.equal(a, b.cpu()) for a, b in zip(alone, together, strict=True))


def test_a_card_where_they_are_wrong_gets_no_kernel_of_ours(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, libraries = kernels
    monkeypatch.setenv(GPU_KERNELS, "own")
    device = torch.device("cuda", 0)
    with emulated_cuda():
        # Here the operator has no implementation for the CPU's numbers.
        with pytest.raises(UsageError, match="own kernels don't work here"):
            choose_kernels(device, dtype)
        # What float16 can't hold is computed in float32.
        assert choose_kernels(device, torch.float32).name == "cuda"
    monkeypatch.setattr(OwnInt8, "_product", lambda self, x, matrix, bias: x[:, : matrix.rows])
    with emulated_cuda(), on_cpu(libraries), pytest.raises(UsageError, match="other numbers"):
        choose_kernels(device, dtype)
