"""The page "Batch": `cogvlm2-lite batch` in a child process, and its answers in a table."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PySide6.QtCore import QModelIndex, QPoint, QSize, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QMenu,
    QPushButton,
    QTableView,
    QWidget,
)

from cogvlm2_lite.batch.texts import Existing
from cogvlm2_lite.batch.work import edit_answer
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import escape_line
from gui.background.json_lines import Command
from gui.background.thumbnails import Thumbnails
from gui.batch.form import FormValues, JobForm
from gui.batch.own_files import OwnFilesQuestion
from gui.batch.run import (
    KINDS,
    BatchRun,
    Job,
    Row,
    RowState,
    arguments,
    count_own_texts,
    export_rows,
)
from gui.batch.table import THUMBNAIL_PX, AnswerEditor, Filter, Table, text_of
from gui.chat.dropped import read_file
from gui.context import Context
from gui.controls import ComboBox
from gui.data.history import HistoryError
from gui.data.saving import How
from gui.data.settings import sampling_of
from gui.data.state import Conversation, Status, Turn
from gui.flow import FlowLayout
from gui.pages.asking_page import AskingPage
from gui.pages.command_page import is_running, push, why_not_now
from gui.pages.frame import page
from gui.save_dialog import ask_for_target
from gui.translation import error_text, fill

_ROW = THUMBNAIL_PX + 14


@dataclass(frozen=True, kw_only=True)
class BatchState:
    """What is moved to the new page when the language changes."""

    run: BatchRun | None
    command: Command
    form: FormValues
    only_file: Path | None


def make(context: Context) -> QWidget:
    """Make the page."""
    return BatchPage(context)


class BatchPage(AskingPage[BatchRun]):
    """The form, the progress and the table.

    The command saves every answer before the table shows it; starting again resumes.
    """

    form: JobForm

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._run: BatchRun | None = None
        self._looking = False
        self._only_file: Path | None = None
        self.setAcceptDrops(False)
        outer = QHBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        widget, column = page(self.tr("Ask about many pictures"), fill=True)
        outer.addWidget(widget)
        self.form = JobForm(context.settings)
        column.addWidget(self.form)
        column.addLayout(self._make_buttons())
        self._asked: Job | None = None
        self.question = OwnFilesQuestion()
        self.question.answered.connect(self._start_with)
        self.question.other_folder.connect(self._start_elsewhere)
        self.question.cancelled.connect(self._forget_asked)
        column.addWidget(self.question)
        self._add_progress(
            column,
            self.tr(
                "Every answer is saved at once. You can stop at any time; starting again "
                "skips pictures that have an answer."
            ),
        )
        column.addLayout(self._make_filter())
        self._thumbnails = Thumbnails(self)
        self._rows = Table(self, self._thumbnails)
        self.filter = Filter(self, self._rows)
        self.table = self._make_table()
        column.addWidget(self.table, 1)
        self._show()

    # --- layout ----------------------------------------------------------------------------------

    def _make_buttons(self) -> FlowLayout:
        row = FlowLayout()
        self._add_buttons(row)
        row.add_stretch()
        self.again_button = push(row, self._ask_failed_again)
        self.folder_button = push(row, self._open_folder)
        self.folder_button.setText(self.tr("Open the folder"))
        return row

    def _make_filter(self) -> FlowLayout:
        row = FlowLayout()
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search in names and answers"))
        self.search.setAccessibleName(self.tr("Search in names and answers"))
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(lambda _: self._filter_changed())
        row.addWidget(self.search)
        self.states = ComboBox()
        self.states.setAccessibleName(self.tr("Which pictures are shown"))
        for text, states in (
            (self.tr("All pictures"), ()),
            (self.tr("Answered"), (RowState.ANSWERED,)),
            (self.tr("Failed"), (RowState.FAILED,)),
            (self.tr("Waiting"), (RowState.WAITING, RowState.ASKING)),
        ):
            self.states.addItem(text, states)
        self.states.currentIndexChanged.connect(lambda _: self._filter_changed())
        row.addWidget(self.states)
        self.export_button = QPushButton(self.tr("Export…"))
        self.export_button.setAccessibleName(self.tr("Export the rows shown"))
        self.export_button.clicked.connect(self._ask_for_export)
        row.addWidget(self.export_button)
        return row

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setModel(self.filter)
        table.setAccessibleName(self.tr("Pictures and answers"))
        table.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        table.setWordWrap(True)
        table.setMinimumHeight(180)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        table.setTabKeyNavigation(False)
        table.setShowGrid(False)
        table.setProperty("kind", "clear")
        table.setAlternatingRowColors(True)
        table.verticalHeader().hide()
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        table.verticalHeader().setDefaultSectionSize(_ROW)
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeading)
        table.setColumnWidth(0, 4 * THUMBNAIL_PX)
        table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        table.customContextMenuRequested.connect(self._row_menu)
        table.activated.connect(self._activated)
        table.setEditTriggers(
            QAbstractItemView.EditTrigger.EditKeyPressed
            | QAbstractItemView.EditTrigger.DoubleClicked
        )
        table.setItemDelegateForColumn(1, AnswerEditor(table))
        self._rows.edited.connect(self._save_edited)
        return table

    # --- the command -----------------------------------------------------------------------------

    def receive(self, files: Sequence[Path]) -> None:
        """Use pictures that were chosen on another page instead of a whole folder."""
        if self.running:
            self._show_text(is_running())
            return
        self.form.choose(files)
        self.focus_input()

    def focus_input(self) -> None:
        """Focus the first of folder and question that is missing, or the question."""
        self.form.focus_missing()

    def start(self) -> None:
        """Start, or resume an earlier run."""
        job = self.form.job()
        if self.running or self._looking:
            return
        self.question.hide()
        if job is None:
            self._show_text(self.tr("Choose a folder and write a question first."))
            self.focus_input()
            return
        existing = self.form.existing_for(job)
        if existing is not None:
            self._start(replace(job, existing=existing))
        elif self._is_free():
            self._look_for_own_files(job)

    def _look_for_own_files(self, job: Job) -> None:
        """Look for text files of the user's on a thread; ask about them, or start without."""
        self._looking = True
        self._show_text(self.tr("Looking for text files of your own…"))
        self._show_buttons()

        def found(count: int) -> None:
            self._looking = False
            if count:
                self._asked = job
                self._show_text("")
                self.question.ask(count, str(job.target), self.form.last_existing)
                self._show_buttons()
            else:
                self._start(job)

        def failed(error: CogVLM2LiteError) -> None:
            found(0)  # the command reports the error

        self._context.tasks.run(partial(count_own_texts, job), found, failed, self)

    def _start_with(self, existing: Existing) -> None:
        """Start with an answer to the question, and remember it for the folder."""
        job = self._asked
        if job is not None:
            answered = replace(job, existing=existing)
            self.form.remember_existing(answered)
            self._start(answered)

    def _start_elsewhere(self) -> None:
        if self.form.ask_for_output():
            self.start()

    def _forget_asked(self) -> None:
        self._asked = None
        self._show()
        self._show_text(self.tr("Nothing was started."))
        self.start_button.setFocus(Qt.FocusReason.OtherFocusReason)

    def _start(self, job: Job) -> None:
        self._asked = None
        if self._begin(BatchRun(job=job)):
            self.form.remember()
            self.form.overwrite.setChecked(False)  # a resumed run asks only what is left
        else:
            self._show_buttons()

    def ask_again(self, rows: Sequence[Row]) -> None:
        """Ask again about some pictures, with the question of the run that is shown."""
        if self._run is not None and rows:
            self._begin(self._run.again(self._run.job, [row.picture for row in rows]))

    def _is_free(self) -> bool:
        """Return whether a batch can start now; shows why not."""
        problem = why_not_now(self._context.engine.client)
        if problem:
            self._show_text(problem)
        return not problem

    def _begin(self, run: BatchRun) -> bool:
        """Start the command. Returns False, with a message, if that is not possible now."""
        client, job = self._context.engine.client, run.job
        if self.running or not self._is_free():
            return False
        assert client.options is not None
        self.question.hide()
        try:
            self._only_file = _write_names(job.only)
        except OSError as error:
            self._show_text(
                fill(
                    self.tr("A temporary file can't be written: {why}."),
                    why=error.strerror or error,
                )
            )
            return False
        settings, adapter = self._context.settings, self._context.adapter
        client.lend()
        self._run = run
        self.command.start(
            arguments(
                job,
                client.options.folder,
                sampling_of(settings),
                vram=settings.get("vram"),
                ram=settings.get("ram"),
                only_file=self._only_file,
                adapter=adapter.folder if adapter is not None else None,
            )
        )
        self._show_rows()
        self._show()
        return True

    def save_state(self) -> BatchState:
        """Return the running command and the form for a page that replaces this one."""
        saved = BatchState(
            run=self._run,
            command=self._hand_over(),
            form=self.form.values(),
            only_file=self._only_file,
        )
        self._run, self._only_file = None, None
        return saved

    def restore_state(self, saved: BatchState) -> None:
        """Continue with the state of the replaced page."""
        self._run, self._only_file = saved.run, saved.only_file
        self._take_over(saved.command)
        self.form.set_values(saved.form)
        self._show_rows()
        self._show()

    def shut_down(self) -> None:
        """End the command. Finished answers are kept."""
        super().shut_down()
        self._remove_names()
        self._thumbnails.close()

    def _on_event(self, event: dict[str, object]) -> None:
        if self._run is None:
            return
        place = self._run.apply_event(event)
        if place is None:
            self._show_rows()
        else:
            self._rows.show_row(place, self._run.rows[place])
        self._show()

    def _ended(self) -> None:
        self._remove_names()
        if self._run is not None:
            self._run.process_ended(self._why_it_ended())
            self._show_rows()
        self._context.engine.client.take_back()
        self._show()

    # --- display ---------------------------------------------------------------------------------

    def _shown_run(self) -> BatchRun | None:
        return self._run

    def _show_buttons(self) -> None:
        super()._show_buttons()
        run, running = self._run, self.running
        self.start_button.setEnabled(not (running or self._looking))
        self.export_button.setEnabled(run is not None and bool(run.rows))
        self._rows.locked = running
        failed = run.failed if run is not None else 0
        self.again_button.setText(fill(self.tr("Ask again about {count} failed"), count=failed))
        self.again_button.setVisible(failed > 0 and not running)
        self.folder_button.setVisible(run is not None)

    def _reading(self) -> str:
        return self.tr("Reading the folder…")

    def _pausing(self) -> str:
        return self.tr("Pausing after this picture.")

    def _where(self, run: BatchRun) -> str:
        return fill(self.tr("Answers: {folder}"), folder=run.job.target)

    def _clauses(self, run: BatchRun) -> list[str]:
        clauses = [fill(self.tr("{done} of {total} pictures"), done=run.done, total=run.total)]
        if run.skipped:
            clauses.append(fill(self.tr("{count} of them answered before"), count=run.skipped))
        if run.failed:
            clauses.append(fill(self.tr("{count} failed"), count=run.failed))
        return clauses

    def _show_text(self, text: str) -> None:
        self.status.setText(text)

    def _show_rows(self) -> None:
        if self._run is not None:
            self._rows.show_rows(self._run.job.folder, self._run.rows)

    def _filter_changed(self) -> None:
        self.filter.show_only(self.search.text(), tuple(self.states.currentData()))

    # --- export and rows ------------------------------------------------------------------------

    def _ask_for_export(self) -> None:
        folder = self._run.job.folder.name if self._run is not None else ""
        target = ask_for_target(
            self,
            self._context.settings,
            title=self.tr("Export the rows shown"),
            name=fill(self.tr("Answers about {folder}"), folder=folder),
            kinds=KINDS,
        )
        if target is not None:
            self.export_to(target.file, target.how)

    def export_to(self, target: Path, how: How = How.NEW) -> None:
        """Write the rows that are shown to a file, on a thread. The suffix is .csv without one."""
        file = target if target.suffix else target.with_suffix(".csv")
        rows = tuple(self.filter.shown())

        def written(_: None) -> None:
            self._show_text(
                fill(
                    self.tr("{count} rows were written to {file}."),
                    count=len(rows),
                    file=escape_line(str(file)),
                )
            )

        self._context.tasks.run(
            partial(export_rows, rows, file, how),
            written,
            lambda error: self._show_text(error_text(error)),
            self,
        )

    def _row_menu(self, place: QPoint) -> None:
        index = self.table.indexAt(place)
        if not index.isValid():
            return
        menu = QMenu(self)
        menu.addAction(self.tr("Ask more about this picture"), partial(self._ask_more, index))
        edit = menu.addAction(self.tr("Edit the answer"), partial(self._edit, index))
        again = menu.addAction(
            self.tr("Ask again about this picture"), lambda: self.ask_again([self._row(index)])
        )
        for action in (edit, again):
            action.setEnabled(not self.running)
        menu.addAction(self.tr("Copy the answer"), partial(self._copy, index))
        menu.exec(self.table.viewport().mapToGlobal(place))

    def _activated(self, index: QModelIndex) -> None:
        """Open a conversation, except where the same click edits the answer."""
        if self.table.state() is not QAbstractItemView.State.EditingState:
            self._ask_more(index)

    def _edit(self, index: QModelIndex) -> None:
        self.table.edit(index.siblingAtColumn(1))

    def _ask_failed_again(self) -> None:
        if self._run is not None:
            self.ask_again([row for row in self._run.rows if row.state is RowState.FAILED])

    def _open_folder(self) -> None:
        if self._run is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._run.job.target)))

    def _save_edited(self, place: int, text: str) -> None:
        """Save an answer that the user changed, on a thread."""
        run = self._run
        if run is None or self.running:
            return
        row = run.rows[place]
        run.edited(place, text)
        self._rows.show_row(place, run.rows[place])

        def saved(written: bool) -> None:
            self._show()
            if written:
                self._show_text(self.tr("The answer was saved."))
            else:
                self._show_text(
                    fill(
                        self.tr(
                            "The answer was saved in answers.jsonl. The text file of {picture} was "
                            "changed by another program, and is kept."
                        ),
                        picture=row.shown_name,
                    )
                )

        def failed(error: CogVLM2LiteError) -> None:
            run.set_back(row)
            self._rows.show_row(place, row)
            self._show_text(error_text(error))

        work = partial(edit_answer, run.job.task, row.file, text)
        self._context.tasks.run(work, saved, failed, self)

    def _ask_more(self, index: QModelIndex) -> None:
        """Start a conversation about a row's picture, with its question and answer."""
        row, path = self._row(index), self._rows.path(self.filter.mapToSource(index).row())
        if row.state is not RowState.ANSWERED or self._run is None:
            self._context.send_files("chat", [path])
            return
        history, question = self._context.history, self._run.job.question

        def read() -> str:
            return history.save_picture(read_file(path))

        def show(picture: str) -> None:
            turn = Turn(
                id=1, parent=None, question=question, answer=row.text, status=Status.DONE,
                created=time.time(), file=row.shown_name,
            )  # fmt: skip
            made = Conversation(id=0, title=row.shown_name, leaf=1, turns={1: turn})
            try:
                kept = history.import_conversation(made, saved=picture)
            except HistoryError as error:
                self._show_text(error_text(error))
                return
            self._context.open_conversation(kept.id)

        self._context.tasks.run(read, show, lambda error: self._show_text(error_text(error)), self)

    def _copy(self, index: QModelIndex) -> None:
        QGuiApplication.clipboard().setText(text_of(self._row(index)))

    def _row(self, index: QModelIndex) -> Row:
        return self._rows.row(self.filter.mapToSource(index).row())

    def _remove_names(self) -> None:
        if self._only_file is not None:
            self._only_file.unlink(missing_ok=True)
            self._only_file = None


def _write_names(names: tuple[str, ...] | None) -> Path | None:
    """Write chosen names to a temporary file: many names don't fit on a command line."""
    if names is None:
        return None
    handle, file = tempfile.mkstemp(prefix="cogvlm2-lite-batch-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.writelines(f"{escape_line(name)}\n" for name in names)
    return Path(file)
