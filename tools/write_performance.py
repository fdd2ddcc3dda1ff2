"""Write docs/performance.md from benchmarks/results/*.json: python tools/write_performance.py

All numbers on the page are in those files, except those marked "by hand".
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.steps import STEPS  # noqa: E402
from benchmarks.gpu.table import render as gpu_table  # noqa: E402
from cogvlm2_lite.units import GIB, format_bytes, format_seconds  # noqa: E402

RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "performance.md"
Report = dict[str, Any]

_INTRODUCTION = """\
# Performance

`python tools/write_performance.py` writes this page from the files in `benchmarks/results/`. Every
number was measured with a program in `benchmarks/` or with `cogvlm2-lite bench`, or by hand where
the text says so. The real weights were not available: figures for the 19B model come from random
NF4 weights of exactly its shapes, each matrix with its own memory, run by the same engine that
answers questions. Speed does not depend on the values of the weights. Answers do, and none are
evaluated here.

`cogvlm2-lite bench 19b` measures the first tables on your computer, without the real model.
"""

_NO_GPU = """\
## GPU

**Nothing here was measured on a GPU**, because none was available. The code for GPUs has run on
an emulated CUDA device (`tests/emulated_cuda/`): all tests marked `cuda`; answers in every order
of the queued work, at several budgets, on two GPUs, with failing allocations and with several
conversations; calibration and the commands. Launches per phase are counted there, and the memory
plan is compared with a model of torch's allocator. Speed, the rounding of a GPU's kernels, and
the memory of modules that CUDA loads late are not known.
"""

_MAKERS = """\
The table of measured cards (`cogvlm2_lite/backends/measured.py`) is empty. `doctor` reads it: a card that is not in
it is "not measured", and a maker without any card in it is "untested on real hardware".

| maker | device | 4-bit products | tested with | not used there |
| --- | --- | --- | --- | --- |
| NVIDIA | `cuda` | bitsandbytes | the emulated GPU | |
| AMD (ROCm) | `cuda` | bitsandbytes | fakes of what torch reports; the rest is the code for NVIDIA | |
| Intel | `xpu` | bitsandbytes: one row fused, more rows dequantized in parts | the emulated GPU under this name; fakes | graphs |
| Apple | `mps` | torch: dequantized in parts | the emulated GPU under this name; fakes | graphs, pinned memory, loading on a second thread (torch's MPS [ends the process](https://github.com/pytorch/pytorch/issues/197805) if two threads use it) |

GPUs without bfloat16 (T4, RTX 20) compute in float16, which the makers of the model do not support. The program
checks the features of each picture and the logits of each prompt; if they are not finite, it computes everything in
float32 from then on, within the same memory budget, and reports that once. Weights in 4 bits stay as they are. This is
tested with models that are made to overflow; with the real weights nobody has tried it. So a T4 counts as not supported
until it has been tested with them. `--dtype float32` avoids the question. `compare` and
calibration do not change the number type by themselves.

A GPU's memory plan on a Mac uses what macOS recommends for its GPU, and no more than the RAM that is free. An operation
that a GPU lacks ends the answer with an error that names `--device cpu`; nothing is computed on the CPU instead,
unless `PYTORCH_ENABLE_MPS_FALLBACK` is set, which `doctor` and a remark report.
"""  # noqa: E501 - a table

_FAILURES = """\
### What you see if a GPU fails

| what happens | `ask`, `chat` | `batch`, `evaluate`, `serve`, the window |
| --- | --- | --- |
| memory runs out | a new plan, and the same answer more slowly | the same |
| CUDA reports an error to torch | an error that names it; `--device cpu` is the way out | the engine is started again |
| CUDA reports an error to bitsandbytes | the program ends with exit code 1, one line of bitsandbytes (`Error ... at line ... in file ...`), and a message that says what to do (not on Windows) | the engine's process ends; the question gets an error, and the engine is started again |
| a call never returns | nothing: end the process | the engine is ended after a while without progress, and started again |

In the third case bitsandbytes ends the process in which it runs. `ask` and `chat`
compute in their own process; the other commands and the window have a process for the engine. `--json` then ends without
the event `finished`. Close other programs and try again, with a smaller `--vram` or with `--device cpu`; `cogvlm2-lite
doctor` shows whether the GPU still responds.
"""  # noqa: E501 - a table

_OWN_KERNELS = """\
### Our own CUDA kernels

`COGVLM2_LITE_GPU_KERNELS=own` makes decoding on NVIDIA's GPUs use CUDA kernels of our own
(`cogvlm2_lite/weights/kernels/cuda/`). torch's NVRTC compiles them when a model is loaded. They are used only if their
self-test passes, and they are off by default, because no card has run or measured them. This is known without a card:

| | our kernels | torch and bitsandbytes |
| --- | ---: | ---: |
| instructions for each 4-bit weight, for 1 to 8 rows (machine code for sm_75 to sm_120) | 2.3 to 2.5 | 8.1, one row |
| rows that read a 4-bit or 16-bit matrix once, each with the bits that it has alone | 8 | up to 3, or 1 |
| launches for a token in a block of the decoder | 9 | 22 |
| error against exact weights in bfloat16 (a random matrix, the kernel's text compiled for the CPU) | 0.0022 | 0.0024 |

"""  # noqa: E501 - a table

_MEASURE_GPU = """\
### Measure your own card

```sh
sh benchmarks/gpu.sh
```

It takes about nine minutes (`--seconds` changes that), downloads nothing, and needs an NVIDIA GPU
and 16 GB of RAM. The weights are random, in the shapes of the 19B model. Each step is a
process with its own time limit; a step that fails is a row in the table at the end. Results are
in `$OUT`, or `benchmarks/results/gpu`, after each step: `gpu.json`, `summary.txt`, `profile.txt`
(kernels by time), `junit.xml` and `output.txt`. `--steps NAME,...` runs some steps again.

| step | what |
| --- | --- |
{steps}

The steps `cap16` to `cap4` imitate smaller cards: another process holds the rest of the memory,
so that the program sees what is free, modules that CUDA loads late take their part, and memory
really runs out.

For a machine without network, `python tools/pack_gpu.py` packs what is missing next to torch: 5.7
MB, and 34 MB with the source tree. Please send `gpu.json` and `summary.txt`: the summary has the
line for the table of measured cards (`cogvlm2_lite/backends/measured.py`), which `doctor` reads.
`python tools/write_performance.py` puts `gpu.json` on this page.

All steps are rehearsed in the tests on an emulated GPU (`sh benchmarks/gpu.sh --rehearse`). That
shows that they run and what they report, and that answers with little memory have the same bits;
it measures nothing. Not rehearsed are the profiler's times, compute-sanitizer, calibration on a
GPU, and the process that holds memory on a real card.
"""

_CHOICES = """\
## What was chosen, and what it costs

- Page faults do not limit dequantization: rows are dequantized into a buffer that is used again
  (`weights/kernels/scratch.py`), and wide activations are changed in place. Before that, page
  faults took {faults_s:.2f} s of system time in the linear layers of a vision layer of
  {layer_s:.1f} s. Raising malloc's limits (`mallopt`) removed them but left the process
  {mallopt_mb} MB larger; with huge pages (`THP_MEM_ALLOC_ENABLE`) they took {huge_s:.2f} s on this
  virtual machine. Neither is used. (Measured once, by hand.)
- Products with 4-bit and int8 matrices are products of integers (`weights/kernels/integer.h` has
  the definition). 64 inputs share a power of two and become integers of 13 bits, levels become
  integers of 14 bits, and the sum of 64 products is exact. So the order of summation has no effect:
  AVX2, AVX-VNNI and AVX512-VNNI give the same bits, for any number of rows and threads. The result
  is closer to the exact product than with levels in bfloat16: 93 of 100 results round to the exact
  bfloat16, otherwise 60 (by hand, two shapes). Matrices are read as they are stored. bitsandbytes'
  kernel for AVX512-BF16 needs a second copy of every matrix (3.45 GiB for the 19B model) and
  seconds to make it. It is used if no C compiler was found during installation; `doctor` reports
  this.
- With AVX512 a register has a pair of columns of 16 matrix rows. They are decoded once for up to 16
  rows of inputs, whose sums stay in registers. For 17 rows or more they are decoded once for up to
  64, 8 units at a time, into the L1 cache: 32 rows took 0.95 and 0.97 of the time of two decodings
  (14336 x 4096 and 4096 x 14336, medians of 7 pairs, by hand).
  16 rows are in 16 pages of memory, where the
  hardware prefetcher would restart at each, so the next 16 rows are prefetched into the L2 cache in
  the order of their bytes, and each next cache line from there. On the Xeon (the linear layers of
  a decoder layer, one thread, smallest of 5 CPU times beside an earlier GEMV kernel in turn): 1 row
  12.5 ms (the earlier kernel: 11.6), 2 rows 12.6, 4 rows 16.7, 8 rows 20, 16 rows 30.
  The earlier kernel took 37 ms for 8 rows and 72 for 16. (By hand.)
- With AMX up to 32 rows are multiplied this way (its GEMM is faster from about 25 rows on, but has
  other bits), without it any number. For more than 16 rows a panel of 16 matrix rows is decoded
  into the L1 cache once. On the Xeon limited to AVX512, 512 and 2,304 rows took 0.30 and 0.32 of
  the time of dequantizing and torch's product: 124 to 136 multiply-adds per nanosecond (matrices of
  14,336 x 4,096 and 4,096 x 14,336, one thread, medians of 3 in turn, by hand). None without
  AMX was measured. With AVX512-BF16 `--dtype float32` computes in float32 throughout
  (`weights/kernels/gemv.c` up to 16 rows).
- With AVX2 and AVX-VNNI (`weights/kernels/integer_256.c`) many rows are multiplied this way, too. A
  panel of 16 matrix rows and 512 columns is decoded into the L1 cache, at 25 weights per
  nanosecond, and multiplied by up to 6 inputs at a time, whose sums are in 12 of the 16 registers.
  From the L1 cache that is 63 multiply-adds per nanosecond with AVX2 (of 65 from registers) and 83
  with AVX-VNNI (of 93), where float32 has 46. A panel is used for 256 inputs, whose float32 sums
  stay in the L2 cache. Up to 5 inputs (AVX-VNNI: 8) are multiplied without panels. One row takes
  0.70 (AVX-VNNI: 0.65) of the time of an earlier GEMV kernel in float32, and as long as 1.20
  (1.04) times reading the matrix. (On the Xeon, one thread, medians of 9 in turn, by hand.)
- For more rows, a C function dequantizes 28 to 32 weights per nanosecond into a buffer that is used
  again: for each scale, it computes the 16 levels once and then looks them up. Paired with
  bitsandbytes' function, the linear layers of a decoder layer took 0.84 of the time for 64 rows,
  0.91 for 128 and 0.97 for 512. The results are the same bits. (Medians of 7 pairs, by hand.)
- With AMX, more than 32 rows of bfloat16 go through a C kernel, too (GEMM,
  `weights/kernels/gemm_amx.c`): 256 inputs stay in the L2 cache, and 32 rows of weights are
  dequantized at a time, where torch's way wrote each matrix to memory and read it back. The
  instructions that dequantize stand between the tile products of the rows before and take no time
  of their own; when they ran first they took a sixth to a third of the time (busy machine). Results
  are written for 256 rows together, because lines in many pages took a fifth. The sums of a row do
  not depend on other rows.
  Tiles in registers or in the L1 cache reached 2.3 to 2.9 TFLOP/s a core, one operand in the L2
  cache 2.1, both there 1.7, one in the L3 cache 0.7; loading and storing the sums every 256 columns
  left 1.5 (by hand).
- Products of bytes (`weights/kernels/bytes.h`), if inputs of 8 bits are asked for: a band of up to
  256 rows of the matrix is converted once for all inputs, at 0.2 cycles a weight with AVX512. With
  AMX the products alone reach 1,000 to 1,200 multiply-adds per nanosecond, where tiles from the L1
  and L2 cache reach 1,900 to 2,100: for every 512 columns of 32 rows and 32 inputs, 16 KiB of
  weights and 8 KiB of float32 sums go through the L2 cache. Prefetching weights into the L1 cache,
  fewer rows at a time, huge pages, and writing results between the products gained nothing (by
  hand, busy machine).
- With AMX the attention of a picture in the vision tower and of a prompt is one C function
  (`weights/kernels/attention_amx.c`): scores, softmax and the product with the values for 32
  queries and 128 keys at a time, all transposed, so that no vector is summed across its lanes. The
  results of a token depend only on the tokens that it sees, so a prompt in parts gives the same
  bits as at once. For one head of the vision tower it takes 0.56 of the time of torch's attention,
  and for a prompt of 2,306 tokens 0.52 of it ("One layer compared with the limit of the machine").
- With AVX512-BF16 and without AMX the same attention has a version of its own
  (`weights/kernels/attention_512.c`): 8 keys and 32 queries have their sums in registers. It
  replaces chunks of torch's products in the vision tower and torch's attention in prefill, and has
  the same independence ("Attention with AVX512-BF16, without AMX").
- The attention of a decode step is one C function for all tokens of a conversation that the step
  computes (`weights/kernels/attention.c`, `attention_tokens_amx.c`): they read the cache once, and
  each sees the keys up to its own. There are versions for bfloat16 with AMX and with AVX512-BF16,
  for float32 with AVX2, and an int8 cache is dequantized block by block inside. On the Xeon, at
  8,000 tokens of context, 8, 16 and 32 tokens took 1.3 to 1.6, 2.0 and 3.5 times as long as one
  with AMX; with AVX512 alone 3.8, 7.6 and 15 times, with AVX2 3.6, 7.1 and 12 times: there the
  products are the limit. (One thread, medians of 5 ratios, by hand.)
- Products of bfloat16 pairs are not used where float32 or integers work as well: on the Xeon a core
  computes a quarter as many of them per second as of 16-bit integers ("What the machine can do"),
  and half as many as of float32 with AVX512 (by hand).
- Without the C kernel, a plain bfloat16 matrix is multiplied by one row without oneDNN, which is
  {one_row:.2f} times as fast (median of 9 pairs on 32,000 x 4,096, one thread, by hand).
- Threads: one per physical core, one less from four cores on, and idle ones sleep
  (`OMP_WAIT_POLICY=PASSIVE`), so that a desktop stays responsive. `OMP_NUM_THREADS` overrides it.
"""


def render() -> str:
    """Return the text of the page."""
    full, layers, memory = (_read(name) for name in ("cpu_19b", "cpu_layers", "memory_estimate"))
    sections = [_INTRODUCTION]
    if full:
        sections.append("\n".join(_whole_models(full, _read("cpu_19b_no_amx"))))
    picture = _read("new_picture")
    if picture:
        sections.append("\n".join(_new_picture(picture)))
    if layers:
        sections.append("\n".join(_per_layer(layers, _read("cpu_layers_no_amx"))))
    attention = _read("cpu_attention")
    if attention:
        sections.append("\n".join(_attention(attention)))
    limits = _read("machine_limits")
    if limits:
        sections.append("\n".join(_limits(limits)))
    avx2 = _read("avx2")
    if avx2:
        sections.append("\n".join(_avx2(avx2)))
    activations = _read("activations")
    if activations:
        sections.append("\n".join(_activations(activations)))
    peers = _read("peers")
    if peers:
        sections.append("\n".join(_peers(peers)))
    rows = _read("rows")
    if rows:
        sections.append("\n".join(_rows(rows)))
    streamed = _read("streamed_decode")
    if streamed:
        sections.append("\n".join(_streamed(streamed)))
    parallel = _read("parallel_decode")
    if parallel:
        sections.append("\n".join(_parallel(parallel)))
    speculation = _read("speculation")
    if speculation:
        sections.append("\n".join(_speculation(speculation)))
    batched = _read("batch_parallel")
    if batched:
        sections.append("\n".join(_batched(batched)))
    started = _read("start_time")
    if started:
        sections.append("\n".join(_started(started)))
    evaluated = _read("evaluate")
    if evaluated:
        sections.append("\n".join(_evaluated(evaluated)))
    if memory:
        sections.append("\n".join(_estimate(memory)))
    measured = _read("gpu/gpu")
    if measured and not measured["rehearsal"]:
        sections.append("\n".join(_gpu(measured)))
    else:
        sections.append(_NO_GPU)
    sections.append(_MAKERS)
    steps = "\n".join(f"| `{step.name}` | {step.what} |" for step in STEPS)
    sections += [_FAILURES, _OWN_KERNELS, _MEASURE_GPU.format(steps=steps)]
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


_EARLIER = "Its decode figures are from an earlier GEMV kernel, rewritten since then."


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
        f"Loading the weights that decode needs took {format_seconds(bench['load_s'])}. "
        f"Just before, the machine read {limits['read_bytes_per_s'] / 1e9:.1f} GB/s and "
        f"multiplied at {limits['flops_per_s'] / 1e9:.0f} GFLOP/s with these threads. Encode and "
        "prefill include generating their weights in memory."
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
        f"Memory, with a budget of {bench['budget_bytes'] / GIB:.1f} GiB. Measured is the growth "
        "of the process's resident size since before loading."
    )
    yield ""
    yield "| phase | planned peak | measured peak |"
    yield "| --- | ---: | ---: |"
    for phase in bench["phases"]:
        planned, measured = phase["planned_bytes"], phase["measured_bytes"]
        yield f"| {phase['name']} | {format_bytes(planned)} | {format_bytes(measured)} |"


_PICTURE_GOAL = 0.55
_PICTURE_PARTS = {
    "vision_layer": "a vision layer, 9,217 tokens",
    "rest_of_encode": "the rest of encode: patch embedding, projector, pixels",
    "decoder_layer": "prefill of a decoder layer, both experts",
    "rest_of_prefill": "the rest of prefill: embedding, lm_head",
    "encode": "encode, 63 layers",
    "prefill": "prefill, 32 layers",
    "picture": "a new picture",
}


def _new_picture(report: Report) -> Iterator[str]:
    yield "## A new picture, compared with an earlier commit"
    yield ""
    layers, commits = report["layers"], report["commits"]
    yield (
        f"{_machine(report)}. Encode and prefill of one picture of 1344 x 1344 and a short "
        f"question, {report['threads']} threads, {report['pairs']} pairs in turn (load average at "
        f"the start: {report['load']:.1f}; `benchmarks/new_picture.py`). Before is commit "
        f"{commits['before']}, without products of integers and without attention of our own for "
        f"many tokens. Two layers of each kind were measured; encode, prefill and the "
        f"sum are scaled to {layers['vision']} vision and {layers['decoder']} decoder layers. "
        "Ratios are medians of the pairs, with the lowest and the highest. Other programs ran on "
        "the same cores: CPU time is what counts, and the clock shows what they took."
    )
    yield ""
    yield (
        "| what | before, CPU s | now, CPU s | ratio | range | before, clock s | now, clock s | "
        "ratio |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for part, name in _PICTURE_PARTS.items():
        cpu, clock = report["cpu_s"][part], report["clock_s"][part]
        yield (
            f"| {name} | {cpu['before']:.2f} | {cpu['after']:.2f} | {cpu['ratio']:.2f} | "
            f"{cpu['lowest']:.2f} to {cpu['highest']:.2f} | {clock['before']:.2f} | "
            f"{clock['after']:.2f} | {clock['ratio']:.2f} |"
        )
    yield ""
    reached = report["cpu_s"]["picture"]["ratio"]
    met = "met" if reached <= _PICTURE_GOAL else "not met"
    yield f"Goal: a new picture in {_PICTURE_GOAL} of the time before ({met}: {reached:.2f})."
    slower = report["cpu_s"]["prefill"]
    if slower["lowest"] > 1:
        yield (
            f"Prefill took longer than before in every pair ({slower['lowest']:.2f} to "
            f"{slower['highest']:.2f}); the cause is not known. The rest of a phase is a small "
            "difference of long times: it may even be negative."
        )


def _per_layer(report: Report, without_amx: Report | None) -> Iterator[str]:
    yield "## One layer compared with the limit of the machine"
    yield ""
    yield (
        f"{_machine(report)}. One thread, CPU time, {report['repeats']} pairs: our layer and the "
        "limit are measured in turn, because other programs slow both (load average at the start: "
        f"{report['load']:.1f}). The share is the median of the pairs; the range is next to it. "
        "Reading is finding the largest of 8-byte numbers in memory; bf16 is torch's product with "
        "a plain matrix."
    )
    yield ""
    yield from _shares(report)
    yield (
        "The kernels prefetch weights far ahead, which plain reading leaves to the processor; so "
        "shares above 1 are possible. Machines of the same kind differ: on another one three quiet "
        "runs of an earlier kernel gave 0.79, 0.82 and 0.94 for the linear layers of decode, and "
        "0.86, 0.91 and 0.97 for lm_head in NF4 (medians of 9 pairs, by hand). The limit of a step "
        "with 8 drafts is the time of one token. Prefill and encode use the kernels for AMX; the "
        "time of linear layers includes 4-bit matrices."
    )
    if without_amx:
        yield ""
        yield (
            "Without AMX, with earlier kernels, which multiplied more than 24 rows through torch "
            f"after dequantizing (now none). {_machine(without_amx)}, "
            f"{without_amx['repeats']} pairs, load average {without_amx['load']:.1f}:"
        )
        yield ""
        yield from _shares(without_amx)


def _attention(report: Report) -> Iterator[str]:
    yield "### Attention with AVX512-BF16, without AMX"
    yield ""
    yield (
        f"{_machine(report)}. Our kernels, oneDNN and MKL limited to AVX512-BF16; one thread, CPU "
        f"time, {report['repeats']} pairs in turn (load average at the start: "
        f"{report['load']:.1f}; `benchmarks/cpu_layers.py --attention`). No processor without AMX "
        "has measured this kernel (`weights/kernels/attention_512.c`)."
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
    share = report["figures"]["encode: attention of 1 head, of its two products"]["share"]
    yield ""
    yield (
        "Goal: attention at 0.95 of torch's two products "
        f"({'met' if share >= 0.95 else 'not met'}: {share:.2f}). The instruction for pairs of "
        "bfloat16 is slow on this Xeon, where float32 has twice its rate. On the EPYC above "
        "torch's two products reached 205 multiply-adds per nanosecond with it, more than "
        "float32 can."
    )


def _shares(report: Report) -> Iterator[str]:
    """Yield a table with the share of its limit that each layer reaches, and the goals."""
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


_VISION_WEIGHTS = 1792 * (5376 + 1792 + 2 * 15360)
_HEAD_BYTES = 2 * 128256 * 4096
_INSTRUCTIONS = {
    "amx-bf16": "AMX, bfloat16",
    "amx-int8": "AMX, int8",
    "avx512-vnni": "AVX512-VNNI, pairs of 16 bits",
    "avx512-bf16": "AVX512-BF16",
    "avx-vnni": "AVX-VNNI, pairs of 16 bits",
    "avx2": "AVX2, `vpmaddwd` and `vpaddd`",
    "float32": "AVX2, float32",
}


def _limits(report: Report) -> Iterator[str]:
    yield "## What the machine can do"
    yield ""
    yield (
        f"{_machine(report)}. Multiply-adds per nanosecond of one thread, CPU time, medians of "
        f"{report['repeats']} rounds in turn, and the highest in brackets (load average at the "
        f"start: {report['load']:.1f}; `benchmarks/machine_limits.py`). Each product loads one "
        "operand from the place above the column; with AMX that is a tile of 1 KiB. L1 and L2 are "
        "half of the cache, memory is 1 GiB that is read in order. The last column has what our "
        "kernels reach, from the other tables."
    )
    yield ""
    places = {"registers": "registers", "L1": "L1 cache", "L2": "L2 cache", "memory": "memory"}
    yield f"| instruction | {' | '.join(places.values())} | our kernels |"
    yield "| --- |" + " ---: |" * len(places) + " --- |"
    rates, ours = report["rates"], _reached()
    for name, title in _INSTRUCTIONS.items():
        if name in rates:
            cells = " | ".join(_rate(rates[name][place]) for place in places)
            yield f"| {title} | {cells} | {ours.get(name, '')} |"
    yield ""
    read = rates["read"]
    yield (
        f"Reading with AVX2: {_rate(read['L1'])} bytes per nanosecond from the L1 cache, "
        f"{_rate(read['L2'])} from the L2 cache, {_rate(read['memory'])} from memory, and "
        f"{_rate(rates['prefetched']['memory'])} from memory if 16 KiB ahead are prefetched"
        + (f"; our kernels: {ours['read']}." if "read" in ours else ".")
    )
    yield ""
    yield (
        "Other virtual machines share the memory, whose rate changes within minutes. One row "
        "of 4-bit weights is limited by memory, many rows by the instruction, and AMX by the L2 "
        "cache if both operands come from there. A product of integers of 13 and 14 bits takes "
        "four products of bytes with AMX (two if the weights are int8), so it is not faster there "
        "than in bfloat16."
    )


def _rate(of: dict[str, float]) -> str:
    digits = 0 if of["median"] >= 20 else 1
    return f"{of['median']:,.{digits}f} ({of['highest']:,.{digits}f})"


def _reached() -> dict[str, str]:
    """Return what our kernels reach, by instruction, from the other results."""
    found = {}
    layers, rows, avx2 = (_read(name) for name in ("cpu_layers", "rows", "avx2"))
    if layers:
        figures = layers["figures"]
        products = {
            "prefill, 2,306 rows": ("prefill: linears of a layer, 2306 rows, of bf16",
                                    2306 * _EXPERT_WEIGHTS),
            "vision linears": ("encode: linears of a layer, of bf16", 9217 * _VISION_WEIGHTS),
            "vision attention": ("encode: attention of 1 head, of its two products",
                                 2 * 9217 * 9217 * 112),
        }  # fmt: skip
        found["amx-bf16"] = ", ".join(
            f"{count / figures[name]['ours_ms'] / 1e6:,.0f} ({title})"
            for title, (name, count) in products.items()
        )
        linears = figures["decode: linears of 4 layers, of reading"]
        head = figures["decode: lm_head in bf16, of reading"]
        found["read"] = (
            f"{4 * layers['read_bytes'] / linears['ours_ms'] / 1e6:.1f} (one row, NF4), "
            f"{_HEAD_BYTES / head['ours_ms'] / 1e6:.1f} (one row, lm_head in bfloat16)"
        )
    if rows:
        for one in rows["figures"]:
            if (one["kind"], one["level"], one["rows"]) == ("NF4", "avx512", 32):
                rate = 32 * _EXPERT_WEIGHTS / one["ms"] / 1e6
                found["avx512-vnni"] = f"{rate:.0f} (32 rows)"
    if avx2:
        names = {"avx2": "avx2", "avx-vnni": "avx-vnni", "float32": "dequantize"}
        found |= {
            name: f"{avx2['prefill'][key]['rate'] / 1e9:.0f} (512 rows)"
            for name, key in names.items()
            if key in avx2["prefill"]
        }
        found["float32"] += ", torch's product of dequantized weights"
    return found


def _avx2(report: Report) -> Iterator[str]:
    yield "## Processors with AVX2 or AVX-VNNI"
    yield ""
    yield (
        f"{_machine(report)}. Kernels, torch and MKL limited to AVX2 and AVX-VNNI; one thread, CPU "
        f"time, medians of {report['repeats']} rounds in turn (load average at the start: "
        f"{report['load']:.1f}; `benchmarks/avx2.py`). Such processors compute in float32. "
        "4-bit and int8 matrices are multiplied as products of integers, which have the same bits "
        "for any number of rows; the earlier way dequantized many rows for torch's product."
    )
    yield ""
    yield "| linear layers | instructions | ms | of their limit | times as fast | range |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    names = {"prefill": "decoder layer", "encode": "vision layer"}
    for phase, name in names.items():
        figures = report[phase]
        what = f"{name}, {figures['rows']:,} rows"
        earlier = figures["dequantize"]
        yield f"| {what} | dequantized | {earlier['ms']:,.0f} | {earlier['share']:.2f} | 1.00 | |"
        for level in report["few"]:
            f = figures[level]
            yield (
                f"| {what} | {_INTEGER_LEVELS[level]} | {f['ms']:,.0f} | {f['share']:.2f} "
                f"| {f['ratio']:.2f} | {f['lowest']:.2f} to {f['highest']:.2f} |"
            )
    yield ""
    peaks = report["prefill"]["peaks"]
    rates = ", ".join(f"{peaks[n] / 1e9:.0f} with {_INTEGER_LEVELS[n]}" for n in report["few"])
    yield (
        "The limit is the rate of the instruction from registers: multiply-adds per nanosecond "
        f"{rates}, and {peaks['float32'] / 1e9:.0f} in float32. Processors with three ports for "
        "these instructions do 1.5 products and additions of AVX2 per cycle."
    )
    yield ""
    yield (
        "| rows | "
        + " | ".join(f"{_INTEGER_LEVELS[n]}, ms | of one row" for n in report["few"])
        + " |"
    )
    yield "| ---: |" + " ---: | ---: |" * len(report["few"])
    for rows in next(iter(report["few"].values())):
        cells = (each[rows] for each in report["few"].values())
        columns = " | ".join(f"{c['ms'] / 2:.1f} | {c['ratio']:.2f}" for c in cells)
        yield f"| {rows} | {columns} |"
    yield ""
    products = 32 * _EXPERT_WEIGHTS / 1e6
    limits = " and ".join(
        f"{products / peaks[n] * 1e9:.0f} ms with {_INTEGER_LEVELS[n]}" for n in report["few"]
    )
    yield (
        "That is a decoder layer, of two in turn. 32 rows cannot take less than "
        f"{limits}: the instruction is the limit from about 4 rows on."
    )
    yield ""
    e = report["errors"]
    yield (
        f"Relative error against float64: {e['normal']['integers']:.1e} for normal inputs, where "
        f"inputs and weights in bfloat16 have {e['normal']['bfloat16']:.1e}; "
        f"{e['heavy tails']['integers']:.1e} and {e['heavy tails']['bfloat16']:.1e} for "
        "heavy-tailed inputs (Student's t with 2 degrees of freedom, and 8 of 4,096 channels 50 "
        "times as large)."
    )


_INTEGER_LEVELS = {"avx2": "AVX2", "avx-vnni": "AVX-VNNI"}
_EXPERT_WEIGHTS = 6144 * 4096 + 4096 * 4096 + 3 * 14336 * 4096


def _activations(report: Report) -> Iterator[str]:
    levels = report["levels"]
    loads = [one["load"] for one in levels.values()]
    yield "## Activations of 8 bits"
    yield ""
    yield (
        "`--activations int8` makes inputs of matrices integers of 8 bits. It is off by default, "
        "and only for the vision tower, the projector and the decoder's "
        "vision experts; text tokens never use them (definition: `weights/kernels/bytes.h`). "
        f"{_machine(report)}, limited to each level; one thread, CPU time, medians of "
        f"{report['repeats']} rounds in turn with the default products of that level (load average "
        f"{min(loads):.1f} to {max(loads):.1f}; `benchmarks/activations.py`). The linear layers of "
        "one layer, with a part of a picture's rows."
    )
    yield ""
    yield (
        "| instructions | linear layers | rows | default, ms | 8 bits, ms "
        "| multiply-adds per nanosecond | times as fast | range |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name in ("amx", "avx512", "avx-vnni", "avx2"):
        for part in ("decoder", "vision"):
            f = levels[name][part]
            yield (
                f"| {_BYTE_LEVELS[name]} | {part} | {levels[name]['rows']:,} "
                f"| {f['default']['ms']:,.0f} | {f['bytes']['ms']:,.0f} "
                f"| {f['bytes']['rate'] / 1e9:,.0f} | {f['ratio']:.2f} "
                f"| {f['lowest']:.2f} to {f['highest']:.2f} |"
            )
    yield ""
    yield (
        "AVX2 has no faster product of bytes: its instruction for them adds pairs in 16 bits, so "
        "bytes are widened and multiplied as 16-bit integers. With AMX the instruction has twice "
        "the rate of the one for bfloat16, but the sums leave the tiles after each 512 "
        "columns, and inputs and weights come from the L2 cache."
    )
    yield ""
    yield "Relative errors against float64 (4,096 columns), beside inputs and weights in bfloat16:"
    yield ""
    yield "| inputs | 8 bits | bfloat16 | 8 bits, of the rest | bfloat16, of the rest |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, text in _BYTE_INPUTS.items():
        e = report["errors"][name]
        rest = [f"{e[key]:.1e}" if name != "normal" else "" for key in _REST]
        yield f"| {text} | {e['bytes']:.1e} | {e['bfloat16']:.1e} | {rest[0]} | {rest[1]} |"
    yield ""
    yield (
        "512 inputs share a step, so a channel that is 50 times as large leaves about two bits for "
        "each other input of its block. The last two columns divide the error by what the "
        "other channels alone contribute."
    )
    yield ""
    yield from _coarse_answers(report["answers"])


def _coarse_answers(report: Report) -> Iterator[str]:
    """Return what activations of 8 bits change in the demo model's probabilities."""
    cases = [(name, one) for name, one in report.items() if isinstance(one, dict)]
    yield (
        f"**The demo model**, {cases[0][1]['tokens']:,} tokens of {cases[0][1]['answers']} true "
        f"answers about {report['pictures']} held-out pictures (seed {report['seed']}), in "
        "float32. `compare MODEL --activations int8` measures the same with your model and "
        "pictures. Rows of this small model have at most 768 inputs, one or two blocks:"
    )
    yield ""
    yield "| compared | KL (95 % interval) | same most likely token |"
    yield "| --- | ---: | ---: |"
    for name, one in cases:
        kl, top = one["kl_mean"], one["top1"]
        interval = f"{kl['value']:.5f} [{kl['low']:.5f}, {kl['high']:.5f}]"
        yield f"| {name} | {interval} | {top['value']:.2%} |"


_BYTE_LEVELS = {
    "amx": "AMX (int8)",
    "avx512": "AVX512-VNNI",
    "avx-vnni": "AVX-VNNI",
    "avx2": "AVX2",
}
_BYTE_INPUTS = {
    "normal": "normal",
    "normal, large": "normal, 8 of 4,096 channels 50 times as large",
    "tails, large": "Student's t with 2 degrees of freedom, 8 channels 50 times as large",
}
_REST = ("bytes_rest", "bfloat16_rest")

_PEERS_METHOD = """\
None of the three runs CogVLM2. They run a Llama with the language path's shapes, and mainline
llama.cpp also CogVLM's vision tower with CogVLM2's shapes, with random weights; ours are random NF4
weights with a scale for 64 columns. Mainline has its reordered copy of the weights. ik_llama.cpp
runs as it comes, and once with reordered weights (`-rtr`). OpenVINO has 4-bit weights with zero
points and scales for 128 columns, and ran in bfloat16 (its choice here) and in float32; its code
can't be limited to less than the processor has. Inputs of products have 8 bits in both llama.cpp
and in OpenVINO's float32, which rounds them in groups of 32 ("dynamic quantization") unless that is
turned off ("inputs too"); ours have 13 bits or are bfloat16. Ours and one peer take turns; the time
of a layer is half of the difference between 3 layers and 1 (in the tower: between 2 and 1), and a
ratio is the median of {fewest} to {most} pairs, with the lowest and the highest beside it. With two
threads CPU time is that of both, with waiting.

GCC 12 compiles mainline's AMX code in such a way that it ends with an illegal instruction at the
first token; the figures for AMX are of a build with `-fno-dse -fno-tree-dse`."""

_PEERS_WHY = """\
The reasons, as far as they were measured:

- ik_llama.cpp, prefill with AVX2: with many rows it decodes a block of weights once into
  integers of 8 bits and has one scale for 256 columns of an input; ours have 13 bits and a scale
  for 64 columns. Inputs of 8 bits would not help with AVX2, where they take the same time as 13
  bits (see [inputs of 8 bits](#inputs-of-8-bits)): ours is at 0.8 of the rate of its instructions.
- Mainline's Q4_0 with AMX, one token: the codes of Q4_0 are the levels, so nothing is looked up,
  and inputs have 8 bits. Ours looks up levels of 14 bits, which takes 20 instructions for 128
  weights: when the codes are in the L2 cache, 16 bytes of them per nanosecond (by hand). That is as
  much as memory delivers at best, and the two times add up in part. Reading the rows of a matrix
  one after another, with prefetching 8 KiB ahead, was tried: 0.97 of the time, not worth its code.
- ik_llama.cpp, one token with AVX2 and two threads: the pairs gave 0.79 to 1.06, so it is the same
  time within what other programs change.
- OpenVINO in float32, 8 conversations: it rounds inputs to 8 bits. With inputs in float32, too, it
  takes the time in the row below that one."""

_PEERS_EARLIER = """\
On the EPYC, with earlier kernels and beside mainline llama.cpp of the same commit built for it
(Q4_K_M, reordered), ours was 1.53 times as fast in decode, 1.66 in prefill and 1.87 in encode
(medians of 5 pairs, by hand)."""

_LEVELS = {
    "avx2": "AVX2 (FMA, F16C), no AVX-VNNI; ours in float32",
    "avx512": "AVX512 with VNNI and BF16, no AMX; ours in bfloat16",
    "amx": "AMX; ours in bfloat16",
}
_PHASES = {
    "decode": "decode, 1 token",
    "rows": "decode, 8 conversations at once",
    "prefill": "prefill, 512 tokens",
    "encode": "encode, 9,217 tokens",
}


def _peers(report: Report) -> Iterator[str]:
    yield "## Beside mainline llama.cpp, ik_llama.cpp and OpenVINO"
    yield ""
    figures = report["figures"]
    versions = {one["peer"].split()[0]: one["version"] for one in figures}
    loads = [one["load"] for one in figures]
    ik, openvino = (versions.get(name, "(not measured)") for name in ("ik", "OpenVINO"))
    yield (
        f"{_machine(report)}. Programs: mainline llama.cpp {versions['mainline']}, ik_llama.cpp "
        f"{ik}, OpenVINO {openvino} (what OpenVINO GenAI computes with) "
        "(`benchmarks/beside_peers.py`). The last column is the commit of ours."
    )
    yield ""
    pairs = [one["repeats"] for one in figures]
    yield _PEERS_METHOD.format(fewest=min(pairs), most=max(pairs))
    yield ""
    yield (
        f"The load average was {min(loads):.1f} to {max(loads):.1f} at the starts: other programs "
        "ran on the same two cores. CPU time, measured in turn, suffers little from that; the "
        "clock with two threads suffers much."
    )
    for level, title in _LEVELS.items():
        mine = [one for one in figures if one["level"] == level]
        if mine:
            yield ""
            yield f"### {title}"
            yield ""
            yield from _peer_table(mine)
    yield ""
    losses = [one for one in figures if one["times_as_fast"] < 1]
    yield f"Losses in CPU time (bold): {len(losses)} of {len(figures)}. {_PEERS_WHY}"
    yield ""
    yield " ".join(_peer_goals(figures))
    yield ""
    yield _PEERS_EARLIER


def _peer_table(figures: list[Report]) -> Iterator[str]:
    yield (
        "| per layer | beside | theirs, ms | ours, ms | times as fast | range "
        "| two threads: CPU time | two threads: clock | ours at |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    two = {(one["phase"], one["peer"]): one for one in figures if one["threads"] == 2}
    for one in figures:
        if one["threads"] != 1:
            continue
        both = two.get((one["phase"], one["peer"]))
        more = (
            [_times(both[key]) for key in ("times_as_fast", "clock_times_as_fast")] if both else []
        )
        yield (
            f"| {_PHASES[one['phase']]} | {_peer_name(one['peer'])} | {one['theirs_ms']:,.1f} "
            f"| {one['ours_ms']:,.1f} | {_times(one['times_as_fast'])} "
            f"| {one['lowest']:.2f} to {one['highest']:.2f} | {' | '.join(more or ['', ''])} "
            f"| {one['commit']} |"
        )


def _peer_name(name: str) -> str:
    return name.replace("mainline ", "mainline llama.cpp, ").replace("ik ", "ik_llama.cpp, ")


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**"


def _peer_goals(figures: list[Report]) -> Iterator[str]:
    yield "Goals with AVX2, one thread, beside mainline's faster kind:"
    for phase, goal in (("decode", 1.3), ("prefill", 1.6), ("encode", 1.6)):
        ratios = [
            one["times_as_fast"]
            for one in figures
            if (one["level"], one["phase"], one["threads"]) == ("avx2", phase, 1)
            and one["peer"].startswith("mainline")
        ]
        if ratios:
            met = "met" if min(ratios) >= goal else "not met"
            yield f"{phase} {goal} ({met}: {min(ratios):.2f})."


def _rows(report: Report) -> Iterator[str]:
    figures = report["figures"]
    counts = sorted({figure["rows"] for figure in figures})
    yield "## Several rows at once"
    yield ""
    yield (
        f"`python -m benchmarks.rows` on {_machine(report)}: the linear layers of a decoder layer "
        "of the 19B model on one thread, in CPU time. Each number of rows in turn with one row; "
        f"medians of {report['repeats']} ratios. All levels give the same bits for a row, alone or "
        "among others."
    )
    yield ""
    yield (
        "| matrices | instructions | 1 row, ms | "
        + " | ".join(f"{count} rows" for count in counts)
        + " |"
    )
    yield "| --- | --- | ---: |" + " ---: |" * len(counts)
    for kind, level in dict.fromkeys((figure["kind"], figure["level"]) for figure in figures):
        line = {f["rows"]: f for f in figures if (f["kind"], f["level"]) == (kind, level)}
        ratios = " | ".join(f"{line[count]['ratio']:.2f} times" for count in counts)
        one = statistics.median(figure["one_row_ms"] for figure in line.values())
        yield f"| {kind} | {level} | {one:.1f} | {ratios} |"
    yield ""
    yield (
        "With AMX the same functions are used as with AVX512, up to 32 rows. A version with the "
        "int8 products of AMX was tried: it took longer for up to 16 rows, and 0.88 of the time "
        "for 32 (by hand)."
    )


def _streamed(report: Report) -> Iterator[str]:
    kernels = report["kernels"]
    yield "## A CPU with too little RAM"
    yield ""
    yield (
        f"{_machine(report)}; {report['layers']} decoder layers and a 4-bit lm_head, one thread, "
        f"CPU time per token, median of {report['repeats']} (load average at the start: "
        f"{report['load_average']:.1f}; `benchmarks/streamed_decode.py`). The weights are in "
        "memory already, as in the system's file cache; reading them from a disk takes extra time."
    )
    yield ""
    yield "| kernel | everything resident, ms | all layers streamed, ms | logits |"
    yield "| --- | ---: | ---: | --- |"
    for name, title in (("gemv", "our C kernel"), ("packed", "bitsandbytes', a packed copy")):
        row = kernels[name]
        equal = "equal bit for bit" if row["equal_to_the_bit"] else "NOT equal"
        yield f"| {title} | {row['resident_ms']:.1f} | {row['streamed_ms']:.1f} | {equal} |"
    yield ""
    slower = kernels["gemv"]["streamed_ms"] / kernels["gemv"]["resident_ms"]
    packing = kernels["packed"]["streamed_ms"] / kernels["packed"]["resident_ms"]
    yield (
        f"With our kernel streaming takes {slower:.2f} times as long, because it reads matrices as "
        "they are stored. Without it, matrices are packed again for every token, which takes "
        f"{packing:.1f} times as long."
    )


def _parallel(report: Report) -> Iterator[str]:
    most = report["widths"]["8"]["times_as_many_tokens"]
    yield "## Several conversations at once"
    yield ""
    yield (
        f"{_machine(report)}. All decoder layers and lm_head of the 19B shapes in NF4, everything "
        f"resident, caches of {report['context']} tokens, one thread, CPU time, medians of "
        f"{report['repeats']} (load average at the start: {report['load_average']:.1f}; "
        "`benchmarks/parallel_decode.py`). One pass over the weights gives each a token."
    )
    yield ""
    yield "| conversations | step, ms | per token, ms | tokens in the same time |"
    yield "| ---: | ---: | ---: | ---: |"
    for count, width in report["widths"].items():
        yield (
            f"| {count} | {width['step_ms']:.0f} | {width['ms_per_token']:.0f} "
            f"| {width['times_as_many_tokens']:.2f} |"
        )
    yield ""
    yield (
        f"Goal: 8 conversations give 4 times as many tokens ({'met' if most >= 4 else 'not met'}: "
        f"{most:.2f}). With an earlier kernel it was 2.32 times on the Xeon, and 1.60 times on an "
        "EPYC, whose memory is faster: there a pass for one row takes less time, and each further "
        "row needs as much arithmetic. "
        "Each conversation gets the same logits as alone, bit for bit (`tests/core`)."
    )


def _speculation(report: Report) -> Iterator[str]:
    times, texts = report["times"], report["texts"]
    replay, demo, prose = report["replay"], report["demo"], report["prose"]
    yield "## Speculation"
    yield ""
    yield (
        "Several likely tokens of an answer are computed in one pass, each as a row, and those "
        "that the model chooses, too, are kept. The answer is the same bit for bit "
        "(`tests/core/test_speculation.py`). Acceptance and speed are measured apart "
        "(`benchmarks/speculation.py`)."
    )
    yield ""
    yield (
        f"**Speed of a pass.** {_machine(times)}; {times['layers']} decoder layers and lm_head of "
        f"the 19B shapes in NF4, {times['context']} tokens in the cache, one thread, CPU time, "
        f"medians of {times['repeats']} (load average at the start: {times['load_average']:.1f}). "
        "Other programs used the cores at the same time."
    )
    yield ""
    yield "| rows | resident, ms | of one row | streamed from memory, ms | of one row |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    resident, streamed = times["resident_ms"], times["streamed_ms"]
    for rows, ms in resident.items():
        yield (
            f"| {rows} | {ms:.0f} | {ms / resident['1']:.2f} | {streamed[rows]:.0f} "
            f"| {streamed[rows] / streamed['1']:.2f} |"
        )
    yield ""
    yield (
        "**Acceptance and gain.** The engine answers with texts that were written for this, in "
        f"place of a model. OCR text has {texts['wrong_letters']:.0%} wrong letters (median of "
        f"{texts['seeds']} drafts): such as OCR programs confuse, or (any wrong letters) random "
        "ones. The other drafts are n-grams of the conversation, and what a schema requires. "
        "Gains are computed from the passes and the times above; the lengths of "
        "drafts adapt to these times. On a disk a pass takes at least as long as reading the "
        f"weights ({format_bytes(times['streamed_bytes'])}); these two columns are computed, not "
        f"measured. The vocabulary has {texts['vocabulary']:,} tokens (cl100k_base, with which "
        "Llama 3's begins; Llama 3's tokens for Chinese are missing). The last column runs the "
        f"first {replay['passes']} passes with random weights in {replay['layers']} layers, in "
        f"turn with the same tokens one by one (resident, median of {replay['repeats']} pairs, and "
        "the range). The first passes of an answer gain least: what each source of drafts is worth "
        "is not learned yet, and a table has no earlier rows. Texts whose drafts changed "
        'afterwards are marked "not run" there.'
    )
    yield ""
    names = list(texts["places"])
    yield f"| text | tokens | tokens per pass | {' | '.join(names)} | measured, resident |"
    yield f"| --- | ---: | ---: | {' | '.join('---:' for _ in names)} | ---: |"
    for title, found in texts["places"]["resident"].items():
        gains = (f"{texts['places'][name][title]['times_as_fast']:.2f}" for name in names)
        seen = replay["gains"].get(title)
        measured = "not run"  # since its drafts changed
        if seen:
            low, high = seen["lowest"], seen["highest"]
            measured = f"{seen['times_as_fast']:.2f} ({low:.2f} to {high:.2f})"
        yield (
            f"| {title} | {found['tokens']} | {found['tokens_per_pass']:.2f} "
            f"| {' | '.join(gains)} | {measured} |"
        )
    yield ""
    yield "Goals, with resident weights: " + "; ".join(_speculation_goals(texts)) + "."
    yield ""
    yield (
        "A table without a draft text misses its goal: more than half of its tokens are words and "
        "numbers that no source has. With a draft text, one draft has several cells: words of the "
        "text and, between them, what the answer wrote at earlier places of the same form "
        "(`cogvlm2_lite/engine/draft_fields.py`)."
    )
    yield ""
    own = max(one["own_ms_per_token"] for one in texts["places"]["resident"].values())
    yield (
        f"Finding drafts, choosing tokens and the scheduler take at most {own:.1f} ms of CPU time "
        f"per token, where a pass takes {resident['1']:.0f} ms."
    )
    yield ""
    yield (
        f"**What it costs where nothing can be drafted.** {_machine(prose)}; free answers of the "
        "demo model about drawn pictures, in turn with and without speculation, CPU time behind "
        f"the first token, one thread ({prose['answers']} answers with {prose['tokens']} tokens; "
        f"load average at the start: {prose['load_average']:.1f}). {prose['passes_on']} passes "
        f"with speculation, {prose['passes_off']} without it; {prose['ms_per_token']:.2f} and "
        f"{prose['ms_per_token_off']:.2f} ms per token. The median of the differences is "
        f"{prose['more_ms_per_token']:.2f} ms per token. A pass of the 19B model takes "
        f"{resident['1']:.0f} ms, so that is {prose['more_ms_per_token'] / resident['1']:.2%}."
    )
    yield ""
    yield "**The demo model** answers questions about drawn pictures (answers of 8 tokens or more):"
    yield ""
    yield "| draft text | answers | tokens per pass |"
    yield "| --- | ---: | ---: |"
    for kind, found in demo.items():
        yield f"| {kind} | {found['answers']} | {found['tokens_per_pass']:.2f} |"


def _speculation_goals(texts: Report) -> Iterator[str]:
    found = texts["places"]["resident"]
    read = [title for title in found if title.endswith("OCR text")]
    plain = [title for title in read if not title.startswith(("a table", "JSON"))]
    forms = [title for title in found if title.startswith(("a table", "JSON"))]
    goals = (
        (2.5, "OCR text", [*plain, "the same letter, any wrong letters"]),
        (2.0, "tables and JSON", forms),
        (0.98, "prose, where at most 2 % may be lost", ["prose"]),
    )
    for least, name, titles in goals:
        gains = {title: found[title]["times_as_fast"] for title in titles}
        low = [f"{title} {gain:.2f}" for title, gain in gains.items() if gain < least]
        met = "met" if not low else f"not met: {', '.join(low)}"
        yield f"{least} for {name} ({min(gains.values()):.2f} or more; {met})"


def _batched(report: Report) -> Iterator[str]:
    tokens = report["pictures"] * report["tokens"]
    yield "## Many pictures: `batch`"
    yield ""
    yield (
        f"{_machine(report)}. A small model of random weights in 4 bits (162 MiB), everything "
        f"resident, {report['pictures']} pictures, answers of {report['tokens']} tokens, one "
        f"thread, CPU time, the better of {report['repeats']} runs in turn (load average at the "
        f"start: {report['load_average']:.1f}; `benchmarks/batch_parallel.py`)."
    )
    yield ""
    yield "| pictures at once | seconds | pictures per second | tokens per second |"
    yield "| ---: | ---: | ---: | ---: |"
    for count, seconds in ((1, report["one_s"]), (report["at_once"], report["many_s"])):
        yield (
            f"| {count} | {seconds:.1f} | {report['pictures'] / seconds:.1f} "
            f"| {tokens / seconds:.0f} |"
        )
    yield ""
    yield (
        f"The answers are equal; {report['at_once']} at once are {report['times_as_fast']:.2f} "
        "times as fast. Only decoding is shared: each picture is still encoded and each prompt "
        "computed on its own. With the 19B model on a CPU these take most of the time, so short "
        "answers gain little there."
    )


def _started(report: Report) -> Iterator[str]:
    now, before = report["parts"]["now"], report["parts"].get("before")
    yield "## The start"
    yield ""
    yield (
        f"{_machine(report)}. From `cogvlm2-lite ask` to the first word of a text question, a "
        "folder of 11.7 GB with the names, shapes and bytes of the 19B model in 4 bits "
        "(`benchmarks/quantized_19b.py`), files in the system's cache, medians of "
        f"{report['repeats']} starts (load average at the start: {report['load_average']:.1f}, "
        f"niceness {report['niceness']}; `benchmarks/start_time.py`)."
        + (" An older version was measured in turn." if before else "")
    )
    yield ""
    yield (
        "| part | main thread, s of CPU time | all threads |"
        + (" before: main thread | before: all threads |" if before else "")
    )
    yield "| --- | ---: | ---: |" + (" ---: | ---: |" if before else "")
    for part, times in now.items():
        yield _start_row(part, times) + (_start_row("", before[part])[4:] if before else "")
    yield ""
    together = now["together"]
    yield (
        "On an idle machine with two cores the first word comes after the CPU time of the main "
        f"thread, {together['main_thread_seconds']:.1f} s"
        + (f" (before: {before['together']['main_thread_seconds']:.1f} s)" if before else "")
        + f". This is computed: other programs used the cores, and {together['least_seconds']:.1f} "
        "s passed at best"
        + (f" (before: {before['together']['least_seconds']:.1f} s)" if before else "")
        + f". A process that only imports torch takes {report['torch_alone_cpu_seconds']:.2f} s of "
        "CPU time. In `ask` the garbage collector is off while it is imported, and another thread "
        "loads its libraries while the tokenizer is read. Python runs one thread at a time, so "
        "nothing else can be done meanwhile."
    )


def _start_row(part: str, times: Report) -> str:
    return f"| {part} | {times['main_thread_seconds']:.2f} | {times['cpu_seconds']:.2f} |"


def _evaluated(report: Report) -> Iterator[str]:
    yield "## Benchmarks: `evaluate` compared with one `ask` per question"
    yield ""
    yield (
        f"{_machine(report)}; a model of {format_bytes(report['model_bytes'])} of random weights "
        f"in which weights are large compared with a picture, {report['questions']} questions "
        f"about {report['pictures']} pictures, {report['answer_tokens']} tokens per answer, "
        f"{report['parallel']} at once. One thread, CPU time, files in the system's cache "
        f"(load average at the start: {report['load_average']:.1f}; `benchmarks/evaluate.py`)."
    )
    yield ""
    yield (
        "| weights | memory | `evaluate`, s | `ask`, s | times as fast | with the start of `ask` "
        "| weights loaded, `evaluate` | `ask` |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name in ("resident", "streamed"):
        found = report[name]
        ours, single = found["evaluate"], found["ask"]
        memory = format_bytes(found["memory_bytes"]) if "memory_bytes" in found else "not limited"
        yield (
            f"| {name} | {memory} | {ours['seconds']:.1f} | {single['seconds']:.1f} "
            f"| {found['times_as_fast']:.1f} | {found['times_as_fast_with_start']:.0f} "
            f"| {format_bytes(ours['loaded_bytes'])} | {format_bytes(single['loaded_bytes'])} |"
        )
    yield ""
    yield (
        f"The answers are equal. `evaluate` encodes each picture once. With streamed weights it "
        f"asks in waves: all questions of a wave go through a block before the next one is "
        f"loaded, so it loads {report['streamed']['times_fewer_bytes']:.1f} times fewer bytes. On "
        f"a disk or a slow bus, where loading takes the time, this is the gain. The start of "
        f"Python and torch takes {report['one_ask_command_s']:.1f} s of CPU time per `ask`."
    )


def _gpu(report: Report) -> Iterator[str]:
    yield "## GPU"
    yield ""
    yield "Measured with `sh benchmarks/gpu.sh`. Random weights in the shapes of the 19B model."
    yield ""
    yield from (f"    {line}".rstrip() for line in gpu_table(report).splitlines())


def _estimate(report: Report) -> Iterator[str]:
    yield "## The memory estimate compared with the real tensors"
    yield ""
    yield (
        f"{_machine(report)}; real widths, one layer of each kind "
        "(`benchmarks/memory_estimate.py`). Every tensor counts from its creation to its release. "
        "The last column is the error of the phase's whole peak for the 19B model, including "
        "weights and a full cache."
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
        "The estimate is an upper bound: it counts 32 MiB for kernel buffers, of which the CPU "
        "uses 20. Buffers inside torch's own kernels are not tensors and are not counted."
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
