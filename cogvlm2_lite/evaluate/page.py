"""Renders a comparison as one HTML page, without network access or scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cogvlm2_lite.charts import by_depth, bytes_by_part, card, document, table
from cogvlm2_lite.evaluate.compare import Comparison
from cogvlm2_lite.evaluate.matrices import MatrixError
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.units import format_bytes


def render(found: Comparison, matrices: Sequence[MatrixError]) -> str:
    """Return the page.

    matrices  every linear matrix of the other folder, in the model's order
    """
    summary = found.summary
    before, after = (weight.parts for weight in found.weights)
    body = f"""\
<p class="soft path">A, the reference: {escape(str(found.reference))}<br>
B: {escape(str(found.other))}</p>
<p>{_sentence(found)}</p>
<section class="cards">
{_card("Mean KL", summary.kl_mean, ".5f", "nats per token; 0 means equal")}
{_card("99th percentile of KL", summary.kl_p99, ".4f", "99 % of the tokens are below")}
{_card("Same top-1", summary.top1, ".2%", "of the tokens")}
{_card("Answers changed", summary.changed, ".1%", "at least one token differs")}
</section>
<p class="soft">In brackets: the interval that contains the number in 95 % of bootstrap resamples
of the pictures. {summary.tokens} tokens of {summary.answers} answers about
{summary.pictures} pictures{_written(found)}.</p>
{_exact(found)}<section>
<h2>Bytes by part</h2>
<figure>{bytes_by_part(before, after, ("A", "B"))}</figure>
{_parts_table(found, matrices)}
</section>
<section>
<h2>Error by depth</h2>
<figure>{by_depth(_layers(matrices), ".2%", "Relative error of each layer")}
<figcaption>Norm of the change divided by the norm of the matrix, over all matrices of a layer.
It does not show how much a matrix affects the answers.</figcaption></figure>
</section>
<h2>Every matrix</h2>
{_matrix_table(matrices)}"""
    title = f"{found.other.name} versus {found.reference.name}"
    return document(title, body)


def _layers(matrices: Sequence[MatrixError]) -> dict[str, dict[int, float]]:
    """Return the error of each layer: the root mean square over its matrices, weighted by size."""
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
        f"B has {format_bytes(after.nbytes)} instead of {format_bytes(before.nbytes)}, "
        f"{after.bits_per_weight:.2f} instead of {before.bits_per_weight:.2f} bits per weight."
    )


def _written(found: Comparison) -> str:
    return f"; A wrote {found.written} of the answers itself" if found.written else ""


def _card(name: str, measured: Measured, form: str, what: str) -> str:
    low, high = format(measured.low, form), format(measured.high, form)
    return card(name, format(measured.value, form), f"[{low}, {high}]\n{what}")


def _exact(found: Comparison) -> str:
    """Return how many given answers are reproduced exactly; "" if A wrote all of them."""
    summary = found.summary
    if summary.answers <= found.written:
        return ""
    return (
        f"<p>Given answers reproduced exactly: A {summary.reference_exact.value:.1%}, "
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
    return table(
        ("part", "matrices of B", "A", "B", "B / A"),
        [
            (part, kinds, format_bytes(a), format_bytes(b), f"{b / a if a else 1:.1%}")
            for part, kinds, a, b in rows
        ],
    )


def _matrix_table(matrices: Sequence[MatrixError]) -> str:
    return table(
        ("matrix", "stored", "bytes", "bits", "error"),
        [
            (
                one.name,
                one.kind,
                format_bytes(one.nbytes),
                f"{8 * one.nbytes / one.weights:.2f}",
                f"{one.error:.3%}",
            )
            for one in matrices
        ],
    )
