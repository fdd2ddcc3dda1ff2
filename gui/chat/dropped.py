"""Reads the content of a drop or of the clipboard: a picture, several files, or a network address.

No address is fetched and no picture is decoded here: the bytes are passed on to a child process.
"""

from __future__ import annotations

import base64
import binascii
import html
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QMimeData, QSysInfo, QUrl
from PySide6.QtGui import QImage

from cogvlm2_lite.errors import CogVLM2LiteError, ImageError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.units import format_bytes

_KINDS = ("png", "jpeg", "webp", "bmp", "gif", "tiff", "avif", "heic", "heif")
_EMBEDDED = re.compile(
    r"""<img\b[^>]{0,4096}?\bsrc\s*=\s*(?:"(data:image/[^"]+)"|'(data:image/[^']+)'|(data:image/[^\s>]+))""",
    re.I,
)
_COPIED_FILES = "x-special/gnome-copied-files"
_NETWORK = ("http", "https", "ftp", "ftps")


@dataclass(frozen=True, kw_only=True)
class DroppedContent:
    """What was dropped or pasted. At most one field is set.

    data   the bytes of a picture file
    image  the pixels of a picture, if its file is not there
    files  files and folders
    url    a network address, which is never fetched
    """

    data: bytes = b""
    image: QImage | None = None
    files: tuple[Path, ...] = ()
    url: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that can be used or reported."""
        return not (self.data or self.image is not None or self.files or self.url)

    @property
    def read(self) -> Callable[[], bytes]:
        """A function that returns the bytes of the picture file. It may be slow for pixels."""
        image, data = self.image, self.data
        return (lambda: data) if image is None else (lambda: png_bytes(image))


def read_mime(mime: QMimeData) -> DroppedContent:
    """Return the picture, files or address in a drop; an empty DroppedContent without one.

    A browser drops several formats at once: the image if it has it, a part of the page with the
    image inside, and its address. No file is read here.
    """
    urls = _urls(mime)
    files = tuple(local_path(url) for url in urls if url.isLocalFile())
    if files:
        return DroppedContent(files=files)
    raw = _raw(mime)
    if raw:
        return DroppedContent(data=raw)
    if mime.hasImage():
        image = mime.imageData()
        if isinstance(image, QImage) and not image.isNull():
            return DroppedContent(image=image)
    embedded = _embedded(mime, urls)
    if embedded:
        return DroppedContent(data=embedded)
    remote = next((url for url in urls if url.scheme() in _NETWORK), None)
    return DroppedContent(url=address(remote)) if remote is not None else DroppedContent()


def may_have_picture(mime: QMimeData) -> bool:
    """Return whether `read_mime` may find something, without asking for the data."""
    return (
        mime.hasUrls()
        or mime.hasImage()
        or mime.hasHtml()
        or mime.hasFormat(_COPIED_FILES)
        or any(mime.hasFormat(f"image/{kind}") for kind in _KINDS)
        or bool(_urls(mime))
    )


def is_text(mime: QMimeData) -> bool:
    """Return whether a text field should take this as text, although it may have a picture, too.

    Spreadsheets and word processors copy an image of the text along with it. Text that is only
    addresses describes the files or the picture next to it.
    """
    if not mime.hasFormat("text/plain") or any(url.isLocalFile() for url in _urls(mime)):
        return False
    words = mime.text().split()
    if words and all(word.lower().startswith("data:image/") for word in words):
        return False
    addresses = bool(words) and all(QUrl(word).scheme() in _NETWORK for word in words)
    if not addresses:
        return bool(words)
    pictured = mime.hasImage() or bool(_raw(mime)) or bool(_embedded(mime, []))
    return not pictured and not mime.hasUrls()


def _urls(mime: QMimeData) -> list[QUrl]:
    """Return the addresses, also those that are written as the whole text: file:///a.png."""
    if mime.hasUrls():
        return mime.urls()
    if mime.hasFormat(_COPIED_FILES):
        lines = bytes(mime.data(_COPIED_FILES).data()).split(b"\n")[1:]
        return [QUrl.fromEncoded(QByteArray(line.strip())) for line in lines if line.strip()]
    words = [line.strip() for line in mime.text().splitlines() if line.strip()]
    if words and all(word.lower().startswith(("file://", "data:image/")) for word in words):
        return [QUrl.fromEncoded(QByteArray(word.encode())) for word in words]
    return []


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
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def is_file(path: Path) -> bool:
    """Return whether a path is a file; False for a name that can't exist."""
    try:
        return path.is_file()
    except (OSError, ValueError):
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
    """Return a picture file as it is."""
    for form in (f"image/{kind}" for kind in _KINDS):
        if mime.hasFormat(form):
            data = bytes(mime.data(form).data())
            if data:
                return data
    return b""


def _embedded(mime: QMimeData, urls: list[QUrl]) -> bytes:
    """Return an image that is embedded in an address or in HTML."""
    for url in urls:
        if url.scheme() == "data":
            return _of_data_url(bytes(url.toEncoded().data()))
    found = _EMBEDDED.search(mime.html()) if mime.hasHtml() else None
    if found is None:
        return b""
    written = next(group for group in found.groups() if group)
    return _of_data_url(html.unescape(written).encode())


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
