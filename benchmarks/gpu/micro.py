"""Steps that measure single operations in the shapes of the 19B model.

gemm       bitsandbytes' 4-bit product for few rows, its bits for one row and for several, lm_head,
           int8 matrices
attention  the attention of a decode step, in several ways
transfers  heights of matrix products, uploads, and the time of a tiny kernel in a CUDA graph
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.shapes import AttentionShape
from benchmarks.gpu.work import Run
from cogvlm2_lite.backends.base import Outgoing
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.model.token_attention import key_bias, split_keys
from cogvlm2_lite.weights.kernels.choice import KernelChoice, choose_kernels
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dequantize_reference, dynamic_map
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.slots import StoredWeight
from cogvlm2_lite.weights.storage.dense import DenseWeight
from cogvlm2_lite.weights.storage.int8 import place_int8
from cogvlm2_lite.weights.storage.nf4 import place_four_bit

GPU = torch.device("cuda:0")

PRODUCTS = {
    "qkv": (6144, 4096),
    "dense": (4096, 4096),
    "gate or up": (14336, 4096),
    "down": (4096, 14336),
    "lm_head": (128256, 4096),
}
"""Rows and columns of a decoder layer's matrices, and of lm_head."""

TINY_PRODUCTS = {name: (64 * (n + 1), 128) for n, name in enumerate(PRODUCTS)}
ROWS = (1, 2, 3, 4, 8, 16)
HEIGHTS = {
    "vision fc1, 1792 columns": (9217, 15360, 1792, (7021, 6912)),
    "vision fc2, 15360 columns": (9217, 1792, 15360, (819, 768)),
    "down, 14336 columns": (2306, 4096, 14336, (877, 768)),
}
"""Rows of x, rows and columns of the matrix, and heights of its chunks."""

_TOLERANCE = 0.01
_MOST_DEQUANTIZED = 20_000
"""Rows; a larger matrix in float32 takes too long."""

_CACHE_BYTES = 256 << 20
"""So many bytes of copies of a matrix are read in turn, more than any cache holds."""


def timed(work: Sequence[Callable[[], object]], rounds: int = 5) -> dict[str, Any]:
    """Return the time of one call, of several that are run one after another.

    They are captured as a CUDA graph, so that the host's time does not count; if that is not
    possible, they are launched one by one.
    """
    for each in work:
        each()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    note = "graph"
    try:
        with torch.cuda.graph(graph):
            for each in work:
                each()
        start: Callable[[], object] = graph.replay
    except RuntimeError as error:
        note = f"launched one by one: {str(error).partition(chr(10))[0]}"[:160]

        def start() -> None:
            for each in work:
                each()

    start()
    times = []
    for _ in range(rounds):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        start()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after))
    return {"us": 1e3 * median(times) / len(work), "how": note}


def rate(found: dict[str, Any], nbytes: int) -> dict[str, Any]:
    """Add GB/s to a time."""
    return {**found, "gb_per_s": nbytes / found["us"] / 1e3}


# --- products -------------------------------------------------------------------------------------


def nf4_matrix(rows: int, columns: int, seed: int = 0) -> FourBitMatrix:
    """Return a random NF4 matrix with double quantization on the GPU."""
    generator = torch.Generator().manual_seed(seed)
    groups = rows * columns // 64

    def noise(count: int) -> Tensor:
        made = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
        return made.to(GPU)

    tile = noise(min(rows * columns // 2, 1 << 22))
    codes = tile.repeat(-(-rows * columns // 2 // tile.numel()))[: rows * columns // 2]
    nested = torch.full((-(-groups // 256),), 0.5 * columns**-0.5, device=GPU)
    return FourBitMatrix(
        rows=rows,
        columns=columns,
        group=64,
        quant_type="nf4",
        codes=codes.view(-1, 1).contiguous(),
        absmax=noise(groups),
        levels=torch.tensor(NF4_LEVELS).to(GPU),
        nested_absmax=nested,
        nested_map=dynamic_map().to(GPU),
        nested_offset=columns**-0.5,
        offset=torch.tensor(columns**-0.5).to(GPU),
    )


def gemm(run: Run) -> None:
    """Measure products of few rows."""
    compute = choose_compute("cuda:0", "auto")
    chosen, scratch = choose_kernels(compute.device, compute.dtype), Scratch(GPU)
    run.put(kernels=chosen.name, dtype=str(compute.dtype))
    products: dict[str, Any] = {}
    equal: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    run.put(products=products, equal_rows=equal, differences=differences)
    for name, (rows, columns) in (TINY_PRODUCTS if run.rehearse else PRODUCTS).items():
        matrix = nf4_matrix(rows, columns)
        equal[name] = rows_equal(chosen, matrix, compute.dtype, scratch)
        if rows <= _MOST_DEQUANTIZED:
            differences[name] = difference(chosen, matrix, compute.dtype, scratch)
        copies = [matrix]
        if not run.rehearse:
            copies += [copy_of(matrix) for _ in range(_CACHE_BYTES // matrix.nbytes)]
        products[name] = {"rows": rows, "columns": columns, "bytes": matrix.nbytes}
        for count in ROWS:
            x = inputs(count, columns, compute.dtype)
            calls = [_product(place_four_bit(each, chosen, scratch), x) for each in copies]
            products[name][f"M={count}"] = rate(timed(calls), matrix.nbytes)
        run.put(products=products, equal_rows=equal, differences=differences)
    largest = max((d for each in differences.values() for d in each.values()), default=0.0)
    if largest > _TOLERANCE:
        run.wrong(f"a product differs from the reference by {largest:.4f}")
    run.attempt("lm_head", lambda: dense_head(chosen, compute.dtype, scratch, tiny=run.rehearse))
    run.attempt("int8", lambda: int8(chosen, compute.dtype, scratch, tiny=run.rehearse))


def _product(weight: StoredWeight, x: Tensor) -> Callable[[], object]:
    return lambda: weight.multiply(x, None)


def copy_of(matrix: FourBitMatrix) -> FourBitMatrix:
    """Return a matrix with the same numbers at other addresses."""
    return FourBitMatrix(
        rows=matrix.rows,
        columns=matrix.columns,
        group=matrix.group,
        quant_type=matrix.quant_type,
        codes=matrix.codes.clone(),
        absmax=matrix.absmax.clone(),
        levels=matrix.levels,
        nested_absmax=matrix.nested_absmax,
        nested_map=matrix.nested_map,
        nested_offset=matrix.nested_offset,
        offset=matrix.offset,
    )


def inputs(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Return random rows."""
    generator = torch.Generator().manual_seed(rows)
    return torch.randn((rows, columns), generator=generator).to(GPU, dtype)


def rows_equal(
    chosen: KernelChoice, matrix: FourBitMatrix, dtype: torch.dtype, scratch: Scratch
) -> dict[str, bool]:
    """Return for several rows at once whether each is what it is alone, bit for bit."""
    x, weight = inputs(16, matrix.columns, dtype), place_four_bit(matrix, chosen, scratch)
    alone = torch.cat([weight.multiply(x[n : n + 1], None) for n in range(16)])
    found = {f"M={m}": torch.equal(weight.multiply(x[:m], None), alone[:m]) for m in ROWS}
    each = weight.multiply_each([x[n].view(1, 1, -1) for n in range(3)], None)
    found["three answers"] = torch.equal(torch.cat(each).view(3, -1), alone[:3])
    return found


def difference(
    chosen: KernelChoice, matrix: FourBitMatrix, dtype: torch.dtype, scratch: Scratch
) -> dict[str, float]:
    """Return the relative error of products against float32, for each number of rows."""
    x, weight = inputs(16, matrix.columns, dtype), place_four_bit(matrix, chosen, scratch)
    plain = torch.empty((matrix.rows, matrix.columns))
    scales = matrix.nested_map[matrix.absmax.int()].cpu()
    scales *= matrix.nested_absmax.cpu().repeat_interleave(256)[: scales.numel()]
    scales += matrix.nested_offset
    levels = matrix.levels.cpu()
    dequantize_reference(matrix.codes.cpu().view(-1), scales, levels=levels, group=64, out=plain)
    expected = x.cpu().float() @ plain.t()
    found = {}
    for m in ROWS:
        ours = weight.multiply(x[:m], None).cpu().float()
        found[f"M={m}"] = float((ours - expected[:m]).norm() / expected[:m].norm())
    return found


def dense_head(
    chosen: KernelChoice, dtype: torch.dtype, scratch: Scratch, *, tiny: bool
) -> dict[str, Any]:
    """Return the time of lm_head in 16 bits, for one row."""
    rows, columns = (TINY_PRODUCTS if tiny else PRODUCTS)["lm_head"]
    weight = torch.randn((1024, columns)).to(GPU, dtype).repeat(-(-rows // 1024), 1)[:rows]
    weight = weight.contiguous()
    stored = DenseWeight(weight=weight, kernels=chosen.dense, scratch=scratch)
    return rate(timed([_product(stored, inputs(1, columns, dtype))] * 4), weight.nbytes)


def int8(
    chosen: KernelChoice, dtype: torch.dtype, scratch: Scratch, *, tiny: bool
) -> dict[str, Any]:
    """Return the time of an int8 matrix for one row, and its difference from the plain product."""
    rows, columns = (TINY_PRODUCTS if tiny else PRODUCTS)["gate or up"]
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=generator)
    scales = torch.rand((rows, columns // 64), generator=generator) / 127 * columns**-0.5
    matrix = Int8Matrix(codes=codes.to(GPU), scales=scales.to(GPU))
    x = inputs(1, columns, dtype)
    weight = place_int8(matrix, chosen, scratch)
    plain = (codes.view(rows, -1, 64) * scales[:, :, None]).view(rows, columns)
    expected = x.cpu().float() @ plain.t()
    ours = weight.multiply(x, None).cpu().float()
    nbytes = matrix.codes.nbytes + matrix.scales.nbytes
    return {
        **rate(timed([_product(weight, x)] * 4), nbytes),
        "difference": float((ours - expected).norm() / expected.norm()),
    }


# --- attention ------------------------------------------------------------------------------------


def attention(run: Run) -> None:
    """Measure the attention of one decode step of one layer."""
    compute = choose_compute("cuda:0", "auto")
    found: dict[str, Any] = {}
    for keys in (64, 128) if run.rehearse else (2560, 8192):
        shape = AttentionShape(
            heads=2 if run.rehearse else 8,
            queries=4,
            keys=keys,
            head_dim=16 if run.rehearse else 128,
            visible=keys - 5,
        )
        q, k, v = shape.tensors("cuda", compute.dtype)
        mask = shape.mask("cuda")
        assert mask is not None
        found[str(keys)] = ways(q, k, v, mask)
        run.put(decode=found)


def ways(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> dict[str, Any]:
    """Return time and error of each way to compute the attention of a decode step."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    added = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(
        ~mask, float("-inf")
    )
    visible = int(mask[0, 0, 0].sum())
    bias = key_bias(torch.tensor([visible - 1]).to(GPU), k.shape[2], q.dtype)
    right = F.scaled_dot_product_attention(
        *(t.cpu().float() for t in (q, k[:, :, :visible], v[:, :, :visible]))
    )

    def within(backend: Any, m: Tensor | None) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, m)

        return call

    calls: dict[str, Callable[[], Tensor]] = {
        "torch's choice, bool mask": lambda: F.scaled_dot_product_attention(q, k, v, mask),
        "torch's choice, added mask": lambda: F.scaled_dot_product_attention(q, k, v, added),
        "efficient, added mask": within(SDPBackend.EFFICIENT_ATTENTION, added),
        "cudnn, added mask": within(SDPBackend.CUDNN_ATTENTION, added),
        "flash, no mask": within(SDPBackend.FLASH_ATTENTION, None),
        "split keys, as the engine does": lambda: split_keys(q, k, v, bias),
        "two products": lambda: split_products(q, k, v, added),
    }
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            out = call().cpu().float()
            error = float((out - right).norm() / right.norm())
            found[name] = {**timed([call] * 8), "difference": error}
        except (RuntimeError, NotImplementedError) as error:
            found[name] = {"failed": str(error).partition("\n")[0][:160]}
    return found


def split_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Return attention of one sequence as two batched products, in the type of the tensors."""
    scores = torch.bmm(q[0] * q.shape[-1] ** -0.5, k[0].transpose(1, 2)) + mask[0]
    return torch.bmm(torch.softmax(scores.float(), -1).to(q.dtype), v[0])[None]


# --- transfers and launches -----------------------------------------------------------------------


def transfers(run: Run) -> None:
    """Measure heights of products, uploads and launches."""
    compute = choose_compute("cuda:0", "auto")
    run.attempt("heights", lambda: heights(compute.dtype, tiny=run.rehearse))
    run.attempt("uploads", lambda: uploads(tiny=run.rehearse))
    run.attempt("launches", lambda: launches(tiny=run.rehearse))


def heights(dtype: torch.dtype, *, tiny: bool) -> dict[str, Any]:
    """Return the rate of a product into a slice of its result, for each height of the chunks."""
    found: dict[str, Any] = {}
    for name, (count, rows, columns, sizes) in HEIGHTS.items():
        divisor = 64 if tiny else 1
        count, rows, columns = count // divisor, rows // divisor, columns // divisor
        x = inputs(count, columns, dtype)
        out = x.new_empty(count, rows)
        for size in sizes:
            height = max(1, size // divisor)
            weight = inputs(height, columns, dtype)
            starts = range(0, rows - height + 1, height)
            calls = [_into(x, weight, out[:, start : start + height]) for start in starts]
            took = timed(calls, rounds=3)
            flops = 2 * count * height * columns
            found[f"{name}, {size} rows"] = {**took, "tflop_per_s": flops / took["us"] / 1e6}
    return found


def _into(x: Tensor, weight: Tensor, out: Tensor) -> Callable[[], object]:
    return lambda: torch.mm(x, weight.t(), out=out)


def uploads(*, tiny: bool) -> dict[str, Any]:
    """Return GB/s of copies to the GPU."""
    nbytes = 1 << 16 if tiny else 256 << 20
    source = torch.randint(0, 256, (nbytes,), dtype=torch.uint8)
    pinned = source.pin_memory()
    there = torch.empty(nbytes, dtype=torch.uint8, device=GPU)
    upload = backend_of(GPU).upload(GPU)

    def through_ring() -> None:
        with upload:
            upload.send([Outgoing(tensor=source, dtype=source.dtype)])

    ways: dict[str, Callable[[], object]] = {
        "memory to pinned memory": lambda: pinned.copy_(source),
        "pinned memory to the GPU": lambda: there.copy_(pinned, non_blocking=True),
        "memory to the GPU by torch": lambda: there.copy_(source),
        "the product's upload": through_ring,
    }
    found = {}
    for name, work in ways.items():
        times = []
        for _ in range(4):
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        found[name] = {"gb_per_s": nbytes / min(times[1:]) / 1e9}
    return found


def launches(*, tiny: bool) -> dict[str, Any]:
    """Return the time of a tiny kernel in a CUDA graph, and of launching it."""
    count = 20 if tiny else 1000
    one = torch.zeros(1, device=GPU)
    row = torch.zeros(4096, device=GPU, dtype=torch.bfloat16)
    found: dict[str, Any] = {}
    for name, tensor in (("one number", one), ("4096 numbers", row)):

        def work(tensor: Tensor = tensor) -> None:
            tensor.add_(1)

        found[name] = {"graph": timed([work] * count)}
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            work()
        host = time.perf_counter() - began
        torch.cuda.synchronize()
        found[name]["host_us"] = 1e6 * host / count
        found[name]["eager_us"] = 1e6 * (time.perf_counter() - began) / count
    return found
