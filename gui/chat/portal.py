"""A screenshot by the desktop's portal, which asks the user. On Wayland only the desktop may do it.

https://flatpak.github.io/xdg-desktop-portal/docs/doc-org.freedesktop.portal.Screenshot.html
"""

from __future__ import annotations

import secrets
from typing import Any

from PySide6.QtCore import SLOT, QObject, QUrl, Signal, Slot
from PySide6.QtDBus import QDBusConnection, QDBusError, QDBusMessage, QDBusObjectPath

from gui.chat.dropped import local_path

SERVICE = "org.freedesktop.portal.Desktop"
PATH = "/org/freedesktop/portal/desktop"
INTERFACE = "org.freedesktop.portal.Screenshot"
_REQUEST = "org.freedesktop.portal.Request"
_CANCELLED = 1
# PySide6's type stubs require bytes, but its code requires str.
_RESPOND: Any = SLOT("respond(uint,QVariantMap)")
_ACCEPTED: Any = SLOT("accept(QDBusObjectPath)")
_REFUSED: Any = SLOT("refuse(QDBusError)")


class PortalCapture(QObject):
    """Asks the desktop for screenshots, one at a time.

    captured   (Path) the file of the screenshot
    cancelled  the user took none
    failed     the desktop has no such portal, or reports an error
    """

    captured = Signal(object)
    cancelled = Signal()
    failed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._bus: QDBusConnection | None = None
        self._paths: list[str] = []

    def start(self, bus: QDBusConnection | None = None) -> None:
        """Open the desktop's dialog. bus: other than the session's."""
        self._end()  # of a dialog that never answered
        self._bus = bus = bus or QDBusConnection.sessionBus()
        if not bus.isConnected():
            self.failed.emit()
            return
        token = f"cogvlm2_{secrets.token_hex(8)}"
        sender = bus.baseService().removeprefix(":").replace(".", "_")
        self._listen(f"{PATH}/request/{sender}/{token}")  # before the call: the answer may be fast
        call = QDBusMessage.createMethodCall(SERVICE, PATH, INTERFACE, "Screenshot")
        call.setArguments(["", {"handle_token": token, "interactive": True}])
        bus.callWithCallback(call, self, _ACCEPTED, _REFUSED)

    @Slot(QDBusObjectPath)
    def accept(self, handle: QDBusObjectPath) -> None:
        """Listen to the request of a portal that chooses its path, as those before 0.9 do."""
        self._listen(handle.path())

    @Slot(QDBusError)
    def refuse(self, error: QDBusError) -> None:
        """Report that there is no such portal."""
        self._end()
        self.failed.emit()

    @Slot("uint", "QVariantMap")
    def respond(self, code: int, results: dict[str, object]) -> None:
        """Use the answer of the portal. results: has the file's address as "uri"."""
        address = results.get("uri")
        self._end()
        if code == 0 and isinstance(address, str) and QUrl(address).isLocalFile():
            self.captured.emit(local_path(QUrl.fromEncoded(address.encode())))
        elif code == _CANCELLED:
            self.cancelled.emit()
        else:
            self.failed.emit()

    def _listen(self, path: str) -> None:
        if self._bus is not None and path not in self._paths:
            self._paths.append(path)
            self._bus.connect(SERVICE, path, _REQUEST, "Response", self, _RESPOND)

    def _end(self) -> None:
        if self._bus is not None:
            for path in self._paths:
                self._bus.disconnect(SERVICE, path, _REQUEST, "Response", self, _RESPOND)
        self._paths.clear()
