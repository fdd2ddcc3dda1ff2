"""Parses and formats sizes and durations."""

from __future__ import annotations

import re

from cogvlm2_lite.errors import UsageError

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": KIB, "m": MIB, "g": GIB, "t": 1024**4,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024**4,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([a-zA-Z]*)\s*", re.ASCII)


def parse_bytes(text: str) -> int:
    """Return the bytes of a size such as "8GiB", "8.5 GB", "512M" or "1000000".

    KiB, MiB, GiB and the bare letters K, M, G are powers of 1024; KB, MB, GB are powers of 1000.
    Raises UsageError for anything else.
    """
    match = _SIZE.fullmatch(text)
    scale = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or scale is None:
        raise UsageError(
            "{value!r} is not a size.", hint="Write it like 8GiB, 512MiB or 16GB.", value=text
        )
    return int(float(match.group(1)) * scale)


def format_bytes(count: int) -> str:
    """Return a size with three digits and a binary unit: 4.91 GiB, 288 MiB, 17 B."""
    size = float(abs(count))
    sign = "-" if count < 0 else ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        # 999.5 instead of 1024, so that there are never more than three digits.
        if size < 999.5 or unit == "GiB":
            break
        size /= 1024
    if unit == "B":
        return f"{sign}{size:.0f} B"
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{sign}{size:.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """Return a duration with a suitable precision: 0.84 s, 12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
