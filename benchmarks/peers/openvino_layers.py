"""Run OpenVINO's CPU plugin on decoder layers of random 4-bit weights; see `beside_peers`.

    PYTHON openvino_layers.py default|f32|f32-inputs FEW MANY

PYTHON has openvino (the package that OpenVINO GenAI computes with) and numpy. The model is built
with OpenVINO's own operations, in the form in which OpenVINO recognizes a decoder: compressed
constants (u4, zero points and float16 scales for groups of 128 columns, as the defaults of its own
quantizer are), rotary positions, ScaledDotProductAttention over a cache that is a state of the
model. Everything else is at its defaults; f32 names the number type, which else is bfloat16 where
the processor has it. With f32 alone OpenVINO rounds inputs of products to 8 bits, in groups of 32
(its "dynamic quantization"); f32-inputs turns that off. Each line of the input, "PHASE LAYERS
THREADS", is answered with the CPU seconds and the seconds of the clock.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op
from openvino.op import util

PROMPT, SHORT, STEPS, ROWS = 512, 8, 8, 8
VOCABULARY = 1024
HIDDEN, INNER, HEADS, KV_HEADS, HEAD = 4096, 14336, 32, 8, 128
GROUP = 128


class Decoder:
    """A Llama of so many layers with the language path's shapes."""

    def __init__(self, layers: int) -> None:
        self._rng = np.random.default_rng(0)
        tokens = op.parameter([-1, -1], np.int64, name="tokens")
        places = op.parameter([-1, -1], np.int64, name="places")
        self._mask = op.parameter([-1, 1, -1, -1], np.float32, name="mask")
        self._beams = op.parameter([-1], np.int32, name="beams")
        table = op.convert(op.constant(self._normal(VOCABULARY, HIDDEN)), np.float32)
        x = op.gather(table, tokens, 0)
        angles = np.arange(1024)[:, None] * 500000.0 ** -(np.arange(HEAD // 2) / (HEAD // 2))
        turns = np.concatenate([angles, angles], axis=1).astype(np.float32)
        self._cos, self._sin = (
            op.unsqueeze(op.gather(op.constant(part), places, 0), op.constant(1))
            for part in (np.cos(turns), np.sin(turns))
        )
        self._sinks: list[Any] = []
        self._kept: list[Any] = []
        for layer in range(layers):
            x = op.add(x, self._attention(norm(x), layer))
            x = op.add(x, self._mlp(norm(x)))
        last = op.gather(x, op.constant(-1), 1)
        logits = self._linear(norm(last), VOCABULARY, HIDDEN)
        inputs = [tokens, places, self._mask, self._beams]
        self.model = ov.Model([op.result(logits)], self._sinks, inputs, "decoder")

    def _normal(self, *shape: int) -> Any:
        return self._rng.standard_normal(shape, dtype=np.float32).astype(np.float16)

    def _linear(self, x: Any, rows: int, columns: int) -> Any:
        groups = columns // GROUP

        def four_bit(*shape: int) -> Any:
            packed = self._rng.integers(0, 256, int(np.prod(shape)) // 2, dtype=np.uint8)
            self._kept.append(packed)  # OpenVINO does not copy it
            tensor = ov.Tensor(packed, ov.Shape(shape), ov.Type.u4)
            return op.convert(op.constant(tensor), np.float16)

        scale = op.constant(np.full((rows, groups, 1), 0.004, dtype=np.float16))
        weight = op.subtract(four_bit(rows, groups, GROUP), four_bit(rows, groups, 1))
        weight = op.reshape(op.multiply(weight, scale), op.constant([rows, columns]), False)
        return op.matmul(x, op.convert(weight, np.float32), False, True)

    def _heads(self, x: Any, heads: int, *, turned: bool) -> Any:
        x = op.transpose(op.reshape(x, op.constant([0, 0, heads, HEAD]), True), [0, 2, 1, 3])
        if not turned:
            return x
        first, second = (
            op.slice(x, [begin], [begin + HEAD // 2], [1], [3]) for begin in (0, HEAD // 2)
        )
        other = op.concat([op.multiply(second, op.constant(np.float32(-1))), first], 3)
        return op.add(op.multiply(x, self._cos), op.multiply(other, self._sin))

    def _cached(self, new: Any, name: str) -> Any:
        """Return the state with the new positions, repeated for the query heads."""
        info = util.VariableInfo()
        info.data_shape = ov.PartialShape([-1, KV_HEADS, -1, HEAD])
        info.data_type = ov.Type.f32
        info.variable_id = name
        variable = util.Variable(info)
        batch = op.gather(op.shape_of(new), op.constant([0]), op.constant(0))
        tail = [op.constant(np.array([n], dtype=np.int64)) for n in (KV_HEADS, 0, HEAD)]
        empty = op.broadcast(op.constant(np.float32(0)), op.concat([batch, *tail], 0))
        past = op.gather(op.read_value(empty, variable), self._beams, 0)
        whole = op.concat([past, new], 2)
        self._sinks.append(op.assign(whole, variable))
        # Ones to multiply by are the form of repeating that OpenVINO joins with attention.
        ones = op.constant(np.ones((1, 1, HEADS // KV_HEADS, 1, 1), np.float32))
        repeated = op.multiply(op.unsqueeze(whole, op.constant(2)), ones)
        return op.reshape(repeated, op.constant([0, HEADS, -1, HEAD]), True)

    def _attention(self, x: Any, layer: int) -> Any:
        q = self._heads(self._linear(x, HEADS * HEAD, HIDDEN), HEADS, turned=True)
        k = self._heads(self._linear(x, KV_HEADS * HEAD, HIDDEN), KV_HEADS, turned=True)
        v = self._heads(self._linear(x, KV_HEADS * HEAD, HIDDEN), KV_HEADS, turned=False)
        k, v = self._cached(k, f"k{layer}"), self._cached(v, f"v{layer}")
        out = op.scaled_dot_product_attention(q, k, v, self._mask)
        out = op.reshape(op.transpose(out, [0, 2, 1, 3]), op.constant([0, 0, HIDDEN]), True)
        return self._linear(out, HIDDEN, HIDDEN)

    def _mlp(self, x: Any) -> Any:
        gate, up = (self._linear(x, INNER, HIDDEN) for _ in range(2))
        return self._linear(op.multiply(op.swish(gate), up), HIDDEN, INNER)


def norm(x: Any) -> Any:
    """Return RMSNorm of x with ones as weights."""
    mean = op.reduce_mean(op.power(x, op.constant(np.float32(2))), op.constant([-1]), True)
    root = op.sqrt(op.add(mean, op.constant(np.float32(1e-5))))
    return op.multiply(op.constant(np.ones(HIDDEN, np.float32)), op.divide(x, root))


class Runner:
    """One compiled model, for one number of threads."""

    def __init__(self, model: Any, threads: int, precision: str) -> None:
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if precision != "default":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        if precision == "f32-inputs":
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        self._request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()

    def step(self, begin: int, count: int, rows: int) -> None:
        """Process `count` tokens of each of `rows` conversations."""
        places = np.arange(begin, begin + count)
        seen = np.arange(begin + count)[None, :] <= places[:, None]
        mask = np.where(seen, 0, np.finfo(np.float32).min).astype(np.float32)
        tokens = 7 * (places[None] + np.arange(rows)[:, None]) % VOCABULARY
        self._request.infer(
            {
                "tokens": tokens,
                "places": np.repeat(places[None], rows, axis=0),
                "mask": np.repeat(mask[None, None], rows, axis=0),
                "beams": np.arange(rows, dtype=np.int32),
            }
        )

    def seconds(self, phase: str) -> tuple[float, float]:
        """Return the CPU seconds and the seconds of the clock of one measurement."""
        self._request.reset_state()
        rows = ROWS if phase == "rows" else 1
        if phase != "prefill":
            self.step(0, SHORT, rows)
        cpu, wall = time.process_time(), time.perf_counter()
        if phase == "prefill":
            self.step(0, PROMPT, 1)
            turns = 1
        else:
            for step in range(STEPS):
                self.step(SHORT + step, 1, rows)
            turns = STEPS
        return (time.process_time() - cpu) / turns, (time.perf_counter() - wall) / turns


def main() -> None:
    """Answer line by line."""
    models = {layers: Decoder(layers) for layers in map(int, sys.argv[2:])}
    runners: dict[tuple[int, int], Runner] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        phase, *numbers = line.split()
        layers, threads = map(int, numbers)
        if (layers, threads) not in runners:
            runners[layers, threads] = Runner(models[layers].model, threads, sys.argv[1])
        print(*runners[layers, threads].seconds(phase), flush=True)


if __name__ == "__main__":
    main()
