"""The files of the chat page: the only ones that this server sends, read once at the start."""

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
    "/messages.js": ("messages.js", _SCRIPT),
    "/settings.js": ("settings.js", _SCRIPT),
    "/memory.js": ("memory.js", _SCRIPT),
    "/history.js": ("history.js", _SCRIPT),
    "/markdown.js": ("markdown.js", _SCRIPT),
    "/conversation.js": ("conversation.js", _SCRIPT),
}

PATHS = frozenset(_FILES)
"""Paths that need no key: the files contain nothing about this machine."""


def read_assets() -> dict[str, tuple[bytes, str]]:
    """Return the content and the type of each path."""
    folder = files("cogvlm2_lite.server").joinpath("page")
    return {
        path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()
    }
