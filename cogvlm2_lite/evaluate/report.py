"""Writes the report of a run: report.html, one file without network or scripts, and report.md.

Questions and answers come from files and models that may be hostile. In both files they are text:
they can neither become markup nor hide other text.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from cogvlm2_lite import charts
from cogvlm2_lite.errors import CogVLM2LiteError, DoesNotFitError
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.items import Item, Picture, plain_rgb
from cogvlm2_lite.evaluate.tables import (
    UNKNOWN_PROTOCOL,
    Result,
    Table,
    Wrong,
    asked_things,
    beside_table,
    comparison_lines,
    count_table,
    cut_answers,
    facts,
    failed_answers,
    headline,
    interval_text,
    paired_table,
    part_tables,
    published_numbers,
    rules_text,
    ungraded_text,
    value_text,
    wrong_answers,
)
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.files import free_name, is_sealed, sealed_page, write_whole

HTML, MARKDOWN = "report.html", "report.md"
_MOST_LISTED = 20
"""Answers of a list: those that were cut off, and those that failed."""
_MOST_LETTERS = 1000
"""Letters of a question or an answer."""
_THUMBNAIL_PX = 480
_MOST_THUMBNAIL_BYTES = 100_000

HEAD = """\
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:1rem 0 0}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
.verdict{font-size:1.15rem;font-weight:600}
.parts{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:0 2.5rem}
.parts h2{font-size:1rem}.narrow{max-width:32rem}
.wrong{display:grid;grid-template-columns:14rem 1fr;gap:1rem;border-top:1px solid var(--line);
padding:1rem 0;break-inside:avoid}.wrong img{max-width:100%;max-height:18rem;border-radius:.3rem}
.wrong .none{color:var(--soft);border:1px dashed var(--line);border-radius:.3rem;padding:1rem}
.wrong dl{margin:0}.wrong dt{color:var(--soft);font-size:.85rem}
.wrong dd,.listed{margin:0 0 .5rem;white-space:pre-wrap;overflow-wrap:anywhere}
.listed{border-left:3px solid var(--line);padding-left:.8rem}
@media(max-width:38rem){.wrong{grid-template-columns:1fr}}
</style>
"""
"""The policy allows no scripts and no network, whatever the texts are."""


def write_report(folder: Path, result: Result) -> None:
    """Write report.html and report.md to a run's folder.

    A report that this function wrote is replaced. One that was edited since, or is a person's, is
    kept, and the new one gets another name. Raises DoesNotFitError if the files can't be written.
    """
    for name, text in ((HTML, render_html(result)), (MARKDOWN, render_markdown(result))):
        write_page(folder / name, text)


def write_page(file: Path, text: str) -> None:
    """Write a page of a report as `write_report` does. Raises DoesNotFitError."""
    content = sealed_page(text)
    try:
        ours = not file.exists() or is_sealed(file.read_bytes())
        write_whole(file if ours else free_name(file), lambda new: new.write_bytes(content))
    except OSError as error:
        raise DoesNotFitError(
            "{file} can't be written: {why}.",
            hint="Free some space, or check that you may write there, and start again. The "
            "answers are kept.",
            file=file,
            why=error.strerror or error,
        ) from error


# --- HTML -----------------------------------------------------------------------------------------


def render_html(result: Result) -> str:
    """Return the page."""
    pieces = [
        f'<p class="soft path">{html_text(result.model)}</p>',
        _cards(result),
        _comparison(result),
        _facts(result),
        _parts(result),
        _wrong(result),
        *(_listed(title, found) for title, found in _lists(result)),
    ]
    return charts.document(
        plain_text(_title(result)), "\n".join(piece for piece in pieces if piece), HEAD
    )


def _title(result: Result) -> str:
    return f"{result.title}: {Path(result.model).name or result.model}"


def _cards(result: Result) -> str:
    score = result.score
    cards = []
    if score.value is None:
        cards.append(charts.card("Score", "none", ungraded_text(result)))
    else:
        cards.append(charts.card("Score", value_text(result), interval_text(result)))
    numbers = published_numbers(result.data.benchmark, result.model)
    if numbers:
        cards.append(_published_card(numbers))
    subset = f", a subset with seed {result.seed}" if len(result.items) < score.of else ""
    asked = f"{asked_things(result)}{subset}"
    cards.append(charts.card("Asked", f"{score.asked} of {score.of}", asked))
    cards.append(charts.card("Protocol", result.protocol, f"scored by: {rules_text(result)}"))
    return f'<section class="cards">\n{"".join(cards)}\n</section>'


def _published_card(numbers: Mapping[str, str]) -> str:
    value = " / ".join(numbers.values())
    names = " / ".join(numbers) if len(numbers) > 1 else ""
    return charts.card("CogVLM2's README", value, f"{UNKNOWN_PROTOCOL}\n{names}".strip())


def _facts(result: Result) -> str:
    rows = "\n".join(
        f"<dt>{html_text(name.capitalize())}</dt><dd>{html_text(text)}</dd>"
        for name, text in facts(result)
    )
    notices = "".join(f'<p class="soft">{html_text(n)}</p>' for n in result.data.notices)
    head = '<section>\n<h2>What was measured</h2>\n<dl class="facts">'
    return f"{head}\n{rows}\n</dl>{notices}\n</section>"


def _comparison(result: Result) -> str:
    if result.paired is None:
        return ""
    table = paired_table(result)
    shown = f'<div class="narrow">{_table(table)}</div>\n' if table is not None else ""
    verdict, *lines = comparison_lines(result)
    others = "\n".join(f"<p>{html_text(line)}</p>" for line in lines)
    return (
        f"<section>\n<h2>Compared with {html_text(result.other or 'another model')}</h2>"
        f'\n<p class="verdict">{html_text(verdict)}</p>\n{others}\n'
        f"{shown}</section>"
    )


def _parts(result: Result) -> str:
    tables = [*part_tables(result), beside_table(result), count_table(result)]
    shown = "\n".join(
        f"<section>\n<h2>{html_text(table.title)}</h2>\n{_table(table)}\n</section>"
        for table in tables
        if table is not None
    )
    return f'<div class="parts">\n{shown}\n</div>' if shown else ""


def _table(table: Table) -> str:
    rows = [tuple(map(plain_text, row)) for row in table.rows]
    return charts.table(tuple(map(plain_text, table.head)), rows)


def _wrong(result: Result) -> str:
    shown, every = wrong_answers(result)
    if not shown:
        return ""
    answers = "\n".join(_wrong_answer(result, wrong) for wrong in shown)
    return f"<h2>Wrong answers</h2>\n<p>{_wrong_text(len(shown), every)}</p>\n{answers}"


def _wrong_text(shown: int, every: int) -> str:
    if shown == every:
        return "All of them." if every > 1 else "The only one."
    return f"{shown} of {every}, evenly spread over the questions."


def _wrong_answer(result: Result, wrong: Wrong) -> str:
    rows = "".join(
        f'<dt>{html_text(name)}</dt><dd dir="auto">{html_text(text)}</dd>'
        for name, text in _wrong_rows(wrong)
    )
    return f'<div class="wrong"><div>{_thumbnail(wrong.item)}</div><dl>{rows}</dl></div>'


def _wrong_rows(wrong: Wrong) -> list[tuple[str, str]]:
    item = wrong.item
    options = "".join(f"\n{letter}. {text}" for letter, text in item.options.items())
    hint = f"{item.hint}\n" if item.hint else ""
    rows = [
        (f"Question {item.id}", f"{hint}{item.question}{options}"),
        ("Answer", wrong.answer or "(empty)"),
        ("Expected", wrong.expected),
    ]
    if wrong.read:
        rows.insert(2, ("Read as", wrong.read))
    if wrong.score:
        rows.append(("Score", f"{wrong.score:.2f}"))
    return rows


def _thumbnail(item: Item) -> str:
    """Return the picture that was shown, as an HTML element."""
    found = _small(item.pictures[0]) if item.pictures else None
    if found is None:
        return '<div class="none">The picture can\'t be shown.</div>'
    data = base64.b64encode(found).decode("ascii")
    name = html_text(f"Picture of question {item.id}")
    return f'<img alt="{name}" src="data:image/jpeg;base64,{data}">'


def _small(picture: Picture) -> bytes | None:
    """Return a small JPEG of a picture; None if it can't be read."""
    try:
        image = plain_rgb(picture.read())
    except (CogVLM2LiteError, OSError, ValueError):  # of a damaged file, as Pillow reports it
        return None
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    for quality in (80, 60, 35):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        if out.tell() <= _MOST_THUMBNAIL_BYTES:
            break
    return out.getvalue()


Listed = list[tuple[Item, Answered]]


def _lists(result: Result) -> list[tuple[str, Listed]]:
    found = (
        ("Answers that reached the token limit", cut_answers(result)),
        ("Answers that failed", failed_answers(result)),
    )
    return [(title, listed) for title, listed in found if listed]


def _listed(title: str, found: Listed) -> str:
    rows = "\n".join(
        f'<p class="soft">Question {html_text(item.id)}, {answered.tokens} tokens</p>'
        f'<p class="listed" dir="auto">{html_text(answered.error or answered.answer)}</p>'
        for item, answered in found[:_MOST_LISTED]
    )
    return f"<h2>{title}</h2>\n<p>{_listed_text(found)}</p>\n{rows}"


def _listed_text(found: Listed) -> str:
    if len(found) > _MOST_LISTED:
        return f"The first {_MOST_LISTED} of {len(found)}."
    return "All of them." if len(found) > 1 else "The only one."


def html_text(text: str) -> str:
    """Return a text as HTML in which it can't be markup."""
    return escape(plain_text(text))


def plain_text(text: str) -> str:
    """Return a text with its lines, shortened, in which control characters are visible."""
    cut = text[:_MOST_LETTERS]
    lines = "\n".join(escape_line(line) for line in re.split(r"\r\n|\r|\n", cut))
    return f"{lines} … ({len(text)} characters)" if len(text) > len(cut) else lines


# --- Markdown -------------------------------------------------------------------------------------

_MARKS = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", "://": ":&#47;/", "www.": "www&#46;", "@": "&#64;"}
"""Start of HTML, and of the addresses that become links without markup."""


def render_markdown(result: Result) -> str:
    """Return the same report as Markdown, without pictures."""
    pieces = [f"# {_marked(_title(result))}", _marked(headline(result))]
    pieces.append("\n".join(f"- {name}: {_marked(text)}" for name, text in facts(result)))
    pieces += [_marked(notice) for notice in result.data.notices]
    if result.paired is not None:
        pieces.append(f"## Compared with {_marked(result.other or 'another model')}")
        pieces += [_marked(line) for line in comparison_lines(result)]
        if (comparison := paired_table(result)) is not None:
            pieces.append(_markdown_table(comparison))
    for table in [*part_tables(result), beside_table(result), count_table(result)]:
        if table is not None:
            pieces += [f"## {_marked(table.title)}", _markdown_table(table)]
    shown, every = wrong_answers(result)
    if shown:
        pieces += ["## Wrong answers", _wrong_text(len(shown), every)]
        pieces += ["\n".join(_markdown_rows(_wrong_rows(wrong))) for wrong in shown]
    for title, found in _lists(result):
        rows = [(f"Question {item.id}", a.error or a.answer) for item, a in found[:_MOST_LISTED]]
        pieces += [f"## {title}", _listed_text(found), "\n".join(_markdown_rows(rows))]
    return "\n\n".join(pieces) + "\n"


def _markdown_rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"- {_marked(name)}: {_marked(text)}" for name, text in rows]


def _markdown_table(table: Table) -> str:
    lines = [table.head, ("---", *["---:"] * (len(table.head) - 1))]
    body = [tuple(_marked(cell) for cell in row) for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *body])


def _marked(text: str) -> str:
    """Return a text as one line of Markdown in which no character is markup."""
    line = " / ".join(plain_text(text).splitlines())
    for mark, entity in _ENTITIES.items():
        line = line.replace(mark, entity)
    return _MARKS.sub(r"\\\1", line)
