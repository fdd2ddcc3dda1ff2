"""Widgets for an answer: Markdown that loads nothing, and code blocks that can be copied."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import (
    QBrush,
    QColor,
    QFontDatabase,
    QGuiApplication,
    QResizeEvent,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextFrameFormat,
    QTextTable,
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
from gui.chat.blocks import Block, Code, Text, split
from gui.chat.dropped import address

_SCHEMES = ("http", "https", "mailto")
_MARKDOWN = (
    QTextDocument.MarkdownFeature.MarkdownDialectGitHub
    | QTextDocument.MarkdownFeature.MarkdownNoHTML
)


class Prose(QTextBrowser):
    """Markdown text, as high as its content. Nothing is fetched; opening a link asks first."""

    def __init__(self) -> None:
        super().__init__()
        self.setOpenLinks(False)
        self.setProperty("kind", "clear")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setAccessibleName(self.tr("Answer"))
        self.anchorClicked.connect(self._ask_to_open)
        self.highlighted.connect(self._show_address)
        self.document().documentLayout().documentSizeChanged.connect(self._grow)

    def show_text(self, text: str) -> None:
        """Show Markdown. HTML in it is shown as text."""
        self.document().setMarkdown(text, _MARKDOWN)
        _style_tables(self.document())
        self._grow()

    def loadResource(self, kind: int, name: QUrl | str) -> Any:  # noqa: N802 - Qt's name
        """Load nothing."""
        return None

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Adapt the height to the text."""
        super().resizeEvent(event)
        self._grow()

    def _grow(self) -> None:
        bar = self.horizontalScrollBar()
        more = bar.sizeHint().height() if bar.maximum() > 0 else 0
        self.setFixedHeight(max(round(self.document().size().height()) + 6 + more, 24))

    def _show_address(self, url: QUrl) -> None:
        self.setToolTip(address(url))

    def _ask_to_open(self, url: QUrl) -> None:
        if url.scheme() not in _SCHEMES:
            return
        asked = QMessageBox.question(
            self,
            self.tr("Open this address?"),
            self.tr("The answer links to\n\n{address}").format(address=address(url)),
            QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No,
            QMessageBox.StandardButton.No,
        )
        if asked == QMessageBox.StandardButton.Yes:
            from PySide6.QtGui import QDesktopServices

            QDesktopServices.openUrl(url)


class CodeBlock(QFrame):
    """Code with its language and a button that copies it."""

    def __init__(self) -> None:
        super().__init__()
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
        self.text.setProperty("kind", "clear")
        self.text.setFrameShape(QFrame.Shape.NoFrame)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSizeF(self.font().pointSizeF())
        self.text.setFont(font)
        self.text.setTabChangesFocus(True)
        self.text.setAccessibleName(self.tr("Code"))
        column.addWidget(self.text)

    def copy(self) -> None:
        """Put the code on the clipboard."""
        QGuiApplication.clipboard().setText(self.text.toPlainText())

    def show_code(self, block: Code) -> None:
        """Show a code block."""
        self.language.setText(block.language)
        if block.code != self.text.toPlainText():
            self.text.setPlainText(block.code)
        lines = block.code.count("\n") + 1
        bar = self.text.horizontalScrollBar().sizeHint().height()
        height = lines * self.text.fontMetrics().lineSpacing()
        self.text.setFixedHeight(height + bar + 2 * round(self.text.document().documentMargin()))


class Answer(QWidget):
    """Text and code blocks, one below the other. Only blocks that changed are updated."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[Block] = []
        self._parts: list[Prose | CodeBlock] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(8)

    def show_text(self, text: str) -> None:
        """Show Markdown."""
        blocks = split(text) or [Text(markdown="")]
        same = 0
        for old, new in zip(self._shown, blocks, strict=False):
            if type(old) is not type(new):
                break
            same += 1
        for part in self._parts[same:]:
            self._column.removeWidget(part)
            part.deleteLater()
        del self._parts[same:]
        for place, block in enumerate(blocks):
            if place == len(self._parts):
                part = CodeBlock() if isinstance(block, Code) else Prose()
                self._parts.append(part)
                self._column.addWidget(part)
            elif place < same and self._shown[place] == block:
                continue
            self._draw(self._parts[place], block)
        self._shown = blocks

    def toPlainText(self) -> str:  # noqa: N802 - as Qt's own texts have it
        """Return the shown text without Markdown syntax."""
        texts = [
            part.text.toPlainText() if isinstance(part, CodeBlock) else part.toPlainText()
            for part in self._parts
        ]
        return "\n\n".join(texts)

    @property
    def parts(self) -> tuple[Prose | CodeBlock, ...]:
        """The widgets of the blocks, in order."""
        return tuple(self._parts)

    def _draw(self, part: Prose | CodeBlock, block: Block) -> None:
        if isinstance(part, CodeBlock):
            assert isinstance(block, Code)
            part.show_code(block)
        else:
            assert isinstance(block, Text)
            part.show_text(block.markdown)


def _style_tables(document: QTextDocument) -> None:
    """Set thin lines, cell padding and a bold head row in all tables."""
    colours = theme.current()
    line, head = QBrush(QColor(colours.line)), QBrush(QColor(colours.code))
    for frame in document.rootFrame().childFrames():
        if not isinstance(frame, QTextTable):
            continue
        form = frame.format()
        form.setBorder(1)
        form.setBorderStyle(QTextFrameFormat.BorderStyle.BorderStyle_Solid)
        form.setBorderBrush(line)
        form.setBorderCollapse(True)
        form.setCellPadding(6)
        form.setCellSpacing(0)
        form.setTopMargin(8)
        form.setBottomMargin(8)
        frame.setFormat(form)
        for column in range(frame.columns()):
            cell = frame.cellAt(0, column)
            shape = cell.format()
            shape.setBackground(head)
            cell.setFormat(shape)
            bold = QTextCharFormat()
            bold.setFontWeight(600)
            cursor = cell.firstCursorPosition()
            cursor.setPosition(
                cell.lastCursorPosition().position(), QTextCursor.MoveMode.KeepAnchor
            )
            cursor.mergeCharFormat(bold)
            cursor.mergeBlockFormat(QTextBlockFormat())
