"""The process of a step: python -m benchmarks.gpu.work NAME... --work FOLDER --out FOLDER

Results are saved after each value, so that a step that is ended too early loses only what it had
not measured yet. In a rehearsal the emulated GPU of the tests takes the place of a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.steps import CAPS_GIB

MODULES: Mapping[str, str] = {
    "environment": "environment:measure",
    "tests": "pytests:measure",
    "gemm": "micro:gemm",
    "attention": "micro:attention",
    "transfers": "micro:transfers",
    "resident": "resident:measure",
    "profile": "profile:measure",
    "questions": "resident:questions",
    "settings": "resident:settings",
    "own": "resident:own",
    **{f"cap{gib}": "caps:measure" for gib in CAPS_GIB},
    "parallel": "features:parallel",
    "int8_cache": "features:int8_cache",
    "demo": "features:demo",
    "sanitizer": "features:sanitizer",
    "calibration": "features:calibration",
}
"""The function of each step."""

_TRACE_LINES = 12

_WARN_S = 1.5
"""So long before the time is over, the stacks of all threads are printed."""


class Run:
    """What a step's function gets.

    work      folder for temporary files, the same for all steps of a run
    out       folder of the results
    rehearse  tiny sizes, on an emulated GPU
    machine   the emulated computer; None: a real one
    """

    def __init__(self, name: str, *, work: Path, out: Path, rehearse: bool, until: float) -> None:
        self.name, self.work, self.out, self.rehearse = name, work, out, rehearse
        self.machine: Any = None
        self._until, self._began = until, time.monotonic()
        self.values: dict[str, Any] = {}

    @property
    def left_s(self) -> float:
        """Seconds until the step is ended."""
        return self._until - time.monotonic()

    def put(self, **values: Any) -> None:
        """Add results and save them."""
        self.values |= {name: plain(value) for name, value in values.items()}
        self._save(done=False)

    def wrong(self, what: str) -> None:
        """Add a sentence about a result that is not what it must be."""
        print(f"WRONG: {what}", flush=True)
        self.put(wrong=[*self.values.get("wrong", []), what])

    def attempt(self, name: str, work: Callable[[], Any]) -> Any:
        """Add the result of a part of the step, or why it failed; return the result or None."""
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - the other parts of the step go on
            traceback.print_exc()
            self.put(**{name: {"error": describe(error)}})
            return None
        self.put(**{name: result})
        return result

    def finish(self, error: str = "", trace: str = "") -> None:
        """Save the end of the step."""
        self._save(done=True, error=error, tail=trace.strip().splitlines()[-_TRACE_LINES:])

    def _save(self, **status: Any) -> None:
        seconds = time.monotonic() - self._began
        text = json.dumps({**status, "seconds": seconds, "values": self.values})
        part = self.work / f"{self.name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(self.work / f"{self.name}.json")


def describe(error: BaseException) -> str:
    """Return an error as one line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"[:300]


def plain(value: Any) -> Any:
    """Return a value that JSON has; numbers that it lacks become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return str(value)


def run_step(run: Run) -> bool:
    """Run the function of a step; return whether it came to its end."""
    module, _, function = MODULES[run.name].partition(":")
    print(f"-- {run.name}", flush=True)
    run.put()
    try:
        getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)(run)
    except BaseException as error:  # noqa: BLE001 - its row says what happened
        traceback.print_exc()
        run.finish(describe(error), traceback.format_exc())
        return False
    run.finish()
    return True


@contextlib.contextmanager
def emulated() -> Iterator[Any]:
    """Emulate a GPU in the body, with buffers that are small enough to be filled."""
    from benchmarks.gpu.rehearsal import emulated_gpu

    with emulated_gpu() as machine:
        yield machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named steps; return 0 if all of them came to their end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="+", choices=list(MODULES))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args(arguments)
    faulthandler.enable()
    faulthandler.dump_traceback_later(max(0.1, options.seconds - _WARN_S))
    until = time.monotonic() + options.seconds
    good = True
    with contextlib.ExitStack() as stack:
        machine = stack.enter_context(emulated()) if options.rehearse else None
        for name in options.steps:
            run = Run(
                name, work=options.work, out=options.out, rehearse=options.rehearse, until=until
            )
            run.machine = machine
            good &= run_step(run)
    faulthandler.cancel_dump_traceback_later()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
