"""Write docs/performance.md from benchmarks/results/*.json: python tools/write_performance.py

No number stands in the page that is not in those files, except llama.cpp's, which say so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cogvlm2_lite.units import GIB, format_bytes, format_seconds  # noqa: E402

RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "performance.md"
Report = dict[str, Any]

LLAMA_CPP = {
    "decode": ("decode: linears of 4 layers, of reading", 5.8, 4),
    "decode: lm_head (theirs Q6_K, ours NF4)": ("decode: lm_head in NF4, of reading", 18.6, 1),
    "prefill, 512 tokens": ("prefill: linears of a layer, 512 rows, of bf16", 1080.0, 1),
}
"""What: (our figure, llama.cpp's milliseconds per layer, layers in our figure)."""

_INTRODUCTION = """\
# Performance

Written by `python tools/write_performance.py` from the files in `benchmarks/results/`. Every number
was measured, by a program in `benchmarks/` or by `cogvlm2-lite bench`, or by hand where it says so.
The real weights were not at hand: figures of the 19B model come from made-up NF4 weights of exactly
its shapes, with memory of their own for every matrix, run by the engine that answers everybody.
Speed does not depend on what the numbers are; answers do, and none are judged here.

`cogvlm2-lite bench 19b` gives the first tables for your computer, before any download.
"""

_NO_GPU = """\
## GPU

**Nothing here was measured on a GPU.** None could be had. What was written for one and has not run
on one: bitsandbytes' CUDA kernels behind their self-test, uploads through pinned memory on a stream
of their own (`weights/upload.py`), catching the driver's out-of-memory error, and decode steps
recorded as a CUDA graph (`engine/replay.py`; a recording is thrown away unless its first result is
equal to the bit). The plan, the streaming, its bit equality, the recovery, and that recorded steps
depend on nothing but what stays in place are tested on the CPU, with an accounting arena in place
of video memory and repeated calls in place of a graph.

`sh benchmarks/gpu.sh` measures it in one command: caps of 24, 16, 12, 8 and 6 GiB, bits of resident
against streamed weights, going on when another program takes all memory that is free, and peaks
beside the plan. Then this page is written again. Its goals: at 8 GiB decode at 0.95 of the uncapped
rate, a new picture in at most 1.3 times the uncapped time, decode at 60 % of the memory-bandwidth
limit. `sh benchmarks/gpu.sh cpu` rehearses it.
"""

_CHOICES = """\
## What was chosen, and what it costs

- Dequantizing is not bound by page faults: rows are made plain in a buffer that is used again
  (`weights/kernels/scratch.py`), and wide activations are changed in place. Before that, page
  faults took {faults_s:.2f} s of system time in the linears of a vision layer of {layer_s:.1f} s.
  Raising malloc's limits (`mallopt`) took them away and left the process {mallopt_mb} MB larger;
  huge pages (`THP_MEM_ALLOC_ENABLE`) took {huge_s:.2f} s on this virtual machine. Neither was
  taken. (Measured once, by hand.)
- Up to 12 rows (8 in float32) are multiplied by a C kernel of ours that reads 4-bit matrices as
  they are stored. bitsandbytes' kernel for AVX512-BF16 took 8.7 ms for the linears of a layer on
  this processor, needs a second copy of every matrix (3.45 GiB for the 19B model) and seconds to
  make it. Where no C compiler was found at installation it is still used, and `doctor` says so.
- A decoded token attends in a C kernel too (`weights/kernels/attend.c`, bfloat16 with AVX512-BF16),
  over 2,350 tokens in 0.65 to 0.75 ms a layer, where torch's attention took 1.9 (medians of 7 turns
  of each, by hand, one thread, beside other programs).
- Without AVX512-BF16 the kernel for matrices looks levels up in float32 with AVX2: 15 ms for the
  linears of a layer, where dequantizing took 51. (Median of 9 pairs, by hand, on this processor,
  one thread.)
- Without the C kernel, a plain bfloat16 matrix is multiplied by one row without oneDNN:
  {one_row:.2f} times as fast (median of 9 pairs on 32,000 x 4,096, one thread, by hand).
- Threads: one per physical core, from four cores on one less, and idle ones sleep
  (`OMP_WAIT_POLICY=PASSIVE`), so that a desktop stays responsive. `OMP_NUM_THREADS` overrides it.
"""


def render() -> str:
    """Give the text of the page."""
    full, layers, memory, gpu = (
        _read(name) for name in ("cpu_19b", "cpu_layers", "memory_estimate", "gpu")
    )
    sections = [_INTRODUCTION]
    if full:
        sections.append("\n".join(_whole_model(full)))
    if layers:
        sections.append("\n".join(_per_layer(layers)))
        sections.append("\n".join(_beside_llama_cpp(layers)))
    streamed = _read("streamed_decode")
    if streamed:
        sections.append("\n".join(_streamed(streamed)))
    if memory:
        sections.append("\n".join(_estimate(memory)))
    sections.append("\n".join(_gpu(gpu)) if gpu else _NO_GPU)
    choices = _read("choices")
    if choices:
        sections.append(_CHOICES.format(**choices))
    return "\n".join(section.rstrip() + "\n" for section in sections)


def _read(name: str) -> Report | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _machine(report: Report) -> str:
    m = report["machine"]
    gpu = f", {m['gpu']}" if m["gpu"] else ", no GPU"
    return (
        f"{m['cores']} cores of {m['processor']}, {m['memory_gib']} GiB of RAM{gpu}, {m['system']},"
        f" Python {m['python']}, torch {m['torch']}"
    )


def _whole_model(report: Report) -> Iterator[str]:
    bench = report["bench"]
    limits = bench["limits"]
    yield "## The whole 19B model on a CPU"
    yield ""
    yield f"{_machine(report)}. {report['remark']}"
    yield ""
    if bench["kernels"] == "packed":
        yield (
            "This run is older than our C kernel: matrices used in decoding lay in memory twice, "
            "as stored and packed for bitsandbytes' kernel. It was not repeated since."
        )
        yield ""
    yield (
        f"All {bench['layers'][0]} vision and {bench['layers'][1]} decoder layers, one picture of "
        f"1344 x 1344, a short question, {bench['phases'][2]['tokens'] + 1} tokens, "
        f"{bench['threads']} threads. "
        f"Bringing in and packing what decoding needs took {format_seconds(bench['load_s'])}. "
        f"Right before, the machine read {limits['read_bytes_per_s'] / 1e9:.1f} GB/s and "
        f"multiplied at {limits['flops_per_s'] / 1e9:.0f} GFLOP/s with these threads. Encode and "
        "prefill include making their weights up in memory."
    )
    yield ""
    yield "| phase | time | CPU time | tokens/s | GFLOP/s | of matmul | GB/s | of reading |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for phase in bench["phases"]:
        yield (
            f"| {phase['name']} | {format_seconds(phase['seconds'])} "
            f"| {format_seconds(phase['cpu_s'])} | {phase['tokens_per_s']:.3g} "
            f"| {phase['flops_per_s'] / 1e9:.0f} | {phase['share_of_matmul']:.0%} "
            f"| {phase['bytes_per_s'] / 1e9:.2f} | {phase['share_of_reading']:.0%} |"
        )
    yield ""
    yield (
        f"Memory, with a budget of {bench['budget_bytes'] / GIB:.1f} GiB; measured is the resident "
        "size of the process beyond what it was before loading."
    )
    yield ""
    yield "| phase | planned peak | measured peak |"
    yield "| --- | ---: | ---: |"
    for phase in bench["phases"]:
        planned, measured = phase["planned_bytes"], phase["measured_bytes"]
        yield f"| {phase['name']} | {format_bytes(planned)} | {format_bytes(measured)} |"


def _per_layer(report: Report) -> Iterator[str]:
    yield "## One layer beside the limit of the machine"
    yield ""
    yield (
        f"{_machine(report)}. One thread, CPU time, {report['repeats']} pairs: ours and the limit "
        "in turn, so that both meet the same neighbours (load average at the start: "
        f"{report['load']:.1f}). The share is the median of the pairs, beside it the range. "
        "Reading is the largest of 8-byte numbers in memory; bf16 is torch's product with a plain "
        "matrix."
    )
    yield ""
    yield "| what, and of which limit | ours ms | limit ms | share | range |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, figure in report["figures"].items():
        yield (
            f"| {name} | {figure['ours_ms']:.1f} | {figure['limit_ms']:.1f} "
            f"| {figure['share']:.2f} "
            f"| {figure['lowest_share']:.2f} to {figure['highest_share']:.2f} |"
        )
    yield ""
    decode = report["figures"]["decode: linears of 4 layers, of reading"]["share"]
    plain = min(f["share"] for n, f in report["figures"].items() if n.endswith("of bf16"))
    yield (
        f"Goals: decode at 0.85 of reading ({'met' if decode >= 0.85 else 'not met'}: "
        f"{decode:.2f}), prefill and vision linears at 0.90 of bf16 "
        f"({'met' if plain >= 0.9 else 'not met'}: at least {plain:.2f})."
    )
    if decode < 0.85:
        yield (
            "Decoding runs in our C kernel (`weights/kernels/rows.c`). An earlier variant took "
            "about as long with the matrix in the L2 cache as in memory (by hand), so reading does "
            "not seem to be what limits it here; 512-bit look-ups, shifts and products each run at "
            "most once per cycle on this processor (measured, by hand)."
        )


def _beside_llama_cpp(report: Report) -> Iterator[str]:
    figures = report["figures"]
    yield "## Beside llama.cpp"
    yield ""
    yield (
        "llama.cpp (the source bundled with llama-cpp-python 0.3.36, CPU release build) does not "
        "run CogVLM2; it was measured on made-up checkpoints with these per-layer shapes, Q4_K_M, "
        "on the same kind of machine at another time. One thread. These ratios are rough, and too "
        f"low: a plain bf16 product reached {_plain_rate(report):.0f} GFLOP/s in our run (load "
        f"average {report['load']:.1f} when it began), and about 400 when llama.cpp was measured, "
        "on a newer processor."
    )
    yield ""
    yield "| per layer | llama.cpp ms | ours ms | times as fast |"
    yield "| --- | ---: | ---: | ---: |"
    for what, (name, theirs, layers) in LLAMA_CPP.items():
        ours = figures[name]["ours_ms"] / layers
        yield _ratio(what, theirs, ours)
    attention = figures["decode: attention of one layer, of reading"]["ours_ms"]
    linears = figures["decode: linears of 4 layers, of reading"]["ours_ms"] / 4
    yield _ratio("decode at 2,350 tokens of context", 8.6, linears + attention)
    prefill = figures["prefill: linears of a layer, 2306 rows, of bf16"]["ours_ms"]
    attention = figures["prefill: attention of one layer, of SDPA expanded"]["ours_ms"]
    yield _ratio("prefill, 2,306 tokens", 5500.0, prefill + attention)
    encode = figures["encode: linears of a layer, of bf16"]["ours_ms"]
    head = figures["encode: attention of 1 head, of the other way"]["ours_ms"]
    yield _ratio("encode of a picture, 9,217 tokens", 12_800.0, encode + 16 * head)


def _plain_rate(report: Report) -> float:
    """Give the GFLOP/s of the plain products that the prefill of a picture is compared with."""
    figure = report["figures"]["prefill: linears of a layer, 2306 rows, of bf16"]
    rate: float = 2 * 2306 * report["expert_weights"] / figure["limit_ms"] / 1e6
    return rate


def _ratio(what: str, theirs: float, ours: float) -> str:
    return f"| {what} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.2f} |"


def _streamed(report: Report) -> Iterator[str]:
    kernels = report["kernels"]
    yield "## A CPU with too little RAM"
    yield ""
    yield (
        f"{_machine(report)}; {report['layers']} decoder layers and a 4-bit lm_head, one thread, "
        f"CPU time per token, median of {report['repeats']} (load average at the start: "
        f"{report['load_average']:.1f}; `benchmarks/streamed_decode.py`). The weights lie in "
        "memory already, as in the system's file cache: reading them from a disk comes on top."
    )
    yield ""
    yield "| kernel | everything stays, ms | all layers streamed, ms | scores |"
    yield "| --- | ---: | ---: | --- |"
    for name, title in (("rows", "our C kernel"), ("packed", "bitsandbytes', a packed copy")):
        row = kernels[name]
        equal = "equal to the bit" if row["equal_to_the_bit"] else "NOT equal"
        yield f"| {title} | {row['resident_ms']:.1f} | {row['streamed_ms']:.1f} | {equal} |"
    yield ""
    slower = kernels["rows"]["streamed_ms"] / kernels["rows"]["resident_ms"]
    packing = kernels["packed"]["streamed_ms"] / kernels["packed"]["resident_ms"]
    yield (
        f"Streaming takes our kernel {slower:.2f} times as long, for it reads matrices as they "
        "are stored. Where it was not built, every token packs its matrices anew: "
        f"{packing:.1f} times."
    )


def _estimate(report: Report) -> Iterator[str]:
    yield "## The memory estimate beside the tensors that were made"
    yield ""
    yield (
        f"{_machine(report)}; real widths, one layer of each kind "
        "(`benchmarks/memory_estimate.py`). Every tensor counts from its creation to its end. The "
        "last column is the error of the phase's whole peak for the 19B model, weights and full "
        "cache included."
    )
    yield ""
    yield "| phase | activations planned | measured | error | error of the peak |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, phase in report["phases"].items():
        yield (
            f"| {name} | {format_bytes(phase['planned_bytes'])} "
            f"| {format_bytes(phase['measured_bytes'])} | {phase['scratch_error']:+.1%} "
            f"| {phase['peak_error']:+.2%} |"
        )
    yield ""
    yield (
        "The estimate is a bound: it counts 32 MiB for buffers of kernels, of which the CPU uses "
        "20. Buffers inside of torch's own kernels are not tensors and are not seen."
    )


def _gpu(report: Report) -> Iterator[str]:
    verdict = report["verdict"]
    yield "## GPU"
    yield ""
    yield f"{_machine(report)}."
    yield ""
    equal = "equal to the bit" if verdict["equal_to_the_bit"] else "NOT equal"
    recovered = "went on" if verdict["recovered"] else "did NOT always go on"
    yield (
        f"Scores at all caps, also after memory ran out: {equal}. When memory was taken away in "
        f"the middle, the answer {recovered}."
    )
    yield ""
    yield "| cap | encode | prefill | tokens/s | decode of copying | peak planned | measured |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for run in report["runs"]:
        encode, prefill, decode = run["bench"]["phases"]
        planned = max(p["planned_bytes"] for p in run["bench"]["phases"])
        measured = max(p["measured_bytes"] for p in run["bench"]["phases"])
        yield (
            f"| {run['cap_gib']:g} GiB | {format_seconds(encode['seconds'])} "
            f"| {format_seconds(prefill['seconds'])} | {decode['tokens_per_s']:.1f} "
            f"| {decode['share_of_reading']:.0%} | {format_bytes(planned)} "
            f"| {format_bytes(measured)} |"
        )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
