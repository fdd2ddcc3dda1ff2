"""Where the window keeps what belongs to the user: conversations, pictures and settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

OVERRIDE = "COGVLM2_LITE_DATA"
"""Environment variable that names the data folder itself."""


def data_folder(
    environ: Mapping[str, str] = os.environ,
    platform: str = sys.platform,
    home: Path | None = None,
) -> Path:
    """Give the user's data folder for this program; it may not exist yet.

    COGVLM2_LITE_DATA if set; else %APPDATA% on Windows, ~/Library/Application Support on macOS,
    and $XDG_DATA_HOME or ~/.local/share elsewhere, each with `cogvlm2-lite` below it.
    """
    if environ.get(OVERRIDE):
        return Path(environ[OVERRIDE]).expanduser()
    home = Path.home() if home is None else home
    if platform == "win32":
        roaming = environ.get("APPDATA")
        return (Path(roaming) if roaming else home / "AppData" / "Roaming") / "cogvlm2-lite"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "cogvlm2-lite"
    xdg = Path(environ.get("XDG_DATA_HOME", ""))
    return (xdg if xdg.is_absolute() else home / ".local" / "share") / "cogvlm2-lite"
