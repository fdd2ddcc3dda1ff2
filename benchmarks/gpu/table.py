"""The table at the end of a run. Only the standard library is used here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]
"""The rows of steps by name."""

_TAIL_LINES = 6


def render(report: Mapping[str, Any]) -> str:
    """Return the results as text: failures first, then the tables."""
    rows = {row["name"]: row for row in report["steps"]}
    parts = [list(section(rows)) for section in (_failures, _machine, _steps)]
    lines = [line for part in parts if part for line in (*part, "")]
    if report.get("rehearsal"):
        lines.insert(0, "A rehearsal on an emulated GPU: no number here says anything of a GPU.\n")
    return "\n".join(lines).rstrip()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table; the first column is text, the others are right-aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        first, *others = (
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()


def _failures(rows: Rows) -> Iterator[str]:
    """Yield the last lines of the output of the steps that failed."""
    for row in rows.values():
        if row["status"] in ("failed", "wrong"):
            yield f"{row['name']}: {row['reason']}"
            yield from (f"    {line}" for line in row["tail"][-_TAIL_LINES:])


def _machine(rows: Rows) -> Iterator[str]:
    values = _values(rows, "environment")
    card, packages = values.get("card") or {}, values.get("packages") or {}
    if not values:
        return
    machine = values.get("machine") or {}
    yield f"Card       {card.get('name', '?')}, compute capability {card.get('capability', '?')}"
    yield f"Driver     {values.get('nvidia_smi') or '?'}"
    yield f"Computer   {machine.get('processor', '?')}, Python {machine.get('python', '?')}"
    yield f"Packages   torch {packages.get('torch')}, bitsandbytes {packages.get('bitsandbytes')}"
    kernels = values.get("kernels") or {}
    yield f"Kernels    {kernels.get('name', '?')} {kernels.get('reason', '')}"


def _steps(rows: Rows) -> Iterator[str]:
    yield "Steps"
    yield from table(
        ("step", "result", "s", "reason"),
        [(r["name"], r["status"], f"{r['seconds']:.1f}", r["reason"]) for r in rows.values()],
    )


def _values(rows: Rows, name: str) -> Mapping[str, Any]:
    row = rows.get(name)
    return {} if row is None else row["values"]
