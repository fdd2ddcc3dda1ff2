"""The page "Convert": runs `cogvlm2-lite quantize` in a child process and shows its events."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QWidget,
)

from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.files import free_name
from cogvlm2_lite.text import join
from cogvlm2_lite.units import format_bytes, format_seconds
from gui.background.json_lines import Command
from gui.context import Context
from gui.controls import ComboBox
from gui.data.report import read_report
from gui.flow import FlowLayout
from gui.pages.frame import page
from gui.pages.quality import QualityCard
from gui.part_names import part_name
from gui.translation import fill, translate


@dataclass(frozen=True, kw_only=True)
class ConvertState:
    """What is moved to the new page when the language changes.

    events  the plan and the last event
    share   value of the progress bar
    """

    command: Command
    source: str
    target: str
    calibrate: int
    status: str
    share: int
    events: dict[str, dict[str, Any]]


def make(context: Context) -> QWidget:
    """Make the page."""
    return ConvertPage(context)


class ConvertPage(QWidget):
    """Two folders, the progress and the report. Finished work is kept; starting again resumes."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._folder = ""
        self._over = False
        self._free: Path | None = None
        self._events: dict[str, dict[str, Any]] = {}
        outer = QHBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        widget, column = page(QCoreApplication.translate("Convert", "Convert a checkpoint"))
        outer.addWidget(widget)
        text = QLabel(
            QCoreApplication.translate(
                "Convert",
                "Converts a downloaded CogVLM2 checkpoint (39 GB) to a 4-bit model (12 GB). "
                "The source is not changed. You can stop at any time and resume later.",
            )
        )
        text.setWordWrap(True)
        column.addWidget(text)
        grid = QGridLayout()
        grid.setVerticalSpacing(10)
        self.source = self._place(
            grid,
            0,
            QCoreApplication.translate("Convert", "Checkpoint folder"),
            QCoreApplication.translate("Convert", "Choose the checkpoint"),
        )
        self.target = self._place(
            grid,
            1,
            QCoreApplication.translate("Convert", "New folder"),
            QCoreApplication.translate("Convert", "Choose the new folder"),
        )
        label = QLabel(QCoreApplication.translate("Convert", "Calibration"))
        grid.addWidget(label, 2, 0)
        self.calibrate = ComboBox()
        self.calibrate.addItem(
            QCoreApplication.translate("Convert", "None: fast, rounds to nearest"), "none"
        )
        self.calibrate.addItem(
            QCoreApplication.translate("Convert", "Built-in pictures: smaller error, takes longer"),
            "built-in",
        )
        self.calibrate.setAccessibleName(QCoreApplication.translate("Convert", "Calibration"))
        label.setBuddy(self.calibrate)
        # As wide as the field above it, and not as its longest line.
        self.calibrate.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.calibrate.setMinimumContentsLength(12)
        grid.addWidget(self.calibrate, 2, 1)
        column.addLayout(grid)
        row = QHBoxLayout()
        self.start_button = QPushButton(QCoreApplication.translate("Convert", "Start"))
        self.start_button.setAccessibleName(QCoreApplication.translate("Convert", "Start"))
        self.start_button.setProperty("kind", "main")
        self.start_button.clicked.connect(self.start)
        self.stop_button = QPushButton(QCoreApplication.translate("Convert", "Pause"))
        self.stop_button.setAccessibleName(QCoreApplication.translate("Convert", "Pause"))
        self.stop_button.clicked.connect(self.pause)
        self.stop_button.setEnabled(False)
        self.open_button = QPushButton(QCoreApplication.translate("Convert", "Open the new model"))
        self.open_button.setAccessibleName(
            QCoreApplication.translate("Convert", "Open the new model")
        )
        self.open_button.hide()
        self.open_button.clicked.connect(self._open)
        for button in (self.start_button, self.stop_button, self.open_button):
            row.addWidget(button)
        row.addStretch(1)
        column.addLayout(row)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setAccessibleName(QCoreApplication.translate("Convert", "Progress"))
        column.addWidget(self.bar)
        self.status = QLabel()
        self.status.setWordWrap(True)
        column.addWidget(self.status)
        choices = FlowLayout()
        self.keep_button = QPushButton()
        self.keep_button.clicked.connect(self._start_in_free_folder)
        self.folder_button = QPushButton(QCoreApplication.translate("Convert", "Other folder…"))
        self.folder_button.clicked.connect(self._start_in_other_folder)
        for button in (self.keep_button, self.folder_button):
            choices.addWidget(button)
        column.addLayout(choices)
        self._offer(None)
        self.quality = QualityCard()
        self.quality.hide()
        column.addWidget(self.quality)
        self.plan = QLabel()
        self.plan.setWordWrap(True)
        self.plan.setProperty("kind", "soft")
        column.addWidget(self.plan)
        self._command = Command(self)
        self._connect_command(self._command)

    @property
    def running(self) -> bool:
        """True while the command runs."""
        return self._command.running

    def start(self) -> None:
        """Start, or resume an earlier run."""
        if self.running:
            return
        if not self.source.text().strip() or not self.target.text().strip():
            self.status.setText(QCoreApplication.translate("Convert", "Choose both folders first."))
            return
        self._offer(None)
        self.open_button.hide()
        self.quality.hide()
        self.plan.show()
        self.start_button.setEnabled(False)
        self.stop_button.setEnabled(True)
        self.status.setText(QCoreApplication.translate("Convert", "Reading the checkpoint…"))
        self._over = False
        self._events = {}
        self._command.start([
            "quantize", self.source.text().strip(), self.target.text().strip(), "--json",
            "--calibrate", self.calibrate.currentData(),
        ])  # fmt: skip

    def pause(self) -> None:
        """Stop. Finished work is kept."""
        if self.running:
            self._command.terminate()
            self.show_event({"event": "paused"})

    def save_state(self) -> ConvertState:
        """Return the running command and what is shown, for a page that replaces this one."""
        command = self._command
        saved = ConvertState(
            command=command,
            source=self.source.text(),
            target=self.target.text(),
            calibrate=self.calibrate.currentIndex(),
            status=self.status.text(),
            share=self.bar.value(),
            events=self._events,
        )
        command.event_received.disconnect(self.show_event)
        command.ended.disconnect(self._ended)
        command.setParent(self._context.engine)
        self._command = Command(self)
        return saved

    def restore_state(self, saved: ConvertState) -> None:
        """Continue with the state of the replaced page, in the language of now."""
        saved.command.setParent(self)
        self._connect_command(saved.command)
        self.source.setText(saved.source)
        self.target.setText(saved.target)
        self.calibrate.setCurrentIndex(saved.calibrate)
        self.status.setText(saved.status)
        self.bar.setValue(saved.share)
        for event in saved.events.values():
            self.show_event(event)
        self.start_button.setEnabled(not self.running)
        self.stop_button.setEnabled(self.running)

    def shut_down(self) -> None:
        """End the command. Finished work is kept."""
        self._command.end()

    def _connect_command(self, command: Command) -> None:
        self._command = command
        command.event_received.connect(self.show_event)
        command.ended.connect(self._ended)

    def show_event(self, event: dict[str, Any]) -> None:
        """Show one event of the command (docs/format.md), or "paused" of this page."""
        kind = event.get("event")
        self._events["plan" if kind == "plan" else "last"] = event
        if kind == "plan":
            self._show_plan(event)
        elif kind == "progress":
            self.bar.setValue(round(1000 * event["share"]))
            self.status.setText(
                fill(
                    QCoreApplication.translate("Convert", "{share:.0%} written, {left} left"),
                    share=event["share"],
                    left=format_seconds(event["seconds_left"]),
                )
            )
        elif kind == "calibration":
            self.bar.setValue(round(1000 * event["done"] / event["total"]))
            self.status.setText(
                fill(
                    QCoreApplication.translate(
                        "Convert",
                        "Calibrated {done} of {total} blocks, {left} left. Error so far: "
                        "{ratio:.2f} of round to nearest.",
                    ),
                    done=event["done"],
                    total=event["total"],
                    left=format_seconds(event["seconds_left"]),
                    ratio=event["error_ratio"],
                )
            )
        elif kind == "measuring":
            self.bar.setValue(round(1000 * event["done"] / event["total"]))
            self.status.setText(
                fill(
                    QCoreApplication.translate(
                        "Convert",
                        "Measured {done} of {total} blocks on held-out samples, {left} left",
                    ),
                    done=event["done"],
                    total=event["total"],
                    left=format_seconds(event["seconds_left"]),
                )
            )
        elif kind == "finished":
            self._over = True
            self.bar.setValue(1000)
            self._folder = event["folder"]
            self.open_button.show()
            self._context.tasks.run(
                partial(read_report, Path(self._folder)),
                self.quality.show_report,
                lambda error: None,  # read_report returns None for a report it can't read
                self,
            )
            self.plan.hide()
            self.status.setText(
                fill(
                    QCoreApplication.translate("Convert", "Finished: {folder}, {size}."),
                    folder=event["folder"],
                    size=format_bytes(event["result_bytes"]),
                )
            )
        elif kind == "paused":
            self._over = True
            self.status.setText(
                QCoreApplication.translate(
                    "Convert", "Paused. Finished work is kept; start again to resume."
                )
            )
        elif kind == "error":
            self._over = True
            self.status.setText(translate(join(event["message"], event["hint"])))
            target = self.target.text().strip()
            if target:
                look = partial(_free_folder, Path(target))
                self._context.tasks.run(look, self._offer, lambda error: None, self)

    def _offer(self, free: Path | None) -> None:
        """Offer another folder if the new one is taken. free: a folder that does not exist."""
        self._free = free
        name = escape_line(free.name) if free is not None else "…"
        text = QCoreApplication.translate("Convert", "Keep it, write to {folder}")
        self.keep_button.setText(fill(text, folder=name))
        for button in (self.keep_button, self.folder_button):
            button.setVisible(free is not None)

    def _start_in_free_folder(self) -> None:
        if self._free is not None:
            self.target.setText(str(self._free))
            self.start()

    def _start_in_other_folder(self) -> None:
        title = QCoreApplication.translate("Convert", "Choose the new folder")
        folder = QFileDialog.getExistingDirectory(self, title, self.target.text().strip())
        if folder:
            self.target.setText(folder)
            self.start()

    def _show_plan(self, event: dict[str, Any]) -> None:
        lines = [
            f"{part_name(row['part'])}: {format_bytes(row['source_bytes'])} → "
            f"{format_bytes(row['result_bytes'])}"
            for row in event["parts"]
        ]
        room = fill(
            QCoreApplication.translate(
                "Convert", "{size} will be written; {free} is free on that disk."
            ),
            size=format_bytes(event["result_bytes"]),
            free=format_bytes(event["free_bytes"]),
        )
        self.plan.setText("\n".join([*lines, room]))

    def _ended(self) -> None:
        if not self._over:
            self._events.pop("last", None)
            self.status.setText(
                self._command.reason
                or QCoreApplication.translate(
                    "Convert", "The command ended without giving a reason."
                )
            )
        self.start_button.setEnabled(True)
        self.stop_button.setEnabled(False)
        self.start_button.setText(QCoreApplication.translate("Convert", "Start or resume"))

    def _open(self) -> None:
        self._context.open_model(Path(self._folder))
        self._context.show_page("chat")

    def _place(self, grid: QGridLayout, row: int, label: str, title: str) -> QLineEdit:
        text = QLabel(label)
        grid.addWidget(text, row, 0)
        line = QLineEdit()
        text.setBuddy(line)
        line.setAccessibleName(label)
        grid.addWidget(line, row, 1)
        button = QPushButton(QCoreApplication.translate("Convert", "Choose…"))
        button.setAccessibleName(title)

        def choose() -> None:
            folder = QFileDialog.getExistingDirectory(self, title)
            if folder:
                line.setText(folder)

        button.clicked.connect(choose)
        grid.addWidget(button, row, 2)
        return line


def _free_folder(taken: Path) -> Path | None:
    """Return a folder next to one that has files; None if it has none."""
    try:
        with os.scandir(taken) as entries:
            return free_name(taken) if any(entries) else None
    except NotADirectoryError:
        return free_name(taken)
    except OSError:  # it does not exist, or may not be read
        return None
