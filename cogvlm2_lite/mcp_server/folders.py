"""The folders whose pictures a client may use; nothing outside them is opened or listed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cogvlm2_lite.batch.pictures import find_pictures, read_picture
from cogvlm2_lite.errors import ImageError, UsageError
from cogvlm2_lite.file_names import escape_line, unescape_name
from cogvlm2_lite.inputs.failures import no_access
from cogvlm2_lite.places import expand_home
from cogvlm2_lite.text import listed


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The first pictures of a folder, as whole paths, and how many there are."""

    paths: tuple[str, ...]
    total: int


class AllowedFolders:
    """Reads and lists pictures in some folders and their subfolders.

    Symbolic links are followed, but only to files that are in one of the folders, too.

    Raises UsageError if one of them is not a folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(
                    "{folder} is not a folder."
                    if folder.exists()
                    else "There is no folder {folder}.",
                    hint="Use the folder that contains the pictures.",
                    folder=folder,
                )
        self.folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))

    def read(self, name: str) -> bytes:
        """Return the bytes of a picture file.

        name  a path as `pictures` lists it, a path below one of the folders, or a file: address

        Raises ImageError if it is outside the folders or can't be read.
        """
        path = self._find(name)
        shown = escape_line(path.name)
        try:
            if path.is_dir():
                raise ImageError(
                    "{file} is a folder, not a picture.", hint="Choose one file in it.", file=shown
                )
            return read_picture(path).data
        except OSError as error:
            raise no_access(shown, error) from error

    def pictures(self, folder: str | None, *, contains: str = "", most: int) -> Listing:
        """Return the pictures of one folder, or of all, sorted by folder and path.

        contains  a part of the path, in upper or lower case

        Raises ImageError for a folder outside, and UsageError if there are no pictures.
        """
        places = self.folders if folder is None else (self._find(folder),)
        found: dict[Path, None] = {}
        empty: UsageError | None = None
        for place in places:
            try:
                names = find_pictures(place, recursive=True).names
            except UsageError as error:
                empty = error
                continue
            paths = (place / name for name in names)
            found |= dict.fromkeys(path for path in paths if self._is_inside(path))
        if not found and empty is not None:
            raise empty
        part = contains.casefold()
        shown = [name for path in found if part in (name := escape_line(str(path))).casefold()]
        return Listing(paths=tuple(shown[:most]), total=len(shown))

    def _find(self, name: str) -> Path:
        """Return the real path of a file or folder that exists in one of the folders."""
        inside = [path for path in self._candidates(name) if self._is_inside(path)]
        if not inside:
            # Whether a file outside exists is not revealed.
            raise ImageError(
                "{file!r} is outside the folders that may be used: {folders}.",
                hint="Use a path that list_pictures returns.",
                file=escape_line(name),
                folders=listed(escape_line(str(folder)) for folder in self.folders),
            )
        for path in inside:
            real = Path(os.path.realpath(path))
            if os.path.lexists(real):  # False also where access is denied
                return real
        raise ImageError(
            "There is no file {file!r}.",
            hint="Use a path that list_pictures returns.",
            file=escape_line(name),
        )

    def _candidates(self, name: str) -> list[Path]:
        """Return what a name may mean: a relative one is below any of the folders."""
        if name.lower().startswith("file:"):
            name = url2pathname(urlsplit(name).path)
        if "\0" in name:
            return []
        names = dict.fromkeys((name, unescape_name(name)))
        paths = [expand_home(one) for one in names if "\0" not in one]
        # Joining with an absolute path returns that path.
        return [folder / path for path in paths for folder in self.folders]

    def _is_inside(self, path: Path) -> bool:
        try:
            real = Path(os.path.realpath(path))
        except (OSError, ValueError):
            return False
        return any(real.is_relative_to(folder) for folder in self.folders)
