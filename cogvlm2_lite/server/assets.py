"""The page's files: the only ones this server gives, read once at the start."""

from __future__ import annotations

from importlib.resources import files

_SCRIPT = "text/javascript; charset=utf-8"
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
    "/page.js": ("page.js", _SCRIPT),
    "/words.js": ("words.js", _SCRIPT),
    "/elements.js": ("elements.js", _SCRIPT),
    "/camera.js": ("camera.js", _SCRIPT),
    "/memory.js": ("memory.js", _SCRIPT),
    "/history.js": ("history.js", _SCRIPT),
}

PATHS = frozenset(_FILES)
"""Paths that are open without a key: nothing in them is of this machine."""


def read_assets() -> dict[str, tuple[bytes, str]]:
    """Give each path's content and its type."""
    folder = files("cogvlm2_lite.server").joinpath("page")
    return {
        path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()
    }
