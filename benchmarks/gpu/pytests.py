"""Step "tests": the tests marked `cuda`, on the real GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.gpu.work import Run

ROOT = Path(__file__).resolve().parents[2]
_MARK = "pytest.mark" + ".cuda"


def measure(run: Run) -> None:
    """Run the tests; a rehearsal collects all, and runs those of one file on the emulated GPU."""
    files = marked_files(ROOT / "tests")
    run.put(files=files)
    junit = run.out / "junit.xml"
    junit.unlink(missing_ok=True)
    arguments = ["-q", "-m", "cuda", "-W", "default", "-p", "no:cacheprovider", "-o", "addopts="]
    arguments += ["--junitxml", str(junit), *files]
    arguments += ["-k", "test_full_attention"] if run.rehearse else []
    # Plugins that are installed must not matter, nor warnings of other versions.
    with patch.dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"):
        exit_code = (
            _here(arguments) if run.rehearse else _as_process(arguments, max(5.0, run.left_s - 8))
        )
    found = read_junit(junit)
    run.put(exit=exit_code, **found)
    if found["failed"] or exit_code:
        run.wrong(f"{len(found['failed'])} tests failed, exit code {exit_code}")
    if not found["passed"]:
        run.wrong("no test passed")


def _as_process(arguments: list[str], limit_s: float) -> int:
    """Run pytest; if it takes too long, let it end and write the results that it has."""
    process = subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.wait()


def _here(arguments: list[str]) -> int:
    """Run pytest in this process, which has imported torch already."""
    import pytest

    return int(pytest.main(arguments))


def marked_files(tests: Path) -> list[str]:
    """Return the files with tests that need a GPU, as paths from the root."""
    return sorted(
        file.relative_to(ROOT).as_posix()
        for file in tests.rglob("test_*.py")
        if _MARK in file.read_text(encoding="utf-8")
    )


def read_junit(file: Path) -> dict[str, Any]:
    """Return how many tests passed and were skipped, and what failed why."""
    if not file.exists():
        return {"passed": 0, "skipped": 0, "failed": ["pytest wrote no results"]}
    passed = skipped = 0
    failed = []
    for case in ET.parse(file).getroot().iter("testcase"):
        troubles = [*case.findall("failure"), *case.findall("error")]
        if troubles:
            message = str(troubles[0].get("message", "")).partition("\n")[0][:200]
            failed.append(f"{case.get('classname')}::{case.get('name')}: {message}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return {"passed": passed, "skipped": skipped, "failed": failed}
