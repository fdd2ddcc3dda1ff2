"""What the tests of the quantizer share: conversions of the golden checkpoint and odd sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cogvlm2_lite.architectures.architecture import expected_tensors
from cogvlm2_lite.config import parse_config, read_config
from cogvlm2_lite.weights.catalog import Catalog
from quantize.events import Event
from quantize.pipeline import Effort, convert
from quantize.recipe import QuantizeOptions

GOLDEN = Path(__file__).parents[1] / "golden" / "a"
CHECKPOINT = GOLDEN / "checkpoint"

SMALL_SHARDS = QuantizeOptions(shard_bytes=300_000)
"""Several files even for the golden checkpoint."""

QUICK = Effort(threads=2, run_bytes=20_000, sync_bytes=100_000)
"""Many runs and many commits even for the golden checkpoint."""


def quantize(
    source: Path,
    destination: Path,
    settings: QuantizeOptions = SMALL_SHARDS,
    effort: Effort = QUICK,
) -> list[Event]:
    """Convert to the end and give all events."""
    return list(convert(source, destination, settings, effort))


def hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a folder."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def open_catalog(folder: Path) -> Catalog:
    return Catalog.open(folder, read_config(folder))


def load_all(folder: Path) -> dict[str, Tensor]:
    """Read every piece of a folder with the safetensors library."""
    tensors: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def write_source(
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    changes: Mapping[str, object] | None = None,
    replace: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint of random weights in one file.

    changes  numbers of config.json other than the golden's; "vision.NAME" for the vision tower
    replace  tensors other than random ones
    """
    config = json.loads((CHECKPOINT / "config.json").read_text())
    for key, value in (changes or {}).items():
        owner = config["vision_config"] if key.startswith("vision.") else config
        owner[key.removeprefix("vision.")] = value
    generator = torch.Generator().manual_seed(7)
    specs = expected_tensors(parse_config(config))
    tensors = {
        name: torch.randn(spec.shape, generator=generator).mul_(0.05).to(dtype)
        for name, spec in specs.items()
    }
    tensors |= replace or {}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder
