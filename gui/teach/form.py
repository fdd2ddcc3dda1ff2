"""The form of the page "Teach": pictures with answers, the adapter's folder, and what is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QCoreApplication, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QWidget,
)

from cogvlm2_lite.file_names import cut_name
from gui.controls import ComboBox, SpinBox
from gui.data.settings import Preferences
from gui.flow import FlowLayout
from gui.pages.frame import plain_label
from gui.pages.path_row import add_path_row, ask_for_file, ask_for_folder
from gui.teach.run import DATA_SUFFIXES, Job
from gui.translatable import QT_TRANSLATE_NOOP

_LONGEST_NAME = 100


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What a person wants to teach, and the preset that suits it."""

    name: str
    preset: str
    label: str
    help: str


AIMS = (
    Aim(
        name="captions",
        preset="words",
        label=QT_TRANSLATE_NOOP("Teach", "A style of captions or answers"),
        help=QT_TRANSLATE_NOOP(
            "Teach",
            "Trains how the model writes, and keeps what it sees in a picture. The fastest choice.",
        ),
    ),
    Aim(
        name="forms",
        preset="words",
        label=QT_TRANSLATE_NOOP("Teach", "Forms and documents"),
        help=QT_TRANSLATE_NOOP(
            "Teach",
            "Trains which fields the model reads and how it writes them. Several questions about "
            "a picture cost little more than one.",
        ),
    ),
    Aim(
        name="thing",
        preset="both",
        label=QT_TRANSLATE_NOOP("Teach", "A new kind of object"),
        help=QT_TRANSLATE_NOOP(
            "Teach",
            "Trains also how the model understands a picture. Every picture then takes several "
            "times as long.",
        ),
    ),
    Aim(
        name="unseen",
        preset="tower",
        label=QT_TRANSLATE_NOOP("Teach", "An object that it still does not see"),
        help=QT_TRANSLATE_NOOP(
            "Teach",
            "Trains also how the model reads the pixels. The slowest choice; try “A new kind of "
            "object” first.",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class FormValues:
    """All values of the form; see Job. aim: a name in AIMS"""

    data: str
    output: str
    aim: str
    epochs: int
    replay: str
    share: int
    question: str
    labels: str
    skips: bool = False
    restart: bool = False


class TeachForm(QWidget):
    """The form. Its values are saved as settings, so that a later start can continue.

    home  folder of the adapters, unless another one is chosen

    changed  the data or the folder of the adapter
    """

    changed = Signal()

    def __init__(self, settings: Preferences, home: Path) -> None:
        super().__init__()
        self._settings, self._home = settings, home
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(8)
        grid.setColumnStretch(1, 1)
        choices = (
            (self.tr("A folder…"), ask_for_folder),
            (self.tr("A file…"), ask_for_file(self.tr("Pictures with answers"), DATA_SUFFIXES)),
        )
        self.data = add_path_row(
            grid,
            0,
            self.tr("Training data"),
            self.tr("Choose the pictures with answers"),
            *choices,
        )
        self.data.setPlaceholderText(
            self.tr("a folder of pictures with captions, or a JSONL, JSON, CSV or TSV file")
        )
        self.output = add_path_row(
            grid, 1, self.tr("Adapter"), self.tr("Choose the folder of the adapter")
        )
        self._make_aims(grid, 2)
        self.replay = add_path_row(
            grid,
            4,
            self.tr("Old questions"),
            self.tr("Choose old questions to mix in"),
            *choices,
        )
        self.replay.setPlaceholderText(self.tr("none"))
        self.replay.setToolTip(
            self.tr(
                "Pictures with answers that the model gives already. Mixed in, they keep it from "
                "forgetting what it can do."
            )
        )
        self._make_question(grid, 5)
        grid.addLayout(self._make_choices(), 6, 0, 1, 3)
        self.set_values(
            FormValues(
                data=settings.get("teach_data"),
                output=settings.get("teach_output"),
                aim=settings.get("teach_aim"),
                epochs=settings.get("teach_epochs"),
                replay=settings.get("teach_replay"),
                share=settings.get("teach_share"),
                question=settings.get("teach_question"),
                labels=settings.get("teach_labels"),
            )
        )
        for line in (self.data, self.output):
            line.textChanged.connect(self._path_changed)
        self._path_changed()

    @property
    def target(self) -> Path:
        """The folder of the adapter, chosen or made from the name of the data."""
        values = self.values()
        if values.output:
            return Path(values.output)
        data = Path(values.data)
        # Many data sets have a train.jsonl: the name of its folder tells them apart.
        name = f"{data.parent.name}-{data.stem}" if data.suffix else data.name
        return self._home / (cut_name(name.strip("-."), _LONGEST_NAME) or "adapter")

    def job(self) -> Job | None:
        """Return the job, or None while no data are chosen."""
        values = self.values()
        if not values.data:
            return None
        return Job(
            data=Path(values.data),
            output=self.target,
            preset=next(aim.preset for aim in AIMS if aim.name == values.aim),
            epochs=values.epochs,
            replay=Path(values.replay) if values.replay else None,
            share=values.share,
            question=values.question,
            labels=values.labels,
            skips=values.skips,
            restart=values.restart,
        )

    def values(self) -> FormValues:
        """Return the values of the form."""
        return FormValues(
            data=self.data.text().strip(),
            output=self.output.text().strip(),
            aim=self.aim.currentData(),
            epochs=self.epochs.value(),
            replay=self.replay.text().strip(),
            share=self.share.value(),
            question=self.question.text().strip(),
            labels=self.labels.currentData(),
            skips=self.skips.isChecked(),
            restart=self.restart.isChecked(),
        )

    def set_values(self, values: FormValues) -> None:
        """Fill the form."""
        self.data.setText(values.data)
        self.output.setText(values.output)
        self.aim.setCurrentIndex(max(self.aim.findData(values.aim), 0))
        self.epochs.setValue(values.epochs)
        self.replay.setText(values.replay)
        self.share.setValue(values.share)
        self.question.setText(values.question)
        self.labels.setCurrentIndex(max(self.labels.findData(values.labels), 0))
        self.skips.setChecked(values.skips)
        self.restart.setChecked(values.restart)

    def remember(self) -> None:
        """Save the values for the next start of the window."""
        values, settings = self.values(), self._settings
        for name in ("data", "output", "aim", "epochs", "replay", "share", "question", "labels"):
            settings.set(f"teach_{name}", getattr(values, name))

    def _make_aims(self, grid: QGridLayout, row: int) -> None:
        label = QLabel(self.tr("What to teach"))
        grid.addWidget(label, row, 0)
        self.aim = ComboBox()
        self.aim.setAccessibleName(label.text())
        label.setBuddy(self.aim)
        for aim in AIMS:
            self.aim.addItem(QCoreApplication.translate("Teach", aim.label), aim.name)
        grid.addWidget(self.aim, row, 1)
        self.about = plain_label(kind="soft")
        grid.addWidget(self.about, row + 1, 1, 1, 2)
        self.aim.currentIndexChanged.connect(lambda _: self._show_about())
        self._show_about()

    def _make_question(self, grid: QGridLayout, row: int) -> None:
        label = QLabel(self.tr("Question"))
        grid.addWidget(label, row, 0)
        self.question = QLineEdit()
        self.question.setAccessibleName(self.tr("Question for captions"))
        self.question.setPlaceholderText(
            self.tr("only for captions: Describe this image in detail.")
        )
        label.setBuddy(self.question)
        grid.addWidget(self.question, row, 1, 1, 2)

    def _make_choices(self) -> FlowLayout:
        row = FlowLayout(spacing=24)
        self.epochs, self.share, self.labels = SpinBox(), SpinBox(), ComboBox()
        self.epochs.setRange(0, 1000)
        self.epochs.setSpecialValueText(self.tr("automatic"))
        self.share.setRange(1, 100)
        self.share.setSuffix(" %")
        for number in (self.epochs, self.share):
            number.lineEdit().setTextMargins(8, 0, 8, 0)
        for text, labels in (
            (self.tr("as found"), ""),
            (self.tr("English"), "en"),
            (self.tr("Chinese"), "zh"),
            (self.tr("both"), "both"),
        ):
            self.labels.addItem(text, labels)
        for text, help_text, control in (
            (
                self.tr("Passes over the pictures"),
                self.tr("Automatic: three, and more for few pictures. The best state is kept."),
                self.epochs,
            ),
            (
                self.tr("Share of the old questions"),
                self.tr("So many of their pictures are mixed in"),
                self.share,
            ),
            (
                self.tr("Labels"),
                self.tr("For a folder of CogVLM-SFT, which has labels in two languages"),
                self.labels,
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
        self.skips = QCheckBox(self.tr("Train even if many rows can't be used"))
        self.restart = QCheckBox(self.tr("Start again from the beginning"))
        self.restart.setToolTip(self.tr("The state of the earlier run in this folder is deleted"))
        for box in (self.skips, self.restart):
            row.addWidget(box)
        return row

    def _show_about(self) -> None:
        aim = next(aim for aim in AIMS if aim.name == self.aim.currentData())
        self.about.setText(QCoreApplication.translate("Teach", aim.help))

    def _path_changed(self) -> None:
        data = self.data.text().strip()
        self.output.setPlaceholderText(str(self.target if data else self._home))
        self.changed.emit()
