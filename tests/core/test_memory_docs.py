"""docs/memory.md and its picture must show the plans that are made."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.units import GIB
from tools.draw_memory import (
    COLOURS,
    PAGE,
    PICTURE,
    PIXELS_PER_GIB,
    Case,
    cases,
    draw,
    write_page,
)

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def found() -> list[Case]:
    return cases()


def test_the_page_is_not_stale(found: list[Case]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert write_page(page, found) == page, "run python tools/draw_memory.py"


def test_the_picture_is_not_stale(found: list[Case]) -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(found), "run python tools/draw_memory.py"


def test_writing_the_page_keeps_what_people_wrote(found: list[Case]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert write_page(page + "\nA sentence.\n", found) == page + "\nA sentence.\n"


def test_bars_are_as_high_as_the_memory_they_stand_for(found: list[Case]) -> None:
    root = ElementTree.fromstring(draw(found))
    assert root.get("role") == "img"
    bars = [r for r in root.iter(f"{SVG}rect") if r.get("width") == "40"]
    drawn = sum(float(bar.get("height", "")) for bar in bars)
    meant = 0
    for case in found:
        for phase in case.phases:
            coming = case.arrivals(phase.phase)
            keys = {unit.key for unit in coming}
            stay = sum(u.nbytes for u in phase.resident if u.key not in keys)
            meant += stay + phase.weight_bytes - phase.resident_bytes + phase.spare_bytes
            meant += phase.cache_bytes + phase.scratch_bytes
            meant += sum(unit.nbytes for unit in coming)
    assert drawn == pytest.approx(meant / GIB * PIXELS_PER_GIB, rel=1e-3)


def test_every_colour_is_defined_and_explained(found: list[Case]) -> None:
    picture = draw(found)
    for style, name in COLOURS.values():
        assert f".{style} {{ fill:" in picture
        assert f">{name}</text>" in picture
    assert "prefers-color-scheme: dark" in picture


def test_the_page_says_that_nothing_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.search(r"Neither the real weights nor a GPU were\s+available", page)


def test_eight_gib_decode_as_fast_as_with_unlimited_memory(found: list[Case]) -> None:
    by_title = {case.title: case for case in found}
    assert by_title["8 GiB GPU"].arrivals(Phase.DECODE) == ()
    assert by_title["6 GiB GPU"].arrivals(Phase.DECODE) == ()
    assert by_title["4 GiB GPU"].arrivals(Phase.DECODE) != ()
