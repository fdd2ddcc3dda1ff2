"""Our CUDA kernels as machine code: they compile for every kind of card, and stay small.

NVRTC needs no GPU. Instructions for each weight are read off the code: bitsandbytes' kernel for one
row has 8.1.
"""

from __future__ import annotations

import re

import pytest

from cogvlm2_lite.weights.kernels.cuda.compiler import CompileError, Nvrtc
from cogvlm2_lite.weights.kernels.cuda.sources import KERNELS
from tests.emulated_cuda.own_kernels.machine_code import loops

ARCHITECTURES = [75, 80, 89, 90, 120]
MOST_REGISTERS = 80  # three blocks of 256 threads on a multiprocessor
MOST_INSTRUCTIONS = {"nested": 2.6, "flat": 2.6, "int8": 2.7, "dense": 1.3}  # for each weight
_WEIGHTS_OF_A_PRODUCT = 8  # of a lane, in a tile of [16, 16]


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    try:
        return Nvrtc()
    except CompileError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", ["product", "attention", "rows"])
def test_code_is_small_and_fast(nvrtc: Nvrtc, file: str, architecture: int) -> None:
    code = nvrtc.compile(file, architecture=architecture, bf16=architecture >= 80, report=True)
    names = [name for name, kernel in KERNELS.items() if kernel.file == file]
    assert sorted(re.findall(r"Compiling entry function '(\w+)'", code.log)) == sorted(names)
    assert not re.findall(r"[1-9]\d* bytes spill", code.log)
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", code.log)]
    assert len(registers) == len(names)
    assert max(registers) <= MOST_REGISTERS
    if file != "product":
        return
    # Turing's products have half of the columns, so there are twice as many.
    weights = _WEIGHTS_OF_A_PRODUCT if architecture >= 80 else _WEIGHTS_OF_A_PRODUCT // 2
    for name in names:
        found = [loop for loop in loops(code.cubin, name, architecture) if loop.products]
        assert len(found) == (2 if name.startswith("gated") else 1)
        for loop in found:
            each = loop.instructions / (weights * loop.products)
            assert each <= MOST_INSTRUCTIONS[name.partition("_")[2]], (name, each)


def test_a_card_without_bfloat16_is_refused_with_the_reason(nvrtc: Nvrtc) -> None:
    with pytest.raises(CompileError, match=r"NVRTC refused product\.cu: .*sm_80"):
        nvrtc.compile("product", architecture=75, bf16=True)
