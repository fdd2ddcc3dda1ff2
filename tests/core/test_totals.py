"""The score of a benchmark: what counts, what is left out, and how sure it is."""

from __future__ import annotations

import json
import math

import pytest

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.rules import mmmu, ocrbench
from cogvlm2_lite.evaluate.scoring import score
from cogvlm2_lite.evaluate.totals import Grades, Part, Score, score_answers
from tests.helpers.benchmark_data import answered, answers_of, data_of, item_of, rotations
from tests.helpers.metric_goldens import RAISES, cases


def part(found: Score, kind: str, name: str) -> Part:
    return next(one for one in found.parts if (one.kind, one.name) == (kind, name))


# --- questions of one kind ------------------------------------------------------------------------


def test_textvqa_is_the_mean_of_the_accuracies_and_other_rules_stand_beside_it() -> None:
    people = ["lemon", "orbit", "tulip", "cedar", "pixel", "quartz"]
    items = [item_of(str(n), ["5"] * 4 + people) for n in range(2)]
    found = score_answers(data_of("textvqa", items), items, answers_of(items, ["5.", "five"]))
    assert (found.value, found.rules, found.hits) == (100.0, "official", None)
    assert found.beside == {"vlmevalkit": 50.0, "vlmevalkit_2024": 100.0}
    assert found.items["0"].by_rules == pytest.approx(
        {"official": 1.0, "vlmevalkit": 0.0, "vlmevalkit_2024": 1.0}
    )


def test_docvqa_shows_the_question_types_of_the_file() -> None:
    items = [
        item_of("1", ["total", "sum"], question_types="table/list, layout"),
        item_of("2", ["1200"], question_types="layout"),
    ]
    found = score_answers(data_of("docvqa", items), items, answers_of(items, ["Total", "$1,200"]))
    assert found.value == pytest.approx(100 * (1 + 4 / 6) / 2)
    assert [(one.name, one.asked) for one in found.parts] == [("layout", 2), ("table/list", 1)]
    assert found.beside == {}


def test_chartqa_has_its_two_halves_and_both_years_of_vlmevalkit() -> None:
    items = [
        item_of("a", ["20"], split="test_augmented"),
        item_of("h", ["100"], split="test_human"),
    ]
    found = score_answers(data_of("chartqa", items), items, answers_of(items, ["19", " 105.01"]))
    assert (found.value, found.hits, found.rules) == (50.0, 1, "vlmevalkit")
    assert found.beside == {"official": 50.0, "vlmevalkit_2024": 50.0}
    assert [(one.name, one.hits) for one in found.parts] == [
        ("test_human", 0),
        ("test_augmented", 1),
    ]


def test_a_persons_own_questions_are_right_if_they_equal_a_reference() -> None:
    items = [item_of("1", ["two"]), item_of("2", ["red", "dark red"])]
    found = score_answers(data_of("vqa", items), items, answers_of(items, ["2.", "Red car"]))
    assert (found.value, found.hits, found.rules) == (50.0, 1, "equal")


# --- errors and missing answers -------------------------------------------------------------------


def test_an_error_is_wrong_and_listed_and_what_was_not_asked_is_not_counted() -> None:
    items = [item_of(str(n), ["1"]) for n in range(5)]
    given = {
        "0": answered(items[0], "1"),
        "1": answered(items[1], "", error="The picture is damaged."),
        "2": answered(items[2], "1 1 1 1 1", reason="length"),
        "3": answered(items[3], ""),
    }
    found = score_answers(data_of("docvqa", items), items, given)
    assert (found.asked, found.of) == (4, 5)
    assert found.value == 25.0
    assert found.errors == ("1",)
    assert "4" not in found.items
    assert {name: found.counts[name] for name in ("errors", "token_limit", "empty")} == {
        "errors": 1, "token_limit": 1, "empty": 1,
    }  # fmt: skip


def test_without_an_answer_there_is_no_score() -> None:
    items = [item_of("1", ["1"])]
    for benchmark in (
        "textvqa",
        "docvqa",
        "chartqa",
        "ocrbench",
        "mmmu",
        "mmvet",
        "mmbench",
        "vqa",
    ):
        found = score_answers(data_of(benchmark, items), items, {})
        assert (found.value, found.low, found.high, found.asked) == (None, None, None, 0)


def test_an_answer_or_a_grade_of_other_data_is_refused() -> None:
    items = [item_of("1", ["1"])]
    stranger = item_of("2", ["1"])
    with pytest.raises(UsageError, match="answer to the question '2', but docvqa has no such"):
        score_answers(data_of("docvqa", items), items, answers_of([stranger], ["1"]))
    grades = Grades(judge="gpt-4-0613", scores={"v1_9": (1.0,)})
    with pytest.raises(UsageError, match="grade of the question 'v1_9', but mmvet has no such"):
        score_answers(data_of("mmvet", items), items, {}, grades)


def test_grades_of_mmvet_may_be_given_for_other_benchmarks_too() -> None:
    items = [item_of("1", ["1"])]
    grades = Grades(judge="gpt-4-0613", scores={"v1_9": (1.0,)})
    found = score_answers(data_of("docvqa", items), items, answers_of(items, ["1"]), grades)
    assert (found.value, found.judge) == (100, None)


def test_only_the_chosen_items_count() -> None:
    items = [item_of(str(n), ["1"]) for n in range(3)]
    found = score_answers(data_of("docvqa", items), items[:2], answers_of(items, ["1", "2", "2"]))
    assert (found.value, found.asked, found.of) == (50.0, 2, 3)


# --- intervals ------------------------------------------------------------------------------------


def test_the_interval_resamples_pictures_and_not_questions() -> None:
    apart = [item_of(str(n), ["1"]) for n in range(40)]
    shared = [item_of(str(n), ["1"], pictures=[f"{n // 10}.png"]) for n in range(40)]
    texts = ["1"] * 20 + ["2"] * 20
    wide = []
    for items in (apart, shared):
        found = score_answers(data_of("docvqa", items), items, answers_of(items, texts))
        assert found.low is not None
        assert found.high is not None
        assert found.low < 50 < found.high
        wide.append(found.high - found.low)
    assert wide[0] == pytest.approx(2 * 1.96 * 100 * math.sqrt(0.25 / 40), rel=0.1)
    assert wide[1] > 2 * wide[0]


def test_equal_scores_have_wilsons_interval() -> None:
    items = [item_of(str(n), ["1"]) for n in range(10)]
    found = score_answers(data_of("docvqa", items), items, answers_of(items, ["1"] * 10))
    assert found.high == 100
    assert found.low == pytest.approx(72.25, abs=0.01)  # published for 10 of 10


def test_the_same_answers_have_the_same_score_to_the_bit() -> None:
    items = [item_of(str(n), [str(n % 3)]) for n in range(30)]
    given = answers_of(items, [str(n % 2) for n in range(30)])
    first, second = (score_answers(data_of("docvqa", items), items, given) for _ in range(2))
    assert json.dumps(first.as_dict()) == json.dumps(second.as_dict())


# --- OCRBench -------------------------------------------------------------------------------------


def test_ocrbench_estimates_the_whole_from_the_shares_of_the_categories() -> None:
    large = [item_of(f"s{n}", ["x"], category="Scene Text-centric VQA") for n in range(8)]
    small = [item_of(f"d{n}", ["x"], category="Digit String Recognition") for n in range(2)]
    asked = [*large[:2], *small]
    found = score_answers(
        data_of("ocrbench", [*large, *small]), asked, answers_of(asked, ["X", "y", "ax", "x"])
    )
    assert (found.unit, found.hits, found.asked, found.of) == ("hits", 3, 4, 10)
    assert found.estimate is not None
    assert found.estimate[0] == 8 * 0.5 + 2
    assert found.estimate[1] < 6 < found.estimate[2]
    assert found.value == 60.0
    assert part(found, "group", ocrbench.RECOGNITION).hits == 2
    assert part(found, "category", "Scene Text-centric VQA").asked == 2


def test_a_category_without_a_question_leaves_no_estimate() -> None:
    items = [
        item_of("1", ["x"], category="Scene Text-centric VQA"),
        item_of("2", ["x"], category="Digit String Recognition"),
    ]
    found = score_answers(data_of("ocrbench", items), items[:1], answers_of(items[:1], ["x"]))
    assert (found.estimate, found.hits, found.value) == (None, 1, 100.0)


def test_the_golden_totals_of_ocrbench_are_reached_through_answers() -> None:
    for case in cases("ocrbench_total"):
        rows = case["input"]["rows"]
        items = [item_of(str(n), row[1], category=row[0]) for n, row in enumerate(rows)]
        found = score_answers(
            data_of("ocrbench", items), items, answers_of(items, [row[2] for row in rows])
        )
        expected = case["expected"]["vlmevalkit"]
        assert found.hits == expected["Final Score"]
        for one in found.parts:
            if one.kind == "group":
                assert one.hits == expected[one.name]


# --- MMMU -----------------------------------------------------------------------------------------


def test_mmmu_takes_no_random_letter_and_counts_the_unread() -> None:
    options = ["red", "blue", "green", "grey"]
    items = [
        item_of("1", ["B"], options=options, subject="Art", discipline="Art and Design"),
        item_of("2", ["B"], options=options, subject="Art", discipline="Art and Design"),
        item_of("3", ["30", "thirty"], subject="Math", discipline="Science", pictures=["a", "b"]),
        item_of("4", ["B"], options=options, subject="Math", discipline="Science"),
    ]
    found = score_answers(
        data_of("mmmu", items), items, answers_of(items, ["B", "blue", "It is 30", "A and C"])
    )
    assert (found.value, found.hits) == (50.0, 2)
    assert found.counts["no_letter"] == 1
    assert found.items["2"].read is None
    assert found.beside == {
        "official_expected": 100 * (2 + 1 / 4) / 4,
        "vlmevalkit": 50.0,
        "vlmevalkit_2024": 50.0,
    }
    assert [(one.kind, one.name, one.hits, one.asked) for one in found.parts] == [
        ("discipline", "Art and Design", 1, 2),
        ("discipline", "Science", 1, 2),
        ("subject", "Art", 1, 2),
        ("subject", "Math", 1, 2),
        ("question type", "multiple-choice", 1, 3),
        ("question type", "open", 1, 1),
        ("number of pictures", "one picture", 1, 3),
        ("number of pictures", "several pictures", 1, 1),
    ]


def test_questions_of_mmmus_dev_split_are_not_of_the_set() -> None:
    items = [item_of("1", ["30"], split="dev"), item_of("2", ["30"], split="validation")]
    found = score_answers(data_of("mmmu", items), items[1:], answers_of(items[1:], ["30"]))
    assert (found.asked, found.of, found.value) == (1, 1, 100)


def test_the_golden_totals_of_mmmu_are_reached_through_answers() -> None:
    for case in cases("mmmu_total"):
        expected = case["expected"]["official"]
        answers, predictions = case["input"]["answers"], case["input"]["predictions"]
        if RAISES in expected or not predictions or predictions.keys() - answers.keys():
            continue
        items = []
        for id, answer in answers.items():
            truth, subject = answer["ground_truth"], mmmu.subject_of(id)
            of = next(name for name, those in mmmu.DISCIPLINES.items() if subject in those)
            options = list("wxyz") if answer["question_type"] == mmmu.CHOICE else []
            references = [truth] if isinstance(truth, str) else truth
            items.append(item_of(id, references, options=options, subject=subject, discipline=of))
        asked = [item for item in items if item.id in predictions]
        given = answers_of(asked, [predictions[item.id] for item in asked])
        found = score_answers(data_of("mmmu", items), items, given)
        assert found.value is not None
        assert round(found.value / 100, 3) == expected["Overall"]["acc"], case["id"]
        for one in found.parts:
            if one.kind in ("discipline", "subject"):
                name = f"Overall-{one.name}" if one.kind == "discipline" else one.name
                assert round(one.value / 100, 3) == expected[name]["acc"], case["id"]
                assert one.asked == expected[name]["num"], case["id"]


# --- MMBench --------------------------------------------------------------------------------------


def test_a_group_counts_when_all_its_rows_are_right() -> None:
    first = rotations(1, ["cat", "dog", "owl"], "dog", category="x", l2_category="logic_reasoning")
    second = rotations(2, ["cat", "dog"], "cat", category="y", l2_category="coarse_perception")
    items = [*first, *second]
    right = [item.answers[0] for item in items]
    found = score_answers(data_of("mmbench", items), items, answers_of(items, right))
    assert (found.value, found.hits, found.groups) == (100.0, 2, {"1": 1.0, "2": 1.0})
    found = score_answers(data_of("mmbench", items), items, answers_of(items, ["A"] * 5))
    assert (found.value, found.hits) == (0.0, 0)
    assert found.beside["vanilla"] == 50.0
    assert [(one.kind, one.name) for one in found.parts] == [
        ("l2-category", "CP"), ("l2-category", "LR"), ("category", "x"), ("category", "y"),
    ]  # fmt: skip
    assert found.counts["rule_letter"] == 5


def test_the_bounds_of_mmbench_differ_by_the_answers_without_a_letter() -> None:
    first, second = rotations(1, ["cat", "dog"], "dog"), rotations(2, ["cat", "dog"], "cat")
    items = [*first, *second]
    texts = [first[0].answers[0], "I see a bird", second[0].answers[0], "Z"]
    found = score_answers(data_of("mmbench", items), items, answers_of(items, texts))
    assert found.value == found.beside["lower_bound"] == 0.0
    assert found.beside["upper_bound"] == 50.0
    assert (found.counts["no_letter"], found.counts["rule_refusal"]) == (1, 1)


def test_an_incomplete_group_is_left_out_and_counted() -> None:
    items = [*rotations(1, ["cat", "dog"], "dog"), *rotations(2, ["cat", "dog"], "cat")]
    given = dict(answers_of(items, [item.answers[0] for item in items]))
    del given["1000001"]
    found = score_answers(data_of("mmbench", items), items, given)
    assert (found.value, found.counts["groups"], found.counts["incomplete_groups"]) == (100, 1, 1)
    # The file itself lacks a rotation of the second question.
    found = score_answers(data_of("mmbench", items[:3]), items[:3], answers_of(items[:3], "BAA"))
    assert found.counts["incomplete_groups"] == 1


def test_an_error_makes_a_group_wrong_also_in_the_upper_bound() -> None:
    items = rotations(1, ["cat", "dog"], "dog")
    given = {
        items[0].id: answered(items[0], "B"),
        items[1].id: answered(items[1], "", error="The picture is damaged."),
    }
    found = score_answers(data_of("mmbench", items), items, given)
    assert (found.value, found.beside["upper_bound"]) == (0.0, 0.0)


def test_the_golden_circles_are_reached_through_answers() -> None:
    seen = 0
    for case in cases("mmbench_circular"):
        rows, letters = case["input"]["rows"], dict(case["input"]["answers"])
        if case["group"] in ("missing_pass", "missing_main", "splits"):
            continue  # what is missing is left out here, and splits are not mixed
        items = [
            item_of(
                str(row["index"]),
                [letters[row["index"]]],
                group=str(row["index"] % 1_000_000),
                options=[row[letter] for letter in "ABCD" if letter in row],
                l2_category=row["l2-category"],
                category=row["category"],
            )
            for row in rows
        ]
        given = answers_of(items, [row["prediction"] for row in rows])
        found = score_answers(data_of("mmbench", items), items, given)
        expected = case["expected"]["vlmevalkit"]
        assert found.groups == {str(index): hit for index, hit in expected["hits"]}, case["id"]
        for one in found.parts:
            assert one.value / 100 == pytest.approx(expected["accuracy"]["dev"][one.name])
        seen += 1
    assert seen > 50


# --- MM-Vet ---------------------------------------------------------------------------------------


def test_mmvet_is_not_graded_without_a_judge() -> None:
    items = [item_of("0", ["a"], capability="ocr,math"), item_of("1", ["b"], capability="ocr")]
    data, given = data_of("mmvet", items), answers_of(items, ["a", "b"])
    found = score_answers(data, items, given)
    assert (found.value, found.asked, found.counts["not_graded"], found.judge) == (None, 2, 2, None)
    grades = Grades(judge="gpt-4-0613", scores={"0": (0.5, 0.7), "1": (0.2, 0.4)})
    found = score_answers(data, items, given, grades)
    assert found.value == pytest.approx(45)
    assert found.std == pytest.approx(10)
    assert found.judge == "gpt-4-0613"
    assert [(one.kind, one.name, one.asked) for one in found.parts] == [
        ("capability", "ocr", 2),
        ("capability", "math", 1),
        ("capabilities", "math_ocr", 1),
        ("capabilities", "ocr", 1),
    ]


def test_the_golden_totals_of_mmvet_are_reached_through_grades() -> None:
    for case in cases("mmvet_total"):
        if "items" not in case["input"]:
            continue
        given = case["input"]["items"]
        items = [item_of(one["id"], ["a"], capability=",".join(one["capability"])) for one in given]
        grades = Grades(judge="j", scores={one["id"]: tuple(one["scores"]) for one in given})
        found = score_answers(
            data_of("mmvet", items), items, answers_of(items, ["a"] * len(items)), grades
        )
        expected = case["expected"]["official"]
        assert found.value == pytest.approx(expected["total"], abs=0.0501), case["id"]
        assert found.std == pytest.approx(expected["std"], abs=0.0501), case["id"]
        for one in found.parts:
            table = "capabilities" if one.kind == "capability" else "integrations"
            assert one.value == pytest.approx(expected[table][one.name], abs=0.0501), case["id"]


def test_an_answer_that_failed_has_the_grade_zero() -> None:
    items = [item_of("0", ["a"], capability="ocr")]
    given = {"0": answered(items[0], "", error="The picture is damaged.")}
    grades = Grades(judge="j", scores={"0": (1.0,)})
    found = score_answers(data_of("mmvet", items), items, given, grades)
    assert (found.value, found.std) == (0.0, 0.0)


def test_the_rules_take_an_answer_as_score_does() -> None:
    options = ["cat", "dog"]
    item = item_of("1", ["B"], options=options)
    for text in ("B", "(B) dog", "dog", "The answer is B", "A or B"):
        found = score_answers(data_of("mmmu", [item]), [item], answers_of([item], [text]))
        letter = score("mmmu_choice", "official", response=text, options=options)["letter"]
        assert found.items["1"].read == letter
