"""One window for a user and a data folder: a second start passes on what it was asked to open.

Which process has the window is decided by the lock on the data folder (gui/app.py), so a socket
that was left by a window that was killed is simply replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtNetwork import QLocalServer, QLocalSocket

_TOKENS = ("XDG_ACTIVATION_TOKEN", "DESKTOP_STARTUP_ID")
"""Environment variables with which a desktop allows a program to raise its window."""
_MOST_BYTES = 4 * 1024 * 1024
_LONGEST_PATH = 100
"""A socket's path has at most 107 bytes on Linux and 103 on macOS."""
_ANSWER = b"ok\n"
_CONNECTED = QLocalSocket.LocalSocketState.ConnectedState


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """What a start of the program was asked to open.

    files  pictures and folders of pictures, as absolute paths
    model  a model folder
    adapter  a folder of an adapter; without a model, of the one that is open
    tokens the environment variables that allow the window to come to the front
    """

    files: tuple[Path, ...] = ()
    model: Path | None = None
    adapter: Path | None = None
    tokens: Mapping[str, str]

    def encode(self) -> bytes:
        """Return the request as a line of JSON."""
        values = {
            "files": [os.fspath(file) for file in self.files],
            "model": os.fspath(self.model) if self.model is not None else None,
            "adapter": os.fspath(self.adapter) if self.adapter is not None else None,
            "tokens": dict(self.tokens),
        }
        return json.dumps(values).encode("ascii") + b"\n"  # escapes names that are not UTF-8

    @classmethod
    def decode(cls, line: bytes) -> OpenRequest:
        """Read what `encode` wrote. Raises ValueError for anything else."""
        values = json.loads(line)
        try:
            files, model, tokens = values["files"], values["model"], values["tokens"]
            adapter = values["adapter"]
            return cls(
                files=tuple(map(Path, files)),
                model=Path(model) if model is not None else None,
                adapter=Path(adapter) if adapter is not None else None,
                tokens={name: str(tokens[name]) for name in _TOKENS if name in tokens},
            )
        except (TypeError, KeyError) as error:
            raise ValueError("not a request to open something") from error


def activation_tokens(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with which the desktop lets this start raise a window."""
    return {name: environ[name] for name in _TOKENS if environ.get(name)}


def socket_name(data: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the socket of a data folder and this user."""
    key = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    if sys.platform == "win32":
        return f"cogvlm2-lite-{environ.get('USERNAME', '')}-{key}"
    runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
    for folder in (runtime, data.resolve()):
        path = folder / f"cogvlm2-lite-{key}.socket"
        usable = folder.is_absolute() and folder.is_dir() and os.access(folder, os.W_OK)
        if usable and len(os.fsencode(path)) <= _LONGEST_PATH:
            return str(path)
    return str(Path(tempfile.gettempdir()) / f"cogvlm2-lite-{os.getuid()}-{key}.socket")


def hand_over(name: str, request: OpenRequest, timeout_s: float = 5.0) -> bool:
    """Pass a request to the window that is open. Returns False if it does not answer.

    A window that is just being started does not listen yet, so this tries again.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if _is_ours(name):
            socket = QLocalSocket()
            socket.connectToServer(name)
            if socket.waitForConnected(500):
                return _send(socket, request, end)
        time.sleep(0.05)
    return False


def _send(socket: QLocalSocket, request: OpenRequest, end: float) -> bool:
    socket.write(request.encode())
    answer = b""
    while _ANSWER not in answer:
        if time.monotonic() > end or socket.state() is not _CONNECTED:
            return False
        socket.waitForReadyRead(20)
        answer += bytes(socket.readAll().data())
        time.sleep(0.005)
    socket.disconnectFromServer()
    return True


def _is_ours(name: str) -> bool:
    """Return whether a socket belongs to this user; another user could have made it in /tmp."""
    if sys.platform == "win32":
        return True
    try:
        return Path(name).stat().st_uid == os.getuid()
    except OSError:
        return False


class RequestServer(QObject):
    """Receives the requests of later starts.

    received  (OpenRequest)
    """

    received = Signal(object)

    def __init__(self, name: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._server = QLocalServer(self)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._connected)
        QLocalServer.removeServer(name)  # of a window that was killed
        self.listening = self._server.listen(name)

    def close(self) -> None:
        """Stop receiving, and remove the socket."""
        self._server.close()

    def _connected(self) -> None:
        while (socket := self._server.nextPendingConnection()) is not None:
            socket.disconnected.connect(socket.deleteLater)
            socket.readyRead.connect(partial(self._read, socket, bytearray()))

    def _read(self, socket: QLocalSocket, line: bytearray) -> None:
        line += bytes(socket.readAll().data())
        if len(line) > _MOST_BYTES:
            socket.abort()
        if not line.endswith(b"\n"):
            return
        try:
            request = OpenRequest.decode(bytes(line))
        except ValueError:
            socket.abort()
            return
        socket.write(_ANSWER)
        socket.flush()
        self.received.emit(request)
