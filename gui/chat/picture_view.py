"""The picture of a conversation with the tools that stand on it: zoom, part, rotation, and more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QEvent, QMargins, QRect, QSize, Qt, Signal
from PySide6.QtGui import QGuiApplication, QImage, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import escape_line
from gui.background import pixels
from gui.background.decoder import DecodedPicture
from gui.background.tasks import Tasks
from gui.chat import parts as places
from gui.chat.viewer import STEP, FullScreen, Viewer
from gui.controls import tool_button
from gui.data.saving import How, Kind, SaveError, save
from gui.data.settings import Preferences
from gui.data.state import Part
from gui.save_dialog import ask_for_target
from gui.translation import error_text, fill

_LEAST_PICTURE = 72
"""Height in pixels of the picture in the smallest window."""
_GAP = 10
"""Pixels between the tools and the edge."""


class PictureView(QWidget):
    """A decoded picture, what the next question is about, and the tools.

    chosen   the user chose a part, several, or the whole picture
    rotated  (quarter turns) the user turned the picture, which is also what the model gets
    failed   (message)
    """

    chosen = Signal()
    rotated = Signal(int)
    failed = Signal(str)

    def __init__(self, tasks: Tasks, settings: Preferences) -> None:
        super().__init__()
        self._tasks, self._settings = tasks, settings
        self._found: DecodedPicture | None = None
        self._page: int | None = None
        self._name = ""
        self._rotation = 0
        self._parts: tuple[Part, ...] = ()
        self._levels: pixels.Levels | None = None
        self._asked_for = 0
        self._full: FullScreen | None = None
        self._corner = QSize()
        self._target_whole = ""
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self.viewer = Viewer()
        self.viewer.setAccessibleName(self.tr("The picture of this conversation"))
        self.viewer.drawn.connect(self._drawn)
        self.viewer.zoomed.connect(self._show_zoom)
        self.viewer.full.connect(self.show_full_screen)
        self.viewer.tool_ended.connect(lambda: self.part_button.setChecked(False))
        column.addWidget(self.viewer)
        self.facts = QLabel(self)
        self.facts.setProperty("kind", "overlay")
        self.facts.setTextFormat(Qt.TextFormat.PlainText)
        self.target = self._make_target()
        self.tools = self._make_tools()
        self.show_picture(None)

    def _make_target(self) -> QFrame:
        """Make the bar that says which part the next question is about."""
        bar = QFrame(self)
        bar.setProperty("kind", "overlay")
        row = QHBoxLayout(bar)
        row.setContentsMargins(10, 3, 4, 3)
        self.target_text = QLabel()
        row.addWidget(self.target_text)
        self.whole_button = self._tool(
            row, "close", self.tr("Ask about the whole picture"), self.choose_whole
        )
        return bar

    def _make_tools(self) -> QFrame:
        bar = QFrame(self)
        bar.setProperty("kind", "overlay")
        row = QHBoxLayout(bar)
        row.setContentsMargins(4, 3, 4, 3)
        row.setSpacing(1)
        self._tool(row, "smaller", self.tr("Smaller"), lambda: self.viewer.zoom_by(1 / STEP))
        self.zoom_button = self._tool(
            row, "", self.tr("Show at 100 %"), lambda: self.viewer.set_zoom(1.0)
        )
        self.zoom_button.setMinimumWidth(self._zoom_width())
        self._tool(row, "larger", self.tr("Larger"), lambda: self.viewer.zoom_by(STEP))
        self._tool(row, "fit", self.tr("Fit"), self.viewer.fit)
        self.part_button = self._tool(
            row, "part", self.tr("Ask about a part: drag a rectangle (P)"), self._choose_part
        )
        self.part_button.setCheckable(True)
        self._tool(row, "turn", self.tr("Rotate"), self.rotate)
        self.eye = self._tool(row, "eye", self.tr("What the model sees"), self._redraw)
        self.eye.setCheckable(True)
        self.eye.setObjectName("eye")
        self._tool(row, "full", self.tr("Whole screen (F)"), self.show_full_screen)
        more = self._tool(row, "more", self.tr("More"), lambda: None)
        more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(more)
        menu.addAction(self.tr("Copy the picture"), self.copy)
        menu.addAction(self.tr("Save the picture…"), self._ask_for_file)
        more.setMenu(menu)
        return bar

    def _zoom_width(self) -> int:
        return self.fontMetrics().horizontalAdvance("1000 %") + 12

    def _tool(
        self, row: QHBoxLayout, icon: str, text: str, do: Callable[[], object]
    ) -> QToolButton:
        button = tool_button(icon, text, do)
        row.addWidget(button)
        return button

    # --- what is shown ---------------------------------------------------------------------------

    @property
    def found(self) -> DecodedPicture | None:
        """The picture that is shown."""
        return self._found

    @property
    def rotation(self) -> int:
        """Quarter turns to the right."""
        return self._rotation

    @property
    def marked(self) -> tuple[Part, ...]:
        """The parts that are marked; () without any, also if the picture is turned."""
        return self._parts

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the next question is about; () is the whole picture as it is."""
        if self._parts or not self._rotation or self._found is None:
            return self._parts
        return (places.part_of(self._whole(), self._page, self._rotation),)

    def show_picture(
        self,
        found: DecodedPicture | None,
        *,
        page: int | None = None,
        name: str = "",
        rotation: int = 0,
        parts: Sequence[Part] = (),
    ) -> None:
        """Show a picture, or nothing.

        page   that the user chose; None: none was chosen
        name   of the file, for saving it
        parts  what the next question is about
        """
        same = found is not None and found is self._found
        self._found, self._page, self._name = found, page, name
        turned = rotation % 4 != self._rotation
        self._rotation = rotation % 4
        # Of the whole picture, the rotation says enough.
        whole = found is not None and len(parts) == 1 and self._is_whole(parts[0])
        self._parts = () if whole else tuple(parts)
        for widget in (self.facts, self.tools):
            widget.setVisible(found is not None)
        if found is None:
            self._levels = None
            self._asked_for += 1
            self.viewer.show_levels([])
            self.eye.setChecked(False)
            self.part_button.setChecked(False)
            self.viewer.set_choosing(False)
        if not same or turned:
            self._levels = None
        self._show_target()
        self._redraw()

    def choose_parts(self, parts: Sequence[Part]) -> None:
        """Ask the next question about these parts; () is the whole picture."""
        whole = self._found is not None and len(parts) == 1 and self._is_whole(parts[0])
        self._parts = () if whole else tuple(parts)
        if self.eye.isChecked() and not parts:
            self.eye.setChecked(False)
        self._show_target()
        self._redraw()
        self.chosen.emit()

    def choose_whole(self) -> None:
        """Ask the next question about the whole picture."""
        self.choose_parts(())

    def show_part(self, part: Part) -> None:
        """Choose a part, and zoom to it."""
        self.choose_parts((part,))
        if self._levels is not None and self._found is not None:
            size = QSize(self._found.width, self._found.height)
            self.viewer.show_rectangle(
                places.to_turned(places.rectangle(part), size, self._rotation)
            )

    def rotate(self) -> None:
        """Turn the picture to the right, for the model, too."""
        self.turn_to(self._rotation + 1)

    def turn_to(self, rotation: int) -> None:
        """Show the picture turned by so many quarters to the right, for the model, too."""
        if self._found is None or rotation % 4 == self._rotation:
            return
        self._rotation = rotation % 4
        self._levels = None
        self._parts = tuple(
            places.part_of(places.rectangle(part), part.page, self._rotation)
            for part in self._parts
        )
        self._show_target()
        self._redraw()
        self.rotated.emit(self._rotation)

    def _is_whole(self, part: Part) -> bool:
        found = self._found
        return found is not None and places.is_whole(part, QSize(found.width, found.height))

    def _whole(self) -> QRect:
        assert self._found is not None
        return QRect(0, 0, self._found.width, self._found.height)

    def _redraw(self) -> None:
        """Show the picture or what the model sees; both are made on a thread."""
        found = self._found
        if found is None:
            return
        if self.eye.isChecked():
            part = next(iter(self.parts), None)
            self._make(lambda: pixels.as_model_sees(found, part), self._show_square)
        elif self._levels is None:
            rotation = self._rotation
            self._make(lambda: pixels.levels(found, rotation), self._show_levels)
        else:
            self._show_levels(self._levels)

    def _make(self, work: Callable[[], object], show: Callable[[object], None]) -> None:
        """Run work on a thread and show its result, unless something else was asked for since."""
        self._asked_for += 1
        number = self._asked_for

        def done(result: object) -> None:
            if number == self._asked_for:
                show(result)

        self._tasks.run(work, done, self._report, self)

    def _show_levels(self, made: object) -> None:
        assert isinstance(made, pixels.Levels)
        again = self._levels is made
        self._levels = made
        if not again or self.viewer.picture_size != made.images[0].size():
            self.viewer.show_levels(made.images)
        self._mark_parts()
        self._show_facts()
        if self._full is not None:
            self._full.viewer.show_levels(made.images)
            self._full.viewer.show_parts(self._turned_parts())

    def _show_square(self, made: object) -> None:
        assert isinstance(made, QImage)
        self.viewer.set_choosing(False)
        self.part_button.setChecked(False)
        self.viewer.show_levels([made])
        self._show_facts()

    def _show_facts(self) -> None:
        found = self._found
        if found is None:
            return
        text = fill(
            self.tr("{width} × {height}, {format}"),
            width=found.original_width,
            height=found.original_height,
            format=found.format,
        )
        if self.eye.isChecked():
            text = fill(self.tr("What the model sees: {side} × {side}"), side=pixels.MODEL_SIDE)
        self.facts.setText(text)
        self._show_target()

    def _turned_parts(self) -> list[QRect]:
        found = self._found
        if found is None:
            return []
        size = QSize(found.width, found.height)
        return [
            places.to_turned(places.rectangle(part), size, self._rotation) for part in self._parts
        ]

    def _mark_parts(self) -> None:
        if not self.eye.isChecked():
            self.viewer.show_parts(self._turned_parts())

    def _show_target(self) -> None:
        """Show what the next question is about, unless it is the whole picture."""
        self.target.setVisible(bool(self._parts) and self._found is not None)
        self._target_whole = self._describe_target()
        self.target_text.setText(self._target_whole)
        self.target_text.setToolTip(self._target_whole)
        self._place()

    def _describe_target(self) -> str:
        if self.eye.isChecked():
            texts = {1: self.tr("What the model sees of this part")}
            several = fill(
                self.tr("What the model sees of part 1 of {count}"), count=len(self._parts)
            )
            return texts.get(len(self._parts), several)
        if len(self._parts) == 1:
            part = self._parts[0]
            size = QSize(part.width, part.height)
            turned = places.turned_size(size, self._rotation)
            return fill(
                self.tr("Asking about this part, {width} × {height}"),
                width=turned.width(),
                height=turned.height(),
            )
        return fill(
            self.tr("Asking about {count} parts, one after the other"), count=len(self._parts)
        )

    # --- tools -----------------------------------------------------------------------------------

    def _choose_part(self) -> None:
        """Switch the tool for parts on or off."""
        if self.part_button.isChecked() and self.eye.isChecked():
            self.eye.setChecked(False)
            self._redraw()
        self.viewer.set_choosing(self.part_button.isChecked())
        self.viewer.setFocus()

    def _drawn(self, place: QRect) -> None:
        """Ask the next question about a rectangle of the turned picture."""
        found = self._found
        if found is None or self.eye.isChecked():
            return
        upright = places.to_upright(
            place, QSize(found.width, found.height), self._rotation
        ).intersected(self._whole())
        self.viewer.set_choosing(False)
        self.part_button.setChecked(False)
        whole = upright == self._whole()
        self.choose_parts(() if whole else (places.part_of(upright, self._page, self._rotation),))

    def _show_zoom(self, zoom: float) -> None:
        self.zoom_button.setText(f"{round(zoom * 100)} %")

    def show_full_screen(self) -> None:
        """Show the picture on the whole screen."""
        if self._full is not None:
            self._full.close()
            return
        if self._levels is None:
            return
        full = self._full = FullScreen(self._levels.images, self._turned_parts(), self)
        full.viewer.drawn.connect(self._drawn)
        full.viewer.drawn.connect(lambda _: full.viewer.show_parts(self._turned_parts()))
        full.closed.connect(self._left_full_screen)

    def _left_full_screen(self) -> None:
        self._full = None
        self.viewer.setFocus()

    def copy(self) -> None:
        """Put the part, or the whole picture, on the clipboard."""
        found, part = self._found, next(iter(self.parts), None)
        if found is not None:
            self._tasks.run(
                lambda: pixels.image_of(found, part),
                QGuiApplication.clipboard().setImage,
                self._report,
                self,
            )

    def _ask_for_file(self) -> None:
        stem = Path(self._name).stem or self.tr("picture")
        if self._parts:
            stem += "-" + self.tr("part")
        target = ask_for_target(
            self,
            self._settings,
            title=self.tr("Save the picture"),
            name=stem,
            kinds=(Kind(suffix=".png", label="PNG"),),
        )
        if target is not None:
            self.save(target.file, target.how)

    def save(self, path: Path, how: How = How.NEW) -> None:
        """Write the part, or the whole picture, as PNG."""
        found, part = self._found, next(iter(self.parts), None)
        if found is not None:
            self._tasks.run(
                lambda: _write_png(path, found, part, how), lambda _: None, self._report, self
            )

    def _report(self, error: CogVLM2LiteError) -> None:
        self.failed.emit(error_text(error))

    # --- places of the tools ---------------------------------------------------------------------

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of the tools with a small picture above them."""
        tools = self.tools.sizeHint()
        return QSize(tools.width() + 2, tools.height() + _LEAST_PICTURE)

    def set_corner(self, size: QSize) -> None:
        """Set how much of the upper corner at the end of the line another widget covers."""
        if size != self._corner:
            self._corner = size
            self._place()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Place the tools again if the letters have another size."""
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self.zoom_button.setMinimumWidth(self._zoom_width())
            self.updateGeometry()
            self._place()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Keep the tools at their edges."""
        super().resizeEvent(event)
        self._place()

    def _place(self) -> None:
        """Place the tools at the bottom, and the texts at the top."""
        for widget in (self.facts, self.target, self.tools):
            widget.adjustSize()
        room = self.rect()
        middle = room.center().x()
        self.tools.move(middle - self.tools.width() // 2, room.bottom() - self.tools.height() - 6)
        # In a very low view the tools would hang over its edge, and there is nothing to see.
        low = room.height() < self.tools.height() + 12
        self.tools.setVisible(self._found is not None and not low)
        asked = self.target.isVisibleTo(self)
        # In a low view, the picture needs the height of the text about its file.
        small = room.height() < self.tools.height() + 2 * _LEAST_PICTURE
        self.facts.setVisible(self._found is not None and not asked and not small)
        self._elide_target(room.width() - 2 * _GAP)
        text = self.target if asked else self.facts
        beside = text.width() + self._corner.width() + 2 * _GAP <= room.width()
        down = _GAP if beside else max(_GAP, self._corner.height() + 4)
        left = self.layoutDirection() is Qt.LayoutDirection.LeftToRight
        text.move(_GAP if left else room.right() - text.width() - _GAP, down)
        for widget in (self.facts, self.target, self.tools):
            widget.raise_()
        top = max(down + text.height(), self._corner.height()) + 4
        if small:
            top = 4
        self.viewer.set_margins(QMargins(8, top, 8, self.tools.height() + 12))

    def _elide_target(self, room: int) -> None:
        """Shorten the text of the target, so that its button stays in view."""
        whole, label = self._target_whole, self.target_text
        around = self.target.sizeHint().width() - label.sizeHint().width()
        elided = label.fontMetrics().elidedText(
            whole, Qt.TextElideMode.ElideRight, max(0, room - around)
        )
        if elided != label.text():
            label.setText(elided)
            self.target.adjustSize()


def _write_png(path: Path, found: DecodedPicture, part: Part | None, how: How) -> None:
    try:
        save(path, pixels.png_of(found, part), how)
    except ValueError as error:  # a zero byte in the name
        raise SaveError(
            "{file} can't be written: {why}.",
            hint="Choose another place.",
            file=escape_line(path.name),
            why=error,
        ) from error
