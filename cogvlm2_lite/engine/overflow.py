"""Notices when float16 can't hold what a model computes.

float16 ends at 65,504. The makers of the model computed in bfloat16, whose range is that of
float32, and report trouble with float16. What is too large becomes an infinity, and one norm later
NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cogvlm2_lite.errors import EngineError


class OverflowedError(EngineError):
    """Numbers that are not finite, computed in float16. The engine then computes in float32."""


def check_finite(computed: Tensor, dtype: torch.dtype) -> None:
    """Raise OverflowedError if numbers are not finite; waits for them.

    dtype  what they were computed in; only float16 is checked
    """
    if dtype == torch.float16 and not bool(torch.isfinite(computed).all()):
        raise OverflowedError(
            "The numbers of this model are too large for float16.",
            hint="Load the model in float32.",
        )
