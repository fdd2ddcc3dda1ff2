"""Reads the content of a drop or of the clipboard: a picture, several files, or a network address.

No address is fetched and no picture is decoded here: the bytes are passed on to a child process.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QMimeData, QSysInfo, QUrl
from PySide6.QtGui import QImage

from cogvlm2_lite.errors import CogVLM2LiteError, ImageError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.units import format_bytes

_KINDS = ("png", "jpeg", "webp", "bmp", "gif", "tiff", "avif", "heic", "heif")
_EMBEDDED = re.compile(rb"""<img[^>]{0,4096}?src=["'](data:image/[^"']+)["']""", re.I)


@dataclass(frozen=True, kw_only=True)
class DroppedContent:
    """What was dropped or pasted. At most one field is set.

    data   the bytes of a picture file
    files  several files, or one folder
    url    a network address, which is never fetched
    """

    data: bytes = b""
    files: tuple[Path, ...] = ()
    url: str = ""


def read_mime(mime: QMimeData) -> DroppedContent:
    """Return the picture, files or address in a drop; an empty DroppedContent without one.

    A browser drops several formats at once: the image if it has it, a part of the page with the
    image inside, and its address. Raises CogVLM2LiteError for a file that can't be read.
    """
    files = tuple(local_path(url) for url in mime.urls() if url.isLocalFile())
    if len(files) > 1 or (files and is_folder(files[0])):
        return DroppedContent(files=files)
    if files:
        return DroppedContent(data=read_file(files[0]))
    for data in (_raw(mime), _embedded(mime)):
        if data:
            return DroppedContent(data=data)
    remote = next((u for u in mime.urls() if u.scheme() in ("http", "https", "ftp")), None)
    return DroppedContent(url=address(remote)) if remote is not None else DroppedContent()


def local_path(url: QUrl) -> Path:
    """Return the path of a file: URL, byte for byte.

    Qt's own conversion replaces bytes that are not UTF-8, and no file has the resulting name. Some
    file managers put the name of this computer into the URL.
    """
    if os.name == "nt":
        return Path(url.toLocalFile())
    if url.host() not in ("", "localhost", QSysInfo.machineHostName().lower()):
        return Path(url.toLocalFile())
    encoded = url.path(QUrl.ComponentFormattingOption.FullyEncoded).encode()
    return Path(os.fsdecode(bytes(QByteArray.fromPercentEncoding(QByteArray(encoded)).data())))


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False for a name that can't exist."""
    try:
        return path.is_dir()
    except OSError:  # the name is too long
        return False


def read_file(path: Path) -> bytes:
    """Return the bytes of a picture file. Raises CogVLM2LiteError if it can't be read."""
    try:
        size = path.stat().st_size
        if size <= DEFAULT_LIMITS.max_file_bytes:
            return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise CogVLM2LiteError(
            "{file} can't be read: {why}.",
            hint="Check that it still exists and that you may read it.",
            file=escape_line(path.name)[:200],
            why=(error.strerror if isinstance(error, OSError) else None) or error,
        ) from error
    raise ImageError(
        "{file} has {size}, more than the {most} that a picture may have.",
        hint="Save a smaller copy: the model sees 1344 by 1344 pixels.",
        file=escape_line(path.name)[:200],
        size=format_bytes(size),
        most=format_bytes(DEFAULT_LIMITS.max_file_bytes),
    )


def png_bytes(image: QImage) -> bytes:
    """Return an image as the bytes of a PNG file."""
    store = QByteArray()
    buffer = QBuffer(store)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    # PySide6's type stubs require bytes for the format, but its code requires str.
    image.save(buffer, "PNG")  # type: ignore[call-overload]
    return bytes(store.data())


def address(url: QUrl) -> str:
    """Return an address in its encoded form, which reveals letters that look like others."""
    return bytes(url.toEncoded().data()).decode("ascii", errors="replace")


def _raw(mime: QMimeData) -> bytes:
    """Return a picture file as it is, or else the pixels as PNG."""
    for form in (f"image/{kind}" for kind in _KINDS):
        if mime.hasFormat(form):
            return bytes(mime.data(form).data())
    if mime.hasImage():
        image = mime.imageData()
        if isinstance(image, QImage) and not image.isNull():
            return png_bytes(image)
    return b""


def _embedded(mime: QMimeData) -> bytes:
    """Return an image that is embedded in an address or in HTML."""
    for url in mime.urls():
        if url.scheme() == "data":
            return _of_data_url(bytes(url.toEncoded().data()))
    if mime.hasHtml():
        found = _EMBEDDED.search(bytes(mime.data("text/html").data()))
        if found:
            return _of_data_url(found[1])
    return b""


def _of_data_url(written: bytes) -> bytes:
    """Return the data of "data:image/png;base64,..."; empty if it is not an image or too long."""
    head, _, body = written.partition(b",")
    if not head.lower().startswith(b"data:image/") or len(body) > 2 * DEFAULT_LIMITS.max_file_bytes:
        return b""
    data = bytes(QByteArray.fromPercentEncoding(QByteArray(body)).data())
    if not head.lower().endswith(b";base64"):
        return data
    try:
        return base64.b64decode(data)
    except binascii.Error:
        return b""
