"""The form of the page "Evaluate": benchmarks, data files, how many questions, and a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QWidget,
)

from cogvlm2_lite.evaluate.benchmarks import BENCHMARKS, DEMO, NAMES
from cogvlm2_lite.evaluate.protocols import PROTOCOLS
from gui.controls import ComboBox, SpinBox
from gui.data.settings import Preferences
from gui.evaluate.run import Job
from gui.flow import FlowLayout
from gui.pages.path_row import add_path_row, ask_for_file, ask_for_folder

_SUFFIXES = (".tsv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class FormValues:
    """All values of the form; see Job."""

    benchmarks: tuple[str, ...]
    data: str
    limit: int
    protocol: str
    against: str
    output: str
    restart: bool = False


class EvaluationForm(QWidget):
    """The form. Its values are saved as settings, so that a later start can resume.

    home  folder of the results, unless another one is chosen
    """

    def __init__(self, settings: Preferences, home: Path) -> None:
        super().__init__()
        self._settings, self._home = settings, home
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(8)
        grid.setColumnStretch(1, 1)
        grid.addWidget(QLabel(self.tr("Benchmarks")), 0, 0, Qt.AlignmentFlag.AlignTop)
        self.boxes = {name: QCheckBox(_title(name)) for name in (DEMO, *NAMES)}
        self.boxes[DEMO].setText(self.tr("Drawn pictures"))
        grid.addLayout(self._make_boxes(), 0, 1, 1, 2)
        self.data = add_path_row(
            grid,
            1,
            self.tr("Data files"),
            self.tr("Choose the data"),
            (self.tr("A data file…"), ask_for_file(self.tr("Benchmark data"), _SUFFIXES)),
            (self.tr("A folder of data files…"), ask_for_folder),
        )
        self.data.setPlaceholderText(self.tr("the usual folders"))
        self.data.textChanged.connect(lambda _: self._show_boxes())
        self.against = add_path_row(
            grid,
            2,
            self.tr("Compare with"),
            self.tr("Choose a second model or an earlier result"),
        )
        self.against.setPlaceholderText(self.tr("no other model"))
        self.output = add_path_row(
            grid,
            3,
            self.tr("Results"),
            self.tr("Choose the folder of the results"),
        )
        self.output.setPlaceholderText(str(home))
        grid.addLayout(self._make_choices(), 4, 0, 1, 3)
        self.set_values(
            FormValues(
                benchmarks=tuple(settings.get("evaluate_benchmarks")),
                data=settings.get("evaluate_data"),
                limit=settings.get("evaluate_limit"),
                protocol="",
                against=settings.get("evaluate_against"),
                output=settings.get("evaluate_output"),
            )
        )

    def job(self) -> Job | None:
        """Return the job, or None while no benchmark is chosen."""
        values = self.values()
        data = Path(values.data) if values.data else None
        file = data is not None and data.is_file()
        if not file and not values.benchmarks:
            return None
        return Job(
            benchmarks=(values.data,) if file else values.benchmarks,
            data=None if file else data,
            limit=values.limit,
            protocol=values.protocol,
            against=Path(values.against) if values.against else None,
            output=Path(values.output) if values.output else self._home,
            restart=values.restart,
        )

    def values(self) -> FormValues:
        """Return the values of the form."""
        return FormValues(
            benchmarks=tuple(name for name, box in self.boxes.items() if box.isChecked()),
            data=self.data.text().strip(),
            limit=self.limit.value(),
            protocol=self.protocol.currentData(),
            against=self.against.text().strip(),
            output=self.output.text().strip(),
            restart=self.restart.isChecked(),
        )

    def set_values(self, values: FormValues) -> None:
        """Fill the form."""
        for name, box in self.boxes.items():
            box.setChecked(name in values.benchmarks)
        self.data.setText(values.data)
        self.limit.setValue(values.limit)
        self.protocol.setCurrentIndex(max(self.protocol.findData(values.protocol), 0))
        self.against.setText(values.against)
        self.output.setText(values.output)
        self.restart.setChecked(values.restart)

    def remember(self) -> None:
        """Save the values for the next start of the window."""
        values, settings = self.values(), self._settings
        settings.set("evaluate_benchmarks", list(values.benchmarks))
        settings.set("evaluate_data", values.data)
        settings.set("evaluate_limit", values.limit)
        settings.set("evaluate_against", values.against)
        settings.set("evaluate_output", values.output)

    def _make_boxes(self) -> FlowLayout:
        boxes = FlowLayout(spacing=20)
        for box in self.boxes.values():
            boxes.addWidget(box)
        return boxes

    def _make_choices(self) -> FlowLayout:
        row = FlowLayout(spacing=24)
        self.limit = SpinBox()
        self.limit.setRange(0, 100_000)
        self.limit.lineEdit().setTextMargins(8, 0, 8, 0)
        self.limit.setSpecialValueText(self.tr("all"))
        self.protocol = ComboBox()
        for name in PROTOCOLS:
            self.protocol.addItem(name, name)
        for text, help_text, control in (
            (
                self.tr("Questions of each"),
                self.tr("A larger number continues an earlier run of a smaller one"),
                self.limit,
            ),
            (
                self.tr("Protocol"),
                self.tr("How the questions are worded; scores of two protocols can't be compared"),
                self.protocol,
            ),
        ):
            label = QLabel(text)
            label.setBuddy(control)
            control.setAccessibleName(text)
            control.setToolTip(help_text)
            pair = QHBoxLayout()
            pair.setSpacing(8)
            pair.addWidget(label)
            pair.addWidget(control)
            row.add_layout(pair)
        self.restart = QCheckBox(self.tr("Ask everything again"))
        self.restart.setToolTip(self.tr("The old answers are kept under another name"))
        row.addWidget(self.restart)
        return row

    def _show_boxes(self) -> None:
        """A data file is a benchmark of its own, so that none has to be chosen."""
        file = Path(self.data.text().strip() or ".").is_file()
        for box in self.boxes.values():
            box.setEnabled(not file)


def _title(name: str) -> str:
    return BENCHMARKS[name].title if name in BENCHMARKS else name
