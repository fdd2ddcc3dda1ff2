"""Storage kinds: all multiply like the plain matrix they stand for, within stated tolerances."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cogvlm2_lite.backends.cpu import cpu_flags
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.kernels import built, choice, dequantize
from cogvlm2_lite.weights.kernels.bitsandbytes_cpu import BitsandbytesCpu, open_bitsandbytes
from cogvlm2_lite.weights.kernels.bitsandbytes_cuda import CudaKernel
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.dequantize import ChunkBytes, QuantizedKernels
from cogvlm2_lite.weights.kernels.gemv import GemvDequantizer, GemvKernel, IntegerKernel
from cogvlm2_lite.weights.kernels.int8 import dequantize_int8
from cogvlm2_lite.weights.kernels.interface import Dequantizers, Q
from cogvlm2_lite.weights.kernels.library import (
    AMX,
    AVX2,
    AVX512,
    CPU_LEVEL,
    LEVEL_NAMES,
    Library,
    open_library,
)
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.packed import PACKED_MAX_ROWS
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.kernels.torch_dequantizer import TorchDequantizer
from cogvlm2_lite.weights.slots import StoredWeight
from cogvlm2_lite.weights.storage.dense import DenseWeight
from cogvlm2_lite.weights.storage.int8 import Int8Weight, place_int8
from cogvlm2_lite.weights.storage.nf4 import place_four_bit
from cogvlm2_lite.weights.storage.quantized import QuantizedWeight
from tests.helpers.matrices import make_four_bit, make_matrix, plain_matrix, random

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((64, 128), (512, 1792), (96, 192), (33, 100), (7, 588), (320, 64))
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.003, torch.float16: 0.001}
GEMV_TOLERANCE, INTEGER_TOLERANCE, PACKED_TOLERANCE = 0.004, 5e-4, 0.006
"""Relative Frobenius error of x @ weight.T; the packed kernel rounds scales to bfloat16."""


def only_gemv(own: Own) -> KernelChoice:
    """The choice of a processor without AMX."""
    return replace(
        own.choice, four_bit=QuantizedKernels(own.integer, own.gemv, dequantizers=own.dequantizers)
    )


def in_chunks(kernels: QuantizedKernels[Q], chunk_bytes: ChunkBytes) -> QuantizedKernels[Q]:
    """The same kernels, which dequantize other amounts at a time."""
    return QuantizedKernels(
        *kernels.kernels[:-1], dequantizers=kernels.dequantizers, chunk_bytes=chunk_bytes
    )


def make_int8(rows: int, columns: int) -> tuple[Int8Weight, Tensor]:
    """An int8 matrix and the plain one, written out element by element."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(-127, 128, (rows, columns), generator=generator).to(torch.int8)
    scales = torch.rand(rows, -(-columns // 64), generator=generator) * 0.001
    plain = codes.float() * scales[:, torch.arange(columns) // 64]
    matrix = Int8Matrix(codes=codes, scales=scales)
    return place_int8(matrix, choose_kernels(CPU, torch.float32, "torch"), Scratch(CPU)), plain


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


def assert_multiplies(
    weight: StoredWeight, plain: Tensor, dtype: torch.dtype, error: float
) -> None:
    """Compare with float64 on the plain weights: few and many rows, with and without bias."""
    rows, columns = plain.shape
    for lead in ((1,), (3,), (2, 5), (1, 130)):
        x = random(*lead, columns, dtype=dtype, seed=2)
        bias = random(rows, dtype=dtype, seed=3)
        exact = x.double() @ plain.to(dtype).double().t()
        for given, expected in ((None, exact), (bias, exact + bias.double())):
            result = weight.multiply(x, given)
            assert result.shape == (*lead, rows)
            assert result.dtype == dtype
            assert relative_error(result, expected) < error


@pytest.fixture(scope="module", params=["torch", "bitsandbytes", "gemv", "gemv with AVX2"])
def kernels(request: pytest.FixtureRequest) -> KernelChoice:
    name, _, level = request.param.partition(" with ")
    with pytest.MonkeyPatch.context() as patch:
        if level:
            patch.setenv(CPU_LEVEL, level.lower())
        try:
            return choose_kernels(CPU, torch.bfloat16, name)
        except UsageError as error:
            pytest.skip(error.message)


def wide_tolerance(kernels: KernelChoice) -> float:
    """Return the tolerance in float32: without AVX512-BF16, inputs are rounded to 13 bits."""
    first = kernels.four_bit.first(1, 64, 256, 64, torch.float32)
    return INTEGER_TOLERANCE if isinstance(first, IntegerKernel) else TOLERANCE[torch.float32]


@pytest.fixture(scope="module")
def packing() -> KernelChoice:
    try:
        return choose_kernels(CPU, torch.bfloat16, "packed")
    except UsageError as error:
        pytest.skip(error.message)


@dataclass(frozen=True, kw_only=True)
class Own:
    """Our C kernel as it runs on some processor."""

    choice: KernelChoice
    integer: IntegerKernel
    gemv: GemvKernel
    dequantizer: GemvDequantizer

    @property
    def dequantizers(self) -> Dequantizers[FourBitMatrix]:
        return Dequantizers(self.dequantizer, TorchDequantizer())


@pytest.fixture(scope="module")
def own() -> Own:
    """Our C kernel; a machine with a compiler and an x86 processor must have it."""
    try:
        chosen = choose_kernels(CPU, torch.bfloat16, "gemv")
    except UsageError as error:
        if shutil.which("cc") and "avx2" in cpu_flags():
            raise
        pytest.skip(error.message)
    library = open_library()
    return Own(
        choice=chosen,
        integer=IntegerKernel(library),
        gemv=GemvKernel(library),
        dequantizer=GemvDequantizer(library),
    )


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was installed without a C compiler."""

    def fail() -> Library:
        raise OSError("our C kernel was not built")

    monkeypatch.setattr(choice, "open_library", fail)


# --- every kind against the reference -------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_multiplies_like_the_reference(shape: tuple[int, int], dtype: torch.dtype) -> None:
    plain = random(*shape) * 0.02
    weight = DenseWeight(weight=plain.to(dtype))
    assert weight.nbytes == plain.numel() * dtype.itemsize
    assert_multiplies(weight, plain, dtype, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("double_quant", [True, False])
def test_nf4_multiplies_like_the_reference(
    shape: tuple[int, int], dtype: torch.dtype, double_quant: bool, kernels: KernelChoice
) -> None:
    matrix = make_matrix(*shape, double_quant=double_quant)
    weight = make_four_bit(matrix, kernels)
    # The C kernel rounds levels to bfloat16, the others whole weights.
    loose = kernels.name == "gemv" and dtype == torch.bfloat16
    error = GEMV_TOLERANCE if loose else max(TOLERANCE[dtype], wide_tolerance(kernels))
    assert_multiplies(weight, plain_matrix(matrix), dtype, error)


@pytest.mark.parametrize("group", [32, 128, 256, 2048])
def test_nf4_of_other_groups_multiplies_like_the_reference(
    group: int, kernels: KernelChoice
) -> None:
    matrix = make_matrix(96, 1792, group=group)
    weight = make_four_bit(matrix, kernels)
    assert_multiplies(weight, plain_matrix(matrix), torch.float32, wide_tolerance(kernels))


def test_fp4_multiplies_like_the_reference(kernels: KernelChoice) -> None:
    matrix = make_matrix(128, 256, fp4=True, double_quant=False)
    weight = make_four_bit(matrix, kernels)
    assert weight.kind == "fp4"
    assert_multiplies(weight, plain_matrix(matrix), torch.float32, wide_tolerance(kernels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_multiplies_like_the_reference(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight, plain = make_int8(*shape)
    assert_multiplies(weight, plain, dtype, TOLERANCE[dtype])
    assert torch.equal(weight.dequantize(torch.float32), plain)


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("fp4", [True, False])
def test_packed_multiplies_like_the_reference(
    packing: KernelChoice, double_quant: bool, fp4: bool
) -> None:
    matrix = make_matrix(320, 1792, double_quant=double_quant, fp4=fp4)
    weight = make_four_bit(matrix, packing, packed=True)
    assert weight.packed is not None
    assert_multiplies(weight, plain_matrix(matrix), torch.bfloat16, PACKED_TOLERANCE)
    assert weight.nbytes == matrix.nbytes + 320 * 1792 // 2 + 320 * 1792 // 64 * 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_dequantize_is_bit_identical_to_the_reference(
    dtype: torch.dtype, kernels: KernelChoice
) -> None:
    for shape in SHAPES:
        matrix = make_matrix(*shape)
        weight = make_four_bit(matrix, kernels)
        assert torch.equal(weight.dequantize(dtype), plain_matrix(matrix, dtype))


@pytest.mark.parametrize("rows", [1, 2, 31, 500])
def test_a_matrix_of_many_chunks_equals_one_chunk(rows: int, kernels: KernelChoice) -> None:
    matrix = make_matrix(500, 588)  # groups cross rows, so chunks start at every 16th
    chunks = ChunkBytes(few_rows=588 * 4 * 50, many_rows=588 * 4 * 100)
    small = replace(kernels, four_bit=in_chunks(kernels.four_bit, chunks))
    weight = make_four_bit(matrix, small)
    x, bias = random(rows, 588), random(500)
    many = weight.multiply(x, bias)
    assert relative_error(many, F.linear(x, plain_matrix(matrix), bias).double()) < 1e-5


@pytest.mark.parametrize(("rows", "limit"), [(1, 4 << 20), (64, 16 << 20)])
def test_plain_weights_never_take_more_than_the_scratch_that_is_planned(
    rows: int, limit: int
) -> None:
    columns, scratch = 4096, Scratch(CPU)

    def fill(start: int, end: int, out: Tensor) -> None:
        out.zero_()

    x = torch.zeros(rows, columns, dtype=torch.bfloat16)
    dequantize.multiply_in_chunks(
        x, None, out_features=4096, multiple=1, fill=fill, scratch=scratch
    )
    assert scratch.nbytes == limit  # of 32 MiB


def test_multiplying_leaves_the_stored_bytes_alone(packing: KernelChoice) -> None:
    matrix = make_matrix(64, 128)
    before = [t.clone() for t in (matrix.codes, matrix.absmax)]
    weight = make_four_bit(matrix, packing, packed=True)
    expected = plain_matrix(matrix)
    for rows in (1, 100):
        weight.multiply(random(rows, 128, dtype=torch.bfloat16), None)
    assert torch.equal(matrix.codes, before[0])
    assert torch.equal(matrix.absmax, before[1])
    assert torch.equal(weight.dequantize(torch.float32), expected)


# --- which path is taken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "dtype", "name"),
    [
        (1, torch.bfloat16, "packed"),
        (PACKED_MAX_ROWS, torch.bfloat16, "packed"),
        (PACKED_MAX_ROWS + 1, torch.bfloat16, "dequantize"),
        (1, torch.float32, "dequantize"),
        (1, torch.float16, "dequantize"),
    ],
)
def test_the_packed_kernel_is_for_few_rows_in_bfloat16(
    packing: KernelChoice, rows: int, dtype: torch.dtype, name: str
) -> None:
    weight = make_four_bit(make_matrix(64, 128), packing, packed=True)
    assert weight.kernels.first(rows, 64, 128, 64, dtype).name == name


@pytest.mark.parametrize("shape", [(33, 128), (64, 100)])
def test_a_shape_that_does_not_fit_the_packed_layout_is_multiplied_anyway(
    packing: KernelChoice, shape: tuple[int, int]
) -> None:
    matrix = make_matrix(*shape)
    weight = make_four_bit(matrix, packing, packed=True)
    assert weight.packed is None
    assert_multiplies(weight, plain_matrix(matrix), torch.bfloat16, TOLERANCE[torch.bfloat16])


def test_scratch_is_reused_and_shared() -> None:
    scratch = Scratch(CPU)
    kernels = choose_kernels(CPU, torch.float32, "torch")
    weights = [place_four_bit(make_matrix(rows, 128), kernels, scratch) for rows in (64, 256, 32)]
    for weight in weights:
        weight.multiply(random(3, 128), None)
    held = scratch.nbytes
    assert held == 256 * 128 * 4 + 256 * 128 // 64 * 4  # plain weights and their scales
    for weight in weights:
        weight.multiply(random(3, 128), None)
    assert scratch.nbytes == held


def test_placing_a_matrix_leaves_the_scratch_alone(packing: KernelChoice) -> None:
    """Another thread may be multiplying with it."""
    scratch = Scratch(CPU)
    weight = place_four_bit(make_matrix(64, 128), packing, scratch, packed=True)
    assert weight.packed is not None
    assert scratch.nbytes == 0


# --- the choice of kernels ------------------------------------------------------------------------


def test_every_choice_gives_its_reason() -> None:
    for dtype in DTYPES:
        chosen = choose_kernels(CPU, dtype)
        assert chosen.name in choice.KERNELS
        assert chosen.reason
        assert chosen.packs == (chosen.name == "packed")
    assert choose_kernels(CPU, torch.bfloat16, "torch").reason == "torch was asked for"


def test_only_bfloat16_packs() -> None:
    assert not choose_kernels(CPU, torch.float32).packs
    assert not choose_kernels(CPU, torch.float16).packs


@pytest.mark.parametrize("name", ["cuda", "fastest"])
def test_kernels_that_are_not_here_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        choose_kernels(CPU, torch.bfloat16, name)


def fail_to_open() -> BitsandbytesCpu:
    raise OSError("bitsandbytes is not installed")


def test_without_the_library_the_plain_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "open_bitsandbytes", fail_to_open)
    chosen = choose_kernels(CPU, torch.bfloat16)
    assert (chosen.name, chosen.reason) == ("torch", "bitsandbytes is not installed")
    with pytest.raises(UsageError, match="bitsandbytes is not installed"):
        choose_kernels(CPU, torch.bfloat16, "bitsandbytes")


class WrongLibrary:
    """A library of another version: it leaves every buffer untouched, or fills it wrongly."""

    has_packed = True

    def __init__(self, right: BitsandbytesCpu | None) -> None:
        self._right = right

    def dequantize(
        self, codes: Tensor, absmax: Tensor, out: Tensor, *, quant_type: str, group: int
    ) -> None:
        out.zero_()
        if self._right is not None:
            self._right.dequantize(codes, absmax, out, quant_type=quant_type, group=group)

    def expand_scales(self, *pieces: object) -> None:
        raise AssertionError("not to be called")

    def multiply_packed(
        self, x: Tensor, packed: Tensor, scales: Tensor, out: Tensor, *, quant_type: str, group: int
    ) -> None:
        out.zero_()


def test_a_library_that_dequantizes_wrongly_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "open_bitsandbytes", lambda: WrongLibrary(None))
    chosen = choose_kernels(CPU, torch.bfloat16)
    assert chosen.name == "torch"
    assert "other numbers" in chosen.reason


@pytest.mark.cuda
@pytest.mark.parametrize(("right", "name"), [(True, "cuda"), (False, "torch")])
def test_gpu_kernels_are_used_only_if_their_numbers_are_right(
    right: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_bitsandbytes_dequantizes_right", lambda device: right)
    monkeypatch.setattr(choice, "rows_together", lambda device, dtype: 3)
    assert choose_kernels(torch.device("cuda"), torch.bfloat16).name == name


@pytest.mark.cuda
def test_gpu_kernels_that_fail_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> bool:
        raise RuntimeError("no kernel image for this GPU\nand many more lines")

    monkeypatch.setattr(choice, "_bitsandbytes_dequantizes_right", fail)
    chosen = choose_kernels(torch.device("cuda"), torch.bfloat16)
    assert chosen.name == "torch"
    assert chosen.reason.endswith("does not work here: no kernel image for this GPU")


def assert_each_as_alone(weight: StoredWeight, rows: int, columns: int, dtype: torch.dtype) -> None:
    """Rows of different conversations must not show in each other, not even in the last bit."""
    xs = list(random(9, columns, dtype=dtype, seed=4).view(9, 1, 1, columns))
    bias = random(rows, dtype=dtype, seed=5)
    for given in (None, bias):
        alone = [weight.multiply(x, given) for x in xs]
        for height in (1, 2, 3, 4, 5, 9):
            together = weight.multiply_each(xs[:height], given)
            assert len(together) == height
            assert all(map(torch.equal, together, alone))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (4096, 1024)])
@pytest.mark.parametrize("name", ["torch", "bitsandbytes", "packed", "gemv"])
def test_each_of_several_rows_of_a_4_bit_matrix_is_multiplied_as_if_alone(
    name: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    try:
        kernels = choose_kernels(CPU, torch.bfloat16 if name == "packed" else dtype, name)
    except UsageError as error:
        pytest.skip(error.message)
    weight = make_four_bit(make_matrix(*shape), kernels, packed=name == "packed")
    assert_each_as_alone(weight, *shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (4096, 1024)])
def test_each_of_several_rows_of_another_matrix_is_multiplied_as_if_alone(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    plain = random(*shape).to(dtype)
    assert_each_as_alone(DenseWeight(weight=plain), *shape, dtype)
    weight, _ = make_int8(*shape)
    assert_each_as_alone(weight, *shape, dtype)
    small = in_chunks(weight.kernels, ChunkBytes(few_rows=4096))
    assert_each_as_alone(replace(weight, kernels=small), *shape, dtype)


def test_each_of_several_rows_of_a_plain_matrix_is_multiplied_as_if_alone_by_the_c_kernel(
    own: Own,
) -> None:
    for shape in ((259, 1792), (4096, 1024), (64, 192)):
        weight = DenseWeight(weight=random(*shape).bfloat16(), kernels=own.choice.dense)
        assert_each_as_alone(weight, *shape, torch.bfloat16)


@pytest.mark.usefixtures("no_library")
def test_a_packed_kernel_that_multiplies_wrongly_is_not_used(
    packing: KernelChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "open_bitsandbytes", lambda: WrongLibrary(open_bitsandbytes()))
    chosen = choose_kernels(CPU, torch.bfloat16)
    assert chosen.name == "bitsandbytes"
    assert "AVX512-BF16 kernel gives other numbers" in chosen.reason


# --- our C kernel ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("shape", [(64, 128), (33, 192), (320, 1792), (7, 4096), (50, 64)])
@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_the_c_kernel_multiplies_like_the_reference(
    own: Own, shape: tuple[int, int], rows: int, double_quant: bool, dtype: torch.dtype
) -> None:
    matrix = make_matrix(*shape, double_quant=double_quant)
    x, plain = random(rows, shape[1], dtype=dtype), plain_matrix(matrix)
    got = four_bit(own, matrix, x)
    exact = x.double() @ plain.double().t()
    assert got.dtype == dtype
    assert (got - exact).norm() / exact.norm() < TOLERANCE[dtype]


@pytest.mark.parametrize("group", [128, 256])
def test_the_c_kernel_reads_larger_groups(own: Own, group: int) -> None:
    for dtype in DTYPES:
        matrix = make_matrix(31, 1792, group=group)
        x = random(3, 1792, dtype=dtype)
        exact = x.double() @ plain_matrix(matrix).double().t()
        got = four_bit(own, matrix, x)
        assert (got - exact).norm() / exact.norm() < TOLERANCE[dtype]


def test_scales_are_those_of_the_reference_where_two_outer_scales_meet(own: Own) -> None:
    # Rows of 3 groups: the 256 scales that share an outer one end in the middle of a row.
    matrix = make_matrix(700, 192)
    columns = torch.eye(192)
    got = torch.cat([four_bit(own, matrix, rows) for rows in columns.split(8)])
    assert torch.equal(got.t(), plain_matrix(matrix))


@pytest.fixture(params=[AVX2, AVX512, AMX], ids=["avx2", "avx512", "amx"])
def each_level(own: Own, request: pytest.FixtureRequest) -> Own:
    """The C kernel as it runs on processors with fewer instructions than this one."""
    library = open_library()
    if request.param > library.level:
        pytest.skip("the CPU has no AVX512-BF16")
    lower = replace(library, level=request.param)
    return replace(own, integer=IntegerKernel(lower), dequantizer=GemvDequantizer(lower))


@pytest.mark.parametrize("shape", [(700, 192), (500, 4096), (37, 14336), (18, 8256), (17, 20544)])
def test_whole_numbers_lose_less_than_rounding_the_result_to_bfloat16(
    each_level: Own, shape: tuple[int, int]
) -> None:
    matrix, x = make_matrix(*shape), random(8, shape[1], dtype=torch.bfloat16)
    got = four_bit(each_level, matrix, x)
    exact = (x.double() @ plain_matrix(matrix).double().t()).bfloat16()
    # With levels rounded to bfloat16 six of ten agree.
    assert (got == exact).double().mean() > 0.88


def test_small_inputs_beside_large_ones_keep_their_share(each_level: Own) -> None:
    matrix, x = make_matrix(64, 256), random(4, 256) * 1e-3
    x[:, ::64] = 300.0
    x = x.bfloat16()
    plain = plain_matrix(matrix)
    got = four_bit(each_level, matrix, x).double()
    exact = x.double() @ plain.double().t()
    # Half a step of inputs (2^-14 of 256), half a step of levels, and the result's rounding.
    bound = 2**-6 * plain.abs().sum(1) / 2 + 2**-15 * 256 * plain.abs().amax() * 8
    assert ((got - exact).abs() <= bound + exact.abs() * 2**-8).all()


def test_inputs_that_are_no_numbers_make_their_row_none(each_level: Own) -> None:
    matrix, x = make_matrix(33, 192), random(5, 192, dtype=torch.bfloat16)
    alone = four_bit(each_level, matrix, x)
    for row, value in ((0, float("inf")), (1, -float("inf")), (3, float("nan"))):
        x[row, 70] = value
    got = four_bit(each_level, matrix, x)
    assert not got[[0, 1, 3]].isfinite().any()
    assert torch.equal(got[[2, 4]], alone[[2, 4]])


@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-37, 1e-30, 1e30])
def test_inputs_of_any_size_are_multiplied(each_level: Own, size: float) -> None:
    matrix = make_matrix(16, 192)
    x = (random(2, 192).double() * size).bfloat16()
    got = four_bit(each_level, matrix, x).double()
    exact = x.double() @ plain_matrix(matrix).double().t()
    assert got.isfinite().all()
    # Below 2^-100 inputs have a common step, 2^-113.
    assert ((got - exact).abs() <= exact.abs().amax() * 0.005 + 2**-113 * 192).all()


def test_the_largest_products_do_not_overflow(each_level: Own) -> None:
    """All codes the outermost level, all inputs the largest below a power of two."""
    matrix = make_matrix(8, 256, double_quant=False)
    matrix.absmax.fill_(1.0)
    for byte, sign in ((0xFF, 1.0), (0x00, -1.0)):
        matrix.codes.fill_(byte)
        x = torch.full((1, 256), 1.9921875).bfloat16()
        got = four_bit(each_level, matrix, x)
        assert got.tolist() == [[sign * 1.9921875 * 256] * 8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(320, 1792), (37, 14336), (18, 8256)])
def test_a_row_does_not_depend_on_its_neighbours_or_on_the_threads(
    each_level: Own, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    matrix, x = make_matrix(*shape), random(7, shape[1], dtype=dtype)
    together = four_bit(each_level, matrix, x)
    for row in range(7):
        alone = four_bit(each_level, matrix, x[row : row + 1])
        assert torch.equal(alone, together[row : row + 1])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(four_bit(each_level, matrix, x), together)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("group", [64, 256])
@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("fp4", [True, False])
def test_the_c_kernel_dequantizes_any_rows_to_the_bit(
    each_level: Own, group: int, double_quant: bool, fp4: bool
) -> None:
    dequantizer = each_level.dequantizer
    for shape in ((37, 14336), (700, 768), (3, 256)):
        matrix = make_matrix(*shape, group=group, double_quant=double_quant, fp4=fp4)
        for dtype in (torch.float32, torch.bfloat16):
            if not dequantizer.takes(columns=shape[1], group=group, dtype=dtype):
                assert (dequantizer.level, dtype) == (AVX2, torch.bfloat16)
                continue
            whole = plain_matrix(matrix, dtype)
            for start, end in ((0, shape[0]), (1, shape[0]), (2, 3)):
                out = torch.empty(end - start, shape[1], dtype=dtype)
                dequantizer.dequantize(matrix, start, out)
                assert torch.equal(out, whole[start:end])


def test_strange_scales_are_dequantized_as_torch_does(own: Own) -> None:
    strange = (0.0, -0.0, 1e-38, 3e-39, 1e-45, float("inf"), -float("inf"), float("nan"), 3e38)
    matrix = make_matrix(16, 64, double_quant=False)
    for scale in strange:
        matrix.absmax.fill_(scale)
        for dtype in (torch.float32, torch.bfloat16):
            if own.dequantizer.takes(columns=64, group=64, dtype=dtype):
                out = torch.empty(16, 64, dtype=dtype)
                own.dequantizer.dequantize(matrix, 0, out)
                assert torch.equal(out.isnan(), plain_matrix(matrix, dtype).isnan())
                assert torch.equal(out.nan_to_num(), plain_matrix(matrix, dtype).nan_to_num())


def test_the_c_kernels_are_for_few_rows_of_whole_groups(each_level: Own) -> None:
    integer, gemv = each_level.integer, each_level.gemv
    most = 32 if integer.level == AMX else 9217
    for kernel, dtype, limit in (
        (integer, torch.bfloat16, most), (gemv, torch.float32, 16), (gemv, torch.float16, 16),
    ):  # fmt: skip
        for count in (1, limit, limit + 1):
            fits = kernel.takes(count, height=64, columns=4096, group=64, dtype=dtype)
            assert fits == (count <= limit or (kernel is integer and integer.level < AMX))
        assert not kernel.takes(1, height=64, columns=100, group=64, dtype=dtype)
        assert not kernel.takes(1, height=64, columns=4096, group=32, dtype=dtype)
        assert not kernel.takes(1, height=64, columns=1 << 17, group=64, dtype=dtype)


def test_more_rows_than_one_pass_takes_are_each_multiplied_as_alone(own: Own) -> None:
    matrix, x = make_matrix(37, 4096), random(24, 4096, dtype=torch.bfloat16)
    together = make_four_bit(matrix, only_gemv(own)).multiply(x, None)
    assert torch.equal(together, four_bit(own, matrix, x))
    alone = torch.cat([four_bit(own, matrix, x[row : row + 1]) for row in range(24)])
    assert torch.equal(four_bit(own, matrix, x), alone)


def test_one_row_of_a_plain_bfloat16_matrix(own: Own) -> None:
    plain = random(259, 1792).bfloat16()
    weight = DenseWeight(weight=plain, kernels=own.choice.dense)
    x = random(1, 1, 1792, seed=1).bfloat16()
    bias = random(259, seed=2).bfloat16()
    exact = x.double() @ plain.double().t() + bias.double()
    got = weight.multiply(x, bias)
    assert got.shape == (1, 1, 259)
    assert (got - exact).norm() / exact.norm() < TOLERANCE[torch.bfloat16]
    kernels = own.choice.dense
    name = "dense" if own.integer.level >= AVX512 else "torch"
    assert kernels.first(1, 64, 1792, 0, torch.bfloat16).name == name
    assert kernels.first(32, 64, 1792, 0, torch.bfloat16).name == name
    assert kernels.first(33, 64, 1792, 0, torch.bfloat16).name == "torch"
    assert kernels.first(1, 64, 1792, 0, torch.float32).name == "dense"
    assert kernels.first(1, 64, 1792, 0, torch.float16).name == "torch"


def test_a_library_built_before_a_change_of_its_functions_is_not_called(
    tmp_path: Path,
) -> None:
    (tmp_path / "_rows.cpython-311-x86_64-linux-gnu.so").touch()
    (tmp_path / "_rows_1.cpython-311-x86_64-linux-gnu.so").touch()
    assert built.built_kernel.__wrapped__(tmp_path) is None
    new = tmp_path / f"{built.NAME}.cpython-311-x86_64-linux-gnu.so"
    new.touch()
    assert built.built_kernel.__wrapped__(tmp_path) == new


def test_the_library_has_one_name() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    (module,) = tomllib.loads(pyproject.read_text())["tool"]["setuptools"]["ext-modules"]
    assert module["name"].rpartition(".")[2] == built.NAME


@pytest.mark.usefixtures("no_library")
def test_without_a_compiler_everything_works_and_the_reason_is_told() -> None:
    chosen = choose_kernels(CPU, torch.float32)
    assert chosen.name == "bitsandbytes"
    assert chosen.reason.endswith("our C kernel was not built")
    with pytest.raises(UsageError, match="not built"):
        choose_kernels(CPU, torch.float32, "gemv")


def test_a_c_kernel_that_dequantizes_wrongly_is_not_used(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: GemvDequantizer, matrix: FourBitMatrix, start: int, out: Tensor) -> None:
        out.zero_()

    monkeypatch.setattr(GemvDequantizer, "dequantize", wrong)
    for level in LEVEL_NAMES:
        monkeypatch.setenv(CPU_LEVEL, level)
        chosen = choose_kernels(CPU, torch.float32)
        assert chosen.name != "gemv"
        assert "our C kernel gives other numbers" in chosen.reason


def test_a_c_kernel_that_multiplies_wrongly_is_not_used(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: GemvKernel, x: Tensor, matrix: FourBitMatrix, *more: object) -> Tensor:
        return torch.zeros(len(x), matrix.rows, dtype=x.dtype)

    monkeypatch.setattr(GemvKernel, "multiply", wrong)
    monkeypatch.setattr(IntegerKernel, "multiply", wrong)
    for level in LEVEL_NAMES:
        monkeypatch.setenv(CPU_LEVEL, level)
        chosen = choose_kernels(CPU, torch.bfloat16)
        assert chosen.name != "gemv"
        assert "our C kernel gives other numbers" in chosen.reason


def test_without_avx512_bf16_products_of_any_number_of_rows_are_of_integers(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in ("avx2", "avx-vnni"):
        monkeypatch.setenv(CPU_LEVEL, level)
        chosen = choose_kernels(CPU, torch.float32)
        assert chosen.name == "gemv"
        assert "multiplies integers faster than float32" in chosen.reason
        for rows in (1, 16, 33, 9217):
            for kernels in (chosen.four_bit, chosen.int8):
                assert kernels.first(rows, 4096, 1792, 64, torch.float32).name == "integer"
            assert chosen.four_bit.first(rows, 64, 100, 64, torch.float32).name != "integer"
    monkeypatch.delenv(CPU_LEVEL)
    if open_library().level >= AVX512:
        chosen = choose_kernels(CPU, torch.float32)
        assert chosen.four_bit.first(100, 4096, 1792, 64, torch.float32).name == "dequantize"


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cogvlm2_lite.weights.kernels.library.built_kernel", lambda: None)
    with pytest.raises(OSError, match="no C compiler"):
        open_library()


def four_bit(own: Own, matrix: FourBitMatrix, x: Tensor) -> Tensor:
    """Multiply by our C kernel, whatever is fastest."""
    kernel = own.integer if x.dtype == torch.bfloat16 else own.gemv
    return kernel.multiply(x, matrix, None, Scratch(CPU))


# --- int8 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [64, 100, 192])
def test_int8_codes_become_code_times_scale(dtype: torch.dtype, columns: int) -> None:
    weight, plain = make_int8(10, columns)
    out = dequantize_int8(
        weight.matrix.codes, weight.matrix.scales, torch.empty(10, columns, dtype=dtype)
    )
    assert torch.equal(out, plain.to(dtype))


# --- on a GPU -------------------------------------------------------------------------------------


def on_cpu_with_cuda_kernel(matrix: FourBitMatrix) -> StoredWeight:
    kernels = QuantizedKernels(CudaKernel(CPU), dequantizers=Dequantizers(TorchDequantizer()))
    return QuantizedWeight(kind="nf4", matrix=matrix, kernels=kernels, scratch=Scratch(CPU))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("double_quant", [True, False])
def test_the_fused_gpu_operator_is_called_rightly(dtype: torch.dtype, double_quant: bool) -> None:
    """bitsandbytes has the operator for the CPU too, with the same arguments."""
    import bitsandbytes  # noqa: F401

    matrix = make_matrix(96, 192, double_quant=double_quant)
    weight, plain = on_cpu_with_cuda_kernel(matrix), plain_matrix(matrix)
    assert weight.nbytes == matrix.nbytes
    assert_multiplies(weight, plain, dtype, TOLERANCE[dtype])


CUDA_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.004, torch.float16: 0.001}


def on_cuda(matrix: FourBitMatrix) -> FourBitMatrix:
    def move(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.cuda()

    return replace(
        matrix,
        codes=matrix.codes.cuda(),
        absmax=matrix.absmax.cuda(),
        levels=matrix.levels.cuda(),
        nested_absmax=move(matrix.nested_absmax),
        nested_map=move(matrix.nested_map),
        offset=move(matrix.offset),
    )


def place_with_bitsandbytes(matrix: FourBitMatrix) -> StoredWeight:
    chosen = choose_kernels(CUDA, torch.bfloat16)
    assert chosen.name == "cuda", chosen.reason
    return place_four_bit(on_cuda(matrix), chosen, Scratch(CUDA))


def place_plain(matrix: FourBitMatrix) -> StoredWeight:
    kernels = choose_kernels(CUDA, torch.bfloat16, "torch")
    return place_four_bit(on_cuda(matrix), kernels, Scratch(CUDA))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("place", [place_with_bitsandbytes, place_plain])
def test_nf4_on_a_gpu_multiplies_like_the_reference(
    shape: tuple[int, int],
    dtype: torch.dtype,
    double_quant: bool,
    place: Callable[[FourBitMatrix], StoredWeight],
) -> None:
    matrix = make_matrix(*shape, double_quant=double_quant)
    weight, plain = place(matrix), plain_matrix(matrix)
    assert torch.equal(weight.dequantize(dtype).cpu(), plain.to(dtype))
    for rows in (1, 4, 5, 40, 600):
        x, bias = random(rows, shape[1], dtype=dtype), random(shape[0], dtype=dtype)
        exact = x.double() @ plain.to(dtype).double().t() + bias.double()
        result = weight.multiply(x.cuda(), bias.cuda()).cpu()
        assert relative_error(result, exact) < CUDA_TOLERANCE[dtype]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_int8_on_a_gpu_multiplies_like_the_reference(dtype: torch.dtype) -> None:
    weight, plain = make_int8(96, 200)
    matrix = Int8Matrix(codes=weight.matrix.codes.cuda(), scales=weight.matrix.scales.cuda())
    moved = place_int8(matrix, choose_kernels(CUDA, dtype, "torch"), Scratch(CUDA))
    x = random(9, 200, dtype=dtype)
    exact = x.double() @ plain.to(dtype).double().t()
    assert relative_error(moved.multiply(x.cuda(), None).cpu(), exact) < CUDA_TOLERANCE[dtype]
