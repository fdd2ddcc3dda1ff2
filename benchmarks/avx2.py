"""Compare products of integers on AVX2 and AVX-VNNI with dequantizing and torch's float32.

    python -m benchmarks.avx2 [--repeats 7]

One thread and CPU time. Matrices have the shapes of one layer of the 19B model, in NF4. Both sides
of a comparison alternate, and the ratio is the median of the pairs. torch and MKL are limited to
AVX2. The limit is the rate of the instruction from registers (machine_limits.c), measured just
before each figure. Writes benchmarks/results/avx2.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {
    "OMP_WAIT_POLICY": "PASSIVE",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.machine_limits import Limits  # noqa: E402
from cogvlm2_lite.backends.cpu_level import LEVEL_NAMES  # noqa: E402
from cogvlm2_lite.weights.kernels.dequantize import DequantizeKernel  # noqa: E402
from cogvlm2_lite.weights.kernels.gemv import GemvDequantizer, IntegerKernel  # noqa: E402
from cogvlm2_lite.weights.kernels.interface import Dequantizers, Kernel  # noqa: E402
from cogvlm2_lite.weights.kernels.library import AVX2, Library, open_library  # noqa: E402
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix  # noqa: E402
from cogvlm2_lite.weights.kernels.nf4 import quantize_nf4  # noqa: E402
from cogvlm2_lite.weights.kernels.scratch import Scratch  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
CPU = torch.device("cpu")
DECODER = ((6144, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
VISION = ((5376, 1792), (1792, 1792), (15360, 1792), (1792, 15360))
ENCODE_ROWS = 2304
"""A quarter of the rows of a picture, so that a run stays short."""
FEW_ROWS = (2, 4, 8, 16, 32)


def peaks(limits: Limits) -> dict[str, float]:
    """Return the highest rates from registers of five runs, by name, per second."""
    runs = [limits.measure(only_registers=True) for _ in range(5)]
    return {name: 1e9 * max(run[name]["registers"] for run in runs) for name in runs[0]}


def made(shapes: tuple[tuple[int, int], ...]) -> list[FourBitMatrix]:
    """Return random matrices in NF4 with double quantization."""
    torch.manual_seed(0)
    return [quantize_nf4(torch.randn(rows, columns) * 0.02) for rows, columns in shapes]


def layer(
    kernel: Kernel[FourBitMatrix], matrices: list[FourBitMatrix], rows: int
) -> Callable[[], None]:
    """Return a function that multiplies each matrix by so many rows of float32."""
    widths = {matrix.columns for matrix in matrices}
    inputs = {columns: torch.randn(rows, columns) for columns in widths}
    scratch = Scratch(CPU)

    def work() -> None:
        for matrix in matrices:
            kernel.multiply(inputs[matrix.columns], matrix, None, scratch)

    return work


def seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def in_turn(works: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Return the times of some functions, run alternately."""
    for work in works.values():
        work()
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(repeats)]
    return {name: [one[name] for one in rounds] for name in works}


def ratios(of: list[float], to: list[float]) -> dict[str, float]:
    """Return the median, lowest and highest of the ratios of pairs."""
    pairs = [a / b for a, b in zip(of, to, strict=True)]
    return {"ratio": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}


def many_rows(
    kernels: dict[str, Kernel[FourBitMatrix]],
    matrices: list[FourBitMatrix],
    rows: int,
    limits: Limits,
    repeats: int,
) -> dict[str, Any]:
    """Compare many rows with dequantizing and with the limit of the instructions."""
    rates = peaks(limits)
    times = in_turn({name: layer(k, matrices, rows) for name, k in kernels.items()}, repeats)
    products = rows * sum(matrix.rows * matrix.columns for matrix in matrices)
    found: dict[str, Any] = {"rows": rows, "peaks": rates}
    for name in times:
        rate = products / median(times[name])
        limit = rates["float32" if name == "dequantize" else name]
        found[name] = {"ms": 1e3 * median(times[name]), "rate": rate, "share": rate / limit}
        if name != "dequantize":
            found[name] |= ratios(times["dequantize"], times[name])
    return found


def few_rows(kernel: Kernel[FourBitMatrix], matrices: list[FourBitMatrix], repeats: int) -> Any:
    """Compare few rows with one row, of two layers in turn: more bytes than most caches hold."""
    counts = (1, *FEW_ROWS)
    times = in_turn({str(n): layer(kernel, matrices, n) for n in counts}, repeats)
    return {
        name: {"ms": 1e3 * median(each)} | ratios(each, times["1"]) for name, each in times.items()
    }


median = statistics.median


def errors(kernel: Kernel[FourBitMatrix]) -> dict[str, dict[str, float]]:
    """Return relative errors against float64, and those of inputs and weights in bfloat16.

    Heavy-tailed inputs are normal numbers divided by the root of the mean of two squares of others
    (Student's t with 2 degrees of freedom), with a few channels 50 times as large.
    """
    torch.manual_seed(1)
    (matrix,) = made(((512, 4096),))
    dequantized = torch.empty(512, 4096)
    GemvDequantizer(open_library()).dequantize(matrix, 0, dequantized)
    weights = dequantized.double()
    normal = torch.randn(64, 4096)
    tails = normal / torch.randn(2, 64, 4096).square().mean(0).sqrt()
    tails[:, torch.randperm(4096)[:8]] *= 50
    found = {}
    for name, x in (("normal", normal), ("heavy tails", tails)):
        exact = x.double() @ weights.t()

        def error(result: Tensor, exact: Tensor = exact) -> float:
            return float((result.double() - exact).norm() / exact.norm())

        rounded = x.bfloat16().double() @ weights.bfloat16().double().t()
        found[name] = {
            "integers": error(kernel.multiply(x, matrix, None, Scratch(CPU))),
            "bfloat16": error(rounded),
        }
    return found


def measure(library: Library, repeats: int) -> dict[str, Any]:
    """Measure everything."""
    here = {
        name: IntegerKernel(replace(library, level=level))
        for name, level in LEVEL_NAMES.items()
        if name in ("avx2", "avx-vnni") and library.functions.cpu_level(level) == level
    }
    dequantize = DequantizeKernel(Dequantizers(GemvDequantizer(replace(library, level=AVX2))))
    report: dict[str, Any] = {"errors": errors(here["avx2"])}
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits(Path(folder))
        matrices = made(DECODER + DECODER)
        report["few"] = {name: few_rows(k, matrices, repeats) for name, k in here.items()}
        kernels: dict[str, Kernel[FourBitMatrix]] = {"dequantize": dequantize, **here}
        report["prefill"] = many_rows(kernels, matrices[:5], 512, limits, repeats)
        report["encode"] = many_rows(kernels, made(VISION), ENCODE_ROWS, limits, repeats)
    return report


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    report = measure(open_library(), options.repeats)
    report |= {"machine": describe_machine(), "repeats": options.repeats, "load": load}
    print(json.dumps(report, indent=1))
    (RESULTS / "avx2.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
