"""Teaching a model: adapters (LoRA) are trained next to frozen weights, which may be 4-bit.

from cogvlm2_lite.finetune import loss_and_gradients

Importing this package is fast: torch is imported when the function is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cogvlm2_lite.finetune.gradients import loss_and_gradients

__all__ = ["loss_and_gradients"]


def __getattr__(name: str) -> Any:
    """Import the public function on its first use."""
    if name != "loss_and_gradients":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cogvlm2_lite.finetune.gradients import loss_and_gradients

    return loss_and_gradients
