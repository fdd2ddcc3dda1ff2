"""The picture is read: its room, full pixels at every zoom, the whole screen, save and copy."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QGuiApplication, QImage, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QApplication
from pytestqt.qtbot import QtBot

from cogvlm2_lite.inputs.image import open_image, resize_pixels
from gui.background import pixels as pixels_module
from gui.background.decoder import DecodedPicture
from gui.chat.viewer import FullScreen, Viewer
from tests.helpers.desk import Desk
from tests.helpers.giving import give_bytes

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


def drawn(width: int, height: int) -> NDArray[np.uint8]:
    """Return pixels of which each small area is unlike all others."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x % 251, y % 241, (x // 7 + y // 5) % 256], axis=-1).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    store = BytesIO()
    Image.fromarray(pixels).save(store, "PNG", compress_level=1)
    return store.getvalue()


def as_array(image: QImage) -> NDArray[np.uint8]:
    plain = image.convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(plain.constBits(), np.uint8).reshape(-1, plain.bytesPerLine())
    return rows[:, : 3 * plain.width()].reshape(plain.height(), plain.width(), 3).copy()


def show(desk: Desk, data: bytes) -> Viewer:
    """Load a picture into the window, and return its view once it is drawn."""
    give_bytes(desk.chat, data)
    view = desk.chat.panel.view
    desk.qtbot.waitUntil(
        lambda: desk.chat.picture == data and not view.picture_size.isEmpty(), timeout=20_000
    )
    return view


def button(desk: Desk, name: str) -> QAbstractButton:
    found = [
        item for item in desk.chat.panel.findChildren(QAbstractButton)
        if item.accessibleName() == name
    ]  # fmt: skip
    assert len(found) == 1, name
    return found[0]


def wheel(view: Viewer, steps: int, modifiers: Qt.KeyboardModifier = NONE) -> None:
    """Turn the wheel over the middle of the view."""
    viewport = view.viewport()
    middle = QPointF(viewport.rect().center())
    event = QWheelEvent(
        middle, QPointF(viewport.mapToGlobal(middle.toPoint())), QPoint(), QPoint(0, 120 * steps),
        Qt.MouseButton.NoButton, modifiers, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(viewport, event)


def drag(view: Viewer, start: QPoint, end: QPoint, modifiers: Qt.KeyboardModifier = NONE) -> None:
    viewport = view.viewport()
    QTest.mousePress(viewport, LEFT, modifiers, start)
    for step in range(1, 6):
        QTest.mouseMove(viewport, start + (end - start) * step / 5)
    QTest.mouseRelease(viewport, LEFT, modifiers, end)


def seen_pixels(view: Viewer) -> tuple[QPoint, NDArray[np.uint8]]:
    """Return the first visible pixel of the picture at 100 %, and the pixels that are drawn."""
    viewport = view.viewport()
    shown = as_array(viewport.grab().toImage())
    first = view.to_picture(QPointF(0, 0)).toPoint()
    left, top = max(0, -first.x()), max(0, -first.y())
    size = view.picture_size
    right = min(viewport.width(), size.width() - first.x())
    bottom = min(viewport.height(), size.height() - first.y())
    return first + QPoint(left, top), shown[top:bottom, left:right]


# --- room ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1180, 760), (1366, 768), (1920, 1080)])
def test_the_picture_has_the_larger_half(desk: Desk, size: tuple[int, int]) -> None:
    desk.program.window.resize(*size)
    show(desk, png(drawn(300, 200)))
    panel, middle = desk.chat.panel, desk.chat.composer.window().findChild(Viewer)
    assert middle is desk.chat.panel.view
    desk.qtbot.wait(20)
    conversation = desk.chat.transcript.parentWidget().parentWidget()
    assert conversation is not None
    assert panel.width() > conversation.width()
    assert panel.view.viewport().width() >= 0.95 * panel.width()  # the tools stand on the picture
    assert panel.view.viewport().height() >= 0.95 * panel.height()


def test_in_a_narrow_window_the_picture_is_above_the_conversation(desk: Desk) -> None:
    desk.program.window.resize(700, 900)
    show(desk, png(drawn(300, 200)))
    desk.qtbot.wait(20)
    chat = desk.chat
    assert chat.panel.width() == chat.width()
    bottom = chat.panel.mapTo(chat, QPoint(0, chat.panel.height())).y()
    assert chat.transcript.mapTo(chat, QPoint(0, 0)).y() >= bottom
    assert chat.panel.height() >= 0.4 * chat.height()
    desk.program.window.resize(1366, 768)
    desk.qtbot.wait(20)
    assert chat.panel.mapTo(chat, QPoint(0, 0)).x() > chat.transcript.mapTo(chat, QPoint(0, 0)).x()
    assert chat.sidebar.isVisible()


@pytest.mark.parametrize("size", [(1366, 768), (700, 1000)])
def test_the_share_that_the_user_drags_is_remembered(desk: Desk, size: tuple[int, int]) -> None:
    desk.program.window.resize(*size)
    data = png(drawn(300, 200))
    show(desk, data)
    desk.qtbot.wait(20)
    chat = desk.chat
    splitter = chat.layout_of_page.inner
    handle = splitter.handle(1)
    middle = handle.rect().center()
    by = QPoint(-40, 0) if size[0] > 1000 else QPoint(0, 40)
    before = chat.panel.size()
    QTest.mousePress(handle, LEFT, NONE, middle)
    QTest.mouseMove(handle, middle + by)
    QTest.mouseRelease(handle, LEFT, NONE, middle + by)
    wanted = chat.panel.size()
    assert wanted.width() + wanted.height() == pytest.approx(
        before.width() + before.height() + 40, abs=4
    )
    desk.program.window.refresh()  # makes all pages again
    desk.qtbot.waitUntil(lambda: desk.chat is not chat, timeout=20_000)
    show(desk, data)
    desk.qtbot.wait(20)
    assert desk.chat.panel.width() == pytest.approx(wanted.width(), abs=4)
    assert desk.chat.panel.height() == pytest.approx(wanted.height(), abs=4)


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1080, 9000), (4000, 3000)])
def test_at_100_percent_every_pixel_of_the_file_is_on_the_screen(
    qtbot: QtBot, size: tuple[int, int]
) -> None:
    viewer = Viewer()
    qtbot.addWidget(viewer)
    viewer.resize(700, 500)
    viewer.show()
    pixels = drawn(*size)
    viewer.show_levels(pixels_module.levels(decoded(pixels)).images)
    assert viewer.fitted
    QTest.keyClick(viewer, Qt.Key.Key_1)
    assert viewer.zoom == 1.0
    for key in (Qt.Key.Key_Home, Qt.Key.Key_End):
        QTest.keyClick(viewer, key)
        drag(viewer, QPoint(200, 200), QPoint(163, 111))
        check_pixels(viewer, pixels)


def check_pixels(view: Viewer, pixels: NDArray[np.uint8]) -> None:
    """Check that the view shows these pixels, at 100 %."""
    first, shown = seen_pixels(view)
    assert min(shown.shape[:2]) > 250
    below, right = first.y() + shown.shape[0], first.x() + shown.shape[1]
    assert np.array_equal(shown, pixels[first.y() : below, first.x() : right])


def test_the_window_shows_every_pixel_of_a_long_page(desk: Desk) -> None:
    pixels = drawn(1080, 9000)
    view = show(desk, png(pixels))
    assert view.picture_size.toTuple() == (1080, 9000)
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_1)
    drag(view, QPoint(200, 200), QPoint(163, 111))
    check_pixels(view, pixels)


def test_a_fitted_picture_has_no_moire(qtbot: QtBot) -> None:
    """Lines of one pixel become grey: every pixel counts, and not every tenth."""
    view = Viewer()
    qtbot.addWidget(view)
    view.resize(700, 500)
    view.show()
    lines = np.zeros((3000, 3000, 3), np.uint8)
    lines[::2] = 255
    view.show_levels(pixels_module.levels(decoded(lines)).images)
    assert view.zoom < 0.5
    first = view.from_picture(QPointF(200, 200)).toPoint()
    last = view.from_picture(QPointF(2800, 2800)).toPoint()
    shown = as_array(view.viewport().grab().toImage())[
        first.y() : last.y(), first.x() : last.x()
    ].astype(int)
    assert abs(shown.mean() - 127.5) < 3
    assert np.ptp(shown) <= 4


def decoded(pixels: NDArray[np.uint8]) -> DecodedPicture:
    """Return what the decoder would return."""
    height, width, _ = pixels.shape
    return DecodedPicture(
        width=width, height=height, rgb=pixels.tobytes(), sha256="", format="PNG",
        original_width=width, original_height=height,
    )  # fmt: skip


def test_drawing_12_megapixels_does_not_block_the_window(qtbot: QtBot) -> None:
    viewer = Viewer()
    qtbot.addWidget(viewer)
    viewer.resize(1100, 900)
    viewer.show()
    made = pixels_module.levels(decoded(drawn(4000, 3000)))
    assert [image.width() for image in made.images] == [4000, 2000, 1000, 500]
    viewer.show_levels(made.images)
    screen = QImage(viewer.size(), QImage.Format.Format_RGB32)
    for zoom in (viewer.zoom, 0.3, 0.51, 0.99, 1.0, 2.5, 9.0):
        viewer.set_zoom(zoom)
        began = time.thread_time()  # the time of this thread, whatever else runs
        viewer.viewport().render(screen)
        assert time.thread_time() - began < 0.1, zoom


def test_what_the_model_sees_is_what_the_engine_gets(desk: Desk) -> None:
    pixels = drawn(1000, 700)
    view = show(desk, png(pixels))
    QTest.mouseClick(button(desk, "What the model sees"), LEFT)
    desk.qtbot.waitUntil(lambda: view.picture_size.toTuple() == (1344, 1344), timeout=10_000)
    QTest.keyClick(view, Qt.Key.Key_1)
    check_pixels(view, resize_pixels(open_image(png(pixels)), 1344))
    QTest.mouseClick(button(desk, "What the model sees"), LEFT)
    desk.qtbot.waitUntil(lambda: view.picture_size.toTuple() == (1000, 700), timeout=10_000)


# --- zoom and pan --------------------------------------------------------------------------------


def test_wheel_keys_and_double_click_zoom_within_bounds(desk: Desk) -> None:
    view = show(desk, png(drawn(900, 700)))
    fits = view.zoom
    wheel(view, 1)
    assert view.zoom == pytest.approx(1.25 * fits)
    wheel(view, 1, Qt.KeyboardModifier.ControlModifier)
    assert view.zoom == pytest.approx(1.25**2 * fits)
    for _ in range(60):
        wheel(view, 1)
    assert view.zoom == 16
    for _ in range(90):
        wheel(view, -1)
    assert view.zoom == pytest.approx(fits)
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_Plus)
    QTest.keyClick(view, Qt.Key.Key_Plus)
    QTest.keyClick(view, Qt.Key.Key_Minus)
    assert view.zoom == pytest.approx(1.25 * fits)
    QTest.keyClick(view, Qt.Key.Key_0)
    assert view.fitted
    QTest.mouseDClick(view.viewport(), LEFT, NONE, view.viewport().rect().center())
    assert view.zoom == 1
    QTest.mouseDClick(view.viewport(), LEFT, NONE, view.viewport().rect().center())
    assert view.fitted


def test_the_wheel_zooms_around_the_pointer_and_shift_moves_sideways(desk: Desk) -> None:
    view = show(desk, png(drawn(900, 700)))
    view.set_zoom(1.0)
    middle = QPointF(view.viewport().rect().center())
    before = view.to_picture(middle)
    wheel(view, 1)
    after = view.to_picture(middle)
    assert (after - before).manhattanLength() <= 2
    wheel(view, -1, Qt.KeyboardModifier.ShiftModifier)
    moved = view.to_picture(middle)
    assert moved.x() > after.x()
    assert moved.y() == pytest.approx(after.y(), abs=1)


def test_dragging_and_arrows_move_the_picture(desk: Desk) -> None:
    view = show(desk, png(drawn(1400, 1400)))
    view.set_zoom(1.0)
    point = QPointF(100, 100)
    before = view.to_picture(point)
    drag(view, QPoint(200, 200), QPoint(150, 170))
    assert view.to_picture(point) - before == QPointF(50, 30)
    QTest.keyClick(view, Qt.Key.Key_Right)
    assert view.to_picture(point).x() > before.x() + 50
    QTest.keyClick(view, Qt.Key.Key_Home)
    assert view.to_picture(point).x() < before.x()


def test_a_tiny_picture_and_a_line_can_be_shown(qtbot: QtBot) -> None:
    viewer = Viewer()
    qtbot.addWidget(viewer)
    viewer.resize(300, 200)
    viewer.show()
    for width, height in ((1, 1), (1, 20_000), (20_000, 1)):
        image = QImage(width, height, QImage.Format.Format_RGB32)
        image.fill(Qt.GlobalColor.red)
        viewer.show_levels([image])
        viewer.grab()
        viewer.set_zoom(1000.0)
        viewer.set_zoom(1e-9)
        viewer.grab()
    viewer.show_levels([])
    wheel(viewer, 1)
    viewer.grab()


# --- the whole screen, copy and save -------------------------------------------------------------


def full_screens() -> list[FullScreen]:
    return [top for top in QApplication.topLevelWidgets() if isinstance(top, FullScreen)]


@pytest.mark.parametrize("key", [Qt.Key.Key_Escape, Qt.Key.Key_F])
def test_the_whole_screen_is_entered_and_left_by_keys(desk: Desk, key: Qt.Key) -> None:
    view = show(desk, png(drawn(800, 600)))
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_F)
    (full,) = [top for top in full_screens() if top.isVisible()]
    assert full.isFullScreen()
    assert full.viewer.picture_size.toTuple() == (800, 600)
    QTest.keyClick(full.viewer, key)
    assert not [top for top in full_screens() if top.isVisible()]
    QTest.mouseClick(button(desk, "Whole screen (F)"), LEFT)
    (again,) = [top for top in full_screens() if top.isVisible()]
    again.close()


def test_copy_and_save_give_the_pixels_of_the_file(desk: Desk, tmp_path: Path) -> None:
    pixels = drawn(700, 500)
    show(desk, png(pixels))
    QGuiApplication.clipboard().clear()
    desk.chat.panel.picture.copy()
    desk.qtbot.waitUntil(lambda: not QGuiApplication.clipboard().image().isNull())
    assert np.array_equal(as_array(QGuiApplication.clipboard().image()), pixels)
    desk.chat.panel.picture.save(tmp_path / "saved.png")
    desk.qtbot.waitUntil((tmp_path / "saved.png").exists)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "saved.png")), pixels)
    desk.chat.panel.picture.save(tmp_path / "\0.png")
    desk.qtbot.waitUntil(lambda: "can't be written" in desk.chat.message)


def test_decoding_gives_all_pixels(tmp_path: Path) -> None:
    from gui.background.decoder import decode

    pixels = drawn(1500, 40)
    found = decode(png(pixels))
    assert isinstance(found, DecodedPicture)
    assert (found.width, found.height) == (1500, 40)
    assert found.rgb == pixels.tobytes()
