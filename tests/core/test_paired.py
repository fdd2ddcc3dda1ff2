"""Two models on the same questions: the loss, how sure it is, and what is said about it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.intervals import (
    Clusters,
    mcnemar,
    percentiles,
    questions_needed,
    sign_flip,
    tango,
    wilson,
)
from cogvlm2_lite.evaluate.paired import Paired, compare_runs, overall, verdict
from cogvlm2_lite.evaluate.totals import Grades
from tests.helpers.benchmark_data import answered, answers_of, data_of, item_of, rotations


def compared(only_a: int, only_b: int, both: int = 0, neither: int = 0) -> Paired:
    """Compare two models on choice questions, each with its own picture."""
    pairs = [("B", "A")] * only_a + [("A", "B")] * only_b + [("B", "B")] * both
    pairs += [("A", "A")] * neither
    items = [item_of(str(n), ["B"], options=["x", "y"]) for n in range(len(pairs))]
    first, second = (answers_of(items, [pair[place] for pair in pairs]) for place in (0, 1))
    return compare_runs(data_of("mmmu", items), items, first, second)


# --- tables of the specification ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "needed"),
    [
        (0.005, [3138, 6277, 9417, 15696, 25115, 37673]),
        (0.01, [783, 1568, 2353, 3923, 6277, 9417]),
        (0.02, [None, 391, 587, 979, 1568, 2353]),
        (0.03, [None, None, 260, 434, 696, 1045]),
        (0.05, [None, None, None, 155, 249, 375]),
    ],
)
def test_as_many_questions_show_a_loss_as_the_table_says(
    loss: float, needed: list[int | None]
) -> None:
    for changed, expected in zip((0.01, 0.02, 0.03, 0.05, 0.08, 0.12), needed, strict=True):
        if expected is not None:
            assert questions_needed(changed, loss) == expected


@pytest.mark.parametrize(
    ("questions", "half_widths"),
    [
        (500, [0.9, 1.2, 1.5, 2.0, 2.5, 3.0]),
        (900, [0.7, 0.9, 1.1, 1.5, 1.9, 2.3]),
        (1164, [0.6, 0.8, 1.0, 1.3, 1.6, 2.0]),
        (2500, [0.4, 0.6, 0.7, 0.9, 1.1, 1.4]),
        (5000, [0.3, 0.4, 0.5, 0.6, 0.8, 1.0]),
    ],
)
def test_the_interval_is_about_as_wide_as_the_table_says(
    questions: int, half_widths: list[float]
) -> None:
    for changed, expected in zip((0.01, 0.02, 0.03, 0.05, 0.08, 0.12), half_widths, strict=True):
        one_way = round(questions * changed / 2)
        low, high = tango(questions, one_way, one_way)
        # The table's is the normal interval, which is narrower where few answers change.
        assert expected - 0.05 <= 50 * (high - low) <= expected + 0.25


@pytest.mark.parametrize(
    ("only_a", "only_b", "loss", "low", "high", "p", "said"),
    [
        (0, 0, 0.0, -0.8, 0.8, 1.0, "less than 1 point lost"),
        (5, 5, 0.0, -1.5, 1.5, 1.0, "not decided with 500 questions"),
        (10, 8, 0.4, -1.4, 2.3, 0.65, "not decided with 500 questions"),
        (12, 4, 1.6, 0.0, 3.5, 0.049, "a loss is shown"),
        (20, 8, 2.4, 0.4, 4.7, 0.024, "a loss is shown"),
        (25, 25, 0.0, -2.9, 2.9, 1.0, "not decided with 500 questions"),
    ],
)
def test_500_questions_are_read_as_the_table_says(
    only_a: int, only_b: int, loss: float, low: float, high: float, p: float, said: str
) -> None:
    found = compared(only_a, only_b, both=300, neither=200 - only_a - only_b)
    assert (found.questions, found.pictures) == (500, 500)
    assert (found.both, found.only_a, found.only_b) == (300, only_a, only_b)
    assert found.neither == 200 - only_a - only_b
    assert found.loss == pytest.approx(loss)
    # The table rounds to two places first, so 3.449 is 3.5 there.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0551)
    assert found.p == pytest.approx(p, abs=0.005)
    assert found.verdict == said
    assert found.changed == pytest.approx((only_a + only_b) / 500)
    assert (found.needed is None) == (not said.startswith("not decided"))


def test_an_undecided_comparison_names_more_questions_than_it_has() -> None:
    assert compared(10, 8, both=482).needed == questions_needed(18 / 500)
    for only_a, only_b, both in ((1, 0, 9), (0, 0, 100), (30, 20, 4000), (3, 9, 200)):
        found = compared(only_a, only_b, both)
        if found.verdict.startswith("not decided"):
            assert found.needed is not None
            assert found.needed > found.questions


def test_a_gain_inside_of_the_interval_is_no_gain() -> None:
    assert verdict(-0.4, -1.2, 0.4, 900) == "less than 1 point lost"
    assert verdict(0.5, 0.1, 0.9, 5000) == "less than 1 point lost"
    assert verdict(0.5, -0.2, 1.2, 900) == "not decided with 900 questions"


# --- intervals and tests --------------------------------------------------------------------------


@pytest.mark.parametrize("questions", [1, 3, 500, 5000])
def test_tangos_interval_is_symmetric_and_stays_within_its_bounds(questions: int) -> None:
    for only_a, only_b in ((0, 0), (questions, 0), (questions // 2, questions // 3)):
        low, high = tango(questions, only_a, only_b)
        assert -1 <= low <= (only_a - only_b) / questions <= high <= 1
        assert (-high, -low) == pytest.approx(tango(questions, only_b, only_a), abs=1e-9)


def test_the_mid_p_counts_the_observed_split_half() -> None:
    assert mcnemar(0, 0) == (1.0, 1.0)
    assert mcnemar(1, 4) == pytest.approx((12 / 32, 7 / 32))
    exact, middle = mcnemar(4000, 4600)
    assert 0 < middle < exact < 1e-9


def test_a_bootstrap_of_single_questions_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(1).random(400)
    clusters = Clusters.of([str(n) for n in range(400)], list(values))
    low, high = percentiles(clusters.resampled())
    assert clusters.standard_error is not None
    assert (high - low) / 2 == pytest.approx(1.96 * clusters.standard_error, rel=0.05)
    assert np.array_equal(clusters.resampled(), clusters.resampled())


def test_many_pictures_have_random_sign_changes_that_agree_with_all_of_them() -> None:
    sums = np.array([0.3, 0.6, -0.3, 1.0, 0.9, 0.3, -0.6, 0.3, 0.9, 0.1, 0.2, 0.3])
    every, some = sign_flip(sums), sign_flip(sums, exact=0)
    assert some == pytest.approx(every, abs=0.02)
    assert sign_flip(np.zeros(5)) == 1.0
    assert sign_flip(np.ones(40)) == pytest.approx(1 / 10_001)


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148 and 1 of 29.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)


# --- runs -----------------------------------------------------------------------------------------


def test_scores_between_0_and_1_are_compared_by_picture() -> None:
    items = [item_of(str(n), ["abcd"], pictures=[f"{n // 4}.png"]) for n in range(80)]
    first = answers_of(items, ["abcd"] * 80)
    second = answers_of(items, ["abcx" if n < 8 else "abcd" for n in range(80)])
    found = compare_runs(data_of("docvqa", items), items, first, second)
    assert (found.questions, found.pictures, found.binary) == (80, 20, False)
    assert (found.mean_a, found.mean_b) == (100.0, 97.5)
    assert found.loss == pytest.approx(2.5)
    assert (found.up, found.down) == (0, 8)
    assert (found.both, found.only_a, found.only_b, found.neither) == (0, 0, 0, 0)
    assert found.p == 0.5  # two pictures differ, in one direction
    assert found.low == 0
    assert found.verdict == "not decided with 80 questions"
    # The changed answers are about two pictures, so 80 others would say as much as 20.
    assert found.needed is not None
    assert found.needed > 2 * questions_needed(8 / 80 / 16)


def test_nothing_that_differs_has_the_interval_of_tango() -> None:
    items = [item_of(str(n), ["a"]) for n in range(500)]
    same = answers_of(items, ["a"] * 500)
    found = compare_runs(data_of("textvqa", items), items, same, same)
    assert (found.loss, found.p, found.changed) == (0, 1, 0)
    assert (found.low, found.high) == pytest.approx((-0.762, 0.762), abs=0.001)
    assert found.verdict == "less than 1 point lost"


def test_chartqa_is_right_or_wrong_but_compared_by_picture_where_pictures_are_shared() -> None:
    alone = [item_of(str(n), ["1"]) for n in range(40)]
    shared = [item_of(str(n), ["1"], pictures=[f"{n // 2}.png"]) for n in range(40)]
    for items, pictures in ((alone, 40), (shared, 20)):
        first = answers_of(items, ["1"] * 40)
        second = answers_of(items, ["2"] * 6 + ["1"] * 34)
        found = compare_runs(data_of("chartqa", items), items, first, second)
        assert (found.pictures, found.both, found.only_a) == (pictures, 34, 6)
        single = tango(40, 6, 0) == pytest.approx((found.low / 100, found.high / 100))
        assert single == (pictures == 40)


def test_mmbench_is_compared_by_group_of_rotations() -> None:
    items = [row for n in range(1, 4) for row in rotations(n, ["cat", "dog"], "dog")]
    right = [item.answers[0] for item in items]
    found = compare_runs(
        data_of("mmbench", items),
        items,
        answers_of(items, right),
        answers_of(items, ["A", *right[1:4], "A", right[5]]),
    )
    assert (found.questions, found.both, found.only_a) == (3, 1, 2)
    assert found.changed == pytest.approx(2 / 6)


def test_what_one_model_could_not_answer_is_left_out() -> None:
    items = [item_of(str(n), ["a"]) for n in range(4)]
    first = dict(answers_of(items, ["a"] * 4))
    second = dict(answers_of(items[:3], ["a", "b", "a"]))
    second["2"] = answered(items[2], "", error="Memory ran out.")
    found = compare_runs(data_of("docvqa", items), items, first, second)
    assert (found.questions, found.mean_a, found.mean_b) == (2, 100, 50)


def test_runs_that_were_asked_differently_can_not_be_compared() -> None:
    items = [item_of("1", ["a"])]
    first = answers_of(items, ["a"])
    other = {"1": answered(item_of("1", ["a"], pictures=["other.png"]), "a")}
    data = data_of("docvqa", items)
    with pytest.raises(UsageError, match="'1' was asked with different words or another picture"):
        compare_runs(data, items, first, other)
    with pytest.raises(UsageError, match="no question of docvqa in common that both answered"):
        compare_runs(data, items, first, {})


def test_mmvet_without_grades_only_counts_changed_answers() -> None:
    items = [item_of(str(n), ["a"], capability="ocr") for n in range(4)]
    first, second = answers_of(items, ["a", "b", "c", "d"]), answers_of(items, ["a", "b", "c", "x"])
    found = compare_runs(data_of("mmvet", items), items, first, second)
    assert (found.verdict, found.changed, found.questions) == ("not graded", 0.25, 0)
    grades = [
        Grades(judge="j", scores={str(n): (score,) for n in range(4)}) for score in (0.5, 0.4)
    ]
    found = compare_runs(data_of("mmvet", items), items, first, second, *grades)
    assert found.loss == pytest.approx(10)
    # One file of grades says nothing about the answers of another model.
    found = compare_runs(data_of("mmvet", items), items, first, second, grades[0], grades[0])
    assert found.verdict == "not graded"
    found = compare_runs(data_of("mmvet", items), items, first, first, grades[0], grades[0])
    assert (found.loss, found.mean_a) == (0, 50)


def test_the_overall_line_is_the_mean_of_the_losses() -> None:
    first, second = compared(20, 8, both=472), compared(0, 0, both=500)
    found = overall([first, second])
    assert found is not None
    assert (found.benchmarks, found.loss) == (2, pytest.approx(1.2))
    half = math.hypot((first.high - first.low) / 2, (second.high - second.low) / 2) / 2
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert overall([first]) is None
    assert overall([first, second]) == found


def test_a_comparison_can_be_written_as_json() -> None:
    found = json.loads(json.dumps(compared(3, 1, both=10).as_dict()))
    assert found["only_a"] == 3
    assert "differences" not in found
