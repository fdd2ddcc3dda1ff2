"""A desktop portal for screenshots.

    python -m tests.helpers.programs.portal ADDRESS NAME CODE URI [old]

NAME   on the bus of the program that asks
CODE   of the response: 0 a screenshot, 1 cancelled, 2 an error; "none" refuses every call
URI    of the file
old    answers on a path of its own, as portals before 0.9 do

Writes the options of the call as a line of JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from PySide6.QtCore import ClassInfo, QCoreApplication, QObject, QTimer, Signal, Slot
from PySide6.QtDBus import QDBusConnection, QDBusObjectPath

# PySide6's type stubs know neither the dictionary of ClassInfo nor the C++ types of a signal.
interface: Any = ClassInfo
signal: Any = Signal


@interface({"D-Bus Interface": "org.freedesktop.portal.Request"})
class Request(QObject):
    Response = signal("uint", "QVariantMap")


@interface({"D-Bus Interface": "org.freedesktop.portal.Screenshot"})
class Portal(QObject):
    def __init__(self, bus: QDBusConnection, name: str, code: str, uri: str, old: bool) -> None:
        super().__init__()
        self._bus, self._name, self._code, self._uri, self._old = bus, name, code, uri, old

    @Slot(str, "QVariantMap", result=QDBusObjectPath)
    def Screenshot(self, window: str, options: dict[str, Any]) -> QDBusObjectPath:  # noqa: N802
        sys.stdout.write(json.dumps(options) + "\n")
        sys.stdout.flush()
        sender = self._name.removeprefix(":").replace(".", "_")
        token = "own" if self._old else options["handle_token"]
        path = f"/org/freedesktop/portal/desktop/request/{sender}/{token}"
        request = Request(self)
        self._bus.registerObject(path, request, QDBusConnection.RegisterOption.ExportAllSignals)
        respond = lambda: request.Response.emit(int(self._code), {"uri": self._uri})  # noqa: E731
        QTimer.singleShot(200 if self._old else 0, respond)
        return QDBusObjectPath(path)


def main(address: str, name: str, code: str, uri: str, *rest: str) -> None:
    app = QCoreApplication(sys.argv[:1])
    bus = QDBusConnection.connectToBus(address, "portal")
    portal = Portal(bus, name, code, uri, bool(rest))
    exported = QDBusConnection.RegisterOption.ExportAllSlots
    if code != "none":
        assert bus.registerObject("/org/freedesktop/portal/desktop", portal, exported)
    assert bus.registerService("org.freedesktop.portal.Desktop")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    app.exec()


if __name__ == "__main__":
    main(*sys.argv[1:])
