"""docs/quantization.md must show what was measured."""

from __future__ import annotations

import json

from tools.write_quantization_docs import PAGE, RESULT, render


def test_the_page_is_not_stale() -> None:
    report = json.loads(RESULT.read_text(encoding="utf-8"))
    expected = render(report)
    assert PAGE.read_text(encoding="utf-8") == expected, "run tools/write_quantization_docs.py"


def test_the_page_says_what_was_not_at_hand() -> None:
    assert "No weights of the 19B model were at hand" in PAGE.read_text(encoding="utf-8")
