"""Pictures on their way in: drops of all kinds, several at once, a second one, the screen."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QPoint, QRect, Qt, QUrl
from PySide6.QtDBus import QDBusConnection
from PySide6.QtGui import QColor, QImage, QPixmap
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.inputs.image import open_image
from gui.background import decoder
from gui.batch.page import BatchPage
from gui.chat.capture import Capture, can_capture
from gui.chat.dropped import DroppedContent, png_bytes, read_mime
from gui.chat.several import MOST_CONVERSATIONS, read_pictures
from tests.helpers.desk import Desk
from tests.helpers.giving import asked_about, drop, give_bytes

PICTURES = checkpoint_folder().parent / "pictures"
SIGN = (PICTURES / "sign.png").read_bytes()


def mime_of(*urls: str, html: str = "", png: bytes = b"") -> QMimeData:
    mime = QMimeData()
    if urls:
        mime.setUrls([QUrl(url) for url in urls])
    if html:
        mime.setHtml(html)
    if png:
        mime.setData("image/png", png)
    return mime


def test_a_browser_drops_the_image_itself_and_its_address_is_left_alone() -> None:
    mime = mime_of(
        "https://example.com/a.png", html='<img src="https://example.com/a.png">', png=SIGN
    )
    assert read_mime(mime) == DroppedContent(data=SIGN)


def test_an_image_written_out_in_a_page_is_taken() -> None:
    written = f"data:image/png;base64,{base64.b64encode(SIGN).decode()}"
    assert read_mime(mime_of(html=f'<p><img alt="x" src="{written}"></p>')).data == SIGN
    assert read_mime(mime_of(written)).data == SIGN


@pytest.mark.parametrize(
    "written",
    [
        "data:image/png;base64,@@@",
        "data:text/html;base64,aGk=",
        "data:image/png",
        "data:,",
    ],
)
def test_what_only_looks_like_an_image_is_none(written: str) -> None:
    data = read_mime(mime_of(written)).data
    assert data == b"" or not data.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "url", ["https://ex\u0430mple.com/x.png", "http://10.0.0.1/x", "ftp://h/x"]
)
def test_an_address_in_the_network_is_never_fetched_and_said(desk: Desk, url: str) -> None:
    drop(desk.chat.panel, mime_of(url))
    desk.qtbot.waitUntil(lambda: bool(desk.chat.message))
    assert "this program downloads nothing" in desk.chat.message
    assert "\u0430" not in desk.chat.message  # letters that only look like others show up


def test_text_is_no_picture(desk: Desk) -> None:
    mime = QMimeData()
    mime.setText("hello")
    assert read_mime(mime) == DroppedContent()
    assert read_mime(mime_of(html="<b>hi</b>")) == DroppedContent()


def test_pixels_of_another_program_become_a_file(qtbot: QtBot) -> None:
    image = QImage(6, 4, QImage.Format.Format_RGB32)
    image.fill(QColor("red"))
    mime = QMimeData()
    mime.setImageData(image)
    opened = open_image(read_mime(mime).read())
    assert (opened.width, opened.height) == (6, 4)


def several(tmp_path: Path) -> list[Path]:
    files = []
    for name in ("sign.png", "chart.png"):
        shutil.copy(PICTURES / name, tmp_path / name)
        files.append(tmp_path / name)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    return [files[0], broken, files[1]]


def test_a_picture_may_be_dropped_anywhere_on_the_page(desk: Desk) -> None:
    drop(desk.chat, mime_of(QUrl.fromLocalFile(str(PICTURES / "sign.png")).toString()))
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN, timeout=15_000)


def test_a_dropped_picture_is_decoded_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def counted(how: str, *numbers: int) -> list[str]:
        started.append(how)
        return command(how, *numbers)

    command = decoder.child_command
    monkeypatch.setattr(decoder, "child_command", counted)
    drop(desk.chat, mime_of(QUrl.fromLocalFile(str(PICTURES / "sign.png")).toString()))
    desk.qtbot.waitUntil(desk.chat.panel.view.isVisible, timeout=15_000)
    assert desk.chat.picture == SIGN
    desk.open_demo()
    desk.ask("What is it?")
    desk.chat.start_new()
    desk.chat.list.itemActivated.emit(desk.chat.list.item(0))
    desk.qtbot.waitUntil(desk.chat.panel.view.isVisible)
    desk.ask("And this?")
    assert started == ["full"]
    assert all(asked_about(ask, SIGN) for ask in desk.engine.asked)


def test_several_files_become_a_conversation_each(desk: Desk, tmp_path: Path) -> None:
    files = several(tmp_path)
    drop(desk.chat.panel, mime_of(*(QUrl.fromLocalFile(str(f)).toString() for f in files)))
    desk.qtbot.waitUntil(desk.chat.several.isVisible)
    desk.chat.several.each_button.click()
    desk.qtbot.waitUntil(lambda: desk.chat.list.count() == 2, timeout=30_000)
    titles = [desk.chat.list.item(i).text() for i in range(2)]
    assert titles == ["sign.png", "chart.png"]
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN)
    assert desk.chat.message.startswith("broken.png")
    desk.open_demo()
    desk.ask("What is it?")
    assert asked_about(desk.engine.asked[0], SIGN)
    assert desk.chat.list.item(0).text() == "sign.png"


def test_several_files_or_a_folder_go_to_the_batch_page(desk: Desk, tmp_path: Path) -> None:
    files = several(tmp_path)
    desk.chat.take(DroppedContent(files=tuple(files)))
    desk.chat.several.batch_button.click()
    page = desk.program.window.page("batch")
    assert isinstance(page, BatchPage)
    assert page.isVisible()
    values = page.form.values()
    assert (values.folder, values.only) == (str(tmp_path), ("sign.png", "broken.png", "chart.png"))
    desk.program.window.show_page("about")
    drop(desk.program.window, mime_of(QUrl.fromLocalFile(str(tmp_path)).toString()))
    desk.qtbot.waitUntil(lambda: page.form.values().only is None)
    assert page.isVisible()


@pytest.mark.parametrize("count", [2, MOST_CONVERSATIONS, MOST_CONVERSATIONS + 1])
def test_many_files_are_offered_a_batch_only(desk: Desk, count: int) -> None:
    desk.chat.take(DroppedContent(files=tuple(Path(f"{n}.png") for n in range(count))))
    assert desk.chat.several.batch_button.isVisible()
    assert desk.chat.several.each_button.isVisible() == (count <= MOST_CONVERSATIONS)


def test_each_file_has_its_own_sentence(tmp_path: Path) -> None:
    found = read_pictures([*several(tmp_path), tmp_path / "gone.png"], lambda data: "saved")
    assert [name for name, _ in found.pictures] == ["sign.png", "chart.png"]
    assert found.errors[0].startswith("broken.png: ")
    assert found.errors[1].startswith("gone.png can't be read")


@pytest.mark.parametrize("choice", ["new", "here", "removed"])
def test_a_second_picture_begins_anew_or_takes_the_place(desk: Desk, choice: str) -> None:
    chip = desk.chat.chip
    desk.open_demo()
    give_bytes(desk.chat, SIGN)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == SIGN, timeout=15_000)
    assert not chip.choice.isVisible()
    desk.ask("One?")
    first = desk.chat.conversation
    assert first is not None
    other = (PICTURES / "chart.png").read_bytes()
    give_bytes(desk.chat, other)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == other, timeout=15_000)
    assert chip.choice.isVisible()
    {"new": chip.new_button, "here": chip.here_button, "removed": chip.remove_button}[
        choice
    ].click()
    desk.ask("Two?")
    kept = desk.program.history.picture(desk.program.history.load(first.id).picture)
    asked = desk.engine.asked[-1]
    assert (desk.chat.conversation is first) == (choice != "new")
    assert kept == (other if choice == "here" else SIGN)
    assert asked_about(asked, SIGN if choice == "removed" else other)
    assert asked.history == (() if choice == "new" else (("One?", "It is **red**."),))
    # The choice is remembered.
    give_bytes(desk.chat, SIGN if choice == "here" else other)
    assert chip.new_button.isChecked() == (choice != "here")


def test_wayland_is_told_and_not_tried(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_capture("xcb")
    assert can_capture("windows")
    monkeypatch.setattr("gui.chat.page.can_capture", lambda: can_capture("wayland"))
    nowhere = QDBusConnection.connectToBus("unix:path=/nowhere", "none")
    monkeypatch.setattr(QDBusConnection, "sessionBus", lambda: nowhere)
    desk.chat.capture()
    assert "screenshot key" in desk.chat.message
    assert desk.program.window.isVisible()


def screen(scale: float) -> QPixmap:
    image = QImage(400, 300, QImage.Format.Format_RGB32)
    image.fill(QColor("white"))
    for x in range(100, 200):
        for y in range(50, 150):
            image.setPixelColor(x, y, QColor("red"))
    shot = QPixmap.fromImage(image)
    shot.setDevicePixelRatio(scale)
    return shot


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_rectangle_of_the_screen_is_taken_in_its_own_pixels(qtbot: QtBot, scale: float) -> None:
    window = QWidget()
    got: list[Any] = []
    qtbot.addWidget(window)
    window.show()
    capture = Capture(window, got.append, lambda screen_: screen(scale))
    assert not window.isVisible()
    qtbot.waitUntil(lambda: bool(capture.overlays))
    overlay = capture.overlays[0]
    # The red square in the overlay's coordinates: [100, 200) x [50, 150) of the screen's pixels.
    start = QPoint(round(100 / scale), round(50 / scale))
    end = QPoint(round(200 / scale) - 1, round(150 / scale) - 1)
    QTest.mousePress(overlay, Qt.MouseButton.LeftButton, pos=start)
    QTest.mouseMove(overlay, end)
    assert overlay.chosen == QRect(start, end)
    overlay.grab()  # it can be drawn
    QTest.mouseRelease(overlay, Qt.MouseButton.LeftButton, pos=end)
    (image,) = got
    assert (image.width(), image.height()) == (100, 100)
    assert {image.pixelColor(x, y).name() for x in (0, 99) for y in (0, 99)} == {"#ff0000"}
    assert window.isVisible()


def test_a_capture_is_given_up_with_escape_and_takes_all_with_enter(qtbot: QtBot) -> None:
    window = QWidget()
    got: list[Any] = []
    qtbot.addWidget(window)
    for key in (Qt.Key.Key_Escape, Qt.Key.Key_Return):
        capture = Capture(window, got.append, lambda screen_: screen(1.0))
        qtbot.waitUntil(lambda capture=capture: bool(capture.overlays))
        QTest.keyClick(capture.overlays[0], key)
    assert got[0] is None
    assert got[1].width() > 300


def test_a_capture_becomes_the_picture(desk: Desk) -> None:
    image = screen(1.0).toImage()
    desk.chat.captured(None)
    desk.chat.captured(image)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == png_bytes(image), timeout=15_000)
