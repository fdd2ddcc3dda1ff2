"""The pictures of conversations. Each is read, decoded and saved once, in the background."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PySide6.QtCore import QObject, QSize, Qt, Signal
from PySide6.QtGui import QImage

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.worker.protocol import DecodedImage
from gui.background import pixels
from gui.background.decoder import DecodedPicture, Decoding, decode
from gui.background.tasks import Tasks
from gui.data.history import History, HistoryError
from gui.data.state import Part

_SHOWN_SIDE = 1344
_THUMBNAIL_SIDE = 96
_MOST_KEPT_PIXELS = 150_000_000
"""Decoded pictures of conversations that were shown before are kept up to this many pixels."""


class AttachmentState(Enum):
    """The state of a picture."""

    READING = "reading"
    READY = "ready"
    FAILED = "failed"


@dataclass(eq=False, kw_only=True)
class Attachment:
    """A picture that a conversation was given.

    name       the file's name, or where the picture comes from, in one line
    page       the page or frame that the user chose, from 1; None: none was chosen
    path       the file on the user's disk; None for a picture that was pasted
    saved      its name in the history; "" while it is not saved
    data       the bytes of the picture file
    picture    the pixels; None until they are decoded
    image      the same pixels as an image, which uses the memory of `picture`
    shown      the image, not larger than 1344 pixels
    thumbnail  the image, not larger than 96 pixels
    error      why it can't be used: message and hint, a Text to be translated
    before     the page that is shown while this one is read
    """

    name: str
    page: int | None = None
    path: Path | None = None
    saved: str = ""
    data: bytes = b""
    picture: DecodedPicture | None = None
    image: QImage = field(default_factory=QImage)
    shown: QImage = field(default_factory=QImage)
    thumbnail: QImage = field(default_factory=QImage)
    error: str = ""
    before: Attachment | None = None

    @property
    def state(self) -> AttachmentState:
        """Whether it is being read, can be used, or can't be read."""
        if self.error:
            return AttachmentState.FAILED
        return AttachmentState.READING if self.picture is None else AttachmentState.READY

    def pixels(self) -> tuple[bytes, DecodedImage]:
        """Return the pixels as worker.protocol.Ask wants them. The state must be READY."""
        assert self.picture is not None
        return _for_engine(self.picture)

    @property
    def page_of_several(self) -> int | None:
        """The page that is used of a file with several; None for a file with one."""
        found = self.picture
        return found.page if found is not None and found.pages > 1 else None


def whole_page(attachment: Attachment, page: int) -> tuple[bytes, DecodedImage]:
    """Return the pixels of a page as worker.protocol.Ask wants them. Called on a thread.

    The attachment must be ready. Raises CogVLM2LiteError.
    """
    return _for_engine(decode(attachment.data, page=page))


def _for_engine(found: DecodedPicture) -> tuple[bytes, DecodedImage]:
    return found.rgb, DecodedImage(
        width=found.width,
        height=found.height,
        sha256=found.sha256,
        format=found.format,
        original_size=(found.original_width, found.original_height),
        page=found.page,
        pages=found.pages,
        notices=found.notices,
    )


def cut_part(attachment: Attachment, part: Part) -> tuple[bytes, DecodedImage]:
    """Return the pixels of a part as worker.protocol.Ask wants them. Called on a thread.

    The page of the part is decoded if it is not the page of the attachment, which must be ready.
    Raises CogVLM2LiteError.
    """
    found = attachment.picture
    assert found is not None
    if part.page != attachment.page:
        found = decode(attachment.data, page=part.page)
    if part.x + part.width > found.width or part.y + part.height > found.height:
        raise CogVLM2LiteError(
            "The part of this question is outside of the picture: the picture was replaced.",
            hint="Choose a part of the new picture.",
        )
    opened = pixels.cut(found, part)
    return opened.rgb.tobytes(), DecodedImage(
        width=opened.width,
        height=opened.height,
        sha256=opened.sha256,
        format=found.format,
        original_size=opened.original_size,
    )


class _Read(NamedTuple):
    data: bytes
    picture: DecodedPicture
    image: QImage
    shown: QImage
    thumbnail: QImage
    saved: str


class Attachments(QObject):
    """Reads attachments.

    changed  (Attachment) it became ready, or failed
    """

    changed = Signal(object)

    def __init__(self, tasks: Tasks, history: History, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._tasks, self._history = tasks, history
        self._running: dict[Attachment, Decoding] = {}
        self._kept: OrderedDict[tuple[str, int | None], Attachment] = OrderedDict()

    def read(
        self,
        read: Callable[[], bytes],
        *,
        name: str,
        page: int | None = None,
        path: Path | None = None,
    ) -> Attachment:
        """Return an attachment that is being read; `changed` is emitted when that ends.

        read  returns the bytes of the file, and is called on another thread
        """
        made = Attachment(name=name, page=page, path=path)
        self._start(made, read)
        return made

    def of_history(self, saved: str, page: int | None, name: str) -> Attachment:
        """Return a picture of the history; one that was used lately is ready at once."""
        kept = self._kept.get((saved, page))
        if kept is not None:
            self._kept.move_to_end((saved, page))
            return kept
        made = Attachment(name=name, page=page, saved=saved)
        self._start(made, partial(self._history.picture, saved))
        return made

    def other_page(self, of: Attachment, page: int) -> Attachment:
        """Return another page of a file as an attachment of its own."""
        made = Attachment(name=of.name, page=page, path=of.path, before=of)
        self._start(made, lambda: of.data)
        return made

    def cancel(self, attachment: Attachment | None) -> None:
        """Stop reading an attachment. It is not reported any more."""
        decoding = self._running.pop(attachment, None) if attachment is not None else None
        if decoding is not None:
            decoding.cancel()

    def shut_down(self) -> None:
        """Stop reading."""
        for attachment in list(self._running):
            self.cancel(attachment)

    def _start(self, attachment: Attachment, read: Callable[[], bytes]) -> None:
        decoding = self._running[attachment] = Decoding()
        self._tasks.run(
            partial(_read, self._history, decoding, read, attachment.page),
            partial(self._became_ready, attachment),
            partial(self._failed, attachment),
            self,
        )

    def _became_ready(self, attachment: Attachment, found: _Read) -> None:
        if self._running.pop(attachment, None) is None:
            return
        attachment.data, attachment.picture, attachment.image = found[:3]
        attachment.shown, attachment.thumbnail, attachment.saved = found[3:]
        self._keep(attachment)
        self.changed.emit(attachment)

    def _failed(self, attachment: Attachment, error: CogVLM2LiteError) -> None:
        if self._running.pop(attachment, None) is not None:
            attachment.error = error.text
            self.changed.emit(attachment)

    def _keep(self, attachment: Attachment) -> None:
        if attachment.saved:
            self._kept[attachment.saved, attachment.page] = attachment
        while len(self._kept) > 1 and sum(map(_pixels, self._kept.values())) > _MOST_KEPT_PIXELS:
            self._kept.popitem(last=False)


def _read(
    history: History, decoding: Decoding, read: Callable[[], bytes], page: int | None
) -> _Read:
    """Read, decode and save a picture. Raises CogVLM2LiteError."""
    data = read()
    found = decoding.decode(data, page)
    wide, form = 3 * found.width, QImage.Format.Format_RGB888
    image = QImage(found.rgb, found.width, found.height, wide, form)
    shown = _scaled(image, _SHOWN_SIDE)
    try:
        saved = history.save_picture(data)
    except HistoryError:  # it is tried again, and reported, when a question is asked
        saved = ""
    return _Read(data, found, image, shown, _scaled(shown, _THUMBNAIL_SIDE), saved)


def _scaled(image: QImage, side: int) -> QImage:
    """Return an image that is not larger than a square."""
    if max(image.width(), image.height()) <= side:
        return image.copy()
    size = image.size().scaled(QSize(side, side), Qt.AspectRatioMode.KeepAspectRatio)
    return image.scaled(
        size.expandedTo(QSize(1, 1)),
        Qt.AspectRatioMode.IgnoreAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )


def _pixels(attachment: Attachment) -> int:
    return attachment.image.width() * attachment.image.height()
