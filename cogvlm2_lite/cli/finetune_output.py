"""What `finetune` prints: the plan, steps, answers and losses, as text or as lines of JSON."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.cli.braille import draw_curve
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.file_names import escape_name, to_json, valid_text
from cogvlm2_lite.finetune.events import (
    Encoded,
    Evaluated,
    Interrupted,
    LearnEvent,
    Notice,
    Replanned,
    Sampled,
    Saved,
    StepDone,
)
from cogvlm2_lite.finetune.expect import Expected, expected_as_dict, needed_bytes
from cogvlm2_lite.finetune.report import Answers, Progress, exact
from cogvlm2_lite.forecast.table import about
from cogvlm2_lite.text import with_templates
from cogvlm2_lite.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from cogvlm2_lite.finetune.survey import Survey
    from cogvlm2_lite.finetune.task import TrainingTask

_TRAINED = {
    "words": "language experts", "both": "both experts", "demo": "the target of the released demo",
    "tower": "both experts, vision tower and projector",
}  # fmt: skip
_NAMES = {
    Encoded: "encoded", StepDone: "step", Evaluated: "evaluated", Sampled: "sample",
    Saved: "saved", Notice: "notice", Replanned: "replanned", Interrupted: "interrupted",
}  # fmt: skip


class Reporter:
    """Prints the progress of a run.

    curve  also draw the losses in the terminal
    """

    def __init__(self, console: Console, *, as_json: bool, curve: bool = False) -> None:
        self.console, self._json, self._curve = console, as_json, curve
        self._losses: list[tuple[float, float]] = []
        self._first: list[Sampled] = []
        self._saved_at: float | None = None

    def event(self, name: str, /, **values: Any) -> None:
        """Print one line of JSON. Numbers that are not finite become null."""
        if self._json:
            self.console.line(to_json(with_templates(_finite({"event": name, **values}))))

    def _print(self, text: str) -> None:
        if not self._json:
            self.console.line(valid_text(text))

    def read(self, done: int, total: int) -> None:
        """Show how many rows of how many are read."""
        if not self._json:
            self.console.progress(f"Reading row {done} of {total}", done / total)

    # --- the plan ---------------------------------------------------------------------------------

    def planned(self, prepared: Survey, task: TrainingTask) -> None:
        """Print what the data are, what will be done with them, and what it needs."""
        skipped = prepared.skipped
        learnt, held_out = (
            len({e.group for e in examples if e.sample.picture is not None})
            for examples in (prepared.learnt, prepared.held_out)
        )
        reasons = Counter(each.reason.value for each in skipped).most_common()
        self.event(
            "planned",
            form=prepared.form,
            rows=prepared.rows,
            answers=len(prepared.learnt),
            pictures=learnt,
            held_out=len(prepared.held_out),
            held_out_pictures=held_out,
            replayed=prepared.replayed,
            replayed_held_out=prepared.old,
            removed=prepared.removed,
            skipped=len(skipped),
            steps=prepared.steps,
            epochs=prepared.epochs,
            lr=prepared.rate,
            resumed=prepared.resumed,
            numbers=prepared.numbers,
            longest=prepared.longest,
            answer_space=prepared.space,
            answer_space_losses=prepared.space_losses,
            expected=expected_as_dict(prepared.expected),
        )
        if skipped:
            file = task.out / "training" / "skipped.jsonl"
            self.event("skipped", count=len(skipped), reasons=dict(reasons), file=_name(file))
        self._print(
            f"{_count(prepared.rows, 'row')} about {_count(prepared.pictures, 'picture')} "
            f"({prepared.form}){_skipped(len(skipped), reasons, task.out)}"
        )
        self._print(
            f"{_side(learnt, len(prepared.learnt))} to learn from, "
            f"{_side(held_out, len(prepared.held_out))} held out"
            f"{_replayed(prepared)}. Longest {_count(prepared.longest, 'token')}. "
            f"{_space(prepared)}"
        )
        if prepared.removed:
            self._print(
                f"{_count(prepared.removed, 'answer')} left out: their pictures are held out."
            )
        self._print(
            f"{_TRAINED[task.settings.preset].capitalize()}, rank {task.settings.rank}: "
            f"{_millions(prepared.numbers)} numbers, {format_bytes(4 * prepared.numbers)}."
        )
        epochs = _count(prepared.epochs, "epoch")
        self._print(
            f"{_count(prepared.steps, 'step')} in {epochs}, learning rate {prepared.rate:.2g}."
        )
        self._expected(prepared)
        if prepared.resumed == prepared.steps:
            self._print("All steps are done already.")
        elif prepared.resumed:
            self._print(f"Continues after step {prepared.resumed}.")

    def _expected(self, prepared: Survey) -> None:
        expected = prepared.expected
        budget = expected.plan.devices[0].budget
        ram = "" if budget.in_ram else f", {format_bytes(expected.ram_bytes)} of RAM"
        self._print(
            f"{format_bytes(expected.peak_bytes)} of {format_bytes(budget.device_bytes)} on "
            f"{prepared.place}{ram}, {format_bytes(expected.disk_bytes)} of disk."
        )
        self._print(
            f"About {about(expected.seconds)}, calculated ({expected.rates.source}): "
            f"{about(expected.phases[Phase.LEARN].each_s)} a step."
        )

    def phases(self, prepared: Survey) -> None:
        """Print a table of memory and time for each phase of the run."""
        expected, needed = prepared.expected, needed_bytes(prepared.plan)
        rows = [("phase", "memory", "streamed", "times", "each", "together")]
        for phase, cost in expected.phases.items():
            streamed = prepared.plan.devices[0].phase(phase).streamed_bytes
            rows.append(
                (
                    phase.value,
                    format_bytes(needed[phase]),
                    format_bytes(streamed) if streamed else "-",
                    f"{cost.times:,}",
                    about(cost.each_s),
                    about(cost.seconds),
                )
            )
        held_out = expected.evaluations
        if held_out.times:
            each, together = about(held_out.each_s), about(held_out.seconds)
            rows.append(("held-out loss", "", "", f"{held_out.times:,}", each, together))
        rows.append(("read the weights", "", "", "1", "", about(expected.load_s)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        self._print("")
        for name, *cells in rows:
            right = "  ".join(
                cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)
            )
            self._print(f"  {name:{widths[0]}}  {right}")
        if Phase.ENCODE in expected.phases and not expected.training.tower:
            self._print(f"\n{_kept(expected)}")

    # --- the run ----------------------------------------------------------------------------------

    def learnt(self, event: LearnEvent) -> None:
        """Print an event of the run."""
        values = asdict(event)
        match event:
            case StepDone():
                values["tokens_per_second"] = event.tokens / max(event.seconds, 1e-9)
                values["answers_per_minute"] = 60 * event.answers / max(event.seconds, 1e-9)
        self.event(_NAMES[type(event)], **values)
        match event:
            case Encoded():
                self._encoded(event)
            case StepDone():
                self._step(event)
            case Evaluated():
                self._evaluated(event)
            case Sampled():
                self._first += [event] if not event.step else []
            case Saved():
                self._saved_at = time.monotonic()
            case Notice() | Replanned():
                if not self._json:
                    self.console.remark(valid_text(f"Notice: {event.text}"))
            case Interrupted():
                kept = (
                    "Nothing was saved yet"
                    if event.saved is None
                    else f"Step {event.saved} is saved"
                )
                self._print(f"Stopped. {kept}. Run the same command again to continue.")

    def _interrupted(self, event: Interrupted) -> None:
        kept = f"Step {event.saved} is saved"
        if event.saved is None:
            kept = "Nothing was saved yet"
        self._print(f"Stopped. {kept}. Run the same command again to continue.")

    def _encoded(self, event: Encoded) -> None:
        if not self._json:
            self.console.progress(
                f"Encoded {event.done} of {_count(event.total, 'picture')}, "
                f"{format_seconds(event.seconds_left)} left",
                event.done / event.total,
            )

    def _step(self, event: StepDone) -> None:
        if math.isfinite(event.loss):
            self._losses.append((event.step, event.loss))
        if self._json:
            return
        seconds = max(event.seconds, 1e-9)
        held_out = "" if event.held_out is None else f"   held-out {event.held_out:.2f}"
        saved = ""
        if self._saved_at is not None:
            saved = f"   saved {_ago(time.monotonic() - self._saved_at)}"
        self.console.progress(
            f"step {event.step} of {event.steps}  epoch {event.epoch}   loss {event.loss:.2f}"
            f"{held_out}   {event.tokens / seconds:,.0f} tokens/s, "
            f"{60 * event.answers / seconds:,.0f} answers/min   "
            f"{format_seconds(event.seconds_left)} left{saved}",
            event.step / event.steps,
        )

    def _evaluated(self, event: Evaluated) -> None:
        old = "" if event.old is None else f", old abilities {event.old:.4f}"
        if event.step:
            best = ", the best so far" if event.best else ""
            self._print(f"step {event.step}: held-out loss {event.loss:.4f}{best}{old}")
            if self._curve and self.console.is_interactive:
                self._draw()
            return
        right = ""
        if self._first:
            answers = [
                Answers(question="", expected=e.expected, after=e.answer) for e in self._first
            ]
            share = exact(answers, after=True) / len(answers)
            right = f", exact {share:.0%} of {len(answers)} answers"
        self._print(f"before: held-out loss {event.loss:.4f}{old}{right}")

    def _draw(self) -> None:
        if not self._json and self._losses:
            self._print("\n".join(["Training loss", *draw_curve(self._losses)]))

    # --- the end ----------------------------------------------------------------------------------

    def finished(self, out: Path, progress: Progress, use: Sequence[str]) -> None:
        """Print answers before and after, and how to use the adapter."""
        answers = progress.answers
        right, before = exact(answers, after=True), exact(answers, after=False)
        held_out, old = progress.points("held_out"), progress.points("old")
        best = dict(held_out).get(float(progress.best))
        self.event(
            "finished",
            folder=_name(out),
            report=_name(out / "report.html"),
            steps=progress.step,
            best_step=progress.best,
            held_out_before=held_out[0][1] if held_out else None,
            held_out=best,
            old_before=old[0][1] if old else None,
            old=dict(old).get(float(progress.best)),
            asked=len(answers),
            right=right,
            right_before=before,
        )
        if self._curve:
            self._losses = progress.points("loss")
            self._draw()
        for each in answers:
            self._print(f"\n{each.question}\n  in the data: {each.expected}")
            self._print(f"  before:      {each.before}\n  after:       {each.after}")
        if answers:
            self._print(f"\n{right} of {len(answers)} held-out answers are right, {before} before.")
        if best is not None:
            self._print(
                f"Held-out loss {best:.4f} after step {progress.best}, {held_out[0][1]:.4f} before."
            )
        self._print(f"The adapter is in {_name(out)}, the report in {_name(out / 'report.html')}.")
        self._print(f"Use it: {use[0]}")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return value


def _name(path: Path) -> str:
    return escape_name(str(path))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _side(pictures: int, answers: int) -> str:
    if not pictures:
        return _count(answers, "answer")
    if pictures == answers:
        return _count(pictures, "picture")
    return f"{_count(pictures, 'picture')} with {_count(answers, 'answer')}"


def _replayed(prepared: Survey) -> str:
    if not prepared.replayed:
        return ""
    old = f" ({prepared.old} more held out)" if prepared.old else ""
    return f", {_count(prepared.replayed, 'answer')} replayed{old}"


def _skipped(count: int, reasons: Sequence[tuple[str, int]], out: Path) -> str:
    if not count:
        return "."
    named = ", ".join(f"{number} {reason}" for reason, number in reasons[:5])
    return f", {count} skipped ({named}: {_name(out / 'training' / 'skipped.jsonl')})."


def _kept(expected: Expected) -> str:
    """Return of how many pictures what is computed once stays in memory."""
    total = expected.training.pictures
    kept = expected.kept
    text = f"Of {_count(total, 'picture')}, the features of {kept.features} are kept"
    if expected.training.prefix:
        text += f", and keys and values of {kept.prefixes}"
    text += " in RAM and on disk" if kept.disk_bytes else " in RAM"
    return f"{text}. What is not kept is computed again in each epoch."


def _space(prepared: Survey) -> str:
    if prepared.space is None:
        return "Whether answers begin with a space is measured before the first step."
    form = "with a space" if prepared.space else "without a space"
    if prepared.space_losses is None:
        return f"Answers begin {form}."
    without, with_one = prepared.space_losses
    chosen, other = (with_one, without) if prepared.space else (without, with_one)
    there = "without" if prepared.space else "with one"
    return f"Answers begin {form} (loss {chosen:.2f}; {there} {other:.2f})."


def _millions(numbers: int) -> str:
    return f"{numbers / 1e6:.1f} million" if numbers >= 1e6 else f"{numbers:,}"


def _ago(seconds: float) -> str:
    return "just now" if seconds < 60 else f"{seconds // 60:.0f} min ago"
