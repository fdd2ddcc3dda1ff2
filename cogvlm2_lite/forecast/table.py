"""Returns a memory plan as a sentence, as a table, and as JSON-ready values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase
from cogvlm2_lite.forecast.times import QUESTION_TOKENS, Forecast
from cogvlm2_lite.memory.inventory import Unit, by_part
from cogvlm2_lite.memory.plan import DeviceBudget, DevicePlan, MemoryPlan, PhasePlan
from cogvlm2_lite.text import Text, join, listed
from cogvlm2_lite.units import format_bytes, format_seconds

Row = tuple[str, ...]

UNITS_OF_WORK: Mapping[Phase, str] = {
    Phase.ENCODE: "per picture",
    Phase.PREFILL_IMAGE: "per picture",
    Phase.PREFILL_TEXT: "per question",
    Phase.DECODE: "per token",
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


def draw_table(plan: MemoryPlan, forecast: Forecast | None = None) -> str:
    """Return a plan as tables: per device a column for each phase, with its transfers and time.

    forecast  None leaves out the times and shows only those transfers that are streamed
    """
    tables = [_draw_device(plan, index, forecast) for index in range(len(plan.devices))]
    if forecast is not None:
        tables[-1] += "\n" + "\n".join(_aligned([*_column_of(plan, forecast)], _widths(plan)))
    return "\n\n".join(tables)


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


def _draw_device(plan: MemoryPlan, index: int, forecast: Forecast | None) -> str:
    device = plan.devices[index]
    return "\n".join([
        _title(device.budget, device, plan),
        *_aligned(list(_rows(device, index, forecast)), _widths(plan)),
    ])  # fmt: skip


def _title(budget: DeviceBudget, device: DevicePlan, plan: MemoryPlan) -> str:
    origin = f"\n  {budget.origin}" if budget.origin else ""
    context = f"context {plan.context} tokens"
    if plan.parallel > 1:
        context = f"{plan.parallel} conversations of {plan.context} tokens"
    return (
        f"{budget.device}: {format_bytes(device.peak_bytes)} at the peak, "
        f"{format_bytes(budget.device_bytes)} may be used; {context}{origin}"
    )


def _rows(device: DevicePlan, index: int, forecast: Forecast | None) -> Iterator[Row]:
    phases = device.phases
    yield ("", *(p.phase.value for p in phases))
    yield from _parts("", [p.resident for p in phases])
    yield ("key/value cache", *(_cell(p.cache_bytes) for p in phases))
    yield ("activations", *(_cell(p.scratch_bytes) for p in phases))
    if device.streams:
        yield ("stream buffers", *(_cell(p.buffer_bytes) for p in phases))
    yield ("in memory", *(_cell(p.peak_bytes) for p in phases))
    if forecast is None:
        yield from _parts("streamed: ", [p.streamed for p in phases])
        return
    arrivals = [forecast.arrivals[p.phase][index] for p in phases]
    yield from _parts("from RAM: ", [a.ram for a in arrivals])
    yield from _parts("from disk: ", [a.disk for a in arrivals])


def _parts(prefix: str, columns: list[tuple[Unit, ...]]) -> Iterator[Row]:
    """Yield one row for each part that any column has."""
    sizes = [by_part(units) for units in columns]
    for part in by_part(unit for units in columns for unit in units):
        yield (f"{prefix}{part.value}", *(_cell(column.get(part, 0)) for column in sizes))


def _column_of(plan: MemoryPlan, forecast: Forecast) -> Iterator[Row]:
    phases = [p.phase for p in plan.devices[0].phases]
    yield ("expected", *(about(forecast.seconds[phase]) for phase in phases))
    yield ("", *(UNITS_OF_WORK[phase] for phase in phases))


def _cell(count: int) -> str:
    return format_bytes(count) if count else "-"


def _widths(plan: MemoryPlan) -> list[int]:
    """Return the column widths, which are the same in all tables of a plan."""
    first = len("from disk: language expert")
    return [first, *(max(len(p.phase.value), 12) for p in plan.devices[0].phases)]


def _aligned(rows: list[Row], widths: list[int]) -> list[str]:
    lines = []
    for name, *cells in rows:
        right = "  ".join(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))
        lines.append(f"  {name.ljust(widths[0])}  {right}".rstrip())
    return lines


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
