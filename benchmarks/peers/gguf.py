"""Writes models of random weights in the GGUF format, with the shapes of the released model."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PATCH, WIDTH, TOWER_INNER, TOWER_HEADS, SIDE = 14, 1792, 15360, 16, 1344
HIDDEN, INNER, HEADS, KV_HEADS, HEAD, VOCABULARY = 4096, 14336, 32, 8, 128, 1024

_ALIGNMENT = 32
_F32 = "F32"
_KINDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_K": 12, "Q6_K": 14, "BF16": 30, "IQ4_KS": 144}
_BLOCKS = {"Q4_0": (32, 18), "Q4_K": (256, 144), "Q6_K": (256, 210), "IQ4_KS": (256, 136)}
"""Columns and bytes of a block. IQ4_KS has a float32 scale before the blocks of each row."""

MIXES = {"Q4_K_M": ("Q4_K", "Q6_K"), "Q4_0": ("Q4_0",), "IQ4_KS": ("IQ4_KS",), "F16": ("F16",)}
"""Kind of most matrices; if there is a second, attn_v and ffn_down of every other layer have it."""


def write_decoder(file: Path, layers: int, mix: str) -> None:
    """Write a Llama with the language path's shapes."""
    kind, better = MIXES[mix][0], MIXES[mix][-1]
    made = _Gguf()
    made.settings |= {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.context_length": 8192,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 500000.0,
        "llama.rope.dimension_count": HEAD,
        "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "none",
    }
    made.matrix("token_embd.weight", VOCABULARY, HIDDEN, kind)
    made.matrix("output.weight", VOCABULARY, HIDDEN, kind)
    made.plain("output_norm.weight", HIDDEN)
    for layer in range(layers):
        at, other = f"blk.{layer}.", better if layer % 2 else kind
        made.plain(at + "attn_norm.weight", HIDDEN)
        made.plain(at + "ffn_norm.weight", HIDDEN)
        made.matrix(at + "attn_q.weight", HEADS * HEAD, HIDDEN, kind)
        made.matrix(at + "attn_k.weight", KV_HEADS * HEAD, HIDDEN, kind)
        made.matrix(at + "attn_v.weight", KV_HEADS * HEAD, HIDDEN, other)
        made.matrix(at + "attn_output.weight", HIDDEN, HEADS * HEAD, kind)
        made.matrix(at + "ffn_gate.weight", INNER, HIDDEN, kind)
        made.matrix(at + "ffn_up.weight", INNER, HIDDEN, kind)
        made.matrix(at + "ffn_down.weight", HIDDEN, INNER, other)
    made.write(file)


def write_tower(file: Path, layers: int, mix: str) -> None:
    """Write CogVLM's tower with CogVLM2's shapes, and a small projector, in one kind."""
    kind = MIXES[mix][0]
    made = _Gguf()
    made.settings |= {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.use_gelu": True,
        "clip.projector_type": "cogvlm",
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": TOWER_INNER,
        "clip.vision.block_count": layers,
        "clip.vision.projection_dim": HIDDEN,
        "clip.vision.attention.head_count": TOWER_HEADS,
        "clip.vision.image_size": SIDE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    made.plain("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH, value=0.01)
    made.plain("v.patch_embd.bias", WIDTH)
    made.plain("v.class_embd", WIDTH)
    made.plain("v.position_embd.weight", (SIDE // PATCH) ** 2 + 1, WIDTH, value=0.01)
    for layer in range(layers):
        at = f"v.blk.{layer}."
        made.matrix(at + "attn_qkv.weight", 3 * WIDTH, WIDTH, kind)
        made.matrix(at + "attn_out.weight", WIDTH, WIDTH, kind)
        made.matrix(at + "ffn_up.weight", TOWER_INNER, WIDTH, kind)
        made.matrix(at + "ffn_down.weight", WIDTH, TOWER_INNER, kind)
        for name, count in (
            ("attn_qkv", 3 * WIDTH), ("attn_out", WIDTH), ("ffn_up", TOWER_INNER),
            ("ffn_down", WIDTH), ("ln1", WIDTH), ("ln2", WIDTH),
        ):  # fmt: skip
            made.plain(f"{at}{name}.bias", count, value=0.0)
        made.plain(at + "ln1.weight", WIDTH)
        made.plain(at + "ln2.weight", WIDTH)
    made.matrix("mm.model.fc.weight", HIDDEN, WIDTH, kind)
    made.plain("mm.post_fc_norm.weight", HIDDEN)
    made.plain("mm.post_fc_norm.bias", HIDDEN)
    made.matrix("mm.up.weight", 256, HIDDEN, kind)
    made.matrix("mm.gate.weight", 256, HIDDEN, kind)
    made.matrix("mm.down.weight", HIDDEN, 256, kind)
    made.plain("v.boi", 1, HIDDEN)
    made.plain("v.eoi", 1, HIDDEN)
    made.write(file)


class _Gguf:
    """A file in the making."""

    def __init__(self) -> None:
        self.settings: dict[str, bool | int | float | str | list[float]] = {}
        self._rng = np.random.default_rng(0)
        self._tensors: list[tuple[str, Sequence[int], str, bytes]] = []

    def matrix(self, name: str, rows: int, columns: int, kind: str) -> None:
        """Add a matrix of numbers around 0.02."""
        if kind not in _BLOCKS:
            numbers = 0.02 * self._rng.standard_normal((rows, columns), dtype=np.float32)
            self._tensors.append((name, (rows, columns), kind, numbers.astype("<f2").tobytes()))
            return
        block, nbytes = _BLOCKS[kind]
        data = self._rng.integers(0, 256, (rows, columns // block, nbytes), dtype=np.uint8)
        if kind == "Q4_0":
            data[..., :2] = _half(0.004)
        elif kind == "Q4_K":
            data[..., 0:2], data[..., 2:4] = _half(1e-4), _half(7.5e-4)
        elif kind == "Q6_K":
            data[..., -2:] = _half(1e-5)
        flat = data.reshape(rows, -1)
        if kind == "IQ4_KS":
            scales = np.full((rows, 1), 3e-6, dtype="<f4").view(np.uint8)
            flat = np.concatenate([scales, flat], axis=1)
        self._tensors.append((name, (rows, columns), kind, flat.tobytes()))

    def plain(self, name: str, *shape: int, value: float = 1.0) -> None:
        """Add float32 numbers that are all equal."""
        self._tensors.append((name, shape, _F32, np.full(shape, value, dtype="<f4").tobytes()))

    def write(self, file: Path) -> None:
        """Write everything."""
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self._tensors), len(self.settings))
        for key, value in self.settings.items():
            head += _text(key) + _setting(value)
        offset = 0
        for name, shape, kind, data in self._tensors:
            head += _text(name) + struct.pack("<I", len(shape))
            head += b"".join(struct.pack("<Q", n) for n in reversed(shape))
            head += struct.pack("<IQ", _KINDS[kind], offset)
            offset += len(data) + -len(data) % _ALIGNMENT
        with file.open("wb") as out:
            out.write(head + bytes(-len(head) % _ALIGNMENT))
            for _, _, _, data in self._tensors:
                out.write(data + bytes(-len(data) % _ALIGNMENT))


def _half(value: float) -> np.ndarray:
    return np.frombuffer(np.float16(value).tobytes(), dtype=np.uint8)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _setting(value: bool | int | float | str | list[float]) -> bytes:
    """Return the number of the type, and the value."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    return struct.pack("<IIQ", 9, 6, len(value)) + struct.pack(f"<{len(value)}f", *value)
