"""What a drop or the clipboard holds: a picture, several files, or an address, never fetched.

No picture is decoded here: bytes are handed on as they came, and a child looks at them.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QMimeData, QUrl
from PySide6.QtGui import QImage

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.inputs.image import DEFAULT_LIMITS

_FORMATS = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")
_EMBEDDED = re.compile(rb"""<img[^>]{0,4096}?src=["'](data:image/[^"']+)["']""", re.I)


@dataclass(frozen=True, kw_only=True)
class DroppedContent:
    """What was dropped or pasted; at most one of the three is there.

    data    the bytes of a picture file
    files   several files, or one folder
    url     an address in the network, which is never fetched
    """

    data: bytes = b""
    files: tuple[Path, ...] = ()
    url: str = ""


def read_mime(mime: QMimeData) -> DroppedContent:
    """Find the picture; an empty DroppedContent when there is nothing like one.

    A browser drops several things at once: the image itself where it has it, a page's piece with
    the image inside, and its address. Raises CogVLM2LiteError for a file that can't be read.
    """
    files = tuple(Path(url.toLocalFile()) for url in mime.urls() if url.isLocalFile())
    if len(files) > 1 or (files and files[0].is_dir()):
        return DroppedContent(files=files)
    if files:
        return DroppedContent(data=read_file(files[0]))
    for data in (_raw(mime), _embedded(mime)):
        if data:
            return DroppedContent(data=data)
    remote = next((u for u in mime.urls() if u.scheme() in ("http", "https", "ftp")), None)
    return DroppedContent(url=address(remote)) if remote is not None else DroppedContent()


def read_file(path: Path) -> bytes:
    """Read a picture file; CogVLM2LiteError says why not."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CogVLM2LiteError(
            "{file} can't be read: {why}.",
            hint="Check that it still exists and that you may read it.",
            file=path.name,
            why=error.strerror or error,
        ) from error


def png_bytes(image: QImage) -> bytes:
    """Give an image as a PNG file."""
    store = QByteArray()
    buffer = QBuffer(store)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    # Stubs of PySide6 want bytes for the format, and its code takes text.
    image.save(buffer, "PNG")  # type: ignore[call-overload]
    return bytes(store.data())


def address(url: QUrl) -> str:
    """Write an address as it goes over the wire: letters that only look like others show up."""
    return bytes(url.toEncoded().data()).decode("ascii", errors="replace")


def _raw(mime: QMimeData) -> bytes:
    """Give a picture file that lies there as it is, else pixels of another program."""
    for form in _FORMATS:
        if mime.hasFormat(form):
            return bytes(mime.data(form).data())
    if mime.hasImage():
        image = mime.imageData()
        if isinstance(image, QImage) and not image.isNull():
            return png_bytes(image)
    return b""


def _embedded(mime: QMimeData) -> bytes:
    """Give an image that is written out in an address or a piece of a page."""
    for url in mime.urls():
        if url.scheme() == "data":
            return _of_data_url(bytes(url.toEncoded().data()))
    if mime.hasHtml():
        found = _EMBEDDED.search(bytes(mime.data("text/html").data()))
        if found:
            return _of_data_url(found[1])
    return b""


def _of_data_url(written: bytes) -> bytes:
    """Read "data:image/png;base64,..."; empty for what is no image or too long."""
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
