"""Write docs/cli.md from the help texts of the commands: python tools/write_cli_docs.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cogvlm2_lite.cli.main import COMMANDS

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"

_INTRODUCTION = """\
# The command line

This page is written by `python tools/write_cli_docs.py` from the help texts of the commands.

Exit codes: 0 success, 1 failure (the message says why and what to do), 2 wrong usage, 70 internal
error, 130 stopped with Ctrl-C.

Results go to standard output; progress, remarks and errors go to standard error. `NO_COLOR=1` turns
off colours. `COGVLM2_LITE_CACHE` sets another cache folder.

Arguments and piped text are read with the encoding of the locale, or as UTF-8. `LC_ALL` names it
even if the locale is not installed, such as `LC_ALL=zh_CN.GBK`. Names of files may be any bytes;
they are shown with escapes such as `\\xff`.
"""


def render() -> str:
    """Return the text of docs/cli.md."""
    sections = [_INTRODUCTION, _section("cogvlm2-lite", [])]
    sections += [_section(f"cogvlm2-lite {c.name}", [c.name]) for c in COMMANDS]
    return "\n".join(sections)


def _section(title: str, argv: list[str]) -> str:
    shown = subprocess.run(
        [sys.executable, "-m", "cogvlm2_lite", *argv, "--help"],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
    )
    return f"## {title}\n\n```text\n{shown.stdout.rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
