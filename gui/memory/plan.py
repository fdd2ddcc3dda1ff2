"""A memory plan as bars: what is in memory in each phase, and what is streamed. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.backends.registry import backends

if TYPE_CHECKING:
    from cogvlm2_lite.forecast.preview import PlannedModel
    from cogvlm2_lite.forecast.table import PlanTable

CACHE, WORK, BUFFERS = "key/value cache", "activations", "stream buffers"
SPARE = "reserved for other phases"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One phase on one device.

    held                 (part, bytes) in memory, in drawing order
    from_ram, from_disk  (part, bytes) that are streamed for each use
    """

    phase: str
    held: tuple[tuple[str, int], ...]
    from_ram: tuple[tuple[str, int], ...] = ()
    from_disk: tuple[tuple[str, int], ...] = ()

    @property
    def held_bytes(self) -> int:
        return sum(n for _, n in self.held)

    @property
    def streamed(self) -> tuple[tuple[str, int], ...]:
        return self.from_ram + self.from_disk

    @property
    def streamed_bytes(self) -> int:
        return sum(n for _, n in self.streamed)


@dataclass(frozen=True, kw_only=True)
class Device:
    """The bars of one device and its budget."""

    name: str
    budget_bytes: int
    bars: tuple[Bar, ...]

    @property
    def in_ram(self) -> bool:
        """Whether the budget is RAM, as on a CPU."""
        return any(backend.uses_ram and backend.kind == self.name for backend in backends())

    @property
    def peak_bytes(self) -> int:
        return max((bar.held_bytes for bar in self.bars), default=0)

    def parts_from(self, where: str) -> tuple[str, ...]:
        """Return the parts that are streamed in any phase. where: "from_ram" or "from_disk"."""
        names = [name for bar in self.bars for name, _ in getattr(bar, where)]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, kw_only=True)
class PlanView:
    """A plan to show.

    first_token_s  seconds until the first token of an answer about a new picture
    summary       what is planned, and what to expect of it
    tables        the sizes
    notes         what the tables do not show
    """

    first_token_s: float
    tokens_per_s: float
    devices: tuple[Device, ...]
    summary: str
    tables: tuple[PlanTable, ...]
    notes: tuple[str, ...]


def devices_of(plan: Mapping[str, Any]) -> tuple[Device, ...]:
    """Return the devices from the values of forecast.table.plan_as_dict.

    Without a forecast the values don't separate RAM and disk; all streamed bytes count as RAM.
    """
    return tuple(
        Device(
            name=device["device"],
            budget_bytes=device["budget_bytes"],
            bars=tuple(_bar(phase) for phase in device["phases"]),
        )
        for device in plan["devices"]
    )


def _bar(phase: Mapping[str, Any]) -> Bar:
    held = [
        *phase["resident_bytes"].items(),
        (BUFFERS, phase["buffer_bytes"]),
        (CACHE, phase["cache_bytes"]),
        (WORK, phase["scratch_bytes"]),
        (SPARE, phase.get("spare_bytes", 0)),
    ]
    return Bar(
        phase=phase["phase"],
        held=tuple((name, n) for name, n in held if n),
        from_ram=tuple(phase.get("from_ram_bytes", phase["streamed_bytes"]).items()),
        from_disk=tuple(phase.get("from_disk_bytes", {}).items()),
    )


def parts_of(devices: Sequence[Device]) -> tuple[str, ...]:
    """Return the parts of all bars, for the legend."""
    names = [n for d in devices for bar in d.bars for n, _ in (*bar.held, *bar.streamed)]
    return tuple(dict.fromkeys(names))


def plan_for(
    folder: Path | None,
    *,
    vram: str | None,
    ram: str | None,
    translate: Callable[[str], str] = str,
) -> PlanView:
    """Plan for this machine, or for a budget of video memory or RAM (then on the CPU).

    folder     the model's; None: the released model in 4 bits, which need not be on disk
    translate  translates the messages of the plan
    Only headers are read. Raises DoesNotFitError and CheckpointError.
    """
    from cogvlm2_lite.forecast.machine import find_machine
    from cogvlm2_lite.forecast.preview import preview
    from cogvlm2_lite.forecast.table import plan_tables
    from cogvlm2_lite.forecast.text import as_dict, first_sentences, notes
    from cogvlm2_lite.memory.budget import read_allowance

    subject = _subject(folder)
    machine = find_machine("cpu" if ram else "auto", read_allowance(vram, ram))
    found = preview(subject, machine)
    values = as_dict(subject, machine, found)
    return PlanView(
        first_token_s=found.expected.first_token_s,
        tokens_per_s=found.expected.tokens_per_s,
        devices=devices_of(values["plan"]),
        summary=translate(first_sentences(subject, machine, found, translate)),
        tables=plan_tables(found.plan, found.expected, translate),
        notes=tuple(translate(note) for note in notes(machine, found)),
    )


def _subject(folder: Path | None) -> PlannedModel:
    from cogvlm2_lite.forecast.text import RELEASED_WORD, find_subject

    return find_subject(str(folder) if folder else RELEASED_WORD, None)
