"""Add an adapter to the matrices of a model: W + scale * B A, in float32, rounded once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.adapter import Adapter, Pair
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from cogvlm2_lite.weights.adapter_sum import read_adapters
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.identity import identify_base

BLOCK_ROWS = 64
"""Rows of one product B A. Always the same ones, because other shapes may give other last bits."""

_RUNS_BYTES = 64 * MIB
"""Source bytes that all threads process at a time; their float32 values take several times that."""

Pairs = Mapping[str, Pair]
"""The adapter's two matrices, by the name of the matrix that they change."""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """The adapters that are merged.

    adapters  of one name: their sum is merged
    any_base  accept adapters that were trained on another model of the same shape
    """

    adapters: tuple[AdapterChoice, ...]
    any_base: bool = False

    def read(self, catalog: Catalog) -> Adapter:
        """Return the sum of the adapters, checked against the source. Raises AdapterError."""
        base = identify_base(catalog, catalog.folder)
        (adapter,) = read_adapters(self.adapters, catalog.config, base=base, any_base=self.any_base)
        return adapter


def run_bytes(threads: int) -> int:
    """Return the source bytes that a thread processes at a time; a merge then needs about 1 GiB."""
    return min(16 * MIB, _RUNS_BYTES // threads)


def merged_source(source: Mapping[str, str], adapter: Adapter) -> dict[str, str]:
    """Return what identifies a model with an adapter in it, for manifest and job.

    Its fingerprint is a new one: an adapter of the base does not belong to it.

    source  what identifies the base
    """
    base = source["fingerprint"]
    scales = [f"{name} {pair.scale}" for name, pair in sorted(adapter.pairs.items())]
    both = hashlib.sha256("\n".join([base, adapter.sha256, *scales]).encode()).hexdigest()
    return {
        **source,
        "fingerprint": both,
        "base": base,
        "adapter": adapter.sha256,
        "adapter_name": adapter.name,
    }


def merge_notes(adapter: Adapter) -> list[Text]:
    """Return the sentences about an adapter that is merged, for the plan."""
    ranks = sorted({pair.rank for pair in adapter.pairs.values()})
    notes = [
        Text(
            "The adapter {name} (rank {ranks}) is added to {count} matrices.",
            name=adapter.name,
            ranks=", ".join(map(str, ranks)),
            count=len(adapter.pairs),
        )
    ]
    if adapter.acts_on == BEHIND_PICTURE:
        notes.append(
            Text(
                "The adapter acted only behind the picture. Merged, it acts on all tokens: its "
                "held-out loss was {behind} behind the picture, and {everywhere} on all tokens.",
                behind=f"{adapter.held_out['after']:.4f}",
                everywhere=f"{adapter.held_out['after_in_peft']:.4f}",
            )
            if {"after", "after_in_peft"} <= adapter.held_out.keys()
            else Text(
                "The adapter acted only behind the picture. Merged, it acts on all tokens, so some "
                "answers may differ from those with --adapter."
            )
        )
    return [*notes, *adapter.remarks]


def add_pair(weight: Tensor, pair: Pair, first: int) -> None:
    """Add scale * B A to some rows of a matrix, in place.

    weight  [rows, columns], any floating type; computed in float32, rounded to nearest even
    first   the number of its first row, a multiple of BLOCK_ROWS
    """
    for begin in range(0, weight.shape[0], BLOCK_ROWS):
        rows = weight[begin : begin + BLOCK_ROWS]
        up = pair.up[first + begin : first + begin + rows.shape[0]]
        rows.copy_((up @ pair.down).mul_(pair.scale).add_(rows.float()))
