"""Where this program keeps files that it can make again."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

OVERRIDE = "COGVLM2_LITE_CACHE"
"""Environment variable that names the cache folder itself."""


def cache_folder(
    environ: Mapping[str, str] = os.environ,
    platform: str = sys.platform,
    home: Path | None = None,
) -> Path:
    """Give the user's cache folder for this program; it may not exist yet.

    COGVLM2_LITE_CACHE if set; else %LOCALAPPDATA% on Windows, ~/Library/Caches on macOS, and
    $XDG_CACHE_HOME or ~/.cache elsewhere, each with `cogvlm2-lite` below it.
    """
    if environ.get(OVERRIDE):
        return Path(environ[OVERRIDE]).expanduser()
    home = Path.home() if home is None else home
    if platform == "win32":
        local = environ.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "cogvlm2-lite"
    if platform == "darwin":
        return home / "Library" / "Caches" / "cogvlm2-lite"
    # The XDG rule: a path that is not absolute counts as none.
    xdg = Path(environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else home / ".cache") / "cogvlm2-lite"
