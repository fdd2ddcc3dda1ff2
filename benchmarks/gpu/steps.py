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


def _cap(gib: int) -> Step:
    return Step(
        name=f"cap{gib}",
        what=f"19B shapes with {gib} GiB of the card: bits, plan against peaks, out of memory",
        seconds=60,
        least_s=20,
        keys=("cap_bytes", "plan", "load_s", "bits", "planned", "peaks", "answer",
              "decode_tokens_per_s", "recovery", "long_answers"),
    )  # fmt: skip


STEPS: tuple[Step, ...] = (
    Step(
        name="environment",
        what="versions, kernels and why they were chosen, torch's attention for each shape",
        seconds=60,  # torch's libraries are read from the disk for the first time
        least_s=5,
        keys=("machine", "packages", "card", "kernels", "attention", "doctor"),
    ),
    Step(
        name="tests",
        what="the tests that need a GPU",
        seconds=90,
        least_s=20,
        keys=("files", "exit", "passed", "skipped", "failed"),
    ),
    Step(
        name="gemm",
        what="4-bit products of 1 to 16 rows, their bits, lm_head and int8 matrices",
        seconds=35,
        least_s=10,
        keys=("kernels", "products", "equal_rows", "differences", "lm_head", "int8"),
    ),
    Step(
        name="attention",
        what="the attention of a decode step in several ways",
        seconds=25,
        least_s=8,
        keys=("decode",),
    ),
    Step(
        name="transfers",
        what="heights of matrix products, uploads, tiny kernels",
        seconds=25,
        least_s=8,
        keys=("heights", "uploads", "launches"),
    ),
    Step(
        name="resident",
        what="19B shapes with all memory of the card: speed, graphs, bits",
        seconds=70,
        least_s=25,
        keys=(
            "open_s",
            "plan",
            "load_s",
            "bits",
            "planned",
            "peaks",
            "answer",
            "decode_tokens_per_s",
            "bytes_per_token",
            "decode_bytes_per_s",
            "eager_tokens_per_s",
            "graphs",
            "replays",
            "steps",
            "long_answers",
        ),
    ),
    *(_cap(gib) for gib in CAPS_GIB[:2]),
    Step(
        name="profile",
        what="kernels of decode steps, the tower and prefill",
        seconds=40,
        least_s=20,
        keys=("decode", "encode", "prefill"),
    ),
    Step(
        name="own",
        what="our own CUDA kernels, if they pass their self-test: products and a short answer",
        seconds=50,
        least_s=20,
        keys=("available", "reason"),
    ),
    *(_cap(gib) for gib in CAPS_GIB[2:]),
    Step(
        name="questions",
        what="many questions: CUDA graphs' cost, and whether memory grows",
        seconds=40,
        least_s=20,
        keys=("rows", "captures", "capture_ms", "growth_bytes", "device_growth_bytes"),
    ),
    Step(
        name="demo",
        what="answers of the demo model on the GPU and on the CPU",
        seconds=40,
        least_s=15,
        keys=("answers",),
    ),
    Step(
        name="parallel",
        what="three answers at once",
        seconds=30,
        least_s=15,
        keys=("slots", "same", "alone_tokens_per_s", "together_tokens_per_s", "graphs"),
    ),
    Step(
        name="int8_cache",
        what="keys and values in int8",
        seconds=30,
        least_s=15,
        keys=("bits", "plan", "laps", "decode_tokens_per_s", "long"),
    ),
    Step(
        name="settings",
        what="a short answer with torch's own settings for this card",
        seconds=30,
        least_s=15,
        keys=("bits", "answer", "decode_tokens_per_s", "reserved_bytes"),
        environment=dict.fromkeys(CONSUMER),
    ),
    Step(
        name="calibration",
        what="quantize with calibration: two blocks of real width",
        seconds=60,
        least_s=25,
        keys=("write_s", "exit", "seconds", "blocks", "peak_bytes"),
    ),
    Step(
        name="sanitizer",
        what="compute-sanitizer around a short answer",
        seconds=40,
        least_s=15,
        keys=("program", "tools"),
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
