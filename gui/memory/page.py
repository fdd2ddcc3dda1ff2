"""The page "Memory": what a model needs on this computer with any budget, and what is used now."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QCoreApplication, QTimer
from PySide6.QtGui import QFontDatabase, QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import Progress, Replanned
from cogvlm2_lite.forecast.table import about, rate
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, format_bytes
from cogvlm2_lite.worker.client import Outcome
from gui import theme
from gui.context import Context, model_name
from gui.controls import ComboBox, Slider
from gui.memory.bars import PlanBars
from gui.memory.meter import MeterBar, describe, read
from gui.memory.plan import Device, PlanView, plan_for
from gui.pages.frame import page
from gui.part_names import part_name
from gui.translation import error_text, translate

_STEP = GIB // 4
_MOST = 24 * GIB
_METER_MS = 500


def make(context: Context) -> QWidget:
    """Make the page."""
    return MemoryPage(context)


class MemoryPage(QWidget):
    """The plan as bars and as text, and a RAM meter.

    Planning is arithmetic on sizes: no weight is read, and torch is not loaded.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._closed = False
        self._most_held = 0
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        widget, column = page(QCoreApplication.translate("Memory", "Memory"))
        outer.addWidget(widget)
        self.needs = QLabel()
        self.needs.setWordWrap(True)
        self.needs.setProperty("kind", "heading")
        column.addWidget(self.needs)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        column.addWidget(self.summary)
        column.addLayout(self._make_budget())
        self.bars = PlanBars()
        column.addWidget(self.bars)
        column.addLayout(self._make_meter())
        self.table = QPlainTextEdit()
        self.table.setReadOnly(True)
        self.table.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.table.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.table.setMinimumHeight(320)
        self.table.setTabChangesFocus(True)
        self.table.setAccessibleName(QCoreApplication.translate("Memory", "The plan in numbers"))
        column.addWidget(self.table)
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(150)
        self._wait.timeout.connect(self.plan)
        self._clock = QTimer(self)
        self._clock.setInterval(_METER_MS)
        self._clock.timeout.connect(self.measure)
        self._changed()
        context.engine.state_changed.connect(self._changed)
        context.engine.outcome.connect(self._on_outcome)

    def _make_budget(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.kind = ComboBox()
        self.kind.addItem(QCoreApplication.translate("Memory", "Video memory"), "vram")
        self.kind.addItem(QCoreApplication.translate("Memory", "RAM, without a GPU"), "ram")
        self.kind.setAccessibleName(
            QCoreApplication.translate("Memory", "Kind of memory to plan for")
        )
        self.kind.currentIndexChanged.connect(lambda _: self._changed())
        row.addWidget(self.kind)
        self.slider = Slider()
        self.slider.setRange(0, _MOST // _STEP)
        self.slider.setMinimumHeight(26)
        self.slider.setAccessibleName(
            QCoreApplication.translate("Memory", "Amount of memory to plan for")
        )
        self.slider.valueChanged.connect(lambda _: self._changed())
        row.addWidget(self.slider, 1)
        self.amount = QLabel()
        self.amount.setMinimumWidth(130)
        self.amount.setWordWrap(True)
        row.addWidget(self.amount)
        self.use_button = QPushButton(QCoreApplication.translate("Memory", "Use this budget"))
        self.use_button.setToolTip(
            QCoreApplication.translate("Memory", "Reload the model with this budget")
        )
        self.use_button.clicked.connect(self.use)
        row.addWidget(self.use_button)
        return row

    def _make_meter(self) -> QVBoxLayout:
        column = QVBoxLayout()
        column.setSpacing(4)
        self.meter = MeterBar()
        column.addWidget(self.meter)
        self.now = QLabel()
        self.now.setProperty("kind", "soft")
        self.now.setWordWrap(True)
        column.addWidget(self.now)
        self.held = QLabel()
        self.held.setProperty("kind", "soft")
        self.held.setWordWrap(True)
        self.held.hide()
        column.addWidget(self.held)
        return column

    def shut_down(self) -> None:
        """Stop planning and measuring."""
        self._closed = True
        self._wait.stop()
        self._clock.stop()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Start measuring."""
        super().showEvent(event)
        if not self._closed:
            self.measure()
            self._clock.start()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Stop measuring."""
        super().hideEvent(event)
        self._clock.stop()

    def measure(self) -> None:
        """Update the meter."""
        reading = read(self._context.engine.client.pid)
        self.meter.show_reading(reading)
        self.now.setText(describe(reading))

    def plan(self) -> None:
        """Plan again, on a thread."""
        options = self._context.engine.client.options
        size = str(self.slider.value() * _STEP) if self.slider.value() else None
        on_gpu = self.kind.currentData() == "vram"
        settings = self._context.settings
        vram = size if on_gpu else None
        ram = None if on_gpu else size
        if size is None:  # no budget on the slider: use the settings
            vram, ram = settings.get("vram") or None, None
        folder = options.folder if options else None
        work = partial(plan_for, folder, vram=vram, ram=ram, translate=_plan_word)
        self._context.tasks.run(work, self._show, self._failed, self)

    def use(self) -> None:
        """Reload the model with the budget of the slider."""
        client = self._context.engine.client
        if client.options is None:
            return
        budget = self.slider.value() * _STEP
        amount = f"{budget / GIB:g}GiB" if budget else ""
        self._context.settings.set(str(self.kind.currentData()), amount)
        self._context.open_model(client.options.folder)

    def _changed(self) -> None:
        if self._closed:
            return
        client, budget = self._context.engine.client, self.slider.value() * _STEP
        self.amount.setText(
            format_bytes(budget)
            if budget
            else QCoreApplication.translate("Memory", "memory that is free now")
        )
        self.use_button.setEnabled(client.options is not None and not client.answering)
        self._wait.start()

    def _show(self, shown: PlanView) -> None:
        self.needs.setText(f"{self._name()} {_needs(shown.devices)}")
        self.summary.setText(
            QCoreApplication.translate(
                "Memory",
                "The first word about a new picture takes about {wait}; then the model "
                "writes about {rate} tokens per second.",
            ).format(wait=about(shown.first_token_s), rate=rate(shown.tokens_per_s))
        )
        self.bars.show_devices(shown.devices)
        self.table.setPlainText(shown.text)
        self.table.setFont(theme.fixed_font(shown.text))
        self.table.show()

    def _name(self) -> str:
        options = self._context.engine.client.options
        if options is None:
            return QCoreApplication.translate("Memory", "CogVLM2 19B in 4 bits")
        return model_name(options.folder)

    def _failed(self, error: CogVLM2LiteError) -> None:
        self.needs.setText(
            QCoreApplication.translate("Memory", "{model} does not fit in this memory.").format(
                model=self._name()
            )
        )
        self.summary.setText(error_text(error))
        self.bars.show_devices(())
        self.table.hide()

    def _on_outcome(self, number: int, outcome: Outcome) -> None:
        """Show the memory that the engine reports, and new plans."""
        if self._closed:
            return
        if isinstance(outcome, Progress) and outcome.held_bytes:
            self._most_held = max(self._most_held, outcome.held_bytes)
            self.held.setText(
                QCoreApplication.translate(
                    "Memory", "The model's weights and buffers: {now} now, {most} at most."
                ).format(now=format_bytes(outcome.held_bytes), most=format_bytes(self._most_held))
            )
            self.held.show()
        elif isinstance(outcome, Replanned):
            self.held.setText(translate(outcome.text))
            self.held.show()


def _plan_word(text: str) -> str:
    """Return a text of a plan in the window's language; parts have the names of the bars."""
    if isinstance(text, Text):
        return translate(text)
    name = part_name(text)
    return name if name != text else QCoreApplication.translate("Memory", text)


def _needs(devices: tuple[Device, ...]) -> str:
    """Return how much memory is needed, and which parts are read from RAM or disk."""
    clauses = [
        (
            QCoreApplication.translate("Memory", "needs {peak} of {budget} of RAM")
            if device.in_ram
            else QCoreApplication.translate("Memory", "needs {peak} of {budget} on {device}")
        ).format(
            peak=format_bytes(device.peak_bytes),
            budget=format_bytes(device.budget_bytes),
            device=device.name,
        )
        for device in devices
    ]
    comma = QCoreApplication.translate("Memory", ", ")
    for where, words in (
        ("from_ram", QCoreApplication.translate("Memory", "{parts} will be read from RAM")),
        ("from_disk", QCoreApplication.translate("Memory", "{parts} will be read from disk")),
    ):
        parts = dict.fromkeys(part for device in devices for part in device.parts_from(where))
        if parts:
            clauses.append(words.format(parts=comma.join(map(part_name, parts))))
    text = QCoreApplication.translate("Memory", "; ").join(clauses)
    return QCoreApplication.translate("Memory", "{clauses}.").format(clauses=text)
