"""Files for the programs that the benchmarks' authors score with, and files from them.

`export` writes what they read, so that anyone can check a score of this program. `read_predictions`
reads answers in VLMEvalKit's form, `read_grades` the grades of MM-Vet's evaluator.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cogvlm2_lite.errors import DataError, DoesNotFitError, UsageError
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.items import Data, Item
from cogvlm2_lite.evaluate.subsets import countable
from cogvlm2_lite.evaluate.totals import Grades, score_answers
from cogvlm2_lite.file_names import escape_line, valid_text
from cogvlm2_lite.files import write_whole

_MOST_CELL = 1 << 26
"""Characters of a cell; more than any answer has."""
_HANDWRITTEN_FORMULAS = "Handwritten Mathematical Expression Recognition"
_FORMULA_SET = "HME100k"
"""The data set of that category, by which the official program of OCRBench knows formulas."""


# --- export ---------------------------------------------------------------------------------------


def export(
    folder: Path, data: Data, items: Sequence[Item], answers: Mapping[str, Answered]
) -> list[Path]:
    """Write the answers in the forms of the reference programs, and return the files.

    items  the questions that were asked; those without an answer are left out

    Every benchmark gets NAME.tsv, VLMEvalKit's form with its columns index and prediction. TextVQA,
    DocVQA, MMMU, OCRBench and MM-Vet get NAME.json, too, which their authors' programs read.
    Existing exports are replaced. Raises DoesNotFitError if a file can't be written.
    """
    asked = [(item, answers[item.id]) for item in items if item.id in answers]
    files = {folder / f"{data.name}_vlmevalkit.tsv": _vlmevalkit(data, asked)}
    official = _OFFICIAL.get(data.benchmark)
    content = official(data, asked) if official is not None else None
    if content:
        # ASCII only: some of the programs open the file in the encoding of their computer.
        files[folder / f"{data.name}_official.json"] = f"{json.dumps(content, indent=1)}\n"
    for file, text in files.items():
        _write(file, text)
    return list(files)


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda new: new.write_bytes(text.encode()))
    except OSError as error:
        raise DoesNotFitError(
            "{file} can't be written: {why}.",
            hint="Free some space, or check that you may write there.",
            file=file,
            why=error.strerror or error,
        ) from error


Asked = list[tuple[Item, Answered]]


def _vlmevalkit(data: Data, asked: Asked) -> str:
    """Return a table as VLMEvalKit writes it with PRED_FORMAT=tsv: all cells are quoted."""
    letters = sorted({letter for item, _ in asked for letter in item.options})
    labels = list(dict.fromkeys(name for item, _ in asked for name in _labels(data, item)))
    head = ["index", "question", "hint", *letters, "answer", *labels, "prediction"]
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(head)
    for item, answered in asked:
        options = [item.options.get(letter, "") for letter in letters]
        labelled = [_labels(data, item).get(name, "") for name in labels]
        cells = [item.id, item.question, item.hint, *options, _references(data, item), *labelled]
        writer.writerow([valid_text(cell) for cell in (*cells, answered.answer)])
    return out.getvalue()


def _labels(data: Data, item: Item) -> Mapping[str, str]:
    """Return the labels of an item with VLMEvalKit's names for them."""
    names = _LABELS.get(data.benchmark, {})
    return {names.get(name, name): text for name, text in item.labels.items()}


_LABELS = {
    "mmmu": {"subject": "category", "discipline": "l2-category"},
    "mmvet": {"capability": "category"},
}


def _references(data: Data, item: Item) -> str:
    """Return the references as the data file has them: one text, or the text of a Python list."""
    if len(item.answers) == 1 and data.benchmark not in ("textvqa", "docvqa", "ocrbench"):
        return item.answers[0]
    return repr(list(item.answers)) if item.answers else ""


def _textvqa(data: Data, asked: Asked) -> list[dict[str, Any]]:
    return [
        {"question_id": _number(item, "question_id"), "answer": answered.answer}
        for item, answered in asked
    ]


def _docvqa(data: Data, asked: Asked) -> list[dict[str, Any]]:
    """Return all questions: the competition's program refuses a file that lacks one."""
    given = {item.id: answered.answer for item, answered in asked}
    return [
        {"questionId": _number(item, "questionId"), "answer": given.get(item.id, "")}
        for item in data.items
    ]


def _mmmu(data: Data, asked: Asked) -> dict[str, str]:
    """Return a letter for each choice question, "" where none was read, and the text for others.

    Questions of the split "dev" are left out: the official answers are those of the validation
    split, and the program stops at any other. {} if the data file has no official ids.
    """
    counted = {item.id for item in countable(data)}
    chosen = [(item, answered) for item, answered in asked if item.id in counted]
    if not all("question_id" in item.fields for item, _ in chosen):
        return {}
    answers = {item.id: answered for item, answered in chosen}
    scores = score_answers(data, [item for item, _ in chosen], answers).items
    return {
        item.fields["question_id"]: (
            scores[item.id].read or "" if item.options else answered.answer
        )
        for item, answered in chosen
    }


def _ocrbench(data: Data, asked: Asked) -> list[dict[str, Any]]:
    return [
        {**_ocrbench_row(item, place), "predict": answered.answer}
        for place, (item, answered) in enumerate(asked)
    ]


def _ocrbench_row(item: Item, place: int) -> dict[str, Any]:
    """Return the object of OCRBench.json for an item; it is made for items of other files."""
    if "row" in item.fields:
        return dict(item.fields["row"])
    category = item.labels.get("category", "")
    return {
        "dataset_name": _FORMULA_SET if category == _HANDWRITTEN_FORMULAS else "",
        "id": str(place),
        "image_path": "",
        "question": item.question,
        "answers": list(item.answers),
        "type": category,
    }


def _mmvet(data: Data, asked: Asked) -> dict[str, str]:
    return {_mmvet_id(item): answered.answer for item, answered in asked}


def _mmvet_id(item: Item) -> str:
    """Return the official id of a question of MM-Vet."""
    return str(item.fields.get("question_id", item.id))


def _number(item: Item, field: str) -> int | str:
    """Return an id as a number, which the programs compare with those of their own files."""
    found = item.fields.get(field, item.id)
    return int(found) if str(found).isdecimal() else str(found)


_OFFICIAL: Mapping[str, Callable[[Data, Asked], Any]] = {
    "textvqa": _textvqa,
    "docvqa": _docvqa,
    "mmmu": _mmmu,
    "ocrbench": _ocrbench,
    "mmvet": _mmvet,
}


# --- predictions ----------------------------------------------------------------------------------


def read_predictions(path: Path, data: Data) -> dict[str, str]:
    """Return the answers of a prediction file of VLMEvalKit, by the id of their question.

    path  a file that VLMEvalKit wrote with PRED_FORMAT=tsv or PRED_FORMAT=json, or `export`

    Of several answers to a question the last one counts. Raises DataError for a damaged file, and
    UsageError for another one and for an index that the data does not have.
    """
    rows = _tsv_rows(path) if path.suffix.lower() == ".tsv" else _json_rows(path)
    known = {item.id for item in data.items}
    found: dict[str, str] = {}
    for place, row in rows:
        item_id = _index_text(row["index"], known)
        if item_id not in known:
            raise UsageError(
                "{file}, row {row}: {data} has no question with the index {index!r}.",
                hint="Name the prediction file of this benchmark and of this version of its data.",
                file=path,
                row=place,
                data=data.name,
                index=escape_line(item_id)[:100],
            )
        found[item_id] = _cell_text(row["prediction"])
    if not found:
        raise UsageError(
            "{file} has no predictions.", hint="Let VLMEvalKit answer first.", file=path
        )
    return found


def _index_text(value: Any, known: set[str]) -> str:
    """Return an index as the data has it. Some programs write numbers as "12.0"."""
    text = _cell_text(value).strip()
    whole = text.removesuffix(".0")
    return whole if text not in known and whole in known else text


def _cell_text(value: Any) -> str:
    """Return a cell as text; a missing one is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


Row = tuple[int, Mapping[str, Any]]
"""A row's number from 1, and its cells by column."""


def _tsv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), _MOST_CELL))
    rows = csv.reader(io.StringIO(_text(path), newline=""), delimiter="\t", strict=True)
    place = 0
    try:
        head = next(rows, [])
        _check_columns(path, head)
        for place, cells in enumerate(rows, 1):
            if not cells:  # an empty line
                continue
            if len(cells) != len(head):
                raise _damaged(path, f"row {place} has {len(cells)} cells instead of {len(head)}")
            yield place, dict(zip(head, cells, strict=True))
    except csv.Error as error:
        raise _damaged(path, f"row {place + 1}: {error}") from error


def _json_rows(path: Path) -> Iterator[Row]:
    if path.suffix.lower() != ".json":
        raise UsageError(
            "{file} is neither a .tsv nor a .json file.",
            hint="Let VLMEvalKit write its predictions with PRED_FORMAT=tsv or PRED_FORMAT=json.",
            file=path,
        )
    rows = _json(path)
    if not isinstance(rows, list):
        raise _damaged(path, "it is not a list of rows")
    for place, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _damaged(path, f"row {place} is not an object")
        _check_columns(path, row)
        if isinstance(row["prediction"], dict | list):
            raise _damaged(path, f"the prediction of row {place} is not a text")
        yield place, row


def _check_columns(path: Path, columns: Sequence[str] | Mapping[str, Any]) -> None:
    missing = [name for name in ("index", "prediction") if name not in columns]
    if missing:
        raise UsageError(
            "{file} has no column {name!r}.",
            hint="A prediction file of VLMEvalKit has the columns index and prediction.",
            file=path,
            name=missing[0],
        )


# --- grades ---------------------------------------------------------------------------------------


def read_grades(path: Path, data: Data | None = None) -> Grades:
    """Return the grades of a file that MM-Vet's evaluator wrote (..._grade-Nruns.json).

    data  the questions that the grades belong to

    Raises DataError for another file, for grades that are not numbers from 0 to 1, for questions
    with different numbers of grades, and for a question that the data does not have.
    """
    content = _json(path)
    if not isinstance(content, dict) or not content:
        raise _no_grades(path, "it is not an object with an entry for each question")
    known = {_mmvet_id(item) for item in data.items} if data is not None else set(content)
    judges: dict[str, None] = {}
    scores: dict[str, tuple[float, ...]] = {}
    for name, entry in content.items():
        if name not in known:
            raise _no_grades(path, f"the data has no question {escape_line(name)[:100]!r}")
        scores[name] = tuple(_grades(path, name, entry))
        models = entry.get("model")
        judges |= dict.fromkeys(map(str, models if isinstance(models, list) else []))
    runs = {len(found) for found in scores.values()}
    if len(runs) > 1:
        raise _no_grades(path, f"some questions have {min(runs)} grades and others {max(runs)}")
    return Grades(judge=", ".join(judges) or "a judge that is not named", scores=scores)


def _grades(path: Path, name: str, entry: Any) -> Iterator[float]:
    grades = entry.get("score") if isinstance(entry, dict) else None
    if not isinstance(grades, list) or not grades:
        raise _no_grades(path, f"{escape_line(name)[:100]!r} has no list of scores")
    for grade in grades:
        number = isinstance(grade, int | float) and not isinstance(grade, bool)
        if not number or not 0 <= grade <= 1:  # also refuses NaN
            raise _no_grades(
                path, f"the score of {escape_line(name)[:100]!r} is {str(grade)[:40]!r}"
            )
        yield float(grade)


def _no_grades(path: Path, why: str) -> DataError:
    return DataError(
        "{file} is not a complete grade file of MM-Vet's evaluator: {why}.",
        hint="Scores are numbers from 0 to 1, one for each run. Let the evaluator finish, and name "
        "its file ...-grade-Nruns.json.",
        file=path,
        why=why,
    )


# --- files ----------------------------------------------------------------------------------------


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    except RecursionError as error:
        raise _damaged(path, "its brackets are nested too deeply") from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            "{file} can't be read: {why}.",
            hint="Check the spelling of the path, and that you may read it.",
            file=path,
            why=error.strerror or error,
        ) from error
    except UnicodeDecodeError as error:
        raise _damaged(path, f"byte {error.start} is not UTF-8") from error


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        "{file} is damaged or cut: {why}.",
        hint="Write or copy the file again.",
        file=path,
        why=why,
    )
