"""What the pages Batch and Evaluate share: a command that asks many questions.

Such a command saves every answer at once. It can be paused with the model in memory, and starting
it again asks only what is left.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from PySide6.QtWidgets import QLabel, QLayout, QProgressBar, QVBoxLayout, QWidget

from cogvlm2_lite.units import format_seconds
from gui.data.run_state import RunState
from gui.pages.command_page import CommandPage, push
from gui.pages.frame import plain_label
from gui.translation import fill, sentences, translate


class Run(Protocol):
    """A run that a page shows; the page changes only its state.

    total, done, failed  questions or pictures
    seconds_left         None while it is unknown
    error                why the run failed, a message
    """

    state: RunState

    @property
    def total(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def seconds_left(self) -> float | None: ...
    @property
    def error(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


R = TypeVar("R", bound=Run)


class AskingPage(CommandPage, Generic[R]):
    """Buttons, progress and the sentence about a run.

    Subclasses implement `start`, `_shown_run` and the texts of their state below.
    """

    form: QWidget

    _ENDED_BY_SIGNAL = (RunState.READING, RunState.LOADING, RunState.SCORING)
    """States in which the command does not read its input, so that it can't be told to stop."""

    # --- layout ----------------------------------------------------------------------------------

    def _add_buttons(self, row: QLayout) -> None:
        self.start_button = push(row, self.start)
        self.start_button.setProperty("kind", "main")
        self.pause_button = push(row, self.pause_or_resume)
        self.cancel_button = push(row, self.cancel)
        self.cancel_button.setText(self.tr("Cancel"))

    def _add_progress(self, column: QVBoxLayout, at_first: str) -> None:
        """Add the bar and the texts below it. at_first: what is shown before a run"""
        self.bar = QProgressBar()
        self.bar.setAccessibleName(self.tr("Progress"))
        self.bar.setRange(0, 1)
        self.status: QLabel = plain_label(at_first)
        self.notes: QLabel = plain_label("", "soft")
        for widget in (self.bar, self.status, self.notes):
            column.addWidget(widget)

    # --- the command -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or resume an earlier run."""
        raise NotImplementedError

    def pause_or_resume(self) -> None:
        """Pause after what is in progress, with the model in memory; or resume."""
        run = self._shown_run()
        if run is None:
            return
        if run.state in (RunState.PAUSED, RunState.PAUSING):
            self.command.send_line("resume")
            run.state = RunState.ASKING
        elif run.state is RunState.ASKING:
            self.command.send_line("pause")
            run.state = RunState.PAUSING
        self._show()

    def cancel(self) -> None:
        """Stop within one token. Finished answers are kept."""
        run = self._shown_run()
        if run is None or not self.running:
            return
        if run.state in self._ENDED_BY_SIGNAL:
            self.command.terminate()
        else:
            self.command.send_line("stop")
        run.state = RunState.STOPPING
        self._show()

    # --- display ---------------------------------------------------------------------------------

    def _shown_run(self) -> R | None:
        """Return the run that is shown; None before the first one."""
        raise NotImplementedError

    def _show(self) -> None:
        run = self._shown_run()
        self._show_buttons()
        if run is not None:
            self.bar.setRange(0, max(run.total, 1))
            self.bar.setValue(run.done)
            self.status.setText(self._sentence(run))
            self.notes.setText(sentences(*map(translate, run.notes)))
        self.notes.setVisible(bool(self.notes.text()))

    def _show_buttons(self) -> None:
        run, running = self._shown_run(), self.running
        state = run.state if run is not None else RunState.IDLE
        again = run is not None and state is not RunState.FINISHED
        held = state in (RunState.PAUSED, RunState.PAUSING)
        self.start_button.setText(self.tr("Resume") if again else self.tr("Start"))
        self.start_button.setEnabled(not running)
        self.start_button.setVisible(not (running and held))
        self.pause_button.setText(self.tr("Resume") if held else self.tr("Pause"))
        self.pause_button.setEnabled(running and (held or state is RunState.ASKING))
        self.cancel_button.setEnabled(running and state is not RunState.STOPPING)
        self.form.setEnabled(not running)

    def _sentence(self, run: R) -> str:
        match run.state:
            case RunState.READING:
                return self._reading()
            case RunState.LOADING:
                return self.tr("Loading the model…")
            case RunState.PAUSING:
                return sentences(self._counts(run), self._pausing())
            case RunState.PAUSED:
                return sentences(self._counts(run), self.tr("Paused; the model stays in memory."))
            case RunState.SCORING:
                return sentences(self._counts(run), self.tr("Scoring…"))
            case RunState.STOPPING:
                return self.tr("Stopping…")
            case RunState.FAILED:
                return translate(run.error)
            case RunState.FINISHED | RunState.STOPPED:
                return sentences(self._counts(run), self._where(run))
            case _:
                left = ""
                if run.seconds_left is not None:
                    left = fill(self.tr("{time} left."), time=format_seconds(run.seconds_left))
                return sentences(self._counts(run), left)

    def _counts(self, run: R) -> str:
        """Return the sentence with the numbers of the run."""
        return fill(self.tr("{counts}."), counts=self.tr(", ").join(self._clauses(run)))

    def _reading(self) -> str:
        """Return the text for READING."""
        raise NotImplementedError

    def _pausing(self) -> str:
        """Return the sentence for PAUSING."""
        raise NotImplementedError

    def _where(self, run: R) -> str:
        """Return the sentence that names the results of a run that is over; "" for none."""
        return ""

    def _clauses(self, run: R) -> list[str]:
        """Return the numbers of the run, such as "3 of 5 pictures"."""
        raise NotImplementedError
