"""The report of a conversion that was not calibrated: what is known from sizes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.weights.catalog import Catalog
from quantize.command import main
from quantize.report import PAGE_NAME, REPORT_NAME
from quantize.verify import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "nf4"
    words = [str(checkpoint_folder()), str(folder), "--yes", "--calibrate", "none"]
    assert main([*words, "--keep", "projector=int8"]) == 0
    return folder


def test_every_linear_matrix_is_in_the_report_as_it_is_stored(made: Path) -> None:
    report = json.loads((made / REPORT_NAME).read_text(encoding="utf-8"))
    catalog = Catalog.open(made, read_config(made))
    linears = {n: t for n, t in catalog.tensors.items() if t.spec.role is Role.LINEAR}
    assert [row["tensor"] for row in report["matrices"]] == list(linears)
    for row in report["matrices"]:
        stored = linears[row["tensor"]]
        assert (row["storage"], row["bytes"]) == (stored.kind, stored.nbytes)
        assert row["bits_per_weight"] == pytest.approx(
            8 * stored.nbytes / stored.spec.numel, abs=1e-4
        )
        assert row["calibration"] is None
    kept = {row["remark"] for row in report["matrices"] if row["storage"] == "int8"}
    assert kept == {"--keep projector=int8"}
    assert sum(part["bytes"] for part in report["parts"]) == catalog.nbytes


def test_the_page_says_that_nothing_was_calibrated_and_needs_nothing_else(made: Path) -> None:
    page = (made / PAGE_NAME).read_text(encoding="utf-8")
    assert "All matrices are rounded to nearest" in page
    assert "Error by depth" not in page
    assert "http" not in page
    (drawing,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    bars = [r for r in ElementTree.fromstring(drawing).iter("rect") if r.get("height") == "14"]
    assert len(bars) == 14


def test_the_manifest_vouches_for_both_files(made: Path) -> None:
    (made / PAGE_NAME).write_text("changed", encoding="utf-8")
    events = list(verify(made))
    assert getattr(events[-1], "ok", True) is False
    assert [getattr(e, "file", "") for e in events[:-1] if hasattr(e, "problem")] == [PAGE_NAME]
