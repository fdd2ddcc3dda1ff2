"""The states of a command that asks a model many questions: `batch` and `evaluate`."""

from __future__ import annotations

from enum import Enum


class RunState(Enum):
    """The state of a whole run."""

    IDLE = "idle"
    READING = "reading"  # the pictures or the data
    LOADING = "loading"  # the model
    ASKING = "asking"
    PAUSING = "pausing"  # after what is in progress
    PAUSED = "paused"
    SCORING = "scoring"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in (RunState.IDLE, RunState.FINISHED, RunState.STOPPED, RunState.FAILED)
