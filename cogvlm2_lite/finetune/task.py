"""What to learn, from what, and where to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cogvlm2_lite.finetune.settings import TrainingSettings

SAVE_STEPS = 50
"""Steps between saved states, unless the user wants others."""


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """What to learn, from what, and where to.

    replay        rows of the old kind, mixed in so that old abilities stay; None: none
    replay_share  share of them that is used, 0 to 1
    answer_space  "auto", "yes" or "no"
    vram, ram     memory that may be used, as in `load`; None: what is free
    offload       "auto" or "never"
    patience      evaluations without a lower held-out loss after which the run stops
    adapter_dtype of the adapter's file, "float32" or "bfloat16"
    cache         folder for what is computed of pictures; None: in `out`
    cache_bytes   limit for it; None: a fifth of the free disk; 0: nothing is stored
    answers       held-out questions that are answered at each evaluation
    """

    model: Path
    data: Path
    out: Path
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    form: str | None = None
    labels: str | None = None
    ask: tuple[str, ...] = ()
    held_out: str = "10%"
    replay: Path | None = None
    replay_share: float = 1.0
    template: str | None = None
    answer_space: str = "auto"
    max_tokens: int | None = None
    upright: bool = True
    allow_skipped: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    vram: str | None = None
    ram: str | None = None
    offload: str = "auto"
    rope: str = "reference"
    restart: bool = False
    save_every: int = SAVE_STEPS
    patience: int | None = None
    adapter_dtype: str = "float32"
    cache: Path | None = None
    cache_bytes: int | None = None
    answers: int = 0
