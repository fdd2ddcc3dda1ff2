"""What answers to rows are worth: measures with intervals, and differences between two models.

`measure_rows` and `compare_rows` need no model and no folder, so `finetune` may use them, too.
Plain numpy, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cogvlm2_lite.evaluate.intervals import Clusters, percentiles, sign_flip, wilson
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.evaluate.paired import compare_scores
from cogvlm2_lite.evaluate.rules import anls, chartqa
from cogvlm2_lite.evaluate.rules.texts import is_exact, json_score, rouge_l, token_f1
from cogvlm2_lite.text import Text

GAIN_SHOWN = Text("a gain is shown")
LOWER = Text("lower")
HIGHER = Text("higher")

POINTS, NATS, TOKENS, PLAIN = "points", "nats per token", "tokens", ""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of answers.

    name    in files and events
    title   for people
    unit    POINTS: the values of answers are 0 to 1, and their mean is shown in points
    binary  every value is 0 or 1
    """

    name: str
    title: str
    unit: str = POINTS
    binary: bool = False


MEASURES = (
    Measure(name="loss", title="loss", unit=NATS),
    Measure(name="perplexity", title="perplexity", unit=PLAIN),
    Measure(name="exact_match", title="exact match", binary=True),
    Measure(name="anls", title="ANLS"),
    Measure(name="relaxed_accuracy", title="relaxed accuracy", binary=True),
    Measure(name="token_f1", title="token F1"),
    Measure(name="rouge_l", title="ROUGE-L"),
    Measure(name="json_valid", title="valid JSON", binary=True),
    Measure(name="json_fields", title="equal JSON fields"),
    Measure(name="ended", title="ended by itself", binary=True),
    Measure(name="tokens", title="length", unit=TOKENS),
)
"""In the order of tables. All but the length are about every row, JSON about references in JSON."""

BY_NAME: Mapping[str, Measure] = {measure.name: measure for measure in MEASURES}


@dataclass(frozen=True, kw_only=True)
class AnsweredRow:
    """A row, and what a model answered.

    picture      a text that is equal for rows about one picture
    expected     the answer of the row
    answer       the model's; "" if it failed, which is wrong
    ended        the model ended the answer by itself
    tokens       of the answer, the end token included; 0: not known
    loss         sum over the tokens of the expected answers of the row; loss_tokens: their number,
                 0: not measured
    """

    picture: str
    expected: str
    answer: str
    ended: bool = True
    tokens: int = 0
    loss: float = 0.0
    loss_tokens: int = 0


Values = Mapping[str, float]
"""The value of each measure for one row, without those that it does not have."""


def row_values(row: AnsweredRow, *, case: bool = False) -> dict[str, float]:
    """Return the measures of one answer: 0 to 1, the loss per token, and the length in tokens.

    case  an answer in other letters of upper or lower case is not equal
    """
    given, wanted = row.answer.strip(), row.expected.strip()
    found = {
        "exact_match": float(is_exact(given, wanted, case=case)),
        "anls": anls.official(prediction=given, answers=[wanted]),
        "relaxed_accuracy": float(chartqa.is_right(given, wanted)),
        "token_f1": token_f1(given, wanted),
        "rouge_l": rouge_l(given, wanted),
        "ended": float(row.ended),
    }
    if (json := json_score(given, wanted, case=case)) is not None:
        found |= {"json_valid": float(json.valid), "json_fields": json.equal}
    if row.tokens:
        found["tokens"] = float(row.tokens)
    return with_loss(found, row)


def with_loss(values: Values, row: AnsweredRow) -> dict[str, float]:
    """Return the values of a row with another loss of the same answer."""
    found = {name: value for name, value in values.items() if name != "loss"}
    if row.loss_tokens:
        found["loss"] = row.loss / row.loss_tokens
    return found


def measure_rows(
    rows: Sequence[AnsweredRow], *, case: bool = False, values: Sequence[Values] | None = None
) -> dict[str, Measured]:
    """Return the mean of each measure with its 95 % interval, in the order of MEASURES.

    Points are 0 to 100. The loss is the mean over all tokens of all rows, and the perplexity its
    exponential. The intervals are a bootstrap over pictures: rows about one picture are no
    independent ones. Measures that no row has are left out.

    values  of the rows, if they are known; long texts take some time
    """
    if values is None:
        values = [row_values(row, case=case) for row in rows]
    found: dict[str, Measured] = {}
    for measure in MEASURES:
        if measure.name == "perplexity":
            if "loss" in found:
                found[measure.name] = _exponential(found["loss"])
            continue
        own = [place for place, each in enumerate(values) if measure.name in each]
        if own:
            found[measure.name] = _mean(
                measure, [rows[place] for place in own], [values[place] for place in own]
            )
    return found


def _mean(measure: Measure, rows: Sequence[AnsweredRow], values: Sequence[Values]) -> Measured:
    clusters = _clusters(measure, rows, [each[measure.name] for each in values])
    scale = 100.0 if measure.unit == POINTS else 1.0
    if measure.unit == POINTS and len({each[measure.name] for each in values}) == 1:
        # The bootstrap has no width where all values are equal; Wilson's interval has.
        low, high = wilson(clusters.mean, len(clusters.sums))
    else:
        low, high = percentiles(clusters.resampled())
    return Measured(value=scale * clusters.mean, low=scale * low, high=scale * high)


def _clusters(measure: Measure, rows: Sequence[AnsweredRow], values: Sequence[float]) -> Clusters:
    """Return values summed by picture; of the loss, each token counts the same."""
    pictures = [row.picture for row in rows]
    if measure.name != "loss":
        return Clusters.of(pictures, values)
    weights = [float(row.loss_tokens) for row in rows]
    sums = [value * weight for value, weight in zip(values, weights, strict=True)]
    return Clusters.of(pictures, sums, weights)


def _exponential(loss: Measured) -> Measured:
    ends = (loss.value, loss.low, loss.high)
    value, low, high = (math.exp(min(end, _MOST_EXPONENT)) for end in ends)
    return Measured(value=value, low=low, high=high)


_MOST_EXPONENT = 700.0
"""Larger ones are no floats; a token that a model excludes has a loss of 9999."""


# --- two models -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much the second of two models differs from the first on the rows that both answered.

    value      second - first, in the measure's unit
    low, high  95 % interval
    p          probability of such a difference, or a larger one, without any
    verdict    what the interval says
    needed     rows of such a set that would decide; None where these do, or it is not known
    """

    value: float
    low: float
    high: float
    p: float
    verdict: Text
    needed: int | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON-ready values."""
        return {**vars(self), "verdict": str(self.verdict)}


def compare_rows(
    first: Sequence[AnsweredRow],
    second: Sequence[AnsweredRow],
    *,
    case: bool = False,
    values: Sequence[tuple[Values, Values]] | None = None,
) -> dict[str, Difference]:
    """Return the difference of each measure but the perplexity, in the order of MEASURES.

    first, second  the same rows in the same order
    values         of both, if they are known
    """
    pairs = list(zip(first, second, strict=True))
    if values is None:
        values = [(row_values(a, case=case), row_values(b, case=case)) for a, b in pairs]
    found: dict[str, Difference] = {}
    for measure in MEASURES:
        both = [
            place for place, (a, b) in enumerate(values) if measure.name in a and measure.name in b
        ]
        if both:
            rows = [pairs[place][1] for place in both]
            ours = [values[place][0][measure.name] for place in both]
            theirs = [values[place][1][measure.name] for place in both]
            compare = _points if measure.unit == POINTS else _amounts
            found[measure.name] = compare(measure, rows, ours, theirs)
    return found


def _points(
    measure: Measure,
    rows: Sequence[AnsweredRow],
    first: Sequence[float],
    second: Sequence[float],
) -> Difference:
    """Return the difference in points, with the test and the words of two runs of a benchmark."""
    pictures = [row.picture for row in rows]
    found = compare_scores(first, second, pictures, binary=measure.binary)
    gained = found.high < 0
    if found.pictures == 1:  # nothing can be said about other pictures
        return Difference(
            value=-found.loss + 0.0, low=-100.0, high=100.0, p=1.0, verdict=_undecided(rows)
        )
    return Difference(
        value=-found.loss + 0.0,
        low=-found.high + 0.0,
        high=-found.low + 0.0,
        p=found.p,
        verdict=GAIN_SHOWN if gained else Text(found.verdict),
        needed=None if gained else found.needed,
    )


def _amounts(
    measure: Measure,
    rows: Sequence[AnsweredRow],
    first: Sequence[float],
    second: Sequence[float],
) -> Difference:
    """Return the difference of losses or lengths, by a bootstrap over pictures."""
    clusters = _clusters(measure, rows, [b - a for a, b in zip(first, second, strict=True)])
    low, high = percentiles(clusters.resampled())
    said = _undecided(rows)
    if (high < 0 or low > 0) and len(clusters.sums) > 1:
        said = LOWER if high < 0 else HIGHER
    return Difference(
        value=clusters.mean, low=low, high=high, p=sign_flip(clusters.sums), verdict=said
    )


def _undecided(rows: Sequence[AnsweredRow]) -> Text:
    return Text("not decided with {questions} questions", questions=len(rows))
