"""Two runs of one benchmark, compared: which of them is the reference, and comparison.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.evaluate.job import Job
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.evaluate.paired import Paired
from cogvlm2_lite.evaluate.run_folder import Run, write_file
from cogvlm2_lite.file_names import to_json
from cogvlm2_lite.weights.identity import identify_model

COMPARISON = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The comparison of two runs.

    a   the reference, b: the other
    kl  KL divergence of b's next-token probabilities from a's; None: not measured
    """

    a: Run
    b: Run
    paired: Paired
    kl: Measured | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        found = {each.name: getattr(self.paired, each.name) for each in fields(self.paired)}
        return {
            "a": self.a.model,
            "b": self.b.model,
            **{k: v for k, v in found.items() if v is None or isinstance(v, str | int | float)},
            "kl": None if self.kl is None else self.kl.as_dict(),
        }


def is_reference(run: Run, other: Run) -> bool:
    """Return whether a run is the reference of a comparison with another one.

    Without 4-bit weights of its own, the model that `quantize` read is the reference. Otherwise it
    is the second one: the model "against" which the first is evaluated.
    """
    return other.quantized and not run.quantized


def folder_of(run: Run) -> Path | None:
    """Return the folder of a run's model; None if it is not there any more, or another model."""
    try:
        folder = model_folder(run.model)
        return folder if identify_model(folder) == run.model_id else None
    except CogVLM2LiteError:
        return None


def write_comparison(folder: Path, pair: Pair) -> None:
    """Write comparison.json to the folder of a run. Raises DoesNotFitError."""
    values = {"key": _key(pair.a, pair.b), **pair.as_dict()}
    write_file(folder / COMPARISON, (to_json(values, indent=1) + "\n").encode())


def kept_kl(a: Job, b: Job) -> Measured | None:
    """Return the KL divergence that an earlier call measured for the same runs; None: none did."""
    for job in (a, b):
        try:
            values = json.loads((job.folder / COMPARISON).read_bytes())
            if values["key"] == _key(a.run, b.run):
                return Measured(**{name: float(values["kl"][name]) for name in _NUMBERS})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return None


_NUMBERS = ("value", "low", "high")


def _key(a: Run, b: Run) -> Mapping[str, str]:
    """Return what a measured KL divergence belongs to."""
    return {
        "a": a.model_id,
        "b": b.model_id,
        "data": a.data_hash,
        "protocol": a.protocol,
        "chosen": a.chosen_sha256,
    }
