"""A screenshot by the desktop's portal, on a message bus of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtDBus import QDBusConnection
from pytestqt.qtbot import QtBot

from cogvlm2_lite.demo.shipped import checkpoint_folder
from gui.chat.portal import PortalCapture
from tests.helpers.desk import Desk

pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="needs dbus-daemon")
ROOT = Path(__file__).parents[2]
PICTURES = checkpoint_folder().parent / "pictures"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a message bus."""
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"], stdout=subprocess.PIPE
    )
    assert bus.stdout is not None
    yield bus.stdout.readline().decode().strip()
    bus.kill()
    bus.communicate()


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def bus(address: str) -> QDBusConnection:
    """The connection of the window."""
    return QDBusConnection.connectToBus(address, "window")


@pytest.fixture
def start(address: str, bus: QDBusConnection) -> Iterator[Start]:
    """Starts a portal with (code, uri)."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> subprocess.Popen[bytes]:
        name = bus.baseService()
        portal = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.programs.portal", address, name, *words],
            cwd=ROOT, stdout=subprocess.PIPE,
        )  # fmt: skip
        started.append(portal)
        assert portal.stdout is not None
        assert portal.stdout.readline() == b"ready\n"
        return portal

    yield begin
    for portal in started:
        portal.kill()
        portal.communicate()


class Outcome:
    """What a capture reported."""

    def __init__(self, qtbot: QtBot, bus: QDBusConnection) -> None:
        self.reports: list[object] = []
        self._capture = PortalCapture()
        self._capture.captured.connect(self.reports.append)
        self._capture.cancelled.connect(lambda: self.reports.append("cancelled"))
        self._capture.failed.connect(lambda: self.reports.append("failed"))
        self._capture.start(bus)
        qtbot.waitUntil(lambda: bool(self.reports), timeout=10_000)


@pytest.mark.parametrize("age", [[], ["old"]])
def test_the_portal_returns_a_file(
    qtbot: QtBot, bus: QDBusConnection, start: Start, tmp_path: Path, age: list[str]
) -> None:
    path = tmp_path / "Bildschirmfoto 图 100%.png"
    portal = start("0", path.as_uri(), *age)
    assert Outcome(qtbot, bus).reports == [path]
    assert portal.stdout is not None
    assert json.loads(portal.stdout.readline())["interactive"] is True


@pytest.mark.parametrize(
    ("words", "report"),
    [
        (("1", ""), "cancelled"),
        (("2", ""), "failed"),
        (("0", "https://example.com/a.png"), "failed"),
        (("0", ""), "failed"),
        (("none", ""), "failed"),
    ],
)
def test_other_answers(
    qtbot: QtBot, bus: QDBusConnection, start: Start, words: tuple[str, str], report: object
) -> None:
    start(*words)
    assert Outcome(qtbot, bus).reports == [report]


def test_a_desktop_without_a_portal(qtbot: QtBot, bus: QDBusConnection) -> None:
    assert Outcome(qtbot, bus).reports == ["failed"]
    nowhere = QDBusConnection.connectToBus("unix:path=/nowhere", "nowhere")
    assert Outcome(qtbot, nowhere).reports == ["failed"]


def test_a_screenshot_on_wayland_becomes_the_picture(
    desk: Desk, bus: QDBusConnection, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("0", (PICTURES / "sign.png").as_uri())
    monkeypatch.setattr("gui.chat.page.can_capture", lambda: False)
    monkeypatch.setattr(QDBusConnection, "sessionBus", lambda: bus)
    desk.chat.capture()
    data = (PICTURES / "sign.png").read_bytes()
    desk.qtbot.waitUntil(lambda: desk.chat.picture == data, timeout=10_000)
    assert desk.chat.chip.name.text() == "Screenshot"
    assert desk.chat.message == ""
