"""Checkpoint folders written by hand, byte for byte where a test needs it.

The 4-bit ones are made with bitsandbytes itself, in the layout that transformers saves, so they do
not depend on the code under test.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Role, expected_tensors
from cogvlm2_lite.config import read_config
from cogvlm2_lite.folders.explain import INDEX_NAME, SINGLE_NAME
from cogvlm2_lite.weights.catalog import Catalog

CHECKPOINT = Path(__file__).parents[1] / "golden" / "a" / "checkpoint"
CONFIG = read_config(CHECKPOINT)
SPECS = expected_tensors(CONFIG)
LINEARS = tuple(name for name, spec in SPECS.items() if spec.role is Role.LINEAR)

Tensors = dict[str, Tensor]


def golden_tensors(dtype: torch.dtype = torch.bfloat16) -> Tensors:
    """Return all tensors of the golden checkpoint in one type."""
    loaded: Tensors = {}
    for file in sorted(CHECKPOINT.glob("*.safetensors")):
        loaded.update(load_file(file))
    return {name: tensor.to(dtype) for name, tensor in loaded.items()}


def write_folder(
    folder: Path, tensors: Tensors, shards: int = 1, config: Mapping[str, Any] | None = None
) -> Path:
    """Write a model folder: one file, or several with an index.

    config  what config.json holds; None: the golden checkpoint's
    """
    folder.mkdir(exist_ok=True)
    if config is None:
        shutil.copy(CHECKPOINT / "config.json", folder)
    else:
        (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / SINGLE_NAME, metadata={"format": "pt"})
        return folder
    weight_map: dict[str, str] = {}
    names = list(tensors)
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    write_index(folder, weight_map)
    return folder


def write_index(folder: Path, weight_map: Mapping[str, Any]) -> None:
    """Write an index with this weight_map."""
    (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def open_folder(folder: Path) -> Catalog:
    """Open a folder of the golden checkpoint's shape."""
    return Catalog.open(folder, CONFIG)


def four_bit(
    tensors: Tensors,
    *,
    double_quant: bool = True,
    quant_type: str = "nf4",
    group: int = 64,
    only: tuple[str, ...] = LINEARS,
) -> Tensors:
    """Quantize matrices with bitsandbytes and name the pieces as transformers does."""
    from bitsandbytes.functional import quantize_4bit

    result: Tensors = {}
    for name, tensor in tensors.items():
        if name not in only:
            result[name] = tensor
            continue
        codes, state = quantize_4bit(
            tensor, blocksize=group, compress_statistics=double_quant, quant_type=quant_type
        )
        result[name] = codes
        result.update({f"{name}.{key}": v for key, v in state.as_dict(packed=True).items()})
    return result


def header_of(entries: Mapping[str, Any]) -> bytes:
    """Return the bytes of a safetensors header: its length and the JSON."""
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw


def write_sparse(
    file: Path, shapes: Mapping[str, tuple[str, tuple[int, ...], int]], data: Mapping[str, bytes]
) -> None:
    """Write a file of any size that takes little room on disk: most of its data is a hole.

    shapes  name -> dtype, shape, bytes
    data    the content of some tensors
    """
    position = 0
    entries: dict[str, dict[str, Any]] = {}
    for name, (dtype, shape, nbytes) in shapes.items():
        offsets = [position, position + nbytes]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += nbytes
    header = header_of(entries)
    with file.open("wb") as stream:
        stream.write(header)
        for name, content in data.items():
            stream.seek(len(header) + entries[name]["data_offsets"][0])
            stream.write(content)
        stream.truncate(len(header) + position)
