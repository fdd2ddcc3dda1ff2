"""Widgets for an answer: Markdown that loads nothing, and code blocks that can be copied."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QEvent, QMimeData, QRectF, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import (
    QColor,
    QFontDatabase,
    QGuiApplication,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QTextCursor,
    QTextDocument,
)
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPlainTextEdit,
    QTextBrowser,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.chat.blocks import Block, Code, Splitter, Text, chunks
from gui.chat.copying import show_copied
from gui.chat.dropped import address
from gui.chat.highlight import Highlighter
from gui.chat.markdown import QUOTE_PX, DocumentWriter, plain_text, quote_level
from gui.translation import fill

_SCHEMES = ("http", "https", "mailto")
_SPACING = 8


class Prose(QTextBrowser):
    """Markdown text, as high as its content. Nothing is fetched; opening a link asks first.

    grown  its height changed

    writer  writes the text; it does not write finished paragraphs again
    """

    grown = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._markdown = ""
        self._height = 0
        self.setOpenLinks(False)
        self.setProperty("kind", "clear")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setAccessibleName(self.tr("Answer"))
        self.anchorClicked.connect(self._ask_to_open)
        self.highlighted.connect(self._show_address)
        self.writer = DocumentWriter(self.document())
        self._more = QTimer(self)
        self._more.setInterval(0)
        self._more.timeout.connect(self._proceed)
        self._dressing = QTimer(self)
        self._dressing.setSingleShot(True)
        self._dressing.setInterval(0)
        self._dressing.timeout.connect(self._restyle)
        self.horizontalScrollBar().rangeChanged.connect(self._grow)

    def show_text(self, text: str) -> None:
        """Show Markdown. HTML in it is shown as text. The end of a long text follows later."""
        self._markdown = text
        self.writer.show(chunks(text))
        self._grow()
        if not self.writer.complete:
            self._more.start()

    def fit(self, width: int) -> int:
        """Lay the text out for a width in pixels and return the height."""
        if width != self.width():
            self.resize(width, self.height())
        if not self.isVisible() and self.document().textWidth() != width:
            self.document().setTextWidth(width)  # a hidden widget gets its size when it is shown
        self.writer.set_width(width)
        self._grow()
        return self._height

    def toPlainText(self) -> str:  # noqa: N802 - Qt's name
        """Return the complete text without Markdown syntax."""
        if not self.writer.complete:
            self._more.stop()
            self.writer.proceed(at_once=True)
            self._grow()
        return plain_text(self.document())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw a bar at the left of each quote."""
        super().paintEvent(event)
        if not self.writer.has_quotes:
            return
        with QPainter(self.viewport()) as painter:
            painter.translate(-self.horizontalScrollBar().value(), 0)
            layout, block = self.document().documentLayout(), self.document().begin()
            colour = QColor(theme.current().accent)
            while block.isValid():
                place = layout.blockBoundingRect(block)
                for level in range(quote_level(block)):
                    left = QUOTE_PX * level + self.document().documentMargin()
                    painter.fillRect(QRectF(left, place.top(), 3, place.height()), colour)
                block = block.next()

    def createMimeDataFromSelection(self) -> QMimeData:  # noqa: N802 - Qt's name
        """Return what is selected as text, with tabs in tables and marks in lists, and as HTML."""
        mime = super().createMimeDataFromSelection()
        mime.html()  # Qt fills it when it is first read, and would replace the text then
        part = QTextDocument()
        QTextCursor(part).insertFragment(self.textCursor().selection())
        mime.setText(plain_text(part))
        return mime

    def loadResource(self, kind: int, name: QUrl | str) -> Any:  # noqa: N802 - Qt's name
        """Load nothing."""
        return None

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Write text again that has colours of the theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.PaletteChange):
            self._dressing.start()  # once for all events of the change

    def _restyle(self) -> None:
        if self.writer.outdated:
            self.writer.restyle()
        self._grow()

    def _proceed(self) -> None:
        self.writer.proceed()
        if self.writer.complete:
            self._more.stop()
        self._grow()

    def _grow(self) -> None:
        bar = self.horizontalScrollBar()
        more = bar.sizeHint().height() if bar.maximum() > 0 else 0
        height = max(round(self.document().size().height()) + 6 + more, 24)
        if height != self._height or height != self.height():
            self._height = height
            self.setFixedHeight(height)
            self.grown.emit()

    def _show_address(self, url: QUrl) -> None:
        self.setToolTip(address(url))

    def _ask_to_open(self, url: QUrl) -> None:
        if url.scheme() not in _SCHEMES:
            return
        asked = QMessageBox.question(
            self,
            self.tr("Open this address?"),
            fill(self.tr("The answer links to\n\n{address}"), address=address(url)),
            QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No,
            QMessageBox.StandardButton.No,
        )
        if asked == QMessageBox.StandardButton.Yes:
            from PySide6.QtGui import QDesktopServices

            QDesktopServices.openUrl(url)


class CodeBlock(QFrame):
    """Code with its language and a button that copies it.

    grown  its height changed
    """

    grown = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._code = ""
        self.setProperty("kind", "code")
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 4, 6, 8)
        column.setSpacing(2)
        head = QHBoxLayout()
        self.language = QLabel()
        self.language.setProperty("kind", "soft")
        head.addWidget(self.language, 1)
        self.copy_button = QToolButton()
        self.copy_button.setIcon(theme.icon("copy"))
        self.copy_button.setText(self.tr("Copy"))
        self.copy_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.copy_button.setProperty("kind", "quiet")
        self.copy_button.setAccessibleName(self.tr("Copy the code"))
        self.copy_button.clicked.connect(self.copy)
        head.addWidget(self.copy_button)
        column.addLayout(head)
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setUndoRedoEnabled(False)
        self.text.setProperty("kind", "clear")
        self.text.setFrameShape(QFrame.Shape.NoFrame)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.text.setTabChangesFocus(True)
        self.text.setAccessibleName(self.tr("Code"))
        self.colours = Highlighter(self.text.document())
        column.addWidget(self.text)
        self._set_font()

    def copy(self) -> None:
        """Put the code on the clipboard."""
        QGuiApplication.clipboard().setText(self.text.toPlainText())
        show_copied(self.copy_button)

    def show_code(self, block: Code) -> None:
        """Show a code block. What is shown already stays, and only the rest is added."""
        self.language.setText(block.language)
        if self._code and block.code.startswith(self._code):
            cursor = QTextCursor(self.text.document())
            cursor.movePosition(QTextCursor.MoveOperation.End)
            cursor.insertText(block.code[len(self._code) :])
        elif block.code != self._code:
            self.text.setPlainText(block.code)
        self._code = block.code
        self.colours.show_code(block.code, block.language)
        self._set_height()

    def fit(self, width: int) -> int:
        """Set the width in pixels and return the height."""
        height = self.sizeHint().height()
        self.resize(width, height)
        return height

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Adapt the fixed font to another font size, and the colours to another theme."""
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self._set_font()
        elif event.type() is QEvent.Type.PaletteChange:
            self.colours.rehighlight()

    def _set_font(self) -> None:
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSizeF(self.font().pointSizeF())
        self.text.setFont(font)
        self._set_height()

    def _set_height(self) -> None:
        lines = self._code.count("\n") + 1
        bar = self.text.horizontalScrollBar().sizeHint().height()
        high = lines * self.text.fontMetrics().lineSpacing() + bar
        high += 2 * round(self.text.document().documentMargin())
        if high != self.text.height():
            self.text.setFixedHeight(high)
            self.grown.emit()


Part = Prose | CodeBlock


class Answer(QWidget):
    """Text and code blocks, one below the other. Only blocks that changed are updated.

    A part of the answer gets its widget when it is seen (`reveal`), and loses it when it is far
    away; its place is kept by the height that it had, or by an estimate from its length.

    grown  its height changed

    lazy  parts wait for `reveal`; else all of them are made at once
    """

    grown = Signal()

    def __init__(self, parent: QWidget | None = None, *, lazy: bool = False) -> None:
        super().__init__(parent)
        self._lazy = lazy
        self._splitter = Splitter()
        self._shown: list[Block] = []
        self._parts: list[Part | None] = []
        self._heights: list[int] = []

    def show_text(self, text: str) -> None:
        """Show Markdown."""
        blocks = self._splitter.split(text) or [Text(markdown="")]
        same = 0
        for old, new in zip(self._shown, blocks, strict=False):
            if type(old) is not type(new):
                break
            same += 1
        for place in range(same, len(self._parts)):
            self._drop(place)
        del self._parts[same:], self._heights[same:]
        for place, block in enumerate(blocks):
            if place >= same:
                self._parts.append(None)
                self._heights.append(self._estimate(block))
            elif self._shown[place] == block:
                continue
            part = self._parts[place]
            if part is not None:
                _draw(part, block)
                self._heights[place] = part.fit(self.width())
            elif not self._lazy:
                self._shown = blocks
                self._make(place)
            else:
                self._heights[place] = self._estimate(block)
        self._shown = blocks
        self._arrange()

    def fit(self, width: int) -> int:
        """Lay the parts out for a width in pixels and return the height of all."""
        before = self.width()
        if width != before:
            # First, because a part that grows is laid out again for the width of the answer.
            self.resize(width, self.height())
            for place, part in enumerate(self._parts):
                if part is not None:
                    self._heights[place] = part.fit(width)
                elif before:
                    self._heights[place] = self._heights[place] * before // max(width, 1)
        self._arrange()
        return self.height()

    def reveal(self, top: int, bottom: int, room: int) -> bool:
        """Make the next part between two heights, and remove those that are further than `room`.

        Returns whether a part was made. The caller has to ask again then, because the places have
        changed.
        """
        y = 0
        for place, height in enumerate(self._heights):
            if self._parts[place] is None and y < bottom and y + height > top:
                self._make(place)
                self._arrange()
                return True
            part = self._parts[place]
            far = y > bottom + room or y + height < top - room
            if part is not None and far and self._lazy and not _in_use(part):
                self._drop(place)
            y += height + _SPACING
        return False

    def toPlainText(self) -> str:  # noqa: N802 - as Qt's own texts have it
        """Return the shown text without Markdown syntax."""
        texts = []
        for part, block in zip(self._parts, self._shown, strict=True):
            if isinstance(block, Code):
                texts.append(block.code)
            else:
                texts.append(part.toPlainText() if isinstance(part, Prose) else _plain(block))
        return "\n\n".join(texts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The widgets of all blocks, in order; missing ones are made."""
        for place in range(len(self._parts)):
            self._make(place)
        self._arrange()
        return tuple(part for part in self._parts if part is not None)

    @property
    def busy(self) -> bool:
        """Whether the end of a long text is still to be written."""
        return any(isinstance(part, Prose) and not part.writer.complete for part in self.made)

    @property
    def made(self) -> tuple[Part, ...]:
        """The widgets that exist now, in order."""
        return tuple(part for part in self._parts if part is not None)

    @property
    def has_selection(self) -> bool:
        """Whether text in one of the parts is selected."""
        return any(_in_use(part) for part in self.made)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Lay the parts out if a layout set the width."""
        super().resizeEvent(event)
        if not self._lazy and event.oldSize().width() != self.width():
            for place, part in enumerate(self._parts):
                if part is not None:
                    self._heights[place] = part.fit(self.width())
            self._arrange()

    @property
    def focus_chain(self) -> list[QWidget]:
        """The widgets that Tab reaches, in order."""
        chain: list[QWidget] = []
        for part in self.made:
            chain += [part] if isinstance(part, Prose) else [part.copy_button, part.text]
        return chain

    def _make(self, place: int) -> None:
        if self._parts[place] is not None:
            return
        block = self._shown[place]
        part: Part = CodeBlock(self) if isinstance(block, Code) else Prose(self)
        self._parts[place] = part
        part.show()  # before the text, or Qt would lay it out a second time
        part.fit(self.width())
        _draw(part, block)
        self._heights[place] = part.fit(self.width())
        part.grown.connect(self._part_grown)

    def _drop(self, place: int) -> None:
        part = self._parts[place]
        if part is not None:
            self._parts[place] = None
            part.hide()
            part.deleteLater()

    def _part_grown(self) -> None:
        for place, part in enumerate(self._parts):
            if part is self.sender():
                self._heights[place] = part.fit(self.width())
                self._arrange()

    def _arrange(self) -> None:
        y = 0
        for part, height in zip(self._parts, self._heights, strict=True):
            if part is not None:
                part.move(0, y)
            y += height + _SPACING
        high = max(y - _SPACING, 0)
        if high != self.height():
            self.setFixedHeight(high)
            self.grown.emit()

    def _estimate(self, block: Block) -> int:
        """Return about how high a block will be, in pixels."""
        metrics = self.fontMetrics()
        if isinstance(block, Code):
            return (block.code.count("\n") + 3) * metrics.lineSpacing()
        letters = max(self.width() // max(metrics.averageCharWidth(), 1), 20)
        lines = [line for line in block.markdown.split("\n") if line.strip()]
        rows = sum(len(line) // letters + 1 for line in lines)
        return rows * (metrics.lineSpacing() + 6) + 6


def _draw(part: Part, block: Block) -> None:
    if isinstance(part, CodeBlock):
        assert isinstance(block, Code)
        part.show_code(block)
    else:
        assert isinstance(block, Text)
        part.show_text(block.markdown)


def _in_use(part: Part) -> bool:
    """Whether a part has the focus or selected text, which would be lost."""
    text = part if isinstance(part, Prose) else part.text
    return text.hasFocus() or text.textCursor().hasSelection()


def _plain(block: Text) -> str:
    document = QTextDocument()
    DocumentWriter(document).show(chunks(block.markdown), at_once=True)
    return plain_text(document)
