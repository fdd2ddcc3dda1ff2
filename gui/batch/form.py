"""The form above the table: pictures, question, and where the answers are written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QWidget,
)

from cogvlm2_lite.batch.texts import Existing
from cogvlm2_lite.inputs.formats import kind_of
from gui.batch.run import Job
from gui.controls import ComboBox
from gui.data.settings import Preferences
from gui.flow import FlowLayout
from gui.presets import PresetButton, put_question
from gui.translation import fill


@dataclass(frozen=True, kw_only=True)
class FormValues:
    """All values of the form; see Job. existing: None: the user is asked."""

    folder: str
    question: str
    output: str
    recursive: bool
    texts: bool
    table: bool
    only: tuple[str, ...] | None
    existing: Existing | None
    overwrite: bool
    prefix: str
    suffix: str


_MOST_REMEMBERED = 50
"""Folders for which the answer about the user's text files is remembered."""


class JobForm(QWidget):
    """The form. Folders and question are saved as settings, so that a later start can resume."""

    def __init__(self, settings: Preferences) -> None:
        super().__init__()
        self._settings = settings
        self._only: tuple[str, ...] | None = None
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(8)
        grid.setColumnStretch(1, 1)
        self.folder = self._place(
            grid, 0, self.tr("Folder of pictures"), self.tr("Choose the folder of the pictures")
        )
        self.folder.textEdited.connect(lambda _: self._choose_only(None))
        label = QLabel(self.tr("Question"))
        grid.addWidget(label, 1, 0, Qt.AlignmentFlag.AlignTop)
        self.question = QPlainTextEdit()
        self.question.setAccessibleName(self.tr("Question about each picture"))
        self.question.setPlaceholderText(self.tr("Asked about each picture"))
        self.question.setFixedHeight(62)
        self.question.setTabChangesFocus(True)
        label.setBuddy(self.question)
        grid.addWidget(self.question, 1, 1)
        presets = PresetButton(
            settings, partial(put_question, self.question), self.question.toPlainText
        )
        grid.addWidget(presets, 1, 2, Qt.AlignmentFlag.AlignTop)
        self.output = self._place(
            grid, 2, self.tr("Folder for the answers"), self.tr("Choose the folder of the answers")
        )
        self.output.setPlaceholderText(self.tr("same as the folder of pictures"))
        grid.addLayout(self._make_boxes(), 3, 0, 1, 3)
        grid.addLayout(self._make_choices(), 4, 0, 1, 3)
        always = QLabel(
            self.tr(
                "answers.jsonl is always written to this folder; the next start resumes from it."
            )
        )
        always.setProperty("kind", "soft")
        always.setWordWrap(True)
        grid.addLayout(self._make_words(), 5, 0, 1, 3)
        grid.addWidget(always, 6, 0, 1, 3)
        grid.addWidget(self._make_few(), 7, 0, 1, 3)
        self.folder.setText(settings.get("batch_folder"))
        self.question.setPlainText(settings.get("batch_question"))
        self.output.setText(settings.get("batch_output"))
        self.prefix.setText(settings.get("batch_prefix"))
        self.suffix.setText(settings.get("batch_suffix"))

    def job(self) -> Job | None:
        """Return the job, or None while the folder or the question is missing."""
        values = self.values()
        if not values.folder or not values.question:
            return None
        return Job(
            folder=Path(values.folder),
            question=values.question,
            output=Path(values.output) if values.output else None,
            recursive=values.recursive,
            texts=values.texts,
            table=values.table,
            only=values.only,
            existing=values.existing or Existing.KEEP,
            overwrite=values.overwrite,
            prefix=values.prefix,
            suffix=values.suffix,
        )

    def existing_for(self, job: Job) -> Existing | None:
        """Return what to do with the user's text files, or None to ask.

        An answer is remembered for its folder: it must replace no files of another one.
        """
        if self.values().existing is not None or not job.texts:
            return job.existing
        return next((found for found, folder in self._answers() if folder == job.target), None)

    @property
    def last_existing(self) -> Existing:
        """The answer that was given last."""
        return next((existing for existing, _ in self._answers()), Existing.KEEP)

    def remember_existing(self, job: Job) -> None:
        """Remember the answer about the user's text files in a folder."""
        new = f"{job.existing.value}:{job.target}"
        others = [f"{e.value}:{folder}" for e, folder in self._answers() if folder != job.target]
        self._settings.set("batch_existing", [new, *others][:_MOST_REMEMBERED])

    def _answers(self) -> list[tuple[Existing, Path]]:
        known = {existing.value: existing for existing in Existing}
        split = [str(line).partition(":") for line in self._settings.get("batch_existing")]
        return [(known[value], Path(folder)) for value, _, folder in split if value in known]

    def values(self) -> FormValues:
        """Return the values of the form."""
        return FormValues(
            folder=self.folder.text().strip(),
            question=self.question.toPlainText().strip(),
            output=self.output.text().strip(),
            recursive=self.recursive.isChecked(),
            texts=self.texts.isChecked(),
            table=self.csv.isChecked(),
            only=self._only,
            existing=self.existing.currentData(),
            overwrite=self.overwrite.isChecked(),
            prefix=self.prefix.text(),
            suffix=self.suffix.text(),
        )

    def set_values(self, values: FormValues) -> None:
        """Fill the form."""
        self.folder.setText(values.folder)
        self.question.setPlainText(values.question)
        self.output.setText(values.output)
        self.recursive.setChecked(values.recursive)
        self.texts.setChecked(values.texts)
        self.csv.setChecked(values.table)
        self.existing.setCurrentIndex(self.existing.findData(values.existing))
        self.overwrite.setChecked(values.overwrite)
        self.prefix.setText(values.prefix)
        self.suffix.setText(values.suffix)
        self._choose_only(values.only)

    def focus_missing(self) -> None:
        """Focus the folder while it is empty, else the question."""
        (self.question if self.folder.text().strip() else self.folder).setFocus()

    def remember(self) -> None:
        """Save folders and question for the next start of the window."""
        values = self.values()
        self._settings.set("batch_folder", values.folder)
        self._settings.set("batch_question", values.question)
        self._settings.set("batch_output", values.output)
        self._settings.set("batch_prefix", values.prefix)
        self._settings.set("batch_suffix", values.suffix)

    def choose(self, files: Sequence[Path]) -> None:
        """Use chosen pictures instead of a whole folder, or one folder.

        With other files, a folder stands for the pictures in it.
        """
        if len(files) == 1 and files[0].is_dir():
            self.folder.setText(str(files[0]))
            self._choose_only(None)
            return
        files = [picture for file in files for picture in _pictures(file)]
        if not files:
            return
        folder = Path(os.path.commonpath([file.parent for file in files]))
        self.folder.setText(str(folder))
        self._choose_only(tuple(file.relative_to(folder).as_posix() for file in files))

    def ask_for_output(self) -> bool:
        """Let the user choose another folder for the answers. Returns whether one was chosen."""
        before = self.output.text()
        self._ask_for_folder(self.output, self.tr("Choose the folder of the answers"))
        return self.output.text() != before

    def _choose_only(self, names: tuple[str, ...] | None) -> None:
        self._only = names
        self._few.setVisible(names is not None)
        self.recursive.setVisible(names is None)
        if names is not None:
            self.chosen.setText(fill(self.tr("Selected pictures only: {count}"), count=len(names)))

    def _make_boxes(self) -> FlowLayout:
        self.recursive = QCheckBox(self.tr("Include subfolders"))
        self.texts = QCheckBox(self.tr("A .txt file for each picture"))
        self.csv = QCheckBox(self.tr("One CSV table"))
        self.texts.setChecked(True)
        self.csv.setChecked(True)
        row = FlowLayout(spacing=16)
        for box in (self.recursive, self.texts, self.csv):
            row.addWidget(box)
        return row

    def _make_words(self) -> FlowLayout:
        """Return the row with the words around each answer."""
        row = FlowLayout()
        self.prefix, self.suffix = QLineEdit(), QLineEdit()
        for line, text in (
            (self.prefix, self.tr("Text before each answer")),
            (self.suffix, self.tr("Text after it")),
        ):
            label = QLabel(text)
            label.setBuddy(line)
            line.setAccessibleName(text)
            line.setToolTip(self.tr("In the .txt files only, for example a trigger word"))
            self.texts.toggled.connect(line.setEnabled)
            pair = QHBoxLayout()
            pair.addWidget(label)
            pair.addWidget(line, 1)
            row.add_layout(pair)
        return row

    def _make_choices(self) -> FlowLayout:
        """Return the row about what exists already."""
        row, pair = FlowLayout(spacing=16), QHBoxLayout()
        label = QLabel(self.tr("Text files of your own"))
        self.existing = ComboBox()
        self.existing.setAccessibleName(label.text())
        label.setBuddy(self.existing)
        self.existing.setToolTip(
            self.tr(
                "What to do if a picture has a .txt file that this program did not write, or that "
                "was edited since"
            )
        )
        for text, existing in (
            (self.tr("ask if there are any"), None),
            (self.tr("keep"), Existing.KEEP),
            (self.tr("skip the picture"), Existing.SKIP),
            (self.tr("add the answer at the end"), Existing.APPEND),
            (self.tr("add the answer at the start"), Existing.PREPEND),
            (self.tr("replace"), Existing.OVERWRITE),
        ):
            self.existing.addItem(text, existing)
        self.texts.toggled.connect(self.existing.setEnabled)
        self.overwrite = QCheckBox(self.tr("Ask again about answered pictures"))
        pair.addWidget(label)
        pair.addWidget(self.existing)
        row.add_layout(pair)
        row.addWidget(self.overwrite)
        return row

    def _make_few(self) -> QWidget:
        """Return the row that is shown for chosen pictures."""
        self._few = QWidget()
        row = QHBoxLayout(self._few)
        row.setContentsMargins(0, 0, 0, 0)
        self.chosen = QLabel()
        self.chosen.setProperty("kind", "soft")
        row.addWidget(self.chosen, 1)
        whole = QPushButton(self.tr("Use the whole folder"))
        whole.clicked.connect(lambda: self._choose_only(None))
        row.addWidget(whole)
        self._few.hide()
        return self._few

    def _place(self, grid: QGridLayout, row: int, label: str, title: str) -> QLineEdit:
        text = QLabel(label)
        grid.addWidget(text, row, 0)
        line = QLineEdit()
        text.setBuddy(line)
        line.setAccessibleName(label)
        grid.addWidget(line, row, 1)
        button = QPushButton(self.tr("Choose…"))
        button.setAccessibleName(title)
        button.clicked.connect(partial(self._ask_for_folder, line, title))
        grid.addWidget(button, row, 2)
        return line

    def _ask_for_folder(self, line: QLineEdit, title: str) -> None:
        folder = QFileDialog.getExistingDirectory(self, title, line.text())
        if folder:
            line.setText(folder)
            if line is self.folder:
                self._choose_only(None)


def _pictures(path: Path) -> list[Path]:
    """Return the pictures of a folder without its subfolders; a file as it is."""
    if not path.is_dir():
        return [path]
    try:
        return sorted(file for file in path.iterdir() if kind_of(file))
    except OSError:  # the folder may not be read
        return []
