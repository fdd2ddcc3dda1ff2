"""Runs work on threads that would block the window, and returns the result as a signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal
from shiboken6 import isValid

from cogvlm2_lite.errors import CogVLM2LiteError

_CLOSE_S = 0.3


class Saver:
    """Runs jobs on a thread. Of several that wait only the last one is run: it has all changes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._job: Callable[[], None] | None = None
        self._working = False

    def run(self, job: Callable[[], None]) -> None:
        """Run a job soon; it replaces one that waits."""
        with self._changed:
            self._job = job
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="saver").start()

    def finish(self) -> None:
        """Wait until everything is written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._working)

    def _work(self) -> None:
        while True:
            with self._changed:
                job, self._job = self._job, None
                if job is None:
                    self._working = False
                    self._changed.notify_all()
                    return
            job()


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

    @property
    def busy(self) -> bool:
        """True while a task is running."""
        return bool(self._threads)

    def close(self) -> None:
        """Drop the results of running tasks, and wait a moment for their end.

        A task that takes longer ends with the program.
        """
        self._closed = True
        end = time.monotonic() + _CLOSE_S
        for thread in list(self._threads):
            thread.join(max(0.0, end - time.monotonic()))

    def _finish(self, callback: Callable[[Any], None], value: object, owner: QObject) -> None:
        if not self._closed:
            self._done.emit(callback, value, owner)

    def _deliver(self, callback: Callable[[Any], None], value: object, owner: QObject) -> None:
        if not self._closed and isValid(owner):
            callback(value)
