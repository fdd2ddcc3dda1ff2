"""What a conversion or a check reports while it runs: frozen values, the same for text and JSON.

`to_json` gives one line for `--json`. Names and meaning of its fields are stable; docs/format.md
lists them. All sizes are bytes, all times seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.text import Text, with_templates


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something to show; `event` is its name in JSON."""

    event: ClassVar[str]

    def to_json(self) -> str:
        """Give the event as one line of JSON without a line end."""
        return json.dumps(with_templates({"event": self.event, **asdict(self)}), ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One row of the plan."""

    part: str
    weights: int
    source_bytes: int
    result_bytes: int
    kinds: dict[str, int]
    """Linear matrices by storage kind."""
    bits_per_weight: float


@dataclass(frozen=True, kw_only=True)
class KeptRow:
    """A linear matrix that does not become NF4."""

    tensor: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """What will be made, before anything is written."""

    event = "plan"
    source: str
    destination: str
    parts: list[PartRow]
    source_bytes: int
    result_bytes: int
    ready_bytes: int
    """Bytes of the result that an earlier run has finished."""
    free_bytes: int
    """Free on the disk of the destination."""
    kept: list[KeptRow]
    notes: list[Text]


@dataclass(frozen=True, kw_only=True)
class CalibrationProgress(Event):
    """How far the calibration is, after each block."""

    event = "calibration"
    done: int
    total: int
    """Blocks."""
    block: str
    error_ratio: float
    """Mean over the matrices so far: output error on samples held out, against round to nearest."""
    seconds_left: float
    look_s: float
    """What this block took to look at the samples, and to give its outputs to the next."""
    round_s: float
    """What it took to round its matrices."""


@dataclass(frozen=True, kw_only=True)
class Measuring(Event):
    """How far the whole model's forms are measured on held-out samples, after each block."""

    event = "measuring"
    done: int
    total: int
    """Blocks."""
    block: str
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class Calibrated(Event):
    """What was decided for one matrix."""

    event = "calibrated"
    tensor: str
    inputs: int
    """Inputs that it was fitted to."""
    error: float
    """Mean squared output of the change, on samples held out."""
    nearest_error: float
    """The same for round to nearest."""
    int8_error: float
    """The same for int8."""
    kept: str
    """"calibrated" or "nearest"."""
    reason: str
    """Why it is "nearest"; empty otherwise."""

    def values(self) -> dict[str, object]:
        """Give the fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Judged(Event):
    """What the whole model's answers lose on held-out samples, against the source.

    plain, calibrated and result hold kl_mean and kl_p99 (nats per word), top1 and changed
    (shares), each with value, low and high: 95 of 100 resamples of the pictures.
    """

    event = "judged"
    samples: int
    words: int
    """Words (tokens) of their answers."""
    plain: dict[str, Any]
    """Round to nearest."""
    calibrated: dict[str, Any]
    """Calibrated, in the same bytes."""
    result: dict[str, Any]
    """What is written: with the budget spent, and after the fail-safe."""
    of_plain: dict[str, float] | None
    """Mean KL of the result over that of plain NF4; None where the latter is zero."""
    plain_bytes: int
    result_bytes: int
    upgraded: int
    """Matrices that the budget stores in more bits."""
    dropped: str
    """Parts that went back to round to nearest because the result was worse without that, or
    "everything"; empty when none did."""

    @property
    def remarks(self) -> str:
        """Say what the budget bought and what the fail-safe took back."""
        said = []
        if self.upgraded:
            more = self.result_bytes / self.plain_bytes - 1
            said.append(f"{self.upgraded} matrices take more bits, for {more:.1%} more bytes.")
        if self.dropped:
            said.append(
                f"Round to nearest was kept for {self.dropped}: with the calibration, the answers "
                "were further from the source than plain NF4's."
            )
        return " ".join(said)

    def values(self) -> dict[str, Any]:
        """Give the fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Bought(Event):
    """A matrix that the budget stores in more bits than NF4."""

    event = "bought"
    tensor: str
    kind: str
    nbytes: int
    """What it takes now."""


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """How far the work is. Bytes are read bytes; what an earlier run did counts as done."""

    event = "progress"
    done_bytes: int
    total_bytes: int
    share: float
    """0 to 1."""
    bytes_per_s: float
    """Of this run."""
    seconds_left: float
    tensor: str
    """The one in work."""


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The folder is complete and has its name."""

    event = "finished"
    folder: str
    already: bool
    """True when an earlier run had finished it and nothing was left to do."""
    seconds: float
    """Of this run."""
    result_bytes: int
    """Of all safetensors files."""
    manifest_sha256: str


@dataclass(frozen=True, kw_only=True)
class Damaged(Event):
    """Something in a folder that is not as its manifest says."""

    event = "damaged"
    file: str
    tensor: str
    """Empty when it concerns the whole file."""
    problem: str


@dataclass(frozen=True, kw_only=True)
class Verified(Event):
    """The end of a check."""

    event = "verified"
    folder: str
    ok: bool
    damaged: int
    """How many Damaged events came before."""
    has_manifest: bool
    """False: only names, shapes and sizes could be checked, not the numbers."""
    checked_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The program ends because of an error."""

    event = "error"
    kind: str
    """Class of the error, such as ConversionError."""
    message: str
    hint: str
    param: str | None = None
    """The option at fault, if it is one."""

    @classmethod
    def of(cls, error: CogVLM2LiteError) -> Failed:
        return cls(**error.as_dict())
