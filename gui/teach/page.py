"""The page "Teach": `cogvlm2-lite finetune` in a child process: its plan, losses and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QProgressBar,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.units import format_bytes, format_seconds
from gui.background.json_lines import Command
from gui.context import Context
from gui.flow import FlowLayout
from gui.pages.command_page import CommandPage, is_running, push, why_not_now
from gui.pages.frame import page, plain_label
from gui.teach.curve import LossCurve
from gui.teach.form import FormValues, TeachForm
from gui.teach.run import (
    Earlier,
    Plan,
    RunState,
    Sample,
    TeachRun,
    arguments,
    has_state,
    read_earlier,
)
from gui.translation import fill, sentences, translate

_FINISH_MS = 3000
"""A step has this long to be finished when the window closes, which is hidden already."""


@dataclass(frozen=True, kw_only=True)
class TeachState:
    """What is moved to the new page when the language changes."""

    run: TeachRun | None
    planning: bool
    command: Command
    form: FormValues


def make(context: Context) -> QWidget:
    """Make the page."""
    return TeachPage(context)


class TeachPage(CommandPage):
    """The form, the plan, the progress, the losses, and answers before and after.

    The command saves its state again and again; starting again continues.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._run: TeachRun | None = None
        self._planning = False
        self._can_continue = False
        outer = QHBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        widget, column = page(self.tr("Teach the model"))
        outer.addWidget(widget)
        column.addWidget(
            plain_label(
                self.tr(
                    "Trains an adapter from pictures with answers: a small folder that changes "
                    "what the open model answers. The model itself stays as it is. A new skill "
                    "needs some hundred pictures."
                )
            )
        )
        self.form = TeachForm(context.settings, context.data / "adapters")
        self.form.changed.connect(self._look_for_state)
        column.addWidget(self.form)
        column.addLayout(self._make_buttons())
        self.bar = QProgressBar()
        self.bar.setAccessibleName(self.tr("Progress"))
        self.bar.setRange(0, 1)
        column.addWidget(self.bar)
        self.status = plain_label(
            self.tr("You can stop at any time; starting again continues after the last saved step.")
        )
        column.addWidget(self.status)
        self.plan = plain_label(kind="soft")
        self.notes = plain_label(kind="soft")
        column.addWidget(self.plan)
        column.addWidget(self.notes)
        self.card = self._make_card()
        column.addWidget(self.card)
        self._look_for_state()
        self._show()

    def _make_buttons(self) -> FlowLayout:
        row = FlowLayout()
        self.start_button = push(row, self.start)
        self.start_button.setProperty("kind", "main")
        self.plan_button = push(row, self.show_plan)
        self.plan_button.setText(self.tr("Show the plan"))
        self.plan_button.setToolTip(self.tr("Reads the data and trains nothing"))
        self.stop_button = push(row, self.stop)
        self.stop_button.setText(self.tr("Stop"))
        self.stop_button.setToolTip(self.tr("Ends after the step, and saves"))
        row.add_stretch()
        self.use_button = push(row, self._use)
        self.use_button.setText(self.tr("Use it"))
        self.use_button.setToolTip(self.tr("The next answers in the chat use the new adapter"))
        self.report_button = push(row, self._open_report)
        self.report_button.setText(self.tr("Open the report"))
        self.folder_button = push(row, self._open_folder)
        self.folder_button.setText(self.tr("Open the folder"))
        return row

    def _make_card(self) -> QFrame:
        card = QFrame()
        card.setProperty("kind", "card")
        column = QVBoxLayout(card)
        column.setContentsMargins(18, 12, 18, 12)
        column.setSpacing(8)
        column.addWidget(plain_label(self.tr("Loss (lower is better)"), "heading"))
        self.curve = LossCurve()
        column.addWidget(self.curve)
        self.samples = self._make_table()
        column.addWidget(self.samples)
        return card

    def _make_table(self) -> QTableWidget:
        titles = (self.tr("Question"), self.tr("In the data"), self.tr("Before"), self.tr("After"))
        table = QTableWidget(0, len(titles))
        table.setHorizontalHeaderLabels(titles)
        table.setAccessibleName(self.tr("Held-out questions, which are not learnt"))
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setTabKeyNavigation(False)
        table.setWordWrap(True)
        table.setShowGrid(False)
        table.setAlternatingRowColors(True)
        table.setProperty("kind", "clear")
        table.verticalHeader().hide()
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeading)
        table.horizontalHeader().sectionResized.connect(lambda *_: self._fit_table())
        table.hide()
        return table

    # --- the command -----------------------------------------------------------------------------

    def receive(self, files: Sequence[Path]) -> None:
        """Use a folder or a file of pictures with answers that was dropped on the window."""
        if self.running:
            self.status.setText(is_running())
        elif files:
            self.form.data.setText(str(files[0]))

    def start(self) -> None:
        """Start, or continue an earlier run."""
        self._begin(planning=False)

    def show_plan(self) -> None:
        """Read the data and show what would be done."""
        self._begin(planning=True)

    def stop(self) -> None:
        """Stop after the step. The state is saved, so that a later start continues."""
        run = self._run
        if run is None or not self.running:
            return
        if run.plan is not None and not self._planning:
            self.command.send_line("stop")
        else:
            self.command.terminate()  # nothing was trained
        run.state = RunState.STOPPING
        self._show()

    def shut_down(self) -> None:
        """End the command. A short step is finished and saved; a longer one is repeated later."""
        self.command.end(finish_ms=_FINISH_MS)

    def save_state(self) -> TeachState:
        """Return the running command and the form for a page that replaces this one."""
        saved = TeachState(
            run=self._run,
            planning=self._planning,
            command=self._hand_over(),
            form=self.form.values(),
        )
        self._run = None
        return saved

    def restore_state(self, saved: TeachState) -> None:
        """Continue with the state of the replaced page."""
        self._run, self._planning = saved.run, saved.planning
        self._take_over(saved.command)
        self.form.set_values(saved.form)
        self._show()

    def _begin(self, *, planning: bool) -> None:
        client, job = self._context.engine.client, self.form.job()
        if self.running:
            return
        problem = why_not_now(client)
        if job is None:
            problem = self.tr("Choose pictures with answers first.")
        if job is None or client.options is None or problem:
            self.status.setText(problem)
            return
        self.form.remember()
        if not planning:
            self.form.restart.setChecked(False)  # a continued run keeps what it has
        folder = client.options.folder
        client.lend()
        self._run, self._planning = TeachRun(job=job), planning
        settings = self._context.settings
        self.command.start(
            arguments(
                job, folder, vram=settings.get("vram"), ram=settings.get("ram"), plan=planning
            )
        )
        self._show()

    def _on_event(self, event: dict[str, object]) -> None:
        run = self._run
        if run is None:
            return
        run.apply_event(event)
        if event.get("event") == "planned" and run.plan is not None and run.plan.resumed:
            read = partial(read_earlier, run.job.output)
            add = partial(self._add_earlier, run)
            self._context.tasks.run(read, add, lambda error: None, self)
        self._show()

    def _add_earlier(self, run: TeachRun, earlier: Earlier) -> None:
        run.add_earlier(earlier)
        self._show()

    def _ended(self) -> None:
        if self._run is not None:
            self._run.process_ended(self._why_it_ended(), planned=self._planning)
        self._context.engine.client.take_back()
        self._look_for_state()
        self._show()

    def _look_for_state(self) -> None:
        """Find out, on a thread, whether the folder of the adapter has a run to continue."""
        folder = self.form.target

        def found(can_continue: bool) -> None:
            if folder == self.form.target:
                self._can_continue = can_continue
                self._show_buttons()

        self._context.tasks.run(partial(has_state, folder), found, lambda error: None, self)

    # --- display ---------------------------------------------------------------------------------

    def _show(self) -> None:
        run = self._run
        self._show_buttons()
        if run is None:
            self.plan.hide()
            self.notes.hide()
            self.card.hide()
            return
        plan = run.plan
        self.bar.setRange(0, plan.steps if plan is not None else 1)
        self.bar.setValue(run.step)
        self.status.setText(self._sentence(run))
        self.plan.setText(self._plan_text(plan) if plan is not None else "")
        self.notes.setText(sentences(*map(translate, run.notes)))
        for label in (self.plan, self.notes):
            label.setVisible(bool(label.text()))
        self.card.setVisible(bool(run.training or run.held_out or run.samples))
        if plan is not None:
            self.curve.show_losses(run.training, run.held_out, plan.steps)
        self._show_samples(tuple(run.samples.values()))

    def _show_buttons(self) -> None:
        run, running = self._run, self.running
        finished = run is not None and run.state is RunState.FINISHED
        self.start_button.setText(
            self.tr("Continue") if self._can_continue and not finished else self.tr("Start")
        )
        stopping = run is not None and run.state is RunState.STOPPING
        self.start_button.setEnabled(not running)
        self.plan_button.setEnabled(not running)
        self.stop_button.setEnabled(running and not stopping)
        self.form.setEnabled(not running)
        # Losses and answers then fit on one screen.
        self.form.setVisible(not running or self._planning)
        for button in (self.use_button, self.report_button, self.folder_button):
            button.setVisible(finished)

    def _sentence(self, run: TeachRun) -> str:
        match run.state:
            case RunState.READING:
                return self.tr("Reading the data and the model…")
            case RunState.STOPPING:
                return self.tr("Stopping after this step…")
            case RunState.PREPARING:
                done, total = run.prepared
                text = self.tr("Reading the pictures: {done} of {total}.")
                return sentences(fill(text, done=done, total=total), self._left(run))
            case RunState.ANSWERING:
                return sentences(self._counts(run), self.tr("Answering held-out questions…"))
            case RunState.PLANNED:
                return self.tr("This is the plan. Nothing was trained.")
            case RunState.FAILED:
                return translate(run.error)
            case RunState.STOPPED:
                saved = self.tr("Stopped after step {step}, and saved. Continue when you like.")
                return fill(saved, step=run.saved) if run.saved else self.tr("Stopped.")
            case RunState.FINISHED:
                return self._result(run)
            case _:
                return sentences(self._counts(run), self._left(run))

    def _counts(self, run: TeachRun) -> str:
        steps = run.plan.steps if run.plan is not None else 0
        clauses = [fill(self.tr("Step {step} of {steps}"), step=run.step, steps=steps)]
        if run.epoch:
            clauses.append(fill(self.tr("pass {number}"), number=run.epoch))
        if run.loss is not None:
            clauses.append(fill(self.tr("loss {loss:.3f}"), loss=run.loss))
        if run.held_out:
            clauses.append(fill(self.tr("held-out loss {loss:.3f}"), loss=run.held_out[-1][1]))
        return fill(self.tr("{counts}."), counts=self.tr(", ").join(clauses))

    def _left(self, run: TeachRun) -> str:
        if run.seconds_left is None:
            return ""
        return fill(self.tr("{time} left."), time=format_seconds(run.seconds_left))

    def _result(self, run: TeachRun) -> str:
        folder = escape_line(str(run.job.output))
        texts = [fill(self.tr("Finished: {folder}."), folder=folder)]
        if run.asked:
            answers = self.tr("{right} of {asked} held-out answers are right, {before} before.")
            texts.append(fill(answers, right=run.right, asked=run.asked, before=run.right_before))
        named = {
            "held_out": self.tr("Held-out loss {after:.3f}, {before:.3f} before."),
            "old": self.tr("Loss of old questions {after:.3f}, {before:.3f} before."),
        }
        for name, (after, before) in run.compared.items():
            texts.append(fill(named[name], after=after, before=before))
        return sentences(*texts)

    def _plan_text(self, plan: Plan) -> str:
        learnt = fill(
            self.tr("{answers} answers about {pictures} pictures to learn, {held_out} held out."),
            answers=plan.answers,
            pictures=plan.pictures,
            held_out=plan.held_out,
        )
        texts = [learnt]
        if plan.replayed:
            texts.append(fill(self.tr("{count} old answers mixed in."), count=plan.replayed))
        if plan.skipped:
            skipped = self.tr("{count} rows can't be used; training/skipped.jsonl says why.")
            texts.append(fill(skipped, count=plan.skipped))
        numbers = self.tr("{numbers} numbers to train, in {steps} steps.")
        texts.append(fill(numbers, numbers=f"{plan.numbers:,}", steps=plan.steps))
        if plan.needs is not None:
            texts.append(
                fill(
                    self.tr("About {time}, calculated; {memory} of memory, {disk} of disk."),
                    time=format_seconds(plan.needs.seconds),
                    memory=format_bytes(plan.needs.peak_bytes),
                    disk=format_bytes(plan.needs.disk_bytes),
                )
            )
        if plan.resumed:
            texts.append(fill(self.tr("Continues after step {step}."), step=plan.resumed))
        return sentences(*texts)

    def _show_samples(self, samples: Sequence[Sample]) -> None:
        table = self.samples
        table.setVisible(bool(samples))
        if table.rowCount() != len(samples):
            table.setRowCount(len(samples))
        for row, sample in enumerate(samples):
            texts = (sample.question, sample.expected, sample.before, sample.after)
            for place, text in enumerate(texts):
                shown, item = text if text is not None else "…", table.item(row, place)
                if item is None:
                    table.setItem(row, place, QTableWidgetItem(shown))
                elif item.text() != shown:
                    item.setText(shown)
        self._fit_table()

    def _fit_table(self) -> None:
        """Show all rows: the page scrolls, and not the table in it."""
        table = self.samples
        high = table.horizontalHeader().sizeHint().height() + 2 * table.frameWidth()
        high += sum(table.rowHeight(row) for row in range(table.rowCount()))
        if high != table.height():
            table.setFixedHeight(high)

    def _use(self) -> None:
        if self._run is not None:
            self._context.use_adapter(self._run.job.output)
            self._context.show_page("chat")

    def _open_report(self) -> None:
        if self._run is not None:
            _open(self._run.job.output / "report.html")

    def _open_folder(self) -> None:
        if self._run is not None:
            _open(self._run.job.output)


def _open(path: Path) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
