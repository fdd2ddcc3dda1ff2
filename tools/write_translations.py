"""Collect the window's texts and compile its translations: python tools/write_translations.py

gui/translations/zh_CN.ts holds the Chinese texts; new English ones appear there as unfinished.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TS = ROOT / "gui" / "translations" / "zh_CN.ts"


def main() -> int:
    """Update the .ts file and write the .qm file beside it."""
    sources = sorted(str(f.relative_to(ROOT)) for f in (ROOT / "gui").rglob("*.py"))
    update = [_tool("pyside6-lupdate"), "-locations", "none", *sources, "-ts", str(TS)]
    subprocess.run(update, cwd=ROOT, check=True)
    release = [_tool("pyside6-lrelease"), str(TS), "-qm", str(TS.with_suffix(".qm"))]
    return subprocess.run(release, cwd=ROOT, check=True).returncode


def _tool(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        sys.exit(f"{name} comes with PySide6-Essentials, which is not installed.")
    return found


if __name__ == "__main__":
    sys.exit(main())
