"""Which budgets of memory are possible on this computer, and the settings' controls for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from cogvlm2_lite.errors import CogVLM2LiteError, UsageError
from cogvlm2_lite.units import GIB, format_bytes, parse_bytes
from gui.context import Context
from gui.controls import DoubleSpinBox, translate_setting
from gui.data.settings import Setting
from gui.translation import fill

_STEP_GIB = 0.25
_MOST_GIB = 4096.0


def read_budget(text: str) -> int:
    """Return the bytes of a budget as the settings keep it; of several GPUs the first. 0: none"""
    try:
        return parse_bytes(text.partition(",")[0]) if text else 0
    except UsageError:
        return 0


@dataclass(frozen=True, kw_only=True)
class Range:
    """The budgets of one kind of memory that can be used, in bytes.

    least  the model needs this much
    most   this computer has this much; 0: it has no such memory
    """

    least: int
    most: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The budgets that can be used on this computer for a model.

    gpus     the names of the GPUs that can be used
    trouble  why a GPU that a user may expect is not used; "" without a reason
    """

    vram: Range
    ram: Range
    gpus: tuple[str, ...] = ()
    trouble: str = ""

    def of(self, kind: str) -> Range:
        """Return the range of a kind of memory: "vram" or "ram"."""
        return self.vram if kind == "vram" else self.ram


class BudgetBox(DoubleSpinBox):
    """An amount of memory in GiB; 0 is all that is free.

    What is between 0 and the least that the model needs can't be chosen, and nothing above what
    the computer has.
    """

    def __init__(self) -> None:
        super().__init__()
        self._least = 0.0
        self.setDecimals(2)
        self.setSuffix(" GiB")
        self.setSingleStep(_STEP_GIB)
        self.setRange(0.0, _MOST_GIB)
        self.setSpecialValueText(QCoreApplication.translate("Settings", "All that is free"))
        self.setKeyboardTracking(False)
        self.lineEdit().setTextMargins(8, 0, 8, 0)  # the stylesheet's padding does not reach it

    def set_limits(self, limits: Range) -> None:
        """Allow these amounts."""
        self._least = -(-limits.least // (GIB * _STEP_GIB)) * _STEP_GIB
        self.setEnabled(limits.most > 0)
        self.setSpecialValueText(
            QCoreApplication.translate("Settings", "All that is free")
            if limits.most
            else QCoreApplication.translate("Settings", "No GPU")
        )
        self.setMaximum(max(limits.most / GIB // _STEP_GIB * _STEP_GIB, self.value()))

    def stepBy(self, steps: int) -> None:  # noqa: N802 - Qt's name
        """Step over the amounts that are too small."""
        value = self.value() + steps * _STEP_GIB
        if 0 < value < self._least:
            value = self._least if steps > 0 else 0.0
        self.setValue(value)

    def allowed(self, value: float) -> float:
        """Return an amount that was typed, or the least if it is too small for the model."""
        return self._least if 0 < value < self._least else value


class BudgetRow(QWidget):
    """A budget of the settings ("vram" or "ram") with its explanation and its limits."""

    def __init__(self, context: Context, setting: Setting) -> None:
        super().__init__()
        self._context, self._kind = context, setting.name
        self._settings = context.settings
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        self.box = BudgetBox()
        self.box.setAccessibleName(translate_setting(setting.label))
        self.box.setAccessibleDescription(translate_setting(setting.help))
        self.box.setMaximumWidth(260)
        column.addWidget(self.box)
        text = QLabel(translate_setting(setting.help))
        text.setProperty("kind", "soft")
        text.setWordWrap(True)
        column.addWidget(text)
        self.limits = QLabel(QCoreApplication.translate("Settings", "Checking this computer…"))
        self.limits.setProperty("kind", "soft")
        self.limits.setWordWrap(True)
        column.addWidget(self.limits)
        self._show()
        self.box.valueChanged.connect(self._chosen)
        changed = self._changed
        context.settings.add_listener(changed)
        self.destroyed.connect(lambda: context.settings.remove_listener(changed))
        self._folder: Path | None = None
        self._known = False
        self._read_limits()
        context.engine.state_changed.connect(self._read_limits)

    def _read_limits(self) -> None:
        """Read the limits of the open model, or of the released one."""
        options = self._context.engine.client.options
        folder = options.folder if options is not None else None
        if folder == self._folder and self._known:
            return
        self._folder, self._known = folder, True
        work = partial(limits_for, folder)
        self._context.tasks.run(work, self._show_limits, self._no_limits, self)

    def _no_limits(self, error: CogVLM2LiteError) -> None:
        """Show no limits: the folder can't be read now."""
        self.limits.clear()

    def _show_limits(self, limits: Limits) -> None:
        mine = limits.of(self._kind)
        blocked = self.box.blockSignals(True)
        self.box.set_limits(mine)
        self.box.blockSignals(blocked)
        if mine.most:
            text = fill(
                QCoreApplication.translate(
                    "Settings", "The model needs at least {least}; this computer has {most}."
                ),
                least=format_bytes(mine.least),
                most=format_bytes(mine.most),
            )
        else:
            text = QCoreApplication.translate(
                "Settings", "This computer has no GPU that can be used."
            )
        self.limits.setText(text)

    def _chosen(self, value: float) -> None:
        allowed = self.box.allowed(value)
        if allowed != value:
            self.box.setValue(allowed)
        else:
            self._settings.set(self._kind, f"{value:g}GiB" if value else "")

    def _changed(self, name: str) -> None:
        if name == self._kind:
            self._show()

    def _show(self) -> None:
        blocked = self.box.blockSignals(True)
        self.box.setValue(read_budget(self._settings.get(self._kind)) / GIB)
        self.box.blockSignals(blocked)


def limits_for(folder: Path | None) -> Limits:
    """Return which budgets can be used on this computer.

    folder  the model's; None: the released model in 4 bits

    Only headers are read. Raises CheckpointError.
    """
    from cogvlm2_lite.devices import choose_gpus
    from cogvlm2_lite.forecast.machine import this_cpu
    from cogvlm2_lite.forecast.preview import least_budget_bytes
    from cogvlm2_lite.forecast.text import RELEASED_WORD, find_subject

    subject = find_subject(str(folder) if folder else RELEASED_WORD, None)
    cpu = this_cpu()
    gpus, trouble = choose_gpus("auto")
    return Limits(
        vram=Range(
            least=least_budget_bytes(subject, itemsize=2, packed=False, in_ram=False),
            most=min((gpu.total_bytes for gpu in gpus), default=0),
        ),
        ram=Range(
            least=least_budget_bytes(subject, itemsize=cpu.itemsize, packed=cpu.packs, in_ram=True),
            most=psutil.virtual_memory().total,
        ),
        gpus=tuple(gpu.name for gpu in gpus),
        trouble=trouble,
    )
