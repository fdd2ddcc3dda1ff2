"""What happens during a training run, for programs that show it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from cogvlm2_lite.text import Text


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Pictures whose features are known before the first step, so that no step computes them."""

    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step of the optimizer.

    loss          mean over the label tokens; not finite if the step changed nothing
    tokens        computed tokens, image tokens included
    labels        trained tokens
    held_out      the held-out loss that was measured last, or None
    seconds_left  estimated from the last steps and evaluations
    repeated      the loss or a gradient was not finite, so the step was computed again in float32
    """

    step: int
    steps: int
    epoch: int
    loss: float
    rate: float
    grad_norm: float
    answers: int
    tokens: int
    labels: int
    seconds: float
    seconds_left: float
    peak_bytes: int
    held_out: float | None
    repeated: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The loss of the held-out answers after a step; step 0 is the model without an adapter.

    best  it is the lowest so far, and the adapter of this step is in the folder
    old   loss of held-out rows of the replayed data; None: there are none
    """

    step: int
    loss: float
    best: bool
    old: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The model's own answer to a held-out question after a step; step 0: without an adapter.

    picture  a text that is equal for questions about one picture
    ended    the model ended the answer by itself
    tokens   of the answer, the end token included
    """

    step: int
    number: int
    picture: str
    question: str
    expected: str
    answer: str
    ended: bool
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A state is on the disk."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that the user should know; the run continues."""

    step: int
    text: Text


@dataclass(frozen=True, kw_only=True)
class Replanned:
    """Memory ran out, and a plan with a smaller budget was made. The step was computed again.

    text          what happened, in one sentence
    budget_bytes  budget of the new plan on each device
    """

    step: int
    text: Text
    budget_bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """The run was asked to stop.

    saved  step of the state from which the same command continues; None: there is no state
    """

    step: int
    saved: int | None


LearnEvent = Encoded | StepDone | Evaluated | Sampled | Saved | Notice | Replanned | Interrupted
