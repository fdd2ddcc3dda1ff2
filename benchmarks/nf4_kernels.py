"""Compare the speed of making and multiplying NF4 matrices with bitsandbytes and bfloat16.

    python benchmarks/nf4_kernels.py [--json FILE] [--threads 1] [--repeats 7] [--quick]

Both sides of a comparison alternate, and the figure is the median of the ratios of the pairs. With
one thread the times are CPU time, on which other programs have little influence; with more threads
they are wall time. Decoding uses copies of a matrix that together exceed the last-level cache, as
the matrices of a whole model do.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.nf4 import quantize_nf4
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.storage.nf4 import FourBitWeight, place_four_bit

SHAPES = {
    "qkv": (6144, 4096),
    "attention out": (4096, 4096),
    "gate, up": (14336, 4096),
    "down": (4096, 14336),
    "vision qkv": (5376, 1792),
    "vision out": (1792, 1792),
    "vision fc1": (15360, 1792),
    "vision fc2": (1792, 15360),
}
"""Linear layers of the 19B model, [rows, columns]."""

CPU = torch.device("cpu")
COLD_BYTES = 160 << 20
PREFILL_ROWS = (512, 2306)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One line of the table: medians in milliseconds, and how many times faster ours is."""

    what: str
    shape: str
    ours_ms: float
    other: str
    other_ms: float
    ratio: float


class Timer:
    """Times pairs of functions alternately."""

    def __init__(self, threads: int, repeats: int) -> None:
        torch.set_num_threads(threads)
        self._clock = time.process_time if threads == 1 else time.perf_counter
        self._repeats = repeats

    def compare(
        self,
        what: str,
        shape: str,
        ours: Callable[[], object],
        name: str,
        other: Callable[[], object],
    ) -> Comparison:
        """Return the comparison of both functions, run alternately, ours first."""
        ours(), other()
        pairs = [(self._time(ours), self._time(other)) for _ in range(self._repeats)]
        return Comparison(
            what=what,
            shape=shape,
            ours_ms=1000 * statistics.median(a for a, _ in pairs),
            other=name,
            other_ms=1000 * statistics.median(b for _, b in pairs),
            ratio=statistics.median(b / a for a, b in pairs),
        )

    def _time(self, function: Callable[[], object]) -> float:
        start = self._clock()
        function()
        return self._clock() - start


def make_weight(matrix: Tensor, kernels: KernelChoice, *, packed: bool) -> FourBitWeight:
    """Return a matrix rounded to NF4 and ready to multiply."""
    return place_four_bit(quantize_nf4(matrix), kernels, Scratch(CPU), packed=packed)


def in_turn(functions: Iterable[Callable[[], object]]) -> Callable[[], object]:
    """Return a function that calls the next of these functions at each call."""
    ring = list(functions)
    position = 0

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(ring)
        return ring[position]()

    return call


def compare_shape(
    timer: Timer, name: str, rows: int, columns: int, kernels: KernelChoice
) -> Iterator[Comparison]:
    """Yield all comparisons for one shape."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    torch.manual_seed(0)
    matrix = (torch.randn(rows, columns) * 0.02).bfloat16()
    shape = f"{name} {rows}x{columns}"
    yield timer.compare(
        "round to NF4", shape, lambda: quantize_nf4(matrix),
        "bitsandbytes", lambda: quantize_4bit(matrix, compress_statistics=True, quant_type="nf4"),
    )  # fmt: skip
    weight = make_weight(matrix, kernels, packed=True)
    codes, state = quantize_4bit(matrix, compress_statistics=True, quant_type="nf4")
    out = torch.empty_like(matrix)
    yield timer.compare(
        "dequantize", shape, lambda: weight.dequantize_into(out),
        "bitsandbytes", lambda: dequantize_4bit(codes, state),
    )  # fmt: skip
    yield from compare_decoding(timer, shape, matrix, weight, kernels)
    for tokens in PREFILL_ROWS:
        x = torch.randn(tokens, columns).bfloat16()
        yield timer.compare(
            f"multiply {tokens} rows", shape, lambda x=x: weight.multiply(x, None),
            "bfloat16 matrix", lambda x=x: F.linear(x, matrix),
        )  # fmt: skip


def compare_decoding(
    timer: Timer, shape: str, matrix: Tensor, weight: FourBitWeight, kernels: KernelChoice
) -> Iterator[Comparison]:
    """Yield comparisons of multiplying one row, with matrices that are not in the cache."""
    copies = max(1, COLD_BYTES // matrix.nbytes)
    x = torch.randn(1, matrix.shape[1]).bfloat16()
    plain = in_turn([lambda m=m: F.linear(x, m) for m in (matrix.clone() for _ in range(copies))])
    unpacked_kernels = choose_kernels(CPU, torch.bfloat16, "bitsandbytes")
    unpacked = place_four_bit(weight.matrix, unpacked_kernels, Scratch(CPU))
    if weight.packed is not None:
        weights = [make_weight(matrix, kernels, packed=True) for _ in range(4 * copies)]
        packed = in_turn([lambda w=w: w.multiply(x, None) for w in weights])
        yield timer.compare("multiply 1 row, packed", shape, packed, "bfloat16 matrix", plain)
        yield timer.compare(
            "multiply 1 row, packed", shape, packed,
            "dequantized each time", lambda: unpacked.multiply(x, None),
        )  # fmt: skip
    yield timer.compare(
        "multiply 1 row, not packed", shape, lambda: unpacked.multiply(x, None),
        "bitsandbytes", lambda: bitsandbytes_multiply(unpacked, x),
    )  # fmt: skip


def bitsandbytes_multiply(weight: FourBitWeight, x: Tensor) -> Tensor:
    """Return the product as bitsandbytes computes it without its packed kernel."""
    stored = weight.matrix
    result: Tensor = torch.ops.bitsandbytes.gemm_4bit(
        x, stored.codes.view(-1, 1), [stored.rows, stored.columns], stored.nested_absmax,
        stored.group, "nf4", None, stored.absmax, stored.nested_map, stored.offset,
    )  # fmt: skip
    return result


def print_line(line: Comparison) -> None:
    print(
        f"{line.shape:26} {line.what:28} {line.ours_ms:10.2f} ms"
        f" {line.other_ms:10.2f} ms  {line.other:22} {line.ratio:6.2f} x",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small shape")
    options = parser.parse_args()
    timer = Timer(options.threads, options.repeats)
    kernels = choose_kernels(CPU, torch.bfloat16)
    print(f"kernels: {kernels.name} ({kernels.reason}); threads: {options.threads}")
    shapes = {"vision out": SHAPES["vision out"]} if options.quick else SHAPES
    lines = []
    for name, (rows, columns) in shapes.items():
        for line in compare_shape(timer, name, rows, columns, kernels):
            print_line(line)
            lines.append(line)
    if options.json:
        content = {
            "cpu": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": options.threads,
            "kernels": {"name": kernels.name, "reason": kernels.reason},
            "lines": [asdict(line) for line in lines],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
