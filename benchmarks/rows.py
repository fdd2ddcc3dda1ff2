"""Measure how the time of a product grows with the number of rows of inputs.

    python -m benchmarks.rows [--json FILE] [--repeats 5] [--level avx512 ...]

For each level of instructions that this processor has: the linear layers of a decoder layer of the
19B model with random codes, in CPU time on one thread. Each number of rows alternates with one row,
and the figure is the median of the ratios of the pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine
from cogvlm2_lite.weights.catalog import INT8_GROUP
from cogvlm2_lite.weights.kernels.gemv import IntegerKernel
from cogvlm2_lite.weights.kernels.library import LEVEL_NAMES, open_library
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dynamic_map
from cogvlm2_lite.weights.kernels.scratch import Scratch

SHAPES = ((6144, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
"""qkv, attention out, gate, up, down: [rows, columns]."""

ROWS = (2, 4, 8, 16, 32)
SCRATCH = Scratch(torch.device("cpu"))


def nf4_matrix(rows: int, columns: int) -> FourBitMatrix:
    groups = rows * columns // INT8_GROUP
    return FourBitMatrix(
        rows=rows,
        columns=columns,
        group=INT8_GROUP,
        quant_type="nf4",
        codes=torch.randint(0, 256, (rows * columns // 2, 1), dtype=torch.uint8),
        absmax=torch.randint(0, 256, (groups,), dtype=torch.uint8),
        levels=torch.tensor(NF4_LEVELS),
        nested_absmax=torch.rand(-(-groups // SCALE_GROUP)) * 0.01,
        nested_map=dynamic_map(),
        nested_offset=0.01,
    )


def int8_matrix(rows: int, columns: int) -> Int8Matrix:
    codes = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    return Int8Matrix(codes=codes, scales=torch.rand(rows, columns // INT8_GROUP) * 1e-3)


def layer_ms(
    kernel: IntegerKernel, matrices: Sequence[FourBitMatrix | Int8Matrix], rows: int
) -> float:
    """Return the CPU time of all matrices times so many rows, in milliseconds."""
    inputs = {columns: torch.randn(rows, columns).bfloat16() for _, columns in SHAPES}
    start = time.process_time()
    for matrix in matrices:
        kernel.multiply(inputs[matrix.columns], matrix, None, SCRATCH)
    return (time.process_time() - start) * 1000


def measure(names: Sequence[str], repeats: int) -> Iterator[dict[str, Any]]:
    """Yield a figure for each level, kind of matrix and number of rows."""
    library = open_library()
    for kind, make in (("NF4", nf4_matrix), ("int8", int8_matrix)):
        matrices = [make(*shape) for shape in SHAPES]
        for name in names:
            level = LEVEL_NAMES[name]
            if library.functions.cpu_level(level) != level:
                continue
            kernel = IntegerKernel(replace(library, level=level))
            layer_ms(kernel, matrices, 1)
            for rows in ROWS:
                pairs = [
                    (layer_ms(kernel, matrices, 1), layer_ms(kernel, matrices, rows))
                    for _ in range(repeats)
                ]
                yield {
                    "kind": kind,
                    "level": name,
                    "rows": rows,
                    "one_row_ms": statistics.median(one for one, _ in pairs),
                    "ms": statistics.median(several for _, several in pairs),
                    "ratio": statistics.median(several / one for one, several in pairs),
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--level", nargs="+", choices=LEVEL_NAMES, default=["avx2", "avx-vnni", "avx512"]
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = []
    for figure in measure(options.level, options.repeats):
        figures.append(figure)
        print(
            f"{figure['kind']:5} {figure['level']:9} {figure['rows']:3} rows"
            f" {figure['ms']:8.1f} ms, 1 row {figure['one_row_ms']:6.1f} ms:"
            f" {figure['ratio']:5.2f} times",
            flush=True,
        )
    if options.json:
        report = {"machine": describe_machine(), "repeats": options.repeats, "figures": figures}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
