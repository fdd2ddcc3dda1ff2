"""Targets of the original network, and tokens that count for more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from cogvlm2_lite.weights.slots import Linear
from quantize.calibration.gptq import Calibration, distance, round_matrix, shifted
from quantize.calibration.network import Network
from quantize.calibration.stages import model_stages
from quantize.calibration.statistics import HeldOutPairs, Hessian, PairMoments
from quantize.calibration.token_weights import TokenWeights, weights_of
from quantize.events import TOKEN_WEIGHTS, Calibrated, CalibrationProgress
from quantize.pipeline import convert
from tests.helpers.calibration import HOW, SETTINGS, ByteTokenizer, calibrate_with, made_samples
from tests.helpers.conversion import CHECKPOINT, QUICK, hashes, open_catalog

CPU = torch.device("cpu")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moments(f: Tensor, x: Tensor, weights: Tensor | None = None) -> PairMoments:
    found = PairMoments(f.shape[1], CPU)
    found.add(f, x, weights)
    found.keep()
    return found


def shift(weight: Tensor, fit: PairMoments) -> Tensor:
    return shifted(weight, fit.shift, fit.matrix, fit.count)


# --- one matrix -----------------------------------------------------------------------------------


def test_a_shifted_matrix_gives_the_outputs_of_the_original_network() -> None:
    weight, f = random(48, 128, seed=1), random(6000, 128, seed=2)
    x = f + 0.2 * f @ random(128, 128, seed=3) / 128**0.5  # the errors depend on the inputs
    fit, wanted = moments(f[:4000], x[:4000]), f[4000:] @ weight.t()
    target = shift(weight, fit)
    results = [weight, target]
    results += [round_matrix(one, fit.matrix, fit.count, HOW).values for one in (weight, target)]
    errors = [distance(values, x[4000:], wanted) for values in results]
    assert errors[1] < 0.05 * errors[0]
    assert errors[3] < 0.5 * errors[2]


def test_without_errors_before_it_nothing_is_shifted() -> None:
    weight, f = random(16, 64, seed=1), random(500, 64, seed=2)
    fit, older = moments(f, f), Hessian(64, CPU, every=1)
    older.add(f)
    older.keep()
    assert torch.equal(shift(weight, fit), weight)
    assert torch.equal(fit.matrix(), older.matrix())
    assert torch.equal(fit.mean, older.mean)
    assert torch.equal(fit.mean, fit.original_mean)


def test_equal_weights_are_no_weights_and_others_are_counts(tmp_path: Path) -> None:
    f, x = random(300, 64, seed=1), random(300, 64, seed=2)
    plain, ones = moments(f, x), moments(f, x, torch.ones(300))
    assert torch.equal(plain.matrix(), ones.matrix())
    assert torch.equal(plain.shift(), ones.shift())
    # An input with the weight 2 counts as two of them.
    twice = moments(torch.cat((f, f[:100])), torch.cat((x, x[:100])))
    weighted = PairMoments(64, CPU)
    weighted.add(f, x, torch.where(torch.arange(300) < 100, 2.0, 1.0))
    weighted.spill(tmp_path / "some" / "matrix")
    torch.testing.assert_close(weighted.matrix(), twice.matrix())
    torch.testing.assert_close(weighted.shift(), twice.shift())
    weighted.forget()
    assert not list((tmp_path / "some").iterdir())


def test_a_small_difference_keeps_its_digits() -> None:
    f = 1000 + random(4000, 64, seed=1)
    x = f + 1e-3 * (f - 1000)
    x -= (x - f) % 2**-13  # exact in float32
    right = ((f.double() - x.double()).t() @ x.double()) / len(x)
    torch.testing.assert_close(moments(f, x).shift().double(), right, rtol=1e-3, atol=1e-4)


def test_no_held_out_pairs_are_none() -> None:
    pairs = HeldOutPairs()
    assert pairs.pairs is None
    pairs.add(torch.empty(0, 64), torch.empty(0, 64))
    assert pairs.pairs is None


@pytest.mark.parametrize("mean", [0.0, float("nan"), float("inf")])
def test_tokens_without_gradients_count_alike(mean: float) -> None:
    assert weights_of(torch.zeros(3), mean).tolist() == [1, 1, 1]


def test_weights_are_square_roots_within_bounds() -> None:
    found = weights_of(torch.tensor([0.0, 4.0, 1e9]), 1.0)
    assert found.tolist() == pytest.approx([1e-3**0.5, 2, 50**0.5])


# --- the gradients --------------------------------------------------------------------------------


def test_gradients_are_those_of_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computed part by part with files between, and by torch through everything at once."""
    samples = made_samples(8)
    shown = next(sample for sample in samples if sample.image is not None)
    samples.append(replace(shown, question="And what is this?"))
    network = Network(
        open_catalog(CHECKPOINT),
        samples,
        ByteTokenizer(),  # type: ignore[arg-type]
        device=CPU,
        dtype=torch.float32,
    )
    list(TokenWeights(network, tmp_path / "w", frozenset()).compute())
    assert [file.name for file in tmp_path.iterdir()] == ["w"]
    found = {name: t for f in (tmp_path / "w").iterdir() for name, t in load_file(f).items()}
    seen: dict[str, Tensor] = {}

    def call(linear: Linear, x: Tensor, _: object = None) -> Tensor:
        assert linear.stored is not None
        bias = linear.bias.tensor if linear.bias else None
        y = F.linear(x, linear.stored.dequantize(torch.float32), bias)
        y.retain_grad()
        seen[linear.name] = y
        return y

    stages = [*model_stages(network)]
    for stage in stages:
        network.fill(stage.slots)
    head = network.parts.decoder.head
    network.fill(head.slots())
    picture = network.picture_of[-1]
    assert picture is not None
    about = [n for n, other in enumerate(network.picture_of) if other == picture]
    assert len(about) > 1
    monkeypatch.setattr(Linear, "__call__", call)
    features: Tensor | None = None
    for stage in stages:
        if stage.of_pictures:
            features = stage.run((picture, 0), features)
            features = features.detach().requires_grad_() if stage is stages[0] else features
    tower, loss = dict(seen), torch.zeros(())
    of_sample: dict[int, dict[str, Tensor]] = {}
    for sample in about:
        hidden = features
        for stage in stages:
            if not stage.of_pictures:
                hidden = stage.run((sample, 0), hidden)
        assert hidden is not None
        of_sample[sample] = dict(seen)
        tokens = network.tokens[sample]
        first = int(tokens.token_type_ids[0].nonzero()[0][-1])
        logs = head(hidden[:, first:])[0].log_softmax(-1)
        chance, labels = torch.Generator().manual_seed(sample), []
        for some in torch.split(logs.detach().exp(), 64):
            labels.append(torch.multinomial(some, 1, generator=chance))
        own = logs.gather(1, torch.cat(labels))[:, 0]
        counts = torch.where(torch.arange(len(own)) + first >= tokens.scored, 4.0, 1.0)
        loss = loss + (own * counts).sum()
    loss.backward()
    compared = 0
    for number, outputs in ((picture, tower), *of_sample.items()):
        for name, y in outputs.items():
            squares = found.get(f"{name} {number}")
            # Where two matrices share their inputs, the file has the sum.
            in_tower = name.startswith("model.vision")
            if squares is None or "gate_proj" in name or in_tower != (outputs is tower):
                continue
            assert y.grad is not None
            right = y.grad.square().sum(-1).flatten()
            torch.testing.assert_close(squares, right, rtol=1e-3, atol=1e-9)
            compared += bool(right.any())
    assert compared >= 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test kills forks of itself")
def test_a_killed_calibration_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    """Killed by SIGKILL while weighing tokens, behind it, and while rounding."""
    program = """
import os, signal, sys
from pathlib import Path
import torch
from tests.quantize.test_two_streams import weighted

torch.set_num_threads(1)
for count in map(int, sys.argv[2:]):
    child = os.fork()
    if child == 0:
        for number, _ in enumerate(weighted(Path(sys.argv[1]))):
            if number == count:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
"""
    moments = ["2", "5", "12"]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "again"), *moments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["-9"] * len(moments)
    assert not (tmp_path / "again").exists()
    list(weighted(tmp_path / "again"))
    weighed = [e for e in weighted(tmp_path / "whole") if e.block == TOKEN_WEIGHTS]
    assert [e.done for e in weighed] == list(range(1, weighed[0].total + 1))
    assert hashes(tmp_path / "again") == hashes(tmp_path / "whole")


def weighted(target: Path) -> Iterator[CalibrationProgress]:
    """Calibrate with token weights; yield the progress."""
    how = Calibration(descents=0, token_weights="gradient")
    work = convert(CHECKPOINT, target, SETTINGS, QUICK, calibrate_with(made_samples(8), how=how))
    yield from (event for event in work if isinstance(event, CalibrationProgress))


def test_the_first_rounds_method_is_still_there(tmp_path: Path) -> None:
    how = Calibration(descents=0, targets="rounded")
    calibrate = calibrate_with(made_samples(8), how=how)
    events = list(convert(CHECKPOINT, tmp_path / "q", SETTINGS, QUICK, calibrate))
    blocks = [e.block for e in events if isinstance(e, CalibrationProgress)]
    assert "vision layer 0" in blocks
    rows = [e for e in events if isinstance(e, Calibrated)]
    assert any(row.kept == "calibrated" for row in rows)
