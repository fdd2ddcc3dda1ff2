"""Run everything a push must pass: lint, format, types, import rules, tests.

    python tools/check.py               all of it
    python tools/check.py --quick       without the slow tests
    python tools/check.py --coverage    print how much of each package the tests run; takes longer

Arguments after `--` go to pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
PACKAGES = ("cogvlm2_lite", "quantize", "gui")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# More workers than cores: many tests wait for a child program. Each takes up to 1.7 GB of memory.
WORKERS = min(CORES + CORES // 2, 6)


def main() -> int:
    """Run the checks in order; return 0 when all passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the slow tests out")
    parser.add_argument("--coverage", action="store_true", help="show which code the tests run")
    parser.add_argument("pytest_arguments", nargs="*", help="after --, for pytest")
    options = parser.parse_args()
    chosen = ["-m", "not slow"] if options.quick else []
    with tempfile.TemporaryDirectory() as place:
        measured = Path(place) / "coverage.json"
        # SlipCover changes the bytecode and not the interpreter's tracing; it costs a fifth more.
        parallel = ["-n", str(WORKERS), "--dist", "worksteal"]
        coverage = ["slipcover", "--source", ",".join(PACKAGES), "--json", "--out", str(measured)]
        pytest = [*coverage, "-m", "pytest"] if options.coverage else ["pytest"]
        checks = {
            "lint": ["ruff", "check", "."],
            "format": ["ruff", "format", "--check", "."],
            "types": ["mypy"],
            "imports": ["lint-imports", "--no-logo"],
            "tests": [*pytest, *parallel, *chosen, *options.pytest_arguments],
        }
        failed = [name for name, command in checks.items() if not passes(name, command)]
        if measured.exists():
            print(coverage_table(json.loads(measured.read_text(encoding="utf-8"))))
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


def coverage_table(report: dict[str, Any]) -> str:
    """Return a row per package: its lines of code, and the share that ran.

    Code that only runs in child programs counts as not run.
    """
    lines: defaultdict[str, int] = defaultdict(int)
    ran: defaultdict[str, int] = defaultdict(int)
    for name, file in report["files"].items():
        for package in (str(Path(name).parent.as_posix()), "total"):
            ran[package] += len(file["executed_lines"])
            lines[package] += len(file["executed_lines"]) + len(file["missing_lines"])
    rows = [f"{'package':<32}{'lines':>8}{'covered':>9}"]
    for package in sorted(lines, key=lambda name: (name == "total", name)):
        share = ran[package] / max(1, lines[package])
        rows.append(f"{package:<32}{lines[package]:>8}{share:>9.0%}")
    return "\n".join(rows)


def passes(name: str, command: list[str]) -> bool:
    """Run one check, showing its output and how long it took."""
    print(f"\n== {name}: {' '.join(command)}", flush=True)
    began = time.perf_counter()
    # Idle threads of torch must sleep: on shared machines spinning ones cost a factor of four. With
    # more threads than cores they wait for each other: two workers with two threads each took up to
    # ten times as long on two busy cores.
    threads = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(max(1, CORES // WORKERS))}
    environment = {**threads, **os.environ}
    program = str(SCRIPTS / command[0])
    done = subprocess.run([program, *command[1:]], cwd=ROOT, env=environment, check=False)
    print(f"== {name}: {time.perf_counter() - began:.0f} s, exit {done.returncode}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
