"""Where this program keeps its files: what it can make again, and what belongs to the user."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import PlatformDirs

CACHE_VARIABLE = "COGVLM2_LITE_CACHE"
"""Environment variable that names the cache folder itself."""

DATA_VARIABLE = "COGVLM2_LITE_DATA"
"""Environment variable that names the data folder itself."""


def cache_folder() -> Path:
    """Return the folder for files that can be made again; it may not exist yet.

    COGVLM2_LITE_CACHE if set; else %LOCALAPPDATA% on Windows, ~/Library/Caches on macOS, and
    $XDG_CACHE_HOME or ~/.cache elsewhere, each with `cogvlm2-lite` below it.
    """
    return _named_by(CACHE_VARIABLE) or _folders().user_cache_path


def data_folder() -> Path:
    """Return the folder for conversations, pictures and settings; it may not exist yet.

    COGVLM2_LITE_DATA if set; else %APPDATA% on Windows, ~/Library/Application Support on macOS,
    and $XDG_DATA_HOME or ~/.local/share elsewhere, each with `cogvlm2-lite` below it.
    """
    return _named_by(DATA_VARIABLE) or _folders().user_data_path


def _named_by(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def _folders() -> PlatformDirs:
    # Without opinion=False, Windows would get another folder, `Cache`, below ours.
    return PlatformDirs("cogvlm2-lite", appauthor=False, roaming=True, opinion=False)
