"""`cogvlm2-lite gui`: opens the window."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from cogvlm2_lite.cli.console import Console, has_desktop
from cogvlm2_lite.cli.parser import Parser
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.places import expand_home

_HINT = 'Install it: pip install "cogvlm2-lite[gui]"'


def build_parser() -> Parser:
    """Declare the options of `gui`."""
    parser = Parser(
        usage="gui [MODEL]",
        description="Open the window.",
        epilog="examples:\n  cogvlm2-lite gui\n  cogvlm2-lite gui demo\n",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a model folder, or `demo` (default: the one used last)",
    )
    parser.add_argument("--data", metavar="FOLDER", help="folder for conversations and settings")
    menu = parser.add_mutually_exclusive_group()
    menu.add_argument(
        "--install-shortcut",
        action="store_true",
        help="add an entry to the menu of the desktop (Linux)",
    )
    menu.add_argument("--remove-shortcut", action="store_true", help="remove that entry")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `gui` and return the exit code."""
    args = build_parser().read(argv)
    if args.install_shortcut or args.remove_shortcut:
        return change_menu(install=args.install_shortcut)
    folder = model_folder(args.model).resolve() if args.model else None
    if find_spec("PySide6") is None:
        raise UsageError(
            "The window needs the package PySide6, which is not installed.", hint=_HINT
        )
    if not os.environ.get("QT_QPA_PLATFORM") and not has_desktop():
        raise UsageError(
            "There is no desktop to open a window on.",
            hint="Use `cogvlm2-lite chat` in the terminal or `cogvlm2-lite serve` for a browser.",
        )
    from gui.app import run

    return run(model=folder, data=expand_home(args.data) if args.data else None)


def change_menu(*, install: bool, platform: str = sys.platform) -> int:
    """Add the menu entry or remove it, and print its files. Returns the exit code."""
    if platform in ("win32", "darwin"):
        raise UsageError(
            "The menu entry works only on Linux desktops.",
            hint="docs/desktop.md explains how to make one on Windows and macOS.",
        )
    from gui import desktop_entry

    folder = desktop_entry.menu_folder()
    if install:
        files, word = desktop_entry.install(folder), "Wrote"
    else:
        files, word = desktop_entry.remove(folder), "Removed"
    written = "".join(f"{word} {file}\n" for file in files)
    Console().write(written or "There was no menu entry.\n")
    return 0
