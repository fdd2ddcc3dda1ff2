"""A comparison as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from cogvlm2_lite.evaluate.compare import Comparison
from cogvlm2_lite.evaluate.matrices import MatrixError
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.units import format_bytes

_COLOURS = ("c1", "c2", "c3", "c4", "c5")
"""Styles of the parts, in the model's order."""

_STYLE = """\
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2024;--soft:#60646c;--line:#d9dce1;
--c1:#2f6fdb;--c2:#b4540a;--c3:#1a7f4b;--c4:#9b3fa8;--c5:#b3263e;--bar:#c3c8d0}
@media(prefers-color-scheme:dark){:root{--paper:#16181b;--ink:#e8eaed;--soft:#a0a6b0;--line:#373b42;
--c1:#7fb0ff;--c2:#f0a35e;--c3:#5fcf95;--c4:#d993e6;--c5:#ff8a9b;--bar:#4a505a}}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--c1:#2f6fdb;
--c2:#b4540a;--c3:#1a7f4b;--c4:#9b3fa8;--c5:#b3263e;--bar:#c3c8d0}main{max-width:none;padding:0}
section,svg,tr{break-inside:avoid}thead{display:table-header-group}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:54rem;margin:auto;padding:2rem 1.25rem}h1{font-size:1.6rem;margin:0 0 .5rem}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}p{margin:.4rem 0;max-width:42rem}
.soft,figcaption{color:var(--soft);font-size:.9rem}.path{overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;margin-top:1rem}
.card{border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem}
.card b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .5rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere}
figure{margin:0;overflow-x:auto}svg{width:100%;min-width:34rem;height:auto;display:block}
svg text{fill:var(--ink);font:13px system-ui,sans-serif}svg .soft{fill:var(--soft)}
.grid{stroke:var(--line)}.before{fill:var(--bar)}.after{fill:var(--c1)}
.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}
.dot{fill:var(--c)}.link{stroke:var(--c);fill:none;stroke-width:1.5}
"""


def render(found: Comparison, matrices: Sequence[MatrixError]) -> str:
    """Give the page.

    matrices  every linear matrix of the other folder, in the model's order
    """
    summary = found.summary
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(found.other.name)} against {escape(found.reference.name)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(found.other.name)} against {escape(found.reference.name)}</h1>
<p class="soft path">A, the reference: {escape(str(found.reference))}<br>
B: {escape(str(found.other))}</p>
<p>{_sentence(found)}</p>
<section class="cards">
{_card("Mean KL", summary.kl_mean, ".5f", "nats per word; 0 is equal")}
{_card("99th percentile of KL", summary.kl_p99, ".4f", "the worst word in a hundred")}
{_card("Same first choice", summary.top1, ".2%", "of the words")}
{_card("Answers changed", summary.changed, ".1%", "another choice somewhere")}
</section>
<p class="soft">In brackets: 95 of 100 resamples of the pictures. {summary.tokens} words (tokens) of
{summary.answers} answers about {summary.pictures} pictures{_written(found)}.</p>
{_exact(found)}<section>
<h2>Bytes by part</h2>
<figure>{bytes_by_part(found)}</figure>
{_parts_table(found, matrices)}
</section>
<section>
<h2>Error by depth</h2>
<figure>{error_by_depth(matrices)}
<figcaption>Norm of the change over norm of the matrix, all matrices of a layer together. It does
not tell how much a matrix matters for the answers.</figcaption></figure>
</section>
<h2>Every matrix</h2>
{_matrix_table(matrices)}
</main>
</body>
</html>
"""


def bytes_by_part(found: Comparison) -> str:
    """Draw what each part weighs in A and in B, as SVG."""
    before, after = (weight.parts for weight in found.weights)
    parts = [part for part in before if before[part] or after[part]]
    most = max(max(before.values()), max(after.values()), 1)
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
        f'<svg viewBox="0 0 680 {height}" role="img" aria-label="Bytes of each part in A and B">'
        '<rect class="before" x="140" y="4" width="12" height="12" rx="2"/><text x="158" y="15">A'
        '</text><rect class="after" x="190" y="4" width="12" height="12" rx="2"/>'
        f'<text x="208" y="15">B</text>{"".join(rows)}</svg>'
    )


def error_by_depth(matrices: Sequence[MatrixError]) -> str:
    """Draw the relative error of each layer, a line for each part, as SVG."""
    layers = _layers(matrices)
    if not layers:
        return "<p>No part has layers.</p>"
    most = max(max(errors.values()) for errors in layers.values()) or 1.0
    deepest = max(max(errors) for errors in layers.values())

    def place(block: int, error: float) -> tuple[float, float]:
        return 70 + 590 * block / max(deepest, 1), 270 - 220 * error / most

    drawn = []
    for tick in range(5):
        _, y = place(0, most * tick / 4)
        drawn.append(
            f'<line class="grid" x1="70" x2="660" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="soft" x="62" y="{y + 4:.1f}" text-anchor="end">'
            f"{most * tick / 4:.2%}</text>"
        )
    for number, (part, errors) in enumerate(layers.items()):
        style, x = _COLOURS[number % len(_COLOURS)], 70 + 170 * number
        points = [place(block, error) for block, error in sorted(errors.items())]
        lines = "".join(
            f'<line class="link" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'
            for (a, b), (c, d) in pairwise(points)
        )
        dots = "".join(f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points)
        drawn.append(
            f'<g class="{style}">{lines}{dots}<circle class="dot" cx="{x}" cy="16" r="5"/></g>'
            f'<text x="{x + 12}" y="20">{escape(part)}</text>'
        )
    drawn += [
        f'<text class="soft" x="{place(block, 0)[0]:.1f}" y="290" text-anchor="middle">{block}'
        "</text>"
        for block in sorted({0, deepest // 2, deepest})
    ]
    drawn.append('<text class="soft" x="365" y="308" text-anchor="middle">layer</text>')
    return (
        '<svg viewBox="0 0 680 316" role="img" aria-label="Relative error of each layer">'
        f"{''.join(drawn)}</svg>"
    )


def _layers(matrices: Sequence[MatrixError]) -> dict[str, dict[int, float]]:
    """Join the errors of a layer's matrices: root of the mean square, weighted by their sizes."""
    sums: dict[str, dict[int, tuple[float, int]]] = {}
    for one in matrices:
        if one.block is not None:
            square, weights = sums.setdefault(one.part, {}).get(one.block, (0.0, 0))
            square += one.error**2 * one.weights
            sums[one.part][one.block] = (square, weights + one.weights)
    return {
        part: {block: (square / weights) ** 0.5 for block, (square, weights) in blocks.items()}
        for part, blocks in sums.items()
    }


def _sentence(found: Comparison) -> str:
    before, after = found.weights
    return (
        f"B takes {format_bytes(after.nbytes)} instead of {format_bytes(before.nbytes)}, "
        f"{after.bits_per_weight:.2f} instead of {before.bits_per_weight:.2f} bits per weight."
    )


def _written(found: Comparison) -> str:
    return f"; A wrote {found.written} of them itself" if found.written else ""


def _card(name: str, measured: Measured, form: str, what: str) -> str:
    low, high = format(measured.low, form), format(measured.high, form)
    return (
        f'<div class="card">{name}<b>{format(measured.value, form)}</b>'
        f'<span class="soft">[{low}, {high}]<br>{what}</span></div>'
    )


def _exact(found: Comparison) -> str:
    """Say how often the given answers come word for word; nothing when A wrote them all."""
    summary = found.summary
    if summary.answers <= found.written:
        return ""
    return (
        f"<p>Answers given word for word: A {summary.reference_exact.value:.1%}, "
        f"B {summary.other_exact.value:.1%} "
        f"[{summary.other_exact.low:.1%}, {summary.other_exact.high:.1%}].</p>\n"
    )


def _parts_table(found: Comparison, matrices: Sequence[MatrixError]) -> str:
    before, after = (weight.parts for weight in found.weights)
    rows = []
    for part in before:
        kinds = dict.fromkeys(one.kind for one in matrices if one.part == part)
        rows.append((part, ", ".join(kinds) or "dense", before[part], after[part]))
    rows.append(("whole model", "", found.weights[0].nbytes, found.weights[1].nbytes))
    body = "".join(
        f"<tr><td>{escape(part)}</td><td>{kinds}</td><td>{format_bytes(a)}</td>"
        f"<td>{format_bytes(b)}</td><td>{b / a if a else 1:.1%}</td></tr>\n"
        for part, kinds, a, b in rows
    )
    head = "<th>part</th><th>matrices of B</th><th>A</th><th>B</th><th>B of A</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _matrix_table(matrices: Sequence[MatrixError]) -> str:
    body = "".join(
        f"<tr><td>{escape(one.name)}</td><td>{one.kind}</td><td>{format_bytes(one.nbytes)}</td>"
        f"<td>{8 * one.nbytes / one.weights:.2f}</td><td>{one.error:.3%}</td></tr>\n"
        for one in matrices
    )
    head = "<th>matrix</th><th>stored</th><th>bytes</th><th>bits</th><th>error</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
