"""The panel with the picture of the conversation: its tools, its pages, and how it was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from PySide6.QtCore import QRect, QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui.background.attachments import Attachment
from gui.background.decoder import DecodedPicture
from gui.background.letters import LEAST_HEIGHT, letter_height, reading_parts
from gui.background.pixels import MODEL_SIDE
from gui.chat.parts import part_of
from gui.chat.picture_view import PictureView
from gui.context import Context
from gui.controls import SpinBox, tool_button
from gui.data.state import Part
from gui.translation import fill, translate


class Invitation(QLabel):
    """The text of an empty panel. It is left out where it has no room."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._whole, self._wanted = text, True
        self.setContentsMargins(12, 44, 12, 4)  # the buttons stand above it

    def show_text(self, wanted: bool) -> None:
        """Show the text, or nothing while a picture is being read."""
        self._wanted = wanted
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Show the text if it fits."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        margins = self.contentsMargins()
        room = self.contentsRect()
        wrap = Qt.TextFlag.TextWordWrap
        needed = self.fontMetrics().boundingRect(0, 0, room.width(), 10_000, wrap, self._whole)
        fits = needed.height() + margins.top() + margins.bottom() <= self.height()
        self.setText(self._whole if fits and self._wanted else "")

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return no size: the text may be left out."""
        return QSize(0, 0)


class PicturePanel(QWidget):
    """The panel.

    page_chosen      (number) the user wants another page of the picture
    open_wanted, paste_wanted, capture_wanted  the user wants to give a picture
    filled           (bool) whether there is a picture now
    failed           (message) the picture could not be saved or copied
    """

    page_chosen = Signal(int)
    open_wanted = Signal()
    paste_wanted = Signal()
    capture_wanted = Signal()
    filled = Signal(bool)
    failed = Signal(str)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._tasks = context.tasks
        self._attachment: Attachment | None = None
        self._measured: DecodedPicture | None = None
        self._letters: float | None = None
        self.setObjectName("panel")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setAccessibleName(self.tr("Picture"))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        self.picture = PictureView(context.tasks, context.settings)
        self.picture.failed.connect(self.failed)
        self.picture.chosen.connect(self._show_hint)
        self.view = self.picture.viewer
        column.addWidget(self.picture, 1)
        invites = self.tr("Drop a picture here,\npaste one with Ctrl+V,\nor open a file.")
        self._empty = Invitation(invites.replace("，\n", "，").replace("\n", " "))
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setProperty("kind", "soft")
        self._empty.setWordWrap(True)
        column.addWidget(self._empty, 1)
        self._foot = QWidget()
        foot = QVBoxLayout(self._foot)
        foot.setContentsMargins(14, 6, 14, 8)
        foot.setSpacing(6)
        self.notice = QLabel()
        self.notice.setTextFormat(Qt.TextFormat.PlainText)
        self.notice.setWordWrap(True)
        self.notice.setAccessibleDescription(self.tr("How the picture was read"))
        foot.addWidget(self.notice)
        foot.addWidget(self._make_hint())
        foot.addWidget(self._make_pages(), alignment=Qt.AlignmentFlag.AlignHCenter)
        column.addWidget(self._foot)
        self._sources = self._make_sources()
        self.show_attachment(None)

    def _make_sources(self) -> QFrame:
        """Make the buttons that stand on the upper edge and bring a picture."""
        bar = QFrame(self)
        bar.setProperty("kind", "overlay")
        row = QHBoxLayout(bar)
        row.setContentsMargins(4, 3, 4, 3)
        row.setSpacing(1)
        self._button(row, "open", self.tr("Open picture files (Ctrl+O)"), self.open_wanted.emit)
        self._button(row, "paste", self.tr("Paste a picture"), self.paste_wanted.emit)
        text = self.tr("Capture a part of the screen (Ctrl+Shift+S)")
        self._button(row, "capture", text, self.capture_wanted.emit)
        return bar

    def _make_hint(self) -> QFrame:
        """Make the bar that says that letters are too small, with the cut that helps."""
        self.hint = QFrame()
        self.hint.setProperty("kind", "notice")
        column = QVBoxLayout(self.hint)
        column.setContentsMargins(10, 6, 10, 6)
        self.hint_text = QLabel()
        self.hint_text.setWordWrap(True)
        column.addWidget(self.hint_text)
        self.parts_button = QPushButton()
        self.parts_button.clicked.connect(self._choose_parts)
        column.addWidget(self.parts_button, alignment=Qt.AlignmentFlag.AlignLeft)
        return self.hint

    def _make_pages(self) -> QWidget:
        """Make the row that chooses a page or frame."""
        self._page_row = QWidget()
        row = QHBoxLayout(self._page_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        self.pages = SpinBox()
        self.pages.setPrefix(self.tr("Page "))
        self.pages.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.pages.setKeyboardTracking(False)  # a page is decoded when its number is complete
        self.pages.setAccessibleName(self.tr("Page of the picture"))
        self.pages.setToolTip(self.tr("Choose another page or frame"))
        self.pages.valueChanged.connect(self.page_chosen)
        self._button(row, "previous", self.tr("Previous page"), self.pages.stepDown)
        row.addWidget(self.pages, 1)
        self._button(row, "next", self.tr("Next page"), self.pages.stepUp)
        return self._page_row

    def show_attachment(
        self,
        attachment: Attachment | None,
        *,
        turning: bool = False,
        rotation: int = 0,
        parts: Sequence[Part] = (),
    ) -> None:
        """Show a picture; None, or one that is not ready, shows none.

        turning   another page is being read; its number stays in the field
        rotation  quarter turns to the right
        parts     what the next question is about
        """
        if turning and attachment is self._attachment:
            return
        self._attachment = attachment
        found = attachment.picture if attachment is not None else None
        self.filled.emit(attachment is not None and not attachment.error)
        self.picture.setVisible(found is not None)
        self._empty.setVisible(found is None)
        self._empty.show_text(attachment is None or bool(attachment.error))
        if attachment is None or found is None:
            self.picture.show_picture(None)
        else:
            self.picture.show_picture(
                found, page=attachment.page, name=attachment.name, rotation=rotation, parts=parts
            )
        self._measure(found)
        self._show_notices(found)
        self._show_pages(found)
        self._show_hint()
        self._sources.raise_()

    def _show_notices(self, found: DecodedPicture | None) -> None:
        notices = found.notices if found is not None else ()
        self.notice.setText("\n".join(map(translate, notices)))
        self.notice.setVisible(bool(notices))

    def _show_pages(self, found: DecodedPicture | None) -> None:
        self._page_row.setVisible(found is not None and found.pages > 1)
        if found is not None:
            blocked = self.pages.blockSignals(True)
            self.pages.setRange(1, found.pages)
            self.pages.setSuffix(fill(self.tr(" of {count}"), count=found.pages))
            self.pages.setValue(found.page)
            self.pages.lineEdit().deselect()
            self.pages.blockSignals(blocked)

    def _measure(self, found: DecodedPicture | None) -> None:
        """Measure the letters of another picture on a thread."""
        if found is self._measured:
            return
        self._measured, self._letters = found, None
        if found is None:
            return

        def measured(height: float | None) -> None:
            if found is self._measured:
                self._letters = height
                self._show_hint()

        self._tasks.run(partial(letter_height, found), measured, lambda error: None, self)

    @property
    def letters(self) -> float | None:
        """Height of the letters in pixels; None without text, or while it is measured."""
        return self._letters

    def _show_hint(self) -> None:
        """Say that letters will be too small for the model, and offer to cut the picture."""
        found, marked = self.picture.found, self.picture.marked
        boxes = self._cuts()
        low = False
        if found is not None and self._letters is not None:
            longest = max(self._asked_size())
            seen = self._letters * MODEL_SIDE / longest
            low = seen < LEAST_HEIGHT
            self.hint_text.setText(
                fill(
                    self.tr(
                        "Letters are about {here} pixels high and about {model} for the model, "
                        "which needs about {least}."
                    ),
                    here=round(self._letters),
                    model=max(1, round(seen)),
                    least=LEAST_HEIGHT,
                )
            )
        text = fill(self.tr("Ask about {count} parts instead"), count=len(boxes))
        self.parts_button.setText(text)
        self.parts_button.setAccessibleName(text)
        self.parts_button.setVisible(len(boxes) > 1)
        self.hint_text.setVisible(low)
        extreme = self._letters is None and len(boxes) > 2
        shown = found is not None and len(marked) < 2 and (low or extreme)
        self.hint.setVisible(shown)
        pages = found is not None and (bool(found.notices) or found.pages > 1)
        self._foot.setVisible(shown or pages)

    def _asked_size(self) -> tuple[int, int]:
        """Return width and height of what the next question is about."""
        found, marked = self.picture.found, self.picture.marked
        if len(marked) == 1:
            return marked[0].width, marked[0].height
        return (found.width, found.height) if found is not None else (1, 1)

    def _cuts(self) -> list[tuple[int, int, int, int]]:
        """Return the parts in which the letters are larger, inside of what is asked about."""
        if self.picture.found is None:
            return []
        left, top = 0, 0
        if len(self.picture.marked) == 1:
            left, top = self.picture.marked[0].x, self.picture.marked[0].y
        boxes = reading_parts(*self._asked_size(), self._letters, MODEL_SIDE)
        return [(left + x, top + y, width, height) for x, y, width, height in boxes]

    def _choose_parts(self) -> None:
        page = self._attachment.page if self._attachment is not None else None
        self.picture.choose_parts(
            [part_of(QRect(*box), page, self.picture.rotation) for box in self._cuts()]
        )

    def _button(
        self, row: QHBoxLayout, icon: str, text: str, do: Callable[[], object]
    ) -> QToolButton:
        button = tool_button(icon, text, do)
        row.addWidget(button)
        return button

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Keep the buttons in their corner."""
        super().resizeEvent(event)
        self._sources.adjustSize()
        right = self.layoutDirection() is Qt.LayoutDirection.LeftToRight
        self._sources.move(self.width() - self._sources.width() - 10 if right else 10, 8)
        self._sources.raise_()
        self.picture.set_corner(self._sources.size() + QSize(10, 8))
