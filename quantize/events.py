"""What a conversion or a check reports while it runs: frozen values, the same for text and JSON.

`to_json` returns one line for `--json`. The names and meanings of its fields are stable;
docs/format.md lists them. All sizes are bytes, all times seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import to_json
from cogvlm2_lite.text import Text, with_templates


@dataclass(frozen=True, kw_only=True)
class Event:
    """The base of all events; `event` is the name in JSON."""

    event: ClassVar[str]

    def to_json(self) -> str:
        """Return the event as one line of JSON without a line end."""
        return to_json(with_templates({"event": self.event, **asdict(self)}))


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One row of the plan: a part of the model."""

    part: str
    weights: int
    source_bytes: int
    result_bytes: int
    kinds: dict[str, int]
    """Number of linear matrices by storage kind."""
    bits_per_weight: float


@dataclass(frozen=True, kw_only=True)
class KeptRow:
    """A linear matrix that is not stored in NF4."""

    tensor: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """The plan of a conversion, before anything is written."""

    event = "plan"
    source: str
    destination: str
    parts: list[PartRow]
    source_bytes: int
    result_bytes: int
    ready_bytes: int
    """Bytes of the result that an earlier run has already written."""
    free_bytes: int
    """Free bytes on the disk of the destination."""
    kept: list[KeptRow]
    notes: list[Text]


TOKEN_WEIGHTS = "token weights"
"""In place of a block while the weights of tokens are computed."""


@dataclass(frozen=True, kw_only=True)
class CalibrationProgress(Event):
    """Progress of the calibration, after each part of a block."""

    event = "calibration"
    done: int
    total: int
    """Parts of blocks; pictures while the weights of tokens are computed."""
    block: str
    error_ratio: float
    """Mean over the matrices so far: output error on held-out samples, divided by that of round to
    nearest."""
    seconds_left: float
    look_s: float
    """Time of running the samples through this part, in both streams."""
    round_s: float
    """Time of rounding its matrices."""


@dataclass(frozen=True, kw_only=True)
class Measuring(Event):
    """Progress of evaluating the whole model on held-out samples, after each block."""

    event = "measuring"
    done: int
    total: int
    """Blocks."""
    block: str
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class Calibrated(Event):
    """The decision for one matrix."""

    event = "calibrated"
    tensor: str
    inputs: int
    """Number of inputs that it was fitted to."""
    error: float
    """Mean squared distance of its outputs from the original's on held-out samples, as it is
    stored; with the errors that its inputs have from the matrices before it."""
    nearest_error: float
    """The same for round to nearest."""
    int8_error: float
    """What int8 would leave of it, in proportion to the changes for the same inputs."""
    kept: str
    """"calibrated" or "nearest"."""
    reason: str
    """Why it is "nearest"; empty otherwise."""

    def values(self) -> dict[str, object]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """The difference of the whole model from the source on held-out samples.

    plain, calibrated and result have kl_mean and kl_p99 (nats per token), top1 and changed
    (shares), each with value, low and high: the interval of 95 % of resamples of the pictures.
    """

    event = "judged"
    samples: int
    words: int
    """Tokens of their answers."""
    plain: dict[str, Any]
    """Round to nearest."""
    calibrated: dict[str, Any]
    """Calibrated, in the same bytes."""
    result: dict[str, Any]
    """What is written: after the budget is spent and a worse result is dropped."""
    of_plain: dict[str, float] | None
    """Mean KL of the result divided by that of plain NF4; None if that is zero."""
    plain_bytes: int
    result_bytes: int
    upgraded: int
    """Number of matrices that the budget stores in more bits."""
    dropped: str
    """Parts that went back to round to nearest because the result was worse than plain NF4, or
    "everything"; empty if none did."""

    @property
    def remarks(self) -> str:
        """Sentences about the matrices in more bits and the parts that were dropped."""
        sentences = []
        if self.upgraded:
            more = self.result_bytes / self.plain_bytes - 1
            sentences.append(
                f"{self.upgraded} matrices are stored in more bits ({more:.1%} more bytes)."
            )
        if self.dropped:
            sentences.append(
                f"Round to nearest was kept for {self.dropped}, because with the calibration the "
                "answers differed more from the source than those of plain NF4."
            )
        return " ".join(sentences)

    def values(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Upgraded(Event):
    """A matrix that the budget stores in more bits than NF4."""

    event = "bought"
    tensor: str
    kind: str
    nbytes: int
    """Its bytes now."""


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """Progress in bytes that were read. What an earlier run has done counts as done."""

    event = "progress"
    done_bytes: int
    total_bytes: int
    share: float
    """0 to 1."""
    bytes_per_s: float
    """Speed of this run."""
    seconds_left: float
    tensor: str
    """The tensor in work."""


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The folder is complete and has its final name."""

    event = "finished"
    folder: str
    already: bool
    """True if an earlier run had finished it and nothing was left to do."""
    seconds: float
    """Time of this run."""
    result_bytes: int
    """Of all safetensors files."""
    manifest_sha256: str


@dataclass(frozen=True, kw_only=True)
class MergeChecking(Event):
    """Progress of a check."""

    event = "checking"
    done: int
    total: int
    """Losses and answers to compute."""
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class MergeChecked(Event):
    """A merged model compared with the adapter next to its base, on held-out rows."""

    event = "checked"
    data: str
    """The file or folder of the rows, or "built-in"."""
    answers: int
    """Answers whose loss was computed."""
    tokens: int
    """Tokens of these answers."""
    adapter_loss: float
    """Mean loss per token of the base with the adapter."""
    merged_loss: float
    kl: float
    """Mean KL of the merged model from the base with the adapter, nats per token."""
    same_first: float
    """Share of the tokens at which both have the same first choice."""
    all_rows_loss: float | None
    """Loss of the base with the adapter on all tokens, if it was trained behind the picture."""
    original_loss: float | None
    """Loss of the adapter in the 16-bit model, as it would be after a merge into that one."""
    original: str | None
    """The folder of the 16-bit model."""
    asked: int
    """Questions that both answered."""
    adapter_right: int
    merged_right: int


@dataclass(frozen=True, kw_only=True)
class Damaged(Event):
    """A file or tensor that differs from the manifest."""

    event = "damaged"
    file: str
    tensor: str
    """Empty if it is about the whole file."""
    problem: str


@dataclass(frozen=True, kw_only=True)
class Verified(Event):
    """The end of a check."""

    event = "verified"
    folder: str
    ok: bool
    damaged: int
    """Number of Damaged events before this one."""
    has_manifest: bool
    """False: only names, shapes and sizes could be compared, and zeros were searched for."""
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
