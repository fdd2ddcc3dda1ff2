"""Returns the result of a benchmark as text and as JSON-ready values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.bench.measure import BenchResult, PhaseResult
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.units import format_bytes, format_seconds

_HEAD = ("", "time", "tokens/s", "TFLOP/s", "of matmul", "GB/s", "of reading")
_MEMORY_HEAD = ("peak memory", "planned", "accounted", "measured")


def as_dict(result: BenchResult) -> dict[str, Any]:
    """Return a result as JSON-ready values: the measurements, and the rates derived from them."""
    values = asdict(result)
    values["extrapolated"] = result.is_extrapolated
    for phase, entry in zip(result.phases, values["phases"], strict=True):
        entry["tokens_per_s"] = phase.tokens_per_s
        entry["flops_per_s"] = phase.flops_per_s
        entry["bytes_per_s"] = phase.bytes_per_s
        entry["share_of_matmul"] = phase.flops_per_s / result.limits.flops_per_s
        entry["share_of_reading"] = phase.bytes_per_s / result.limits.read_bytes_per_s
    if result.adapter is not None:
        values["adapter"]["share_of_token"] = result.adapter.share_of_token
        for phase, entry in zip(result.adapter.base, values["adapter"]["base"], strict=True):
            entry["tokens_per_s"] = phase.tokens_per_s
    return values


def as_text(result: BenchResult) -> str:
    """Return a result as tables."""
    speed = _aligned([_HEAD, *(_speed(result, phase) for phase in result.phases)])
    memory = _aligned([_MEMORY_HEAD, *(_memory(phase) for phase in result.phases)])
    return "\n".join([*_title(result), "", *speed, "", *memory, "", *_remarks(result)])


def _title(result: BenchResult) -> Iterator[str]:
    yield f"{result.what} on {result.device}, {result.dtype}, kernels: {result.kernels}"
    limits = result.limits
    in_ram = backend_of(result.device).uses_ram
    what = "reads" if in_ram else "copies"
    threads = f" with {result.threads} threads" if in_ram else ""
    yield (
        f"best rates of this device{threads}: {what} {limits.read_bytes_per_s / 1e9:.1f} GB/s, "
        f"multiplies at {limits.flops_per_s / 1e12:.3g} TFLOP/s"
    )


def _speed(result: BenchResult, phase: PhaseResult) -> tuple[str, ...]:
    limits = result.limits
    return (
        phase.name,
        format_seconds(phase.full_seconds),
        f"{phase.tokens_per_s:.3g}",
        f"{phase.flops_per_s / 1e12:.3g}",
        f"{phase.flops_per_s / limits.flops_per_s:.0%}",
        f"{phase.bytes_per_s / 1e9:.3g}",
        f"{phase.bytes_per_s / limits.read_bytes_per_s:.0%}",
    )


def _memory(phase: PhaseResult) -> tuple[str, ...]:
    sizes = (phase.planned_bytes, phase.accounted_bytes, phase.measured_bytes)
    return (phase.name, *(format_bytes(size) for size in sizes))


def _remarks(result: BenchResult) -> Iterator[str]:
    decode = result.phases[-1]
    yield (
        f"{decode.tokens} decode steps; loading what decoding needs took "
        f"{format_seconds(result.load_s)} before the first question"
    )
    if result.adapter is not None:
        cost, base = result.adapter, result.adapter.base[-1]
        yield (
            f"adapter {escape_line(cost.name)}: {format_bytes(cost.held_bytes)} in memory, "
            f"{format_bytes(cost.token_bytes)} more to read for each token "
            f"({cost.share_of_token:.1%}); without it {base.tokens_per_s:.3g} tokens/s"
        )
    if result.steps:
        yield f"decode steps are {result.steps}"
    if result.is_extrapolated:
        (vision, decoder), (all_vision, all_decoder) = result.layers, result.full_layers
        yield (
            f"measured with {vision} of {all_vision} vision and {decoder} of {all_decoder} decoder "
            "layers; time and tokens/s are extrapolated to all of them, memory is not"
        )
    if result.rounds == 1:
        yield "one round only: encode and prefill include loading their weights"
    if result.streamed_bytes:
        yield f"streamed in total: {format_bytes(result.streamed_bytes)}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
