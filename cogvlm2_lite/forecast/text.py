"""A plan and what to expect of it, as text for a person and as JSON-ready values."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cogvlm2_lite.architectures import find_released
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.forecast.machine import Machine
from cogvlm2_lite.forecast.preview import (
    PlannedModel,
    PlanPreview,
    folder_subject,
    released_subject,
)
from cogvlm2_lite.forecast.rates import Rates
from cogvlm2_lite.forecast.table import about, draw_table, plan_as_dict
from cogvlm2_lite.forecast.times import QUESTION_TOKENS
from cogvlm2_lite.units import format_bytes

RELEASED_WORD = COGVLM2.released.word


def find_subject(name: str, lm_head: str | None) -> PlannedModel:
    """Return what MODEL names. Raises UsageError and CheckpointError."""
    architecture = find_released(name)
    if architecture is not None and not Path(name, "config.json").exists():
        return released_subject(architecture.released, lm_head_nf4=lm_head == "nf4")
    if lm_head is not None:
        raise UsageError(
            "--lm-head is for `{released}` only; a folder's lm_head is stored already.",
            hint="Leave it out.",
            released=RELEASED_WORD,
        )
    return folder_subject(model_folder(name), name)


def text(subject: PlannedModel, machine: Machine, found: PlanPreview) -> str:
    """Write a plan for a person."""
    first = f"{subject.name} on {machine.label}. {found.sentence}"
    blocks = [
        _wrapped(first),
        draw_table(found.plan, found.expected),
        "\n".join(_wrapped(note) for note in notes(machine, found)),
    ]
    return "\n\n".join(blocks) + "\n"


def notes(machine: Machine, found: PlanPreview) -> Iterator[str]:
    """Say what the table does not."""
    yield from machine.remarks
    if found.plan.remark:
        yield found.plan.remark
    yield from (d.budget.remark for d in found.plan.devices if d.budget.remark)
    if found.packed_bytes:
        yield (
            "4-bit matrices that every token needs lie in RAM twice, as stored and packed for this "
            f"processor: {format_bytes(found.packed_bytes)} more."
        )
    yield _in_ram(found) if machine.in_ram else _waiting(found)
    if found.picture_bytes:
        yield _pictures(found)
    does = "reads the weights from disk" + (" and packs them" if found.packed_bytes else "")
    yield f"The first answer also {does}, about {about(found.load_s)}."
    yield (
        f"Expected times are arithmetic, {_source(found)}. A question has {QUESTION_TOKENS} tokens."
    )
    yield "Answers are the same under every plan; --kv alone may change them."


def _in_ram(found: PlanPreview) -> str:
    embedding = format_bytes(found.expected.ram_bytes)
    return f"Embedding rows are read from a mapped file: up to {embedding} of cached pages more."


def _waiting(found: PlanPreview) -> str:
    host = sum(device.budget.host_bytes for device in found.plan.devices)
    kept = f"{format_bytes(found.expected.ram_bytes)} of weights wait in RAM"
    if found.expected.disk_bytes:
        return f"{kept}, where {format_bytes(host)} may be used; the others are on disk."
    return f"{kept} (embedding rows are read there), where {format_bytes(host)} may be used."


def _pictures(found: PlanPreview) -> str:
    room, each = found.plan.picture_cache_bytes, format_bytes(found.picture_bytes)
    if room:
        return (
            f"Pictures that were asked about stay known in up to {format_bytes(room)} of RAM, "
            f"{each} each."
        )
    return (
        f"No RAM is left to keep earlier pictures ({each} each): going back to one reads it again."
    )


def _source(found: PlanPreview) -> str:
    said = {rates.source: _numbers(rates, found) for rates in found.expected.rates}
    return "; ".join(f"from rates {source} ({numbers})" for source, numbers in said.items())


def _numbers(rates: Rates, found: PlanPreview) -> str:
    in_ram = found.plan.devices[0].budget.in_ram
    bus = "" if in_ram else f", bus {rates.bus_bytes_per_s / 1e9:.1f}"
    return (
        f"{rates.matmul_flops / 1e12:.3g} TFLOP/s, memory {rates.memory_bytes_per_s / 1e9:.3g}"
        f"{bus}, disk {rates.disk_bytes_per_s / 1e9:.1f} GB/s"
    )


def as_dict(subject: PlannedModel, machine: Machine, found: PlanPreview) -> dict[str, Any]:
    """Give a plan as JSON-ready values."""
    return {
        "model": subject.name,
        "machine": machine.label,
        "summary": found.sentence,
        "remarks": list(notes(machine, found)),
        "plan": plan_as_dict(found.plan, found.expected),
        "packed_bytes": found.packed_bytes,
        "load_s": found.load_s,
    }


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=98, subsequent_indent="", break_long_words=False)
