"""The page about a training run: one HTML file, without network or scripts. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from cogvlm2_lite.charts import by_depth, card, document, table


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A held-out question, the answer in the data, and the model's before and after."""

    question: str
    expected: str
    before: str
    after: str


def exact(answers: Sequence[Answers], *, after: bool) -> int:
    """Return how many answers are those of the data; case and white space do not count."""

    def plain(text: str) -> str:
        return " ".join(text.split()).casefold()

    texts = ((each.after if after else each.before, each.expected) for each in answers)
    return sum(plain(given) == plain(wanted) for given, wanted in texts)


def render(
    title: str,
    facts: Mapping[str, str],
    log: Iterable[Mapping[str, Any]],
    answers: Sequence[Answers],
    reasons: Sequence[tuple[str, int]],
    use: Sequence[str],
) -> str:
    """Return the page.

    facts    what was trained, by name
    log      the lines of log.jsonl
    reasons  why rows were skipped, and how many
    use      commands that use the adapter
    """
    entries = list(log)
    lines = {
        "training loss": {int(e["step"]): float(e["loss"]) for e in entries if "loss" in e},
        "held-out loss": {int(e["step"]): float(e["held_out"]) for e in entries if "held_out" in e},
    }
    lines = {name: values for name, values in lines.items() if values}
    right = f"{exact(answers, after=True)} of {len(answers)}" if answers else "none asked"
    best = min(lines.get("held-out loss", {}).values(), default=None)
    body = f"""\
<section class="cards">
{card("Held-out loss", "none" if best is None else f"{best:.4f}", "per token, the best")}
{card("Held-out answers", right, f"right; {exact(answers, after=False)} before")}
</section>
<section>
<h2>Loss</h2>
<figure>{_curve(lines)}</figure>
</section>
<section>
<h2>Held-out answers</h2>
{_answers(answers)}
</section>
<section>
<h2>Settings</h2>
{table(("setting", "value"), _rows(facts))}
</section>
{_skipped(reasons)}<section>
<h2>Use it</h2>
{"".join(f"<p><code>{escape(command)}</code></p>" for command in use)}
</section>"""
    return document(title, body)


def _rows(facts: Mapping[str, str]) -> list[tuple[str, ...]]:
    return [(escape(name), escape(value)) for name, value in facts.items()]


def _curve(lines: Mapping[str, Mapping[int, float]]) -> str:
    if not lines:
        return "<p>No step is done.</p>"
    return by_depth(lines, ".2f", "Loss of each step", "step")


def _answers(answers: Sequence[Answers]) -> str:
    if not answers:
        return "<p>No answers were held out.</p>"
    rows: list[tuple[str, ...]] = [
        tuple(escape(text) for text in (each.question, each.expected, each.before, each.after))
        for each in answers
    ]
    return table(("question", "in the data", "before", "after"), rows)


def _skipped(reasons: Sequence[tuple[str, int]]) -> str:
    if not reasons:
        return ""
    rows: list[tuple[str, ...]] = [(escape(reason), str(count)) for reason, count in reasons]
    return f"<section>\n<h2>Skipped rows</h2>\n{table(('reason', 'rows'), rows)}\n</section>\n"
