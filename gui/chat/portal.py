"""A screenshot by the desktop's portal, which asks the user. On Wayland only the desktop may do it.

https://flatpak.github.io/xdg-desktop-portal/docs/doc-org.freedesktop.portal.Screenshot.html
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import SLOT, QObject, QUrl, Slot
from PySide6.QtDBus import QDBusConnection, QDBusMessage, QDBusPendingCallWatcher

from gui.chat.dropped import local_path

SERVICE = "org.freedesktop.portal.Desktop"
PATH = "/org/freedesktop/portal/desktop"
INTERFACE = "org.freedesktop.portal.Screenshot"
_REQUEST = "org.freedesktop.portal.Request"
_CANCELLED = 1
_RESPOND = SLOT("respond(uint,QVariantMap)").encode()


class PortalCapture(QObject):
    """One screenshot.

    done    called with the file, or None if the user cancelled
    failed  called if the desktop has no such portal, or reports an error
    """

    def __init__(
        self,
        parent: QObject,
        done: Callable[[Path | None], object],
        failed: Callable[[], object],
        bus: QDBusConnection | None = None,
    ) -> None:
        super().__init__(parent)
        self._done, self._failed = done, failed
        self._bus = bus or QDBusConnection.sessionBus()
        self._paths: list[str] = []
        if not self._bus.isConnected():
            self._end(self._failed)
            return
        token = f"cogvlm2_{secrets.token_hex(8)}"
        sender = self._bus.baseService().removeprefix(":").replace(".", "_")
        self._listen(f"{PATH}/request/{sender}/{token}")  # before the call: the answer may be fast
        call = QDBusMessage.createMethodCall(SERVICE, PATH, INTERFACE, "Screenshot")
        call.setArguments(["", {"handle_token": token, "interactive": True}])
        self._call = QDBusPendingCallWatcher(self._bus.asyncCall(call), self)
        self._call.finished.connect(self._called)

    def _listen(self, path: str) -> None:
        if path not in self._paths:
            self._paths.append(path)
            self._bus.connect(SERVICE, path, _REQUEST, "Response", self, _RESPOND)

    def _called(self, call: QDBusPendingCallWatcher) -> None:
        reply = call.reply()
        if reply.type() is QDBusMessage.MessageType.ErrorMessage:
            self._end(self._failed)
        elif reply.arguments():  # portals before version 0.9 choose the path of the request
            handle = reply.arguments()[0]
            self._listen(handle if isinstance(handle, str) else handle.path())

    @Slot("uint", "QVariantMap")
    def respond(self, code: int, results: dict[str, object]) -> None:
        """Use the answer of the portal. results: has the file's address as "uri"."""
        address = results.get("uri")
        if code == 0 and isinstance(address, str) and QUrl(address).isLocalFile():
            path = local_path(QUrl.fromEncoded(address.encode()))
            self._end(lambda: self._done(path))
        elif code == _CANCELLED:
            self._end(lambda: self._done(None))
        else:
            self._end(self._failed)

    def _end(self, report: Callable[[], object]) -> None:
        for path in self._paths:
            self._bus.disconnect(SERVICE, path, _REQUEST, "Response", self, _RESPOND)
        self._paths.clear()
        report()
        self.deleteLater()
