"""Colours and shapes of the window: two palettes, one stylesheet, one set of line icons.

Widgets never name a colour; they have an object name or a `kind` property that the stylesheet uses.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from PySide6.QtCore import QByteArray, QEvent, QRect, QRectF, QSize, Qt, QTimer
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontDatabase,
    QGuiApplication,
    QIcon,
    QIconEngine,
    QPainter,
    QPalette,
    QPixmap,
    QPixmapCache,
)
from PySide6.QtWidgets import QApplication, QLabel, QWidget
from shiboken6 import isValid

from gui.desktop_entry import ICON
from gui.standard_icons import IconColours, IconStyle


@dataclass(frozen=True, kw_only=True)
class Colours:
    """The colours by purpose, nearly the same set as in the server's web page.

    line    the edge of a control or card; its contrast with what it is on is at least 3:1
    faint   lines that only decorate
    chosen  the selected row of a list; chosen_ink is the text on it
    """

    name: str
    ground: str
    side: str
    raised: str
    line: str
    faint: str
    chosen: str
    chosen_ink: str
    ink: str
    soft: str
    accent: str
    accent_ink: str
    mine: str
    code: str
    bad: str
    warn: str


LIGHT = Colours(
    name="light",
    ground="#fbfaf7",
    side="#f3f1eb",
    raised="#ffffff",
    line="#86867e",
    faint="#dcd9d0",
    chosen="#23665a",
    chosen_ink="#ffffff",
    ink="#1d2321",
    soft="#616964",
    accent="#23665a",
    accent_ink="#ffffff",
    mine="#e6f0ec",
    code="#f1efe8",
    bad="#a3261b",
    warn="#8a5a00",
)
DARK = Colours(
    name="dark",
    ground="#151918",
    side="#111413",
    raised="#1e2422",
    line="#757f7b",
    faint="#38403d",
    chosen="#35796b",
    chosen_ink="#ffffff",
    ink="#e9edea",
    soft="#9ca69f",
    accent="#6bbfab",
    accent_ink="#0d1513",
    mine="#23362f",
    code="#101413",
    bad="#f08d80",
    warn="#e0b060",
)

CODE_COLOURS = {
    "comment": ("#5f6762", "#9ca69f"),
    "keyword": ("#7b2d8b", "#d19ae8"),
    "string": ("#2f6521", "#a5d28a"),
    "number": ("#964400", "#f0b37e"),
    "name": ("#1c5a9e", "#82bdf5"),
    "builtin": ("#0f6464", "#6fc7c0"),
    "deleted": ("#a3261b", "#f08d80"),
}
"""Colours in code by kind, light and dark. Their contrast with the background is at least 4.5:1."""

ICONS = Path(__file__).parent / "icons"
"""Small drawings that the stylesheet names, for each palette."""

FAMILIES = (
    "Inter",
    "Segoe UI",
    "SF Pro Text",
    "Noto Sans",
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Microsoft YaHei",
)

_SIZES = {"Title": 1.5, "RailButton": 0.8, "SmallPrint": 0.85}
"""Font size of the widgets of a class, in parts of plain text. Not in the stylesheet: a new one
takes much longer to apply than a new font. Not in `QApplication.setFont` for a class either: Qt
forgets those fonts when it applies a stylesheet."""

_SLICE_S = 0.02
"""Hidden widgets are styled for so long at a time; between, the window handles other events."""

_STYLESHEET = """
QWidget { color: $ink; }
QMainWindow, QDialog, QMessageBox, QStackedWidget#pages, QWidget[kind="page"]
  { background: $ground; }
QWidget#rail { background: $side; border: 0; border-right: 1px solid $faint; }
QWidget#models { background: $side; border: 0; border-bottom: 1px solid $faint; }
QWidget#conversations { background: $side; border: 0; border-right: 1px solid $faint; }
QWidget#panel { background: $side; border: 0; border-left: 1px solid $faint; }
QWidget[kind="clear"], QScrollArea[kind="clear"], QScrollArea[kind="clear"] > QWidget > QWidget
  { background: transparent; border: 0; }
QLabel { background: transparent; }
QLabel[kind="soft"] { color: $soft; }
QLabel[kind="bad"] { color: $bad; }
QLabel[kind="title"] { font-weight: 600; }
QLabel[kind="heading"] { font-weight: 600; }
QFrame[kind="popup"] { background: $raised; border: 1px solid $line; }
QFrame[kind="card"] { background: $raised; border: 1px solid $line; border-radius: 12px; }
QFrame[kind="overlay"] { background: $raised; border: 1px solid $line; border-radius: 9px; }
QLabel[kind="overlay"] { background: $raised; border: 1px solid $line; border-radius: 9px;
  padding: 4px 8px; color: $soft; }
QFrame[kind="notice"] { background: $mine; border: 1px solid $line; border-radius: 10px; }
QFrame[kind="warning"] { background: $raised; border: 1px solid $warn; border-radius: 10px; }
QFrame[kind="error"] { background: $raised; border: 1px solid $bad; border-radius: 10px; }
QFrame[kind="asked"] { background: $mine; border: 0; border-radius: 14px; }
QFrame[kind="code"] { background: $code; border: 1px solid $line; border-radius: 10px; }
QFrame[kind="rule"] { background: $faint; border: 0; }
QPushButton, QToolButton {
  background: $raised; border: 1px solid $line; border-radius: 8px; padding: 6px 12px; }
QToolButton { padding: 5px; }
QPushButton:hover, QToolButton:hover { border-color: $accent; }
QPushButton:pressed, QToolButton:pressed { background: $mine; }
QPushButton:disabled, QToolButton:disabled { color: $soft; border-color: $faint; }
QPushButton:focus, QToolButton:focus { border: 2px solid $accent; padding: 5px 11px; }
QToolButton:focus { padding: 4px; }
QPushButton[kind="main"] { background: $accent; color: $accent_ink; border-color: $accent; }
QPushButton[kind="main"]:hover { border-color: $ink; }
QPushButton[kind="main"]:focus { border: 2px solid $ink; }
QPushButton[kind="main"]:disabled { background: $faint; color: $soft; border-color: $faint; }
QToolButton[kind="quiet"], QPushButton[kind="quiet"] {
  background: transparent; border: 1px solid transparent; }
QToolButton[kind="quiet"]:hover, QPushButton[kind="quiet"]:hover { background: $mine; }
QToolButton[kind="quiet"]:checked { background: $mine; border: 1px solid $accent; }
QToolButton[kind="choice"]:checked { background: $accent; color: $accent_ink; }
QToolButton[kind="quiet"]:focus, QPushButton[kind="quiet"]:focus { border: 1px solid $accent; }
QToolButton[kind="quiet"]:focus { padding: 5px; }
QPushButton[kind="quiet"]:focus { padding: 6px 12px; }
QToolButton[kind="rail"] {
  background: transparent; border: 1px solid transparent; border-radius: 10px; padding: 7px 2px;
  color: $soft; }
QToolButton[kind="rail"]:hover { background: $mine; }
QToolButton[kind="rail"]:checked { background: $mine; color: $ink; border: 1px solid $accent; }
QToolButton[kind="rail"]:focus { border: 2px solid $accent; padding: 6px 1px; }
QToolButton::menu-indicator { image: none; width: 0; }
QToolButton[kind="menu"] { padding-right: 24px; }
QToolButton[kind="menu"]::menu-indicator { image: url("$icons/down-$name.svg"); width: 12px;
  height: 12px; subcontrol-origin: padding; subcontrol-position: center right; right: 8px; }
QLineEdit, QPlainTextEdit, QTextEdit, QSpinBox, QDoubleSpinBox, QComboBox {
  background: $raised; border: 1px solid $line; border-radius: 8px; padding: 5px 8px;
  selection-background-color: $accent; selection-color: $accent_ink; }
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus, QSpinBox:focus, QDoubleSpinBox:focus,
QComboBox:focus { border: 1px solid $accent; }
QSpinBox, QDoubleSpinBox { padding: 5px 26px 5px 8px; }
QSpinBox::up-button, QSpinBox::down-button, QDoubleSpinBox::up-button, QDoubleSpinBox::down-button {
  subcontrol-origin: border; width: 24px; border: 0; background: transparent; }
QSpinBox::up-button, QDoubleSpinBox::up-button { subcontrol-position: top right; }
QSpinBox::down-button, QDoubleSpinBox::down-button { subcontrol-position: bottom right; }
QSpinBox::up-button:hover, QDoubleSpinBox::up-button:hover, QSpinBox::down-button:hover,
QDoubleSpinBox::down-button:hover { background: $mine; border-radius: 6px; }
QSpinBox::up-arrow, QDoubleSpinBox::up-arrow {
  image: url("$icons/up-$name.svg"); width: 12px; height: 12px; }
QSpinBox::down-arrow, QDoubleSpinBox::down-arrow {
  image: url("$icons/down-$name.svg"); width: 12px; height: 12px; }
QComboBox QAbstractItemView { background: $raised; border: 1px solid $line;
  selection-background-color: $chosen; selection-color: $chosen_ink; }
QPlainTextEdit[kind="clear"], QTextBrowser[kind="clear"] {
  background: transparent; border: 0; padding: 0; }
QListView, QTableView, QTreeView { background: $raised; border: 1px solid $line; outline: 0;
  selection-background-color: $chosen; selection-color: $chosen_ink; gridline-color: $faint;
  alternate-background-color: $side; }
QListView[kind="clear"], QTableView[kind="clear"] { background: transparent; border: 0; }
QListView::item { border-radius: 8px; padding: 8px; margin: 1px 0; }
QListView::item:hover { background: $mine; }
QListView::item:selected { background: $chosen; color: $chosen_ink; }
QListView::item:selected:focus { border: 1px solid $ink; }
QComboBox::drop-down { border: 0; width: 26px; }
QComboBox::down-arrow { image: url("$icons/down-$name.svg"); width: 12px; height: 12px; }
QCheckBox, QRadioButton { spacing: 8px; background: transparent; }
QCheckBox::indicator, QRadioButton::indicator, QAbstractItemView::indicator {
  width: 14px; height: 14px; background: $raised; border: 1px solid $line; border-radius: 4px; }
QRadioButton::indicator { border-radius: 8px; }
QCheckBox::indicator:hover, QRadioButton::indicator:hover { border-color: $accent; }
QCheckBox::indicator:focus, QRadioButton::indicator:focus { border: 2px solid $accent;
  width: 12px; height: 12px; }
QCheckBox::indicator:checked, QAbstractItemView::indicator:checked {
  background: $accent; border-color: $accent; image: url("$icons/check-$name.svg"); }
QCheckBox::indicator:checked:focus, QCheckBox::indicator:indeterminate:focus { border-color: $ink; }
QCheckBox::indicator:indeterminate {
  background: $accent; border-color: $accent; image: url("$icons/dash-$name.svg"); }
QRadioButton::indicator:checked { background: $accent; border: 4px solid $raised;
  width: 8px; height: 8px; }
QCheckBox:disabled, QRadioButton:disabled { color: $soft; }
QHeaderView::section { background: $side; border: 0; border-bottom: 1px solid $faint;
  padding: 6px; }
QTabBar::tab { padding: 6px 12px; border: 0; border-bottom: 2px solid transparent; }
QTabBar::tab:selected { border-bottom: 2px solid $accent; }
QTabWidget::pane { border: 0; }
QMenu { background: $raised; border: 1px solid $line; border-radius: 8px; padding: 4px; }
QMenu::item { padding: 6px 24px 6px 12px; border: 1px solid transparent; border-radius: 6px; }
QMenu::icon { padding-left: 8px; }
QMenu::item:selected { background: $mine; border: 1px solid $accent; }
QMenu::item:disabled { color: $soft; }
QMenu::separator { height: 1px; background: $faint; margin: 4px 8px; }
QToolTip { background: $raised; color: $ink; border: 1px solid $line; padding: 4px; }
QProgressBar { background: $faint; border: 0; border-radius: 3px; max-height: 6px; min-height: 6px;
  color: transparent; }
QProgressBar::chunk { background: $accent; border-radius: 3px; }
QSplitter::handle { background: transparent; }
QScrollBar:vertical { background: transparent; width: 10px; margin: 0; }
QScrollBar:horizontal { background: transparent; height: 10px; margin: 0; }
QScrollBar::handle { background: $line; border-radius: 4px; min-height: 32px; min-width: 32px;
  margin: 1px; }
QScrollBar::handle:hover { background: $soft; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QSlider::groove:horizontal { height: 4px; background: $line; border-radius: 2px; }
QSlider::sub-page:horizontal { background: $accent; border-radius: 2px; }
QSlider::handle:horizontal { background: $accent; width: 16px; margin: -6px 0; border-radius: 8px; }
QStatusBar { background: $side; border-top: 1px solid $faint; }
QStatusBar::item { border: 0; }
QWidget#drop { background: $mine; border: 2px dashed $accent; border-radius: 16px; }
"""


def colours_for(choice: str) -> Colours:
    """Return the palette of a theme: "light", "dark", or "system" for the desktop's choice."""
    if choice == "system":
        scheme = QGuiApplication.styleHints().colorScheme()
        return DARK if scheme is Qt.ColorScheme.Dark else LIGHT
    return DARK if choice == "dark" else LIGHT


def fixed_font() -> QFont:
    """Return the system's font of fixed width, in the size of the program's font."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setPointSize(QGuiApplication.font().pointSize())
    return font


def set_letters(widget: QWidget) -> None:
    """Set the font of a new widget whose class has its own size."""
    points = QGuiApplication.font().pointSize()
    share = _SIZES[type(widget).__name__]
    widget.setFont(_sized(QGuiApplication.font(), points, share))


class Title(QLabel):
    """A label with the title of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        set_letters(self)
        self.setProperty("kind", "title")


class SmallPrint(QLabel):
    """A label in small, soft letters, such as a date."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        set_letters(self)
        self.setProperty("kind", "soft")


def stylesheet(colours: Colours) -> str:
    """Return the window's stylesheet."""
    sheet = _STYLESHEET.replace("$icons", ICONS.as_posix())
    # Longer names first: $accent_ink begins with $accent.
    for name, value in sorted(asdict(colours).items(), key=lambda item: -len(item[0])):
        sheet = sheet.replace(f"${name}", value)
    return sheet


def apply(app: QApplication, choice: str, points: int) -> Colours:
    """Apply a theme and a font size to the program. Returns the palette."""
    colours = colours_for(choice)
    sheet = stylesheet(colours)
    app.setProperty("colours", asdict(colours))
    # Each of these goes over all widgets, so only what changes is set.
    if not app.styleSheet():
        app.setStyle(IconStyle(_icon_colours))
    font = QFont()
    font.setFamilies(list(FAMILIES))
    font.setPointSize(points)
    if app.font() != font:
        before = app.font().pointSize()
        app.setFont(font)
        if app.styleSheet():
            _resize_letters(app, before, points)
    if app.styleSheet() != sheet:
        app.setPalette(_palette(colours))
        _set_stylesheet(app, sheet)
    return colours


def _set_stylesheet(app: QApplication, sheet: str) -> None:
    """Apply a stylesheet: at once to what is seen, and soon to hidden widgets.

    `setStyleSheet` alone styles each widget once for each of its parents, at once. After `unpolish`
    it knows of no widget that is styled, and only reads the sheet.
    """
    if not app.styleSheet():
        app.setStyleSheet(sheet)
        return
    app.style().unpolish(app)
    app.setStyleSheet(sheet)
    hidden = []
    for widget in app.allWidgets():
        if widget.isVisible():
            _style(widget)
        else:
            hidden.append(widget)
    _hidden_widgets(app).begin(hidden)


def finish_styling() -> None:
    """Apply the stylesheet to hidden widgets now, because one of them is about to be seen."""
    app = QApplication.instance()
    if isinstance(app, QApplication):
        _hidden_widgets(app).finish()


def _style(widget: QWidget) -> None:
    widget.style().polish(widget)
    QApplication.sendEvent(widget, QEvent(QEvent.Type.StyleChange))
    # Qt gives a widget the font back that it had when it was styled first.
    share = _share(widget)
    if share != 1.0:
        widget.setFont(_sized(widget.font(), QGuiApplication.font().pointSize(), share))


class _HiddenWidgets(QTimer):
    """Styles widgets that are not seen, a few in each turn of the event loop."""

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        self._waiting: list[QWidget] = []
        self.timeout.connect(self._proceed)

    def begin(self, widgets: list[QWidget]) -> None:
        """Style these widgets soon."""
        self._waiting = widgets
        self.start(0)

    def finish(self) -> None:
        """Style all of them now."""
        while self._waiting:
            widget = self._waiting.pop()
            if isValid(widget):
                _style(widget)
        self.stop()

    def _proceed(self) -> None:
        end = time.monotonic() + _SLICE_S
        while self._waiting and time.monotonic() < end:
            widget = self._waiting.pop()
            if isValid(widget):
                _style(widget)
        if not self._waiting:
            self.stop()


@cache
def _hidden_widgets(app: QApplication) -> _HiddenWidgets:
    return _HiddenWidgets(app)


def _resize_letters(app: QApplication, before: int, points: int) -> None:
    """Set the font size of all widgets.

    Widgets that a stylesheet has styled do not follow the program's font. Applying the stylesheet
    again takes ten times as long as this.
    """
    for widget in app.allWidgets():
        share, font = _share(widget), widget.font()
        if font.pointSize() == _sized(font, before, share).pointSize():
            widget.setFont(_sized(font, points, share))


def _share(widget: QWidget) -> float:
    return next((_SIZES[k.__name__] for k in type(widget).mro() if k.__name__ in _SIZES), 1.0)


def _sized(font: QFont, points: int, share: float) -> QFont:
    sized = QFont(font)
    sized.setPointSize(max(7, round(points * share)))
    return sized


def current() -> Colours:
    """Return the palette that is applied now."""
    app = QApplication.instance()
    applied = app.property("colours") if app else None
    return Colours(**applied) if applied else LIGHT


def code_colour(kind: str) -> str:
    """Return the colour of a kind of words in code, in the palette that is applied now."""
    light, dark = CODE_COLOURS[kind]
    return dark if current().name == "dark" else light


def _icon_colours() -> IconColours:
    colours = current()
    return IconColours(ground=colours.raised, ink=colours.ink, soft=colours.soft)


def _palette(colours: Colours) -> QPalette:
    palette = QPalette()
    role = QPalette.ColorRole
    for where, name in (
        (role.Window, colours.ground),
        (role.WindowText, colours.ink),
        (role.Base, colours.raised),
        (role.AlternateBase, colours.side),
        (role.Text, colours.ink),
        (role.Button, colours.raised),
        (role.ButtonText, colours.ink),
        (role.ToolTipBase, colours.raised),
        (role.ToolTipText, colours.ink),
        (role.Highlight, colours.accent),
        (role.HighlightedText, colours.accent_ink),
        (role.Link, colours.accent),
        (role.PlaceholderText, colours.soft),
    ):
        palette.setColor(where, QColor(name))
    for where in (role.Text, role.ButtonText, role.WindowText):
        palette.setColor(QPalette.ColorGroup.Disabled, where, QColor(colours.soft))
    return palette


_PATHS = {
    "chat": "M4 5h16v11H10l-4 4v-4H4z",
    "batch": "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
    "convert": "M4 8h13M13 4l4 4-4 4M20 16H7M11 12l-4 4 4 4",
    "memory": "M6 6h12v12H6zM9 2v4M15 2v4M9 18v4M15 18v4M2 9h4M2 15h4M18 9h4M18 15h4",
    "evaluate": "M3 20h18M6 20v-6h3v6M11 20V9h3v11M16 20V4h3v16",
    "teach": "M2 9.5L12 5l10 4.5L12 14zM6 11.5V16c3 3 9 3 12 0v-4.5M22 9.5V16",
    "model": "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
    "settings": "M4 7h9M17 7h3M4 17h3M11 17h9M13 5h4v4h-4zM7 15h4v4H7z",
    "about": "M12 3a9 9 0 1 0 .01 0zM12 11v6M12 7.5v.5",
    "plus": "M12 5v14M5 12h14",
    "send": "M12 20V5M6 11l6-6 6 6",
    "stop": "M7 7h10v10H7z",
    "table": "M4 5h16v14H4zM4 10h16M4 14.5h16M10 5v14",
    "copy": "M9 9h11v11H9zM5 15H4V4h11v1",
    "again": "M20 12a8 8 0 1 1-2.5-5.8M20 3v5h-5",
    "edit": "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
    "markdown": "M4 6h16v12H4zM7 15V9l2.5 3L12 9v6M16 9v6M14 13l2 2 2-2",
    "continue": "M5 12h14M13 6l6 6-6 6",
    "previous": "M14 6l-6 6 6 6",
    "next": "M10 6l6 6-6 6",
    "pin": "M8 4h8l-1 7 3 3H6l3-3zM12 14v6",
    "bin": "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
    "search": "M11 5a6 6 0 1 0 .01 0zM15.5 15.5L20 20",
    "picture": "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 8.5v.5",
    "open": "M3 19V6h6l2 2h9v11z",
    "paste": "M8 5H5v15h14V5h-3M9 3h6v4H9z",
    "capture": "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M9 9h6v6H9z",
    "turn": "M19 12a7 7 0 1 1-3-5.7M16 2v5h5",
    "part": "M6 2v16h16M2 6h16v16",
    "full": "M14 4h6v6M20 4l-7 7M10 20H4v-6M4 20l7-7",
    "fit": "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
    "larger": "M11 5a6 6 0 1 0 .01 0zM15.5 15.5L20 20M8 11h6M11 8v6",
    "smaller": "M11 5a6 6 0 1 0 .01 0zM15.5 15.5L20 20M8 11h6",
    "eye": "M2 12c4-7 16-7 20 0-4 7-16 7-20 0zM12 9a3 3 0 1 0 .01 0z",
    "warning": "M12 4l9 16H3zM12 10v5M12 17.5v.5",
    "close": "M6 6l12 12M18 6L6 18",
    "sliders": "M4 8h8M16 8h4M4 16h3M11 16h9M12 6h4v4h-4zM7 14h4v4H7z",
    "list": "M4 6h16M4 12h16M4 18h16",
    "presets": "M12 3l2.2 6.3L21 12l-6.8 2.7L12 21l-2.2-6.3L3 12l6.8-2.7z",
    "more": "M5 12h.5M12 12h.5M19 12h.5",
}


@cache  # so that Qt never deletes an engine that Python still has, or the other way round
def icon(name: str, colour: str | None = None, size: int = 20) -> QIcon:
    """Return a line icon, which must not be changed. Raises KeyError for an unknown name.

    colour  None: the theme's text colour when it is painted, so that a change of theme needs no
            new icons
    """
    return QIcon(_LineIcon(_PATHS[name], colour, size))


_CLONES: list[QIconEngine] = []


class _LineIcon(QIconEngine):
    """Draws an icon in the colours that the theme has at that time."""

    def __init__(self, path: str, colour: str | None, size: int) -> None:
        super().__init__()
        self._path, self._colour, self._size = path, colour, size

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        """Draw the icon."""
        pixels = self._drawn(rect.size() * painter.device().devicePixelRatio(), mode)
        painter.drawPixmap(rect, pixels)

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        """Return the icon. size: in pixels of the screen."""
        return self._drawn(size, mode)

    def actualSize(  # noqa: N802 - Qt's name
        self, size: QSize, mode: QIcon.Mode, state: QIcon.State
    ) -> QSize:
        """Return the size that is drawn."""
        return size

    def availableSizes(  # noqa: N802 - Qt's name
        self, mode: QIcon.Mode = QIcon.Mode.Normal, state: QIcon.State = QIcon.State.Off
    ) -> list[QSize]:
        """Return the usual size; any other is drawn as sharply."""
        return [QSize(self._size, self._size)]

    def isNull(self) -> bool:  # noqa: N802 - Qt's name
        """Return False."""
        return False

    def clone(self) -> QIconEngine:
        """Return a copy. Qt owns it, which PySide does not know: Python must not delete it."""
        _CLONES.append(_LineIcon(self._path, self._colour, self._size))
        return _CLONES[-1]

    def _drawn(self, size: QSize, mode: QIcon.Mode) -> QPixmap:
        colours = current()
        colour = {
            QIcon.Mode.Disabled: colours.soft,
            QIcon.Mode.Selected: self._colour or colours.chosen_ink,
        }.get(mode, self._colour or colours.ink)
        key = f"line {size.width()} {size.height()} {colour} {self._path}"
        pixels = QPixmap()
        if not QPixmapCache.find(key, pixels):
            pixels = _draw(self._path, colour, size)
            QPixmapCache.insert(key, pixels)
        return pixels


def _draw(path: str, colour: str, size: QSize) -> QPixmap:
    # Imported here because tests of plain state do not need it.
    from PySide6.QtSvg import QSvgRenderer

    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path d="{path}" fill="none" '
        f'stroke="{colour}" stroke-width="1.8" stroke-linecap="round" '
        'stroke-linejoin="round"/></svg>'
    )
    side = min(size.width(), size.height())
    pixels = QPixmap(size)
    pixels.fill(Qt.GlobalColor.transparent)
    with QPainter(pixels) as painter:
        corner = ((size.width() - side) / 2, (size.height() - side) / 2)
        QSvgRenderer(QByteArray(drawing.encode())).render(painter, QRectF(*corner, side, side))
    return pixels


def app_icon() -> QIcon:
    """Return the program's icon."""
    from PySide6.QtSvg import QSvgRenderer

    drawing = QByteArray(ICON.encode())
    made = QIcon()
    for size in (16, 32, 64, 128, 256):
        pixels = QPixmap(size, size)
        pixels.fill(Qt.GlobalColor.transparent)
        with QPainter(pixels) as painter:
            QSvgRenderer(drawing).render(painter)
        made.addPixmap(pixels)
    return made
