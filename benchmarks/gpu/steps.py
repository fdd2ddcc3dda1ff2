"""The steps of a run, in order, with their limits and the results that each must write.

Only the standard library is used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CAPS_GIB = (8, 6, 12, 4, 16)
"""Sizes of cards that are imitated, the most common one first: time may run out."""

CONSUMER = {
    "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8",
}
"""Makes a data-centre card behave like a consumer card. There torch prefers cuDNN's attention, and
cuBLAS takes 32 MiB of workspace for each CUDA graph."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step. A process of its own runs it.

    what         what it measures, for the table
    seconds      its time limit
    least_s      it is skipped if less time than this is left
    keys         the results that it must write
    command      arguments of the Python interpreter; (): -m benchmarks.gpu.work NAME
    environment  environment variables that differ from the other steps'; None removes one
    """

    name: str
    what: str
    seconds: float
    least_s: float
    keys: tuple[str, ...]
    command: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)


STEPS: tuple[Step, ...] = (
    Step(
        name="environment",
        what="versions, kernels and why they were chosen, torch's attention for each shape",
        seconds=30,
        least_s=5,
        keys=("machine", "packages", "card", "kernels", "attention", "doctor"),
    ),
)
"""All steps, in the order in which they run."""


def choose(names: str) -> tuple[Step, ...]:
    """Return the steps of a list such as "environment,tests"; "": all of them.

    Raises ValueError with a sentence for the user if a name is unknown.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {step.name for step in STEPS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(
            f"Unknown step {unknown[0]!r}. The steps are {', '.join(s.name for s in STEPS)}."
        )
    return tuple(step for step in STEPS if not wanted or step.name in wanted)
