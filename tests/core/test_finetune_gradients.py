"""Losses, gradients and steps against the released code with peft."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.errors import AdapterError, UsageError
from cogvlm2_lite.finetune.gradients import _leaf, loss_and_gradients
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.samples import TrainedPair
from cogvlm2_lite.finetune.update import Optimizer, OptimizerSettings, rate_factor
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.weights.adapter import pairs_of, peft_name
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from cogvlm2_lite.weights.catalog import Catalog
from tests.helpers.conversion import quantize
from tests.helpers.finetune import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    golden,
    sample,
    training_samples,
    worst,
)
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.matrices import rounds_inputs

PAIR_LOSSES = {
    "demo": 8.131508827209473,
    "language": 8.191847801208496,
    "experts": 8.033580780029297,
    "tower": 8.37393,
}


@pytest.fixture(scope="module")
def quantized_golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune") / "nf4"
    quantize(CHECKPOINT, folder)
    return folder


def gradients_of(
    *cases: str, adapter: dict[str, Tensor], acts_on: str = "all", path: Path = CHECKPOINT
) -> tuple[float, dict[str, Tensor]]:
    return loss_and_gradients(
        path, [sample(case) for case in cases], adapter=adapter, alpha=8.0, acts_on=acts_on
    )


@pytest.mark.parametrize("targets", PAIR_LOSSES)
def test_loss_and_gradients_are_those_of_the_released_code(targets: str) -> None:
    loss, gradients = gradients_of("s1", "s2", adapter=golden(f"{targets}/init"))
    assert abs(loss - PAIR_LOSSES[targets]) < LOSS_TOLERANCE
    assert worst(gradients, golden(f"{targets}/grad")) < GRADIENT_TOLERANCE


@pytest.mark.parametrize("targets", ["language", "experts"])
def test_samples_about_one_picture_get_the_gradients_of_their_mean(targets: str) -> None:
    _, gradients = gradients_of("talk1", "talk2", "talk3", adapter=golden(f"{targets}/init"))
    assert worst(gradients, golden(f"{targets}/talks_grad")) < GRADIENT_TOLERANCE


def test_an_adapter_behind_the_picture_gets_no_gradient_from_before_it() -> None:
    init = golden("language/init")
    cases = ("talk1", "talk2", "talk3")
    _, gradients = gradients_of(*cases, adapter=init, acts_on=BEHIND_PICTURE)
    assert worst(gradients, golden("behind/talks_grad")) < GRADIENT_TOLERANCE


def test_a_base_in_4_bits_gives_the_gradients_of_its_dequantized_matrices(
    quantized_golden: Path,
) -> None:
    init = golden("experts/init")
    loss, gradients = gradients_of("s1", "s2", adapter=init, path=quantized_golden)
    integers = rounds_inputs()
    assert abs(loss - 7.77942) < (5e-3 if integers else LOSS_TOLERANCE)
    assert worst(gradients, golden("nf4/grad")) < (0.02 if integers else GRADIENT_TOLERANCE)


def test_bfloat16_keeps_loss_and_directions() -> None:
    init = golden("experts/init")
    samples = [sample("s1"), sample("s2")]
    loss, gradients = loss_and_gradients(
        CHECKPOINT, samples, adapter=init, alpha=8.0, dtype="bfloat16"
    )
    assert abs(loss / PAIR_LOSSES["experts"] - 1) < 0.005
    for name, expected in golden("experts/grad").items():
        if expected.any():
            angle = torch.nn.functional.cosine_similarity(
                gradients[name].flatten(), expected.flatten(), dim=0
            )
            assert float(angle) >= 0.99, name


def test_a_step_can_be_repeated_in_float32() -> None:
    init = golden("experts/init")
    config = read_config(CHECKPOINT)
    found, rank = pairs_of(init, config)
    pairs = {n: TrainedPair(down=_leaf(a), up=_leaf(b)) for n, (a, b) in found.items()}
    samples = training_samples("s1", "s2")
    network = LearningNetwork.for_samples(
        Catalog.open(CHECKPOINT, config), pairs, samples, scale=8 / rank, acts_on="all",
        compute=choose_compute("cpu", "bfloat16"), rope=RopeMode.REFERENCE,
    )  # fmt: skip
    first = network.accumulate(samples)
    for pair in pairs.values():
        for leaf in (pair.down, pair.up):
            assert leaf.grad is not None
            leaf.grad.zero_()
    exact = network.accumulate(samples, dtype=torch.float32)
    assert abs(exact - PAIR_LOSSES["experts"]) < LOSS_TOLERANCE
    gradients = {
        peft_name(name, side): leaf.grad
        for name, pair in pairs.items()
        for side, leaf in (("A", pair.down), ("B", pair.up))
        if leaf.grad is not None
    }
    assert worst(gradients, golden("experts/grad")) < GRADIENT_TOLERANCE
    assert network.accumulate(samples) == first != exact


def test_three_steps_of_adamw_end_at_the_same_weights() -> None:
    leaves = {n: t.clone().requires_grad_() for n, t in golden("language/init").items()}
    settings = OptimizerSettings(weight_decay=0.01)
    optimizer = Optimizer(list(leaves.values()), settings)
    norms = []
    for number, (rate, cases) in enumerate(
        ((0.002, ("s1", "s2")), (0.0015, ("t1", "s1")), (0.001, ("s2", "talk1"))), 1
    ):
        _, gradients = gradients_of(*cases, adapter={n: t.detach() for n, t in leaves.items()})
        for name, leaf in leaves.items():
            leaf.grad = gradients[name]
        norms.append(optimizer.step(rate))
        if number != 2:
            expected = golden(f"language/step{number}")
            off = torch.cat([(leaves[n].detach() - t).abs().flatten() for n, t in expected.items()])
            assert float((off > 1e-5).float().mean()) <= 0.001
            assert float(off.max()) < 5e-3
    wanted = (8.055034637451172, 8.183757781982422, 7.813559055328369)
    assert norms == pytest.approx(wanted, rel=1e-4)


def test_the_learning_rate_rises_and_falls_along_a_cosine() -> None:
    wanted = {0: 0.1, 4: 0.5, 9: 1.0, 50: 0.905113, 100: 0.587161, 150: 0.245223, 199: 0.100062}
    assert {step: round(rate_factor(step, 200), 6) for step in wanted} == wanted


def test_gradients_that_are_not_finite_change_nothing() -> None:
    leaf = torch.ones(2).requires_grad_()
    leaf.grad = torch.tensor([1.0, float("nan")])
    norm = Optimizer([leaf], OptimizerSettings()).step(0.1)
    assert norm != norm
    assert leaf.tolist() == [1.0, 1.0]
    assert leaf.grad.tolist() == [0.0, 0.0]


def test_what_can_not_be_trained_is_named() -> None:
    init, one = golden("demo/init"), sample("s1")
    labels = one["labels"]
    assert labels is not None
    untrained = {**one, "labels": torch.full_like(labels, -100)}
    wrong = {"base_model.model.lm_head.lora_A.weight": torch.zeros(4, 128)}
    with pytest.raises(UsageError, match="no labels"):
        loss_and_gradients(CHECKPOINT, [untrained], adapter=init, alpha=8.0)
    with pytest.raises(UsageError, match="acts_on"):
        loss_and_gradients(CHECKPOINT, [one], adapter=init, alpha=8.0, acts_on="some")
    with pytest.raises(UsageError, match="places for 11 image tokens"):
        loss_and_gradients(CHECKPOINT, [{**one, "pixel_values": None}], adapter=init, alpha=8.0)
    with pytest.raises(AdapterError, match=r"lm_head.*not supported"):
        loss_and_gradients(CHECKPOINT, [one], adapter=wrong, alpha=8.0)
