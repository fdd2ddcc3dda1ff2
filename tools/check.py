"""Run everything a push must pass: lint, format, types, import rules, tests.

    python tools/check.py            all of it
    python tools/check.py --quick    without the slow tests

Arguments after `--` go to pytest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))


def main() -> int:
    """Run the checks in order; give 0 when all passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the slow tests out")
    parser.add_argument("pytest_arguments", nargs="*", help="after --, for pytest")
    options = parser.parse_args()
    chosen = ["-m", "not slow"] if options.quick else []
    checks = {
        "lint": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "types": ["mypy"],
        "imports": ["lint-imports", "--no-logo"],
        "tests": ["pytest", *chosen, *options.pytest_arguments],
    }
    failed = [name for name, command in checks.items() if not passes(name, command)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


def passes(name: str, command: list[str]) -> bool:
    """Run one check, showing its output and how long it took."""
    print(f"\n== {name}: {' '.join(command)}", flush=True)
    began = time.perf_counter()
    # Idle threads of torch must sleep: on shared machines spinning ones cost a factor of four.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    program = str(SCRIPTS / command[0])
    done = subprocess.run([program, *command[1:]], cwd=ROOT, env=environment, check=False)
    print(f"== {name}: {time.perf_counter() - began:.0f} s, exit {done.returncode}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
