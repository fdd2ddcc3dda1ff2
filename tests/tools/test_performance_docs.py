"""docs/performance.md is what its tool writes: text that only the page has would be lost."""

from __future__ import annotations

from pathlib import Path

from tools.write_performance import render

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run python tools/write_performance.py"
