"""Decode, prefill and encode compared with llama.cpp, alternating on the same core.

    python3 -m venv llama && llama/bin/pip install gguf llama-cpp-python
    python -m benchmarks.versus_llama_cpp --llama llama/bin/python [--repeats 7] [--as-they-are]

llama.cpp does not run CogVLM2. It runs a Llama with the language path's shapes, and CogVLM's tower
with CogVLM2's shapes, in random Q4_K_M weights (attn_v and ffn_down of half of the layers in Q6_K,
the rest in Q4_K). Ours are random NF4 weights. Both run with 2 layers and with 6 (the tower, with
9,217 tokens, with 1 and with 3); the difference, divided, is the time of a layer without the rest
of the model. One thread, CPU time; the two alternate, and the ratio is the median of the pairs. By
default llama.cpp makes a second, reordered copy of the weights. With --as-they-are it does not: on
a processor with AMX it crashes at its first token with that copy (llama-cpp-python 0.3.36).

Writes benchmarks/results/llama_cpp.json.
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
LAYERS, TOWER_LAYERS = (2, 6), (1, 3)
PROMPT = 512
SIDE = 1344
VOCABULARY = 1024
STEPS = 8
"""Tokens that are decoded in one measurement."""


# --- llama.cpp: in another Python, which answers line by line -------------------------------------


def serve_llama(folder: Path, *, second_copy: bool) -> None:
    """Answer lines like `6 decode` with the CPU seconds of that work."""
    import llama_cpp

    defaults = llama_cpp.llama_cpp.llama_model_default_params

    def chosen() -> Any:
        params = defaults()
        params.use_extra_bufts = second_copy
        return params

    llama_cpp.llama_cpp.llama_model_default_params = chosen
    models, towers = {}, {}
    for layers in LAYERS:
        file = folder / f"{layers}.gguf"
        write_gguf(file, layers)
        models[layers] = llama_cpp.Llama(
            str(file), n_ctx=PROMPT + 64, n_batch=PROMPT, n_ubatch=PROMPT, n_threads=1,
            n_threads_batch=1, verbose=False,
        )  # fmt: skip
    for layers in TOWER_LAYERS:
        file = folder / f"tower{layers}.gguf"
        write_tower(file, layers)
        towers[layers] = LlamaTower(file, models[LAYERS[0]].model)
    print(llama_cpp.__version__, flush=True)
    for line in sys.stdin:
        layers, phase = line.split()
        if phase == "encode":
            print(towers[int(layers)].encode(), flush=True)
            continue
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


class LlamaTower:
    """llama.cpp's vision tower, and a picture cut into tokens for it."""

    def __init__(self, file: Path, text_model: Any) -> None:
        import ctypes

        from llama_cpp import mtmd_cpp as mtmd

        params = mtmd.mtmd_context_params_default()
        params.use_gpu = params.warmup = params.print_timings = False
        params.n_threads = 1
        self._context = mtmd.mtmd_init_from_file(str(file).encode(), text_model, params)
        assert self._context, "llama.cpp rejected the tower"
        pixels = (ctypes.c_uint8 * (3 * SIDE * SIDE))(*(i % 251 for i in range(3 * SIDE * SIDE)))
        bitmap = mtmd.mtmd_bitmap_init(SIDE, SIDE, pixels)
        self._chunks = mtmd.mtmd_input_chunks_init()
        marker = mtmd.mtmd_get_marker(self._context)
        text = mtmd.mtmd_input_text(marker, len(marker), False, False)
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        failed = mtmd.mtmd_tokenize(self._context, self._chunks, ctypes.byref(text), bitmaps, 1)
        assert not failed, f"llama.cpp rejected the picture: {failed}"

    def encode(self) -> float:
        """Return the CPU seconds of encoding the picture."""
        from llama_cpp import mtmd_cpp as mtmd

        for index in range(mtmd.mtmd_input_chunks_size(self._chunks)):
            chunk = mtmd.mtmd_input_chunks_get(self._chunks, index)
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                assert mtmd.mtmd_input_chunk_get_n_tokens(chunk) >= (SIDE // 14) ** 2
                began = time.process_time()
                assert mtmd.mtmd_encode_chunk(self._context, chunk) == 0
                return time.process_time() - began
        raise AssertionError("no picture among the chunks")


class Gguf:
    """Writes random weights."""

    def __init__(self, file: Path, architecture: str) -> None:
        import gguf
        import numpy as np

        self.writer = gguf.GGUFWriter(str(file), architecture)
        self.four, self.six = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K
        self._rng = np.random.default_rng(0)

    def quantized(self, name: str, rows: int, columns: int, kind: Any) -> None:
        """Add a matrix of `kind`."""
        import gguf
        import numpy as np

        block, nbytes = gguf.GGML_QUANT_SIZES[kind]
        data = self._rng.integers(0, 256, (rows, columns // block, nbytes), dtype=np.uint8)
        scale = np.frombuffer(np.float16(0.001).tobytes(), dtype=np.uint8)
        if kind == self.four:
            data[..., 0:2] = data[..., 2:4] = scale
        else:
            data[..., -2:] = scale
        self.writer.add_tensor(name, data.reshape(rows, -1), raw_dtype=kind)

    def plain(self, name: str, *shape: int, value: float = 1.0) -> None:
        """Add float32 numbers that are all equal."""
        import numpy as np

        self.writer.add_tensor(name, np.full(shape, value, dtype=np.float32))

    def close(self) -> None:
        """Write everything."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def write_tower(file: Path, layers: int) -> None:
    """Write CogVLM's tower with CogVLM2's shapes, and a small projector."""
    width, inner, patch, hidden = 1792, 15360, 14, 4096
    made = Gguf(file, "clip")
    writer = made.writer
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    writer.add_string("clip.projector_type", "cogvlm")
    for key, number in (
        ("embedding_length", width), ("feed_forward_length", inner), ("block_count", layers),
        ("projection_dim", hidden), ("attention.head_count", 16), ("image_size", SIDE),
        ("patch_size", patch),
    ):  # fmt: skip
        writer.add_uint32(f"clip.vision.{key}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    made.plain("v.patch_embd.weight", width, 3, patch, patch, value=0.01)
    made.plain("v.patch_embd.bias", width)
    made.plain("v.class_embd", width)
    made.plain("v.position_embd.weight", (SIDE // patch) ** 2 + 1, width, value=0.01)
    for layer in range(layers):
        at = f"v.blk.{layer}."
        better = made.six if layer % 2 else made.four
        made.quantized(at + "attn_qkv.weight", 3 * width, width, made.four)
        made.quantized(at + "attn_out.weight", width, width, made.four)
        made.quantized(at + "ffn_up.weight", inner, width, made.four)
        made.quantized(at + "ffn_down.weight", width, inner, better)
        for name, count in (
            ("attn_qkv", 3 * width), ("attn_out", width), ("ffn_up", inner), ("ffn_down", width),
            ("ln1", width), ("ln2", width),
        ):  # fmt: skip
            made.plain(f"{at}{name}.bias", count, value=0.0)
        made.plain(at + "ln1.weight", width)
        made.plain(at + "ln2.weight", width)
    made.quantized("mm.model.fc.weight", hidden, width, made.four)
    made.plain("mm.post_fc_norm.weight", hidden)
    made.plain("mm.post_fc_norm.bias", hidden)
    made.quantized("mm.up.weight", 256, hidden, made.four)
    made.quantized("mm.gate.weight", 256, hidden, made.four)
    made.quantized("mm.down.weight", hidden, 256, made.four)
    made.plain("v.boi", 1, hidden)
    made.plain("v.eoi", 1, hidden)
    made.close()


def write_gguf(file: Path, layers: int) -> None:
    """Write a Llama with the language path's shapes and random numbers."""
    made = Gguf(file, "llama")
    writer, quantized, four, six = made.writer, made.quantized, made.four, made.six
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
    quantized("token_embd.weight", VOCABULARY, 4096, four)
    quantized("output.weight", VOCABULARY, 4096, six)
    made.plain("output_norm.weight", 4096)
    for layer in range(layers):
        better = six if layer % 2 else four
        at = f"blk.{layer}."
        made.plain(at + "attn_norm.weight", 4096)
        made.plain(at + "ffn_norm.weight", 4096)
        quantized(at + "attn_q.weight", 4096, 4096, four)
        quantized(at + "attn_k.weight", 1024, 4096, four)
        quantized(at + "attn_v.weight", 1024, 4096, better)
        quantized(at + "attn_output.weight", 4096, 4096, four)
        quantized(at + "ffn_gate.weight", 14336, 4096, four)
        quantized(at + "ffn_up.weight", 14336, 4096, four)
        quantized(at + "ffn_down.weight", 4096, 14336, better)
    made.close()


# --- our side -------------------------------------------------------------------------------------


class Ours:
    """Runtimes of 2 and 6 decoder layers, everything resident, and a layer of the tower."""

    def __init__(self) -> None:
        import torch

        from benchmarks.cpu_layers import Layers
        from benchmarks.synthetic_decoder import BF16, CPU, synthetic_decoder
        from cogvlm2_lite.memory.plan import Workload
        from cogvlm2_lite.units import GIB
        from cogvlm2_lite.weights.kernels.choice import choose_kernels

        torch.set_num_threads(1)
        self.kernel = choose_kernels(CPU, BF16).name
        workload = Workload(context=PROMPT + 64, with_picture=False)
        self._runtimes = {
            layers: synthetic_decoder(layers, workload, nbytes=8 * GIB)[0] for layers in LAYERS
        }
        layers = Layers()
        self._block = layers.tower.blocks[0]
        for slot in self._block.slots():
            layers.loader.fill(slot)
        vision = layers.config.vision
        self._tokens = torch.randn(1, vision.num_positions, vision.hidden_size).to(BF16)

    def seconds(self, layers: int, phase: str) -> float:
        """Return the CPU seconds of one measurement, as the llama.cpp process does."""
        import torch

        from cogvlm2_lite.engine.chunk import Chunk
        from cogvlm2_lite.engine.runtime import run
        from cogvlm2_lite.events import Cancel

        if phase == "encode":
            x = self._tokens
            began = time.process_time()
            with torch.inference_mode():
                for _ in range(layers):
                    x = self._block(x)
            return time.process_time() - began
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
    """Measure both alternately and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", help="a Python with gguf and llama-cpp-python")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--as-they-are", action="store_true", help="llama.cpp makes no second copy of the weights"
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_llama(options.serve, second_copy=not options.as_they_are)
        return 0
    if not options.llama:
        parser.error("--llama is missing: a Python with gguf and llama-cpp-python")
    from benchmarks.machine import describe_machine

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as folder:
        command = [options.llama, str(Path(__file__).resolve()), "--serve", folder]
        command += ["--as-they-are"] * options.as_they_are
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
                "decode": compare(ours, ask, "decode", LAYERS, STEPS, options.repeats),
                "prefill": compare(ours, ask, "prefill", LAYERS, 1, options.repeats),
                "encode": compare(ours, ask, "encode", TOWER_LAYERS, 1, options.repeats),
            }
            theirs.stdin.close()
    report = {
        "machine": describe_machine(),
        "load": load,
        "llama_cpp_python": version,
        "second_copy": not options.as_they_are,
        "kernel": ours.kernel,
        "repeats": options.repeats,
        "prompt": PROMPT,
        "phases": phases,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(phases, indent=1))
    return 0


def compare(
    ours: Ours, ask: Any, phase: str, counts: tuple[int, int], turn: int, repeats: int
) -> dict[str, float]:
    """Return the median time of a layer of both, in milliseconds, and the median ratio."""
    few, many = counts
    pairs = []
    for _ in range(repeats + 1):
        mine, other = (
            (seconds(many, phase) - seconds(few, phase)) / (many - few) / turn
            for seconds in (ours.seconds, ask)
        )
        pairs.append((mine, other))
    pairs = pairs[1:]  # the first pair is a warm-up
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
