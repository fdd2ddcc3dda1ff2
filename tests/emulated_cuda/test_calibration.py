"""Calibration on emulated GPUs: the same codes in every order of the queued work.

The checkpoint has random weights, one vision layer and one decoder layer; every matrix has 64
columns. For the same inputs, matrices get the codes of the CPU. The inputs differ in the last bits,
because the blocks of the model run other operations on a GPU.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cogvlm2_lite.backends.base import Graph
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.samples.samples import Sample
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.manifest import MANIFEST_NAME
from quantize.calibration.batched import (
    LAUNCHES_PER_BLOCK,
    OPERATIONS_PER_COLUMN,
    BatchRounder,
    Problem,
)
from quantize.calibration.calibrate import Task
from quantize.calibration.gptq import Calibration, round_matrix
from quantize.calibration.statistics import Hessian
from quantize.command import main, verify_main
from quantize.events import Calibrated, Event
from quantize.pipeline import Calibrate, convert
from quantize.recipe import QuantizeOptions, Recipe
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Order
from tests.helpers.calibration import calibrate_with, made_samples
from tests.helpers.conversion import QUICK, hashes, load_all, write_source
from tests.helpers.folders import write_tokenizer

SETTINGS = QuantizeOptions(calibration="a test")
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_multi_query_heads": 1,
    "num_hidden_layers": 1,
    "vision.intermediate_size": 64,
    "vision.num_hidden_layers": 1,
}


@dataclass(frozen=True)
class Known:
    """A checkpoint, its samples, and what a GPU makes of it."""

    source: Path
    samples: list[Sample]
    result: Path
    hashes: dict[str, str]
    events: list[Event]
    allocations: int


def convert_on(device: str, source: Path, target: Path, samples: list[Sample]) -> Iterator[Event]:
    inner = calibrate_with(samples)

    def task(recipe: Recipe, folder: Path) -> Task:
        return replace(inner(recipe, folder), compute=choose_compute(device, "float32"))

    return convert(source, target, SETTINGS, QUICK, task)


def weights_of(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name.startswith("model-")}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    place = tmp_path_factory.mktemp("calibration")
    source, samples = write_source(place / "source", changes=SMALL), made_samples(8)
    with emulated_cuda() as machine:
        events = list(convert_on("cuda", source, place / "q", samples))
        hashed, count = weights_of(place / "q"), machine.allocations
        return Known(source, samples, place / "q", hashed, events, count)


def test_the_weights_are_those_of_the_cpu(known: Known, tmp_path: Path) -> None:
    events = list(convert_on("cpu", known.source, tmp_path / "q", known.samples))
    rows, expected = (
        {e.tensor: e for e in some if isinstance(e, Calibrated)} for some in (known.events, events)
    )
    assert rows.keys() == expected.keys()
    for name, row in expected.items():
        assert rows[name].kept == row.kept == "calibrated"
        # Each matrix is fitted to the errors of those before it, so a code that differs changes all
        # later ones a little. Some errors are smaller then; none may be much larger.
        if name.startswith("model.vision.transformer"):
            assert rows[name].error == pytest.approx(row.error, rel=0.02)
        assert rows[name].error < 1.25 * row.error
    ratios = [math.log(rows[name].error / row.error) for name, row in expected.items()]
    assert abs(sum(ratios) / len(ratios)) < 0.05
    # The blocks of a GPU sum in another order, so a code may differ that is near to two levels.
    found, right = load_all(known.result), load_all(tmp_path / "q")
    codes = [name for name, tensor in right.items() if tensor.dtype == torch.uint8]
    equal = sum(int((found[name] == right[name]).sum()) for name in codes)
    assert equal > 0.93 * sum(right[name].numel() for name in codes)


@pytest.mark.parametrize(("order", "seed"), [(Order.LATE, 0), (Order.RANDOM, 1)])
def test_no_order_of_the_work_changes_a_weight(
    known: Known, tmp_path: Path, order: Order, seed: int
) -> None:
    """On the second of two GPUs."""
    with emulated_cuda(devices=2, order=order, seed=seed) as machine:
        list(convert_on("cuda:1", known.source, tmp_path / "q", known.samples))
        assert weights_of(tmp_path / "q") == known.hashes
        assert machine.held[0] == 0


def test_a_calibration_goes_on_after_each_failed_allocation(known: Known, tmp_path: Path) -> None:
    """Allocations fail again and again; each time the same command is run again."""
    target, failed, left = tmp_path / "q", 0, known.allocations // 20
    messages: list[str] = []
    while not target.exists():
        with emulated_cuda() as machine:
            machine.fail_at = left
            try:
                list(convert_on("cuda", known.source, target, known.samples))
            except DoesNotFitError as error:
                messages.append(f"{error} {error.hint}")
            failed += machine.allocations >= left
        left = left * 5 // 4 + 1
    assert weights_of(target) == known.hashes
    assert all("memory of cuda:0 is not enough" in message for message in messages)
    assert all("run the same command again" in message for message in messages)
    # Where matrices were rounded together, they were rounded one by one instead.
    assert failed > len(messages) > 0


def test_tokens_have_weights_on_a_gpu_as_on_the_cpu(known: Known, tmp_path: Path) -> None:
    how = Calibration(descents=0, token_weights="gradient")
    found: list[dict[str, Tensor]] = []
    for device in ("cuda", "cpu"):
        inner = calibrate_with(known.samples, how=how)

        def task(
            recipe: Recipe, folder: Path, device: str = device, inner: Calibrate = inner
        ) -> Task:
            return replace(inner(recipe, folder), compute=choose_compute(device, "float32"))

        with emulated_cuda():
            work = convert(known.source, tmp_path / device, SETTINGS, QUICK, task)
            with closing(work):
                for event in work:
                    if isinstance(event, Calibrated):
                        break
        files = (tmp_path / f"{device}.partial").glob("calibration/token_weights/*")
        found.append({name: t for file in files for name, t in load_file(file).items()})
    assert found[0].keys() == found[1].keys()
    assert found[0]
    for name, squares in found[0].items():
        torch.testing.assert_close(squares, found[1][name], rtol=1e-2, atol=1e-9)


# --- rounding -------------------------------------------------------------------------------------


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def hessian(columns: int, seed: int) -> Tensor:
    mix = random(columns, columns, seed=seed) / columns**0.5 + torch.eye(columns)
    inputs = random(1000, columns, seed=seed + 1) @ mix
    return inputs.t() @ inputs / len(inputs)


WEIGHTS = [random(24, 192, seed=number) * 0.02 for number in range(3)]
HESSIANS = [hessian(192, seed=10 + number) for number in range(3)]


def problems(numbers: range, device: str) -> list[Problem]:
    return [
        Problem(
            weight=WEIGHTS[number].to(device),
            hessian=lambda number=number: HESSIANS[number].to(device, copy=True),
            inputs=1000,
        )
        for number in numbers
    ]


HOW = Calibration(descents=3)


def rounded(rounder: BatchRounder, numbers: range) -> list[Tensor]:
    found = rounder.round(problems(numbers, "cuda"), HOW)
    assert not any(isinstance(each, ArithmeticError) for each in found)
    return [each.codes.cpu() for each in found if not isinstance(each, ArithmeticError)]


def test_matrices_get_the_same_codes_alone_and_together_and_with_graphs() -> None:
    expected = [
        round_matrix(weight, each.clone, 1000, HOW).codes
        for weight, each in zip(WEIGHTS, HESSIANS, strict=True)
    ]
    with emulated_cuda(order=Order.LATE):
        rounder = BatchRounder(torch.device("cuda", 0))
        together = rounded(rounder, range(3))
        assert rounder.graphs is not None
        assert rounder.graphs.trouble == ""
        assert rounder.graphs.replays > 0
        rounder.graphs = None  # operations one by one
        alone = [rounded(rounder, range(number, number + 1))[0] for number in range(3)]
    for one, other, third in zip(expected, together, alone, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(other, third)


def test_a_matrix_without_inputs_does_not_disturb_the_others() -> None:
    with emulated_cuda():
        rounder, some = BatchRounder(torch.device("cuda", 0)), problems(range(3), "cuda")
        some[1] = replace(some[1], hessian=lambda: torch.zeros(192, 192, device="cuda"))
        found = rounder.round(some, HOW)
        assert isinstance(found[1], ArithmeticError)
        alone = rounded(rounder, range(2, 3))[0]
        last = found[2]
        assert not isinstance(last, ArithmeticError)
        assert torch.equal(last.codes.cpu(), alone)


def test_a_graph_that_is_wrong_changes_no_code() -> None:
    with emulated_cuda():
        rounder = BatchRounder(torch.device("cuda", 0))
        expected = rounded(rounder, range(1))[0]

        def capture(work: Callable[[], Tensor]) -> Graph:
            def replay() -> None:
                for block in rounder._blocks.values():
                    block.codes.zero_()

            return Graph(replay=replay, output=torch.zeros_like(work()))

        rounder.graphs = GraphCache(lambda: capture)
        assert torch.equal(rounded(rounder, range(1))[0], expected)
        assert "different numbers" in rounder.graphs.trouble


@pytest.mark.parametrize("how", [replace(HOW, gptq=False), replace(HOW, descents=0)])
def test_each_method_alone_chooses_the_codes_of_the_cpu(how: Calibration) -> None:
    with emulated_cuda():
        (found,) = BatchRounder(torch.device("cuda", 0)).round(problems(range(1), "cuda"), how)
        assert not isinstance(found, ArithmeticError)
        codes, values = found.codes.cpu(), found.values.cpu()
    expected = round_matrix(WEIGHTS[0], HESSIANS[0].clone, 1000, how)
    assert torch.equal(codes, expected.codes)
    assert torch.equal(values, expected.values)


class Operations(TorchDispatchMode):
    """Counts operations; a view is none."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_few_operations_are_started_for_each_column() -> None:
    """Five for GPTQ and for each of four descents, for all matrices; few for each 128 columns."""
    how = Calibration(search=False)
    with Operations() as separate:
        for weight, each in zip(WEIGHTS, HESSIANS, strict=True):
            round_matrix(weight, each.clone, 1000, how)
    with Operations() as together:
        BatchRounder(torch.device("cpu")).round(problems(range(3), "cpu"), how)
    assert separate.count / (3 * 192) == pytest.approx(94, abs=3)
    assert together.count / 192 == pytest.approx(OPERATIONS_PER_COLUMN * 5, rel=0.2)


def test_a_graph_is_started_once_for_128_columns() -> None:
    how = replace(HOW, search=False)
    with emulated_cuda():
        rounder = BatchRounder(torch.device("cuda", 0))
        for _ in range(2):  # a graph is captured when work is repeated for the first time
            rounder.round(problems(range(1), "cuda"), how)
        with Operations() as later:
            rounder.round(problems(range(1), "cuda"), how)
    # One by one, 192 columns would be 3,840 operations. The estimate counts the two blocks.
    assert later.count < 300
    assert pytest.approx(later.count, rel=0.35) == LAUNCHES_PER_BLOCK * 4 * 2


def test_buffers_and_graphs_are_freed_together() -> None:
    with emulated_cuda() as machine:
        rounder = BatchRounder(torch.device("cuda", 0))
        rounded(rounder, range(1))
        assert rounder.graphs is not None
        assert rounder.graphs.replays > 0
        kept = machine.held[0]
        rounder.forget()
        gc.collect()
        # given, value, scale, errors and wanted of 128 columns and 24 rows, and more
        assert machine.held[0] <= kept - 5 * 4 * 128 * 24


def test_the_inputs_of_a_sample_are_added_with_five_operations() -> None:
    """So running the samples is bound by products: a picture takes 117 TFLOP in the tower."""
    with emulated_cuda():
        seen = Hessian(64, torch.device("cuda", 0), every=2)
        inputs = torch.ones(1, 37, 64, device="cuda", dtype=torch.bfloat16)
        with Operations() as operations:
            seen.add(inputs)
    assert operations.count <= 5


# --- the command ----------------------------------------------------------------------------------


def test_the_command_calibrates_on_a_gpu_and_continues(
    known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the default budget, out of memory in the middle, and on the GPU that auto finds."""
    source, target = tmp_path / "source", tmp_path / "q"
    shutil.copytree(known.source, source)
    write_tokenizer(source)
    words = [str(source), str(target), "--calibrate", "built-in", "--samples", "8", "--yes"]
    with emulated_cuda(order=Order.LATE) as machine:
        machine.fail_at = 300
        assert main(words) != 0
    shown = capsys.readouterr()
    assert "memory of cuda:0 is not enough for the calibration" in shown.err
    assert "in 16 bits: for a GPU, int8 is slower" in shown.out
    with emulated_cuda(order=Order.RANDOM, seed=2):
        assert main(words) == 0
    settings = json.loads((target / MANIFEST_NAME).read_text())["settings"]
    assert (settings["target"], settings["budget"]) == ("gpu", "+5%")
    kinds = {t.kind for t in Catalog.open(target, read_config(target)).tensors.values()}
    assert kinds == {"dense", "nf4"}
    assert "held-out samples:" in capsys.readouterr().out
    assert verify_main([str(target)]) == 0
