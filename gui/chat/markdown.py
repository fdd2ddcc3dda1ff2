"""Writes Markdown into a text document chunk by chunk: what is finished is not laid out again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from PySide6.QtGui import (
    QBrush,
    QColor,
    QFont,
    QFontDatabase,
    QFontMetricsF,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextDocumentFragment,
    QTextFormat,
    QTextFrameFormat,
    QTextLength,
    QTextList,
    QTextListFormat,
    QTextTable,
    QTextTableFormat,
)

from cogvlm2_lite.formulas import formula_at
from gui import theme
from gui.chat.blocks import Chunk

_MARKDOWN = (
    QTextDocument.MarkdownFeature.MarkdownDialectGitHub
    | QTextDocument.MarkdownFeature.MarkdownNoHTML
)
_PADDING = 6
QUOTE_PX = 18
"""Width of the margin of a quote, in pixels."""
_HEADINGS = {1: 2, 2: 1}
"""Steps of Qt's font sizes above the text: 1.5 and 1.2 times as large."""
_FIXED = QFontDatabase.SystemFont.FixedFont
_CODE_OR_FORMULA = re.compile(
    r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)|\\\\|\\\$|\\\(|\\\[|\\begin\{|\$+", re.DOTALL
)
_CLOSING = {"\\(": "\\)", "\\[": "\\]"}
_FIRST_PLACE, _MOST_FORMULAS = 0xE000, 6000  # characters for private use
_OVERLAP = -4
"""Top margin of a table's next piece, which puts its upper line on the last one before."""
_MOST_AT_ONCE = 6000
"""Characters that are written before the window gets its next turn; those of tables count more."""
_TABLE_WEIGHT = 5


class DocumentWriter:
    """Shows chunks in a document.

    written  chunks that were written so far, to see that finished ones are not written again
    """

    def __init__(self, document: QTextDocument) -> None:
        document.setUndoRedoEnabled(False)
        self._document = document
        self._wanted: Sequence[Chunk] = ()
        self._shown: list[Chunk] = []
        self._ends: list[tuple[int, QTextBlockFormat]] = []  # before each chunk
        self._width = 0
        self._look: tuple[str, str] | None = None  # of what is shown
        self.written = 0

    @property
    def has_colours(self) -> bool:
        """Whether a shown chunk may have a table, a formula or code, with colours of the theme."""
        signs = "|", "`", "$", "\\"
        return any(sign in chunk.markdown for chunk in self._shown for sign in signs)

    @property
    def outdated(self) -> bool:
        """Whether what is shown has colours of another theme, or the sizes of another font."""
        return self.has_colours and self._look != self._look_now()

    def _look_now(self) -> tuple[str, str]:
        return theme.current().name, self._document.defaultFont().key()

    @property
    def has_quotes(self) -> bool:
        """Whether a shown chunk may have a quote."""
        return any(">" in chunk.markdown for chunk in self._shown)

    @property
    def complete(self) -> bool:
        """Whether all chunks are in the document."""
        return len(self._shown) == len(self._wanted)

    def show(self, chunks: Sequence[Chunk], *, at_once: bool = False) -> None:
        """Show chunks: those that are shown already stay, the others are replaced.

        Of a long text only the beginning is written; `proceed` writes more.
        at_once  write all of it
        """
        same = 0
        for old, new in zip(self._shown, chunks, strict=False):
            if old != new:
                break
            same += 1
        self._wanted = chunks
        if same < len(self._shown):
            self._remove(same)
        self.proceed(at_once=at_once)

    def proceed(self, *, at_once: bool = False) -> None:
        """Write the next chunks."""
        weight = 0
        if not self._shown:
            self._look = self._look_now()
        cursor = QTextCursor(self._document)
        cursor.beginEditBlock()
        while not self.complete and (at_once or weight < _MOST_AT_ONCE):
            chunk = self._wanted[len(self._shown)]
            cursor.movePosition(QTextCursor.MoveOperation.End)
            self._ends.append((cursor.position(), cursor.blockFormat()))
            table = _write(cursor, chunk, self._width, first=not self._shown)
            self._shown.append(chunk)
            self.written += 1
            weight += len(chunk.markdown) * (_TABLE_WEIGHT if table else 1)
        cursor.endEditBlock()

    def restyle(self) -> None:
        """Write everything again, after a change of theme or font."""
        if self._shown:
            self._remove(0)
            self.proceed(at_once=True)

    def set_width(self, width: int) -> None:
        """Set the width for tables in several pieces, in pixels."""
        if width != self._width:
            self._width = width
            if any(chunk.columns for chunk in self._shown):
                self.restyle()

    def _remove(self, keep: int) -> None:
        position, form = self._ends[keep]
        del self._shown[keep:], self._ends[keep:]
        if not keep:
            self._document.clear()
            return
        cursor = QTextCursor(self._document)
        cursor.setPosition(position)
        cursor.movePosition(QTextCursor.MoveOperation.End, QTextCursor.MoveMode.KeepAnchor)
        cursor.removeSelectedText()
        cursor.setBlockFormat(form)


def plain_text(document: QTextDocument) -> str:
    """Return the text of a document; a table as lines with tabs between the cells."""
    lines: list[str] = []
    place = document.rootFrame().begin()
    while not place.atEnd():
        frame, block = place.currentFrame(), place.currentBlock()
        if isinstance(frame, QTextTable):
            lines += _table_lines(frame)
        elif not _is_between_tables(block):
            lines.append(_mark(block) + block.text().replace("\u2028", "\n"))
        place += 1
    return "\n".join(lines)


def _mark(block: QTextBlock) -> str:
    """Return what stands before a list's item: spaces for its depth, and a dash or number."""
    if block.blockFormat().objectIndex() < 0:
        return ""
    items = block.textList()
    form = items.format()
    numbered = form.style() is QTextListFormat.Style.ListDecimal
    mark = items.itemText(block).strip() if numbered else "-"
    boxes = {
        QTextBlockFormat.MarkerType.Checked: "[x] ",
        QTextBlockFormat.MarkerType.Unchecked: "[ ] ",
    }
    return f"{'  ' * (form.indent() - 1)}{mark} {boxes.get(block.blockFormat().marker(), '')}"


def _table_lines(table: QTextTable) -> list[str]:
    rows = range(table.rows())
    return [
        "\t".join(_cell_text(table, row, column) for column in range(table.columns()))
        for row in rows
    ]


def _cell_text(table: QTextTable, row: int, column: int) -> str:
    cell = table.cellAt(row, column)
    cursor = cell.firstCursorPosition()
    cursor.setPosition(cell.lastCursorPosition().position(), QTextCursor.MoveMode.KeepAnchor)
    return cursor.selection().toPlainText()


def _is_between_tables(block: QTextBlock) -> bool:
    """Whether a block is one of the empty ones that Qt keeps around a table."""
    if block.text():
        return False
    near = [QTextCursor(other) for other in (block.previous(), block.next()) if other.isValid()]
    return any(cursor.currentTable() is not None for cursor in near)


def _write(cursor: QTextCursor, chunk: Chunk, width: int, *, first: bool) -> bool:
    """Write a chunk at the end of the document. Returns whether it is a table."""
    read = QTextDocument()
    read.setDefaultFont(cursor.document().defaultFont())
    text, formulas = _hide_formulas(chunk.markdown)
    read.setMarkdown(text, _MARKDOWN)
    _show_formulas(read, formulas)
    tables = [frame for frame in read.rootFrame().childFrames() if isinstance(frame, QTextTable)]
    for table in tables:
        _style(table, chunk, width)
    if tables:
        cursor.insertFragment(QTextDocumentFragment(read))
    else:
        _copy_blocks(cursor, read, first=first)
    return bool(tables)


def _hide_formulas(markdown: str) -> tuple[str, list[str]]:
    """Replace each formula by a character that Markdown leaves alone; return text and formulas.

    Markdown would drop the backslashes of \\( and read * and _ in a formula as emphasis.
    """
    if "$" not in markdown and "\\" not in markdown:
        return markdown, []
    formulas: list[str] = []
    parts: list[str] = []
    at = 0
    for found in _CODE_OR_FORMULA.finditer(markdown):
        if found.start() < at or found[0].startswith(("`", "\\\\", "\\$")):
            continue
        formula = formula_at(markdown, found.start())
        if formula is not None:
            source = formula.source
        elif found[0] in ("\\(", "\\[") and _CLOSING[found[0]] not in markdown[found.end() :]:
            source = found[0]  # not an escape: it has no other end either
        else:
            continue
        if len(formulas) == _MOST_FORMULAS:
            break
        parts += [markdown[at : found.start()], chr(_FIRST_PLACE + len(formulas))]
        formulas.append(source)
        at = found.start() + len(source)
    return "".join(parts) + markdown[at:], formulas


def _show_formulas(document: QTextDocument, formulas: list[str]) -> None:
    """Write the formulas into their places, exactly as the answer has them."""
    for number, source in enumerate(formulas):
        cursor = document.find(chr(_FIRST_PLACE + number))
        if cursor.isNull():
            continue
        form = cursor.charFormat()
        form.setFontFamilies(QFontDatabase.systemFont(_FIXED).families())
        form.setForeground(QBrush(QColor(theme.current().accent)))
        cursor.insertText(source.replace("\n", "\u2028"), form)


def quote_level(block: QTextBlock) -> int:
    """Return in how many quotes a paragraph is."""
    return block.blockFormat().intProperty(QTextFormat.Property.BlockQuoteLevel)


def _shape(form: QTextBlockFormat) -> None:
    """Set the margins of headings, and of quotes, which have a bar at their left."""
    level = form.intProperty(QTextFormat.Property.BlockQuoteLevel)
    if level:
        form.setLeftMargin(QUOTE_PX * level)
        form.setRightMargin(0)
    if form.headingLevel():
        form.setTopMargin(14)
        form.setBottomMargin(4)


def _size_heading(form: QTextCharFormat, level: int) -> None:
    """Set the size of a heading in proportion to the text; Qt's largest is twice as large."""
    if level:
        form.setProperty(QTextFormat.Property.FontSizeAdjustment, _HEADINGS.get(level, 0))
        form.setFontWeight(QFont.Weight.DemiBold)


def _code_form(form: QTextCharFormat) -> QTextCharFormat:
    """Return the format of code in a line, with what else holds for it.

    Qt's own format has all properties of a font, and its hints win over the name of the family.
    """
    made = QTextCharFormat()
    made.setFontFamilies(QFontDatabase.systemFont(_FIXED).families())
    made.setFontWeight(form.fontWeight())
    made.setFontItalic(form.fontItalic())
    made.setFontStrikeOut(form.fontStrikeOut())
    made.setBackground(QBrush(QColor(theme.current().code)))
    if form.isAnchor():
        made.setAnchor(True)
        made.setAnchorHref(form.anchorHref())
        made.setForeground(form.foreground())
    return made


def _copy_blocks(cursor: QTextCursor, read: QTextDocument, *, first: bool) -> None:
    """Copy paragraphs and lists. insertFragment would lose the format of the first paragraph."""
    lists: dict[int, QTextList] = {}
    block = read.begin()
    if not block.text() and block.next().isValid() and block.textList() is None:
        block = block.next()  # Qt begins a horizontal line with an empty paragraph
    written = 0
    while block.isValid():
        form, letters = block.blockFormat(), block.charFormat()
        _shape(form)
        _size_heading(letters, form.headingLevel())
        form.setObjectIndex(-1)  # the list is one of the other document
        if first and not written:
            cursor.setBlockFormat(form)
            cursor.setBlockCharFormat(letters)
        else:
            cursor.insertBlock(form, letters)
        source = block.textList()
        if source is not None:
            known = lists.get(source.objectIndex())
            if known is None:
                lists[source.objectIndex()] = cursor.createList(source.format())
            else:
                known.add(cursor.block())
        _copy_letters(cursor, block, form.headingLevel())
        written += 1
        block = block.next()


def _copy_letters(cursor: QTextCursor, block: QTextBlock, heading: int) -> None:
    place = block.begin()
    while not place.atEnd():
        piece = place.fragment()
        form = piece.charFormat()
        if form.boolProperty(QTextFormat.Property.FontFixedPitch):
            form = _code_form(form)
        _size_heading(form, heading)
        if form.isImageFormat():
            cursor.insertImage(form.toImageFormat())
        else:
            cursor.insertText(piece.text(), form)
        place += 1


def _style(table: QTextTable, chunk: Chunk, width: int) -> None:
    """Set thin lines, cell padding and a bold head row."""
    colours = theme.current()
    if chunk.continues:
        table.removeRows(0, 1)
    form = table.format()
    form.setBorder(1)
    form.setBorderStyle(QTextFrameFormat.BorderStyle.BorderStyle_Solid)
    form.setBorderBrush(QBrush(QColor(colours.line)))
    form.setBorderCollapse(True)
    form.setCellPadding(_PADDING)
    form.setCellSpacing(0)
    form.setTopMargin(_OVERLAP if chunk.continues else 8)
    form.setBottomMargin(0 if chunk.columns else 8)
    if chunk.columns:
        font = table.document().defaultFont()
        font.setWeight(QFont.Weight.DemiBold)  # as in the head
        metrics = QFontMetricsF(font)
        _set_widths(form, [metrics.horizontalAdvance(text) for text in chunk.columns], width)
    table.setFormat(form)
    if chunk.continues:
        return
    for column in range(table.columns()):
        cell = table.cellAt(0, column)
        shape = cell.format()
        shape.setBackground(QBrush(QColor(colours.code)))
        cell.setFormat(shape)
        bold = QTextCharFormat()
        bold.setFontWeight(600)
        cursor = cell.firstCursorPosition()
        cursor.setPosition(cell.lastCursorPosition().position(), QTextCursor.MoveMode.KeepAnchor)
        cursor.mergeCharFormat(bold)
        cursor.mergeBlockFormat(QTextBlockFormat())


def _set_widths(form: QTextTableFormat, texts: Sequence[float], width: int) -> None:
    """Set fixed columns, so that the pieces of a table stand exactly below each other.

    texts  width of the longest text of each column
    width  of the document, which the table does not exceed
    """
    columns = [1.05 * text + 2 * _PADDING + 4 for text in texts]
    if width and sum(columns) > width:
        columns = [min(column, 0.6 * width) for column in columns]
        columns = [column * (width - 2) / sum(columns) for column in columns]
    fixed = QTextLength.Type.FixedLength
    form.setColumnWidthConstraints([QTextLength(fixed, round(column)) for column in columns])
