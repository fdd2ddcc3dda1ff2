"""What a report says about a run, as texts and tables; `score_lines` is the form on screen.

`report.py` writes the same texts as HTML and Markdown. Names and answers are in them as they came:
whoever shows a text makes sure that it stays text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.benchmarks import BENCHMARKS, PUBLISHED
from cogvlm2_lite.evaluate.items import Data, Item
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.evaluate.paired import Paired
from cogvlm2_lite.evaluate.totals import Part, Score
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.forecast.table import text_columns
from cogvlm2_lite.units import format_bytes

MOST_WRONG = 20
"""Wrong answers that a report shows."""
UNKNOWN_PROTOCOL = "published, protocol unknown"
"""How the number of the model's README is marked: nobody knows how it was measured."""
_WRONG_BELOW = 0.5
"""Scores between 0 and 1 count as wrong below this."""
_MOST_REFERENCES = 5

_COUNTS = {
    "errors": "failed with an error (wrong)",
    "token_limit": "reached the token limit and were cut off",
    "empty": "empty",
    "no_letter": "no option could be read (wrong)",
    "not_graded": "without a grade",
    "groups": "groups of rotations that count",
    "incomplete_groups": "groups that lack an answer to a rotation (left out)",
}
_RULES = {
    "letter": "read by their letter",
    "phrase": "read by the words 'answer is'",
    "text": "read by the text of an option",
    "refusal": "refused to answer",
}
_RULE_SETS = {
    "official": "official rules",
    "vlmevalkit": "VLMEvalKit of 2026",
    "vlmevalkit_2024": "VLMEvalKit of May 2024",
    "equal": "the answer equals a reference",
    "judge": "grades of a judge",
    "official_expected": "official rules with a random letter where none was read (expectation)",
    "lower_bound": "lower bound: an answer without a letter is wrong",
    "upper_bound": "upper bound: an answer without a letter is right",
    "vanilla": "first pass only, without rotations",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run and its score.

    items   the questions that were chosen
    model   its folder or name
    other   the model that `model` is compared with
    is_reference  in `paired`, `model` is A and the other one B; otherwise the other way round
    kl      KL divergence of B's next-token probabilities from A's
    """

    data: Data
    items: Sequence[Item]
    answers: Mapping[str, Answered]
    score: Score
    protocol: str
    model: str
    seed: int = 0
    paired: Paired | None = None
    other: str | None = None
    kl: Measured | None = None
    is_reference: bool = False

    @property
    def pair(self) -> tuple[str, str]:
        """The names of A and B."""
        paths = (self.model, self.other or "the other model")
        a, b = paths if self.is_reference else paths[::-1]
        short = Path(a).name or a, Path(b).name or b
        return short if short[0] != short[1] else (a, b)

    @property
    def title(self) -> str:
        """The benchmark's name; for a person's own questions the name of their file."""
        benchmark = self.data.benchmark
        return self.data.name if benchmark == "vqa" else BENCHMARKS[benchmark].title


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts. The first column is text, the others are numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A wrong answer, as a report shows it.

    expected  the references, or the letter and text of the right option
    read      the option that was read from the answer; "" where there are no options
    """

    item: Item
    answer: str
    expected: str
    read: str
    score: float


# --- sentences ------------------------------------------------------------------------------------


def value_text(result: Result) -> str:
    """Return the score: "84.2 points" or "756 of 1000 right"; "not graded" without one."""
    score = result.score
    if score.value is None:
        return "not graded"
    if score.unit == "hits":
        return f"{score.hits} of {score.asked} right"
    return f"{score.value:.1f} points"


def interval_text(result: Result) -> str:
    """Return the 95 % interval; "" without one. For a part of OCRBench it is of the estimate."""
    score = result.score
    if score.unit == "hits" and score.estimate is not None:
        value, low, high = score.estimate
        first = f"estimate of all 1000: {value:.0f}, " if score.asked < score.of else ""
        return f"{first}95 % interval {low:.0f} to {high:.0f}"
    if score.value is None or score.low is None or score.high is None:
        return ""
    if score.unit == "hits":
        return f"95 % interval {score.low:.1f} % to {score.high:.1f} %"
    return f"95 % interval {score.low:.1f} to {score.high:.1f}"


def ungraded_text(result: Result) -> str:
    """Return the reason for a missing score."""
    if result.data.benchmark == "mmvet":
        return "not graded (needs a GPT-4 judge)"
    return "no score yet (no question has all answers that it needs)"


def headline(result: Result) -> str:
    """Return the score as one line."""
    if result.score.value is None:
        return f"{result.title}: {result.score.asked} answered, {ungraded_text(result)}"
    interval = interval_text(result)
    return f"{result.title}: {value_text(result)}" + (f", {interval}" if interval else "")


def asked_things(result: Result) -> str:
    """Return what is counted: of MMBench each rotation of a question is a row."""
    return "rows" if result.data.benchmark.startswith("mmbench") else "questions"


def asked_text(result: Result) -> str:
    """Return how many questions were asked, of how many, and which."""
    asked, every, chosen = result.score.asked, result.score.of, len(result.items)
    what = asked_things(result)
    if asked == every:
        return f"all {every} {what}"
    text = f"{asked} of {every} {what}"
    if chosen < every:
        text += f", a subset chosen with seed {result.seed}"
    if asked < chosen:
        text += f"; {chosen - asked} of the chosen {chosen} have no answer yet"
    return text


def rules_text(result: Result) -> str:
    """Return the name of the rules of the headline."""
    rules = result.score.rules
    return _RULE_SETS.get(rules, rules)


def published_numbers(benchmark: str, model: str) -> dict[str, str]:
    """Return the numbers of CogVLM2's README by released model; {} if it has none.

    model  a folder. Both models are named, unless its name says which one it was made from.
    """
    digits = 0 if benchmark == "ocrbench" else 1
    numbers = {
        name: f"{table[benchmark]:.{digits}f}"
        for name, table in PUBLISHED.items()
        if benchmark in table
    }
    named = [name for name in numbers if name.lower() in Path(model).name.lower()]
    return {name: numbers[name] for name in named} or numbers


def published_text(result: Result) -> str:
    """Return the numbers of the model's README as one text; "" if it has none."""
    numbers = published_numbers(result.data.benchmark, result.model)
    return ", ".join(f"{number} ({model})" for model, number in numbers.items())


def facts(result: Result) -> list[tuple[str, str]]:
    """Return what was measured and how, as names and texts."""
    found = [
        ("model", result.model),
        ("asked", asked_text(result)),
        ("protocol", result.protocol),
        ("rules", rules_text(result)),
        (UNKNOWN_PROTOCOL, published_text(result)),
    ]
    if result.score.judge:
        spread = f", deviation of its runs {result.score.std:.1f}" if result.score.std else ""
        found.append(("judge", result.score.judge + spread))
    for file in result.data.files:
        found.append(("data", f"{file.path} ({format_bytes(file.size)}, md5 {file.md5})"))
    return [(name, text) for name, text in found if text]


def comparison_lines(result: Result) -> list[str]:
    """Return the sentences about the loss, from the verdict on; empty without a comparison."""
    paired = result.paired
    if paired is None:
        return []
    a, b = result.pair
    lines = [_sentence(paired.verdict)]
    if paired.questions:
        lines.append(
            f"Loss of {b} against {a}: {signed(paired.loss)} points, 95 % interval "
            f"{signed(paired.low)} to {signed(paired.high)}, p = {paired.p:.2g}. Scores: "
            f"{paired.mean_b:.1f} and {paired.mean_a:.1f} on the same {paired.questions} questions."
        )
    if paired.needed is not None:
        lines.append(f"About {paired.needed} questions would decide it.")
    if paired.loss < 0 < paired.high:
        lines.append(f"{b} scored higher, but the interval contains 0: this shows no gain.")
    lines.append(f"{100 * paired.changed:.1f} % of the answers have another text.")
    if result.kl is not None:
        kl = result.kl
        lines.append(f"KL divergence: {kl.value:.5f} nats per token [{kl.low:.5f}, {kl.high:.5f}].")
    return lines


def signed(points: float) -> str:
    """Return points with their sign; zero has none."""
    return f"{points:+.1f}" if round(points, 1) else "0.0"


def _sentence(verdict: str) -> str:
    return f"{verdict[:1].upper()}{verdict[1:]}."


# --- tables ---------------------------------------------------------------------------------------


def paired_table(result: Result) -> Table | None:
    """Return who was right how often; None without a comparison of scores."""
    paired = result.paired
    if paired is None or not paired.questions:
        return None
    a, b = result.pair
    rows: tuple[tuple[str, str], ...]
    if paired.binary:
        rows = (
            ("both right", str(paired.both)),
            (f"only {a} right", str(paired.only_a)),
            (f"only {b} right", str(paired.only_b)),
            ("both wrong", str(paired.neither)),
        )
    else:
        rows = (
            (f"{b} has a higher score", str(paired.up)),
            (f"{b} has a lower score", str(paired.down)),
            ("same score", str(paired.questions - paired.up - paired.down)),
        )
    return Table(title="Question by question", head=("", "questions"), rows=rows)


def part_tables(result: Result) -> list[Table]:
    """Return the scores of the parts, a table for each kind."""
    hits = result.score.unit == "hits"
    tables = []
    for kind, parts in groupby(result.score.parts, lambda part: part.kind):
        rows = tuple(_part_row(part, hits=hits) for part in parts)
        head = (kind, "right" if hits else "points", "asked")
        tables.append(Table(title=f"By {kind}", head=head, rows=rows))
    return tables


def _part_row(part: Part, *, hits: bool) -> tuple[str, ...]:
    value = str(part.hits) if hits and part.hits is not None else f"{part.value:.1f}"
    return part.name, value, str(part.asked)


def beside_table(result: Result) -> Table | None:
    """Return the scores by other rules, and bounds; None if there are none."""
    if not result.score.beside:
        return None
    rows = tuple(
        (_RULE_SETS.get(name, name.replace("_", " ")), f"{value:.1f}")
        for name, value in result.score.beside.items()
    )
    return Table(title="By other rules", head=("rules", "points"), rows=rows)


def count_table(result: Result) -> Table | None:
    """Return how many answers need attention, and which rule read how many; None if none do."""
    counts = result.score.counts
    named = {**_COUNTS, **{f"rule_{rule}": text for rule, text in _RULES.items()}}
    rows = tuple((text, str(counts[name])) for name, text in named.items() if counts.get(name))
    return Table(title="Answers", head=("answers", "number"), rows=rows) if rows else None


# --- answers --------------------------------------------------------------------------------------


def wrong_answers(result: Result) -> tuple[list[Wrong], int]:
    """Return some wrong answers, evenly spread over the questions, and how many there are.

    Answers that failed with an error are not among them, and of a group of rotations only one is
    shown.
    """
    if result.score.value is None:
        return [], 0
    found, groups = [], set()
    for item in result.items:
        answered, scored = result.answers.get(item.id), result.score.items.get(item.id)
        if answered is None or answered.error or scored is None or scored.score >= _WRONG_BELOW:
            continue
        found.append(item)
        groups.add(item.group)
    first = {item.group: item for item in reversed(found)}
    one_each = [item for item in found if first[item.group] is item]
    step = max(len(one_each) / MOST_WRONG, 1.0)
    chosen = [one_each[int(n * step)] for n in range(min(MOST_WRONG, len(one_each)))]
    return [_wrong(result, item) for item in chosen], len(found)


def _wrong(result: Result, item: Item) -> Wrong:
    scored = result.score.items[item.id]
    return Wrong(
        item=item,
        answer=result.answers[item.id].answer,
        expected=expected_text(item),
        read=scored.read or "nothing" if item.options else "",
        score=scored.score,
    )


def expected_text(item: Item) -> str:
    """Return the references as one text: the most frequent first, or an option with its text."""
    counted = Counter(item.answers)
    found = [
        f"{answer}. {item.options[answer]}" if answer in item.options else answer
        for answer, _ in counted.most_common(_MOST_REFERENCES)
    ]
    more = len(counted) - len(found)
    return " | ".join(found) + (f" | {more} more" if more else "")


def cut_answers(result: Result) -> list[tuple[Item, Answered]]:
    """Return the answers that reached the token limit."""
    return _having(result, lambda answered: answered.reason == "length")


def failed_answers(result: Result) -> list[tuple[Item, Answered]]:
    """Return the answers that failed with an error."""
    return _having(result, lambda answered: bool(answered.error))


def _having(result: Result, wanted: Callable[[Answered], bool]) -> list[tuple[Item, Answered]]:
    found = ((item, result.answers.get(item.id)) for item in result.items)
    return [(item, answered) for item, answered in found if answered and wanted(answered)]


# --- on screen ------------------------------------------------------------------------------------


def score_lines(result: Result) -> list[str]:
    """Return the score of a benchmark as lines for the terminal."""
    shown = [(name, text) for name, text in facts(result) if name not in ("model", "data")]
    wide = max(len(name) for name, _ in shown)
    lines = [headline(result), *(f"  {name:<{wide}}  {text}" for name, text in shown)]
    lines += [f"  {line}" for line in comparison_lines(result)]
    lines = [escape_line(line) for line in lines]
    tables = [paired_table(result), *part_tables(result), beside_table(result), count_table(result)]
    for table in tables:
        if table is not None:
            lines += ["", *table_lines(table)]
    return lines


def table_lines(table: Table) -> list[str]:
    """Return a table as lines, with aligned columns."""
    rows = [tuple(map(escape_line, row)) for row in (table.head, *table.rows)]
    wide = [max(text_columns(row[place]) for row in rows) for place in range(len(table.head))]
    lines = []
    for row in rows:
        first, *others = (wide[n] - text_columns(cell) for n, cell in enumerate(row))
        cells = [" " * room + cell for room, cell in zip(others, row[1:], strict=True)]
        lines.append("  " + "  ".join([row[0] + " " * first, *cells]).rstrip())
    return lines
