"""Files for the benchmarks' own programs, and files from them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.exports import export, read_grades, read_predictions
from cogvlm2_lite.evaluate.find import find_data
from cogvlm2_lite.evaluate.items import Data
from cogvlm2_lite.evaluate.scoring import score
from cogvlm2_lite.evaluate.subsets import countable
from cogvlm2_lite.evaluate.totals import Grades, score_answers
from tests.helpers.evaluations import answered, data, item

TEXTS = (
    "plain", "", "None", "nan", "007", "14.0", '"quoted"\t and\nlines\r\n', "=1+1", "中文 ½",
    "\x0b control", "x" * 40_000, " blanks ",
)  # fmt: skip
CHOICE = {"A": "a duck", "B": "a frog"}


def asked(found: Data, *texts: str) -> dict[str, Answered]:
    return {i.id: answered(i, text) for i, text in zip(found.items, texts, strict=False)}


def read_json(file: Path) -> Any:
    return json.loads(file.read_bytes())


def official(tmp_path: Path, found: Data, answers: dict[str, Answered]) -> Any:
    _, file = export(tmp_path, found, found.items, answers)
    return read_json(file)


@pytest.mark.parametrize("suffix", [".tsv", ".json"])
def test_answers_come_back_as_they_were_whatever_their_text(tmp_path: Path, suffix: str) -> None:
    found = data("chartqa", [item(n) for n in range(len(TEXTS))])
    answers = asked(found, *TEXTS)
    (file,) = export(tmp_path, found, found.items, answers)
    if suffix == ".json":  # as VLMEvalKit writes the same table with PRED_FORMAT=json
        rows = [{"index": int(n), "prediction": a.answer} for n, a in answers.items()]
        file = tmp_path / "model_ChartQA_TEST.json"
        file.write_text(json.dumps(rows, indent=4, ensure_ascii=False), encoding="utf-8")
    assert read_predictions(file, found) == {n: a.answer for n, a in answers.items()}


def test_another_program_reads_the_table_as_it_was_written(tmp_path: Path) -> None:
    csv_reader = pytest.importorskip("pyarrow.csv")
    found = data("chartqa", [item(n) for n in range(len(TEXTS))])
    (file,) = export(tmp_path, found, found.items, asked(found, *TEXTS))
    table = csv_reader.read_csv(
        file,
        parse_options=csv_reader.ParseOptions(delimiter="\t", newlines_in_values=True),
        convert_options=csv_reader.ConvertOptions(
            column_types={"prediction": "string"}, strings_can_be_null=False
        ),
    )
    assert table["prediction"].to_pylist() == list(TEXTS)


def test_the_table_has_vlmevalkits_columns(tmp_path: Path) -> None:
    labels = {"category": "x", "l2-category": "y", "split": "dev"}
    found = data("mmbench", [
        item(1, options=CHOICE, answers=("B",), labels=labels, hint="look"),
        item(1_000_001, group="1", options=CHOICE, answers=("A",), labels=labels),
        item(2, options={"A": "yes"}, answers=("A",), labels=labels),
    ])  # fmt: skip
    (file,) = export(tmp_path, found, found.items, asked(found, "B", "A"))
    with file.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream, delimiter="\t")
    assert head == [
        "index", "question", "hint", "A", "B", "answer", "category", "l2-category", "split",
        "prediction",
    ]  # fmt: skip
    assert rows[0] == [
        "1", "Question 1?", "look", "a duck", "a frog", "B", "x", "y", "dev", "B"
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["1", "1000001"]  # what was not asked is left out
    assert file.read_bytes().startswith(b'"index"\t"question"')  # all cells are quoted


def test_references_are_texts_or_the_text_of_a_list(tmp_path: Path) -> None:
    for benchmark, references, cell in (
        ("textvqa", ("a", "a", "b's"), """['a', 'a', "b's"]"""),
        ("ocrbench", ("one",), "['one']"),
        ("chartqa", ("14",), "14"),
        ("chartqa", ("14", "15"), "['14', '15']"),
    ):
        found = data(benchmark, [item(0, answers=references)])
        file = export(tmp_path, found, found.items, asked(found, "x"))[0]
        with file.open(encoding="utf-8", newline="") as stream:
            (row,) = csv.DictReader(stream, delimiter="\t")
        assert row["answer"] == cell


def test_textvqa_is_a_list_of_question_ids_and_answers(tmp_path: Path) -> None:
    found = data("textvqa", [item(7, fields={"question_id": 34602}), item(8)])
    assert official(tmp_path, found, asked(found, "coca cola", "中")) == [
        {"question_id": 34602, "answer": "coca cola"},
        {"question_id": 8, "answer": "中"},
    ]


def test_docvqas_list_has_all_questions_of_the_split(tmp_path: Path) -> None:
    """The competition's program refuses a file without one of them, and compares ids as numbers."""
    found = data("docvqa", [item(n, fields={"questionId": 500 + n}) for n in range(3)])
    _, file = export(tmp_path, found, found.items[:2], asked(found, "a", "b"))
    assert read_json(file) == [
        {"questionId": 500, "answer": "a"},
        {"questionId": 501, "answer": "b"},
        {"questionId": 502, "answer": ""},
    ]


def test_ocrbench_is_its_own_file_with_predict_added(tmp_path: Path) -> None:
    row = {"dataset_name": "svt", "id": "12", "image_path": "svt/1.jpg", "question": "q",
           "answers": "NORTH", "type": "Regular Text Recognition"}  # fmt: skip
    formula = "Handwritten Mathematical Expression Recognition"
    found = data("ocrbench", [
        item(0, fields={"row": row}),
        item(1, labels={"category": formula}, answers=("x ^ 2",)),
    ])  # fmt: skip
    first, second = official(tmp_path, found, asked(found, "north", "x^2"))
    assert first == {**row, "predict": "north"}
    assert (second["dataset_name"], second["type"]) == ("HME100k", formula)
    assert (second["answers"], second["predict"]) == (["x ^ 2"], "x^2")


def test_mm_vet_is_an_object_with_the_official_ids(tmp_path: Path) -> None:
    for values in ({"id": "v1_0"}, {"id": "0", "fields": {"question_id": "v1_0"}}):
        found = data("mmvet", [item(0, **values)])
        assert official(tmp_path, found, asked(found, "a red car")) == {"v1_0": "a red car"}


def test_mmmu_has_letters_for_choices_and_texts_for_open_questions(tmp_path: Path) -> None:
    """The letter is the one that was read. Without one the text is empty, never a random letter."""
    ids = [f"validation_Art_{n}" for n in range(1, 5)]
    choice = {"options": CHOICE, "answers": ("B",)}
    found = data("mmmu", [
        *(item(n, fields={"question_id": ids[n]}, **choice) for n in range(3)),
        item(3, answers=("14",), fields={"question_id": ids[3]}),
        item(4, answers=("14",), fields={"question_id": "dev_Art_1"}, labels={"split": "dev"}),
    ])  # fmt: skip
    texts = ("The answer is B.", "(A)", "I do not know", "It is 14", "14")
    assert official(tmp_path, found, asked(found, *texts)) == dict(
        zip(ids, ("B", "A", "", "It is 14"), strict=True)
    )


def test_mmmu_without_official_ids_has_no_official_file(tmp_path: Path) -> None:
    found = data("mmmu", [item(0, options=CHOICE, answers=("B",))])
    assert len(export(tmp_path, found, found.items, asked(found, "B"))) == 1


def test_official_files_are_ascii_so_that_any_program_can_open_them(tmp_path: Path) -> None:
    found = data("mmvet", [item(0)])
    _, file = export(tmp_path, found, found.items, asked(found, "中文 \ud800"))
    assert file.read_bytes().isascii()
    assert read_json(file)["0"] == "中文 \ud800"


def test_an_answer_that_failed_is_empty(tmp_path: Path) -> None:
    found = data("mmvet", [item(0)])
    answers = {"0": answered(found.items[0], "", error="The picture is damaged.")}
    assert official(tmp_path, found, answers) == {"0": ""}


def test_the_last_of_several_predictions_counts_and_missing_ones_are_missing(
    tmp_path: Path,
) -> None:
    found = data("chartqa", [item(n) for n in range(3)])
    file = tmp_path / "p.tsv"
    file.write_bytes(b"\xef\xbb\xbfindex\tprediction\r\n0\ta\r\n1.0\tb\r\n0\tc\r\n\r\n")
    assert read_predictions(file, found) == {"0": "c", "1": "b"}
    (tmp_path / "p.json").write_text(
        '[{"index": 1.0, "prediction": NaN}, {"index": 0, "prediction": 7}]'
    )
    assert read_predictions(tmp_path / "p.json", found) == {"1": "", "0": "7"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.xlsx", b"PK", "neither a .tsv nor a .json file"),
        ("p.tsv", b"", "no column 'index'"),
        ("p.tsv", b"index\tanswer\n0\ta\n", "no column 'prediction'"),
        ("p.tsv", b"index\tprediction\n", "no predictions"),
        ("p.tsv", b"index\tprediction\n9\ta\n", "row 1: chartqa has no question with the index"),
        ("p.tsv", b"index\tprediction\n0\ta\tb\n", "row 1 has 3 cells instead of 2"),
        ("p.tsv", b'index\tprediction\n0\t"a', "damaged or cut"),
        ("p.tsv", b"index\tprediction\n0\t\xff\n", "byte 19 is not UTF-8"),
        ("p.json", b"[", "damaged or cut"),
        ("p.json", b"{}", "not a list of rows"),
        ("p.json", b"[1]", "row 1 is not an object"),
        ("p.json", b'[{"index": 0}]', "no column 'prediction'"),
        ("p.json", b'[{"index": 0, "prediction": ["a"]}]', "not a text"),
        ("p.json", b'[{"index": "\\u001b[31m", "prediction": ""}]', "index '\\\\x1b[31m'"),
        ("p.json", b"[" * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_damaged_prediction_file_is_one_sentence(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CogVLM2LiteError) as caught:
        read_predictions(tmp_path / name, data("chartqa", [item(0)]))
    assert words in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def grades(*scores: float, model: str = "gpt-4-0613") -> dict[str, Any]:
    return {"model": [model] * len(scores), "content": [str(s) for s in scores], "score": scores}


def test_grades_are_read_with_the_name_of_the_judge(tmp_path: Path) -> None:
    file = tmp_path / "m_gpt-4-grade-2runs.json"
    file.write_text(json.dumps({"v1_0": grades(0.5, 1), "v1_1": grades(0.0, 0.1, model="gpt-4o")}))
    found = read_grades(file)
    assert found.judge == "gpt-4-0613, gpt-4o"
    assert found.scores == {"v1_0": (0.5, 1.0), "v1_1": (0.0, 0.1)}
    numbered = data("mmvet", [item(n, fields={"question_id": f"v1_{n}"}) for n in range(3)])
    assert read_grades(file, numbered) == found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "not an object"),
        ({}, "not an object"),
        ({"v1_0": 1}, "'v1_0' has no list of scores"),
        ({"v1_0": {"score": []}}, "no list of scores"),
        ({"v1_0": grades(float("nan"))}, "'v1_0' is 'nan'"),
        ({"v1_0": grades(1.5)}, "is '1.5'"),
        ({"v1_0": {"score": ["0.5"]}}, "is '0.5'"),
        ({"v1_0": {"score": [True]}}, "is 'True'"),
        ({"v1_0": grades(1), "v1_1": grades(1, 1)}, "some questions have 1 grades and others 2"),
        ({"v1_9": grades(1)}, "the data has no question 'v1_9'"),
    ],
)
def test_grades_that_are_none_are_one_sentence(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "g.json").write_text(json.dumps(content))
    with pytest.raises(CogVLM2LiteError) as caught:
        read_grades(tmp_path / "g.json", data("mmvet", [item(0, id="v1_0"), item(1, id="v1_1")]))
    assert words in caught.value.message


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CogVLM2LiteError, match="can't be read"):
        read_grades(tmp_path / "none.json")
    with pytest.raises(CogVLM2LiteError, match="can't be read"):
        read_predictions(tmp_path / "none.tsv", data("chartqa", [item(0)]))


# --- the layouts of the goldens -------------------------------------------------------------------

LAYOUTS = {
    "lmudata/TextVQA_VAL.tsv": "textvqa",
    "original/textvqa/TextVQA_0.5.1_val.json": "textvqa",
    "lmudata/DocVQA_VAL.tsv": "docvqa",
    "original/docvqa/val/val_v1.0.json": "docvqa",
    "lmudata/ChartQA_TEST.tsv": "chartqa",
    "original/chartqa": "chartqa",
    "lmudata/OCRBench.tsv": "ocrbench",
    "original/ocrbench/OCRBench/OCRBench.json": "ocrbench",
    "lmudata/MMMU_DEV_VAL.tsv": "mmmu",
    "lmudata/MMVet.tsv": "mmvet",
    "original/mmvet/mm-vet/mm-vet.json": "mmvet",
    "lmudata/MMBench_DEV_EN.tsv": "mmbench",
    "lmudata/MMBench_DEV_CN.tsv": "mmbench_cn",
}


def some_answers(found: Data) -> dict[str, Answered]:
    """Return right, wrong, empty and odd answers in turn; all rows of a group get the same kind."""
    groups = list(dict.fromkeys(item.group for item in found.items))
    texts = ("", "{}", "nan", "The answer is {}.", "{}", "None", "{} 中")
    return {
        item.id: answered(
            item, texts[groups.index(item.group) % len(texts)].format(item.answers[0])
        )
        for item in found.items
    }


@pytest.mark.parametrize("path", LAYOUTS)
def test_an_exported_file_of_every_benchmark_is_read_back_with_an_equal_score(
    path: str, layouts: Path, tmp_path: Path
) -> None:
    found = find_data(LAYOUTS[path], layouts / path)
    answers = some_answers(found)
    file, *_ = export(tmp_path, found, found.items, answers)
    given = read_predictions(file, found)
    back = {i.id: answered(i, given[i.id]) for i in found.items}
    grades = None
    if found.benchmark == "mmvet":
        ids = [str(i.fields.get("question_id", i.id)) for i in found.items]
        grades = Grades(judge="gpt-4-0613", scores=dict.fromkeys(ids, (0.4,)))
    before = score_answers(found, found.items, answers, grades)
    assert before.value is not None
    assert score_answers(found, found.items, back, grades) == before


def textvqa_points(found: Data, content: Any) -> float:
    references = {i.fields["question_id"]: i.answers for i in found.items}
    return mean(
        score("vqa_accuracy", "official", prediction=row["answer"],
              answers=references[row["question_id"]])
        for row in content
    )  # fmt: skip


def docvqa_points(found: Data, content: Any) -> float:
    references = {i.fields["questionId"]: i.answers for i in found.items}
    assert sorted(row["questionId"] for row in content) == sorted(references)
    return mean(
        score("anls", "official", prediction=row["answer"], answers=references[row["questionId"]])
        for row in content
    )


def ocrbench_points(found: Data, content: Any) -> float:
    return mean(
        score("ocrbench_hit", "official", prediction=row["predict"], answers=row["answers"],
              category=row["type"])
        for row in content
    )  # fmt: skip


def mmmu_points(found: Data, content: Any) -> float:
    answers = {
        i.fields["question_id"]: {
            "question_type": "multiple-choice" if i.options else "short-answer",
            "ground_truth": i.answers[0] if len(i.answers) == 1 else list(i.answers),
        }
        for i in countable(found)
    }
    total = score("mmmu_total", "official", answers=answers, predictions=content)
    return float(total["Overall"]["acc"])


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


TOTALS = {
    "textvqa": textvqa_points,
    "docvqa": docvqa_points,
    "ocrbench": ocrbench_points,
    "mmmu": mmmu_points,
}


@pytest.mark.parametrize("path", [p for p, name in LAYOUTS.items() if name in TOTALS])
def test_the_official_rules_give_an_exported_file_the_same_score(
    path: str, layouts: Path, tmp_path: Path
) -> None:
    """The file is read as the benchmark's own program reads it, with the references of the data."""
    found = find_data(LAYOUTS[path], layouts / path)
    answers = some_answers(found)
    items = countable(found)
    whole = score_answers(found, items, {i.id: answers[i.id] for i in items})
    value = whole.value
    if whole.hits is not None and found.benchmark == "ocrbench":  # the value is an estimate there
        value = 100 * whole.hits / whole.asked
    content = official(tmp_path, found, answers)
    assert value is not None
    assert 100 * TOTALS[found.benchmark](found, content) == pytest.approx(value, abs=0.051)
