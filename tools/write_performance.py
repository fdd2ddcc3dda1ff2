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
of their own (`backends/pinned.py`), catching the driver's out-of-memory error, and decode steps
recorded as a CUDA graph (`engine/cuda_graph.py`; a recording is thrown away unless its first result
is equal to the bit). The plan, the streaming, its bit equality, the recovery, and that recorded
steps depend on nothing but what stays in place are tested on the CPU, with an accounting arena in
place of video memory and repeated calls in place of a graph.

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
- Up to 24 rows with AVX512 and 16 with AVX2 or in float32 are multiplied by a C kernel of ours that
  reads 4-bit matrices as they are stored (`weights/kernels/gemv.c`). Bfloat16 inputs are multiplied
  as whole numbers: on the Xeon of the tables above 16-bit whole products ran three times as fast as
  bfloat16's, and the result is closer to the stored matrix than with levels in bfloat16 (97 of 100
  results round to the exact bfloat16, otherwise 60; by hand, two shapes). bitsandbytes' kernel for
  AVX512-BF16 needs a second copy of every matrix (3.45 GiB for the 19B model) and seconds to make
  it. Where no C compiler was found at installation it is still used, and `doctor` says so.
- Inputs must stay in the L1 cache, and of its 48 KB weights that stream through leave them a third:
  with inputs of 16 KB a matrix was read as fast as with 4, with 24 KB a quarter slower. The 28 KB
  of down_proj did not stay: it was read at 24 GB/s where the others were at 31 and plain reading
  at 39, and at 11 where the others were at 24 without our asking ahead (presumably every miss takes
  one of the places in which a core waits for memory). So a block of 16 rows is multiplied in pieces
  of up to 8,192 columns, while the next block is asked for in the order of its bytes. Two or four
  rows side by side, in whatever order memory was asked, were slower. Scales are looked up 64 at a
  time by byte permutations. On the EPYC the linears of a layer went from 4.3 to 3.3 ms, with the
  same bits. (By hand, one thread.)
- Several rows are multiplied with each weight that was read: on the EPYC the linears of a layer
  took 3.8 ms for 1 row, 4.8 for 2, 8.4 for 4, 16 for 8, 35 for 16 and 48 for 24, where making them
  plain and multiplying took 25 for 1 row, 43 for 16 and 49 for 24. With AVX2 alone 6.3 ms for 1
  row, 30 for 8, 60 for 16. (Medians of 5 or 7 pairs, by hand, one thread.)
- For more rows a C function of ours makes matrices plain, 28 to 32 weights in a nanosecond into a
  buffer that is used again: at each scale the 16 levels are worked out once and then looked up. In
  turn with bitsandbytes' function the linears of a layer took 0.84 of the time for 64 rows, 0.91
  for 128, 0.97 for 512. The results are the same bits. (Medians of 7 pairs, by hand.)
- With AMX more than 16 rows of bfloat16 go through a C kernel of ours too
  (`weights/kernels/gemm_amx.c`): it makes 256 x 256 weights plain in the cache, by looking up what
  the 16 levels are at a scale, and multiplies them there, where torch's way wrote each matrix to
  memory and read it back. The sums of a row do not depend on other rows. With numbers in the L1
  cache a core multiplied at 2.7 TFLOP/s, from the L2 cache at 1.2 to 1.7; zeros are a fifth faster
  than numbers, for less power goes into them (by hand).
- A decoded token attends in a C kernel too (`weights/kernels/attention.c`, bfloat16 with
  AVX512-BF16).
- Products of bfloat16 pairs are not used where float32 or whole numbers do as well: on the Xeon a
  core did half as many of them in the same time as of float32, and a third as many as of 16-bit
  whole numbers (by hand).
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
        sections.append("\n".join(_whole_models(full, _read("cpu_19b_no_amx"))))
    if layers:
        sections.append("\n".join(_per_layer(layers, _read("cpu_layers_no_amx"))))
    llama = _read("llama_cpp")
    if llama:
        sections.append("\n".join(_beside_llama_cpp(llama)))
    streamed = _read("streamed_decode")
    if streamed:
        sections.append("\n".join(_streamed(streamed)))
    parallel = _read("parallel_decode")
    if parallel:
        sections.append("\n".join(_parallel(parallel)))
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


_EARLIER = (
    "Its figures of decoding are those of an earlier state of our kernel for few rows, which was "
    "rewritten on the EPYC."
)


def _whole_models(with_amx: Report, without_amx: Report | None) -> Iterator[str]:
    yield "## The whole 19B model on a CPU"
    if without_amx:
        yield ""
        yield from _whole_model(without_amx)
        yield ""
        yield f"A processor with AMX encodes and prefills faster. {_EARLIER}"
    yield ""
    yield from _whole_model(with_amx)


def _whole_model(report: Report) -> Iterator[str]:
    bench = report["bench"]
    limits = bench["limits"]
    yield f"{_machine(report)}. {report['remark']}"
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


def _per_layer(report: Report, without_amx: Report | None) -> Iterator[str]:
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
    yield from _shares(report)
    yield (
        f"{_EARLIER} It asks memory for weights far ahead, which plain reading leaves to the "
        "processor, hence shares above 1. Machines of the same kind differ: on another one three "
        "quiet runs gave 0.79, 0.82 and 0.94 for the linears of decoding, and 0.86, 0.91 and 0.97 "
        "for lm_head in NF4 (medians of 9 pairs, by hand). Prefill and encode go through our AMX "
        "kernel, 4-bit matrices included in its time. In turn with the way without it, matrices "
        "made plain and then multiplied by torch, it was 1.38 times as fast for 512 rows, and 1.12 "
        "times for 2306 rows and for the vision tower (medians of 9 pairs, by hand)."
    )
    if without_amx:
        yield ""
        yield (
            f"Without AMX torch multiplies more than 24 rows, after matrices were made plain. "
            f"{_machine(without_amx)}, {without_amx['repeats']} pairs, load average "
            f"{without_amx['load']:.1f}:"
        )
        yield ""
        yield from _shares(without_amx)


def _shares(report: Report) -> Iterator[str]:
    """Tabulate what each layer reaches of its limit, and say which goals that meets."""
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


def _beside_llama_cpp(report: Report) -> Iterator[str]:
    yield "## Beside llama.cpp"
    yield ""
    copies = "with" if report["second_copy"] else "without"
    yield (
        f"{_machine(report)}. llama.cpp (in llama-cpp-python {report['llama_cpp_python']}, built "
        "here for this processor) does not run CogVLM2; it ran a Llama of the language path's "
        f"shapes, in Q4_K_M, {copies} its second copy of the weights in an order that suits it, "
        "and CogVLM's vision tower with CogVLM2's shapes. One thread, CPU time, "
        f"{report['repeats']} pairs in turn (load average when it began: {report['load']:.1f}; "
        "`benchmarks/beside_llama_cpp.py`). A layer is a quarter of the difference between 6 and "
        "2, in the tower half of that between 3 and 1."
    )
    yield ""
    yield "| per layer | llama.cpp ms | ours ms | times as fast | range |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    names = {
        "decode": "decode",
        "prefill": f"prefill, {report['prompt']} tokens",
        "encode": "encode, 9,217 tokens",
    }
    for phase, name in names.items():
        figure = report["phases"][phase]
        yield (
            f"| {name} | {figure['theirs_ms']:.1f} | {figure['ours_ms']:.1f} "
            f"| {figure['times_as_fast']:.2f} "
            f"| {figure['lowest']:.2f} to {figure['highest']:.2f} |"
        )
    yield ""
    yield (
        "On the Xeon, where llama.cpp's first token with that copy ended in a segmentation fault, "
        "an earlier state of our kernel was 1.97 times as fast in decoding and 3.93 times in "
        "prefill as llama.cpp without it."
    )


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


def _parallel(report: Report) -> Iterator[str]:
    yield "## Several conversations at once"
    yield ""
    yield (
        f"{_machine(report)}. All decoder layers and lm_head of the 19B shapes in NF4, everything "
        f"resident, caches of {report['context']} tokens, one thread, CPU time, medians of "
        f"{report['repeats']} (load average at the start: {report['load_average']:.1f}; "
        "`benchmarks/parallel_decode.py`). One pass over the weights gives a token to each."
    )
    yield ""
    yield "| at once | a step, ms | per token, ms | tokens in the same time |"
    yield "| ---: | ---: | ---: | ---: |"
    for count, width in report["widths"].items():
        yield (
            f"| {count} | {width['step_ms']:.0f} | {width['ms_per_token']:.0f} "
            f"| {width['times_as_many_tokens']:.2f} |"
        )
    yield ""
    yield (
        "Where memory is fast a pass for one row takes as long as reading, and each further row "
        "costs arithmetic. On the Xeon, whose memory is slower, 2, 4 and 8 at once gave 1.54, 2.24 "
        "and 2.32 times as many tokens, with an earlier state of our kernel. Each conversation "
        "gets the scores that it gets alone, to the bit (`tests/core`)."
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
