"""The folders of this program: the cache, and the user's data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from platformdirs import PlatformDirs

from cogvlm2_lite.errors import FolderError
from cogvlm2_lite.text import Text

CACHE_VARIABLE = "COGVLM2_LITE_CACHE"
"""Environment variable with the path of the cache folder."""

DATA_VARIABLE = "COGVLM2_LITE_DATA"
"""Environment variable with the path of the data folder."""


_READ_ONLY = Text("it is read-only for this user")


def cache_folder() -> Path:
    """Return the folder for files that can be recreated; it may not exist yet.

    COGVLM2_LITE_CACHE if set; else %LOCALAPPDATA% on Windows, ~/Library/Caches on macOS, and
    $XDG_CACHE_HOME or ~/.cache elsewhere, each with `cogvlm2-lite` below it.

    Raises FolderError if there is no home folder.
    """
    return _folder(CACHE_VARIABLE, lambda: _folders().user_cache_path)


def data_folder() -> Path:
    """Return the folder for conversations, pictures and settings; it may not exist yet.

    COGVLM2_LITE_DATA if set; else %APPDATA% on Windows, ~/Library/Application Support on macOS,
    and $XDG_DATA_HOME or ~/.local/share elsewhere, each with `cogvlm2-lite` below it.

    Raises FolderError if there is no home folder.
    """
    return _folder(DATA_VARIABLE, lambda: _folders().user_data_path)


def prepare_cache(name: str = "") -> Path:
    """Create the cache folder, or a folder in it, and return it.

    Raises FolderError if nothing can be written there.
    """
    check_cache()
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _not_writable(folder, getattr(error, "strerror", None) or str(error)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _not_writable(folder, _READ_ONLY)
    return folder


def check_cache() -> None:
    """Raise FolderError if the cache folder can't be written, or made; nothing is created."""
    folder = cache_folder()
    # PermissionError, a name that is too long: not there for this user
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise _not_writable(folder, Text("{path} is not a folder", path=there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _not_writable(folder, _READ_ONLY)


def _not_writable(folder: Path, why: str) -> FolderError:
    return FolderError(
        "The cache folder {folder} can't be written: {why}.",
        hint="Set the environment variable {variable} to a folder that can be written.",
        folder=folder,
        why=why,
        variable=CACHE_VARIABLE,
    )


def expand_home(path: str | Path) -> Path:
    """Return a path with a leading ~ or ~user replaced by the home folder.

    The path is unchanged if a file of exactly this name exists, or if the home folder is unknown.
    """
    plain = Path(path)
    if os.path.lexists(plain):
        return plain
    try:
        return plain.expanduser()
    except RuntimeError:
        return plain


def _folder(variable: str, default: Callable[[], Path]) -> Path:
    value = os.environ.get(variable)
    try:
        return Path(value).expanduser() if value else default()
    except RuntimeError as error:
        raise _no_home(variable) from error


def _no_home(variable: str) -> FolderError:
    return FolderError(
        "There is no home folder for this user, so there is no place for files of this program.",
        hint="Set the environment variable {variable} to a folder that can be written.",
        variable=variable,
    )


def _folders() -> PlatformDirs:
    # Without opinion=False, there would be an additional folder `Cache` on Windows.
    return PlatformDirs("cogvlm2-lite", appauthor=False, roaming=True, opinion=False)
