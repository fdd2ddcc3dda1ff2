"""Runs work on threads that would block the window, and returns the result as a signal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal
from shiboken6 import isValid

from cogvlm2_lite.errors import CogVLM2LiteError


class Tasks(QObject):
    """Runs plain functions on threads.

    A function's result, or the CogVLM2LiteError that it raised, is passed to a callback in the
    window's thread. Other exceptions are bugs and reach threading.excepthook.
    """

    _done = Signal(object, object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self._done.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def run(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[CogVLM2LiteError], None],
        owner: QObject,
    ) -> None:
        """Run `work` on a thread, then call `then` or `failed` in the window's thread.

        owner  no callback is called after Qt has deleted this object
        """

        def body() -> None:
            try:
                result = work()
            except CogVLM2LiteError as error:
                self._finish(failed, error, owner)
            else:
                self._finish(then, result, owner)
            self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=body, name="task", daemon=True)
        self._threads.add(thread)
        thread.start()

    def close(self) -> None:
        """Wait for running tasks and drop their results."""
        self._closed = True
        for thread in list(self._threads):
            thread.join()

    def _finish(self, callback: Callable[[Any], None], value: object, owner: QObject) -> None:
        if not self._closed:
            self._done.emit(callback, value, owner)

    def _deliver(self, callback: Callable[[Any], None], value: object, owner: QObject) -> None:
        if not self._closed and isValid(owner):
            callback(value)
