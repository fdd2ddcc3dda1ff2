"""Adapters of random numbers for the small models of tests: strong enough to change answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Part, Role, expected_tensors
from cogvlm2_lite.config import read_config
from cogvlm2_lite.weights.adapter import peft_name, write_adapter
from cogvlm2_lite.weights.adapter_names import ALL_ROWS

WORDS = (Part.LANGUAGE_EXPERT,)
TOWER = (Part.LANGUAGE_EXPERT, Part.VISION_EXPERT, Part.VISION, Part.PROJECTOR)


def random_adapter(
    folder: Path,
    model: Path,
    *,
    seed: int,
    parts: Sequence[Part] = WORDS,
    acts_on: str = ALL_ROWS,
    rank: int = 3,
    **facts: object,
) -> Path:
    """Write an adapter for a model folder.

    parts  whose linear layers it changes
    facts  more of cogvlm2_lite_adapter.json
    """
    chance = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for spec in expected_tensors(read_config(model)).values():
        if spec.role is Role.LINEAR and spec.part in parts:
            rows, columns = spec.shape
            down = torch.randn((rank, columns), generator=chance) * columns**-0.5
            up = torch.randn((rows, rank), generator=chance) * rank**-0.5
            tensors |= {peft_name(spec.name, "A"): down, peft_name(spec.name, "B"): up}
    write_adapter(
        folder, tensors, alpha=rank, base_name="tiny", facts={"acts_on": acts_on, **facts}
    )
    return folder
