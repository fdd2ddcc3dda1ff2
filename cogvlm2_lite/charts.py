"""SVG charts and the frame of HTML pages, with inline style, without network or scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from cogvlm2_lite.units import format_bytes

_COLOURS = ("c1", "c2", "c3", "c4", "c5")
"""CSS classes of the parts, in the model's order."""

_COLOUR_STYLE = """\
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2024;--soft:#60646c;--line:#d9dce1;
--c1:#2f6fdb;--c2:#b4540a;--c3:#1a7f4b;--c4:#9b3fa8;--c5:#b3263e;--bar:#c3c8d0}
@media(prefers-color-scheme:dark){:root{--paper:#16181b;--ink:#e8eaed;--soft:#a0a6b0;--line:#373b42;
--c1:#7fb0ff;--c2:#f0a35e;--c3:#5fcf95;--c4:#d993e6;--c5:#ff8a9b;--bar:#4a505a}}
"""
_DRAWING_STYLE = """\
svg text{fill:var(--ink);font:13px system-ui,sans-serif}svg .soft{fill:var(--soft)}
.grid{stroke:var(--line)}.before{fill:var(--bar)}.after{fill:var(--c1)}
.whisker{stroke:var(--ink);stroke-width:1.5}
.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}
.dot{fill:var(--c)}.link{stroke:var(--c);fill:none;stroke-width:1.5}
"""
_STYLE = f"""\
{_COLOUR_STYLE}\
@media print{{:root{{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;
--c1:#2f6fdb;--c2:#b4540a;--c3:#1a7f4b;--c4:#9b3fa8;--c5:#b3263e;--bar:#c3c8d0}}main{{max-width:none;padding:0}}
section,svg,tr{{break-inside:avoid}}thead{{display:table-header-group}}}}
body{{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}}
main{{max-width:54rem;margin:auto;padding:2rem 1.25rem}}h1{{font-size:1.6rem;margin:0 0 .5rem}}
h2{{font-size:1.15rem;margin:2.2rem 0 .6rem}}p{{margin:.4rem 0;max-width:42rem}}
.soft,figcaption{{color:var(--soft);font-size:.9rem}}.path{{overflow-wrap:anywhere}}
.cards{{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;margin-top:1rem}}
.card{{border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem}}
.card b{{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}}
table{{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}}
th,td{{padding:.3rem .5rem;border-bottom:1px solid var(--line);text-align:right}}
th:first-child,td:first-child{{text-align:left;overflow-wrap:anywhere}}
figure{{margin:0;overflow-x:auto}}svg{{width:100%;min-width:34rem;height:auto;display:block}}
{_DRAWING_STYLE}"""


def document(title: str, body: str, head: str = "") -> str:
    """Return a complete page; title is plain text, body is HTML, head is more HTML of its head."""
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}</style>
{head}</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


def standalone(drawing: str) -> str:
    """Return a chart of this module as an SVG file of its own, with light and dark colours."""
    head, rest = drawing.split(">", 1)
    style = f"{_COLOUR_STYLE}svg{{background:var(--paper)}}\n{_DRAWING_STYLE}"
    named = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
    return f"{named}><style>\n{style}</style>{rest}\n"


def bars(rows: Sequence[tuple[str, float, float, float]], form: str, what: str) -> str:
    """Return a bar chart with intervals, as SVG.

    rows  name, value, and the ends of its interval, all 0 or more
    form  format of the numbers, such as ".2f"
    what  description for screen readers
    """
    most = max((high for _, _, _, high in rows), default=0.0) or 1.0
    drawn = []
    for number, (name, value, low, high) in enumerate(rows):
        y, left = 8 + 30 * number, 190
        ends = [left + 380 * end / most for end in (value, low, high)]
        drawn.append(
            f'<text x="180" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="after" x="{left}" y="{y + 2}" width="{ends[0] - left:.1f}" height="18" '
            'rx="2"/>'
            f'<line class="whisker" x1="{ends[1]:.1f}" x2="{ends[2]:.1f}" y1="{y + 11}" '
            f'y2="{y + 11}"/>'
            f'<text class="soft" x="{ends[2] + 8:.1f}" y="{y + 16}">{format(value, form)}</text>'
        )
    return (
        f'<svg viewBox="0 0 680 {16 + 30 * len(rows)}" role="img" aria-label="{escape(what)}">'
        f"{''.join(drawn)}</svg>"
    )


def card(name: str, value: str, note: str) -> str:
    """Return a number with its name above and a note below, as HTML; lines of the note are kept."""
    lines = "<br>".join(escape(line) for line in note.splitlines())
    return (
        f'<div class="card">{escape(name)}<b>{escape(value)}</b>'
        f'<span class="soft">{lines}</span></div>'
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return an HTML table of plain texts."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{names}</tr></thead><tbody>\n{body}</tbody></table>"


def bytes_by_part(
    before: Mapping[str, int], after: Mapping[str, int], names: tuple[str, str]
) -> str:
    """Return a chart of the bytes of each part before and after, as SVG.

    names  of the two; one letter or word each
    """
    parts = [part for part in before if before[part] or after[part]]
    most = max(*before.values(), *after.values(), 1)
    rows = []
    for number, part in enumerate(parts):
        y = 28 + 44 * number
        rows.append(f'<text x="130" y="{y + 20}" text-anchor="end">{escape(part)}</text>')
        for style, nbytes, top in (("before", before[part], y), ("after", after[part], y + 16)):
            width = 430 * nbytes / most
            rows.append(
                f'<rect class="{style}" x="140" y="{top}" width="{width:.1f}" height="14" rx="2"/>'
                f'<text class="soft" x="{146 + width:.1f}" y="{top + 12}">'
                f"{format_bytes(nbytes)}</text>"
            )
    height = 36 + 44 * len(parts)
    return (
        f'<svg viewBox="0 0 680 {height}" role="img" aria-label="Bytes of each part">'
        '<rect class="before" x="140" y="4" width="12" height="12" rx="2"/>'
        f'<text x="158" y="15">{names[0]}</text>'
        '<rect class="after" x="250" y="4" width="12" height="12" rx="2"/>'
        f'<text x="268" y="15">{names[1]}</text>{"".join(rows)}</svg>'
    )


def by_depth(
    lines: Mapping[str, Mapping[int, float]], form: str, what: str, axis: str = "layer"
) -> str:
    """Return a line chart of a number over the layers, with a line per part, as SVG.

    lines  part to layer to number, 0 or more
    form   format of the numbers, such as ".0%"
    what   description for screen readers
    axis   what is counted from left to right
    """
    if not lines:
        return "<p>No part has layers.</p>"
    most = max(max(values.values()) for values in lines.values()) or 1.0
    deepest = max(max(values) for values in lines.values())

    def place(block: int, value: float) -> tuple[float, float]:
        return 70 + 590 * block / max(deepest, 1), 270 - 220 * value / most

    drawn = []
    for tick in range(5):
        _, y = place(0, most * tick / 4)
        drawn.append(
            f'<line class="grid" x1="70" x2="660" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="soft" x="62" y="{y + 4:.1f}" text-anchor="end">'
            f"{format(most * tick / 4, form)}</text>"
        )
    for number, (part, values) in enumerate(lines.items()):
        style, x = _COLOURS[number % len(_COLOURS)], 70 + 170 * number
        points = [place(block, value) for block, value in sorted(values.items())]
        links = "".join(
            f'<line class="link" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'
            for (a, b), (c, d) in pairwise(points)
        )
        dots = "".join(f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points)
        drawn.append(
            f'<g class="{style}">{links}{dots}<circle class="dot" cx="{x}" cy="16" r="5"/></g>'
            f'<text x="{x + 12}" y="20">{escape(part)}</text>'
        )
    drawn += [
        f'<text class="soft" x="{place(block, 0)[0]:.1f}" y="290" text-anchor="middle">{block}'
        "</text>"
        for block in sorted({0, deepest // 2, deepest})
    ]
    drawn.append(f'<text class="soft" x="365" y="308" text-anchor="middle">{escape(axis)}</text>')
    return (
        f'<svg viewBox="0 0 680 316" role="img" aria-label="{escape(what)}">{"".join(drawn)}</svg>'
    )


_MOST_POINTS, _MOST_DOTS = 300, 40


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], what: str, axis: str) -> str:
    """Return a line chart of numbers over time, as SVG; long lines are thinned to their means.

    lines  name to points (x, y), both 0 or more, x growing
    what   description for screen readers
    axis   what is counted from left to right
    """
    points = {name: _thinned(each) for name, each in lines.items() if each}
    if not points:
        return "<p>There is nothing to show yet.</p>"
    last = max(each[-1][0] for each in points.values()) or 1.0
    most = max(y for each in points.values() for _, y in each) or 1.0

    def place(x: float, y: float) -> str:
        return f"{60 + 600 * x / last:.1f},{270 - 230 * y / most:.1f}"

    drawn = []
    for tick in range(5):
        y = 270 - 230 * tick / 4
        drawn.append(
            f'<line class="grid" x1="60" x2="660" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="soft" x="52" y="{y + 4:.1f}" text-anchor="end">{most * tick / 4:.3g}'
            "</text>"
        )
    for number, (name, each) in enumerate(points.items()):
        style, x = _COLOURS[number % len(_COLOURS)], 60 + 150 * number
        path = " ".join(place(*point) for point in each)
        dots = ""
        if len(each) <= _MOST_DOTS:
            places = (place(*point).split(",") for point in each)
            dots = "".join(f'<circle class="dot" cx="{a}" cy="{b}" r="3"/>' for a, b in places)
        drawn.append(
            f'<g class="{style}"><polyline class="link" points="{path}"/>{dots}'
            f'<circle class="dot" cx="{x}" cy="16" r="5"/></g>'
            f'<text x="{x + 12}" y="20">{escape(name)}</text>'
        )
    drawn += [
        f'<text class="soft" x="{60 + 600 * tick / last:.1f}" y="290" text-anchor="middle">'
        f"{tick}</text>"
        for tick in sorted({0, int(last / 2), int(last)})
    ]
    drawn.append(f'<text class="soft" x="360" y="308" text-anchor="middle">{escape(axis)}</text>')
    return (
        f'<svg viewBox="0 0 680 316" role="img" aria-label="{escape(what)}">{"".join(drawn)}</svg>'
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return few points: each is the mean of neighbours, at the place of the last of them."""
    size = -(-len(points) // _MOST_POINTS)
    parts = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
