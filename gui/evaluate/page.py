"""The page "Evaluate": `cogvlm2-lite evaluate` in a child process, and its scores as cards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.evaluate.paired import LESS_LOST, LOSS_SHOWN, NOT_GRADED
from cogvlm2_lite.evaluate.tables import published_numbers, signed
from gui.background.json_lines import Command
from gui.context import Context, model_name
from gui.evaluate.form import EvaluationForm, FormValues
from gui.evaluate.run import Compared, EvaluationRun, Scored, arguments
from gui.pages.asking_page import AskingPage
from gui.pages.command_page import why_not_now
from gui.pages.frame import page, plain_label
from gui.translation import fill, sentences


@dataclass(frozen=True, kw_only=True)
class EvaluateState:
    """What is moved to the new page when the language changes."""

    run: EvaluationRun | None
    command: Command
    form: FormValues


def make(context: Context) -> QWidget:
    """Make the page."""
    return EvaluatePage(context)


class EvaluatePage(AskingPage[EvaluationRun]):
    """The form, the progress, and a card for each score with its report.

    The command saves every answer at once; starting again resumes.
    """

    form: EvaluationForm

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._run: EvaluationRun | None = None
        outer = QHBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        widget, column = page(self.tr("Evaluate a model"))
        outer.addWidget(widget)
        text = plain_label(
            self.tr(
                "Asks the open model, with the adapter in use, the questions of benchmarks and "
                "scores its answers as their authors do. The data files must be on this computer; "
                "nothing is downloaded."
            )
        )
        column.addWidget(text)
        self.form = EvaluationForm(context.settings, context.data / "evaluations")
        column.addWidget(self.form)
        buttons = QHBoxLayout()
        self._add_buttons(buttons)
        buttons.addStretch(1)
        column.addLayout(buttons)
        self._add_progress(
            column,
            self.tr(
                "Every answer is saved at once. You can stop at any time; starting again asks only "
                "what is left."
            ),
        )
        self.cards = QVBoxLayout()
        self.cards.setSpacing(8)
        column.addLayout(self.cards)
        self._show()

    # --- the command -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or resume an earlier run."""
        client, job = self._context.engine.client, self.form.job()
        if self.running:
            return
        problem = self.tr("Choose a benchmark first.") if job is None else why_not_now(client)
        if job is None or client.options is None or problem:
            self.status.setText(problem)
            return
        self.form.remember()
        self.form.restart.setChecked(False)  # a resumed run asks only what is left
        settings, adapter = self._context.settings, self._context.adapter
        folder = client.options.folder
        name = model_name(folder)
        if adapter is not None:  # other answers, so other results
            name = f"{name}+{adapter.name}"
        client.lend()
        self._run = EvaluationRun(job=job)
        self.command.start(
            arguments(
                job,
                folder,
                name,
                vram=settings.get("vram"),
                ram=settings.get("ram"),
                adapter=adapter.folder if adapter is not None else None,
            )
        )
        self._show()

    def save_state(self) -> EvaluateState:
        """Return the running command and the form for a page that replaces this one."""
        saved = EvaluateState(run=self._run, command=self._hand_over(), form=self.form.values())
        self._run = None
        return saved

    def restore_state(self, saved: EvaluateState) -> None:
        """Continue with the state of the replaced page."""
        self._run = saved.run
        self._take_over(saved.command)
        self.form.set_values(saved.form)
        self._show_cards()
        self._show()

    def _on_event(self, event: dict[str, object]) -> None:
        if self._run is None:
            return
        self._run.apply_event(event)
        if event.get("event") in ("scored", "compared"):
            self._show_cards()
        self._show()

    def _ended(self) -> None:
        if self._run is not None:
            self._run.process_ended(self._why_it_ended())
        self._context.engine.client.take_back()
        self._show()

    # --- display ---------------------------------------------------------------------------------

    def _shown_run(self) -> EvaluationRun | None:
        return self._run

    def _reading(self) -> str:
        return self.tr("Reading the data files…")

    def _pausing(self) -> str:
        return self.tr("Pausing after the current questions.")

    def _clauses(self, run: EvaluationRun) -> list[str]:
        clauses = [fill(self.tr("{done} of {total} questions"), done=run.done, total=run.total)]
        if run.failed:
            clauses.append(fill(self.tr("{count} failed"), count=run.failed))
        return clauses

    def _show_cards(self) -> None:
        while (item := self.cards.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()  # it is deleted later, and until then it has no place
                widget.deleteLater()
        if self._run is None:
            return
        compared = dict(self._run.compared)
        for scored in self._run.scored:
            # The model that is evaluated comes before the one that it is compared with.
            self.cards.addWidget(self._card(scored, compared.pop(scored.data, None)))

    def _card(self, scored: Scored, compared: Compared | None) -> QFrame:
        card = QFrame()
        card.setProperty("kind", "card")
        column = QVBoxLayout(card)
        column.setContentsMargins(18, 12, 18, 12)
        column.setSpacing(4)
        heading = plain_label(f"{scored.title}: {self._value(scored)}", "heading")
        row = QHBoxLayout()
        row.addWidget(heading, 1)
        button = QPushButton(self.tr("Open the report"))
        button.setAccessibleName(
            fill(self.tr("Open the report about {benchmark}"), benchmark=scored.title)
        )
        button.clicked.connect(partial(self._open, scored.report))
        row.addWidget(button)
        column.addLayout(row)
        texts = [self._measured(scored), self._published(scored)]
        if compared is not None:
            texts.append(self._comparison(compared))
        for text in texts:
            if text:
                column.addWidget(plain_label(text, "soft"))
        return card

    def _value(self, scored: Scored) -> str:
        if scored.value is None and scored.benchmark != "mmvet":
            return fill(self.tr("{count} answered, no score yet"), count=scored.asked)
        if scored.value is None:
            return fill(
                self.tr("{count} answered, not graded (needs a GPT-4 judge)"), count=scored.asked
            )
        if scored.hits is not None and scored.unit == "hits":
            return fill(self.tr("{hits} of {asked} right"), hits=scored.hits, asked=scored.asked)
        return fill(self.tr("{value:.1f} points"), value=scored.value)

    def _measured(self, scored: Scored) -> str:
        clauses = [_name(scored.model)]
        if scored.low is not None and scored.high is not None:
            clauses.append(
                fill(
                    self.tr("95 % interval {low:.1f} % to {high:.1f} %")
                    if scored.unit == "hits"
                    else self.tr("95 % interval {low:.1f} to {high:.1f}"),
                    low=scored.low,
                    high=scored.high,
                )
            )
        if scored.asked < scored.of:
            clauses.append(
                fill(self.tr("{asked} of {of} questions"), asked=scored.asked, of=scored.of)
            )
        clauses.append(fill(self.tr("protocol {name}"), name=scored.protocol))
        return self.tr("; ").join(clauses)

    def _published(self, scored: Scored) -> str:
        """Return the numbers of the model's README; "" if it has none."""
        numbers = published_numbers(scored.benchmark, scored.model)
        shown = self.tr(", ").join(f"{number} ({model})" for model, number in numbers.items())
        if not shown:
            return ""
        return fill(self.tr("Published, protocol unknown: {numbers}"), numbers=shown)

    def _comparison(self, compared: Compared) -> str:
        changed = fill(
            self.tr("{share:.1f} % of the answers have another text."),
            share=100 * compared.changed,
        )
        if compared.verdict == NOT_GRADED:
            return changed
        a, b = _name(compared.a), _name(compared.b)
        if compared.verdict == LESS_LOST:
            text = self.tr("Less than 1 point lost.")
        elif compared.verdict == LOSS_SHOWN:
            text = self.tr("A loss is shown.")
        else:
            text = fill(self.tr("Not decided with {count} questions."), count=compared.questions)
        more = ""
        if compared.needed is not None:
            more = fill(self.tr("About {count} questions would decide it."), count=compared.needed)
        loss = fill(
            self.tr("Loss of {b} against {a}: {loss} points, 95 % interval {low} to {high}."),
            a=a,
            b=b,
            loss=signed(compared.loss),
            low=signed(compared.low),
            high=signed(compared.high),
        )
        return sentences(text, more, loss, changed)

    def _open(self, report: Path) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(report)))


def _name(model: str) -> str:
    """Return the name of a model's folder."""
    return model_name(Path(model))
