"""The page "Memory": what a model needs on this computer with any budget, and what is used now."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QSignalBlocker, Qt, QTimer
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError, DoesNotFitError
from cogvlm2_lite.events import Progress, Replanned
from cogvlm2_lite.forecast.table import about, rate
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, format_bytes
from cogvlm2_lite.worker.client import Outcome
from gui.budget import Limits, Range, limits_for, read_budget
from gui.context import Context, model_name
from gui.controls import ComboBox, Slider
from gui.flow import FlowLayout
from gui.memory.bars import PlanBars
from gui.memory.meter import MeterBar, describe, read
from gui.memory.numbers import PlanNumbers
from gui.memory.plan import Device, PlanView, plan_for
from gui.pages.frame import page
from gui.part_names import part_name
from gui.translation import error_text, fill, sentences, translate

_STEP = GIB // 4
_MOST = 24 * GIB
"""The slider ends here, so that cards can be planned for which are not in this computer."""
_METER_MS = 500
_LEAST_SLIDER = 160
_FREE = "free"
"""The choice of all memory that is free, instead of a kind and an amount."""


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
        self._limits: tuple[Path | None, Limits] | None = None
        self._unplanned: Path | None = None
        self._first_model: str | None = None
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        widget, column = page(QCoreApplication.translate("Memory", "Memory"))
        outer.addWidget(widget)
        self.model = ComboBox()
        self.model.setAccessibleName(QCoreApplication.translate("Memory", "Model to plan for"))
        self.model.setSizeAdjustPolicy(
            ComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.model.setMinimumContentsLength(24)
        self.model.activated.connect(lambda _: self._changed())
        column.addWidget(self.model)
        self.needs = QLabel()
        self.needs.setWordWrap(True)
        self.needs.setProperty("kind", "heading")
        column.addWidget(self.needs)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        column.addWidget(self.summary)
        column.addLayout(self._make_budget())
        self.reason = QLabel()
        self.reason.setWordWrap(True)
        self.reason.setProperty("kind", "soft")
        column.addWidget(self.reason)
        self.bars = PlanBars()
        column.addWidget(self.bars)
        column.addLayout(self._make_meter())
        self.table = PlanNumbers()
        column.addWidget(self.table)
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(150)
        self._wait.timeout.connect(self.plan)
        self._clock = QTimer(self)
        self._clock.setInterval(_METER_MS)
        self._clock.timeout.connect(self.measure)
        self._show_setting()
        self._changed()
        context.engine.state_changed.connect(self._changed)
        context.engine.outcome.connect(self._on_outcome)

    def _make_budget(self) -> FlowLayout:
        row, pair = FlowLayout(), QHBoxLayout()
        self.kind = ComboBox()
        self.kind.addItem(QCoreApplication.translate("Memory", "Video memory"), "vram")
        self.kind.addItem(QCoreApplication.translate("Memory", "RAM, without a GPU"), "ram")
        self.kind.addItem(QCoreApplication.translate("Memory", "Memory that is free now"), _FREE)
        self.kind.setCurrentIndex(2)
        self.kind.setAccessibleName(
            QCoreApplication.translate("Memory", "Kind of memory to plan for")
        )
        self.kind.currentIndexChanged.connect(lambda _: self._kind_changed())
        row.addWidget(self.kind)
        self.slider = Slider()
        self.slider.setRange(1, _MOST // _STEP)
        self.slider.setMinimumHeight(26)
        self.slider.setAccessibleName(
            QCoreApplication.translate("Memory", "Amount of memory to plan for")
        )
        self.slider.valueChanged.connect(lambda _: self._slid())
        self.slider.setMinimumWidth(_LEAST_SLIDER)
        pair.addWidget(self.slider, 1)
        self.amount = QLabel()
        self.amount.setMinimumWidth(90)
        pair.addWidget(self.amount)
        row.add_layout(pair)
        self.use_button = QPushButton(QCoreApplication.translate("Memory", "Use this budget"))
        self.use_button.clicked.connect(self.use)
        row.addWidget(self.use_button)
        return row

    def _show_setting(self) -> None:
        """Begin with the budget of the settings, if there is one."""
        for index, kind in enumerate(("vram", "ram")):
            nbytes = read_budget(self._context.settings.get(kind))
            if nbytes:
                with QSignalBlocker(self.slider), QSignalBlocker(self.kind):
                    self.kind.setCurrentIndex(index)
                    self.slider.setValue(_steps(nbytes))
                return

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
        kind, size = self.kind.currentData(), self._budget
        work = partial(
            _read,
            self._folder,
            vram=size if kind == "vram" else None,
            ram=size if kind == "ram" else None,
        )
        self._context.tasks.run(work, partial(self._show, self._folder), self._failed, self)

    def use(self) -> None:
        """Load the model with this budget. It is remembered when the model is loaded."""
        if self._folder is not None and self.use_button.isEnabled():
            kind = self.kind.currentData()
            budget = {"vram": "", "ram": ""} if kind == _FREE else {kind: self._budget or ""}
            self._context.open_model(self._folder, budget)

    @property
    def _folder(self) -> Path | None:
        """The chosen model; None: the released one in 4 bits."""
        chosen = self.model.currentData()
        return Path(chosen) if chosen else None

    @property
    def _budget(self) -> str | None:
        """The chosen amount, as the settings keep it; None: what is free."""
        if self.kind.currentData() == _FREE:
            return None
        return f"{self.slider.value() * _STEP / GIB:g}GiB"

    def _fill_models(self) -> None:
        """List the open model, one that did not fit, the released one, and recent ones."""
        client, settings = self._context.engine.client, self._context.settings
        options, failure = client.opening or client.options, client.failure
        folders = [str(options.folder)] if options is not None else []
        if failure is not None and isinstance(failure.error, DoesNotFitError):
            folders.append(str(failure.options.folder))
        released = QCoreApplication.translate("Memory", "CogVLM2 19B in 4 bits")
        items = {folder: model_name(Path(folder)) for folder in folders}
        items[""] = released
        items |= {f: model_name(Path(f)) for f in settings.get("recent_models") if f not in items}
        first = folders[-1] if folders else ""
        shown = {self.model.itemData(i): self.model.itemText(i) for i in range(self.model.count())}
        if shown == items and first == self._first_model:
            return
        chosen = self.model.currentData() if first == self._first_model else first
        self._first_model = first
        self.model.clear()
        for folder, name in items.items():
            self.model.addItem(name, folder)
            self.model.setItemData(self.model.count() - 1, folder, Qt.ItemDataRole.ToolTipRole)
        self.model.setCurrentIndex(max(0, self.model.findData(chosen)))

    def _kind_changed(self) -> None:
        self._bound()
        self._changed()

    def _slid(self) -> None:
        """Plan for the amount of the slider."""
        if self.kind.currentData() == _FREE:
            self.kind.setCurrentIndex(0)
        self._changed()

    def _bound(self) -> None:
        """Let the slider begin at what the model needs at least."""
        kind, known = self.kind.currentData(), self._limits
        if known is None or known[0] != self._folder or kind == _FREE:
            return
        limits = known[1].of(kind)
        with QSignalBlocker(self.slider):
            self.slider.setRange(_steps(limits.least), max(_MOST, limits.most) // _STEP)

    def _changed(self) -> None:
        if self._closed:
            return
        self._fill_models()
        self._show_choice()
        self._wait.start()

    def _show_choice(self) -> None:
        """Show the amount, and whether it can be used, with the reason."""
        self.amount.setText("" if self._budget is None else format_bytes(self._bytes))
        known = self._limits[1] if self._limits and self._limits[0] == self._folder else None
        possible, reason = self._judge(known)
        self.use_button.setEnabled(possible)
        self.use_button.setToolTip(reason)
        self.reason.setText(reason)

    def _judge(self, limits: Limits | None) -> tuple[bool, str]:
        """Return whether the budget can be used, and a sentence about it."""
        client, kind = self._context.engine.client, self.kind.currentData()
        told = [] if limits is None else [_about_gpus(limits)]
        if limits is not None and kind != _FREE:
            told.append(self._about_range(limits.of(kind), kind))
        if self._folder is None:
            told.append(
                QCoreApplication.translate(
                    "Memory",
                    "This model is planned without a download. To use it, open its folder first.",
                )
            )
        elif client.answering or client.lent:
            told.append(
                QCoreApplication.translate("Memory", "The model is working. Wait until it ends.")
            )
        elif kind == "ram" and limits is not None and limits.gpus:
            told.append(
                QCoreApplication.translate(
                    "Memory", "The model runs on the GPU of this computer: choose video memory."
                )
            )
        fits = kind == _FREE or (
            limits is not None and limits.of(kind).least <= self._bytes <= limits.of(kind).most
        )
        free = self._folder is not None and not (client.answering or client.lent)
        here = kind != "ram" or limits is None or not limits.gpus
        planned = self._unplanned is None or self._unplanned != self._folder
        return fits and free and here and planned, sentences(*told)

    @property
    def _bytes(self) -> int:
        return self.slider.value() * _STEP

    def _about_range(self, limits: Range, kind: str) -> str:
        """Return how much the model needs, and how much this computer has."""
        if kind == "vram":
            least = QCoreApplication.translate(
                "Memory", "The model needs at least {least} of video memory."
            )
            most = QCoreApplication.translate(
                "Memory", "The GPU of this computer has {most}, so this plan is for another one."
            )
            none = QCoreApplication.translate("Memory", "This plan is for another computer.")
        else:
            least = QCoreApplication.translate("Memory", "The model needs at least {least} of RAM.")
            most = none = QCoreApplication.translate(
                "Memory", "This computer has {most} of RAM, so this plan is for another one."
            )
        told = fill(least, least=format_bytes(limits.least))
        if self._bytes > limits.most:
            here = fill(most if limits.most else none, most=format_bytes(limits.most))
            told = sentences(told, here)
        return told

    def _show(self, folder: Path | None, read: tuple[Limits, PlanView | CogVLM2LiteError]) -> None:
        if folder != self._folder:
            return
        limits, shown = read
        before = self.slider.value()
        self._limits = (folder, limits)
        self._bound()
        self._show_choice()
        if before != self.slider.value():  # the chosen amount was too small for any plan
            self._wait.start()
        elif isinstance(shown, CogVLM2LiteError):
            self._failed(shown)
        else:
            self._show_plan(shown)

    def _show_plan(self, shown: PlanView) -> None:
        self._set_unplanned(None)
        self.needs.setText(f"{self._name()} {_needs(shown.devices)}")
        self.summary.setText(
            fill(
                QCoreApplication.translate(
                    "Memory",
                    "The first word about a new picture takes about {wait}; then the model "
                    "writes about {rate} tokens per second.",
                ),
                wait=about(shown.first_token_s),
                rate=rate(shown.tokens_per_s),
            )
        )
        self.bars.show_devices(shown.devices)
        self.table.show_plan(shown)
        self.table.show()

    def _name(self) -> str:
        return self.model.currentText()

    def _failed(self, error: CogVLM2LiteError) -> None:
        words = (
            QCoreApplication.translate("Memory", "{model} does not fit in this memory.")
            if isinstance(error, DoesNotFitError)
            else QCoreApplication.translate("Memory", "{model} can't be planned.")
        )
        self._set_unplanned(None if isinstance(error, DoesNotFitError) else self._folder)
        self.needs.setText(fill(words, model=self._name()))
        self.summary.setText(error_text(error))
        self.bars.show_devices(())
        self.table.hide()

    def _set_unplanned(self, folder: Path | None) -> None:
        """Set which model has no plan, because its files can't be used."""
        if folder != self._unplanned:
            self._unplanned = folder
            self._show_choice()

    def _on_outcome(self, number: int, outcome: Outcome) -> None:
        """Show the memory that the engine reports, and new plans."""
        if self._closed:
            return
        if isinstance(outcome, Progress) and outcome.held_bytes:
            self._most_held = max(self._most_held, outcome.held_bytes)
            self.held.setText(
                fill(
                    QCoreApplication.translate(
                        "Memory", "The model's weights and buffers: {now} now, {most} at most."
                    ),
                    now=format_bytes(outcome.held_bytes),
                    most=format_bytes(self._most_held),
                )
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


def _read(
    folder: Path | None, *, vram: str | None, ram: str | None
) -> tuple[Limits, PlanView | CogVLM2LiteError]:
    """Return the limits of a model and its plan, or why there is none."""
    limits = limits_for(folder)
    try:
        return limits, plan_for(folder, vram=vram, ram=ram, translate=_plan_word)
    except DoesNotFitError as error:
        return limits, error


def _steps(nbytes: int) -> int:
    """Return the first position of the slider that is at least so many bytes."""
    return -(-nbytes // _STEP)


def _about_gpus(limits: Limits) -> str:
    """Return which GPUs there are, in words."""
    if limits.gpus:
        return fill(
            QCoreApplication.translate("Memory", "GPU of this computer: {names}."),
            names=", ".join(limits.gpus),
        )
    told = QCoreApplication.translate(
        "Memory",
        "This computer has no GPU that can be used: the model runs on the processor, in RAM.",
    )
    if limits.trouble:
        told += f" ({translate(limits.trouble)})"
    return told


def _needs(devices: tuple[Device, ...]) -> str:
    """Return how much memory is needed, and which parts are read from RAM or disk."""
    clauses = [
        fill(
            QCoreApplication.translate("Memory", "needs {peak} of {budget} of RAM")
            if device.in_ram
            else QCoreApplication.translate("Memory", "needs {peak} of {budget} on {device}"),
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
            clauses.append(fill(words, parts=comma.join(map(part_name, parts))))
    text = QCoreApplication.translate("Memory", "; ").join(clauses)
    return fill(QCoreApplication.translate("Memory", "{clauses}."), clauses=text)
