"""The table at the end of a run. Only the standard library is used here."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]
"""The rows of steps by name."""

_TAIL_LINES, _REASON = 6, 90
_MIB = 1 << 20


def render(report: Mapping[str, Any]) -> str:
    """Return the results as text: failures first, then the tables."""
    rows = {row["name"]: row for row in report["steps"]}
    lines: list[str] = []
    if report.get("rehearsal"):
        lines += ["A rehearsal on an emulated GPU: its numbers mean nothing for a real one.", ""]
    for section in _SECTIONS:
        try:
            part = list(section(rows))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            # Results of a step that was ended early, or of another version.
            part = [f"{section.__name__.strip('_')}: results are incomplete ({error!r})"]
        while part and not part[-1]:
            part.pop()
        if part:
            lines += [*part, ""]
    return "\n".join(lines).rstrip()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table; words are left-aligned, numbers right-aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    words = [any(cell[column][:1].isalpha() for cell in cells[1:]) for column in range(len(header))]
    for row in cells:
        parts = [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, words, strict=True)
        ]
        yield ("  " + "  ".join(parts)).rstrip()


def measured_card(rows: Rows, date: str = "") -> str:
    """Return the line for the table of measured cards; "" if its numbers are missing.

    date  of the run; "": today
    """
    values, machine = _values(rows, "resident"), _values(rows, "environment")
    laps = (values.get("answer") or {}).get("laps") or {}
    card, packages = machine.get("card") or {}, machine.get("packages") or {}
    if not {"encode", "prefill"} <= set(laps) or "name" not in card:
        return ""
    return (
        f"MeasuredCard(name={re.escape(card['name'])!r}, maker={card.get('maker', '')!r}, "
        f"architecture={card.get('architecture', '')!r}, "
        f"date={date or time.strftime('%Y-%m-%d')!r}, torch={packages.get('torch', '')!r}, "
        f"total_bytes={card['total_bytes']}, encode_s={laps['encode']['seconds']:.3g}, "
        f"prefill_s={laps['prefill']['seconds']:.3g}, "
        f"decode_tokens_per_s={values['decode_tokens_per_s']:.3g}),"
    )


# --- sections -------------------------------------------------------------------------------------


def _failures(rows: Rows) -> Iterator[str]:
    """Yield the last lines of the output of the steps that failed."""
    for row in rows.values():
        if row["status"] in ("failed", "wrong"):
            yield f"{row['name']}: {row['reason']}"
            yield from (f"    {line}" for line in row["tail"][-_TAIL_LINES:])


def _machine(rows: Rows) -> Iterator[str]:
    values = _values(rows, "environment")
    if not values:
        return
    card, packages = values.get("card") or {}, values.get("packages") or {}
    machine, kernels = values.get("machine") or {}, values.get("kernels") or {}
    yield f"Card       {card.get('name', '?')}, compute capability {card.get('capability', '?')}"
    yield f"Driver     {values.get('nvidia_smi') or '?'}"
    yield f"Computer   {machine.get('processor', '?')}, Python {machine.get('python', '?')}"
    yield f"Packages   torch {packages.get('torch')}, bitsandbytes {packages.get('bitsandbytes')}"
    yield f"Kernels    {kernels.get('name', '?')}: {kernels.get('reason', '')}"
    for name, found in (values.get("attention") or {}).items():
        if "chosen" in found:
            yield f"Attention  {name} ({found['shape']}): {found['chosen']}"


def _steps(rows: Rows) -> Iterator[str]:
    yield "Steps"
    yield from table(
        ("step", "result", "s", "reason"),
        [
            (r["name"], r["status"], f"{r['seconds']:.1f}", r["reason"][:_REASON])
            for r in rows.values()
        ],
    )


def _correctness(rows: Rows) -> Iterator[str]:
    found: list[tuple[str, str]] = []
    tests = _values(rows, "tests")
    if "passed" in tests:
        failed = len(tests["failed"])
        found.append(("tests", f"{tests['passed']} passed, {failed} failed"))
    for step in ("gemm", "own"):
        for name, counts in (_values(rows, step).get("equal_rows") or {}).items():
            other = [m for m, same in counts.items() if not same]
            result = f"differ for {', '.join(other)}" if other else "as alone"
            found.append((f"{step}: {name}, rows at once", result))
    for name, answers in (_values(rows, "demo").get("answers") or {}).items():
        same = f"{answers['same']} of {answers['of']} as on the CPU"
        found.append((f"demo model, {name}", same))
    parallel = _values(rows, "parallel").get("same")
    if parallel is not None:
        found.append(("three answers at once", "as alone" if all(parallel) else "DIFFERENT"))
    for tool, result in (_values(rows, "sanitizer").get("tools") or {}).items():
        if not isinstance(result, str):
            result = result.get("result") or f"exit code {result['exit']}"
        found.append((tool, result))
    if found:
        yield "Correctness"
        yield from table(("what", "result"), found)


def _equality(rows: Rows) -> Iterator[str]:
    """Yield whether the bits of each cap are those of the resident model."""
    resident = _values(rows, "resident")
    if not resident.get("bits"):
        return
    found = []
    for name in [*_caps(rows), "settings"]:
        values = _values(rows, name)
        if values.get("bits"):
            found.append((name, *_compared(values, resident)))
    if found:
        yield "The same bits as with all memory of the card"
        yield from table(("step", "picture", "long text", "context", "encode", "decode"), found)
        yield "  encode and decode: another program took memory in that phase"


def _compared(values: Mapping[str, Any], resident: Mapping[str, Any]) -> Iterator[str]:
    yield _same(values["bits"], resident["bits"])
    long, other = values.get("long_answers") or {}, resident.get("long_answers") or {}
    for kind in ("text", "context"):
        yield _same((long.get(kind) or {}).get("bits"), (other.get(kind) or {}).get("bits"))
    for phase in ("encode", "decode"):
        found = (values.get("recovery") or {}).get(phase) or {}
        yield _same(found.get("bits"), resident["bits"])


def _same(ours: Any, theirs: Any) -> str:
    if not ours or not theirs:
        return "-"
    return "equal" if ours == theirs else "DIFFERENT"


def _memory(rows: Rows) -> Iterator[str]:
    found = []
    for name in ("resident", *_caps(rows)):
        values = _values(rows, name)
        budget = ((values.get("plan") or {}).get("budget_bytes"),)
        for phase, peak in (values.get("peaks") or {}).items():
            planned = (values.get("planned") or {}).get(phase)
            sizes = (planned, peak["allocated_bytes"], peak["reserved_bytes"])
            device = peak.get("device_bytes")
            found.append((name, phase, *(_mib(size) for size in (*budget, *sizes, device))))
    if found:
        yield "Memory, MiB: planned and measured peaks of an answer with a new picture"
        header = ("step", "phase", "budget", "planned", "allocated", "reserved", "of the card")
        yield from table(header, found)


def _speeds(rows: Rows) -> Iterator[str]:
    found = []
    for name in ("resident", *_caps(rows), "settings", "own", "int8_cache"):
        values = _values(rows, name)
        if "decode_tokens_per_s" not in values:
            continue
        laps = (values.get("answer") or {}).get("laps") or {}
        streamed = ((values.get("plan") or {}).get("phases") or {}).get("DECODE") or {}
        found.append(
            (
                name,
                *(f"{laps[p]['seconds']:.2f}" if p in laps else "-" for p in ("encode", "prefill")),
                f"{values['decode_tokens_per_s']:.1f}",
                _mib(streamed.get("streamed_bytes")),
            )
        )
    if found:
        yield "Speed with a new picture"
        header = ("step", "encode s", "prefill s", "tokens/s", "streamed MiB a token")
        yield from table(header, found)
    resident = _values(rows, "resident")
    if "eager_tokens_per_s" in resident:
        gb = resident["decode_bytes_per_s"] / 1e9
        yield f"  decode reads {gb:.0f} GB/s; {resident['eager_tokens_per_s']:.1f} tokens/s eager"
    for name, step in (resident.get("steps") or {}).items():
        yield f"  {name}: host {step['host_ms']:.2f} ms, step {step['step_ms']:.2f} ms"
    together = _values(rows, "parallel")
    if "together_tokens_per_s" in together:
        alone, both = together["alone_tokens_per_s"], together["together_tokens_per_s"]
        yield f"  {together['slots']} answers at once: {both:.1f} tokens/s, one {alone:.1f}"


def _recovery(rows: Rows) -> Iterator[str]:
    found = []
    for name in _caps(rows):
        recovery = _values(rows, name).get("recovery") or {}
        if "error" in recovery:
            found.append((name, "-", "-", "-", recovery["error"][:_REASON]))
            continue
        for phase, result in recovery.items():
            same = "same answer" if result["same"] else "ANOTHER ANSWER"
            found.append((name, phase, _mib(result["taken_bytes"]), result["replans"], same))
    if found:
        yield "Another program took memory during an answer"
        yield from table(("step", "phase", "MiB", "new plans", "result"), found)


def _products(rows: Rows, step: str) -> Iterator[str]:
    values = _values(rows, step)
    products = values.get("products") or {}
    if products:
        counts = [key for key in next(iter(products.values())) if key.startswith("M=")]
        yield f"4-bit products, GB/s of the matrix, kernels {values['kernels']!r}"
        yield from table(
            ("matrix", *counts),
            [
                (name, *(f"{found[m]['gb_per_s']:.0f}" if m in found else "-" for m in counts))
                for name, found in products.items()
            ],
        )
        for name in ("lm_head", "int8"):
            found = values.get(name) or {}
            if "gb_per_s" in found:
                yield f"  {name}: {found['us']:.0f} us, {found['gb_per_s']:.0f} GB/s"
        differences = [d for each in values["differences"].values() for d in each.values()]
        yield f"  largest difference from the reference: {max(differences, default=0):.4f}"


def _own(rows: Rows) -> Iterator[str]:
    values = _values(rows, "own")
    if values:
        yield f"Our own CUDA kernels: {values['reason'][:_REASON]}"
        yield from _products(rows, "own")
    found = values.get("profile") or {}
    if "kernels" in found:
        yield f"  decode: {found['kernels']:.0f} kernels, {found['gpu_us']:.0f} us a step"


def _micro(rows: Rows) -> Iterator[str]:
    yield from _products(rows, "gemm")
    yield ""
    attention = _values(rows, "attention").get("decode") or {}
    if attention:
        ways = list(next(iter(attention.values())))
        yield "Attention of a decode step, us per layer"
        yield from table(
            ("way", *(f"{keys} keys" for keys in attention)),
            [(way, *(_us(found.get(way)) for found in attention.values())) for way in ways],
        )
        yield ""
    transfers = _values(rows, "transfers")
    for title, key, unit in (
        ("Products of large matrices, TFLOP/s", "heights", "tflop_per_s"),
        ("Copies, GB/s", "uploads", "gb_per_s"),
    ):
        found = transfers.get(key) or {}
        if found and "error" not in found:
            yield title
            yield from table(("what", "rate"), [(n, f"{v[unit]:.1f}") for n, v in found.items()])
            yield ""
    for name, found in (transfers.get("launches") or {}).items():
        if isinstance(found, dict):
            yield (
                f"A tiny kernel ({name}): {found['graph']['us']:.2f} us in a graph, "
                f"{found['eager_us']:.2f} us launched, host {found['host_us']:.2f} us"
            )


def _kernels(rows: Rows) -> Iterator[str]:
    profile = _values(rows, "profile")
    for name, part in (("decode", "step"), ("encode", "layer"), ("prefill", "layer")):
        found = profile.get(name) or {}
        if "kernels" in found:
            yield f"{name}: {found['kernels']:.0f} kernels, {found['gpu_us']:.0f} us a {part}"
            for row in found["top"][:5]:
                us, calls = row["us"] / found["parts"], row["calls"] / found["parts"]
                yield f"  {us:9.1f} us {calls:7.1f} calls  {row['kernel'][:70]}"
    questions = _values(rows, "questions")
    if "capture_ms" in questions:
        growth = questions["growth_bytes"]["reserved_bytes"]
        yield (
            f"{len(questions['rows'])} questions: {questions['captures']} CUDA graphs captured, "
            f"{questions['capture_ms']:.0f} ms each; reserved memory grew by {_mib(growth)} MiB "
            "in the second half"
        )
    calibration = _values(rows, "calibration")
    for block in calibration.get("blocks") or []:
        yield f"calibration, {block['block']}: {block['look_s']} s + {block['round_s']} s"


def _card(rows: Rows) -> Iterator[str]:
    line = measured_card(rows)
    if line:
        yield "For the table in cogvlm2_lite/backends/measured.py:"
        yield f"    {line}"


_SECTIONS = (
    _failures, _machine, _micro, _own, _kernels, _memory, _recovery, _speeds, _equality,
    _correctness, _card, _steps,
)  # fmt: skip


# --- small parts ----------------------------------------------------------------------------------


def _values(rows: Rows, name: str) -> Mapping[str, Any]:
    row = rows.get(name)
    return {} if row is None else row["values"]


def _caps(rows: Rows) -> list[str]:
    """Return the steps with a cap, the largest first."""
    return sorted((n for n in rows if n.startswith("cap")), key=lambda n: -int(n[3:]))


def _mib(nbytes: Any) -> str:
    return "-" if nbytes is None else f"{nbytes / _MIB:.0f}"


def _us(found: Any) -> str:
    return f"{found['us']:.1f}" if found and "us" in found else "-"
