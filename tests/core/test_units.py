"""Sizes and durations, written and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.units import GIB, MIB, format_bytes, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GiB", 8 * GIB),
        ("8.5 gib", int(8.5 * GIB)),
        ("512M", 512 * MIB),
        ("16GB", 16 * 10**9),
        ("1000", 1000),
        (" 0 B ", 0),
    ],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "8G B", "-1GiB", "GiB", "8 GiB GiB", "1e9", "∞", "٣GiB", "9" * 400]
)
def test_what_is_no_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bytes(text)
    assert "8GiB" in caught.value.hint


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (288 * MIB, "288 MiB"),
        (39_006_214_656, "36.3 GiB"),
        (int(4.91 * GIB), "4.91 GiB"),
        (-3 * MIB, "-3.00 MiB"),
        (5000 * GIB, "5000 GiB"),
    ],
)
def test_sizes_are_written_with_three_figures(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 2**50))
def test_a_written_size_reads_back_within_a_percent(count: int) -> None:
    back = parse_bytes(format_bytes(count))
    assert abs(back - count) <= max(1, count // 90)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.844, "0.84 s"), (9.999, "10.0 s"), (59.97, "1 min 00 s"), (245, "4 min 05 s"),
     (3599.9, "1 h 00 min"), (7805, "2 h 10 min")],
)  # fmt: skip
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
