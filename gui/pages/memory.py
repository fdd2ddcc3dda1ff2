"""The page "Memory": what the open model will need here, and with another budget."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, Qt, QTimer
from PySide6.QtGui import QFontDatabase
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QSlider, QVBoxLayout, QWidget

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.units import GIB, format_bytes
from gui.context import Context
from gui.pages.frame import page
from gui.window import model_name

_STEP = GIB // 4
_MOST = 24 * GIB


def make(context: Context) -> QWidget:
    """Make the page."""
    return MemoryPage(context)


class MemoryPage(QWidget):
    """The plan as `cogvlm2-lite plan` prints it, for a budget that a slider sets.

    Planning is arithmetic on sizes: no weight is read, and torch is not loaded.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._gone = False
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        widget, column = page(QCoreApplication.translate("Memory", "Memory"))
        outer.addWidget(widget)
        self._model = QLabel()
        self._model.setWordWrap(True)
        column.addWidget(self._model)
        row = QHBoxLayout()
        row.addWidget(QLabel(QCoreApplication.translate("Memory", "Video memory")))
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _MOST // _STEP)
        self.slider.setAccessibleName(
            QCoreApplication.translate("Memory", "Video memory that is planned with")
        )
        row.addWidget(self.slider, 1)
        self.amount = QLabel()
        self.amount.setMinimumWidth(150)
        row.addWidget(self.amount)
        column.addLayout(row)
        self.table = QPlainTextEdit()
        self.table.setReadOnly(True)
        self.table.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.table.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.table.setMinimumHeight(420)
        self.table.setAccessibleName(QCoreApplication.translate("Memory", "The plan"))
        column.addWidget(self.table)
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(150)
        self._wait.timeout.connect(self.plan)
        self.slider.valueChanged.connect(lambda _: self._changed())
        self._changed()
        context.engine.state_changed.connect(self._changed)

    def shut(self) -> None:
        """Plan no more."""
        self._gone = True
        self._wait.stop()

    def plan(self) -> None:
        """Plan again, on a thread."""
        load = self._context.engine.client.load
        subject = "19b" if load is None else str(load.folder)
        name = (
            QCoreApplication.translate("Memory", "CogVLM2 19B, in 4 bits")
            if load is None
            else model_name(load.folder)
        )
        self._model.setText(
            QCoreApplication.translate("Memory", "What {model} needs on this computer.").format(
                model=name
            )
        )
        budget = self.slider.value() * _STEP
        arguments = [subject, *(["--vram", str(budget)] if budget else [])]
        run = self._context.tasks.run
        run(lambda: _plan(arguments), self.table.setPlainText, self._failed, self)

    def _changed(self) -> None:
        if self._gone:
            return
        budget = self.slider.value() * _STEP
        self.amount.setText(
            format_bytes(budget)
            if budget
            else QCoreApplication.translate("Memory", "what is free now")
        )
        self._wait.start()

    def _failed(self, error: CogVLM2LiteError) -> None:
        self.table.setPlainText(f"{error.message}\n{error.hint}".strip())


def _plan(arguments: list[str]) -> str:
    import io
    from contextlib import redirect_stdout

    from cogvlm2_lite.cli.plan import main

    out = io.StringIO()
    with redirect_stdout(out):
        main(arguments)
    return out.getvalue()
