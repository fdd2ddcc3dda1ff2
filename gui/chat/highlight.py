"""Colours in code blocks, by the language that the fence names.

Pygments reads the code. It is imported on a thread when the first code block is shown, and reads a
little at a time, so that the window never waits for it. Without it, code has no colours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from PySide6.QtCore import QTimer
from PySide6.QtGui import QColor, QSyntaxHighlighter, QTextCharFormat, QTextDocument

from gui import theme

_MOST_LETTERS = 60_000
_MOST_IN_LINE = 2_000
"""Longer code, and code with a longer line, which is data and no program, has no colours."""
_SLICE_S = 0.004
"""The window's thread reads code for so long at a time."""
_PAUSE_MS = 120
"""While code is written, it is read again after this pause, or a longer one if that takes long."""
_WAIT_MS = 20

_KINDS = (
    ("Comment.Preproc", "keyword"),
    ("Comment", "comment"),
    ("Keyword.Constant", "number"),
    ("Keyword", "keyword"),
    ("Operator.Word", "keyword"),
    ("Literal.String", "string"),
    ("Literal.Number", "number"),
    ("Literal", "number"),
    ("Name.Function", "name"),
    ("Name.Class", "name"),
    ("Name.Tag", "name"),
    ("Name.Namespace", "name"),
    ("Name.Builtin", "builtin"),
    ("Name.Decorator", "builtin"),
    ("Name.Attribute", "builtin"),
    ("Name.Exception", "builtin"),
    ("Name.Constant", "number"),
    ("Generic.Heading", "keyword"),
    ("Generic.Subheading", "keyword"),
    ("Generic.Inserted", "string"),
    ("Generic.Deleted", "deleted"),
    ("Generic.Prompt", "comment"),
)
"""Beginnings of the names of Pygments' tokens, and their kind in theme.CODE_COLOURS."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Letters of a line, counted as Qt counts them, with the kind of their colour."""

    start: int
    length: int
    kind: str


class _Request:
    """A lexer that is being imported. lexer: None for a language that is not known"""

    def __init__(self, language: str) -> None:
        self.language = language
        self.lexer: Any = None
        self.ready = False

    def work(self) -> None:
        """Import the lexer."""
        try:
            from pygments.lexers import get_lexer_by_name
            from pygments.util import ClassNotFound
        except ImportError:  # an installation of an earlier version, without it
            self.ready = True
            return
        try:
            self.lexer = get_lexer_by_name(self.language)
        except ClassNotFound:
            self.lexer = None
        self.ready = True


@cache
def _request(language: str) -> _Request:
    """Return the lexer of a language; the first call begins to import it."""
    made = _Request(language)
    threading.Thread(target=made.work, name="lexer", daemon=True).start()
    return made


def language_of(fence: str) -> str:
    """Return the name of the language in a fence such as `python`, `{.py}` or `Rust,ignore`."""
    return fence.strip("{}").lstrip(".").split(",")[0].split(":")[0].lower()


class Highlighter(QSyntaxHighlighter):
    """Colours the code of a document."""

    def __init__(self, document: QTextDocument) -> None:
        super().__init__(document)
        self._code = self._reading = self._language = ""
        self._spans: dict[int, list[Span]] = {}
        self._tokens: Iterator[tuple[int, Any, str]] | None = None
        self._line: list[Span] = []
        self._number = self._column = 0
        self._spent_s = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._work)

    @property
    def busy(self) -> bool:
        """Whether more colours are to come."""
        return self._timer.isActive()

    def show_code(self, code: str, fence: str) -> None:
        """Colour the code, which the document has. What was there stays coloured if it grew."""
        language = language_of(fence)
        if language != self._language or not code.startswith(self._code):
            self._spans, self._tokens = {}, None
        self._code, self._language = code, language
        if not language or not _is_program(code):
            self._tokens = None
            self._timer.stop()
        elif not self._timer.isActive():
            self._timer.start(0 if not self._spans else _PAUSE_MS)

    def highlightBlock(self, text: str) -> None:  # noqa: N802 - Qt's name
        """Colour a line as it was read."""
        for span in self._spans.get(self.currentBlock().blockNumber(), ()):
            form = QTextCharFormat()
            form.setForeground(QColor(theme.code_colour(span.kind)))
            self.setFormat(span.start, span.length, form)

    def _work(self) -> None:
        """Read a little, and read the code again if it has grown meanwhile."""
        if self._tokens is None:
            request = _request(self._language)
            if not request.ready:
                self._timer.start(_WAIT_MS)
            if request.lexer is None:
                return
            self._begin(request.lexer)
        began = time.perf_counter()
        assert self._tokens is not None
        for _, token, text in self._tokens:
            self._add(_kind(str(token)), text)
            if time.perf_counter() - began > _SLICE_S:
                self._spent_s += time.perf_counter() - began
                self._timer.start(0)
                return
        self._end_line()
        self._tokens = None
        if self._code != self._reading:
            self._timer.start(max(_PAUSE_MS, round(4000 * self._spent_s)))

    def _begin(self, lexer: Any) -> None:
        self._reading = self._code
        # Some lexers know the end of a line only by its break.
        self._tokens = lexer.get_tokens_unprocessed(self._code + "\n")
        self._line, self._number, self._column = [], 0, 0
        self._spent_s = 0.0

    def _add(self, kind: str, text: str) -> None:
        for place, part in enumerate(text.split("\n")):
            if place:
                self._end_line()
            length = len(part.encode("utf-16-le")) // 2  # Qt counts the halves of a pair
            if kind and part:
                self._line.append(Span(start=self._column, length=length, kind=kind))
            self._column += length

    def _end_line(self) -> None:
        """Colour a line, unless it has these colours already."""
        number, line = self._number, self._line
        self._line, self._number, self._column = [], number + 1, 0
        if self._spans.get(number, []) != line:
            self._spans[number] = line
            block = self.document().findBlockByNumber(number)
            if block.isValid():
                self.rehighlightBlock(block)


def _is_program(code: str) -> bool:
    if len(code) > _MOST_LETTERS:
        return False
    return all(len(line) <= _MOST_IN_LINE for line in code.split("\n"))


@cache
def _kind(token: str) -> str:
    """Return the kind of a token such as "Token.Keyword.Type"; "" for one without a colour."""
    name = token.removeprefix("Token.")
    return next((kind for begin, kind in _KINDS if name.startswith(begin)), "")
