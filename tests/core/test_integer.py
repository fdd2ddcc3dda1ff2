"""Products of integers: every version gives the bits of the plain C one, for any number of rows."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.memory.work import KERNEL_SCRATCH_BYTES
from cogvlm2_lite.weights.catalog import INT8_GROUP
from cogvlm2_lite.weights.kernels.gemv import IntegerKernel
from cogvlm2_lite.weights.kernels.library import (
    AMX,
    AVX2,
    AVX512,
    AVX512_VNNI,
    AVX_VNNI,
    CPU_LEVEL,
    LEVEL_NAMES,
    Library,
    open_library,
)
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix, integer_levels
from cogvlm2_lite.weights.kernels.nf4 import FP4_LEVELS, NF4_LEVELS
from cogvlm2_lite.weights.kernels.scratch import Scratch
from tests.helpers.matrices import make_matrix, plain_matrix

CPU = torch.device("cpu")
BF16, F32 = torch.bfloat16, torch.float32
PLAIN = 0
Matrix = FourBitMatrix | Int8Matrix


def int8_matrix(rows: int, columns: int) -> Int8Matrix:
    generator = torch.Generator().manual_seed(rows + columns)
    codes = torch.randint(-128, 128, (rows, columns), generator=generator, dtype=torch.int8)
    scales = torch.rand(rows, columns // INT8_GROUP, generator=generator) * 1e-3
    return Int8Matrix(codes=codes, scales=scales)


KINDS: dict[str, tuple[int, Callable[[int, int], Matrix]]] = {
    "nf4": (64, make_matrix),
    "nf4, plain scales": (64, lambda r, c: make_matrix(r, c, double_quant=False)),
    "nf4, groups of 128": (128, lambda r, c: make_matrix(r, c, group=128)),
    "nf4, groups of 256, plain": (
        256, lambda r, c: make_matrix(r, c, group=256, double_quant=False),
    ),
    "fp4": (64, lambda r, c: make_matrix(r, c, fp4=True)),
    "int8": (64, int8_matrix),
}  # fmt: skip
"""The width of a group, and how to make a matrix of some rows and columns."""


@pytest.fixture(scope="module")
def library() -> Library:
    try:
        return open_library()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=LEVEL_NAMES)
def level(request: pytest.FixtureRequest, library: Library) -> int:
    """Each level of instructions that this processor has."""
    wanted = LEVEL_NAMES[request.param]
    if library.functions.cpu_level(wanted) != wanted:
        pytest.skip(f"the CPU has no {request.param}")
    return wanted


@pytest.fixture
def any_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def at(library: Library, level: int) -> IntegerKernel:
    return IntegerKernel(replace(library, level=level))


def product(kernel: IntegerKernel, x: Tensor, matrix: Matrix) -> Tensor:
    return kernel.multiply(x, matrix, None, Scratch(CPU))


def inputs(rows: int, columns: int, *, dtype: torch.dtype = BF16, seed: int = 0) -> Tensor:
    """Return rows of different sizes, with some inputs far larger than the others."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    x *= torch.logspace(-3, 3, rows).view(-1, 1)
    x[:, ::37] *= 50
    return x.to(dtype)


def same(ours: Tensor, others: Tensor) -> bool:
    """Return True for the same bits, where all NaNs count as the same."""
    alike = ours.dtype == others.dtype and torch.equal(ours.isnan(), others.isnan())
    return alike and torch.equal(ours.nan_to_num(), others.nan_to_num())


def weights_of(matrix: Matrix) -> Tensor:
    """Return the numbers of a matrix in float64."""
    if isinstance(matrix, FourBitMatrix):
        return plain_matrix(matrix).double()
    return matrix.codes * matrix.scales.double().repeat_interleave(INT8_GROUP, dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_gives_the_bits_of_the_plain_version(
    kind: str, library: Library, level: int
) -> None:
    group, make = KINDS[kind]
    plain, kernel = at(library, PLAIN), at(library, level)
    for height, columns in ((1, 1), (16, 3), (37, 5), (50, 17), (5, 56)):
        matrix = make(height, columns * group)
        for rows in (*range(1, 34), 67) if height == 37 else (1, 2, 7, 16, 33):
            x = inputs(rows, columns * group, seed=rows)
            assert same(product(kernel, x, matrix), product(plain, x, matrix)), (height, rows)
        x = inputs(9, columns * group, dtype=F32)
        assert same(product(kernel, x, matrix), product(plain, x, matrix)), height


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("columns", [64, 4096, 14336, 20544])
def test_each_level_multiplies_wide_matrices(
    kind: str, columns: int, library: Library, level: int
) -> None:
    matrix = KINDS[kind][1](19, columns)
    for rows in (1, 3, 8, 33):
        x = inputs(rows, columns)
        expected = product(at(library, PLAIN), x, matrix)
        assert same(product(at(library, level), x, matrix), expected)


@pytest.mark.usefixtures("any_threads")
@pytest.mark.parametrize("kind", ["nf4", "nf4, groups of 128", "int8"])
@pytest.mark.parametrize("dtype", [BF16, F32])
def test_a_row_has_the_bits_that_it_has_alone_with_any_threads(
    kind: str, dtype: torch.dtype, library: Library, level: int
) -> None:
    kernel, matrix = at(library, level), KINDS[kind][1](83, 1152)
    x = inputs(33, 1152, dtype=dtype)
    alone = torch.cat([product(kernel, row, matrix) for row in x.split(1)])
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for rows in (2, 4, 5, 8, 12, 16, 17, 24, 32, 33):
            assert same(product(kernel, x[:rows], matrix), alone[:rows]), (threads, rows)


@pytest.mark.usefixtures("any_threads")
@pytest.mark.parametrize("kind", ["nf4", "fp4", "nf4, groups of 128", "int8"])
@pytest.mark.parametrize("rows", [100, 300])
def test_each_level_multiplies_many_rows(
    kind: str, rows: int, library: Library, level: int
) -> None:
    group, make = KINDS[kind]
    columns = 9 * 64 if group == 64 else 5 * group
    for height, threads in ((1, 1), (150, 1), (150, 3)):
        torch.set_num_threads(threads)
        matrix, x = make(height, columns), inputs(rows, columns, dtype=F32)
        x[3, 70] = float("nan")
        expected = product(at(library, PLAIN), x, matrix)
        assert same(product(at(library, level), x, matrix), expected)
        x = x.bfloat16()
        expected = product(at(library, PLAIN), x, matrix)
        assert same(product(at(library, level), x, matrix), expected)


@pytest.mark.parametrize("rows", [129, 131])
def test_each_level_multiplies_more_inputs_than_it_holds_at_a_time(
    rows: int, library: Library, level: int
) -> None:
    """128 of the widest inputs fit into the buffer."""
    matrix, x = make_matrix(2, 65536), inputs(rows, 65536, dtype=F32)
    expected = product(at(library, PLAIN), x, matrix)
    assert same(product(at(library, level), x, matrix), expected)


def test_buffers_stay_within_what_the_plan_counts_on(library: Library, level: int) -> None:
    library.functions.integer_bytes.restype = ctypes.c_longlong
    for columns in (1792, 4096, 14336, 15360):
        matrix = make_matrix(1, columns)
        for rows in (1, 32, 512, 2306, 9217):
            for threads in (1, 2, 16, 32):
                taken = library.functions.integer_bytes(
                    ctypes.c_void_p(matrix.address), level, ctypes.c_longlong(rows), threads
                )
                assert 0 < taken <= 28 << 20 <= KERNEL_SCRATCH_BYTES


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_strange_inputs_and_scales(kind: str, library: Library, level: int) -> None:
    """Infinities, NaNs, zeros, denormals and the largest numbers."""
    plain, kernel = at(library, PLAIN), at(library, level)
    matrix = KINDS[kind][1](33, 192)
    for dtype in (BF16, F32):
        limits = torch.finfo(dtype)
        x = inputs(20, 192, dtype=dtype)
        x[0, 70], x[1, 3], x[2, 191] = float("inf"), float("nan"), -float("inf")
        x[3] = 0
        x[4] *= limits.tiny / x[4].abs().max()
        x[5] = limits.tiny / 4
        x[6, 64:128] = limits.max
        x[7, ::2] = -0.0
        x[8] *= 1e-30
        got = product(kernel, x, matrix)
        assert same(got, product(plain, x, matrix))
        assert got[:3].isnan().all()
        others = torch.cat([product(kernel, row, matrix) for row in x[3:].split(1)])
        assert same(got[3:], others)
    scales = matrix.scales if isinstance(matrix, Int8Matrix) else make_matrix(33, 192).absmax
    if isinstance(matrix, FourBitMatrix):
        matrix = make_matrix(33, 192, double_quant=False)
        scales = matrix.absmax
    strange = (0.0, -0.0, 1e-38, 1e-45, float("inf"), -float("inf"), float("nan"), 3e38)
    scales.view(-1)[: len(strange)] = torch.tensor(strange)
    for rows in (1, 4, 20):
        x = inputs(rows, 192)
        assert same(product(kernel, x, matrix), product(plain, x, matrix))


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_the_largest_sums_do_not_overflow(kind: str, library: Library, level: int) -> None:
    matrix = KINDS[kind][1](17, 128)
    for code in (-128, 127) if kind == "int8" else (0, 15, 11, 3):
        matrix.codes.fill_(code if kind == "int8" else code * 17)
        for sign in (1, -1):
            x = torch.full((3, 128), sign * 1.99999988)  # rounds up to 4096 steps
            expected = x.double() @ weights_of(matrix).t()
            got = product(at(library, level), x, matrix)
            assert torch.allclose(got.double(), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_is_below_that_of_weights_in_bfloat16(
    kind: str, library: Library, level: int
) -> None:
    matrix = KINDS[kind][1](64, 1792)
    weights = weights_of(matrix)
    for dtype in (BF16, F32):
        x = torch.randn(8, 1792, generator=torch.Generator().manual_seed(1)).to(dtype)
        exact = x.double() @ weights.t()
        got = product(at(library, level), x.float(), matrix).double()
        rounded = x.bfloat16().double() @ weights.bfloat16().double().t()
        assert (got - exact).norm() < (rounded - exact).norm() / 4
        assert (got - exact).norm() < 3e-4 * exact.norm()


def test_the_plain_version_computes_what_the_definition_says(library: Library) -> None:
    matrix = make_matrix(21, 320)
    levels, step = integer_levels(tuple(matrix.levels.tolist()))
    unit_scale = torch.empty(21, 5)
    unit_scale.copy_(weights_of(matrix).view(21, 5, 64).abs().amax(2))  # every group has a +-1
    codes = torch.stack([matrix.codes.view(-1) >> 4, matrix.codes.view(-1) & 15], dim=1)
    weights = levels[codes.long()].view(21, 5, 64).long()
    x = inputs(4, 320)
    exponent = x.float().view(4, 5, 64).abs().amax(2).frexp().exponent - 1
    input_step = torch.ldexp(torch.ones(4, 5), exponent - 11)
    integers = (x.float().view(4, 5, 64) / input_step.unsqueeze(2)).round().long()
    assert integers.abs().max() <= 4096
    sums = torch.einsum("mui,nui->mnu", integers, weights)
    total = torch.zeros(4, 21, dtype=torch.float64)
    for unit in range(5):
        factor = unit_scale[:, unit] * (input_step[:, unit] * step).view(-1, 1)
        total = (total + sums[:, :, unit].float().double() * factor.double()).float().double()
    got = product(at(library, PLAIN), x.float(), matrix)
    assert torch.allclose(got.double(), total, rtol=2**-20, atol=0)
    rounded = product(at(library, PLAIN), x, matrix)
    assert torch.equal(rounded, got.bfloat16())


def test_levels_as_integers() -> None:
    for levels, most in ((FP4_LEVELS, 1e-7), (NF4_LEVELS, 4e-5)):
        integers, step = integer_levels(tuple(levels))
        assert 4096 <= int(integers.abs().max()) <= 8191
        errors = integers.double() * step - torch.tensor(levels, dtype=torch.float64)
        assert errors.abs().max() < most
    assert integer_levels((0.0,) * 16)[1] == 0


def test_the_environment_lowers_the_level(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, wanted in LEVEL_NAMES.items():
        monkeypatch.setenv(CPU_LEVEL, name)
        assert open_library().level <= wanted
    monkeypatch.setenv(CPU_LEVEL, "avx2")
    assert open_library().level == AVX2 < AVX_VNNI < AVX512_VNNI < AVX512 < AMX
    monkeypatch.setenv(CPU_LEVEL, "avx3")
    with pytest.raises(UsageError, match="avx3"):
        open_library()
