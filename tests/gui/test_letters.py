"""The hint that letters are too small for the model: honest, and with a cut that helps."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from PySide6.QtTest import QTest

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.inputs.tiles import tiles
from gui.background.letters import letter_height, reading_parts
from tests.gui.test_parts import got
from tests.gui.test_viewer import LEFT, decoded, show
from tests.helpers.desk import Desk

LINE = "The quick brown fox jumps over 13 lazy dogs, and Zoe pays 42.50 for HALF of them."


def text_page(width: int, height: int, size: int, *, dark: bool = False) -> Image.Image:
    """Draw lines of text. size: of the font, in pixels."""
    font = ImageFont.load_default(size)
    page = Image.new("RGB", (width, height), "#181c20" if dark else "white")
    draw = ImageDraw.Draw(page)
    for y in range(size, height - 2 * size, round(1.7 * size)):
        draw.text((size, y), LINE, fill="#dddddd" if dark else "#222222", font=font)
    return page


def capital(size: int) -> int:
    """Return the height of a capital letter."""
    box = ImageFont.load_default(size).getbbox("H")
    return round(box[3] - box[1])


def png(page: Image.Image) -> bytes:
    store = BytesIO()
    page.save(store, "PNG", compress_level=1)
    return store.getvalue()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [12, 18, 26, 48, 70])
def test_letters_of_a_known_size_are_measured(size: int, dark: bool) -> None:
    found = letter_height(decoded(np.asarray(text_page(1200, 1600, size, dark=dark))))
    assert found is not None
    assert 0.7 * capital(size) <= found <= 1.25 * capital(size)


def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (900, 700, 3), dtype=np.uint8)


def smooth() -> np.ndarray:
    y, x = np.mgrid[0:800, 0:900]
    wave = 127 + 100 * np.sin(x / 37) * np.cos(y / 23)
    return np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)


def shapes() -> np.ndarray:
    return open_image(checkpoint_folder().parent / "pictures" / "shapes.png").rgb


@pytest.mark.parametrize("make", [noise, smooth, shapes])
def test_a_picture_without_text_has_no_letters(make: Callable[[], np.ndarray]) -> None:
    assert letter_height(decoded(make())) is None


def test_the_parts_of_a_long_page_are_the_tiles_of_the_command_line() -> None:
    page = open_image(text_page(300, 2500, 14))
    boxes = reading_parts(300, 2500, None, 1344)
    assert [page.rgb[y : y + h, x : x + w].tobytes() for x, y, w, h in boxes] == [
        tile.rgb.tobytes() for tile in tiles(page)
    ]


@pytest.mark.parametrize(
    ("width", "height", "letters"), [(4000, 3000, 14.0), (3000, 3000, 17.0), (1344, 1344, 9.0)]
)
def test_a_grid_covers_the_picture_and_makes_letters_large_enough(
    width: int, height: int, letters: float
) -> None:
    boxes = reading_parts(width, height, letters, 1344)
    covered = np.zeros((height, width), np.uint8)
    for x, y, w, h in boxes:
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        covered[y : y + h, x : x + w] += 1
        assert letters * 1344 / max(w, h) >= 7.5
    assert covered.all()
    assert (len(boxes) > 1) == (letters * 1344 / max(width, height) < 8)


def test_the_hint_offers_parts_that_are_asked_about_one_after_the_other(desk: Desk) -> None:
    desk.program.window.resize(1366, 768)
    page = text_page(400, 3000, 16)
    desk.open_demo()
    show(desk, png(page))
    panel = desk.chat.panel
    desk.qtbot.waitUntil(panel.hint_text.isVisible, timeout=10_000)
    assert "for the model, which needs about 8" in panel.hint_text.text()
    count = len(tiles(open_image(page)))
    assert panel.parts_button.text() == f"Ask about {count} parts instead"
    QTest.mouseClick(panel.parts_button, LEFT)
    assert not panel.hint.isVisible()
    desk.ask("Write down the text.")
    pixels = [got(ask).tobytes() for ask in desk.engine.asked]
    assert pixels == [tile.rgb.tobytes() for tile in tiles(open_image(page))]
    conversation = desk.chat.conversation
    assert conversation is not None
    assert f"Part {count} of {count}" in conversation.path()[0].answer
    panel.picture.choose_whole()
    assert panel.hint.isVisible()


def test_a_page_that_can_be_read_has_no_hint(desk: Desk) -> None:
    show(desk, png(text_page(700, 700, 26)))
    panel = desk.chat.panel
    desk.qtbot.waitUntil(lambda: panel.letters is not None, timeout=10_000)
    assert not panel.hint.isVisible()
