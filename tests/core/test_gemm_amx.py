"""Many rows on a processor with AMX (kernels/gemm_amx.c); skipped on others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cogvlm2_lite.backends.cpu import cpu_flags
from cogvlm2_lite.backends.cpu_level import AMX, CPU_LEVEL, highest_level
from cogvlm2_lite.weights.kernels import choice
from cogvlm2_lite.weights.kernels.built import built_kernel
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.gemm_amx import GemmAmxKernel, open_gemm_amx
from cogvlm2_lite.weights.kernels.library import open_library
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.scales import expand_with_torch
from cogvlm2_lite.weights.kernels.scratch import Scratch
from tests.helpers.matrices import make_four_bit, make_matrix, plain_matrix, random

CPU, BF16 = torch.device("cpu"), torch.bfloat16


@pytest.fixture(scope="module")
def amx() -> GemmAmxKernel:
    if built_kernel() is None:
        pytest.skip("no C compiler at installation")
    if not {"amx_bf16", "avx512_bf16"} <= cpu_flags():
        pytest.skip("a processor without AMX for bfloat16")
    if highest_level() < AMX:
        pytest.skip(f"{CPU_LEVEL} excludes AMX")
    found = open_gemm_amx(open_library(), expand_with_torch)
    assert found is not None, "the processor has AMX, and the library says that it does not work"
    return found


def multiply(
    amx: GemmAmxKernel, matrix: FourBitMatrix, x: Tensor, bias: Tensor | None = None
) -> Tensor:
    return amx.multiply(x, matrix, bias, Scratch(CPU))


@pytest.mark.parametrize("inputs", [1, 17, 33, 100, 1100])
@pytest.mark.parametrize(
    "shape", [(16, 64), (7, 192), (100, 320), (600, 1088), (300, 2176), (33, 4160)]
)
def test_results_are_those_of_the_rounded_matrix(
    amx: GemmAmxKernel, shape: tuple[int, int], inputs: int
) -> None:
    matrix = make_matrix(*shape)
    x, bias = random(inputs, shape[1], seed=1).bfloat16(), random(shape[0], seed=2).bfloat16()
    exact = x.double() @ plain_matrix(matrix).bfloat16().double().t()
    for given in (None, bias):
        wanted = exact if given is None else exact + given.double()
        got = multiply(amx, matrix, x, given)
        assert got.dtype == BF16
        # Half a step of the last bit of the largest, and as much again for the sum.
        assert ((got - wanted).abs() <= wanted.abs() * 2**-8 + wanted.abs().amax() * 1e-5).all()


@pytest.mark.parametrize("group", [64, 128])
def test_groups_of_more_than_64_and_plain_scales(amx: GemmAmxKernel, group: int) -> None:
    matrix = make_matrix(48, 256, group=group, double_quant=False)
    x = random(40, 256, seed=1).bfloat16()
    wanted = F.linear(x.double(), plain_matrix(matrix).bfloat16().double())
    got = multiply(amx, matrix, x)
    assert (got - wanted).norm() / wanted.norm() < 0.003


def test_a_row_depends_on_nothing_else(amx: GemmAmxKernel) -> None:
    matrix = make_matrix(600, 1088)
    x = random(2100, 1088, seed=1).bfloat16()
    x[5] = torch.nan
    together = multiply(amx, matrix, x)
    assert together[5].isnan().all()
    assert together[:5].isfinite().all()
    assert together[6:].isfinite().all()
    for rows in (slice(0, 5), slice(6, 40), slice(1000, 2100), slice(2099, 2100)):
        assert torch.equal(multiply(amx, matrix, x[rows]), together[rows])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 70):
            torch.set_num_threads(threads)
            assert torch.equal(multiply(amx, matrix, x[6:]), together[6:])
    finally:
        torch.set_num_threads(before)


def test_room_stays_within_what_the_plan_counts_on(amx: GemmAmxKernel) -> None:
    for columns in (1792, 4096, 14336, 15360):
        for inputs in (17, 512, 2306, 9217):
            for threads in (1, 2, 16, 44, 64):
                room = amx.room_bytes(inputs, columns=columns, threads=threads)
                assert room <= 28 * 2**20 + 64


def test_it_is_chosen_for_many_rows_of_bfloat16(amx: GemmAmxKernel) -> None:
    kernels = choose_kernels(CPU, BF16)
    assert chosen_for(kernels, 33) == "gemm_amx"
    assert chosen_for(kernels, 32) == "integer"
    assert kernels.reason.endswith("AVX512-BF16 and AMX")
    assert chosen_for(choose_kernels(CPU, torch.float32), 33) != "gemm_amx"
    assert amx.takes(33, height=64, columns=4096, group=64, dtype=BF16)
    assert not amx.takes(32, height=64, columns=4096, group=64, dtype=BF16)
    assert not amx.takes(33, height=64, columns=4096, group=64, dtype=torch.float32)
    assert not amx.takes(33, height=64, columns=4128, group=64, dtype=BF16)
    assert not amx.takes(33, height=64, columns=4096, group=32, dtype=BF16)
    matrix, x = make_matrix(96, 128), random(2, 20, 128).bfloat16()
    got = make_four_bit(matrix, kernels).multiply(x, None)
    assert torch.equal(got, multiply(amx, matrix, x.view(40, 128)).view(2, 20, 96))


def test_one_that_multiplies_wrongly_is_not_used(
    amx: GemmAmxKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = amx.multiply
    monkeypatch.setattr(GemmAmxKernel, "multiply", lambda _, *given: real(*given) + 1)
    chosen = choose_kernels(CPU, BF16)
    assert chosen.name == "gemv"
    assert chosen_for(chosen, 17) == "integer"
    assert chosen.reason.endswith("and AMX, whose kernel gives other numbers than it should")


def test_without_amx_it_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "open_gemm_amx", lambda library, expand: None)
    assert chosen_for(choose_kernels(CPU, BF16), 33) != "gemm_amx"


def chosen_for(kernels: KernelChoice, rows: int) -> str:
    """Return the name of the kernel that multiplies so many rows of bfloat16."""
    return kernels.four_bit.first(rows, 64, 4096, 64, BF16).name
