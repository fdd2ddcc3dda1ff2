"""Compare each layer on the CPU, in the real shapes, with the limits of the machine.

    python -m benchmarks.cpu_layers [--repeats 7] [--attention]

One thread and CPU time, so that other programs have little influence. Every figure and its limit
are measured alternately, and the ratio is the median of the pairs: a core that is slowed down by
other work slows both. Writes benchmarks/results/cpu_layers.json, or cpu_layers_no_amx.json on a
processor without AMX. --attention measures only the attention of prefill and of encode, and writes
cpu_attention.json. Limit a processor with AMX for it: COGVLM2_LITE_CPU_LEVEL=avx512 for ours,
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 and MKL_ENABLE_INSTRUCTIONS=AVX512_E3 for torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.architectures.architecture import expected_tensors  # noqa: E402
from cogvlm2_lite.backends.cpu import has_amx  # noqa: E402
from cogvlm2_lite.bench.synthetic import (  # noqa: E402
    NoiseReader,
    released_config,
    synthetic_catalog,
)
from cogvlm2_lite.memory.work import expert_weights  # noqa: E402
from cogvlm2_lite.model.attention import grouped_attention  # noqa: E402
from cogvlm2_lite.model.decoder import Decoder  # noqa: E402
from cogvlm2_lite.model.full_attention import (  # noqa: E402
    Attend,
    choose_full_attention,
    chunked,
    reference,
)
from cogvlm2_lite.model.token_attention import choose_token_attention  # noqa: E402
from cogvlm2_lite.model.vision import VisionTower  # noqa: E402
from cogvlm2_lite.weights.footprint import packed_copy_bytes  # noqa: E402
from cogvlm2_lite.weights.kernels.choice import choose_kernels  # noqa: E402
from cogvlm2_lite.weights.loader import WeightLoader  # noqa: E402
from cogvlm2_lite.weights.slots import Linear  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
CPU = torch.device("cpu")
BF16 = torch.bfloat16
CONTEXT, LONG_CONTEXT = 2350, 8000
PICTURE = 2306


class Pairs:
    """Times two functions alternately, in CPU time."""

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats

    def compare(self, ours: Callable[[], object], limit: Callable[[], object]) -> dict[str, float]:
        """Return both medians, and the median ratio of the limit's time to ours."""
        ours(), limit()
        pairs = [(_time(ours), _time(limit)) for _ in range(self._repeats)]
        return {
            "ours_ms": 1000 * statistics.median(a for a, _ in pairs),
            "limit_ms": 1000 * statistics.median(b for _, b in pairs),
            "share": statistics.median(b / a for a, b in pairs),
            "lowest_share": min(b / a for a, b in pairs),
            "highest_share": max(b / a for a, b in pairs),
        }


def _time(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


class Layers:
    """Two vision and four decoder layers of the real shapes: together larger than any cache."""

    def __init__(self) -> None:
        config = released_config(2, 4)
        catalog = synthetic_catalog(config, lm_head_nf4=True)
        self.config = config
        self.loader = WeightLoader(catalog, device=CPU, dtype=BF16, reader=NoiseReader(keep=False))
        self.decoder = Decoder(config)
        self.tower = VisionTower(config.vision, _chosen_attention())
        self._specs = expected_tensors(config)

    def experts(self) -> list[list[Linear]]:
        """Fill and return the five matrices of each decoder layer's language expert."""
        found = []
        for block in self.decoder.blocks:
            linears = [s for s in block.language.slots() if isinstance(s, Linear)]
            for linear in linears:
                self.loader.fill(linear)
            found.append(linears)
        return found

    def vision_linears(self) -> list[Linear]:
        """Fill and return the four matrices of a vision layer, with their biases."""
        slots = list(self.tower.blocks[0].slots())
        for slot in slots:
            self.loader.fill(slot)
        return [slot for slot in slots if isinstance(slot, Linear)]

    def lm_head(self) -> Linear:
        """Fill and return lm_head, in NF4."""
        self.loader.fill(self.decoder.head.lm_head)
        return self.decoder.head.lm_head

    def read_bytes(self, linears: list[Linear]) -> int:
        """Return the bytes that multiplying one row reads: of the packed copy if there is one."""
        if self.loader.packs:
            return sum(packed_copy_bytes(self._specs[linear.name], 64) for linear in linears)
        return sum(linear.stored.nbytes for linear in linears if linear.stored is not None)


def run_all(linears: list[Linear], rows: int) -> Callable[[], None]:
    """Return a function that multiplies each matrix with so many rows."""
    inputs = [torch.randn(rows, linear.in_features).to(BF16) for linear in linears]

    def work() -> None:
        for linear, x in zip(linears, inputs, strict=True):
            linear(x)

    return work


def run_plain(linears: list[Linear], rows: int) -> Callable[[], None]:
    """Return a function that does the same with bfloat16 matrices of the same shapes."""
    inputs = [torch.randn(rows, linear.in_features).to(BF16) for linear in linears]
    weights = [torch.randn(n.out_features, n.in_features).to(BF16) for n in linears]
    biases = [None if n.bias is None else torch.zeros(n.out_features).to(BF16) for n in linears]

    def work() -> None:
        for weight, x, bias in zip(weights, inputs, biases, strict=True):
            F.linear(x, weight, bias)

    return work


def reading(nbytes: int) -> Callable[[], object]:
    """Return a function that reads so many bytes from memory, as fast as one core can."""
    numbers = torch.ones(nbytes // 8, dtype=torch.int64)
    return lambda: numbers.amax()


def in_turn(works: list[Callable[[], None]]) -> Callable[[], None]:
    """Return a function that runs all of them: the cache holds the weights of the others."""

    def work() -> None:
        for one in works:
            one()

    return work


def plain_attention(queries: Tensor, keys: Tensor) -> Callable[[], None]:
    """Return a function that computes only the two products of attention, without softmax."""
    columns, scores = keys.t().contiguous(), torch.empty(256, keys.shape[0], dtype=BF16)
    out = torch.empty(256, keys.shape[1], dtype=BF16)

    def work() -> None:
        for start in range(0, queries.shape[0] - 255, 256):
            torch.mm(queries[start : start + 256], columns, out=scores)
            torch.mm(scores, keys, out=out)

    return work


def measure(pairs: Pairs) -> dict[str, Any]:
    """Measure everything; print each figure."""
    layers, found = Layers(), {}

    def note(name: str, figures: dict[str, float]) -> None:
        found[name] = figures
        print(f"{name:44} {figures['ours_ms']:9.1f} ms  share {figures['share']:.2f}", flush=True)

    began = time.process_time()
    experts = layers.experts()
    fill_s = (time.process_time() - began) / len(experts)
    nbytes = layers.read_bytes(experts[0])
    decode = in_turn([run_all(expert, 1) for expert in experts])
    note("decode: linears of 4 layers, of reading", pairs.compare(decode, reading(4 * nbytes)))
    head = layers.lm_head()
    note(
        "decode: lm_head in NF4, of reading",
        pairs.compare(run_all([head], 1), reading(layers.read_bytes([head]))),
    )
    head.stored = None
    dense = torch.randn(layers.config.vocab_size, layers.config.hidden_size).to(BF16)
    note("decode: lm_head in bf16, of reading", _dense_head(pairs, dense))
    for keys in (CONTEXT, LONG_CONTEXT):
        name = f"decode: attention of one layer, {keys} tokens"
        note(f"{name}, of reading", _decode_attention(pairs, keys))
        note(f"{name}, 8 drafts, of one", _decode_attention(pairs, keys, drafts=8))
    for rows in (512, PICTURE):
        note(
            f"prefill: linears of a layer, {rows} rows, of bf16",
            pairs.compare(run_all(experts[0], rows), run_plain(experts[0], rows)),
        )
    note("prefill: attention of one layer, of SDPA expanded", _prefill_attention(pairs))
    experts.clear()
    linears = layers.vision_linears()
    note(
        "encode: linears of a layer, of bf16",
        pairs.compare(run_all(linears, 9217), run_plain(linears, 9217)),
    )
    note("encode: attention of 1 head, of its two products", _vision_attention(pairs, False))
    note("encode: attention of 1 head, of the other way", _vision_attention(pairs, True))
    weights = expert_weights(layers.config)
    return {
        "figures": found,
        "kernel": layers.loader.kernels.name,
        "expert_weights": weights,
        "read_bytes": nbytes,
        "fill_s": fill_s,
    }


def measure_attention(pairs: Pairs) -> dict[str, Any]:
    """Measure the attention of prefill and encode; print each figure."""
    found = {
        "encode: attention of 1 head, of its two products": _vision_attention(pairs, False),
        "encode: attention of 1 head, of chunked products": _vision_attention(pairs, True),
        "prefill: attention of one layer, of SDPA expanded": _prefill_attention(pairs),
    }
    for name, figures in found.items():
        print(f"{name:50} {figures['ours_ms']:9.1f} ms  share {figures['share']:.2f}", flush=True)
    limits = ("COGVLM2_LITE_CPU_LEVEL", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
    return {
        "figures": found,
        "kernel": choose_full_attention(CPU, BF16).name,
        "limits": {name: os.environ.get(name) for name in limits},
    }


def _dense_head(pairs: Pairs, dense: Tensor) -> dict[str, float]:
    from cogvlm2_lite.weights.storage.dense import DenseWeight

    kernels = choose_kernels(CPU, BF16).dense
    weight, x = DenseWeight(weight=dense, kernels=kernels), torch.randn(1, dense.shape[1]).to(BF16)
    return pairs.compare(lambda: weight.multiply(x, None), reading(dense.nbytes))


def _decode_attention(pairs: Pairs, keys: int, drafts: int = 1) -> dict[str, float]:
    """Measure one token over the keys and values of some layers, and how long reading takes.

    drafts  more than 1: measure so many tokens of one sequence, and one token instead of reading
    """
    layers = 16 * CONTEXT // keys
    q = torch.randn(drafts, 8, 4, 128).to(BF16)
    caches = [torch.randn(2, 8, keys, 128).to(BF16) for _ in range(layers)]
    kernel = choose_token_attention(CPU, BF16, 128).kernel
    assert kernel is not None, "this processor has no AVX512-BF16"

    def attend(tokens: int) -> None:
        for k, v in caches:
            kernel.attend_tokens(q[:tokens], [k], [v])

    limit = reading(layers * caches[0].nbytes) if drafts == 1 else lambda: attend(1)
    figures = pairs.compare(lambda: attend(drafts), limit)
    return figures | {key: figures[key] / layers for key in ("ours_ms", "limit_ms")}


def _prefill_attention(pairs: Pairs) -> dict[str, float]:
    q = torch.randn(1, 32, PICTURE, 128).to(BF16)
    k, v = (torch.randn(1, 8, PICTURE, 128).to(BF16) for _ in range(2))
    wide = [t.repeat_interleave(4, dim=1) for t in (k, v)]
    several = choose_full_attention(CPU, BF16).causal
    return pairs.compare(
        lambda: grouped_attention(q, k, v, None, causal=True, several=several),
        lambda: F.scaled_dot_product_attention(q, *wide, is_causal=True),
    )


def _chosen_attention() -> Attend:
    return choose_full_attention(CPU, BF16).attend


def _vision_attention(pairs: Pairs, other_kernel: bool) -> dict[str, float]:
    qkv = torch.randn(1, 9217, 3 * 112).to(BF16)
    q, k, v = (part.unsqueeze(1) for part in qkv.split(112, dim=2))
    ours = _chosen_attention()
    another = reference if ours is chunked or has_amx() else chunked
    other = (lambda: another(q, k, v)) if other_kernel else plain_attention(q[0, 0], k[0, 0])
    return pairs.compare(lambda: ours(q, k, v), other)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--attention", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    report = (measure_attention if options.attention else measure)(Pairs(options.repeats))
    report |= {"machine": describe_machine(), "repeats": options.repeats, "load": load}
    name = "cpu_layers" if has_amx() else "cpu_layers_no_amx"
    if options.attention:
        name = "cpu_attention"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
