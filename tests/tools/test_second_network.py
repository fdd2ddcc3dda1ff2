"""The comparisons with optimum's GPTQ and AutoRound count bytes fairly and are optional."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import autoround, optimum_gptq, second_network
from benchmarks.second_network import round_evenly, split


class Encoder(nn.Module):
    """A network with the names that MiniLM has, and one matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList([nn.Sequential(nn.Linear(384, 256))])

    @property
    def matrix(self) -> Tensor:
        return next(linear.weight for _, linear in second_network.linears(self)).detach()


def test_without_the_packages_the_part_ends_with_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(optimum_gptq, "PACKAGES", ("no_such_optimum", "no_such_gptqmodel"))
    monkeypatch.setattr(sys, "argv", ["second_network", "--part", "rival"])
    with pytest.raises(SystemExit) as stopped:
        second_network.main()
    assert "no_such_optimum and no_such_gptqmodel not installed" in str(stopped.value)
    assert "benchmarks/optimum_gptq.py" in str(stopped.value)


def test_without_autoround_its_part_ends_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(autoround, "PACKAGES", ("no_such_autoround",))
    monkeypatch.setattr(sys, "argv", ["second_network", "--part", "autoround"])
    with pytest.raises(SystemExit) as stopped:
        second_network.main()
    assert "no_such_autoround not installed" in str(stopped.value)
    assert "benchmarks/autoround.py" in str(stopped.value)


def test_the_halves_share_no_chapter_and_change_places() -> None:
    texts = [(number // 3, torch.tensor([[number]])) for number in range(60)]
    fitted, asked = split(texts, 1, 2)
    assert {chapter % 2 for chapter, _ in fitted} == {0}
    assert {chapter % 2 for chapter, _ in asked} == {1}
    assert len(fitted) == len(asked) == 15
    assert split(texts, 0, 2) == (asked, fitted)


def test_nf4_bits_are_codes_scales_and_their_scales() -> None:
    needed, stored = second_network._nf4_bits(Encoder())
    weights = 384 * 256
    # Groups of 64 have 8-bit scales, 256 of them a float32; the matrix has a mean of all scales.
    assert needed * weights == 4 * weights + 8 * weights / 64 + 32 * weights / 64 / 256 + 32
    assert (stored - needed) * weights == pytest.approx(32 * (16 + 256))


def test_even_steps_change_a_weight_by_half_a_step_at_most() -> None:
    net = Encoder()
    before = net.matrix.clone()
    bits, with_groups = round_evenly(net)
    rows = before.view(-1, 128)
    step = (rows.amax(1) - rows.amin(1)) / 15
    change = (net.matrix.view(-1, 128) - rows).abs().amax(1)
    assert bool((change <= 0.51 * step).all())
    assert bits == 4 + 16 / 128 + 4 / 128
    assert with_groups == bits + 32 / 256


@pytest.mark.filterwarnings("default")  # those of torchao and of transformers, which optimum calls
def test_optimum_quantizes_a_small_bert_in_the_bits_that_are_counted() -> None:
    pytest.importorskip("gptqmodel")
    pytest.importorskip("optimum")
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape: Any = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}
    model = BertModel(BertConfig(num_hidden_layers=1, vocab_size=64, **shape)).eval()
    texts = [torch.randint(64, (1, 32)) for _ in range(16)]
    made = optimum_gptq.quantize(model, texts, optimum_gptq.Settings())
    assert made.bits_per_weight == 4 + 16 / 128 + 4 / 128
    linears = dict(model.named_modules())
    assert len(made.weights) == 6
    for name, weight in made.weights.items():
        original: Any = linears[name]
        relative = (weight - original.weight).norm() / original.weight.norm()
        assert 0.01 < relative < 0.3, name


@pytest.mark.filterwarnings("default")  # those of the packages that AutoRound calls
@pytest.mark.parametrize("group", [128, 64])
def test_autoround_quantizes_a_small_bert_in_the_bits_that_are_counted(group: int) -> None:
    pytest.importorskip("auto_round")
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape: Any = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}
    model = BertModel(BertConfig(num_hidden_layers=2, vocab_size=64, **shape)).eval()
    texts = [torch.randint(1, 64, (1, 16 + number)) for number in range(8)]
    settings = autoround.Settings(sym=False, group_size=group, iters=2)
    made = autoround.quantize(model, texts, settings)
    assert made.bits_per_weight == 4 + (16 + 4) / group
    linears = dict(model.named_modules())
    assert len(made.weights) == 12
    for name, weight in made.weights.items():
        original: Any = linears[name]
        relative = (weight - original.weight).norm() / original.weight.norm()
        assert 0.01 < relative < 0.3, name
        assert len(weight[0, :group].unique()) <= 16, name
