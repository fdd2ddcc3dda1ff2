"""The adapter that a run writes, with what is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite import __version__
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.weights.adapter import write_adapter
from cogvlm2_lite.weights.adapter_names import ALL_ROWS, OWN_NAME
from cogvlm2_lite.weights.writer import write_file_durably

TOOL = f"cogvlm2-lite {__version__}"
_IN_PEFT = "after_in_peft"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the adapter's own file says, besides steps and losses.

    base       of `Base.to_json`
    base_name  name of the base model, without a path
    answers, pictures  what is learnt
    """

    base: Mapping[str, Any]
    base_name: str
    template: str
    answer_space: bool
    data_fingerprint: str
    answers: int
    pictures: int


@dataclass(frozen=True, kw_only=True)
class HeldOutLoss:
    """Mean loss over the tokens of the held-out answers; None: not measured.

    before  without an adapter
    after   with it
    """

    before: float | None
    after: float | None


class AdapterFolder:
    """A folder in which a run writes its adapter.

    dtype  of the numbers in the file; the run itself keeps float32
    """

    def __init__(
        self,
        folder: Path,
        settings: TrainingSettings,
        facts: Facts,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.folder, self._dtype = folder, dtype
        self._settings, self._facts = settings, facts

    def write(self, tensors: Mapping[str, Tensor], step: int, loss: HeldOutLoss | None) -> None:
        """Write the adapter of a step. loss: None if nothing is held out. Raises OSError."""
        settings, facts = self._settings, self._facts
        held_out = None
        if loss is not None:
            in_peft = loss.after if settings.acts_on == ALL_ROWS else None
            held_out = {"before": loss.before, "after": loss.after, _IN_PEFT: in_peft}
        write_adapter(
            self.folder,
            tensors,
            alpha=settings.alpha,
            base_name=facts.base_name,
            facts={
                "tool": TOOL,
                "base": dict(facts.base),
                "acts_on": settings.acts_on,
                "answer_space": facts.answer_space,
                "template": facts.template,
                "preset": settings.preset,
                "seed": settings.seed,
                "steps": step,
                "rows": facts.answers,
                "pictures": facts.pictures,
                "data_fingerprint": facts.data_fingerprint,
                "held_out": held_out,
            },
            dtype=self._dtype,
        )

    @property
    def loss_in_peft(self) -> float | None:
        """The held-out loss of the adapter when it acts on all rows; None: not measured."""
        held_out = self._read().get("held_out") or {}
        value = held_out.get(_IN_PEFT)
        return None if value is None else float(value)

    @loss_in_peft.setter
    def loss_in_peft(self, loss: float) -> None:
        own = self._read()
        own["held_out"] = {**own["held_out"], _IN_PEFT: loss}
        data = (json.dumps(own, indent=2, ensure_ascii=False) + "\n").encode()
        write_file_durably(self.folder / OWN_NAME, data)

    def _read(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / OWN_NAME).read_text("utf-8"))
        return content
