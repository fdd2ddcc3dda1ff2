"""Reads the report that a conversion writes into its folder (docs/format.md). No Qt here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FILE, PAGE = "quantization_report.json", "quantization_report.html"


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """One part of the model.

    error  median over its matrices of the output error, relative to round to nearest (1.0: the
           same); None if it was not calibrated
    """

    part: str
    source_bytes: int
    result_bytes: int
    bits_per_weight: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """The sizes and errors of all parts. page: the full report, to open in a browser."""

    parts: tuple[PartReport, ...]
    page: Path

    @property
    def source_bytes(self) -> int:
        return sum(part.source_bytes for part in self.parts)

    @property
    def result_bytes(self) -> int:
        return sum(part.result_bytes for part in self.parts)


def read_report(folder: Path) -> ConversionReport | None:
    """Read a folder's report. Returns None if it is missing or damaged."""
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
