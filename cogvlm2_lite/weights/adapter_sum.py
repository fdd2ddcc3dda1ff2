"""Loads the adapters of a model: each with its weight, and those of one name as their sum."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.errors import AdapterError
from cogvlm2_lite.weights.adapter import Adapter, Pair, read_adapter
from cogvlm2_lite.weights.adapter_choice import AdapterChoice, names_of
from cogvlm2_lite.weights.identity import Base


def read_adapters(
    choices: Sequence[AdapterChoice], config: ModelConfig, *, base: Base | None, any_base: bool
) -> tuple[Adapter, ...]:
    """Return one adapter for each name, in order. The parameters are those of `read_adapter`.

    Raises AdapterError as `read_adapter` does, and if adapters to add up act on different rows.
    """
    found: dict[str, list[Adapter]] = {name: [] for name in names_of(choices)}
    for choice in choices:
        adapter = read_adapter(
            choice.folder, config, name=choice.name, base=base, any_base=any_base
        )
        found[choice.name].append(weighted(adapter, choice.weight))
    return tuple(add_up(adapters) for adapters in found.values())


def weighted(adapter: Adapter, weight: float) -> Adapter:
    """Return the adapter with its effect multiplied by a weight."""
    if weight == 1:
        return adapter
    pairs = {name: replace(pair, scale=pair.scale * weight) for name, pair in adapter.pairs.items()}
    return replace(adapter, pairs=pairs)


def add_up(adapters: Sequence[Adapter]) -> Adapter:
    """Return one adapter that does what all of them do together; its ranks are the sums of theirs.

    Raises AdapterError if they act on different rows.
    """
    first = adapters[0]
    if len(adapters) == 1:
        return first
    if len({adapter.acts_on for adapter in adapters}) > 1:
        raise AdapterError(
            "The adapters {name} can't be added up: some act on all tokens, and some only behind "
            "the picture.",
            hint="Use one of them at a time.",
            name=first.name,
        )
    matrices = dict.fromkeys(name for adapter in adapters for name in adapter.pairs)
    pairs = {
        name: _stacked([adapter.pairs[name] for adapter in adapters if name in adapter.pairs])
        for name in matrices
    }
    together = hashlib.sha256(" ".join(adapter.sha256 for adapter in adapters).encode())
    templates = {adapter.template for adapter in adapters}
    return replace(
        first,
        pairs=pairs,
        sha256=together.hexdigest(),
        remarks=tuple(remark for adapter in adapters for remark in adapter.remarks),
        held_out={},
        template=templates.pop() if len(templates) == 1 else None,
    )


def _stacked(pairs: Sequence[Pair]) -> Pair:
    """Return the pair whose product is the sum of the products; the scales go into lora_B."""
    if len(pairs) == 1:
        return pairs[0]
    return Pair(
        down=torch.cat([pair.down for pair in pairs]),
        up=torch.cat([pair.up * pair.scale for pair in pairs], dim=1),
        scale=1.0,
    )
