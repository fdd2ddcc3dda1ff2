"""The menu entry on a Linux desktop: a desktop file and an icon in the user's folders. No Qt.

Follows the freedesktop.org specifications of desktop entries and icon themes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cogvlm2_lite.errors import FolderError, UsageError
from gui.data.settings import write_atomic

NAME = "cogvlm2-lite"
MIME_TYPES = (
    "image/jpeg",
    "image/png",
    "image/apng",
    "image/webp",
    "image/bmp",
    "image/gif",
    "image/tiff",
    "image/avif",
    "image/heic",
    "image/heif",
)
"""The kinds of files that a desktop offers to open with this program."""
LAUNCHER = (sys.executable, "-P", "-m", "cogvlm2_lite", "gui")
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" '
    'rx="8" fill="#2f6f63"/><circle cx="16" cy="16" r="8" fill="none" stroke="#fff" '
    'stroke-width="3"/><circle cx="16" cy="16" r="2.5" fill="#fff"/></svg>\n'
)
_ENTRY = """[Desktop Entry]
Type=Application
Name=CogVLM2 Lite
Comment=Ask about pictures, on this computer
Comment[zh_CN]=在本机上就图片提问
Exec={command} %F
MimeType={types}
Icon={name}
Terminal=false
Categories=Graphics;Office;
StartupWMClass={name}
"""


def menu_folder(environ: Mapping[str, str] = os.environ, home: Path | None = None) -> Path:
    """Return the folder below which a desktop looks for the user's entries and icons."""
    xdg = Path(environ.get("XDG_DATA_HOME", ""))
    try:
        return xdg if xdg.is_absolute() else (home or Path.home()) / ".local" / "share"
    except RuntimeError as error:
        raise FolderError(
            "There is no home folder for this user, so there is no menu of a desktop.",
            hint="Set the environment variable XDG_DATA_HOME to a folder that can be written.",
        ) from error


def install(folder: Path, launcher: Sequence[str] = LAUNCHER) -> tuple[Path, ...]:
    """Write entry and icon below `folder` and return both files. Raises UsageError."""
    entry, icon = _files(folder)
    text = _ENTRY.format(
        command=" ".join(map(_quoted, launcher)),
        name=NAME,
        types="".join(f"{t};" for t in MIME_TYPES),
    )
    try:
        write_atomic(icon, ICON.encode())
        write_atomic(entry, text.encode())
        for file in (icon, entry):
            file.chmod(0o644)
    except OSError as error:
        raise UsageError(
            "The menu entry can't be written: {why}.",
            hint="Make {folder} writable.",
            why=error.strerror or error,
            folder=folder,
        ) from error
    _update_database(entry.parent)
    return entry, icon


def remove(folder: Path) -> tuple[Path, ...]:
    """Remove what `install` wrote, and nothing else. Returns the removed files."""
    found = tuple(file for file in _files(folder) if file.exists())
    try:
        for file in found:
            file.unlink()
    except OSError as error:
        raise UsageError(
            "The menu entry can't be removed: {why}.",
            hint="Make {folder} writable.",
            why=error.strerror or error,
            folder=folder,
        ) from error
    if found:
        _update_database(_files(folder)[0].parent)
    return found


def _update_database(applications: Path) -> None:
    """Let desktops find the kinds of files of the entry, where the tool for it is installed."""
    tool = shutil.which("update-desktop-database")
    if tool is not None:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([tool, str(applications)], check=False, capture_output=True, timeout=20)


def _files(folder: Path) -> tuple[Path, Path]:
    icons = folder / "icons" / "hicolor" / "scalable" / "apps"
    return folder / "applications" / f"{NAME}.desktop", icons / f"{NAME}.svg"


def _quoted(argument: str) -> str:
    """Quote an argument of Exec: first by the rules of Exec, then by those of a string value."""
    for special in ("\\", '"', "`", "$"):
        argument = argument.replace(special, f"\\{special}")
    return '"' + argument.replace("\\", "\\\\").replace("%", "%%") + '"'
