"""What `evaluate` prints: its progress and scores, as text or as lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.job import Job, Scored
from cogvlm2_lite.evaluate.pair import Pair
from cogvlm2_lite.evaluate.paired import Paired, overall
from cogvlm2_lite.evaluate.report import HTML
from cogvlm2_lite.evaluate.tables import Result, score_lines
from cogvlm2_lite.evaluate.work import Asked, AskEvent, Noticed, Paused, Resumed, Working
from cogvlm2_lite.file_names import escape_line, escape_name, to_json, valid_text
from cogvlm2_lite.text import with_templates
from cogvlm2_lite.units import format_seconds

if TYPE_CHECKING:
    from cogvlm2_lite.engine.outlook import Outlook


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """Prints the progress of an evaluation, as text or as lines of JSON."""

    console: Console
    as_json: bool

    def event(self, kind: str, /, **values: Any) -> None:
        """Print one line of JSON."""
        self.console.line(to_json(with_templates({"event": kind, **values})))

    def planned(self, job: Job, outlook: Outlook | None) -> None:
        """Print what will be asked of a model."""
        planned, run = job.planned, job.run
        todo = len(planned.todo)
        seconds = 0.0
        if outlook is not None:
            from cogvlm2_lite.evaluate.expect import ANSWER_TOKENS, expected

            each = expected(outlook, ANSWER_TOKENS[job.data.benchmark])
            seconds = each.seconds(planned.pictures, todo)
        if self.as_json:
            self.event(
                "plan",
                model=run.model,
                benchmark=run.benchmark,
                data=run.data,
                folder=escape_name(str(job.folder)),
                protocol=run.protocol,
                max_new_tokens=run.max_new_tokens,
                seed=run.seed,
                questions=run.chosen,
                of=run.items,
                known=len(planned.known),
                todo=todo,
                pictures=planned.pictures,
                parallel=outlook.parallel if outlook else 1,
                seconds=round(seconds, 1),
                notices=list(job.data.notices),
            )
            return
        for notice in job.data.notices:
            self.console.remark_once(valid_text(f"{run.data}: {notice}"))
        chosen = f"{run.chosen} of {run.items}" if run.chosen < run.items else f"{run.chosen}"
        subset = f", chosen with seed {run.seed}" if run.chosen < run.items else ""
        self.console.remark(
            f"{run.name}, {run.data}: {chosen} questions{subset}, protocol {run.protocol}, at most "
            f"{run.max_new_tokens} tokens per answer."
        )
        known = f"{len(planned.known)} are answered already. " if planned.known else ""
        if not todo:
            self.console.remark(f"All {run.chosen} are answered already.")
            return
        pictures = "1 picture" if planned.pictures == 1 else f"{planned.pictures} pictures"
        at_once = f", {outlook.parallel} at once" if outlook and outlook.parallel > 1 else ""
        self.console.remark(
            f"{known}To ask: {todo} about {pictures}{at_once}, about {format_seconds(seconds)}. "
            f"The answers go to {escape_line(str(job.folder))}."
        )

    def loading(self, model: str) -> None:
        """Show that a model is being loaded."""
        if self.as_json:
            self.event("loading", model=model)
        self.console.status(f"Loading {model}")

    def step(self, step: AskEvent, job: Job) -> None:
        """Print one event of the work."""
        match step:
            case Working():
                self.console.status(
                    f"{job.run.name}, {job.data.name}: {step.phase} {step.done}/{step.total}"
                )
            case Noticed():
                if self.as_json:
                    self.event("notice", text=step.text)
                self.console.remark_once(step.text)
            case Paused() | Resumed():
                if self.as_json:
                    self.event(type(step).__name__.lower())
            case Asked():
                self._asked(step, job)

    def _asked(self, step: Asked, job: Job) -> None:
        if self.as_json:
            values = {each.name: getattr(step, each.name) for each in fields(step)}
            if not step.column:
                del values["column"]
            values |= {"data": job.data.name, "model": job.run.model}
            self.event("answered", **{**values, "answered": step.answered.as_dict()})
            return
        if step.answered.error:
            self.console.remark(valid_text(f"{step.answered.id}: {step.answered.error}"))
        failed = f", {step.failed} failed" if step.failed else ""
        self.console.progress(
            f"{job.run.name}, {job.data.name}: {step.done} of {step.total} questions{failed}, "
            f"{format_seconds(step.seconds_left)} left",
            step.done / step.total,
        )

    def scored(self, one: Scored, pair: Pair | None, result: Result) -> None:
        """Print the score of a run."""
        score, job = one.score, one.job
        if not self.as_json:
            for line in score_lines(result):
                self.console.line(valid_text(line))
            self.console.line(f"  report: {escape_line(str(job.folder / HTML))}")
            self.console.line()
            return
        self.event(
            "scored",
            benchmark=score.benchmark,
            data=job.data.name,
            model=job.run.model,
            value=score.value,
            low=score.low,
            high=score.high,
            unit=score.unit,
            hits=score.hits,
            rules=score.rules,
            protocol=job.run.protocol,
            asked=score.asked,
            of=score.of,
            folder=escape_name(str(job.folder)),
            report=escape_name(str(job.folder / HTML)),
        )
        if pair is not None:
            self.event("compared", data=job.data.name, **pair.as_dict())

    def unscored(self, job: Job) -> None:
        """Print that a file without answers has no score."""
        if not self.as_json:
            self.console.line(
                f"{job.data.name}: not scored, because the file has no answers. The answers of the "
                f"model are in {escape_line(str(job.folder))}."
            )

    def overall(self, compared: Sequence[Paired]) -> None:
        """Print the mean of the losses of several benchmarks."""
        found = overall(compared) if len(compared) > 1 else None
        if found is None:
            return
        if self.as_json:
            self.event("overall", **asdict(found))
            return
        self.console.line(
            f"Mean loss of {found.benchmarks} benchmarks: {found.loss:+.1f} points, 95 % interval "
            f"{found.low:+.1f} to {found.high:+.1f}."
        )

    def finished(self, jobs: Sequence[Job], answers: Sequence[Mapping[str, Answered]]) -> int:
        """Print the totals; return 0 if every chosen question has an answer, else 1."""
        total = sum(job.run.chosen for job in jobs)
        failed = sum(bool(one.error) for each in answers for one in each.values())
        left = total - sum(map(len, answers))
        self.console.status("")
        if self.as_json:
            self.event("finished", total=total, failed=failed, left=left)
        elif failed or left:
            self.console.line(
                f"{failed} of {total} questions failed, and {left} have no answer yet. Run the "
                "same command again to ask them."
            )
        return 1 if failed or left else 0
