"""Returns a plan and its expected times as text and as JSON-ready values."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
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
from cogvlm2_lite.forecast.table import about, draw_table, plan_as_dict, text_columns
from cogvlm2_lite.forecast.times import QUESTION_TOKENS
from cogvlm2_lite.text import Text, join, joined
from cogvlm2_lite.units import format_bytes

_WIDTH = 98
"""Of a line, in letters."""
RELEASED_WORD = COGVLM2.released.word


def find_subject(name: str, lm_head: str | None) -> PlannedModel:
    """Return the model that MODEL names. Raises UsageError and CheckpointError."""
    architecture = find_released(name)
    if architecture is not None and not Path(name, "config.json").exists():
        return released_subject(architecture.released, lm_head_nf4=lm_head == "nf4")
    if lm_head is not None:
        raise UsageError(
            "--lm-head works only with `{model}`; the lm_head of a folder is already stored.",
            hint="Leave it out.",
            param="lm_head",
            model=RELEASED_WORD,
        )
    return folder_subject(model_folder(name, released=RELEASED_WORD), name)


def text(
    subject: PlannedModel,
    machine: Machine,
    found: PlanPreview,
    translate: Callable[[str], str] = str,
) -> str:
    """Return a plan as text.

    translate  translates a text, and the name of a part or phase
    """
    blocks = [
        _wrapped(translate(first_sentences(subject, machine, found, translate))),
        draw_table(found.plan, found.expected, translate),
        "\n".join(_wrapped(translate(note)) for note in notes(machine, found)),
    ]
    return "\n\n".join(blocks) + "\n"


def first_sentences(
    subject: PlannedModel,
    machine: Machine,
    found: PlanPreview,
    translate: Callable[[str], str] = str,
) -> Text:
    """Return what is planned, and what to expect of it."""
    where = Text("{model} on {machine}.", model=translate(subject.name), machine=machine.label)
    return join(where, found.sentence)


def notes(machine: Machine, found: PlanPreview) -> Iterator[Text]:
    """Yield what the table does not show, as sentences."""
    yield from machine.remarks
    if found.plan.remark:
        yield found.plan.remark
    yield from (d.budget.remark for d in found.plan.devices if d.budget.remark)
    if found.packed_bytes:
        yield Text(
            "4-bit matrices that are used for every token are in RAM twice, as stored and packed "
            "for this processor: {size} more.",
            size=format_bytes(found.packed_bytes),
        )
    yield _in_ram(found) if machine.in_ram else _in_host(found)
    if found.picture_bytes:
        yield _pictures(found)
    yield Text(
        "The first answer also reads the weights from disk and packs them, about {wait}."
        if found.packed_bytes
        else "The first answer also reads the weights from disk, about {wait}.",
        wait=about(found.load_s),
    )
    yield Text(
        "Expected times are calculated {source}. A question is assumed to have {count} tokens.",
        source=_source(found),
        count=QUESTION_TOKENS,
    )
    yield Text("Answers are the same with every plan. --kv and --activations can change them.")


def _in_ram(found: PlanPreview) -> Text:
    return Text(
        "Embedding rows are read from a memory-mapped file: up to {size} more of cached pages.",
        size=format_bytes(found.expected.ram_bytes),
    )


def _in_host(found: PlanPreview) -> Text:
    host = sum(device.budget.host_bytes for device in found.plan.devices)
    return Text(
        "{size} of weights are kept in RAM, where {host} may be used; the others stay on disk."
        if found.expected.disk_bytes
        else "{size} of weights, including the embedding, are in RAM, where {host} may be used.",
        size=format_bytes(found.expected.ram_bytes),
        host=format_bytes(host),
    )


def _pictures(found: PlanPreview) -> Text:
    room, each = found.plan.picture_cache_bytes, format_bytes(found.picture_bytes)
    if room:
        return Text(
            "Encoded pictures are kept in up to {size} of RAM, {each} each.",
            size=format_bytes(room),
            each=each,
        )
    return Text(
        "No RAM is left for earlier pictures ({each} each): a question about one encodes it again.",
        each=each,
    )


def _source(found: PlanPreview) -> Text:
    by_source = {rates.source: _numbers(rates, found) for rates in found.expected.rates}
    template = "from rates ({source}; {numbers})"
    return joined(
        Text(template, source=source, numbers=numbers) for source, numbers in by_source.items()
    )


def _numbers(rates: Rates, found: PlanPreview) -> Text:
    return Text(
        "{compute} TFLOP/s, memory {memory}, disk {disk} GB/s"
        if found.plan.devices[0].budget.in_ram
        else "{compute} TFLOP/s, memory {memory}, bus {bus}, disk {disk} GB/s",
        compute=f"{rates.matmul_flops / 1e12:.3g}",
        memory=f"{rates.memory_bytes_per_s / 1e9:.3g}",
        bus=f"{rates.bus_bytes_per_s / 1e9:.1f}",
        disk=f"{rates.disk_bytes_per_s / 1e9:.1f}",
    )


def as_dict(subject: PlannedModel, machine: Machine, found: PlanPreview) -> dict[str, Any]:
    """Return a plan as JSON-ready values."""
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
    if text_columns(text) == len(text):
        return textwrap.fill(text, width=_WIDTH, break_long_words=False)
    lines = [""]
    for piece in re.findall(r"(?:[!-~]+|.)[，。；：）、]* *", text):  # Chinese has few spaces
        if text_columns(lines[-1] + piece.rstrip()) > _WIDTH:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
