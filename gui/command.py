"""`cogvlm2-lite gui`: opens the window."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from cogvlm2_lite.cli.console import Console, has_desktop
from cogvlm2_lite.cli.parser import Parser
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import AdapterError, UsageError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs.formats import FOREIGN_SUFFIXES, kind_of
from cogvlm2_lite.places import expand_home
from cogvlm2_lite.weights.adapter_names import WEIGHTS_NAME

_MODEL_SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".pt", ".pth")
_HINT = 'Install it: pip install "cogvlm2-lite[gui]"'


def build_parser() -> Parser:
    """Declare the options of `gui`."""
    parser = Parser(
        usage="gui [MODEL] [PICTURE ...] [options]",
        description="Open the window.",
        epilog="examples:\n  cogvlm2-lite gui\n  cogvlm2-lite gui demo\n"
        "  cogvlm2-lite gui photo.jpg\n",
    )
    parser.add_argument(
        "words",
        metavar="MODEL, PICTURE",
        nargs="*",
        help="a model folder, or `demo` (default: the one used last), and pictures or a folder of "
        "pictures to open; a window that is open already opens them",
    )
    parser.add_argument(
        "--adapter",
        metavar="FOLDER",
        help="use a LoRA adapter of the model; the window remembers it and can switch it off "
        "(default: the one used last with this model)",
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
    model, files = read_words(args.words)
    adapter = read_adapter_folder(args.adapter) if args.adapter else None
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

    return run(
        model=model,
        adapter=adapter,
        files=files,
        data=expand_home(args.data) if args.data else None,
    )


def read_words(words: Sequence[str]) -> tuple[Path | None, tuple[Path, ...]]:
    """Return the model folder and the pictures among the words of the command line.

    Raises UsageError for a file that does not exist and for a second model, and NoFolderError for
    a folder that does not.
    """
    model: Path | None = None
    files: list[Path] = []
    for word in words:
        path = _local_path(word)
        if _is_picture(path):
            files.append(path)
            continue
        found = model_folder(word).resolve()
        if model is not None:
            raise UsageError("The window opens one model, not two.", hint="Name one model folder.")
        model = found
    return model, tuple(files)


def read_adapter_folder(word: str) -> Path:
    """Return the folder of an adapter. Raises AdapterError if there is none."""
    folder = _local_path(word)
    if not folder.is_dir():
        raise AdapterError(
            "There is no adapter folder {folder}.",
            hint="An adapter is a folder with {name}.",
            folder=folder,
            name=WEIGHTS_NAME,
        )
    return folder.resolve()


def _local_path(word: str) -> Path:
    """Return the path that a word names; some desktops pass file: addresses."""
    if word.lower().startswith("file://"):
        parts = urlsplit(word)
        return Path(os.fsdecode(unquote_to_bytes(parts.path)))
    return expand_home(word)


def _is_picture(path: Path) -> bool:
    """Return whether a path is a picture or a folder of pictures, and not a model.

    Raises UsageError for a picture that does not exist.
    """
    pictured = bool(kind_of(path)) or path.suffix.lower() in FOREIGN_SUFFIXES
    try:
        if path.is_dir():
            model = (path / "config.json").exists()
            return not model and any(kind_of(file) for file in path.iterdir())
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise UsageError(
            "{file} can't be read: {why}.",
            hint="Check that you may read it.",
            file=escape_line(str(path))[:200],
            why=getattr(error, "strerror", None) or error,
        ) from error
    if pictured and not exists:
        raise UsageError(
            "There is no file {file!r}.", hint="Check the spelling of the path.", file=str(path)
        )
    return exists and path.suffix.lower() not in _MODEL_SUFFIXES


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
