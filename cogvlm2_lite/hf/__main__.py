"""Runs a program of another package with CogVLM2 registered: python -m cogvlm2_lite.hf PROGRAM ...

PROGRAM is a module, as for `python -m`, or a script.
"""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import cogvlm2_lite.hf  # noqa: F401 - registers the classes

_USAGE = "Usage: python -m cogvlm2_lite.hf MODULE_OR_SCRIPT [ARGUMENTS ...]"


def main() -> None:
    """Run the named program in this process, with the other arguments."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(_USAGE)
    sys.argv = sys.argv[1:]
    program = sys.argv[0]
    if not _exists(program):
        raise SystemExit(f"There is no module or script {program!r}. {_USAGE}")
    if program.endswith(".py"):
        sys.path[0] = str(Path(program).resolve().parent)
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def _exists(program: str) -> bool:
    if program.endswith(".py"):
        return Path(program).is_file()
    try:
        return find_spec(program) is not None
    except (ImportError, ValueError):  # of the package around it
        return False


if __name__ == "__main__":
    main()
