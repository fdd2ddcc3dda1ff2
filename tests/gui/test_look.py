"""What a person sees and touches: contrast, arrows, the wheel, sizes of letters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, QPointF, QRect, Qt
from PySide6.QtGui import QColor, QIcon, QImage, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QCheckBox,
    QComboBox,
    QCompleter,
    QDial,
    QDialog,
    QFileDialog,
    QLabel,
    QLineEdit,
    QListWidget,
    QPlainTextEdit,
    QPushButton,
    QRadioButton,
    QScrollArea,
    QScrollBar,
    QSpinBox,
    QStyle,
    QTabBar,
    QTableWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.events import TextDelta
from gui import theme
from gui.chat.answer import Prose
from gui.controls import ComboBox, DoubleSpinBox, Slider, SpinBox
from gui.window import PAGES, RailButton
from tests.gui.test_layout import show_all
from tests.helpers.desk import Desk, Script
from tests.helpers.screen import screen_of

THEMES = ("light", "dark")


def luminance(colour: QColor) -> float:
    """The relative luminance of WCAG 2.2."""
    parts = [colour.redF(), colour.greenF(), colour.blueF()]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: QColor | str, other: QColor | str) -> float:
    low, high = sorted((luminance(QColor(one)), luminance(QColor(other))))
    return (high + 0.05) / (low + 0.05)


def pixels(image: QImage, box: QRect) -> Iterator[QColor]:
    for y in range(box.top(), box.bottom() + 1):
        for x in range(box.left(), box.right() + 1):
            yield image.pixelColor(x, y)


def strongest(image: QImage, box: QRect, ground: QColor) -> float:
    """The contrast of the pixel of a box that stands out most from its ground."""
    return max(contrast(pixel, ground) for pixel in pixels(image, box))


@pytest.fixture(params=THEMES)
def dressed(request: pytest.FixtureRequest, desk: Desk) -> theme.Colours:
    desk.program.settings.set("theme", request.param)
    return theme.current()


@pytest.fixture
def board(desk: Desk, dressed: theme.Colours) -> Iterator[QWidget]:
    """A page to put controls on."""
    page = QDialog()
    page.setProperty("kind", "page")
    QVBoxLayout(page)
    page.resize(420, 700)
    yield page
    page.close()
    page.deleteLater()


def put(board: QWidget, *widgets: QWidget) -> QImage:
    layout = board.layout()
    assert layout is not None
    for widget in widgets:
        layout.addWidget(widget)
    board.show()
    board.setFocus()
    QTest.qWait(10)
    return board.grab().toImage()


# --- contrast ------------------------------------------------------------------------------------


def test_the_palette_has_enough_contrast() -> None:
    for colours in (theme.LIGHT, theme.DARK):
        for ground in (colours.ground, colours.side, colours.raised, colours.code):
            assert contrast(colours.line, ground) >= 3, (colours.name, ground)
            assert contrast(colours.chosen, ground) >= 3, (colours.name, ground)
            assert contrast(colours.accent, ground) >= 3, (colours.name, ground)
            for text in (colours.ink, colours.soft, colours.bad, colours.accent):
                assert contrast(text, ground) >= 4.5, (colours.name, text, ground)
        assert contrast(colours.line, colours.mine) >= 3, colours.name
        for text in (colours.ink, colours.soft):
            assert contrast(text, colours.mine) >= 4.5, (colours.name, text)
        assert contrast(colours.chosen_ink, colours.chosen) >= 4.5
        assert contrast(colours.accent_ink, colours.accent) >= 4.5


def test_the_edge_of_every_control_is_seen(board: QWidget, dressed: theme.Colours) -> None:
    box, combo, spin = QCheckBox("box"), ComboBox(), SpinBox()
    radio, line, text, button = QRadioButton("r"), QLineEdit(), QPlainTextEdit(), QPushButton("b")
    combo.addItem("first")
    button.setEnabled(True)
    image = put(board, box, radio, combo, spin, line, text, button)
    ground = QColor(dressed.ground)
    for widget in (box, radio):
        area = QRect(widget.pos(), widget.sizeHint()).intersected(widget.geometry())
        left = QRect(area.left(), area.top(), 3, widget.height())
        assert strongest(image, left, ground) >= 3, widget
    for edged in (combo, spin, line, text, button):
        middle = edged.geometry().center().y()
        edge = QRect(edged.x(), middle, 2, 1)
        assert strongest(image, edge, ground) >= 3, edged


def test_check_marks_are_seen(board: QWidget, dressed: theme.Colours) -> None:
    boxes = [QCheckBox(), QCheckBox(), QRadioButton()]
    boxes[0].setChecked(True)
    assert isinstance(boxes[1], QCheckBox)
    boxes[1].setTristate(True)
    boxes[1].setCheckState(Qt.CheckState.PartiallyChecked)
    boxes[2].setChecked(True)
    image = put(board, *boxes)
    for box in boxes:
        middle = box.geometry().center().y()
        inside = QRect(box.x() + 3, middle - 5, 10, 10)
        found = list(pixels(image, inside))
        assert max(contrast(pixel, dressed.ground) for pixel in found) >= 3
        pairs = [contrast(one, other) for one in found for other in found[::7]]
        assert max(pairs) >= 3, box  # the mark on its fill


def test_arrows_are_seen(board: QWidget, dressed: theme.Colours) -> None:
    combo, whole, decimal = ComboBox(), SpinBox(), DoubleSpinBox()
    combo.addItem("first")
    image = put(board, combo, whole, decimal)
    raised = QColor(dressed.raised)
    for widget in (combo, whole, decimal):
        area = widget.geometry()
        arrows = QRect(area.right() - 22, area.top() + 4, 18, area.height() - 8)
        halves = [arrows]
        if widget is not combo:  # up and down
            half = arrows.height() // 2
            halves = [arrows.adjusted(0, 0, 0, -half), arrows.adjusted(0, half, 0, 0)]
        for part in halves:
            assert strongest(image, part, raised) >= 3, widget


def test_a_number_has_room_beside_its_arrows(board: QWidget) -> None:
    spin = SpinBox()
    spin.setRange(0, 1_000_000)
    spin.setValue(1_000_000)
    put(board, spin)
    spin.setFixedWidth(spin.sizeHint().width())
    QTest.qWait(10)
    edit = spin.lineEdit()
    assert edit.width() >= edit.fontMetrics().horizontalAdvance("1000000")


def test_the_selection_of_a_list_is_seen(board: QWidget, dressed: theme.Colours) -> None:
    rows, clear, table, text = QListWidget(), QListWidget(), QTableWidget(2, 1), QLineEdit("word")
    clear.setProperty("kind", "clear")
    for listed in (rows, clear):
        listed.addItems(["", ""])
        listed.setCurrentRow(0)
    table.selectRow(0)
    image = put(board, rows, clear, table, text)
    views: list[QAbstractItemView] = [rows, clear, table]
    for view in views:
        first, second = (view.visualRect(view.model().index(row, 0)).center() for row in (0, 1))
        at = [image.pixelColor(view.viewport().mapTo(board, place)) for place in (first, second)]
        assert contrast(*at) >= 3, (view, at)
    text.selectAll()
    text.setFocus()
    palette = text.palette()
    assert contrast(palette.highlight().color(), dressed.raised) >= 3
    assert contrast(palette.highlight().color(), palette.highlightedText().color()) >= 4.5


def test_a_chosen_conversation_can_be_read(desk: Desk, dressed: theme.Colours) -> None:
    row = desk.program.history.create(title="Chosen")
    desk.chat.reload_list()
    desk.chat.show_conversation(desk.program.history.load(row.id))
    view = desk.chat.list
    place = view.visualItemRect(view.item(0))
    image = view.viewport().grab().toImage()
    ground = image.pixelColor(place.right() - 6, place.center().y())
    assert contrast(ground, dressed.side) >= 3
    middle = place.center().y()
    title = QRect(place.left(), place.top(), place.width() - 30, middle - place.top())
    date = QRect(place.left(), middle, place.width() - 30, place.bottom() - middle)
    for part in (title, date):
        inside = part.adjusted(4, 3, -4, -3)
        assert strongest(image, inside, ground) >= 4.5


def test_a_completer_and_the_list_of_a_combo_are_read(
    board: QWidget, dressed: theme.Colours
) -> None:
    line, combo = QLineEdit(), ComboBox()
    words = ["alpha", "alphabet"]
    completer = QCompleter(words)
    line.setCompleter(completer)
    combo.addItems(words)
    put(board, line, combo)
    line.setFocus()
    QTest.keyClicks(line, "al")
    combo.showPopup()
    QTest.qWait(20)
    shown: list[QAbstractItemView | None] = [completer.popup(), combo.view()]
    for view in filter(None, shown):
        image = view.viewport().grab().toImage()
        second = view.visualRect(view.model().index(1, 0)) & view.viewport().rect()
        ground = image.pixelColor(second.right() - 4, second.center().y())
        assert contrast(ground, dressed.raised) < 1.1, ground  # neither black nor transparent
        assert strongest(image, second, ground) >= 4.5
    combo.hidePopup()
    completer.popup().hide()


def test_the_page_that_is_shown_is_seen_in_the_rail(desk: Desk, dressed: theme.Colours) -> None:
    window = desk.program.window
    window.show_page("memory")
    image = window.grab().toImage()
    for button in window.findChildren(RailButton):
        edge = image.pixelColor(button.mapTo(window, QPoint(0, button.height() // 2)))
        assert (contrast(edge, dressed.side) >= 3) is button.isChecked(), button.text()


def test_the_drawings_of_the_stylesheet_have_the_colours_of_the_palette() -> None:
    for colours in (theme.LIGHT, theme.DARK):
        sheet = theme.stylesheet(colours)
        assert "$" not in sheet
        files = set(re.findall(r'url\("(.+?)"\)', sheet))
        assert len(files) == 4
        for file in files:
            drawn = re.findall("#[0-9a-f]{6}", Path(file).read_text(encoding="utf-8"))
            mark = Path(file).name.startswith(("check", "dash"))
            assert drawn == [colours.accent_ink if mark else colours.soft], file


def test_every_icon_follows_the_theme_at_once(desk: Desk) -> None:
    chat, window = desk.chat, desk.program.window
    row = desk.program.history.create(title="Pinned")
    desk.program.history.pin(row.id, True)
    chat.reload_list()
    for name, colours in (("dark", theme.DARK), ("light", theme.LIGHT), ("dark", theme.DARK)):
        desk.program.settings.set("theme", name)
        seen = [chat.new_button, chat.send_button, chat.presets, *window.findChildren(RailButton)]
        for widget in seen:
            image = widget.grab().toImage()
            inks = {pixel.name() for pixel in pixels(image, image.rect())}
            assert {colours.ink, colours.soft} & inks, (name, widget.accessibleName())
        other = theme.LIGHT if colours is theme.DARK else theme.DARK
        listed = chat.list.viewport().grab().toImage()
        inks = {
            pixel.name() for pixel in pixels(listed, chat.list.visualItemRect(chat.list.item(0)))
        }
        assert other.ink not in inks


# --- the wheel -----------------------------------------------------------------------------------

TURNED = QAbstractSlider | QAbstractSpinBox | QComboBox | QDial | QTabBar
OURS = (ComboBox, DoubleSpinBox, Slider, SpinBox)


def turn(widget: QWidget, clicks: int) -> None:
    """Turn the wheel over a widget as Qt does: over what is below the pointer, then its parents."""
    place = QPointF(widget.rect().center())
    at: QWidget | None = widget.childAt(place.toPoint()) or widget
    while at is not None:
        event = QWheelEvent(
            QPointF(at.mapFrom(widget, place) if at is not widget else place),
            widget.mapToGlobal(place), QPoint(), QPoint(0, 120 * clicks),
            Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(at, event)
        if event.isAccepted():
            return
        at = at.parentWidget()
        if at is not None and not at.isAncestorOf(widget):
            return


def value_of(widget: QWidget) -> object:
    if isinstance(widget, QComboBox):
        return widget.currentIndex()
    if isinstance(widget, QAbstractSlider):
        return widget.value()
    return widget.property("value")


def test_the_wheel_changes_no_setting_of_any_page(desk: Desk) -> None:
    window = desk.program.window
    window.resize(900, 420)
    desk.chat.sampling.open_popup()
    popup = desk.chat.sampling.popup
    assert popup is not None
    holders: list[QWidget] = [popup]
    for page in PAGES:
        window.show_page(page.name)
        made = window.page(page.name)
        assert made is not None
        holders.append(made)
    found = [
        widget
        for holder in holders
        for widget in holder.findChildren(QWidget)
        if isinstance(widget, TURNED) and not isinstance(widget, QScrollBar)
    ]
    assert len(found) > 15
    window.show_page("about")
    for widget in found:
        assert isinstance(widget, OURS), widget
        assert not widget.focusPolicy().value & Qt.FocusPolicy.WheelFocus.value & ~15, widget
        assert widget.focusPolicy() is Qt.FocusPolicy.StrongFocus
        before = value_of(widget)
        for clicks in (1, -1, -3):
            turn(widget, clicks)
            assert value_of(widget) == before, widget.accessibleName()
    popup.close()


def test_the_wheel_over_a_setting_scrolls_the_page(desk: Desk) -> None:
    window = desk.program.window
    window.resize(900, 420)
    window.show_page("settings")
    page = window.page("settings")
    assert page is not None
    area = page if isinstance(page, QScrollArea) else page.findChild(QScrollArea)
    assert isinstance(area, QScrollArea)
    page.setFocus()
    spins = [spin for spin in page.findChildren(QSpinBox) if not spin.hasFocus()]
    desk.qtbot.waitUntil(lambda: area.verticalScrollBar().maximum() > 0)
    turn(spins[0], -1)
    assert area.verticalScrollBar().value() > 0
    spins[0].setFocus()
    window.activateWindow()
    desk.qtbot.waitUntil(spins[0].hasFocus)
    before = spins[0].value()
    turn(spins[0], 1)
    assert spins[0].value() > before  # with the focus, as everywhere


# --- letters -------------------------------------------------------------------------------------


def test_a_title_is_larger_than_text_from_the_start(desk: Desk) -> None:
    window = desk.program.window
    window.show_page("settings")
    page = window.page("settings")
    assert page is not None
    points = desk.program.settings.get("font_points")
    for title in window.findChildren(theme.Title):
        assert title.font().pointSize() == round(1.5 * points), title.text()
    plain = [label for label in page.findChildren(QLabel) if not isinstance(label, theme.Title)]
    assert {label.font().pointSize() for label in plain} == {points}
    for button in window.findChildren(RailButton):
        assert button.font().pointSize() < points


# --- sizes ---------------------------------------------------------------------------------------


def test_lines_of_an_answer_are_not_longer_than_the_eye_follows(desk: Desk, script: Script) -> None:
    words = "The quick brown fox jumps over the lazy dog near the river bank. " * 30
    script.events = [TextDelta(text=words)]
    desk.program.window.resize(2600, 900)
    desk.open_demo()
    desk.ask("Long?")
    conversation = desk.chat.conversation
    assert conversation is not None
    (prose,) = desk.chat.transcript.view_of(conversation.path()[0].id).answer.parts
    assert isinstance(prose, Prose)
    for points in (11, 20):
        desk.program.settings.set("font_points", points)
        QTest.qWait(50)
        layout = prose.document().firstBlock().layout()
        letters = [layout.lineAt(line).textLength() for line in range(layout.lineCount() - 1)]
        assert 60 <= max(letters) <= 95, (points, letters)


def test_the_first_window_fits_a_small_screen_and_large_letters(
    desk: Desk, script: Script, tmp_path: Path
) -> None:
    script.events = [TextDelta(text="It is a long answer about the picture. " * 20)]
    window = desk.program.window
    window.resize(902, 476)  # 1366 x 768 at a scale of 1.5
    desk.program.settings.set("font_points", 20)
    assert (window.width(), window.height()) == (902, 476)
    desk.open_demo()
    desk.ask("What is in the picture, and where does it stand?")
    assert show_all(desk) == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("Xvfb"), reason="needs Xvfb")
def test_a_first_start_on_a_small_screen_shows_the_whole_window(tmp_path: Path) -> None:
    """Really: a screen of 1366 x 768 pixels, at a scale of 1.5."""
    code = (
        "import sys; from pathlib import Path; from gui.app import Program, make_app\n"
        "app = make_app(); program = Program(app, Path(sys.argv[1])); program.show()\n"
        "window = program.window; room = window.screen().availableGeometry()\n"
        "print(room.width(), room.height(), window.width(), window.height())\n"
        "program.close()"
    )
    with screen_of("1366x768") as display:
        own = {"DISPLAY": display, "QT_QPA_PLATFORM": "xcb", "QT_SCALE_FACTOR": "1.5"}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "data")], env={**os.environ, **own},
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
    screen_width, screen_height, width, height = map(int, done.stdout.split())
    assert (screen_width, screen_height) == (911, 512)
    assert width <= screen_width - 8
    assert height <= screen_height - 36


def test_the_list_comes_back_after_a_narrow_window_and_its_width_is_saved(
    desk: Desk, open_desk: Callable[[Path], Desk], tmp_path: Path
) -> None:
    desk.program.settings.set("list_width", 300)
    for width, listed in ((1180, True), (600, False), (1180, True)):
        desk.program.window.resize(width, 700)
        desk.qtbot.waitUntil(lambda listed=listed: desk.chat.sidebar.isVisible() is listed)
    desk.qtbot.waitUntil(lambda: abs(desk.chat.sidebar.width() - 300) < 5)
    outer = desk.chat.layout_of_page.outer
    outer.moveSplitter(260, 1)
    assert abs(desk.program.settings.get("list_width") - 260) < 5


# --- icons of Qt's own dialogs -------------------------------------------------------------------


def icon_contrast(icon: QIcon, side: int, ground: str) -> float:
    """The contrast of the pixel of an icon that stands out most."""
    image = icon.pixmap(side, side).toImage()
    seen = [pixel for pixel in pixels(image, image.rect()) if pixel.alpha() > 200]
    return max(contrast(pixel.name(), ground) for pixel in seen)


def test_every_standard_icon_is_seen(desk: Desk, dressed: theme.Colours) -> None:
    style, checked = QApplication.style(), 0
    box = QDialog()
    for kind in QStyle.StandardPixmap:
        icon = style.standardIcon(kind, None, box)
        if not icon.isNull():
            assert icon_contrast(icon, 16, dressed.raised) >= 3, kind
        small = style.standardPixmap(kind, None)
        if not small.isNull():
            assert icon_contrast(QIcon(small), 16, dressed.raised) >= 3, kind
            checked += 1
    assert checked > 40


def test_the_arrows_of_the_file_dialog_are_seen(desk: Desk, dressed: theme.Colours) -> None:
    dialog = QFileDialog(desk.program.window)
    dialog.setOption(QFileDialog.Option.DontUseNativeDialog)
    dialog.setDirectory("/")
    dialog.show()
    desk.qtbot.waitExposed(dialog)
    shown = dialog.grab().toImage()
    for name in ("backButton", "forwardButton", "toParentButton", "newFolderButton"):
        button = dialog.findChild(QToolButton, name)
        assert button is not None
        place = QRect(button.mapTo(dialog, QPoint(0, 0)), button.size()).adjusted(8, 8, -8, -8)
        ground = shown.pixelColor(place.topLeft())
        assert strongest(shown, place, ground) >= 3, name
    dialog.close()
    dialog.deleteLater()
