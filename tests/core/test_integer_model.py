"""The demo model on a processor without AVX512-BF16: float32, and products of integers."""

from __future__ import annotations

import pytest
import torch

from cogvlm2_lite.backends.cpu_level import CPU_LEVEL
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.demo import converted_folder
from cogvlm2_lite.demo.shipped import sample_pictures
from cogvlm2_lite.engine.model import load
from cogvlm2_lite.events import Finished
from cogvlm2_lite.weights.kernels.gemv import IntegerKernel

PICTURE = sample_pictures()[0]


def test_it_answers_as_it_was_trained_to(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = set()
    multiply = IntegerKernel.multiply

    def counted(self: IntegerKernel, x: torch.Tensor, *more: object) -> torch.Tensor:
        rows.add(x.numel() // x.shape[-1])
        return multiply(self, x, *more)  # type: ignore[arg-type]

    monkeypatch.setenv(CPU_LEVEL, "avx2")
    monkeypatch.setattr(IntegerKernel, "multiply", counted)
    model = load(converted_folder(Console()), device="cpu")
    assert model.compute.dtype == torch.float32
    for asked in PICTURE.questions:
        *_, last = model.answer(asked.question, PICTURE.path, asked.history)
        assert isinstance(last, Finished)
        assert last.text.strip() == asked.answer
    assert 1 in rows
    assert max(rows) > 100
