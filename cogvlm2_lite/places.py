"""The folders of this program: the cache, and the user's data."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import PlatformDirs

CACHE_VARIABLE = "COGVLM2_LITE_CACHE"
"""Environment variable with the path of the cache folder."""

DATA_VARIABLE = "COGVLM2_LITE_DATA"
"""Environment variable with the path of the data folder."""


def cache_folder() -> Path:
    """Return the folder for files that can be recreated; it may not exist yet.

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
    # Without opinion=False, there would be an additional folder `Cache` on Windows.
    return PlatformDirs("cogvlm2-lite", appauthor=False, roaming=True, opinion=False)
