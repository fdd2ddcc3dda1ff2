"""Returns a memory plan as a sentence, as a table, and as JSON-ready values."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase
from cogvlm2_lite.forecast.times import QUESTION_TOKENS, Forecast
from cogvlm2_lite.memory.inventory import Unit, by_part
from cogvlm2_lite.memory.plan import DeviceBudget, DevicePlan, MemoryPlan, PhasePlan
from cogvlm2_lite.text import Text, join, listed, marked
from cogvlm2_lite.units import format_bytes, format_seconds

Row = tuple[str, ...]
Translate = Callable[[str], str]

UNITS_OF_WORK: Mapping[Phase, Text] = {
    Phase.ENCODE: Text("per picture"),
    Phase.PREFILL_IMAGE: Text("per picture"),
    Phase.PREFILL_TEXT: Text("per question"),
    Phase.DECODE: Text("per token"),
}

_WHOLE = {
    Part.VISION: Text("the vision tower"),
    Part.PROJECTOR: Text("the projector"),
    Part.VISION_EXPERT: Text("the vision experts"),
    Part.LANGUAGE_EXPERT: Text("the language experts"),
    Part.LM_HEAD: Text("lm_head"),
}
_BLOCKS = {
    Part.VISION: "{count} of {total} vision tower blocks",
    Part.VISION_EXPERT: "{count} of {total} vision experts",
    Part.LANGUAGE_EXPERT: "{count} of {total} language experts",
}


@dataclass(frozen=True, kw_only=True)
class PlanTable:
    """The plan of a device.

    title   the device, and what it has
    origin  where its budget comes from; "" if that is not known
    rows    of equal length. The first one has the names of the phases; each has its name first.
    """

    title: str
    origin: str
    rows: tuple[Row, ...]


def plan_tables(
    plan: MemoryPlan, forecast: Forecast | None = None, translate: Translate = str
) -> tuple[PlanTable, ...]:
    """Return a plan as tables: per device a column for each phase, with its transfers and time.

    forecast   None leaves out the times and shows only those transfers that are streamed
    translate  translates a text, and the name of a part or phase
    """
    columns = _column_of(plan, forecast, translate) if forecast is not None else ()
    blocks = [
        list(_rows(device, index, forecast, translate)) for index, device in enumerate(plan.devices)
    ]
    blocks[-1] += columns
    return tuple(
        PlanTable(
            title=_title(device.budget, device, plan, translate),
            origin=translate(device.budget.origin) if device.budget.origin else "",
            rows=tuple(rows),
        )
        for device, rows in zip(plan.devices, blocks, strict=True)
    )


def draw_table(
    plan: MemoryPlan, forecast: Forecast | None = None, translate: Translate = str
) -> str:
    """Return the tables as text. Arguments as for `plan_tables`."""
    tables = plan_tables(plan, forecast, translate)
    widths = _widths([table.rows for table in tables])
    return "\n\n".join(
        "\n".join(
            [
                table.title,
                *([f"  {table.origin}"] if table.origin else []),
                *_aligned(table.rows, widths),
            ]
        )
        for table in tables
    )


def plan_as_dict(plan: MemoryPlan, forecast: Forecast | None = None) -> dict[str, Any]:
    """Return a plan as JSON-ready values, in bytes and seconds."""
    values: dict[str, Any] = {
        "context": plan.context,
        "parallel": plan.parallel,
        "remark": plan.remark,
        "peak_bytes": plan.peak_bytes,
        "host_part_bytes": {part.value: n for part, n in plan.host_part_bytes.items()},
        "picture_cache_bytes": plan.picture_cache_bytes,
        "devices": [
            _device_as_dict(device, index, forecast) for index, device in enumerate(plan.devices)
        ],
    }
    if forecast is not None:
        values["expected"] = _forecast_as_dict(forecast)
    return values


def _device_as_dict(device: DevicePlan, index: int, forecast: Forecast | None) -> dict[str, Any]:
    return {
        "device": device.budget.device,
        "budget_bytes": device.budget.device_bytes,
        "budget": device.budget.origin,
        "remark": device.budget.remark,
        "host_bytes": device.budget.host_bytes,
        "peak_bytes": device.peak_bytes,
        "phases": [_phase_as_dict(phase, index, forecast) for phase in device.phases],
    }


def _phase_as_dict(plan: PhasePlan, index: int, forecast: Forecast | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "phase": plan.phase.value,
        "resident_bytes": _by_name(plan.resident),
        "streamed_bytes": _by_name(plan.streamed),
        "buffers": plan.depth,
        "buffer_bytes": plan.buffer_bytes,
        "cache_bytes": plan.cache_bytes,
        "scratch_bytes": plan.scratch_bytes,
        "spare_bytes": plan.spare_bytes,
        "peak_bytes": plan.peak_bytes,
    }
    if forecast is not None:
        arrivals = forecast.arrivals[plan.phase][index]
        values["from_ram_bytes"] = _by_name(arrivals.ram)
        values["from_disk_bytes"] = _by_name(arrivals.disk)
    return values


def _forecast_as_dict(forecast: Forecast) -> dict[str, Any]:
    return {
        "seconds": {phase.value: s for phase, s in forecast.seconds.items()},
        "question_tokens": QUESTION_TOKENS,
        "first_word_s": forecast.first_token_s,
        "tokens_per_s": forecast.tokens_per_s,
        "waiting_in_ram_bytes": forecast.ram_bytes,
        "read_from_disk_bytes": forecast.disk_bytes,
        "rates": [
            {
                "source": rates.source,
                "matmul_flops": rates.matmul_flops,
                "memory_bytes_per_s": rates.memory_bytes_per_s,
                "bus_bytes_per_s": rates.bus_bytes_per_s,
                "disk_bytes_per_s": rates.disk_bytes_per_s,
                "block_s": rates.block_s,
            }
            for rates in forecast.rates
        ],
    }


def _by_name(units: Iterable[Unit]) -> dict[str, int]:
    return {part.value: n for part, n in by_part(units).items()}


def _title(budget: DeviceBudget, device: DevicePlan, plan: MemoryPlan, translate: Translate) -> str:
    context = Text("context {context} tokens", context=plan.context)
    if plan.parallel > 1:
        context = Text(
            "{count} conversations of {context} tokens", count=plan.parallel, context=plan.context
        )
    title = Text(
        "{device}: {peak} at the peak, {budget} may be used; {context}",
        device="RAM" if budget.in_ram else budget.device,
        peak=format_bytes(device.peak_bytes),
        budget=format_bytes(budget.device_bytes),
        context=context,
    )
    return translate(title)


def _rows(
    device: DevicePlan, index: int, forecast: Forecast | None, translate: Translate
) -> Iterator[Row]:
    phases = device.phases
    yield ("", *(translate(p.phase.value) for p in phases))
    yield from _parts("{part}", [p.resident for p in phases], translate)
    yield (translate("key/value cache"), *(_cell(p.cache_bytes) for p in phases))
    yield (translate("activations"), *(_cell(p.scratch_bytes) for p in phases))
    if device.streams:
        yield (translate("stream buffers"), *(_cell(p.buffer_bytes) for p in phases))
    if any(p.spare_bytes for p in phases):
        yield (translate("reserved for other phases"), *(_cell(p.spare_bytes) for p in phases))
    yield (translate(Text("in memory")), *(_cell(p.peak_bytes) for p in phases))
    if forecast is None:
        yield from _parts(marked("streamed: {part}"), [p.streamed for p in phases], translate)
        return
    arrivals = [forecast.arrivals[p.phase][index] for p in phases]
    yield from _parts(marked("from RAM: {part}"), [a.ram for a in arrivals], translate)
    yield from _parts(marked("from disk: {part}"), [a.disk for a in arrivals], translate)


def _parts(template: str, columns: list[tuple[Unit, ...]], translate: Translate) -> Iterator[Row]:
    """Yield one row for each part that any column has."""
    sizes = [by_part(units) for units in columns]
    for part in by_part(unit for units in columns for unit in units):
        name = translate(part.value)
        if template != "{part}":
            name = translate(Text(template, part=name))
        yield (name, *(_cell(column.get(part, 0)) for column in sizes))


def _column_of(plan: MemoryPlan, forecast: Forecast, translate: Translate) -> Iterator[Row]:
    phases = [p.phase for p in plan.devices[0].phases]
    yield (translate(Text("expected")), *(about(forecast.seconds[phase]) for phase in phases))
    yield ("", *(translate(UNITS_OF_WORK[phase]) for phase in phases))


def _cell(count: int) -> str:
    return format_bytes(count) if count else "-"


def _widths(tables: Sequence[Sequence[Row]]) -> list[int]:
    """Return the column widths, which are the same in all tables of a plan."""
    heads = tables[0][0][1:]
    names = [text_columns(row[0]) for rows in tables for row in rows]
    return [
        max(len("from disk: language expert"), *names),
        *(max(text_columns(head), 12) for head in heads),
    ]


def _aligned(rows: Sequence[Row], widths: list[int]) -> list[str]:
    lines = []
    for name, *cells in rows:
        right = "  ".join(
            " " * (width - text_columns(cell)) + cell
            for cell, width in zip(cells, widths[1:], strict=True)
        )
        lines.append(f"  {name}{' ' * (widths[0] - text_columns(name))}  {right}".rstrip())
    return lines


def text_columns(text: str) -> int:
    """Return the width of a text in letters of fixed width; a Chinese letter has that of two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def summarize(
    plan: MemoryPlan, config: ModelConfig, expected: Forecast, unlimited: Forecast
) -> Text:
    """Return two or three sentences about speed and waiting times.

    unlimited  the forecast if everything stayed in memory
    """
    first_token = (
        "The answer to a question about a new picture starts after about {wait}."
        if Phase.ENCODE in expected.seconds
        else "An answer starts after about {wait}."
    )
    picture = _transfer(expected, config, [Phase.ENCODE, Phase.PREFILL_IMAGE])
    more = expected.first_token_s - unlimited.first_token_s
    overlaps = more < 0.02 * unlimited.first_token_s
    cost = (
        "For each new picture {transfer}, while the computation runs."
        if overlaps
        else "For each new picture {transfer}, which takes about {wait} more."
    )
    return join(
        _where_it_decodes(plan, config, expected),
        Text(cost, transfer=picture, wait=about(more)) if picture else "",
        Text(first_token, wait=about(expected.first_token_s)),
    )


def about(seconds: float) -> str:
    """Return an expected duration with two significant digits, which is all the forecast gives."""
    if seconds < 0.095:
        return f"{float(f'{seconds:.2g}') * 1000:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return format_seconds(round(seconds / 5) * 5)


def _where_it_decodes(plan: MemoryPlan, config: ModelConfig, expected: Forecast) -> Text:
    place = _place(plan)
    speed = Text("about {rate} tokens/s", rate=rate(expected.tokens_per_s))
    if plan.parallel > 1:
        speed = Text("{speed} for each of {count} conversations", speed=speed, count=plan.parallel)
    token = _transfer(expected, config, [Phase.DECODE])
    if token:
        return Text("For each token {transfer}, so {speed}.", transfer=token, speed=speed)
    if any(a.units for arrivals in expected.arrivals.values() for a in arrivals):
        return Text("Decoding runs entirely {place}, {speed}.", place=place, speed=speed)
    return Text("Everything stays {place}, {speed}.", place=place, speed=speed)


def _place(plan: MemoryPlan) -> Text:
    if plan.devices[0].budget.in_ram:
        return Text("in RAM")
    count = len(plan.devices)
    return Text("on the GPU") if count == 1 else Text("on the {count} GPUs", count=count)


def rate(tokens_per_s: float) -> str:
    """Return an expected rate with two significant digits, as `about` does."""
    if tokens_per_s >= 9.95:
        return f"{float(f'{tokens_per_s:.2g}'):.0f}"
    return f"{tokens_per_s:.1f}" if tokens_per_s >= 0.095 else f"{tokens_per_s:.3f}"


def _transfer(expected: Forecast, config: ModelConfig, phases: list[Phase]) -> Text:
    """Return "2.10 GiB are copied from RAM (the vision tower, 14 of 32 vision experts)".

    Empty if nothing is copied.
    """
    arrivals = [a for phase in phases for a in expected.arrivals.get(phase, ())]
    ram = [unit for a in arrivals for unit in a.ram]
    disk = [unit for a in arrivals for unit in a.disk]
    if not ram and not disk:
        return Text()
    template = (
        "{ram_size} are copied from RAM ({ram_parts}) and {disk_size} from disk ({disk_parts})"
    )
    if not disk:
        template = "{ram_size} are copied from RAM ({ram_parts})"
    elif not ram:
        template = "{disk_size} are read from disk ({disk_parts})"
    return Text(
        template,
        ram_size=format_bytes(sum(unit.nbytes for unit in ram)),
        ram_parts=_named(ram, config),
        disk_size=format_bytes(sum(unit.nbytes for unit in disk)),
        disk_parts=_named(disk, config),
    )


def _named(units: list[Unit], config: ModelConfig) -> Text:
    """Return the names of parts, incomplete ones as "3 of 32 language experts"."""
    blocks = {
        Part.VISION: config.vision.num_hidden_layers,
        Part.VISION_EXPERT: config.num_hidden_layers,
        Part.LANGUAGE_EXPERT: config.num_hidden_layers,
    }
    names = []
    for part in reversed(list(by_part(units))):
        count = sum(unit.part is part and unit.block is not None for unit in units)
        whole = count == blocks.get(part, 0)
        names.append(
            _WHOLE[part] if whole else Text(_BLOCKS[part], count=count, total=blocks[part])
        )
    return listed(names)
