"""docs/api.md must say what the docstrings say."""

from __future__ import annotations

import cogvlm2_lite
from tools.write_api_docs import PAGE, render


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run python tools/write_api_docs.py"


def test_every_public_name_has_a_section() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in set(cogvlm2_lite.__all__) - {"__version__"}:
        assert f"### `cogvlm2_lite.{name}`\n" in page
