"""Documents must not point at what is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tools/*/*.md")])
CODE = ("", "cogvlm2_lite", "quantize")
"""Where a path in backticks may begin."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`(?:python )?([\w.]+/[\w./-]+\.(?:py|md|json|sh|svg))`", text)
    places = [*(ROOT / part for part in CODE), document.parent]
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_documents_are_found() -> None:
    names = {document.name for document in DOCUMENTS}
    assert {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "format.md", "memory.md"} <= names
