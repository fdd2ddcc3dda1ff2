"""Drawings are what the numbers say, and stand alone."""

from __future__ import annotations

from xml.etree import ElementTree

from cogvlm2_lite.charts import bars, by_depth, bytes_by_part, standalone

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_numbers_and_carry_their_intervals() -> None:
    drawn = ElementTree.fromstring(
        bars([("a", 1.0, 0.5, 2.0), ("b & c", 0.5, 0.5, 0.5)], ".2f", "x")
    )
    first, second = (float(rect.get("width", "")) for rect in drawn.iter("rect"))
    assert first == 2 * second
    whisker = next(drawn.iter("line"))
    ends = [float(whisker.get(name, "")) - 190 for name in ("x1", "x2")]
    assert ends == [first / 2, 2 * first]
    assert [text.text for text in drawn.iter("text")] == ["a", "1.00", "b & c", "0.50"]


def test_no_bar_at_all_is_a_drawing_too() -> None:
    ElementTree.fromstring(bars([("none", 0.0, 0.0, 0.0)], ".2f", "x"))
    ElementTree.fromstring(bars([], ".2f", "x"))


def test_a_drawing_of_its_own_is_xml_with_its_colours() -> None:
    for drawing in (
        bars([("a", 1.0, 0.5, 2.0)], ".2f", "x"),
        by_depth({"tower": {0: 0.1, 1: 0.2}}, ".0%", "x"),
        bytes_by_part({"tower": 10}, {"tower": 5}, ("A", "B")),
    ):
        root = ElementTree.fromstring(standalone(drawing))
        assert root.tag == f"{SVG}svg"
        style = root.find(f"{SVG}style")
        assert style is not None
        assert "prefers-color-scheme" in str(style.text)
