"""Weights on an emulated GPU: how they get there, and how they are multiplied."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.slots import Linear
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Machine, Order
from tests.helpers.checkpoints import SPECS, four_bit, golden_tensors, open_folder, write_folder

CUDA = torch.device("cuda:0")
HEAD = "lm_head.weight"


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("weights") / "nf4", four_bit(golden_tensors()))


def filled(folder: Path, machine: Machine | None = None) -> Linear:
    """Return a matrix on the GPU; the machine counts only what its upload did."""
    loader = WeightLoader(open_folder(folder), device=CUDA, dtype=torch.bfloat16)
    rows, columns = SPECS[HEAD].shape
    slot = Linear(HEAD, columns, rows)
    if machine is not None:
        machine.syncs.clear()
        machine.launches.clear()
    loader.fill(slot)
    return slot


def test_the_upload_of_a_matrix_reads_nothing_back_and_copies_only_what_is_used(nf4: Path) -> None:
    with emulated_cuda(order=Order.LATE) as machine:
        slot = filled(nf4, machine)
        assert set(machine.syncs) <= {"stream.synchronize", "event.synchronize"}  # its own waits
        # Codes, scales, levels, nested scales, their map and their offset.
        assert machine.launches["copy to device"] <= 6
        x = torch.ones(1, slot.in_features, dtype=torch.bfloat16, device=CUDA)
        assert torch.isfinite(slot(x)).all()
