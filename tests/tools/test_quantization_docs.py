"""docs/quantization.md must show what was measured."""

from __future__ import annotations

from tools.write_quantization_docs import PAGE, current


def test_the_page_is_not_stale() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == current(), "run python -m tools.write_quantization_docs"


def test_the_page_says_what_was_not_at_hand() -> None:
    assert "No weights of the 19B model were at hand" in PAGE.read_text(encoding="utf-8")
