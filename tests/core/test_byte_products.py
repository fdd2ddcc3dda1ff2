"""Products of bytes: every version gives the bits of the plain C one; errors; who may use them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.memory.work import KERNEL_SCRATCH_BYTES
from cogvlm2_lite.weights.kernels.byte_products import ByteKernel
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.library import AVX2, LEVEL_NAMES, Library, open_library
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.slots import Linear
from cogvlm2_lite.weights.storage.dense import DenseWeight
from cogvlm2_lite.weights.storage.int8 import place_int8
from tests.core.test_integer import KINDS, inputs, int8_matrix, same, weights_of
from tests.helpers.matrices import make_four_bit, make_matrix, random

CPU = torch.device("cpu")
BF16, F32 = torch.bfloat16, torch.float32
BLOCK = 512
Matrix = FourBitMatrix | Int8Matrix


@pytest.fixture(scope="module")
def library() -> Library:
    try:
        return open_library()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def plain(library: Library) -> ByteKernel:
    return ByteKernel(replace(library, level=0))


@pytest.fixture(scope="module", params=LEVEL_NAMES)
def kernel(request: pytest.FixtureRequest, library: Library) -> ByteKernel:
    """The kernel of each level of instructions that this processor has."""
    level = LEVEL_NAMES[request.param]
    if library.functions.cpu_level(level) != level:
        pytest.skip(f"the CPU has no {request.param}")
    return ByteKernel(replace(library, level=level))


@pytest.fixture
def any_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def product(kernel: ByteKernel, x: Tensor, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
    return kernel.multiply(x, matrix, bias, Scratch(CPU))


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_gives_the_bits_of_the_plain_version(
    kind: str, kernel: ByteKernel, plain: ByteKernel
) -> None:
    group, make = KINDS[kind]
    shapes = ((1, 1, 1), (16, 3, 2), (37, 5, 33), (50, 17, 67), (5, 24, 7), (70, 9, 65))
    for height, groups, rows in shapes:
        matrix = make(height, groups * group)
        for dtype in (BF16, F32):
            x = inputs(rows, groups * group, dtype=dtype, seed=rows)
            bias = random(height, dtype=dtype)
            expected = product(plain, x, matrix)
            assert same(product(kernel, x, matrix), expected), (height, rows, dtype)
            added = product(kernel, x, matrix, bias)
            assert same(added, product(plain, x, matrix, bias)), (height, rows, dtype)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("columns", [64, 4096, 14336, 20544, 65536])
def test_each_level_multiplies_wide_matrices(
    kind: str, columns: int, kernel: ByteKernel, plain: ByteKernel
) -> None:
    """The widest are cut into parts of their columns, and inputs do not all fit at once."""
    matrix = KINDS[kind][1](19, columns)
    for rows in (1, 33, 261) if columns == 65536 and kind == "nf4" else (1, 33):
        x = inputs(rows, columns)
        assert same(product(kernel, x, matrix), product(plain, x, matrix))


@pytest.mark.usefixtures("any_threads")
@pytest.mark.parametrize("kind", ["nf4", "nf4, groups of 128", "int8"])
@pytest.mark.parametrize("dtype", [BF16, F32])
def test_a_row_has_the_bits_that_it_has_alone_with_any_threads(
    kind: str, dtype: torch.dtype, kernel: ByteKernel
) -> None:
    matrix = KINDS[kind][1](331, 1152)
    x = inputs(45, 1152, dtype=dtype)
    alone = torch.cat([product(kernel, row, matrix) for row in x.split(1)])
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for rows in (2, 16, 17, 31, 32, 33, 45):
            assert same(product(kernel, x[:rows], matrix), alone[:rows]), (threads, rows)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_strange_inputs_and_scales(kind: str, kernel: ByteKernel, plain: ByteKernel) -> None:
    """Infinities, NaNs, zeros, denormals and the largest numbers."""
    matrix = KINDS[kind][1](33, 1152)
    for dtype in (BF16, F32):
        limits = torch.finfo(dtype)
        x = inputs(20, 1152, dtype=dtype)
        x[0, 70], x[1, 3], x[2, 1151] = float("inf"), float("nan"), -float("inf")
        x[3] = 0
        x[4] *= limits.tiny / x[4].abs().max()
        x[5] = limits.tiny / 4
        x[6, 64:128] = limits.max
        x[7, ::2] = -0.0
        x[8] *= 1e-30
        got = product(kernel, x, matrix)
        assert same(got, product(plain, x, matrix))
        assert got[:3].isnan().all()
        assert not got[3:].isnan().any()
        assert not got[3].any()
    if isinstance(matrix, FourBitMatrix):
        matrix = make_matrix(33, 1152, double_quant=False)
    scales = matrix.scales if isinstance(matrix, Int8Matrix) else matrix.absmax
    strange = torch.tensor(
        (0.0, -0.0, 1e-38, 1e-45, float("inf"), -float("inf"), float("nan"), 3e38)
    )
    each_row = scales.view(33, -1)
    each_row[:8, 3], each_row[8, :8], each_row[9] = strange, strange, -each_row[9]
    each_row[10], each_row[11] = 0, 1e-45
    x = inputs(20, 1152)
    got = product(kernel, x, matrix)
    assert same(got, product(plain, x, matrix))
    assert got[:, [4, 5, 6, 8]].isnan().all()
    assert not got[:, [0, 1, 2, 3, 9, 10, 11]].isnan().any()


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_the_largest_sums_do_not_overflow(kind: str, kernel: ByteKernel) -> None:
    matrix = KINDS[kind][1](17, 1024)
    for code in (-128, 127) if kind == "int8" else (0, 15, 11, 3):
        matrix.codes.fill_(code if kind == "int8" else code * 17)
        if isinstance(matrix, Int8Matrix):
            matrix.scales.fill_(1e-3)
        for sign in (1, -1):
            x = torch.full((3, 1024), sign * 1.99999988)
            expected = x.double() @ weights_of(matrix).t()
            assert torch.allclose(product(kernel, x, matrix).double(), expected, rtol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_version_computes_what_the_definition_says(kind: str, plain: ByteKernel) -> None:
    matrix = KINDS[kind][1](21, 1280)
    x = inputs(4, 1280)
    weights = weights_of(matrix).float()
    total = torch.zeros(4, 21, dtype=torch.float64)
    for start in range(0, 1280, BLOCK):
        part, of_rows = x.float()[:, start : start + BLOCK], weights[:, start : start + BLOCK]
        most = part.abs().amax(1, keepdim=True)
        integers = (part * (127 / most)).round()
        if isinstance(matrix, Int8Matrix):
            scales = matrix.scales[:, start // 64 : (start + BLOCK) // 64]
            most_of_rows = scales.amax(1, keepdim=True) * 127
        else:
            most_of_rows = of_rows.abs().amax(1, keepdim=True)  # every group has a +-1
        rounded = (of_rows.double() / most_of_rows * 127).round()
        sums = integers.double() @ rounded.t()
        total += sums * (most / 127).double() * (most_of_rows / 127).double().t()
    got = product(plain, x.float(), matrix).double()
    # A weight halfway between two integers may be rounded otherwise in float64.
    assert (got - total).norm() < 1e-3 * total.norm()
    assert torch.equal(product(plain, x, matrix), got.bfloat16())


@pytest.mark.parametrize("kind", KINDS)
def test_errors_against_exact_products(kind: str, plain: ByteKernel) -> None:
    """About 1 % for normal inputs; with a channel of each block 50 times as large, 5 %."""
    matrix = KINDS[kind][1](64, 4096)
    weights = weights_of(matrix)
    x = torch.randn(16, 4096, generator=torch.Generator().manual_seed(1))
    for largest, most in ((1, 0.012), (50, 0.05)):
        x[:, 100::512] *= largest
        exact = x.double() @ weights.t()
        error = (product(plain, x, matrix).double() - exact).norm() / exact.norm()
        assert most / 2 < error < most


def test_buffers_stay_within_what_the_plan_counts_on(kernel: ByteKernel, library: Library) -> None:
    library.functions.byte_product_bytes.restype = ctypes.c_longlong
    for columns in (1792, 4096, 14336, 15360):
        matrix = make_matrix(320, columns)
        address = ctypes.c_void_p(matrix.address)
        for rows in (1, 32, 512, 2306, 9217):
            for threads in (1, 2, 16, 32, 64, 100):
                taken = library.functions.byte_product_bytes(
                    address, kernel.level, ctypes.c_longlong(rows), threads
                )
                assert 0 < taken <= 28 << 20 <= KERNEL_SCRATCH_BYTES, (columns, rows, threads)


@pytest.fixture(scope="module")
def choice() -> KernelChoice:
    found = choose_kernels(CPU, F32)
    if not found.multiplies_bytes:
        pytest.skip(found.reason)
    return found


@pytest.mark.parametrize("kind", ["nf4", "int8", "dense", "nf4, groups of 32"])
def test_a_linear_layer_multiplies_bytes_only_if_told_to(
    kind: str, choice: KernelChoice, library: Library
) -> None:
    slot = Linear("part.weight", 1088, 33, has_bias=True)
    assert slot.input_bits == 16
    assert slot.bias is not None
    slot.bias.value = random(33)
    matrix: Matrix = make_matrix(33, 1088)
    if kind == "int8":
        matrix = int8_matrix(33, 1088)
        slot.stored = place_int8(matrix, choice, Scratch(CPU))
    elif kind == "dense":
        slot.stored = DenseWeight(weight=random(33, 1088))
    else:
        matrix = make_matrix(33, 1088, group=32 if "32" in kind else 64)
        slot.stored = make_four_bit(matrix, choice)
    x = random(3, 1, 1088, seed=1)
    exact = slot(x)
    slot.input_bits = 8
    rounded = slot(x)
    if kind in ("nf4", "int8"):
        expected = product(ByteKernel(replace(library, level=AVX2)), x, matrix, slot.bias.value)
        assert torch.equal(rounded, expected)
        assert 0.002 < (rounded - exact).norm() / exact.norm() < 0.03
        each = slot.each([row.view(1, 1, -1) for row in x])
        assert torch.equal(torch.cat(each).view(3, 33), rounded.view(3, 33))
    else:
        assert torch.equal(rounded, exact)
    x.requires_grad_()
    assert torch.equal(slot(x).detach(), exact)
