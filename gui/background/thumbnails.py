"""Thumbnails for the table, decoded one after the other in a child process that may crash."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import BinaryIO, cast

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QImage

from gui.background.decoder import child_command

SIDE = 128
"""Longest side in pixels: twice the shown size, for high-density screens."""
_TIMEOUT_S = 20.0
_MOST_QUEUED = 200
"""Older paths in the queue are dropped: their rows were scrolled away long ago."""


class Thumbnails(QObject):
    """Decodes the requested pictures, the newest request first, because its row is visible now.

    ready  (path, image); the image is null if the file is not a picture
    """

    ready = Signal(object, QImage)  # Signal(str) would lose names that are not UTF-8
    _made = Signal(object, QImage)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._changed = threading.Condition()
        self._queue: list[Path] = []
        self._closed = False
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._made.connect(self.ready, Qt.ConnectionType.QueuedConnection)

    def request(self, path: Path) -> None:
        """Request the thumbnail of a file; `ready` delivers it."""
        with self._changed:
            self._queue.append(path)
            del self._queue[:-_MOST_QUEUED]
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="thumbnails", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Stop the child and the thread."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify()
            if self._child is not None:
                self._child.kill()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue) or self._closed)
                if self._closed:
                    break
                path = self._queue.pop()
            image = self._decode(path)
            if not self._closed:
                self._made.emit(str(path), image)
        self._end_child()

    def _decode(self, path: Path) -> QImage:
        """Return the thumbnail; a null image if it is not a picture or the child crashes on it."""
        child = self._running_child()
        # A decoder that hangs is killed; like a crash, this gives an empty line.
        timer = threading.Timer(_TIMEOUT_S, child.kill)
        timer.start()
        try:
            stdin, stdout = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout)
            stdin.write(json.dumps(str(path)).encode() + b"\n")
            stdin.flush()
            header = json.loads(stdout.readline())
            if "error" in header:
                return QImage()
            width, height = header["width"], header["height"]
            pixels = stdout.read(3 * width * height)
            form = QImage.Format.Format_RGB888
            return QImage(pixels, width, height, 3 * width, form).copy()
        except (OSError, ValueError):
            self._end_child()
            return QImage()
        finally:
            timer.cancel()

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            child = subprocess.Popen(
                child_command("small", SIDE), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            with self._changed:
                self._child = child
                if self._closed:
                    child.kill()
        return self._child

    def _end_child(self) -> None:
        with self._changed:
            child, self._child = self._child, None
        if child is not None:
            child.kill()
            for stream in (child.stdin, child.stdout):
                _close(stream)
            child.wait()


def _close(stream: object) -> None:
    try:
        cast(BinaryIO, stream).close()
    except OSError:
        return
