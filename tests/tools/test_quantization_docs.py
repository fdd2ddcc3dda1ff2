"""docs/quantization.md must show what was measured."""

from __future__ import annotations

import json

import pytest

from tools import write_quantization_docs
from tools.write_quantization_docs import AUTOROUND, IMAGES, PAGE, SECOND, current, drawings


def test_the_page_is_not_stale() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == current(), "run python -m tools.write_quantization_docs"


def test_the_page_says_what_was_not_available() -> None:
    assert "The weights of the 19B model were not available" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["quantization_kl.svg", "quantization_depth.svg", "quantization_bytes.svg"]
)
def test_the_drawings_are_not_stale(name: str) -> None:
    assert (IMAGES / name).read_text(encoding="utf-8") == drawings()[name]


def test_a_rival_that_was_not_installed_is_named_and_not_compared() -> None:
    assert "not installed" in write_quantization_docs._rival(None)


def test_the_page_says_when_the_rival_is_better() -> None:
    halves = json.loads(SECOND.read_text(encoding="utf-8"))["rival"]["halves"]
    assert "Ours has the smaller error, next to each" in write_quantization_docs._verdict(halves)
    halves[1]["rows"]["optimum, its defaults"]["of_calibrated"]["low"] = 0.9
    assert "Ours does not have the smaller error" in write_quantization_docs._verdict(halves)


def test_the_page_says_when_autoround_is_better() -> None:
    found = json.loads(AUTOROUND.read_text(encoding="utf-8"))
    name = list(found["rows"])[-1]
    found["rows"][name]["of_calibrated"]["low"] = 0.9
    page = write_quantization_docs._autoround(found)
    assert "Ours does not have the smaller error next to" in page
    assert name in page.split("next to")[-1]
