"""Files that show a run while it goes on: report.html, loss.svg and TensorBoard's numbers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from cogvlm2_lite.files import is_sealed, sealed_page, write_whole
from cogvlm2_lite.finetune.curves import EventFile
from cogvlm2_lite.finetune.learn import Run
from cogvlm2_lite.finetune.prepare import Prepared
from cogvlm2_lite.finetune.report import Progress, loss_file, render
from cogvlm2_lite.finetune.task import TrainingTask
from cogvlm2_lite.rows import held_out
from cogvlm2_lite.units import format_bytes
from cogvlm2_lite.weights.adapter_names import OWN_NAME

_SECONDS = 60.0


class RunPages:
    """Writes the files at most once a minute, and at the end.

    They are made from what the run saves anyway, so a full disk only makes them late.
    """

    def __init__(self, task: TrainingTask, prepared: Prepared, model: str) -> None:
        """Prepare the files of a run. model: the model as the user named it."""
        self._out, self._run = task.out, prepared.run
        self._title = f"Adapter {task.out.resolve().name}"
        self._facts = _facts(task, prepared, model)
        self._reasons = Counter(each.reason.value for each in prepared.skipped).most_common()
        self._use = use_commands(task, model)
        self._events = EventFile(task.out / "training" / "events.out.tfevents.0")
        self._written_at = -_SECONDS

    def update(self) -> None:
        """Write the files if the last time is a minute ago."""
        if time.monotonic() - self._written_at >= _SECONDS:
            self.write_if_possible()

    def write_if_possible(self) -> None:
        """Write the files now. The run reports a full disk when it saves its state."""
        with suppress(OSError):
            self._write()

    def _write(self) -> None:
        self._written_at = time.monotonic()
        progress = progress_of(self._run)
        self._events.update(progress.log)
        chart = loss_file(progress)
        if chart:
            write_whole(self._out / "loss.svg", lambda file: file.write_text(chart, "utf-8"))
        file = self._out / "report.html"
        if file.is_file() and not is_sealed(file.read_bytes()):
            return  # somebody edited it
        facts = {**self._facts, **_in_peft(self._out)}
        data = sealed_page(render(self._title, facts, progress, self._reasons, self._use))
        write_whole(file, lambda temporary: temporary.write_bytes(data))


def _in_peft(out: Path) -> Mapping[str, str]:
    """Return the held-out loss of the adapter in peft, if it was measured."""
    try:
        own = json.loads((out / OWN_NAME).read_text("utf-8"))
        loss = float(own["held_out"]["after_in_peft"])
    except (OSError, ValueError, TypeError, KeyError):  # not written or not measured yet
        return {}
    return {"held-out loss in peft, on all tokens": f"{loss:.4f}"}


def progress_of(run: Run) -> Progress:
    """Return what a run has done so far."""
    return Progress(log=run.log, samples=run.samples, steps=len(run.plan), best=run.place.best_step)


def use_commands(task: TrainingTask, model: str) -> list[str]:
    """Return commands that use the adapter. model: the model as the user named it."""
    model, out = _quoted(model), _quoted(str(task.out))
    found = [
        f'cogvlm2-lite ask {model} PICTURE "QUESTION" --adapter {out}',
        f"cogvlm2-lite chat {model} --adapter {out}",
        f"cogvlm2-lite serve {model} --adapter {out}",
        f"cogvlm2-lite merge {model} {out} NEW-MODEL",
    ]
    rows = task.out / "training" / held_out.NAME
    if rows.is_file():
        found.insert(1, f"cogvlm2-lite evaluate {model} {_quoted(str(rows))} --adapter {out}")
    return found


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


def _facts(task: TrainingTask, prepared: Prepared, model: str) -> Mapping[str, str]:
    settings = {
        name: {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        for name, value in asdict(task.settings).items()
        if value is not None
    }
    settings |= {"rate": f"{prepared.run.rate:.3g}", "epochs": str(prepared.run.epochs)}
    names = {
        "rate": "learning rate", "step": "answers in a step", "max_grad_norm": "clip",
        "weight_decay": "weight decay", "rate_factor_up": "learning rate of B / of A",
        "bos": "also on bos",
    }  # fmt: skip
    return {
        "model": model,
        "data": f"{task.data.name} ({prepared.form})",
        "answers": f"{len(prepared.learnt)} to learn, {len(prepared.held_out)} held out",
        "replayed answers": f"{prepared.replayed} to learn, {prepared.old} held out",
        "longest": f"{prepared.longest} tokens",
        "trained numbers": f"{prepared.numbers:,} ({format_bytes(4 * prepared.numbers)})",
        "memory plan": f"{format_bytes(prepared.plan.peak_bytes)} of the device",
        "acts on": task.settings.acts_on,
        "answers begin with a space": "yes" if prepared.space else "no",
        **{names.get(name, name): value for name, value in settings.items()},
    }
