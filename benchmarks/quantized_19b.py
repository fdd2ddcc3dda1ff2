"""Write a folder as `quantize` makes it from the released model, but with random codes.

    python -m benchmarks.quantized_19b DIR [--vision-layers 63] [--decoder-layers 32]

Names, shapes, files and bytes are those of `quantize` (11.4 GB), and tokenizer.json is as large as
that of Llama 3. It takes a minute, where converting `synthetic_19b.py`'s checkpoint takes half an
hour and 39 GB. Speed does not depend on the values, so the start and the memory of a real folder
can be measured; answers are noise. There is no manifest, which only `verify` and adapters need.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.synthetic_19b import Noise, released_config  # noqa: E402
from cogvlm2_lite.architectures.architecture import Role, expected_tensors  # noqa: E402
from cogvlm2_lite.config import parse_config  # noqa: E402
from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor  # noqa: E402
from cogvlm2_lite.weights.header import Piece  # noqa: E402
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dynamic_map  # noqa: E402
from quantize.recipe import (  # noqa: E402
    PlannedTensor,
    QuantizeOptions,
    make_recipe,
    quant_state_text,
)

VOCABULARY, MERGES = 128_000, 280_147
"""Of Llama 3."""
_BLOCK = 1 << 24


def write_folder(folder: Path, *, vision_layers: int = 63, decoder_layers: int = 32) -> int:
    """Write the whole folder; return the bytes of its .safetensors files."""
    raw = released_config(vision_layers, decoder_layers)
    config = parse_config(raw)
    tensors = {
        name: StoredTensor(
            spec=spec,
            kind="dense",
            pieces={
                "weight": Piece(
                    file=folder, dtype="BF16", shape=spec.shape, begin=0, end=2 * spec.numel
                )
            },
        )
        for name, spec in expected_tensors(config).items()
    }
    source = Catalog(folder=folder, config=config, tensors=MappingProxyType(tensors), shards=())
    recipe = make_recipe(source, QuantizeOptions())
    folder.mkdir(parents=True)
    noise = Noise(19)
    codes = np.random.default_rng(19).integers(0, 256, 2 * _BLOCK, dtype=np.uint8)
    weight_map = {}
    for shard in recipe.shards:
        with (folder / shard.name).open("wb") as stream:
            stream.write(shard.layout.header)
            for tensor in shard.tensors:
                for role, piece in tensor.pieces.items():
                    weight_map[piece.name] = shard.name
                    for chunk in _chunks(tensor, role, noise, codes):
                        stream.write(chunk)
    index = {"metadata": {"total_size": recipe.nbytes}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    write_tokenizer(folder)
    return recipe.nbytes


def _chunks(
    tensor: PlannedTensor, role: str, noise: Noise, codes: NDArray[np.uint8]
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a piece."""
    spec, nbytes = tensor.source.spec, tensor.pieces[role].nbytes
    scale = 2.0 / math.sqrt(spec.shape[-1])
    match role:
        case "weight" if tensor.kind == "dense" and spec.role is Role.NORM:
            yield np.full(spec.numel, 0x3F80, dtype=np.uint16).tobytes()
        case "weight" if tensor.kind == "dense":
            yield from (chunk.data for chunk in noise.chunks(spec))
        case "quant_map":
            yield np.array(NF4_LEVELS, dtype=np.float32).tobytes()
        case "nested_quant_map":
            yield dynamic_map().numpy().tobytes()
        case "nested_absmax":
            yield np.full(nbytes // 4, scale / 2, dtype=np.float32).tobytes()
        case "quant_state":
            text = quant_state_text(tensor.source, nested_offset=scale)
            yield text.encode().ljust(nbytes)
        case _:
            for begin in range(0, nbytes, _BLOCK):
                place = zlib.crc32(f"{spec.name} {begin}".encode()) % _BLOCK // 64 * 64
                yield codes[place : place + min(_BLOCK, nbytes - begin)].data


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer with as many tokens and merges as that of Llama 3."""
    source = json.loads((checkpoint_folder() / "tokenizer.json").read_text(encoding="utf-8"))
    chance = np.random.default_rng(3)
    special = {token["content"] for token in source["added_tokens"]}
    # 1. The tokens of the demo model come first, so that its words are a few tokens long. Each
    #    other token is a merge of two earlier ones.
    tokens = [token for token in source["model"]["vocab"] if token not in special]
    vocabulary = dict.fromkeys(tokens)
    pairs = source["model"]["merges"]
    merges = dict.fromkeys(tuple(p.split(" ") if isinstance(p, str) else p) for p in pairs)
    while len(tokens) < VOCABULARY:
        left, right = (tokens[int(place)] for place in chance.integers(0, len(tokens), 2))
        if len(left) + len(right) <= 12 and left + right not in vocabulary:
            vocabulary[left + right] = None
            tokens.append(left + right)
            merges[left, right] = None
    # 2. Llama 3 has more merges than tokens: others that lead to the same one.
    for token in tokens:
        for place in range(1, len(token)):
            if token[:place] in vocabulary and token[place:] in vocabulary:
                merges[token[:place], token[place:]] = None
    source["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    source["model"]["merges"] = [" ".join(pair) for pair in list(merges)[:MERGES]]
    texts = [token["content"] for token in source["added_tokens"]]
    texts += [f"<|reserved_special_token_{n}|>" for n in range(1, 257 - len(texts))]
    like = source["added_tokens"][0]
    source["added_tokens"] = [
        {**like, "id": VOCABULARY + number, "content": text} for number, text in enumerate(texts)
    ]
    text = json.dumps(source, ensure_ascii=False, indent=1)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vision-layers", type=int, default=63)
    parser.add_argument("--decoder-layers", type=int, default=32)
    args = parser.parse_args()
    nbytes = write_folder(
        args.folder, vision_layers=args.vision_layers, decoder_layers=args.decoder_layers
    )
    print(f"{nbytes:,} bytes")


if __name__ == "__main__":
    main()
