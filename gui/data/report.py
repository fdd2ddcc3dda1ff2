"""The report that a conversion leaves in its folder (docs/format.md), for its page. No Qt here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FILE, PAGE = "quantization_report.json", "quantization_report.html"


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """One part of the model. error: median of its matrices' output errors against round to
    nearest, 1.0 for as large; None where it was not calibrated."""

    part: str
    source_bytes: int
    result_bytes: int
    bits_per_weight: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What was made of each part. page: the whole report, to open in a browser."""

    parts: tuple[PartReport, ...]
    page: Path

    @property
    def source_bytes(self) -> int:
        return sum(part.source_bytes for part in self.parts)

    @property
    def result_bytes(self) -> int:
        return sum(part.result_bytes for part in self.parts)


def read_report(folder: Path) -> ConversionReport | None:
    """Read a folder's report; None where there is none that can be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        parts = tuple(
            PartReport(
                part=str(row["part"]),
                source_bytes=int(row["source_bytes"]),
                result_bytes=int(row["bytes"]),
                bits_per_weight=float(row["bits_per_weight"]),
                error=_ratio(row["median_error_of_nearest"]),
            )
            for row in content["parts"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ConversionReport(parts=parts, page=folder / PAGE)


def _ratio(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
