"""The rules of the benchmarks return what the programs of their authors return."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.evaluate.rules import anls, chartqa, mmbench, mmmu, mmvet, ocrbench, vqa
from cogvlm2_lite.evaluate.scoring import METRICS, score
from tests.helpers.metric_goldens import (
    NAN,
    RAISES,
    Case,
    cases,
    expected_results,
    is_same,
    metrics,
)

TOLERANCES = {"paired_binary": 1e-9, "paired_cluster": 1e-9}
CODE = "list("
"""Answers that VLMEvalKit evaluates as code. They are text here."""


def is_code(case: Case) -> bool:
    """Return whether the answer column of a case is an expression."""
    return str(case["input"].get("answer")).startswith(CODE)


def failure(metric: str, rules: str, case: Case) -> str:
    """Return what is wrong with the score of a case; "" if it is as expected."""
    expected = expected_results(metric, case)[rules]
    try:
        found: Any = score(metric, rules, **case["input"])
    except ValueError as error:
        found = {RAISES: str(error)}
    if isinstance(expected, dict) and RAISES in expected:
        right = isinstance(found, dict) and RAISES in found
    else:
        right = is_same(found, expected, TOLERANCES.get(metric, 1e-12))
    return "" if right else f"{rules} {case['id']}: {found} instead of {expected}"


@pytest.mark.parametrize("metric", METRICS)
def test_every_golden_case_has_the_score_of_the_reference_program(metric: str) -> None:
    wrong = [
        found
        for case in cases(metric)
        for rules in METRICS[metric]
        if rules in expected_results(metric, case)
        and not str(case["input"].get("answer")).startswith(CODE)
        if (found := failure(metric, rules, case))
    ]
    assert not wrong, "\n".join(wrong)
    assert all(METRICS[metric].keys() & expected_results(metric, case) for case in cases(metric))


def test_no_golden_metric_is_left_out() -> None:
    assert {name for name, one in metrics().items() if "cases" in one} == set(METRICS)
    assert sum(len(cases(metric)) for metric in METRICS) == 1872


def test_an_answer_column_is_never_run_as_code() -> None:
    code = [case for case in cases("chartqa_relaxed") if is_code(case)]
    assert code
    for case in code:
        answer = case["input"]["answer"]
        assert chartqa.read_answers(answer) == [answer]
        assert score("chartqa_relaxed", "vlmevalkit", prediction=answer, answer=answer) is True
        assert score("chartqa_relaxed", "vlmevalkit", prediction="b", answer=answer) is False


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("['14', '15']", ["14", "15"]),
        ("[3.1, True, None]", ["3.1", "True", "None"]),
        ("[blue, red]", ["[blue, red]"]),
        ("(14, 15)", ["(14, 15)"]),
        ("['14'", ["['14'"]),
        (r"['\d']", [r"\d"]),
        ("[__import__('os').getcwd()]", ["[__import__('os').getcwd()]"]),
        ("[" * 2000 + "]" * 2000, ["[" * 2000 + "]" * 2000]),
    ],
)
def test_a_list_literal_is_several_references_and_all_else_is_one(
    answer: str, texts: list[str]
) -> None:
    assert chartqa.read_answers(answer) == texts


def test_the_normalized_text_of_every_case_is_that_of_the_evaluators() -> None:
    for case in cases("vqa_accuracy"):
        for name, expected in case["expected"]["normalised_prediction"].items():
            prediction = case["input"]["prediction"]
            if prediction is None and name == "official":
                continue
            assert vqa.normalize(str(prediction), vqa.Edition(name)) == expected, case["id"]


def test_the_words_are_those_of_the_evaluators() -> None:
    words = metrics()["vqa_words"]
    from cogvlm2_lite.evaluate.rules import vqa_words

    assert words["numbers"] == vqa_words.NUMBERS
    assert set(words["articles"]) == vqa_words.ARTICLES
    assert "".join(words["punctuation"]) == vqa_words.PUNCTUATION
    assert words["contractions"] == vqa_words.CONTRACTIONS


def test_an_open_response_is_parsed_into_the_texts_and_numbers_of_the_official_program() -> None:
    for case in cases("mmmu_open"):
        expected = case["expected"]["official_parsed"]
        if RAISES in expected:
            continue
        found = mmmu.parse_open(case["input"]["response"])
        texts = sorted(value for value in found if isinstance(value, str))
        numbers = sorted(str(value) for value in found if not isinstance(value, str))
        wanted = [float("nan") if value == NAN else value for _, value in expected]
        assert texts == sorted(value for value in wanted if isinstance(value, str)), case["id"]
        assert numbers == sorted(str(float(v)) for v in wanted if not isinstance(v, str)), case[
            "id"
        ]


def test_the_rule_that_decided_is_the_one_of_vlmevalkit() -> None:
    for case in cases("mmbench_match"):
        given_options = {letter: str(text) for letter, text in case["input"]["options"].items()}
        found = mmbench.choose(str(case["input"]["prediction"]), given_options)
        assert found.rule == case["expected"]["decided_by"], case["id"]


# --- words of the specification -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "official", "newer", "older"),
    [
        ("5.", "5", 1, 0, 1),
        ("a,b", "ab", 1, 0, 0),
        ("1,000 a-b", "1000 ab", 0, 1, 1),
        ("joe 's", "joe's", 1, 0, 0),
        ("whos who", "who's who", 0, 1, 1),
    ],
)
def test_textvqa_differs_between_the_rule_sets_as_the_table_says(
    answer: str, reference: str, official: float, newer: float, older: float
) -> None:
    references = [reference] * 4 + ["north", "river", "lemon", "orbit", "tulip", "cedar"]
    found = [
        score("vqa_accuracy", rules, prediction=answer, answers=references)
        for rules in ("official", "vlmevalkit", "vlmevalkit-2024")
    ]
    assert found == pytest.approx([official, newer, older])


def test_more_than_32_periods_are_not_removed() -> None:
    assert vqa.normalize("a." * 40, vqa.Edition.OFFICIAL).count(".") == 8


def test_one_reference_can_be_matched_by_a_persons_own_questions() -> None:
    assert vqa.matches("The Two-Face.", ["2 face"])
    assert not vqa.matches("three", ["2"])


@pytest.mark.parametrize(
    ("answer", "reference", "newer", "older"),
    [("105.01", "100", 0, 1), ("19", "20", 1, 0), ("2115", "2014", 0, 1), ("0.0", "0", 0, 0)],
)
def test_chartqa_allows_5_percent_of_the_reference_and_once_of_the_answer(
    answer: str, reference: str, newer: int, older: int
) -> None:
    assert chartqa.vlmevalkit(prediction=answer, answer=reference) == bool(newer)
    assert chartqa.vlmevalkit_2024(prediction=answer, answer=reference) == bool(older)


def test_an_empty_rest_is_replaced_by_the_next_as_in_the_official_program() -> None:
    assert mmmu.parse_open("the value is 30 so\nfinal answer is \nx") == ["30 so", "is", 30.0]
    assert mmmu.parse_open("so x is \n30 or 40") == [
        "so x is \n30 or 40",
        30.0,
        40.0,
    ]


def test_a_model_that_always_answers_the_same_letter_gets_no_circle() -> None:
    rows = [
        {"index": 1 + 1_000_000 * n, "A": "x", "B": "y", "prediction": "A", "category": "c"}
        for n in range(2)
    ]
    found = score("mmbench_circular", "vlmevalkit", rows=rows, answers=[[1, "A"], [1_000_001, "B"]])
    assert found == {"hits": [[1, 0]], "accuracy": {"none": {"Overall": 0.0, "c": 0.0}}}


def test_circles_take_the_group_of_the_file_and_leave_out_rows_without_an_answer() -> None:
    rows = [
        {"index": 1, "g_index": 1, "A": "x", "B": None, "prediction": "A"},
        {"index": 9, "g_index": 1, "A": "x", "B": float("nan"), "prediction": "B"},
        {"index": 2_000_001, "g_index": 1, "A": "x", "prediction": "Z"},
    ]
    answers = [[1, "A"], [9, "A"]]
    found = score("mmbench_circular", "vlmevalkit", rows=rows, answers=answers)
    assert found["hits"] == [[1, 0]]
    found = score("mmbench_circular", "vlmevalkit", rows=rows[:1], answers=answers)
    assert found["hits"] == [[1, 1]]


def test_a_grade_may_not_be_nan_only_when_it_is_imported() -> None:
    assert is_same(score("mmvet_total", "official", judge_text="nan"), NAN)
    assert is_same(
        score("mmvet_total", "vlmevalkit", judge_text="nan"), {"score": NAN, "accepted": True}
    )


@pytest.mark.parametrize("scores", [[[0.1], [0.2, 0.3]], [[], []]])
def test_items_with_different_numbers_of_grades_have_no_total(scores: list[list[float]]) -> None:
    items = [{"id": str(n), "capability": ["rec"], "scores": one} for n, one in enumerate(scores)]
    with pytest.raises(ValueError, match="same number"):
        mmvet.official(items=items)


def test_unknown_metrics_rules_and_keywords_are_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="unknown metric 'bleu'; there are vqa_accuracy"):
        score("bleu", "official")
    with pytest.raises(ValueError, match="anls has no rules 'own'; it has official"):
        score("anls", "own", prediction="", answers=[""])
    with pytest.raises(ValueError, match="anls needs prediction, answers"):
        score("anls", "official", prediction="", answer="")
    with pytest.raises(ValueError, match="no category 'Poems'"):
        ocrbench.vlmevalkit_total(rows=[["Poems", ["a"], "a"]])


# --- distances ------------------------------------------------------------------------------------


def plain_levenshtein(first: str, second: str) -> int:
    """Return the distance by the table that textbooks show."""
    row = list(range(len(second) + 1))
    for place, character in enumerate(first, 1):
        above, row = row, [place]
        for column, other in enumerate(second, 1):
            row.append(
                min(row[-1] + 1, above[column] + 1, above[column - 1] + (character != other))
            )
    return row[-1]


@given(st.text("abİ ", max_size=40), st.text("abİ ", max_size=90))
@settings(max_examples=80, deadline=None)
def test_the_bit_parallel_distance_is_the_one_of_the_table(first: str, second: str) -> None:
    assert anls.levenshtein(first, second) == plain_levenshtein(first, second)


def test_the_distance_of_long_texts_takes_no_table() -> None:
    first, second = "word " * 400, "ward " * 400
    assert anls.levenshtein(first, second) == 400
