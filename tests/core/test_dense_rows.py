"""Up to 32 rows times a dense matrix in C: each has the bits that it has alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.dense_rows import DenseRows
from cogvlm2_lite.weights.kernels.library import AMX, AVX2, AVX512, open_library
from cogvlm2_lite.weights.kernels.scratch import Scratch

CPU = torch.device("cpu")
BF16, FLOAT = torch.bfloat16, torch.float32
KERNELS = [(AVX2, FLOAT), (AVX512, BF16), (AMX, BF16)]
SHAPES = [(259, 192), (33, 1088), (32, 4160), (7, 64)]


def random(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def kernel_of(level: int) -> DenseRows:
    try:
        library = open_library()
    except OSError as error:
        pytest.skip(str(error))
    if library.level < level:
        pytest.skip(f"the CPU has no level {level}")
    return DenseRows(replace(library, level=level))


def product(kernel: DenseRows, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    return kernel.multiply(x, matrix, bias, Scratch(CPU))


@pytest.mark.parametrize(("level", "dtype"), KERNELS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_have_the_bits_that_they_have_alone(
    shape: tuple[int, int], level: int, dtype: torch.dtype
) -> None:
    kernel, matrix = kernel_of(level), random(*shape, seed=1, dtype=dtype)
    x, bias = random(67, shape[1], seed=2, dtype=dtype), random(shape[0], seed=3, dtype=dtype)
    alone = torch.cat([product(kernel, row[None], matrix, bias) for row in x])
    exact = x.double() @ matrix.double().t() + bias.double()
    limit = 4e-3 if dtype == BF16 else 2e-6
    assert float((alone.double() - exact).norm() / exact.norm()) < limit
    before = torch.get_num_threads()
    try:
        for rows in (*range(1, 34), 67):
            torch.set_num_threads(1 + rows % 3)
            assert torch.equal(product(kernel, x[:rows], matrix, bias), alone[:rows])
            assert torch.equal(product(kernel, x[-rows:], matrix, bias), alone[-rows:])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("level", "dtype"), KERNELS, ids=str)
def test_an_infinity_or_nan_stays_in_its_row(level: int, dtype: torch.dtype) -> None:
    kernel, matrix = kernel_of(level), random(40, 128, seed=1, dtype=dtype)
    x = random(20, 128, seed=2, dtype=dtype)
    clean = product(kernel, x, matrix)
    x[3, 7], x[17, 100] = float("inf"), float("nan")
    found = product(kernel, x, matrix)
    assert not found[[3, 17]].isfinite().any()
    others = [row for row in range(20) if row not in (3, 17)]
    assert torch.equal(found[others], clean[others])


def test_what_the_kernel_takes() -> None:
    kernel = kernel_of(AVX2)
    sizes = {"height": 64, "columns": 192, "group": 0}
    assert kernel.takes(32, dtype=FLOAT, **sizes)
    assert not kernel.takes(33, dtype=FLOAT, **sizes)
    assert not kernel.takes(1, dtype=BF16, **sizes)
    assert not kernel.takes(1, dtype=torch.float16, **sizes)
    assert not kernel.takes(1, dtype=FLOAT, height=64, columns=100, group=0)
