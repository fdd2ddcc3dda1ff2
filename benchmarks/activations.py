"""Compare products with inputs of 8 bits with the default ones, at each level of instructions.

    python -m benchmarks.activations [--levels amx,avx512,avx-vnni,avx2] [--repeats 5]
    python -m benchmarks.activations --answers 90

One thread and CPU time. Matrices have the shapes of one layer of the 19B model, in NF4. Both sides
of a comparison alternate, and the ratio is the median of the pairs. The default is what the engine
multiplies so many rows with at that level. Writes benchmarks/results/activations.json; levels that
were not measured keep their figures there.

--answers measures instead what the option changes in the demo model's probabilities: the KL
divergence per token of the true answers to questions about held-out pictures, in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE"}

import torch
from torch import Tensor

from benchmarks.avx2 import CPU, DECODER, RESULTS, VISION, in_turn, made, median, ratios
from benchmarks.kv_kinds import CHECKPOINT, held_out_questions
from benchmarks.machine import describe_machine
from cogvlm2_lite.backends.cpu_level import LEVEL_NAMES
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import run
from cogvlm2_lite.evaluate.compare import compare_each
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.units import GIB
from cogvlm2_lite.weights.kernels.bitsandbytes_cpu import open_bitsandbytes
from cogvlm2_lite.weights.kernels.byte_products import ByteKernel
from cogvlm2_lite.weights.kernels.gemm_amx import GemmAmxKernel
from cogvlm2_lite.weights.kernels.gemv import GemvDequantizer, IntegerKernel
from cogvlm2_lite.weights.kernels.interface import Kernel
from cogvlm2_lite.weights.kernels.library import AMX, AVX512, Library, open_library
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.scratch import Scratch
from quantize.pipeline import Effort, convert
from quantize.recipe import QuantizeOptions

LAYERS = {"decoder": DECODER, "vision": VISION}
ROWS = {"amx": 2304, "avx512": 1536, "avx-vnni": 1024, "avx2": 768}
"""Of a picture's 2,304 tokens in the decoder and 9,217 in the tower; fewer where a run would take
minutes."""
WIDE = 50
"""How many times as large the large channels are in the comparison of errors."""


def layer(
    kernel: Kernel[FourBitMatrix], matrices: list[FourBitMatrix], rows: int, dtype: torch.dtype
) -> Any:
    """Return a function that multiplies each matrix by so many rows."""
    inputs = {matrix.columns: torch.randn(rows, matrix.columns).to(dtype) for matrix in matrices}
    scratch = Scratch(CPU)

    def work() -> None:
        for matrix in matrices:
            kernel.multiply(inputs[matrix.columns], matrix, None, scratch)

    return work


def compare(library: Library, name: str, repeats: int) -> dict[str, Any]:
    """Compare both kernels at a level."""
    level, rows = LEVEL_NAMES[name], ROWS[name]
    here = replace(library, level=level)
    dtype = torch.bfloat16 if level >= AVX512 else torch.float32
    default: Kernel[FourBitMatrix] = IntegerKernel(here)
    if level == AMX:
        default = GemmAmxKernel(here, open_bitsandbytes().expand_scales)
    kernels: dict[str, Kernel[FourBitMatrix]] = {"default": default, "bytes": ByteKernel(here)}
    found: dict[str, Any] = {"rows": rows}
    for part, shapes in LAYERS.items():
        matrices = made(shapes)
        works = {kind: layer(kernel, matrices, rows, dtype) for kind, kernel in kernels.items()}
        times = in_turn(works, repeats)
        products = rows * sum(matrix.rows * matrix.columns for matrix in matrices)
        found[part] = {
            kind: {"ms": 1e3 * median(each), "rate": products / median(each)}
            for kind, each in times.items()
        }
        found[part] |= ratios(times["default"], times["bytes"])
    return found


def errors(library: Library) -> dict[str, dict[str, float]]:
    """Return relative errors of results against float64, for several kinds of inputs.

    rest  the same error in proportion to what the channels that are not large contribute
    """
    torch.manual_seed(1)
    (matrix,) = made(((512, 4096),))
    dequantized = torch.empty(512, 4096)
    GemvDequantizer(library).dequantize(matrix, 0, dequantized)
    weights = dequantized.double()
    large = torch.randperm(4096)[:8]
    normal = torch.randn(64, 4096)
    tails = normal / torch.randn(2, 64, 4096).square().mean(0).sqrt()
    scale = torch.ones(4096)
    scale[large] = WIDE
    kinds = {"normal": normal, "normal, large": normal * scale, "tails, large": tails * scale}
    kernel, found = ByteKernel(library), {}
    for name, x in kinds.items():
        exact = x.double() @ weights.t()
        others = x.clone()
        others[:, large] = 0
        rest = others.double() @ weights.t() if "large" in name else exact

        def error(result: Tensor, of: Tensor, exact: Tensor = exact) -> float:
            return float((result.double() - exact).norm() / of.norm())

        ours = kernel.multiply(x, matrix, None, Scratch(CPU))
        rounded = x.bfloat16().double() @ weights.bfloat16().double().t()
        found[name] = {
            "bytes": error(ours, exact),
            "bfloat16": error(rounded, exact),
            "bytes_rest": error(ours, rest),
            "bfloat16_rest": error(rounded, rest),
        }
    return found


def answers(pictures: int, seed: int) -> dict[str, Any]:
    """Compare the demo model in NF4 with itself with 8-bit activations, and with the original."""
    asked = held_out_questions(pictures, seed)

    def opened(folder: Path, *, coarse: bool = False) -> Model:
        budget = DeviceBudget(device="cpu", in_ram=True, device_bytes=4 * GIB)
        compute = choose_compute("cpu", "float32")
        return open_model(folder, compute=compute, budgets=[budget], coarse_pictures=coarse)

    found: dict[str, Any] = {"pictures": pictures, "seed": seed}
    with tempfile.TemporaryDirectory() as name:
        nf4 = Path(name) / "nf4"
        for _ in convert(CHECKPOINT, nf4, QuantizeOptions(), Effort()):
            pass
        for case, reference, coarse in (
            ("NF4 against 16 bits", CHECKPOINT, False),
            ("8-bit activations against NF4", nf4, True),
            ("both against 16 bits", CHECKPOINT, True),
        ):
            steps = compare_each(
                reference, nf4, asked, partial(opened, coarse=coarse), (None,), opened
            )
            summary = run(steps)[0].summary.as_dict()
            found[case] = {key: summary[key] for key in ("answers", "tokens", "kl_mean", "top1")}
    return found


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", default=",".join(ROWS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--answers", type=int, metavar="PICTURES")
    parser.add_argument("--seed", type=int, default=41, help="of the held-out pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    library, file = open_library(), RESULTS / "activations.json"
    report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"levels": {}}
    if options.answers:
        report["answers"] = answers(options.answers, options.seed)
    for name in () if options.answers else options.levels.split(","):
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        report["levels"][name] = compare(library, name, options.repeats) | {"load": load}
    if not options.answers:
        report |= {"errors": errors(library), "repeats": options.repeats}
        report["machine"] = describe_machine()
    print(json.dumps(report, indent=1))
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
