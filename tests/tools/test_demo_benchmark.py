"""The benchmark that ships with the demo model is what its script writes."""

from __future__ import annotations

import base64
import csv
from pathlib import Path

import pytest

from cogvlm2_lite.evaluate.find import find_data
from cogvlm2_lite.evaluate.items import picture_key, plain_rgb
from cogvlm2_lite.evaluate.protocols import PROTOCOLS, Query, query
from tools.demo_model.benchmark import PICTURES, SEED, rows

FILE = Path(__file__).parents[2] / "cogvlm2_lite" / "demo" / "demo-vqa.tsv"


def test_the_file_has_the_rows_and_pixels_that_the_script_writes() -> None:
    with FILE.open(encoding="utf-8", newline="") as stream:
        shipped = list(csv.DictReader(stream, delimiter="\t"))
    for one, made in zip(shipped, rows(), strict=True):
        first, second = one.pop("image"), made.pop("image")
        assert one == made
        assert (len(first) > 64) == (len(second) > 64)
        if len(first) > 64:
            # Other builds of zlib may write other bytes of the same picture.
            pixels = [plain_rgb(base64.b64decode(cell)).tobytes() for cell in (first, second)]
            assert pixels[0] == pixels[1]
        else:
            assert first == second


def test_the_demo_benchmark_is_found_by_its_name() -> None:
    data = find_data("demo-vqa")
    assert (data.benchmark, data.name, data.notices) == ("vqa", "demo-vqa", ())
    assert 100 <= len(data.items) <= 200
    assert len({picture_key(item) for item in data.items}) == PICTURES
    kinds = {(item.labels["category"], item.labels["l2-category"]) for item in data.items}
    wanted = {(a, b) for a in ("shapes", "sign", "chart") for b in ("English", "Chinese")}
    assert kinds == wanted
    assert all(len(item.answers) == 1 for item in data.items)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_questions_are_asked_as_they_are(protocol: str) -> None:
    for item in find_data("demo-vqa").items:
        assert query("vqa", item, protocol) == Query(item.question, "chat")


def test_the_file_is_small_and_its_seed_is_its_own() -> None:
    assert FILE.stat().st_size < 150_000
    assert SEED not in (7, 31, 4000, 9001, 20261)
