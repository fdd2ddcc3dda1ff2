"""What goes wrong in a run, in words for the user. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cogvlm2_lite.errors import CogVLM2LiteError, DeviceError, DoesNotFitError, UsageError
from cogvlm2_lite.finetune.state import Place
from cogvlm2_lite.rows.read import Row
from cogvlm2_lite.text import Text

_MOST_IN_A_ROW, _MOST = 3, 10
_SHOWN_ROWS = 4


def not_finite(place: Place, rows: Sequence[Row], rate: float, saved: int | None) -> Text:
    """Return a notice about a step that changed nothing, as its loss or gradient was not finite.

    rate   the highest learning rate of the run
    saved  step of the newest state, or None

    Raises UsageError if it was the third such step in a row, or the tenth in all.
    """
    named = ", ".join(dict.fromkeys(f"{row.source}:{row.line}" for row in rows[:_SHOWN_ROWS]))
    if place.bad_row < _MOST_IN_A_ROW and place.bad < _MOST:
        return Text(
            "Step {step} changed nothing: its loss or gradient is not a number, also in float32. "
            "Its rows: {rows}.",
            step=place.step,
            rows=named,
        )
    raise UsageError(
        "The loss or gradient was not a number in {count} steps, also in float32; the last was "
        "step {step} with the rows {rows}.",
        hint="Use a lower --lr than {rate} with --restart, or look at these rows. The adapter and "
        "the state of step {saved} are kept.",
        count=place.bad,
        step=place.step,
        rows=named,
        rate=f"{rate:.3g}",
        saved=saved or 0,
    )


def not_finite_numbers(step: int, name: str, rate: float, saved: int | None) -> UsageError:
    """Return the error for trained numbers that must not be saved."""
    return UsageError(
        "After step {step}, numbers of {name} are not finite.",
        hint="Use a lower --lr than {rate} with --restart. The state of step {saved} is kept.",
        step=step,
        name=name,
        rate=f"{rate:.3g}",
        saved=saved or 0,
    )


def not_saved_yet(folder: Path, error: OSError) -> Text:
    """Return a notice about a state that could not be saved."""
    return Text(
        "{folder} can't be written to: {why}. The training continues, and saving is tried again "
        "after the next step.",
        folder=folder,
        why=error.strerror or error,
    )


def not_saved(folder: Path, error: OSError, saved: int | None) -> DoesNotFitError:
    """Return the error for a run that is finished and could not be saved."""
    return DoesNotFitError(
        "The adapter could not be saved in {folder}: {why}.",
        hint="Free some space, then run the same command again: it continues from the last saved "
        "state, of step {step}.",
        folder=folder,
        why=error.strerror or error,
        step=saved or 0,
    )


def device_lost(error: Exception, step: int, saved: int | None) -> DeviceError:
    """Return the error for a GPU that this process can no longer use."""
    return DeviceError(
        "The GPU stopped working after step {step}: {why}.",
        hint="Run the same command again: it continues from the last saved state, of step {saved}. "
        "`cogvlm2-lite doctor` shows which GPUs still respond.",
        step=step,
        why=str(error).strip().partition("\n")[0].rstrip("."),
        saved=saved or 0,
    )


def not_answered(error: CogVLM2LiteError) -> Text:
    """Return a notice about held-out questions that could not be answered."""
    return Text(
        "The held-out questions could not be answered: {why} The training continues.",
        why=error.text,
    )


def no_help(best: float, before: float) -> Text:
    """Return a notice about an adapter with which the held-out loss is not lower."""
    return Text(
        "The held-out loss is {after} with the adapter and {before} without it, so it does not "
        "help. Look at the data, or use another --lr.",
        after=f"{best:.4f}",
        before=f"{before:.4f}",
    )


def in_peft(best: float, loss: float) -> Text:
    """Return a notice about what the adapter is worth in other programs."""
    return Text(
        "The adapter acts behind the picture, with a held-out loss of {own}. In peft, where it "
        "acts on all tokens, the loss is {loss}.",
        own=f"{best:.4f}",
        loss=f"{loss:.4f}",
    )
