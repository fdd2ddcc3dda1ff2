"""Write a checkpoint with the released model's names, shapes and bytes, but random weights.

    python benchmarks/synthetic_19b.py DIR               1221 tensors, 39,006,214,656 bytes
    python benchmarks/synthetic_19b.py DIR --reduced     two vision and two decoder layers, 3.9 GB

Use it to measure conversion, loading and planning at full size. It cannot answer questions: the
weights are noise of a plausible magnitude.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cogvlm2_lite.architectures.architecture import Role, TensorSpec, expected_tensors
from cogvlm2_lite.config import parse_config
from cogvlm2_lite.folders.explain import INDEX_NAME
from cogvlm2_lite.weights.writer import PlannedPiece, ShardLayout

SHARD_BYTES = 5_000_000_000
_BLOCK = 1 << 24
_CHUNK = 1 << 23


def released_config(vision_layers: int, decoder_layers: int) -> dict[str, Any]:
    """Return config.json as released, except for the numbers of layers and remote code."""
    return {
        "architectures": ["CogVLMForCausalLM"],
        "vision_config": {
            "dropout_prob": 0.0,
            "hidden_act": "gelu",
            "in_channels": 3,
            "num_hidden_layers": vision_layers,
            "hidden_size": 1792,
            "patch_size": 14,
            "num_heads": 16,
            "intermediate_size": 15360,
            "layer_norm_eps": 1e-06,
            "num_positions": 9217,
            "image_size": 1344,
        },
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-05,
        "template_version": "chat",
        "initializer_range": 0.02,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128009],
        "pad_token_id": 128002,
        "vocab_size": 128256,
        "num_hidden_layers": decoder_layers,
        "hidden_act": "silu",
        "use_cache": True,
    }


class Noise:
    """Random bfloat16 numbers by the gigabyte: one block of normal noise, read at many places."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        block = self._random.standard_normal(_BLOCK, dtype=np.float32)
        # Truncation to bfloat16 is good enough for noise. Zeros and subnormals are replaced, so
        # that scaling by a power of two is an addition to the exponent.
        bits = (block.view(np.uint32) >> 16).astype(np.uint16)
        tiny = (bits & 0x7FFF) < 0x3000
        bits[tiny] = 0x3A80
        self._block = np.concatenate([bits, bits[:_CHUNK]])

    def chunks(self, spec: TensorSpec) -> Iterator[NDArray[np.uint16]]:
        """Yield the numbers of one tensor, in chunks, as bfloat16 bits."""
        if spec.role is Role.FREQUENCIES:
            exact = 500_000.0 ** (-np.arange(spec.numel) / spec.numel)
            yield (exact.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            return
        norm = spec.role is Role.NORM
        # Norm weights are around 1; matrices have standard deviations between 1/64 and 1/32.
        power = np.uint16(0 if norm else int(self._random.integers(5, 7)) << 7)
        for begin in range(0, spec.numel, _CHUNK):
            count = min(_CHUNK, spec.numel - begin)
            place = int(self._random.integers(0, _BLOCK))
            yield self._block[place : place + count] - power


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int) -> int:
    """Write the whole folder and return the bytes of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    noise = Noise(seed)
    groups = list(_group(expected_tensors(parse_config(config)).values()))
    weight_map = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        pieces = (PlannedPiece(name=s.name, dtype="BF16", shape=s.shape) for s in group)
        with (folder / name).open("wb") as stream:
            stream.write(ShardLayout(pieces=tuple(pieces)).header)
            for spec in group:
                weight_map[spec.name] = name
                for chunk in noise.chunks(spec):
                    stream.write(chunk.data)
    total = sum(2 * spec.numel for group in groups for spec in group)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2))
    return total


def _group(specs: Any) -> Iterator[list[TensorSpec]]:
    group: list[TensorSpec] = []
    for spec in specs:
        if group and 2 * sum(s.numel for s in [*group, spec]) > SHARD_BYTES:
            yield group
            group = []
        group.append(spec)
    yield group


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reduced", action="store_true", help="two layers each, at real width")
    parser.add_argument("--seed", type=int, default=2)
    options = parser.parse_args()
    layers = (2, 2) if options.reduced else (63, 32)
    started = time.monotonic()
    total = write_checkpoint(options.folder, released_config(*layers), options.seed)
    print(f"{total:,} bytes in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
