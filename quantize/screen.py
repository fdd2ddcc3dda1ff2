"""Show the events of a conversion or a check: as text, or as lines of JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.streams import put
from cogvlm2_lite.units import format_bytes, format_seconds
from quantize.events import (
    TOKEN_WEIGHTS,
    Calibrated,
    CalibrationProgress,
    Damaged,
    Evaluated,
    Event,
    Failed,
    Finished,
    Measuring,
    MergeChecked,
    MergeChecking,
    Planned,
    Progress,
    Verified,
)


class JsonLines:
    """Writes every event immediately, as one line of JSON on standard output."""

    def __call__(self, event: Event) -> None:
        put(sys.stdout, event.to_json() + "\n")


class Screen:
    """Writes events as text: results to standard output, progress and errors to standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()

    def __call__(self, event: Event) -> None:
        match event:
            case Progress():
                self._console.progress(describe_progress(event), event.share)
            case CalibrationProgress():
                self._console.progress(describe_calibration(event), event.done / event.total)
            case Measuring():
                self._console.progress(describe_measuring(event), event.done / event.total)
            case MergeChecking():
                self._console.progress(describe_checking(event), event.done / event.total)
            case Failed():
                self._console.error(event.message, event.hint)
            case _:
                for line in describe(event):
                    self._console.line(line)


def describe_progress(event: Progress) -> str:
    """Return the line about the progress of reading, rounding and writing."""
    return (
        f"{event.share:6.1%}   {format_bytes(event.done_bytes)} of "
        f"{format_bytes(event.total_bytes)}   {format_bytes(round(event.bytes_per_s))}/s   "
        f"{format_seconds(event.seconds_left)} left"
    )


def describe_calibration(event: CalibrationProgress) -> str:
    """Return the line about the progress of the calibration."""
    if event.block == TOKEN_WEIGHTS:
        return (
            f"weighted the tokens of {event.done} of {event.total} pictures   "
            f"{format_seconds(event.seconds_left)} left"
        )
    return (
        f"calibrated {event.done} of {event.total} steps   error {event.error_ratio:.2f} of "
        f"round to nearest   {format_seconds(event.seconds_left)} left"
    )


def describe_measuring(event: Measuring) -> str:
    """Return the line about the progress of the evaluation on held-out samples."""
    return (
        f"evaluated {event.done} of {event.total} blocks on held-out samples   "
        f"{format_seconds(event.seconds_left)} left"
    )


def describe_checking(event: MergeChecking) -> str:
    """Return the line about the progress of the comparison with the adapter."""
    return (
        f"compared {event.done} of {event.total} with the adapter   "
        f"{format_seconds(event.seconds_left)} left"
    )


_WORDS = {"dense": "as in SRC", "nf4": "NF4"}


def describe(event: Event) -> Sequence[str]:
    """Return an event as lines of text; none for progress, which is one line that changes."""
    if isinstance(event, Planned):
        return _describe_plan(event)
    if isinstance(event, Finished):
        return _describe_finished(event)
    if isinstance(event, Calibrated):
        return [f"{event.tensor}: round to nearest is kept ({event.reason})."] * bool(event.reason)
    if isinstance(event, Evaluated):
        return _describe_evaluation(event)
    if isinstance(event, MergeChecked):
        return _describe_check(event)
    if isinstance(event, Damaged):
        where = f"{event.file}: {event.tensor}" if event.tensor else event.file
        return [f"DAMAGED  {where}: {event.problem}"]
    if isinstance(event, Verified):
        return _describe_verified(event)
    return []


def _describe_plan(plan: Planned) -> list[str]:
    rows = [
        (
            row.part,
            format_bytes(row.source_bytes),
            format_bytes(row.result_bytes),
            ", ".join(f"{n} {_WORDS.get(kind, kind)}" for kind, n in row.kinds.items()) or "-",
            f"{row.bits_per_weight:.2f}",
        )
        for row in plan.parts
    ]
    table = [("part", "before", "after", "matrices", "bits/weight"), *rows]
    lines = [f"{a:<16} {b:>10} {c:>10}   {d:<22} {e:>11}" for a, b, c, d, e in table]
    total = f"{format_bytes(plan.source_bytes):>10} {format_bytes(plan.result_bytes):>10}"
    lines += [f"{'total':<16} {total}", ""]
    lines += _describe_kept(plan)
    lines += [f"Note: {note}" for note in plan.notes]
    ready = f" Already done: {format_bytes(plan.ready_bytes)}." if plan.ready_bytes else ""
    free = f"{format_bytes(plan.free_bytes)} free on its disk."
    return [*lines, f"Result: {plan.destination}. {free}{ready}"]


def _describe_kept(plan: Planned) -> list[str]:
    """Return a line per reason about the matrices that are not stored in NF4."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for row in plan.kept:
        by_reason.setdefault((row.reason, row.kind), []).append(row.tensor)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: "
        f"{_WORDS.get(kind, kind)} ({reason})."
        for (reason, kind), names in by_reason.items()
    ]


def _describe_evaluation(event: Evaluated) -> list[str]:
    """Return the short table of the whole model's difference from the source."""
    lines = [
        "",
        f"Compared with SRC, on {event.words} answer tokens of {event.samples} held-out samples:",
        f"{'':<12} {'mean KL':>10} {'KL 99 %':>9} {'top-1':>10} {'answers changed':>16}",
    ]
    forms = {"plain NF4": event.plain, "calibrated": event.calibrated}
    if event.upgraded or event.dropped:
        forms["result"] = event.result
    for name, found in forms.items():
        kl, worst = found["kl_mean"]["value"], found["kl_p99"]["value"]
        same, changed = found["top1"]["value"], found["changed"]["value"]
        lines.append(f"{name:<12} {kl:>10.5f} {worst:>9.4f} {same:>10.2%} {changed:>16.1%}")
    if event.of_plain is not None:
        low, high = event.of_plain["low"], event.of_plain["high"]
        lines.append(
            f"The result has {event.of_plain['value']:.2f} times the KL of plain NF4 "
            f"({low:.2f} to {high:.2f} in 95 % of resamples of the pictures)."
        )
    return [*lines, *([event.remarks] if event.remarks else []), ""]


def _describe_check(event: MergeChecked) -> list[str]:
    """Return the comparison with the adapter, and which base is the better one."""
    lines = [
        f"Loss of {event.answers} answers of {event.data}: {event.merged_loss:.4f} merged, "
        f"{event.adapter_loss:.4f} with --adapter.",
        f"At {event.same_first:.1%} of their {event.tokens} tokens, both have the same first "
        f"choice; mean KL {event.kl:.5f}.",
        f"Right answers of {event.asked}: {event.merged_right} merged, "
        f"{event.adapter_right} with --adapter.",
    ]
    if event.all_rows_loss is not None:
        lines.append(
            f"The adapter was trained behind the picture; on all tokens, as it is merged, its loss "
            f"is {event.all_rows_loss:.4f}."
        )
    if event.original_loss is not None:
        better = event.original if event.original_loss < event.merged_loss else "MODEL"
        lines.append(
            f"Merged into {event.original}, the loss is {event.original_loss:.4f}: merge into "
            f"{better}."
        )
    return lines


def _describe_finished(event: Finished) -> list[str]:
    if event.already:
        return [f"{event.folder} is already finished, from the same source with the same settings."]
    return [
        f"Finished in {format_seconds(event.seconds)}: {event.folder}, "
        f"{format_bytes(event.result_bytes)}.",
        f'To check every byte: cogvlm2-lite verify "{event.folder}"',
    ]


def _describe_verified(event: Verified) -> list[str]:
    if not event.ok:
        problems = "problem" if event.damaged == 1 else "problems"
        return [f"{event.folder} is damaged: {event.damaged} {problems} found."]
    if not event.has_manifest:
        return [
            f"{event.folder} has no manifest, so its bytes could not be compared. Names, shapes "
            "and sizes are correct, and no part of the weights is empty."
        ]
    return [
        f"{event.folder} is intact: {format_bytes(event.checked_bytes)} checked in "
        f"{format_seconds(event.seconds)}."
    ]
