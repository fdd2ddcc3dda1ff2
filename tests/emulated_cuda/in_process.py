"""The engine's process as a thread of this one, so that it runs on the emulated GPU."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import BinaryIO, cast
from unittest.mock import patch

from cogvlm2_lite.worker import client
from cogvlm2_lite.worker import main as worker_main
from cogvlm2_lite.worker.main import Worker


class ThreadProcess:
    """What EngineProcess uses of subprocess.Popen; the child is a thread."""

    def __init__(
        self, command: Sequence[str], *, stdin: int, stdout: int, env: Mapping[str, str]
    ) -> None:
        self.pid = os.getpid()
        self._commands, self.stdin = _pipe()
        self.stdout, self._reports = _pipe()
        self._code = 0
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            Worker(cast(BinaryIO, _ClosesAtTheEnd(self._commands)), self._reports).run()
        except SystemExit as ended:
            self._code = int(str(ended.code))
        finally:
            with suppress(OSError):
                self._reports.close()

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        return self._code

    def kill(self) -> None:
        with suppress(OSError):
            self.stdin.close()


class _ClosesAtTheEnd:
    """A pipe that is closed when its writer is: no process ends that would do it."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    def read(self, count: int) -> bytes:
        data = self._pipe.read(count)
        if not data:
            self._pipe.close()
        return data


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb"), os.fdopen(writer, "wb")


@contextmanager
def engine_in_this_process() -> Iterator[None]:
    """Let every EngineProcess that is started in the body be a thread of this process."""
    popen = SimpleNamespace(
        Popen=ThreadProcess, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )
    # The worker ends its process when its owner is gone; here that would end the tests.
    own = SimpleNamespace(_exit=lambda code: None)
    before = set(threading.enumerate())
    with patch.object(client, "subprocess", popen), patch.object(worker_main, "os", own):
        try:
            yield
        finally:
            # A thread that notices the end of its owner later would end the tests after all.
            for thread in set(threading.enumerate()) - before:
                if thread.name in ("worker", "commands"):
                    thread.join(20)
