"""Benchmarks are read in every layout, and damaged files give one clear sentence."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from cogvlm2_lite.errors import CogVLM2LiteError, DataError, ImageError, UsageError
from cogvlm2_lite.evaluate.find import find_data
from cogvlm2_lite.evaluate.items import Data, Item, picture_key, plain_rgb
from cogvlm2_lite.evaluate.literals import list_of_texts
from cogvlm2_lite.evaluate.tsv import read_tsv
from cogvlm2_lite.inputs.limits import ImageLimits

pyarrow = pytest.importorskip("pyarrow")

LAYOUTS = (
    "lmudata_textvqa", "original_textvqa", "hf_textvqa", "lmudata_docvqa", "lmudata_docvqa_local",
    "original_docvqa", "original_spdocvqa", "hf_docvqa", "lmudata_chartqa", "original_chartqa",
    "hf_chartqa", "hf_chartqa_m4", "lmudata_ocrbench", "original_ocrbench", "hf_ocrbench",
    "lmudata_mmmu", "hf_mmmu", "hf_mmmu_merged", "lmudata_mmvet", "original_mmvet", "hf_mmvet",
    "lmudata_mmbench", "lmudata_mmbench_v11", "lmudata_mmbench_cn", "lmudata_mmbench_test",
    "original_mmbench", "hf_mmbench", "hf_mmbench_m4",
)  # fmt: skip
LABELS = {"mmmu": "subject", "mmvet": "capability", "docvqa": "question_types"}
"""Where a benchmark's label for the goldens' `category` has another name."""


@pytest.fixture(scope="module")
def expected(layouts: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layouts / "expected.json").read_text("utf-8"))["layouts"]
    return found


def png(color: str = "red", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def cell(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write_tsv(path: Path, rows: Sequence[Mapping[str, str]], **options: Any) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t", **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(index: int | str, **columns: str) -> dict[str, str]:
    named = {"index": str(index), "image": cell(png()), "question": "Which?", "answer": "red"}
    return named | columns


def as_golden(benchmark: str, item: Item, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item as expected.json has it."""
    found: dict[str, Any] = {
        "id": item.id, "group": item.group, "question": item.question, "hint": item.hint or None,
        "options": dict(item.options), "answers": list(item.answers),
        "split": item.labels.get("split"), "question_type": item.labels.get("question_type"),
        "l2_category": item.labels.get("discipline", item.labels.get("l2-category")),
        "question_id": item.fields.get("question_id"),
        "pictures": [pixels(picture.read()) for picture in item.pictures],
    }  # fmt: skip
    category = item.labels.get(LABELS.get(benchmark, "category"))
    listed = isinstance(wanted.get("category"), list)
    found["category"] = category.split(",") if category and listed else category
    return {name: found[name] for name in wanted if name != "query_vlmevalkit"}


def pixels(data: bytes) -> dict[str, Any]:
    image = plain_rgb(data)
    head = f"{image.width}x{image.height}\n".encode()
    digest = hashlib.sha256(head + image.tobytes()).hexdigest()
    return {"width": image.width, "height": image.height, "rgb_sha256": digest}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_gives_the_questions_answers_and_pixels_of_the_golden_file(
    name: str, layouts: Path, expected: dict[str, Any]
) -> None:
    wanted = expected[name]
    answered = any(one["answers"] for one in wanted["items"])
    data = find_data(wanted["benchmark"], layouts / wanted["path"], answers_needed=answered)
    assert data.benchmark == wanted["benchmark"]
    assert len(data.items) == wanted["count"]
    for item, one in zip(data.items, wanted["items"], strict=True):
        one.pop("query_vlmevalkit", None)
        assert as_golden(data.benchmark, item, one) == one


def test_there_is_a_test_for_every_layout(expected: dict[str, Any]) -> None:
    assert set(LAYOUTS) == set(expected)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if not name.endswith("_test")])
def test_a_benchmark_is_recognized_by_the_path_alone(
    name: str, layouts: Path, expected: dict[str, Any]
) -> None:
    path = layouts / expected[name]["path"]
    if name == "hf_mmbench":  # has both languages
        with pytest.raises(DataError, match="several benchmarks: mmbench, mmbench_cn"):
            find_data(str(path))
        path = path / "en"
    data = find_data(str(path))
    assert data.benchmark == expected[name]["benchmark"]
    edition = "_v11" if name.endswith("_v11") else ""
    assert data.name == data.benchmark + edition


def test_formats_of_one_benchmark_give_the_same_questions(
    layouts: Path, expected: dict[str, Any]
) -> None:
    def content(name: str) -> list[object]:
        wanted = expected[name]
        data = find_data(wanted["benchmark"], layouts / wanted["path"])
        return [(one.question, one.answers, pixels(one.pictures[0].read())) for one in data.items]

    assert content("lmudata_textvqa") == content("original_textvqa") == content("hf_textvqa")
    assert content("lmudata_chartqa") == content("original_chartqa") == content("hf_chartqa_m4")
    assert content("lmudata_ocrbench") == content("original_ocrbench") == content("hf_ocrbench")


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("empty.tsv", r"empty\.tsv is empty"),
        ("header_only.tsv", "has a header but no rows"),
        ("no_image_column.tsv", "has no pictures"),
        ("twice_index.tsv", r"index 1 has the id '1', which another row has"),
        ("points_nowhere.tsv", "index 1 names the row '99' for its picture"),
        ("cut.tsv", "ends in the middle of row 3"),
        ("not_utf8.tsv", r"is not in UTF-8 \(row 1\)"),
        ("textvqa_missing_picture.json", r"1 of 1 picture files are missing; the first is gone\.j"),
        ("cut.parquet", r"cut\.parquet is damaged or cut"),
        ("pointer.parquet", "is a Git LFS pointer: the download is incomplete"),
    ],
)
def test_a_damaged_file_gives_one_sentence(file: str, sentence: str, layouts: Path) -> None:
    for name, data in (
        ("textvqa", layouts / "damaged" / file),
        (str(layouts / "damaged" / file), None),
    ):
        with pytest.raises(DataError, match=sentence) as raised:
            find_data(name, data)
        assert str(raised.value).count(". ") == 0
        assert "\n" not in raised.value.text


def test_a_broken_picture_is_an_error_of_its_question_only(layouts: Path) -> None:
    data = find_data("textvqa", layouts / "damaged" / "bad_base64.tsv")
    for number, message in ((0, "it is not valid base64"), (1, "the rest can't be decoded")):
        picture = data.items[number].pictures[0]
        with pytest.raises(ImageError, match=message):
            plain_rgb(picture.read(), picture.name)
    plain_rgb(data.items[2].pictures[0].read())


def test_a_file_with_byte_order_mark_and_crlf_is_read_as_without(layouts: Path) -> None:
    def content(data: Data) -> list[object]:
        return [(i.id, i.question, i.answers, pixels(i.pictures[0].read())) for i in data.items]

    plain = find_data("textvqa", layouts / "lmudata" / "TextVQA_VAL.tsv")
    assert content(find_data(str(layouts / "damaged" / "bom_crlf.tsv"))) == content(plain)


def test_an_answer_that_is_code_stays_text(layouts: Path) -> None:
    first, second = find_data("textvqa", layouts / "damaged" / "evil_answer.tsv").items
    assert first.answers == ("__import__('os').getcwd()",)
    assert second.answers[0].startswith("[[[[")


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['a', \"it's\", 'say \"x\"', 'back\\\\slash', 'l\\n2']",
         ("a", "it's", 'say "x"', "back\\slash", "l\n2")),
        (" [1, -2.50, 1e3, None, True,] ", ("1", "-2.5", "1000.0", "None", "True")),
        ("[['a', 'b'], 'c']", ("['a', 'b']", "c")),
        ("[]", ()),
        ("['\\d']", ("\\d",)),
        ("[Blue, Red]", None),
        ("('a', 'b')", None),
        ("['a' 'b']", None),
        ("[1-2-3]", None),
        ("['a'] + ['b']", None),
        ("[f'{1}']", None),
        ("['a'", None),
        ("[" * 2000 + "]" * 2000, None),
        ("[" + "-" * 5000 + "1]", None),
        ("[" + "9" * 5000 + "]", None),
        ("['a', *[1]]", None),
    ],
)  # fmt: skip
def test_a_list_text_is_read_as_a_literal_only(text: str, items: tuple[str, ...] | None) -> None:
    assert list_of_texts(text) == items


def test_hostile_list_texts_are_read_in_a_moment() -> None:
    for text in ("['" + "\\" * 99_999 + "']", "[" + "1," * 300_000 + "]", "['" + "'," * 99_999):
        list_of_texts(text)


def test_cells_may_have_quotes_tabs_and_line_breaks_anywhere(tmp_path: Path) -> None:
    questions = ['5" tall?', 'say "x"', "two\nlines", "tab\there", "cr\r\nlf", '"', "ends\\"]
    rows = [row(number, question=text) for number, text in enumerate(questions)]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        file = write_tsv(tmp_path / "TextVQA_VAL.tsv", rows, quoting=quoting)
        data = find_data("textvqa", file)
        assert [item.question for item in data.items] == questions
        assert {plain_rgb(item.pictures[0].read()).size for item in data.items} == {(8, 6)}
    # A quote within an unquoted cell is an ordinary character.
    text = "index\timage\tquestion\tanswer\n1\t" + cell(png()) + '\t5" or 6"?\t6"\n'
    file.write_text(text, encoding="utf-8")
    (item,) = find_data("textvqa", file).items
    assert (item.question, item.answers) == ('5" or 6"?', ('6"',))


def test_cells_are_split_as_the_csv_module_splits_them(tmp_path: Path) -> None:
    random = Random(3)
    marks = ['"', "\t", "a", "b ", "'", "é", "\\", ",", "\n", "\r\n", '""']

    def text() -> str:
        return "?" + "".join(random.choice(marks) for _ in range(random.randrange(6))) + "."

    image = cell(png())
    for _ in range(150):
        rows = [row(number, image=image, question=text(), answer=text()) for number in range(3)]
        quoting = random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        end = random.choice(("\n", "\r\n"))
        file = write_tsv(tmp_path / "MMVet.tsv", rows, quoting=quoting, lineterminator=end)
        found = read_tsv(file).rows
        assert [(one.question, one.answer) for one in found] == [
            (one["question"], one["answer"]) for one in rows
        ]


def test_cells_above_the_limit_of_the_csv_module_are_read(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.effect_noise((500, 500), 90).save(buffer, "PNG")
    assert len(cell(buffer.getvalue())) > 131_072
    file = write_tsv(tmp_path / "TextVQA_VAL.tsv", [row(1, image=cell(buffer.getvalue()))])
    assert plain_rgb(find_data("textvqa", file).items[0].pictures[0].read()).size == (500, 500)


@pytest.mark.parametrize("end", [60, -200, -1])
def test_a_file_that_ends_early_is_refused(end: int, tmp_path: Path) -> None:
    rows = [row(1), row(2, answer="['a', 'b']")]
    file = write_tsv(tmp_path / "TextVQA_VAL.tsv", rows, lineterminator="\n")
    whole = file.read_bytes()[:-1]
    assert len(find_data("textvqa", file).items) == 2
    file.write_bytes(whole)  # without the last line break it is whole
    assert len(find_data("textvqa", file).items) == 2
    file.write_bytes(whole[:end])
    with pytest.raises(DataError, match="ends in the middle"):
        find_data("textvqa", file)


def test_an_open_quote_is_refused(tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "TextVQA_VAL.tsv", [row(number) for number in range(9)])
    file.write_bytes(file.read_bytes().replace(b"Which?", b'"Which?', 1))
    with pytest.raises(DataError, match="ends in the middle of row 1"):
        find_data("textvqa", file)


def test_rows_may_take_their_picture_from_any_row(tmp_path: Path) -> None:
    rows = [row(1, image="3"), row(2, image=" 3 "), row(3), row(4, image=cell(png("blue")))]
    first, second, third, fourth = find_data(
        "textvqa", write_tsv(tmp_path / "TextVQA_VAL.tsv", rows)
    ).items
    assert picture_key(first) == picture_key(second) == picture_key(third) != picture_key(fourth)
    rows[0]["image"] = "2"  # which only names another row
    with pytest.raises(DataError, match="index 1 names the row '2'"):
        find_data("textvqa", write_tsv(tmp_path / "TextVQA_VAL.tsv", rows))


def test_equal_cells_are_one_picture(tmp_path: Path) -> None:
    rows = [row(1), row(2), row(3, image=f"['{cell(png())}', '{cell(png('blue'))}']")]
    data = find_data("textvqa", write_tsv(tmp_path / "TextVQA_VAL.tsv", rows))
    keys = [picture_key(item) for item in data.items]
    assert keys[0] == keys[1] != keys[2]
    first, second = data.items[2].pictures
    assert (first.read(), second.read()) == (png(), png("blue"))
    assert any("only the first is shown" in notice for notice in data.notices)


def test_rows_without_picture_are_left_out_with_a_remark(tmp_path: Path) -> None:
    rows = [row(1), row(2, image=""), row(3, image="nan")]
    data = find_data("textvqa", write_tsv(tmp_path / "TextVQA_VAL.tsv", rows))
    assert [item.id for item in data.items] == ["1"]
    assert any("without a picture are left out, as in VLMEvalKit: 2" in n for n in data.notices)


def test_indexes_are_numbers_whatever_their_form(tmp_path: Path) -> None:
    rows = [row(" 007 "), row(8, image="7")]
    data = find_data("textvqa", write_tsv(tmp_path / "TextVQA_VAL.tsv", rows))
    assert [item.id for item in data.items] == ["7", "8"]
    with pytest.raises(DataError, match="has the id '7', which another row has"):
        find_data("textvqa", write_tsv(tmp_path / "TextVQA_VAL.tsv", [*rows, row("7")]))


def test_a_picture_may_lie_where_the_localised_file_says(layouts: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png("blue"))
    rows = [
        {"index": "1", "image_path": str(tmp_path / "a.png"), "question": "q", "answer": "a"},
        {"index": "2", "image_path": r"C:\LMUData\images\X\b.png", "question": "q", "answer": "a"},
    ]
    file = write_tsv(tmp_path / "DocVQA_VAL_local.tsv", rows)
    with pytest.raises(DataError, match=r"1 of 2 picture files are missing; the first is C:"):
        find_data("docvqa", file)
    folder = tmp_path / "images" / "DocVQA_VAL"
    folder.mkdir(parents=True)
    (folder / "b.png").write_bytes(png("green"))
    data = find_data("docvqa", file)
    assert [item.pictures[0].read() for item in data.items] == [png("blue"), png("green")]
    assert any("JPEG of quality 75" in notice for notice in data.notices)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\x.png", "C:\\x.png", "a/../../x", "\\\\h\\x"]
)
def test_names_in_a_json_file_may_not_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    listed = [{"imgname": name, "query": "q", "label": "1"}]
    for half in ("human", "augmented"):
        (tmp_path / f"test_{half}.json").write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(DataError, match="outside of the data folder"):
        find_data("chartqa", tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("7", "has no list of questions"),
        ("[]", "has no questions"),
        ("[3]", "question 1 is not a JSON object"),
        ('[{"query": "q"}]', "question 1 has no text 'imgname'"),
        ('[{"query": ["q"], "imgname": "x.png", "label": "1"}]', "question 1 has no text 'query'"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_a_damaged_json_file_gives_one_sentence(
    content: str, sentence: str, tmp_path: Path
) -> None:
    for half in ("human", "augmented"):
        (tmp_path / f"test_{half}.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        find_data("chartqa", tmp_path)


def test_half_of_chartqa_is_refused(layouts: Path, tmp_path: Path) -> None:
    source = layouts / "original" / "chartqa" / "ChartQA Dataset" / "test"
    shutil.copytree(source, tmp_path / "test")
    (tmp_path / "test" / "test_augmented.json").unlink()
    with pytest.raises(DataError, match=r"test_human\.json is there without test_augmented\.json"):
        find_data("chartqa", tmp_path)


def test_pictures_that_are_pointers_are_refused(layouts: Path, tmp_path: Path) -> None:
    shutil.copytree(layouts / "original" / "mmvet", tmp_path / "mmvet")
    pointer = (layouts / "damaged" / "pointer.parquet").read_bytes()
    (tmp_path / "mmvet" / "mm-vet" / "images" / "v1_1.png").write_bytes(pointer)
    with pytest.raises(DataError, match="is a Git LFS pointer"):
        find_data("mmvet", tmp_path)


# Further forms of the same layouts


def test_chartqa_may_have_its_list_under_data(layouts: Path, tmp_path: Path) -> None:
    shutil.copytree(layouts / "original" / "chartqa", tmp_path / "chartqa")
    for file in tmp_path.rglob("test_*.json"):
        file.write_text(json.dumps({"data": json.loads(file.read_text())}), encoding="utf-8")
    data = find_data("chartqa", tmp_path)
    assert [item.id for item in data.items][2:4] == ["human_2", "augmented_0"]


@pytest.mark.parametrize(
    "folder",
    ["train_images", "train_val_images/train_images", "val_images", "images", "../train_images"],
)
def test_pictures_of_textvqa_are_found_where_people_put_them(
    folder: str, layouts: Path, tmp_path: Path
) -> None:
    source = layouts / "original" / "textvqa"
    shutil.copytree(source / "train_images", tmp_path / "set" / folder)
    (tmp_path / "set").mkdir(exist_ok=True)
    shutil.copy(source / "TextVQA_0.5.1_val.json", tmp_path / "set")
    assert len(find_data("textvqa", tmp_path).items) == 5


def test_the_questions_of_mmmu_are_known_without_a_column_of_ids(
    layouts: Path, tmp_path: Path
) -> None:
    csv.field_size_limit(10**9)
    file = layouts / "lmudata" / "MMMU_DEV_VAL.tsv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    named = find_data("mmmu", file)
    for dropped in (["id"], ["id", "category", "l2-category", "split"], ["image_path"]):
        kept = [{k: v for k, v in one.items() if k not in dropped} for one in rows]
        found = find_data("mmmu", write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", kept))
        for one, other in zip(found.items, named.items, strict=True):
            assert (one.labels, one.fields) == (other.labels, other.fields)


def test_another_mirror_of_docvqa_has_numbers_for_ids(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "questionId": [49153, 24580], "question": ["q", "r"], "question_types": [["form"], []],
        "image": [{"bytes": png(), "path": None}] * 2, "docId": [1, 2],
        "ucsf_document_id": ["a", "b"], "ucsf_document_page_no": ["1", "2"],
        "answers": [["6"], ["7", "seven"]],
    }  # fmt: skip
    write_parquet(tmp_path / "validation" / "0000.parquet", columns)
    data = find_data("docvqa", tmp_path)
    assert [(item.id, item.answers) for item in data.items] == [
        ("49153", ("6",)), ("24580", ("7", "seven")),
    ]  # fmt: skip
    assert data.items[0].fields == {"questionId": 49153}
    assert picture_key(data.items[0]) == picture_key(data.items[1])


def test_the_chinese_folder_of_mmbench_has_numbers_and_missing_values(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "index": [7, 1_000_007], "question": ["是什么？"] * 2, "hint": ["nan", None],
        "answer": ["A", "B"], "A": ["圆", "方"], "B": ["方", "圆"], "C": ["nan", None],
        "D": ["nan", None], "category": ["c"] * 2, "image": [{"bytes": png(), "path": None}] * 2,
        "source": ["s"] * 2, "L2-category": ["l"] * 2, "comment": ["nan"] * 2, "split": ["dev"] * 2,
    }  # fmt: skip
    for folder in ("cn", "data"):  # with the language in the folder's name, and without
        file = write_parquet(tmp_path / folder / "dev-00000-of-00001.parquet", columns)
        first, second = find_data("mmbench_cn", file.parent).items
        assert (first.group, second.group, second.id) == ("7", "7", "1000007")
        assert (first.options, first.hint) == ({"A": "圆", "B": "方"}, "")
        with pytest.raises(DataError):
            find_data("mmbench", file.parent)


@pytest.mark.parametrize(
    ("file", "benchmark"),
    [
        ("mmbench_dev_20230712.tsv", "mmbench"),
        ("MMBench_DEV_CN_V11.tsv", "mmbench_cn"),
        ("mmbench_dev_cn_legacy.tsv", "mmbench_cn"),
    ],
)
def test_other_editions_of_mmbench_are_found(file: str, benchmark: str, tmp_path: Path) -> None:
    write_tsv(tmp_path / file, [row(1, A="x", B="y", answer="A", category="c")])
    assert find_data(benchmark, tmp_path).benchmark == benchmark
    assert find_data(str(tmp_path / file)).benchmark == benchmark


# Files without answers


def test_a_file_without_answers_is_refused_with_the_right_file(
    layouts: Path, tmp_path: Path
) -> None:
    test = layouts / "lmudata" / "MMBench_TEST_EN.tsv"
    with pytest.raises(DataError, match=r"no answers .*validation file, MMBench_DEV_EN\.tsv"):
        find_data("mmbench", test)
    rows = [{k: v for k, v in row(1).items() if k != "answer"}]
    with pytest.raises(DataError, match=r"has no answers .*DocVQA_VAL\.tsv"):
        find_data("docvqa", write_tsv(tmp_path / "DocVQA_TEST.tsv", rows))
    with pytest.raises(DataError, match=r"has no answers .*MMMU_DEV_VAL\.tsv"):
        find_data("mmmu", write_tsv(tmp_path / "MMMU_TEST.tsv", rows))
    with pytest.raises(DataError, match=r"has no answers; take TextVQA_VAL\.tsv"):
        find_data("textvqa", write_tsv(tmp_path / "mine.tsv", rows))
    found = find_data("docvqa", tmp_path / "DocVQA_TEST.tsv", answers_needed=False)
    assert found.items[0].answers == ()


def test_a_json_file_without_answers_is_refused_before_its_pictures(
    layouts: Path, tmp_path: Path
) -> None:
    content = json.loads((layouts / "original/docvqa/val/val_v1.0.json").read_text("utf-8"))
    for one in content["data"]:
        del one["answers"]
    (tmp_path / "test_v1.0.json").write_text(json.dumps(content), encoding="utf-8")
    for name, data in (("docvqa", tmp_path), (str(tmp_path / "test_v1.0.json"), None)):
        with pytest.raises(DataError, match=r"no answers .*val_v1\.0_withQT\.json"):
            find_data(name, data)
    with pytest.raises(DataError, match="5 of 5 picture files are missing"):
        find_data("docvqa", tmp_path, answers_needed=False)


def test_the_test_split_of_parquet_is_refused(layouts: Path) -> None:
    file = layouts / "hf" / "textvqa" / "data" / "test-00000-of-00001.parquet"
    for name, data in (("textvqa", file), (str(file), None)):
        with pytest.raises(DataError, match=r"no answers .*the split 'validation'"):
            find_data(name, data)
    assert not find_data("textvqa", file, answers_needed=False).items[0].answers
    with pytest.raises(DataError, match="is the split 'dev', but MMMU is asked with the split 'v"):
        find_data("mmmu", layouts / "hf/mmmu/Accounting/dev-00000-of-00001.parquet")


def test_a_question_without_answer_among_others_is_refused(tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "TextVQA_VAL.tsv", [row(1), row(2, answer="")])
    with pytest.raises(DataError, match="1 of 2 questions have no answer; the first has the id 2"):
        find_data("textvqa", file)


# Options


def test_options_that_pandas_reads_as_missing_stay_in_the_item(tmp_path: Path) -> None:
    rows = [row(1, A="yes", B="None", C="", D="N/A", hint="nan", answer="A", category="x")]
    data = find_data("mmbench", write_tsv(tmp_path / "MMBench_DEV_EN.tsv", rows))
    (item,) = data.items
    assert item.options == {"A": "yes", "B": "None", "D": "N/A"}
    assert item.shown_options == {"A": "yes"}
    assert item.shown_hint == ""
    assert any("concerned: 1" in notice for notice in data.notices)


def test_an_answer_that_is_no_option_is_reported(tmp_path: Path) -> None:
    rows = [row(1, A="x", B="y", answer="C", category="c"), row(2, A="x", B="y", answer=" A ")]
    rows[1]["category"] = "c"
    data = find_data("mmbench", write_tsv(tmp_path / "MMBench_DEV_EN.tsv", rows))
    assert data.items[1].answers == ("A",)
    assert any("none of their options count as wrong: 1" in notice for notice in data.notices)


# Finding


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set all places to an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("LMUData", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME",
                 "HF_DATASETS_CACHE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    return home


def test_nothing_found_names_the_file_and_the_folder(no_data: Path) -> None:
    with pytest.raises(DataError, match="No files of DocVQA were found in") as raised:
        find_data("docvqa")
    assert "Put DocVQA_VAL.tsv into" in raised.value.hint
    assert str(no_data / "LMUData") in raised.value.hint


def test_the_folder_of_vlmevalkit_is_searched(
    layouts: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(layouts / "lmudata", no_data / "LMUData")
    monkeypatch.setenv("LMUData", str(no_data / "absent"))  # does not exist: ~/LMUData
    assert find_data("docvqa").files[0].path == no_data / "LMUData" / "DocVQA_VAL.tsv"
    assert find_data("mmbench").files[0].path.name == "MMBench_DEV_EN.tsv"
    (no_data / "LMUData" / "DocVQA_VAL.tsv").unlink()
    assert find_data("docvqa").files[0].path.name == "DocVQA_VAL_local.tsv"
    monkeypatch.setenv("LMUData", str(layouts / "lmudata"))
    assert find_data("mmbench_cn").files[0].path.parent == layouts / "lmudata"


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", ""])
def test_the_hub_cache_is_searched(
    variable: str, layouts: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = no_data / "x" if variable else no_data / ".cache" / "huggingface"
    hub = root if variable.endswith("CACHE") else root / "hub"
    if variable:
        monkeypatch.setenv(variable, str(root))
    for number, revision in enumerate(("old", "new")):
        folder = hub / "datasets--lmms-lab--MMVet" / "snapshots" / revision / "data"
        folder.mkdir(parents=True)
        blob = hub / "datasets--lmms-lab--MMVet" / "blobs" / revision
        blob.parent.mkdir(exist_ok=True)
        shutil.copy(layouts / "hf" / "mmvet" / "data" / "test-00000-of-00001.parquet", blob)
        (folder / "test-00000-of-00001.parquet").symlink_to(Path("../../../blobs") / revision)
        os.utime(folder.parent, (number, number))
    data = find_data("mmvet")
    assert data.files[0].path.parents[1].name == "new"
    assert len(data.items) == 3


def test_the_cache_of_the_library_datasets_is_named_and_not_read(no_data: Path) -> None:
    cache = no_data / ".cache" / "huggingface" / "datasets"
    (cache / "lmms-lab___doc_vqa").mkdir(parents=True)
    with pytest.raises(DataError) as raised:
        find_data("docvqa")
    assert "The Arrow files in" in raised.value.hint
    assert str(no_data / ".cache" / "huggingface" / "hub") in raised.value.hint


def test_a_parent_folder_with_one_copy_is_enough(layouts: Path) -> None:
    assert len(find_data("ocrbench", layouts / "original").items) == 7
    assert len(find_data("mmvet", layouts / "hf").items) == 3


def test_several_copies_are_refused(layouts: Path) -> None:
    with pytest.raises(DataError, match="Several files have the questions of DocVQA"):
        find_data("docvqa", layouts / "original")
    with pytest.raises(DataError, match="Several files have the questions of ChartQA"):
        find_data("chartqa", layouts / "hf")


def test_a_file_of_another_benchmark_is_refused(layouts: Path) -> None:
    with pytest.raises(DataError, match=r"has the questions of docvqa, not of textvqa"):
        find_data("textvqa", layouts / "lmudata" / "DocVQA_VAL.tsv")
    with pytest.raises(DataError, match=r"has the questions of mmbench_cn, not of mmbench"):
        find_data("mmbench", layouts / "hf" / "mmbench" / "cn" / "dev-00000-of-00001.parquet")
    with pytest.raises(DataError, match="InfographicVQA belongs to no benchmark"):
        find_data(str(layouts / "hf/docvqa/InfographicVQA/validation-00000-of-00001.parquet"))


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown benchmark 'textvqq'") as raised:
        find_data("textvqq")
    assert "demo-vqa" in raised.value.hint
    with pytest.raises(DataError, match="There is no file or folder"):
        find_data("textvqa", tmp_path / "absent.tsv")
    (tmp_path / "x.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"x\.xlsx is not a TSV, JSON or parquet file"):
        find_data("textvqa", tmp_path / "x.xlsx")


@pytest.mark.parametrize(
    "name", ["OCRBench_v2", "MMMU_Pro", "MMVet_v2", "MMBench_RU", "TextVQA_MINI"]
)
def test_a_similar_name_is_another_benchmark(name: str, tmp_path: Path) -> None:
    write_tsv(tmp_path / f"{name}.tsv", [row(1)])
    with pytest.raises(DataError, match="No files of"):
        find_data("ocrbench", tmp_path)
    data = find_data(str(tmp_path / f"{name}.tsv"))
    assert (data.benchmark, data.name) == ("vqa", name)
    assert any("by its columns it is read as VQA" in notice for notice in data.notices)


def test_another_md5_is_a_remark(layouts: Path) -> None:
    data = find_data("docvqa", layouts / "lmudata" / "DocVQA_VAL.tsv")
    (file,) = data.files
    assert file.known is False
    assert file.md5 == hashlib.md5(file.path.read_bytes()).hexdigest()
    assert file.size == file.path.stat().st_size
    assert any(file.md5 in notice for notice in data.notices)
    assert any("5 questions; the published set of DocVQA has 5349" in n for n in data.notices)


def test_nothing_is_written_and_no_address_is_called(
    layouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    before = sorted(layouts.rglob("*"))
    find_data("textvqa", layouts / "lmudata")
    assert sorted(layouts.rglob("*")) == before


def test_text_of_a_file_cannot_move_the_cursor_of_a_terminal(tmp_path: Path) -> None:
    rows = [row("\x1b[2J\n", image="9")]
    with pytest.raises(DataError) as raised:
        find_data("textvqa", write_tsv(tmp_path / "TextVQA_VAL.tsv", rows))
    assert raised.value.text.isprintable()
    for half in ("human", "augmented"):
        listed = json.dumps([{"imgname": "\x1b[2J.png", "query": "q", "label": "1"}])
        (tmp_path / f"test_{half}.json").write_text(listed, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        find_data("chartqa", tmp_path)
    assert raised.value.text.isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "TextVQA_VAL.tsv")
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        find_data("textvqa", tmp_path / "TextVQA_VAL.tsv")
    with pytest.raises(DataError, match="No files of TextVQA"):
        find_data("textvqa", tmp_path)


# Parquet


def write_parquet(path: Path, columns: Mapping[str, list[Any]]) -> Path:
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def test_data_sets_side_by_side_are_not_mixed(layouts: Path, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        shutil.copy(layouts / "hf/mmvet/data/test-00000-of-00001.parquet", tmp_path / folder)
    with pytest.raises(DataError, match="Several files have the questions of MM-Vet"):
        find_data("mmvet", tmp_path)


def test_a_missing_shard_is_refused(layouts: Path, tmp_path: Path) -> None:
    shutil.copytree(layouts / "hf" / "textvqa", tmp_path / "textvqa")
    (tmp_path / "textvqa" / "data" / "validation-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"has no file validation-00001-of-00002\.parquet"):
        find_data("textvqa", tmp_path)


def test_pictures_beside_a_parquet_file_and_across_row_groups(tmp_path: Path) -> None:
    colors = ["red", "blue", "green", "white", "black"]
    (tmp_path / "beside.png").write_bytes(png("yellow"))
    images: list[dict[str, object]] = [{"bytes": png(one), "path": None} for one in colors]
    images.append({"bytes": None, "path": "beside.png"})
    columns: dict[str, list[Any]] = {
        "question_id": [f"v1_{number}" for number in range(6)], "question": ["q"] * 6,
        "answer": ["a"] * 6, "capability": ["ocr, math"] * 6, "image": images,
    }  # fmt: skip
    file = write_parquet(tmp_path / "test-00000-of-00001-0123456789abcdef.parquet", columns)
    data = find_data("mmvet", file)
    wanted = [png(color) for color in [*colors, "yellow"]]
    assert [item.pictures[0].read() for item in data.items] == wanted
    assert data.items[0].labels["capability"] == "ocr,math"
    (tmp_path / "beside.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 picture files are missing; the first is beside"):
        find_data("mmvet", file)


def test_parquet_without_pyarrow_names_the_extra(
    layouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match="needs the package pyarrow") as raised:
        find_data("mmvet", layouts / "hf" / "mmvet")
    assert raised.value.hint == 'Run: pip install "cogvlm2-lite[evaluate]"'
    assert find_data("mmvet", layouts / "lmudata").items


# Pictures


def _bomb() -> bytes:
    """Return a PNG file whose header promises 400 million pixels."""
    plain = png()
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + plain[24:29]
    return plain[:12] + header + struct.pack(">I", zlib.crc32(header)) + plain[33:]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "is empty"),
        (lambda: b"hello", "is text, not a picture"),
        (lambda: png()[:-30], "can't be decoded"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (_bomb, "more than the 130 million"),
    ],
)
def test_a_hostile_picture_is_an_error(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        plain_rgb(make())


def test_every_kind_of_picture_that_ask_reads_is_read() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF"):
        buffer = BytesIO()
        Image.new("RGB", (64, 48), "red").save(buffer, kind)
        assert plain_rgb(buffer.getvalue()).size == (64, 48)


def test_a_picture_file_above_the_limit_is_not_decoded() -> None:
    with pytest.raises(ImageError, match="more than the"):
        plain_rgb(png(), limits=ImageLimits(max_file_bytes=10))


def test_all_errors_are_for_users(tmp_path: Path) -> None:
    """A randomly damaged TSV is read, or is an error with one sentence."""
    rows = [row(1), row(2, image="1"), row(3, answer="['a', 'b']")]
    whole = write_tsv(tmp_path / "TextVQA_VAL.tsv", rows, quoting=csv.QUOTE_ALL).read_bytes()
    for number in range(0, len(whole), 7):
        for damage in (b'"', b"\t", b"\n", b"\xff", b"[", b""):
            broken = whole[:number] + damage + whole[number + 1 :]
            (tmp_path / "TextVQA_VAL.tsv").write_bytes(broken)
            with suppress(CogVLM2LiteError):
                for item in find_data("textvqa", tmp_path / "TextVQA_VAL.tsv").items:
                    plain_rgb(item.pictures[0].read())


def test_the_text_of_a_tsv_is_what_the_csv_module_reads(layouts: Path) -> None:
    for name in ("TextVQA_VAL", "DocVQA_VAL", "MMBench_DEV_EN"):
        text = (layouts / "lmudata" / f"{name}.tsv").read_text(encoding="utf-8")
        csv.field_size_limit(10**9)
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
        data = find_data(str(layouts / "lmudata" / f"{name}.tsv"))
        assert [item.question for item in data.items] == [one["question"] for one in rows]
