"""Tables and JSON whose words are in a draft text: one draft has several fields."""

from __future__ import annotations

import json

import pytest

from benchmarks.speculation_texts import with_wrong_letters
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.draft_fields import Fields
from cogvlm2_lite.engine.draft_json import FORCED, LIKELY, JsonText
from cogvlm2_lite.engine.drafted_text import AnswerEnd
from cogvlm2_lite.engine.drafts import Drafter
from cogvlm2_lite.engine.json_text import JsonAnswer, JsonGrammar
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from tests.core.test_drafts import passes

TOKENIZER = Tokenizer.from_folder(checkpoint_folder())
ROWS = [
    ("1", "Desk lamp, black", "4", "24.90"),
    ("2", "Desk lamp, white", "2", "24.90"),
    ("3", "Office chair", "6", "139.00"),
    ("4", "Filing cabinet, 3 drawers", "3", "189.50"),
    ("5", "Waste bin, 15 litres", "12", "11.75"),
    ("6", "Power strip", "8", "14.30"),
    ("7", "Stapler", "20", "6.45"),
    ("8", "Printer paper", "40", "4.15"),
]
WIDE = "\n".join("   ".join(row) for row in ROWS)
NARROW = "\n".join(" ".join(row) for row in ROWS)
MARKDOWN = "".join(f"| {' | '.join(row)} |\n" for row in ROWS)
HTML = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>\n" for row in ROWS)
CSV = "".join(f'{row[0]};"{row[1]}";{row[2]};{row[3]}\n' for row in ROWS)
OBJECTS = [
    {"article": article, "quantity": int(count), "price": price}
    for _, article, count, price in ROWS
]
"""They leave out the first column."""


def following(answer: str, text: str, most: int = 40) -> str:
    """Return what is expected behind the beginning of an answer."""
    end = AnswerEnd(TOKENIZER)
    fields = Fields(TOKENIZER, text, end, JsonText(None))
    for token in TOKENIZER.encode(answer):
        end.push(token)
        fields.push(token)
    found = fields.following(most)
    return b"".join(TOKENIZER.token_bytes(each.token) for each in found).decode(errors="ignore")


@pytest.mark.parametrize("text", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("answer", [MARKDOWN, HTML], ids=["Markdown", "HTML"])
def test_a_draft_goes_on_over_several_cells(answer: str, text: str) -> None:
    begin = answer.index("Office")
    end = answer.index("139.00") + len("139.00")
    assert following(answer[:begin], text).startswith(answer[begin:end])


@pytest.mark.parametrize(
    "answer", [MARKDOWN, HTML, CSV, json.dumps(OBJECTS)], ids=["Markdown", "HTML", "CSV", "JSON"]
)
@pytest.mark.parametrize("text", [WIDE, NARROW], ids=["wide", "narrow"])
def test_words_and_separators_together_save_most_passes(
    answer: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = TOKENIZER.encode(answer)
    for share, least in ((0.0, 1.6), (0.1, 1.3)):
        read = with_wrong_letters(text, share, 1)
        joined = passes(ids, Drafter(TOKENIZER, resembled=read))
        with monkeypatch.context() as patched:
            patched.setattr(Fields, "following", lambda *_: [])
            apart = passes(ids, Drafter(TOKENIZER, resembled=read))
        assert apart > least * joined


def test_a_wrong_word_and_words_that_are_missing_are_passed_over() -> None:
    text = WIDE.replace("Office chair", "0ff1ce  chuir").replace("Waste bin, 15 litres   ", "")
    begin = MARKDOWN.index("| 6 | Power")
    assert following(MARKDOWN[:begin], text).startswith("| 6 | Power strip | 8 |")


def test_an_answer_may_leave_out_a_column() -> None:
    answer = json.dumps(OBJECTS)
    begin = answer.index("189.50")
    expected = answer[begin : answer.index("bin,")]
    assert following(answer[:begin], WIDE).startswith(expected)


@pytest.mark.parametrize("text", ["", "...", "|", "\n\n", "a", "一二三"])
def test_texts_with_few_words_expect_nothing_strange(text: str) -> None:
    for answer in ("", "a", "a b", MARKDOWN[:60], "一二三四"):
        assert len(following(answer, text)) < 400


# --- what a schema requires -----------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "date": {"type": "string"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
                "required": ["name", "count"],
                "additionalProperties": False,
            },
        },
        "sum": {"type": "number"},
    },
    "required": ["date", "items", "sum"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammar() -> JsonGrammar:
    end = next(t for t in range(TOKENIZER.vocab_size) if not TOKENIZER.token_bytes(t))
    return JsonGrammar(TOKENIZER, [end])


def begun(grammar: JsonGrammar, text: str) -> tuple[JsonText, JsonAnswer]:
    """Return an answer that begins with a text."""
    form = grammar.begin(json.dumps(SCHEMA))
    found = JsonText(form.required_after)
    for token in TOKENIZER.encode(text):
        form.push(token)
        found.push(TOKENIZER.token_bytes(token).decode())
    return found, form


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"', 'date": "'),
        ('{"da', 'te": "'),
        ('{"date":', ' "'),
        ('{"date":"3 May",', '"items":[{"name":"'),
        ('{\n  "date": "3 May",', '\n  "items": [{"name": "'),
        ('{\n  "date": "3, May",\n ', ' "items": [{"name": "'),
        ('{"date": "3 May", "items": [{"name": "a", "count": 1}], ', '"sum": '),
        ('{"date": "3 May', ""),
        ('{"date": "3 \\"', ""),
    ],
)
def test_keys_are_expected_with_the_blanks_of_the_answer(
    grammar: JsonGrammar, text: str, expected: str
) -> None:
    found, kinds = begun(grammar, text)[0].following()
    assert found == expected
    assert len(kinds) == len(found)
    assert set(kinds) <= {FORCED, LIKELY}


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ('{"date": "3 May', '", "items": [{"name": "', "string"),
        ('{"date": "a", "items": [{"name": "b', '", "count": ', "string"),
        (
            '{"date": "a", "items": [\n  {"name": "b", "count": 1},\n  {"name": "c", "count": 2',
            '},\n  {"name": "',
            "value",
        ),
        ('{"date": "a", "items": [], "sum": 12', "}", "number 0"),
        ('{"date": "a", "items": [], "sum": 12.5', "}", "number 2"),
        ('{"date":', "", ""),
    ],
)
def test_what_follows_the_end_of_a_value_is_known(
    grammar: JsonGrammar, text: str, expected: str, value: str
) -> None:
    found, kinds, kind = begun(grammar, text)[0].closing()
    assert (found, kind) == (expected, value)
    assert len(kinds) == len(found)


def test_looking_ahead_leaves_the_answer_as_it_is(grammar: JsonGrammar) -> None:
    found, form = begun(grammar, '{"date": "a')
    before = form.allowed(TOKENIZER.vocab_size)
    assert form.required_after('", ') == b'"items"'
    assert form.required_after('", "x') is None
    found.following()
    found.closing()
    assert form.allowed(TOKENIZER.vocab_size).equal(before)


def test_forced_keys_and_words_of_the_text_are_in_one_draft(grammar: JsonGrammar) -> None:
    form = grammar.begin(json.dumps(SCHEMA))
    drafter = Drafter(
        TOKENIZER,
        resembled=f"Date 3 May\n{NARROW}",
        required=form.required_after,
        allowed=form.count_allowed,
    )
    items = [{"name": article, "count": int(count)} for _, article, count, _ in ROWS]
    answer = json.dumps({"date": "3 May", "items": items, "sum": 1})
    begin = answer.index("12}")
    for token in TOKENIZER.encode(answer[:begin]):
        form.push(token)
        drafter.push(token)
    draft = drafter.propose(31)
    data = b"".join(map(TOKENIZER.token_bytes, draft.tokens)).decode(errors="ignore")
    assert data.startswith(answer[begin : answer.index("strip")])
    assert list(draft.chances) == sorted(draft.chances, reverse=True)
