"""Decoding and prefill beside llama.cpp, in turn on the same core.

    python3 -m venv llama && llama/bin/pip install gguf llama-cpp-python
    python -m benchmarks.beside_llama_cpp --llama llama/bin/python [--repeats 7]

llama.cpp does not run CogVLM2, but a Llama of the language path's shapes: made-up Q4_K_M weights
(attn_v and ffn_down of half of the layers in Q6_K, all else Q4_K) beside our made-up NF4. Both run
with 2 layers and with 6; the difference, divided by 4, is the cost of a layer, whatever surrounds
it. One thread, CPU time; a turn of theirs follows a turn of ours, and the ratio is the median of
the pairs. Writes benchmarks/results/llama_cpp.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RESULT = ROOT / "benchmarks" / "results" / "llama_cpp.json"
LAYERS = (2, 6)
PROMPT = 512
VOCABULARY = 1024
STEPS = 8
"""Tokens decoded in a turn."""


# --- llama.cpp's side: another Python, asked line by line -----------------------------------------


def serve_llama(folder: Path) -> None:
    """Answer lines like `6 decode` with the CPU seconds that it took."""
    import llama_cpp

    # Its second copy of the weights in an order for AMX ends in a segmentation fault on the first
    # token here (llama-cpp-python 0.3.36), so it reads them as they are.
    defaults = llama_cpp.llama_cpp.llama_model_default_params

    def as_they_are() -> Any:
        params = defaults()
        params.use_extra_bufts = False
        return params

    llama_cpp.llama_cpp.llama_model_default_params = as_they_are
    models = {}
    for layers in LAYERS:
        file = folder / f"{layers}.gguf"
        write_gguf(file, layers)
        models[layers] = llama_cpp.Llama(
            str(file), n_ctx=PROMPT + 64, n_batch=PROMPT, n_ubatch=PROMPT, n_threads=1,
            n_threads_batch=1, verbose=False,
        )  # fmt: skip
    print(llama_cpp.__version__, flush=True)
    for line in sys.stdin:
        layers, phase = line.split()
        model = models[int(layers)]
        model.reset()
        tokens = [(7 * i) % VOCABULARY for i in range(PROMPT)]
        if phase == "decode":
            model.eval(tokens[:8])
        began = time.process_time()
        if phase == "decode":
            for token in tokens[8 : 8 + STEPS]:
                model.eval([token])
        else:
            model.eval(tokens)
        print(time.process_time() - began, flush=True)


def write_gguf(file: Path, layers: int) -> None:
    """Write a Llama with the language path's shapes and made-up numbers."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(4096)
    writer.add_feed_forward_length(14336)
    writer.add_head_count(32)
    writer.add_head_count_kv(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(128)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("none")

    def quantized(name: str, rows: int, columns: int, kind: Any) -> None:
        block, nbytes = gguf.GGML_QUANT_SIZES[kind]
        data = rng.integers(0, 256, (rows, columns // block, nbytes), dtype=np.uint8)
        scale = np.frombuffer(np.float16(0.001).tobytes(), dtype=np.uint8)
        if kind == gguf.GGMLQuantizationType.Q4_K:
            data[..., 0:2] = data[..., 2:4] = scale
        else:
            data[..., -2:] = scale
        writer.add_tensor(name, data.reshape(rows, -1), raw_dtype=kind)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(4096, dtype=np.float32))

    four, six = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K
    quantized("token_embd.weight", VOCABULARY, 4096, four)
    quantized("output.weight", VOCABULARY, 4096, six)
    ones("output_norm.weight")
    for layer in range(layers):
        better = six if layer % 2 else four
        at = f"blk.{layer}."
        ones(at + "attn_norm.weight")
        ones(at + "ffn_norm.weight")
        quantized(at + "attn_q.weight", 4096, 4096, four)
        quantized(at + "attn_k.weight", 1024, 4096, four)
        quantized(at + "attn_v.weight", 1024, 4096, better)
        quantized(at + "attn_output.weight", 4096, 4096, four)
        quantized(at + "ffn_gate.weight", 14336, 4096, four)
        quantized(at + "ffn_up.weight", 14336, 4096, four)
        quantized(at + "ffn_down.weight", 4096, 14336, better)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- our side -------------------------------------------------------------------------------------


class Ours:
    """Runtimes of 2 and 6 decoder layers, everything resident."""

    def __init__(self) -> None:
        import torch

        from benchmarks.made_up import BF16, CPU, made_up_decoder
        from cogvlm2_lite.memory.plan import Workload
        from cogvlm2_lite.units import GIB
        from cogvlm2_lite.weights.kernels.choice import choose_kernels

        torch.set_num_threads(1)
        self.kernel = choose_kernels(CPU, BF16).name
        workload = Workload(context=PROMPT + 64, with_picture=False)
        self._runtimes = {
            layers: made_up_decoder(layers, workload, nbytes=8 * GIB)[0] for layers in LAYERS
        }

    def seconds(self, layers: int, phase: str) -> float:
        """Give the CPU seconds of one turn, as llama.cpp's side does."""
        import torch

        from cogvlm2_lite.engine.runtime import Chunk, run
        from cogvlm2_lite.events import Cancel

        runtime = self._runtimes[layers]
        cache = runtime.new_cache()
        try:
            if phase == "decode":
                for position in range(8):
                    runtime.decode_one_token(position, position, cache)
                began = time.process_time()
                for position in range(8, 8 + STEPS):
                    runtime.decode_one_token(position, position, cache)
                return time.process_time() - began
            ids = torch.arange(PROMPT)[None]
            none = torch.zeros(1, PROMPT, dtype=torch.bool)
            chunk = Chunk(
                input_ids=ids,
                image_mask=none,
                vision_mask=none,
                position_ids=ids,
                highest=PROMPT - 1,
                key_mask=None,
                has_image=False,
            )
            began = time.process_time()
            run(runtime.prefill(chunk, None, cache, Cancel()))
            return time.process_time() - began
        finally:
            cache.release()


def main() -> int:
    """Measure in turn and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", help="a Python with gguf and llama-cpp-python")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_llama(options.serve)
        return 0
    if not options.llama:
        parser.error("--llama is missing: a Python with gguf and llama-cpp-python")
    from benchmarks.machine import describe_machine

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as folder:
        command = [options.llama, str(Path(__file__).resolve()), "--serve", folder]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as theirs:
            assert theirs.stdin is not None
            assert theirs.stdout is not None
            version = theirs.stdout.readline().strip()

            def ask(layers: int, phase: str) -> float:
                print(layers, phase, file=theirs.stdin, flush=True)
                return float(theirs.stdout.readline())

            ours = Ours()
            phases = {
                phase: compare(ours, ask, phase, turn, options.repeats)
                for phase, turn in (("decode", STEPS), ("prefill", 1))
            }
            theirs.stdin.close()
    report = {
        "machine": describe_machine(),
        "load": load,
        "llama_cpp_python": version,
        "kernel": ours.kernel,
        "repeats": options.repeats,
        "prompt": PROMPT,
        "phases": phases,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(phases, indent=1))
    return 0


def compare(ours: Ours, ask: Any, phase: str, turn: int, repeats: int) -> dict[str, float]:
    """Give the median cost of a layer of both, in milliseconds, and the median ratio."""
    few, many = LAYERS
    pairs = []
    for _ in range(repeats + 1):
        mine, other = (
            (seconds(many, phase) - seconds(few, phase)) / (many - few) / turn
            for seconds in (ours.seconds, ask)
        )
        pairs.append((mine, other))
    pairs = pairs[1:]  # the first warms both up
    ratios = [other / mine for mine, other in pairs]
    return {
        "ours_ms": 1000 * statistics.median(mine for mine, _ in pairs),
        "theirs_ms": 1000 * statistics.median(other for _, other in pairs),
        "times_as_fast": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


if __name__ == "__main__":
    sys.exit(main())
