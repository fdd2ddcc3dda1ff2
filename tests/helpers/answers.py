"""Pictures to ask about, and the end of an answer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import Steps, Token
from cogvlm2_lite.events import Event, Finished, Progress
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.units import GIB


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def finished(events: Iterable[Event]) -> Finished:
    last = list(events)[-1]
    assert isinstance(last, Finished)
    return last


def scripted_decode(
    logits: Callable[[], Tensor],
) -> Callable[[Sequence[Token]], Steps[list[list[Tensor]]]]:
    """Return decode steps with these logits [vocab] for each token, and none for drafts."""

    def decode(tokens: Sequence[Token]) -> Generator[Progress, None, list[list[Tensor]]]:
        yield from ()
        return [[logits()] for _ in tokens]

    return decode


def opened(folder: Path, budget_bytes: int = GIB, dtype: str = "float32") -> Model:
    budget = DeviceBudget(device="cpu", in_ram=True, device_bytes=budget_bytes)
    return open_model(folder, compute=choose_compute("cpu", dtype), budgets=[budget], context=512)
