"""docs/quantization.md must show what was measured."""

from __future__ import annotations

import pytest

from tools.write_quantization_docs import IMAGES, PAGE, current, drawings


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
