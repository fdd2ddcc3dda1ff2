"""`cogvlm2-lite gui`: opens the window."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cogvlm2_lite.cli.main import has_desktop
from cogvlm2_lite.cli.parser import Parser, model_folder
from cogvlm2_lite.errors import UsageError

_HINT = 'Install it: pip install "cogvlm2-lite[gui]"'


def build_parser() -> Parser:
    """Declare the options of `gui`."""
    parser = Parser(
        usage="gui [MODEL]",
        description="Open the window: drop a picture on it and ask.",
        epilog="examples:\n  cogvlm2-lite gui\n  cogvlm2-lite gui demo\n",
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a model folder, or `demo`; else the last one"
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="keep conversations and settings in this folder"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `gui`; gives the exit code."""
    args = build_parser().read(argv)
    folder = model_folder(args.model).resolve() if args.model else None
    if find_spec("PySide6") is None:
        raise UsageError(
            "The window needs the package PySide6, which is not installed.", hint=_HINT
        )
    if not os.environ.get("QT_QPA_PLATFORM") and not has_desktop():
        raise UsageError(
            "There is no desktop here to open a window on.",
            hint="Use `cogvlm2-lite chat` in the terminal or `cogvlm2-lite serve` for a browser.",
        )
    from gui.app import run

    return run(model=folder, data=Path(args.data).expanduser() if args.data else None)
