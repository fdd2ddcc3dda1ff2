"""The examples of docs/transformers.md run, with the demo model and a picture of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cogvlm2_lite.demo.shipped import checkpoint_folder, sample_pictures

PAGE = Path(__file__).parents[2] / "docs" / "transformers.md"


def test_the_examples_run_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, path in (
        ("cogvlm2-nf4", checkpoint_folder()),
        ("photo.jpg", sample_pictures()[1].path),
    ):
        text = text.replace(f'"{name}"', f'"{path.as_posix()}"')
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert shown.count("A yellow cross, a pink square and a purple diamond.") == 5
