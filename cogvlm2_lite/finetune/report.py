"""The page about a training run: one HTML file, without network or scripts. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from cogvlm2_lite.charts import card, curves, document, standalone, table
from cogvlm2_lite.evaluate.rules.texts import is_exact
from cogvlm2_lite.units import format_bytes, format_seconds


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A held-out question, the answer in the data, and the model's before and after.

    before, after  "" if the question was not asked yet
    ended, tokens  before and after: whether the answer ended by itself, and its length
    """

    question: str
    expected: str
    before: str = ""
    after: str = ""
    picture: str = ""
    ended: tuple[bool, bool] = (True, True)
    tokens: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run has done so far: the lines of its files, and how many steps it has.

    log      of log.jsonl
    samples  of samples.jsonl
    best     step of the adapter in the folder; 0: none has been measured
    """

    log: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    steps: int
    best: int

    @property
    def step(self) -> int:
        """The last step that is done."""
        return max((int(entry["step"]) for entry in self.log), default=0)

    def points(self, key: str) -> list[tuple[float, float]]:
        """Return a number by step, where it is finite."""
        found = ((float(entry["step"]), entry.get(key)) for entry in self.log)
        return [(step, float(y)) for step, y in found if y is not None and math.isfinite(y)]

    @property
    def answers(self) -> list[Answers]:
        """The answers before, and of the adapter in the folder or else the last ones."""
        by_step: dict[int, dict[int, Mapping[str, Any]]] = {}
        for line in self.samples:
            by_step.setdefault(int(line["step"]), {})[int(line["number"])] = line
        before = by_step.get(0, {})
        later = [step for step in by_step if step]
        after = by_step.get(self.best, {}) if self.best else {}
        after = after or (by_step[max(later)] if later else {})
        return [
            _answers_of(line, before.get(number, {}), after.get(number, {}))
            for number, line in sorted({**before, **after}.items())
        ]


def _answers_of(
    line: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Answers:
    return Answers(
        question=line["question"],
        expected=line["expected"],
        before=before.get("answer", ""),
        after=after.get("answer", ""),
        picture=line.get("picture", ""),
        ended=(before.get("ended", True), after.get("ended", True)),
        tokens=(before.get("tokens", 0), after.get("tokens", 0)),
    )


def exact(answers: Sequence[Answers], *, after: bool) -> int:
    """Return how many answers are those of the data; case and white space do not count."""
    texts = ((each.after if after else each.before, each.expected) for each in answers)
    return sum(is_exact(given, wanted) for given, wanted in texts)


def loss_chart(progress: Progress) -> str:
    """Return the chart of the losses, as SVG for a page."""
    lines = {
        "training loss": progress.points("loss"),
        "held-out loss": progress.points("held_out"),
        "old kind, held out": progress.points("old"),
    }
    return curves({name: points for name, points in lines.items() if points}, "Losses", "step")


def loss_file(progress: Progress) -> str:
    """Return the chart of the losses as an SVG file; "" if there is no loss yet."""
    return standalone(loss_chart(progress)) if progress.points("loss") else ""


def render(
    title: str,
    facts: Mapping[str, str],
    progress: Progress,
    reasons: Sequence[tuple[str, int]],
    use: Sequence[str],
) -> str:
    """Return the page.

    facts    what is trained, by name
    reasons  why rows were skipped, and how many
    use      commands that use the adapter
    """
    answers = progress.answers
    body = f"""\
<p class="soft">{_state(progress)}</p>
<section class="cards">
{_cards(progress, answers)}
</section>
<section>
<h2>Loss</h2>
<figure>{loss_chart(progress)}
<figcaption>Mean loss per token of the answers. The adapter in the folder is that of the step with
the lowest held-out loss{_best(progress)}.</figcaption></figure>
</section>
<section>
<h2>Held-out answers</h2>
{_answers(answers)}
{_measures(answers)}
</section>
<section>
<h2>Settings</h2>
{table(("setting", "value"), list(facts.items()))}
</section>
{_skipped(reasons)}<section>
<h2>Use it</h2>
{"".join(f"<p><code>{escape(command)}</code></p>" for command in use)}
</section>"""
    return document(title, body, _STYLE)


_STYLE = """\
<style>
code{overflow-wrap:anywhere}
.answers td,.answers th{text-align:left;vertical-align:top;overflow-wrap:anywhere;width:25%}
.right::before{content:"\\2713\\00a0";color:var(--c3)}
</style>
"""


def _state(progress: Progress) -> str:
    seconds = sum(entry.get("seconds") or 0 for entry in progress.log)
    steps = f"Step {progress.step} of {progress.steps}"
    return f"{steps}, {format_seconds(seconds)} of computation." if seconds else f"{steps}."


def _best(progress: Progress) -> str:
    return f", step {progress.best}" if progress.best else ""


def _cards(progress: Progress, answers: Sequence[Answers]) -> str:
    made = []
    held_out = progress.points("held_out")
    if held_out:
        after = [loss for step, loss in held_out if step]
        made.append(_loss_card("Held-out loss", held_out[0][1], min(after, default=None)))
    if answers:
        right, before = exact(answers, after=True), exact(answers, after=False)
        made.append(
            card("Right answers", f"{right} of {len(answers)}", f"held out; {before} before")
        )
    old = progress.points("old")
    if old:
        at_best = dict(old).get(float(progress.best))
        made.append(_loss_card("Loss of old abilities", old[0][1], at_best))
    peak = max((entry.get("peak_bytes") or 0 for entry in progress.log), default=0)
    if peak:
        made.append(card("Memory", format_bytes(peak), "highest of a step"))
    return "\n".join(made)


def _loss_card(name: str, before: float, after: float | None) -> str:
    value = before if after is None else after
    return card(name, f"{value:.4f}", "before" if after is None else f"{before:.4f} before")


def _answers(answers: Sequence[Answers]) -> str:
    if not answers:
        return "<p>No questions were asked.</p>"
    rows = []
    for each in answers:
        cells = [f"<td>{escape(each.question)}</td><td>{escape(each.expected)}</td>"]
        for given in (each.before, each.after):
            one = Answers(question="", expected=each.expected, after=given)
            mark = ' class="right"' if exact([one], after=True) else ""
            cells.append(f"<td{mark}>{escape(given)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>\n")
    names = "".join(f"<th>{name}</th>" for name in ("question", "in the data", "before", "after"))
    return (
        f'<table class="answers"><thead><tr>{names}</tr></thead><tbody>\n{"".join(rows)}</tbody>'
        "</table>"
    )


def _measures(answers: Sequence[Answers]) -> str:
    """Return what the answers are worth before and after; "" without answers."""
    if not answers:
        return ""
    from cogvlm2_lite.evaluate.row_measures import BY_NAME, POINTS, AnsweredRow, measure_rows

    before, after = (
        measure_rows(
            [
                AnsweredRow(
                    picture=each.picture,
                    expected=each.expected,
                    answer=(each.before, each.after)[side],
                    ended=each.ended[side],
                    tokens=each.tokens[side],
                )
                for each in answers
            ]
        )
        for side in (0, 1)
    )
    rows: list[tuple[str, ...]] = [
        (
            BY_NAME[name].title,
            *(
                f"{found[name].value:.1f}{' %' if BY_NAME[name].unit == POINTS else ''}"
                if name in found
                else ""
                for found in (before, after)
            ),
        )
        for name in after
    ]
    return f"<h2>Measures of these answers</h2>\n{table(('measure', 'before', 'after'), rows)}"


def _skipped(reasons: Sequence[tuple[str, int]]) -> str:
    if not reasons:
        return ""
    rows: list[tuple[str, ...]] = [(reason, str(count)) for reason, count in reasons]
    return (
        f"<section>\n<h2>Skipped rows</h2>\n{table(('reason', 'rows'), rows)}\n"
        "<p>Each is listed in training/skipped.jsonl.</p>\n</section>\n"
    )
