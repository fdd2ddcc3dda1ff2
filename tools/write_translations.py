"""Collect the window's texts and compile its translations: python tools/write_translations.py

gui/translations/zh_CN.ts holds the Chinese texts; new English ones appear there as unfinished. The
context "Messages" holds the templates of the core's sentences, which tools/templates.py finds. The
Chinese of those that the server sends is also written for the chat page.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "cogvlm2_lite" / "server" / "page" / "messages.js"
TS = ROOT / "gui" / "translations" / "zh_CN.ts"

sys.path.insert(0, str(ROOT))  # run as a script, its own folder is the first place of imports


def main() -> int:
    """Update the .ts file, and write the .qm file next to it and the file of the chat page."""
    sources = sorted(str(f.relative_to(ROOT)) for f in (ROOT / "gui").rglob("*.py"))
    with TemporaryDirectory() as folder:
        templates = Path(folder, "templates.py")
        templates.write_text(_marked_templates(), encoding="utf-8")
        update = [_tool("pyside6-lupdate"), "-locations", "none", "-no-obsolete"]
        subprocess.run([*update, *sources, str(templates), "-ts", str(TS)], cwd=ROOT, check=True)
    PAGE.write_text(page_messages(), encoding="utf-8")
    release = [_tool("pyside6-lrelease"), str(TS), "-qm", str(TS.with_suffix(".qm"))]
    return subprocess.run(release, cwd=ROOT, check=True).returncode


_NOT_SENT = (
    "cli",
    "doctor",
    "bench",
    "batch",
    "evaluate",
    "mcp_server",
    "demo",
    "samples",
    "charts",
)


def page_messages() -> str:
    """Return the script with the Chinese of the templates that the server can send."""
    from tools.templates import find_templates

    sent = {
        template.text
        for template in find_templates()
        if template.file.startswith("cogvlm2_lite/")
        and not template.file.split("/")[1].removesuffix(".py").startswith(_NOT_SENT)
    }
    chinese = {}
    for message in ElementTree.parse(TS).iterfind("context[name='Messages']/message"):
        source, translation = message.findtext("source"), message.findtext("translation")
        if source in sent and translation:
            chinese[source] = translation
    quoted = json.JSONEncoder(ensure_ascii=False).encode
    lines = [f"  {quoted(source)}:\n    {quoted(chinese[source])},\n" for source in sorted(chinese)]
    return (
        '"use strict";\n'
        "// The server's sentences in Chinese. Written by tools/write_translations.py.\n\n"
        f"export const CHINESE = {{\n{''.join(lines)}}};\n"
    )


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
