"""Run `cogvlm2-lite demo` and draw what the terminal shows, for README.

    python tools/draw_terminal.py [docs/images/demo.svg]

The drawing is the command's own output, timings included; only paths of this machine are shortened.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 100
ADVANCE, LINE, MARGIN, BAR = 8.43, 19, 18, 34
INK, DIM, PROMPT, ANSWER, PAPER, FRAME = (
    "#d8dee9", "#7b8698", "#8fd694", "#ffd479", "#151a21", "#2a313c",
)  # fmt: skip


def main() -> None:
    """Run the command and write the drawing."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "demo.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(draw(run_demo()), encoding="utf-8")
    print(target)


def run_demo() -> list[str]:
    """Return the lines of a first run, wrapped, without this machine's paths."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "COGVLM2_LITE_CACHE": cache, "NO_COLOR": "1"}
        command = [sys.executable, "-m", "cogvlm2_lite", "demo"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, encoding="utf-8"
        )
        text = done.stdout.replace(cache, "~/.cache/cogvlm2-lite")
    text = text.replace(str(ROOT) + "/cogvlm2_lite/demo/", ".../demo/")
    lines = ["$ cogvlm2-lite demo", *text.rstrip().splitlines()]
    return [piece for line in lines for piece in wrapped(line.rsplit("\r", 1)[-1])]


def wrapped(line: str) -> list[str]:
    """Return a line broken where a terminal would break it."""
    pieces, piece = [], ""
    for letter in line:
        if width(piece + letter) > COLUMNS:
            pieces.append(piece)
            piece = ""
        piece += letter
    return [*pieces, piece]


def width(text: str) -> int:
    """Return the number of terminal columns; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def draw(lines: list[str]) -> str:
    """Return an SVG of a terminal window."""
    wide = round(COLUMNS * ADVANCE + 2 * MARGIN)
    high = BAR + LINE * len(lines) + MARGIN
    body = "\n".join(_line(line, BAR + LINE * (i + 0.8)) for i, line in enumerate(lines))
    buttons = "".join(
        f'<circle cx="{18 + 20 * i}" cy="17" r="6" fill="{c}"/>'
        for i, c in enumerate(("#ec6a5e", "#f4bf4f", "#61c554"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" font-size="14" '
        "font-family=\"'DejaVu Sans Mono', Menlo, Consolas, 'Noto Sans Mono CJK SC', "
        'monospace">\n'
        f'<rect width="{wide}" height="{high}" rx="9" fill="{PAPER}" stroke="{FRAME}"/>\n'
        f"{buttons}\n{body}\n</svg>\n"
    )


def _line(text: str, y: float) -> str:
    color = INK
    if text.startswith("$"):
        color = PROMPT
    elif text.startswith("A:"):
        color = ANSWER
    elif text.startswith("  picture"):
        color = DIM
    return (
        f'<text x="{MARGIN}" y="{y:.1f}" fill="{color}" xml:space="preserve" '
        f'textLength="{width(text) * ADVANCE:.1f}">{escape(text)}</text>'
        if text.strip()
        else ""
    )


if __name__ == "__main__":
    main()
