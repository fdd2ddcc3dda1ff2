"""The pictures that were given from the disk, the newest first. No Qt here."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from gui.data.settings import Preferences

MOST = 10
_NAME = "recent_pictures"


class RecentPictures:
    """The list in the settings, as file: addresses, which can have every name.

    kept  False: nothing is added, because conversations are not saved either
    """

    def __init__(self, settings: Preferences, *, kept: bool) -> None:
        self._settings, self._kept = settings, kept

    def paths(self) -> list[Path]:
        """Return the paths, the newest first. The files may not exist any more."""
        if not self._kept:
            return []
        return [_path(address) for address in self._settings.get(_NAME)]

    def add(self, path: Path) -> None:
        """Put a picture at the top."""
        if self._kept:
            address = path.absolute().as_uri()
            rest = [other for other in self._settings.get(_NAME) if other != address]
            self._settings.set(_NAME, [address, *rest][:MOST])

    def remove(self, path: Path) -> None:
        """Remove a picture."""
        address = path.absolute().as_uri()
        self._settings.set(
            _NAME, [other for other in self._settings.get(_NAME) if other != address]
        )

    def clear(self) -> None:
        """Remove all pictures."""
        self._settings.set(_NAME, [])


def _path(address: str) -> Path:
    path = os.fsdecode(unquote_to_bytes(urlsplit(address).path))
    return Path(path.lstrip("/") if os.name == "nt" else path)
