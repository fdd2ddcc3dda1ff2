"""Measure what the machine can do: instructions with operands from each place, and reading.

    python -m benchmarks.machine_limits [--repeats 9]

Compiles machine_limits.c with the system's C compiler (`cc`) and runs it some times: one thread,
CPU time, medians. Instructions that the processor lacks are left out. Needs Linux on x86-64 and 1
GiB of memory. Writes benchmarks/results/machine_limits.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "machine_limits.json"
SOURCE = ROOT / "benchmarks" / "machine_limits.c"
Rates = dict[str, dict[str, float]]
"""Multiply-adds per nanosecond (of "read" and "prefetched": bytes) by instruction and place."""


class Limits:
    """The compiled program."""

    def __init__(self, folder: Path) -> None:
        """Compile the program into a folder."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            sys.exit("No C compiler was found. Install gcc, then run this again.")
        self._program = folder / "machine_limits"
        done = subprocess.run(
            [compiler, "-O2", str(SOURCE), "-o", str(self._program)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(
                f"{compiler} can't compile {SOURCE.name}, which needs Linux on x86-64:\n"
                + done.stderr
            )

    def measure(self, *, only_registers: bool = False) -> Rates:
        """Measure once."""
        arguments = ["registers"] if only_registers else []
        done = subprocess.run([str(self._program), *arguments], capture_output=True, text=True)
        if done.returncode:
            sys.exit("This needs a processor with AVX2 and FMA, and 1 GiB of free memory.")
        rates: Rates = {}
        for name, place, rate in (line.split() for line in done.stdout.splitlines()):
            rates.setdefault(name, {})[place] = float(rate)
        return rates


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits(Path(folder))
        rounds = [limits.measure() for _ in range(repeats)]
    found: dict[str, Any] = {
        name: {
            place: {
                "median": statistics.median(one[name][place] for one in rounds),
                "lowest": min(one[name][place] for one in rounds),
                "highest": max(one[name][place] for one in rounds),
            }
            for place in places
        }
        for name, places in rounds[0].items()
    }
    report = {"machine": describe_machine(), "repeats": repeats, "load": load, "rates": found}
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
