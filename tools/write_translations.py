"""Collect the window's texts and compile its translations: python tools/write_translations.py

gui/translations/zh_CN.ts holds the Chinese texts; new English ones appear there as unfinished. The
context "Messages" holds the templates of the core's sentences, which tools/templates.py finds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
TS = ROOT / "gui" / "translations" / "zh_CN.ts"

sys.path.insert(0, str(ROOT))  # run as a script, its own folder is the first place of imports


def main() -> int:
    """Update the .ts file and write the .qm file next to it."""
    sources = sorted(str(f.relative_to(ROOT)) for f in (ROOT / "gui").rglob("*.py"))
    with TemporaryDirectory() as folder:
        templates = Path(folder, "templates.py")
        templates.write_text(_marked_templates(), encoding="utf-8")
        update = [_tool("pyside6-lupdate"), "-locations", "none", "-no-obsolete"]
        subprocess.run([*update, *sources, str(templates), "-ts", str(TS)], cwd=ROOT, check=True)
    release = [_tool("pyside6-lrelease"), str(TS), "-qm", str(TS.with_suffix(".qm"))]
    return subprocess.run(release, cwd=ROOT, check=True).returncode


def _marked_templates() -> str:
    """Return a module in which lupdate finds all templates."""
    from tools.templates import find_templates

    calls = (f'QT_TRANSLATE_NOOP("Messages", {_quoted(t.text)})\n' for t in find_templates())
    return "".join(calls)


def _quoted(text: str) -> str:
    """Write a text as lupdate reads it: in double quotes, letters as they are."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _tool(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        sys.exit(f"{name} comes with PySide6-Essentials, which is not installed.")
    return found


if __name__ == "__main__":
    sys.exit(main())
