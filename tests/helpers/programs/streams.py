"""Run commands in forked processes whose standard streams are closed, full or broken.

Reads a list of cases from a file and prints an outcome per line, both in JSON. The other arguments
are modules to import first: a fork takes milliseconds, a start of Python and torch takes seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from cogvlm2_lite.cli.main import main


def redirect(number: int, how: str) -> None:
    """Close a stream, or lead it to a full disk, to a pipe without a reader or to a file."""
    if how == "closed":
        os.close(number)
        return
    if how == "broken":
        read, handle = os.pipe()
        os.close(read)
    elif how == "full":
        handle = os.open("/dev/full", os.O_WRONLY)
    else:
        handle = os.open(how, os.O_RDWR | os.O_CREAT)
    os.dup2(handle, number)
    os.close(handle)


def open_streams() -> None:
    """Do what Python does at its start: the streams of closed descriptors are None."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            setattr(sys, name, None)
        else:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def run(case: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """Run a case in a fork and return its outcome; None in the fork, which goes on."""
    files = [folder / name for name in ("stdin", "stdout", "stderr")]
    for file in files:
        file.write_bytes(b"")
    files[0].write_bytes(os.fsencode(case.get("input", "")))
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out, err = (os.fsdecode(file.read_bytes()) for file in files[1:])
        return {"code": code, "out": out, "err": err}
    os.environ.update(case.get("env", {}))
    for number, (name, file) in enumerate(zip(("stdin", "stdout", "stderr"), files, strict=True)):
        redirect(number, case.get(name, str(file)))
    open_streams()
    return None


def run_all(cases: list[dict[str, Any]], folder: Path) -> int:
    for case in cases:
        outcome = run(case, folder)
        if outcome is None:
            code = main(case["argv"])
            if "torch" in sys.modules:  # whose own end takes a second
                sys.stdout.flush()
                os._exit(code)
            return code
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    given = Path(sys.argv[1])
    for module in sys.argv[2:]:
        importlib.import_module(module)
    raise SystemExit(run_all(json.loads(given.read_text()), given.parent))
