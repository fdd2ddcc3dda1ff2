"""What is shown of an evaluation on rows: tables, and the files of the evaluation's folder.

report.html is one file without network or scripts. Answers come from files and models that may be
hostile: in every file they are text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from cogvlm2_lite import charts
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.evaluate.items import Item, Picture
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.evaluate.report import HEAD, HTML, html_text, plain_text, write_page
from cogvlm2_lite.evaluate.row_columns import ColumnResult
from cogvlm2_lite.evaluate.row_data import RowData, reasons_text, skipped_lines
from cogvlm2_lite.evaluate.row_measures import (
    BY_NAME,
    MEASURES,
    NATS,
    POINTS,
    TOKENS,
    AnsweredRow,
    Difference,
)
from cogvlm2_lite.evaluate.rules.texts import is_exact
from cogvlm2_lite.evaluate.run_folder import write_file
from cogvlm2_lite.file_names import to_json
from cogvlm2_lite.forecast.table import text_columns
from cogvlm2_lite.inputs.image import open_image

ROWS_FILE, SCORES_FILE, SKIPPED_FILE = "rows.jsonl", "scores.json", "skipped.jsonl"
_MOST_SHOWN = 40
"""Rows in the report."""
_THUMBNAIL_PX = 320
_MOST_THUMBNAIL_BYTES = 60_000

_STYLE = """\
<style>
.answers td,.answers th{vertical-align:top;text-align:left}
.answers td{white-space:pre-wrap;overflow-wrap:anywhere;min-width:8rem}
.answers img{max-width:10rem;max-height:10rem;border-radius:.3rem}
.right{border-left:3px solid #2e9e5b;padding-left:.5rem}
.wide{overflow-x:auto}
</style>
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowResult:
    """An evaluation on rows.

    model    for people
    found    the rows, and those that were skipped
    items    the chosen ones, in the order in which they were asked
    columns  the base model and the adapters
    case     upper and lower case differ in an exact match
    """

    model: str
    found: RowData
    items: Sequence[Item]
    columns: Sequence[ColumnResult]
    seed: int = 0
    case: bool = False


# --- tables ---------------------------------------------------------------------------------------


def measure_table(result: RowResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the head and rows of the table of all measures; a column per model."""
    head = ("", *(column.column.name for column in result.columns))
    rows = []
    for measure in MEASURES:
        cells = [_measured_text(measure.name, each.measured) for each in result.columns]
        if any(cells):
            unit = f", {measure.unit}" if measure.unit in (NATS, TOKENS) else ""
            rows.append((f"{measure.title}{unit}", *cells))
    return head, rows


def difference_rows(column: ColumnResult) -> list[tuple[str, str, str]]:
    """Return the measure, the difference with its interval, and the verdict."""
    return [
        (BY_NAME[name].title, _difference_text(name, each), str(each.verdict))
        for name, each in (column.differences or {}).items()
    ]


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines of text; the first column is text, the others are numbers."""
    table = [list(head), *map(list, rows)]
    widths = [max(text_columns(row[place]) for row in table) for place in range(len(head))]
    lines = []
    for row in table:
        blanks = [" " * (w - text_columns(cell)) for cell, w in zip(row, widths, strict=True)]
        cells = [
            row[0] + blanks[0],
            *(b + cell for b, cell in zip(blanks[1:], row[1:], strict=True)),
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return lines


def _measured_text(name: str, measured: Mapping[str, Measured]) -> str:
    if name not in measured:
        return ""
    one = measured[name]
    value, low, high = (_number_text(name, each) for each in (one.value, one.low, one.high))
    return f"{value} [{low}, {high}]"


def _difference_text(name: str, one: Difference) -> str:
    value, low, high = (_number_text(name, each, "+") for each in (one.value, one.low, one.high))
    return f"{value} [{low}, {high}]"


def _number_text(name: str, value: float, sign: str = "") -> str:
    unit = BY_NAME[name].unit
    if unit in (POINTS, TOKENS):
        return f"{value:{sign}.1f}"
    if unit == NATS:
        return f"{value:{sign}.3f}"
    if value < _MOST_DECIMALS:
        return f"{value:.2f}"
    return f"{value:,.0f}" if value < _MOST_DIGITS else f"{value:.2g}"


_MOST_DECIMALS, _MOST_DIGITS = 1000, 1e7
"""Larger perplexities are shown as whole numbers, and as powers of ten."""


def facts(result: RowResult) -> list[tuple[str, str]]:
    """Return what was measured, as names and texts."""
    found, run = result.found, result.columns[0].job.run
    pictures = {row.picture for row in result.columns[0].rows.values()}
    subset = f", a subset with seed {result.seed}" if len(result.items) < run.items else ""
    rows = [
        ("data", f"{found.data.files[0].path} ({found.form})"),
        ("rows", f"{len(result.items)} of {run.items} about {len(pictures)} pictures{subset}"),
    ]
    if found.skipped:
        rows.append(("skipped", f"{len(found.skipped)}: {reasons_text(found.skipped)}"))
    for each in result.columns:
        about = (
            f"template {each.column.form.template}, loss of answers {each.loss_form}, "
            f"{len(each.answers)} answers"
        )
        failed = sum(bool(one.error) for one in each.answers.values())
        if failed:
            about += f", {failed} failed (wrong)"
        rows.append((each.column.name, about))
    rows.append(("decoding", f"greedy, at most {run.max_new_tokens} tokens"))
    return rows


# --- files ----------------------------------------------------------------------------------------


def write_files(folder: Path, result: RowResult) -> None:
    """Write rows.jsonl, scores.json, skipped.jsonl and report.html. Raises DoesNotFitError.

    The same answers give the same bytes. A report that a person edited is kept, and the new one
    gets another name.
    """
    lines = "".join(to_json(line) + "\n" for line in row_lines(result))
    write_file(folder / ROWS_FILE, lines.encode())
    write_file(folder / SCORES_FILE, (to_json(scores(result), indent=1) + "\n").encode())
    if result.found.skipped:
        write_file(folder / SKIPPED_FILE, skipped_lines(result.found.skipped))
    write_page(folder / HTML, render(result))


def scores(result: RowResult) -> dict[str, Any]:
    """Return the measures of each column, and the differences from the base model."""
    return {
        "model": result.model,
        "data": result.found.data.name,
        "rows": len(result.items),
        "case": result.case,
        "columns": {
            each.column.name: {
                "answered": len(each.answers),
                "template": each.column.form.template,
                "loss_form": each.loss_form,
                "measures": {name: one.as_dict() for name, one in each.measured.items()},
                "base": None if each.base is None else each.base.name,
                "differences": {
                    name: one.as_dict() for name, one in (each.differences or {}).items()
                },
            }
            for each in result.columns
        },
    }


def row_lines(result: RowResult) -> list[dict[str, Any]]:
    """Return the rows with the answers of all columns and the values of each."""
    lines = []
    for item in result.items:
        row = result.found.rows[item.id]
        answers = {
            each.column.name: {
                "answer": each.answers[item.id].answer,
                "reason": each.answers[item.id].reason,
                "error": each.answers[item.id].error,
                **each.values[item.id],
            }
            for each in result.columns
            if item.id in each.answers
        }
        lines.append(
            {
                "id": item.id,
                "source": row.source,
                "line": row.line,
                "picture": result.found.place(item.id),
                "question": item.question,
                "expected": item.answers[0],
                "columns": answers,
            }
        )
    return lines


# --- HTML -----------------------------------------------------------------------------------------


def render(result: RowResult) -> str:
    """Return the page."""
    pieces = [
        f'<p class="soft path">{html_text(result.model)}</p>',
        _measures(result),
        *(_differences(column) for column in result.columns if column.differences),
        _facts(result),
        _answers(result),
    ]
    title = plain_text(f"{result.found.data.name}: {Path(result.model).name or result.model}")
    return charts.document(title, "\n".join(pieces), HEAD + _STYLE)


def _measures(result: RowResult) -> str:
    head, rows = measure_table(result)
    shown = charts.table(tuple(map(plain_text, head)), rows)
    return (
        f'<section>\n<h2>Measures</h2>\n<div class="wide">{shown}</div>\n<p class="soft">Points of '
        "100 where no unit is given. In brackets: the interval that contains the number in 95 % of "
        "bootstrap resamples of the pictures.</p>\n</section>"
    )


def _differences(column: ColumnResult) -> str:
    assert column.base is not None
    names = f"{column.column.name} versus {column.base.name}"
    shown = charts.table(("", "difference", ""), [*difference_rows(column)])
    return f'<section>\n<h2>{html_text(names)}</h2>\n<div class="wide">{shown}</div>\n</section>'


def _facts(result: RowResult) -> str:
    rows = "\n".join(
        f"<dt>{html_text(name)}</dt><dd>{html_text(text)}</dd>" for name, text in facts(result)
    )
    return f'<section>\n<h2>What was measured</h2>\n<dl class="facts">\n{rows}\n</dl>\n</section>'


def _answers(result: RowResult) -> str:
    shown = _shown(result)
    names = ["", "question", "expected", *(each.column.name for each in result.columns)]
    head = "".join(f"<th>{html_text(name)}</th>" for name in names)
    rows = "\n".join(_answer_row(result, item) for item in shown)
    return (
        f"<section>\n<h2>Answers</h2>\n<p>{_shown_text(len(shown), len(result.items))} A green "
        'line: the answer is right (exact match).</p>\n<div class="wide"><table class="answers">'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>\n</section>"
    )


def _shown(result: RowResult) -> list[Item]:
    """Return the rows to show: first those that not all columns answered equally well."""

    def is_disputed(item: Item) -> bool:
        rows = [each.rows[item.id] for each in result.columns if item.id in each.rows]
        return len({is_exact(row.answer, row.expected, case=result.case) for row in rows}) > 1

    answered = [i for i in result.items if any(i.id in each.rows for each in result.columns)]
    return sorted(answered, key=lambda item: not is_disputed(item))[:_MOST_SHOWN]


def _shown_text(shown: int, every: int) -> str:
    if shown == every:
        return "All rows."
    return f"{shown} of {every} rows, first those that not all models answered equally well."


def _answer_row(result: RowResult, item: Item) -> str:
    cells = [
        f"<td>{_thumbnail(item.pictures[0]) if item.pictures else ''}</td>",
        f'<td dir="auto">{html_text(item.question)}</td>',
        f'<td dir="auto">{html_text(item.answers[0])}</td>',
    ]
    for each in result.columns:
        answered, row = each.answers.get(item.id), each.rows.get(item.id)
        if answered is None or row is None:
            cells.append('<td class="soft">not asked</td>')
        elif answered.error:
            cells.append(f'<td class="soft">{html_text(answered.error)}</td>')
        else:
            cells.append(_answer_cell(row, case=result.case))
    return f"<tr>{''.join(cells)}</tr>"


def _answer_cell(row: AnsweredRow, *, case: bool) -> str:
    right = ' class="right"' if is_exact(row.answer, row.expected, case=case) else ""
    return f'<td{right} dir="auto">{html_text(row.answer or "(empty)")}</td>'


def _thumbnail(picture: Picture) -> str:
    """Return the picture as it was shown to the model, as an HTML element; "" if it can't be."""
    try:
        image = Image.fromarray(open_image(picture.read()).rgb)
    except CogVLM2LiteError:
        return ""
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    for quality in (80, 50, 25):
        out = BytesIO()
        image.save(out, "JPEG", quality=quality)
        if out.tell() <= _MOST_THUMBNAIL_BYTES:
            break
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return f'<img alt="{html_text(picture.name)}" src="data:image/jpeg;base64,{data}">'
