"""Measures of answers to rows: the values of other programs, intervals by picture, words."""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogvlm2_lite.evaluate.row_measures import (
    GAIN_SHOWN,
    HIGHER,
    LOWER,
    MEASURES,
    AnsweredRow,
    compare_rows,
    measure_rows,
    row_values,
)
from cogvlm2_lite.evaluate.rules.texts import is_exact, json_score, rouge_l, token_f1
from tests.helpers.goldens import GOLDEN


def test_words_in_common_have_the_values_of_other_programs() -> None:
    """SQuAD's F1, MLQA's for Chinese, and rouge-score, see "what" in the file."""
    packed = (GOLDEN / "evaluate" / "texts.json.xz").read_bytes()
    cases = json.loads(lzma.decompress(packed))["cases"]
    assert len(cases) > 120
    for case in cases:
        texts = case["prediction"], case["reference"]
        assert token_f1(*texts) == pytest.approx(case["token_f1"], abs=1e-12), texts
        if "rouge_l" in case:
            assert rouge_l(*texts) == pytest.approx(case["rouge_l"], abs=1e-12), texts


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for a in first:
        before = row
        row = [0]
        for place, b in enumerate(second):
            row.append(before[place] + 1 if a == b else max(row[place], before[place + 1]))
    return row[-1]


@given(
    st.lists(st.sampled_from("abcd"), max_size=90), st.lists(st.sampled_from("abcd"), max_size=9)
)
def test_the_longest_common_subsequence_is_that_of_the_table(a: list[str], b: list[str]) -> None:
    common = _longest_common(a, b)
    expected = 2 * common / (len(a) + len(b)) if common else 0.0
    assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(expected)
    assert rouge_l(" ".join(b), " ".join(a)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "expected", "case", "right"),
    [
        (" Top  row,\nfirst ", "top row, first", False, True),
        ("Top row", "top row", True, False),
        ("Straße", "STRASSE", False, True),
        ("top row.", "top row", False, False),
        ("12", "12.0", False, False),
        ("一　只猫", "一 只猫", False, True),
    ],
)
def test_an_exact_match_ignores_blanks_and_upper_case(
    answer: str, expected: str, case: bool, right: bool
) -> None:
    assert is_exact(answer, expected, case=case) is right


@pytest.mark.parametrize(
    ("answer", "expected", "valid", "equal"),
    [
        ('{"total": 12.0, "date": "1 May"}', '{"date": "1  may", "total": 12}', True, 1.0),
        ('{"total": 12}', '{"total": 12, "date": "x"}', True, 0.5),
        ('{"total": 12, "more": 1}', '{"total": 12}', True, 0.5),
        ('{"a": {"b": [1, 2]}}', '{"a": {"b": [1, 3]}}', True, 0.5),
        ('{"a": true}', '{"a": 1}', True, 0.0),
        ('{"a": null}', '{"a": null}', True, 1.0),
        ("[]", "{}", True, 0.0),
        ("[1]", "[1]", True, 1.0),
        ('```json\n{"a": 1}\n```', '{"a": 1}', False, 0.0),
        ('{"a": NaN}', '{"a": 1}', False, 0.0),
        ("[" * 100_000, '{"a": 1}', False, 0.0),
    ],
)
def test_answers_in_json(answer: str, expected: str, valid: bool, equal: float) -> None:
    found = json_score(answer, expected)
    assert found is not None
    assert (found.valid, found.equal) == (valid, equal)


@pytest.mark.parametrize("text", ["12", '"red"', "null", "a {b}", ""])
def test_a_reference_that_is_no_object_or_list_is_no_json(text: str) -> None:
    assert json_score("{}", text) is None


def row(answer: str, expected: str = "yes", picture: str = "a", **more: object) -> AnsweredRow:
    return AnsweredRow(answer=answer, expected=expected, picture=picture, **more)  # type: ignore[arg-type]


def test_the_loss_is_a_mean_over_tokens_and_not_over_rows() -> None:
    rows = [
        row("yes", picture="a", loss=2.0, loss_tokens=1),
        row("yes", picture="b", loss=4.0, loss_tokens=8),
    ]
    found = measure_rows(rows)
    assert found["loss"].value == pytest.approx(6 / 9)
    assert found["perplexity"].value == pytest.approx(math.exp(6 / 9))
    assert (found["loss"].low, found["loss"].high) == (0.5, 2.0)


def test_measures_come_in_one_order_and_only_those_that_rows_have() -> None:
    found = measure_rows([row("yes"), row("no", picture="b")])
    assert "loss" not in found
    assert "json_valid" not in found
    every = measure_rows([row("{}", "{}", tokens=3, loss=1.0, loss_tokens=1)])
    assert list(every) == [measure.name for measure in MEASURES]
    assert found["exact_match"].value == 50
    assert row_values(row("2.04", "2"))["relaxed_accuracy"] == 1
    assert row_values(row("yeS"))["anls"] == 1


def test_intervals_resample_pictures_and_not_rows() -> None:
    """Ten rows about each picture are no ten independent rows: the interval is much wider."""
    random = np.random.default_rng(3)
    right = random.random(40) < 0.5
    clustered = [
        row("yes" if flag else "no", picture=str(number))
        for number, flag in enumerate(right)
        for _ in range(10)
    ]
    apart = [row(each.answer, picture=str(number)) for number, each in enumerate(clustered)]
    wide, narrow = (measure_rows(rows)["exact_match"] for rows in (clustered, apart))
    assert wide.value == narrow.value
    # The binomial half widths of 40 pictures and of 400 rows.
    share = wide.value / 100
    for found, count in ((wide, 40), (narrow, 400)):
        half = 196 * math.sqrt(share * (1 - share) / count)
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_a_measure_without_any_difference_still_has_an_interval() -> None:
    found = measure_rows([row("yes", picture=str(number)) for number in range(30)])
    assert found["exact_match"].value == found["exact_match"].high == 100
    assert 80 < found["exact_match"].low < 95


def test_a_gain_a_loss_and_what_is_not_decided_have_their_words() -> None:
    pictures = [str(number) for number in range(60)]
    wrong = [row("no", picture=each, loss=3.0, loss_tokens=2, tokens=5) for each in pictures]
    right = [row("yes", picture=each, loss=1.0, loss_tokens=2, tokens=9) for each in pictures]
    gained, lost = compare_rows(wrong, right), compare_rows(right, wrong)
    assert gained["exact_match"].value == 100
    assert gained["exact_match"].verdict == GAIN_SHOWN
    assert gained["exact_match"].low > 80
    assert gained["exact_match"].p < 0.001
    assert lost["exact_match"].verdict == "a loss is shown"
    assert lost["exact_match"].high < -80
    assert gained["loss"].value == -1
    assert (gained["loss"].verdict, lost["loss"].verdict) == (LOWER, HIGHER)
    assert gained["tokens"].verdict == HIGHER
    assert "perplexity" not in gained
    few = compare_rows(wrong[:1] + right[1:9], right[:9])
    assert few["exact_match"].verdict == "not decided with 9 questions"
    same = compare_rows(right, right)
    assert same["exact_match"].value == 0
    assert same["exact_match"].low < 0 < same["exact_match"].high
    assert same["loss"].verdict == "not decided with 60 questions"


def test_rows_about_a_single_picture_decide_nothing() -> None:
    wrong = [row("no", loss=3.0, loss_tokens=2) for _ in range(60)]
    right = [row("yes", loss=1.0, loss_tokens=2) for _ in range(60)]
    found = compare_rows(wrong, right)
    assert found["exact_match"].verdict == found["loss"].verdict == "not decided with 60 questions"


def test_losses_that_a_model_excludes_are_no_failure() -> None:
    found = measure_rows([row("x", loss=9999.0, loss_tokens=1)])
    assert math.isfinite(found["perplexity"].value)
