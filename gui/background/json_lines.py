"""Runs a command of this program in a child process and reads its events, one JSON line each."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from PySide6.QtCore import QObject, QProcess, Signal

from cogvlm2_lite.text import read_templates

PROGRAM = (sys.executable, "-P", "-m", "cogvlm2_lite")
_END_MS = 400
"""A command has this long to end when its page closes; then it is killed. Finished work is kept."""


class Command(QObject):
    """`cogvlm2-lite ...` in a child process.

    event_received  (dict) an event of the command
    ended           the process ended or could not be started; `reason` has its last error line
    """

    event_received = Signal(object)  # Signal(dict) would turn a Text in the dict into a str
    ended = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rest = bytearray()
        self._errors = b""
        self._process = QProcess(self)
        self._process.readyReadStandardOutput.connect(self._read)
        self._process.readyReadStandardError.connect(self._read_errors)
        self._process.finished.connect(lambda *_: self._finished())
        self._process.errorOccurred.connect(self._failed)

    @property
    def running(self) -> bool:
        return self._process.state() is not QProcess.ProcessState.NotRunning

    @property
    def reason(self) -> str:
        """The last line on the child's standard error, or ""."""
        lines = self._errors.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def start(self, arguments: Sequence[str]) -> None:
        """Start the child. It must not be running."""
        assert not self.running
        self._rest, self._errors = bytearray(), b""
        program, *first = PROGRAM
        self._process.start(program, [*first, *arguments])

    def send_line(self, line: str) -> None:
        """Write a line to the child's standard input."""
        self._process.write(line.encode() + b"\n")

    def terminate(self) -> None:
        """Ask the child to end.

        On Windows a program without windows can only be killed. The commands keep finished work
        either way.
        """
        if sys.platform == "win32":
            self._process.kill()
        else:
            self._process.terminate()

    def end(self, finish_ms: int = 0) -> None:
        """End the child and wait for it, without further signals.

        finish_ms  time to end by itself: the end of its input is a request to stop
        """
        self.blockSignals(True)
        if self.running:
            self._process.closeWriteChannel()
            if finish_ms and self._process.waitForFinished(finish_ms):
                return
            self.terminate()
            if not self._process.waitForFinished(_END_MS):
                self._process.kill()
                self._process.waitForFinished(_END_MS)

    def _read(self) -> None:
        new = bytes(self._process.readAllStandardOutput().data())
        self._rest += new
        if b"\n" not in new:  # a list of many pictures comes in thousands of pieces
            return
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            try:
                event = read_templates(json.loads(line))
            except ValueError:
                continue  # output of a library
            if isinstance(event, dict):
                self.event_received.emit(event)

    def _read_errors(self) -> None:
        # Only the end is needed, and a child that writes for hours must not fill the memory.
        new = bytes(self._process.readAllStandardError().data())
        self._errors = (self._errors + new)[-4096:]

    def _finished(self) -> None:
        self._read()
        self._read_errors()
        self.ended.emit()

    def _failed(self, error: QProcess.ProcessError) -> None:
        if error is QProcess.ProcessError.FailedToStart:
            self._errors = self._process.errorString().encode()
            self.ended.emit()
