"""Compare a merged model with the adapter next to its base, on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.config import read_config
from cogvlm2_lite.finetune.data import Example
from cogvlm2_lite.finetune.held_out import answers, mean_loss, read_examples
from cogvlm2_lite.finetune.report import Answers, exact
from cogvlm2_lite.weights.adapter import Adapter
from cogvlm2_lite.weights.catalog import Catalog
from quantize.events import MergeChecked
from quantize.merge import Merge

_MOST_LOSSES, _MOST_ANSWERS = 64, 16


@dataclass(frozen=True, kw_only=True)
class MergeCheck:
    """The rows of a check, read before the work begins."""

    model: Path
    merge: Merge
    adapter: Adapter
    examples: list[Example]

    @classmethod
    def read(cls, model: Path, merge: Merge, data: Path) -> MergeCheck:
        """Read the adapter and the rows. Raises UsageError, AdapterError or CheckpointError."""
        adapter = merge.read(Catalog.open(model, read_config(model)))
        examples = read_examples(model, data, adapter, _MOST_LOSSES)
        return cls(model=model, merge=merge, adapter=adapter, examples=examples)

    def run(self, merged: Path) -> MergeChecked:
        """Return the losses and the right answers of both."""
        asked = self.examples[:_MOST_ANSWERS]
        texts = [
            list(answers(folder, asked, adapter, self.adapter.template))
            for folder, adapter in ((self.model, self.merge.folder), (merged, None))
        ]
        given = [
            Answers(question=e.question, expected=e.answer, before=beside, after=after)
            for e, beside, after in zip(asked, *texts, strict=True)
        ]
        return MergeChecked(
            answers=len(self.examples),
            adapter_loss=round(mean_loss(self.model, self.examples, self.adapter), 6),
            merged_loss=round(mean_loss(merged, self.examples, None), 6),
            asked=len(asked),
            adapter_right=exact(given, after=False),
            merged_right=exact(given, after=True),
        )
