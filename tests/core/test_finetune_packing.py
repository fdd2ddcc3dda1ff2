"""Packed samples get the losses and gradients of separate sequences; slices those of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.backends.cpu import CpuBackend
from cogvlm2_lite.backends.registry import replaced
from cogvlm2_lite.config import read_config
from cogvlm2_lite.engine.assembly import ModelParts, assemble
from cogvlm2_lite.finetune import blocks, passes, talks
from cogvlm2_lite.finetune.blocks import Halves, PackStep, projector_halves, vision_halves
from cogvlm2_lite.finetune.gradients import loss_and_gradients
from cogvlm2_lite.finetune.pairs import NAME, GradientSums, TrainedPairs
from cogvlm2_lite.finetune.samples import TrainedPair
from cogvlm2_lite.finetune.talks import PackLimits, make_packs
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.weights.adapter import pairs_of
from cogvlm2_lite.weights.adapter_names import ACTS_ON
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.loader import WeightLoader
from cogvlm2_lite.weights.slots import Adapted
from cogvlm2_lite.weights.storage import quantized
from quantize.recipe import Keep
from tests.helpers.conversion import SMALL_SHARDS, quantize
from tests.helpers.finetune import golden, sample, training_samples
from tests.helpers.goldens import CHECKPOINT

Sample = Mapping[str, Tensor | None]
TALKS = ("talk1", "talk2", "talk3")
CLOSE = 4e-6


def given(values: Sample, name: str) -> Tensor:
    found = values[name]
    assert found is not None
    return found


def cut(values: Sample, tokens: int) -> Sample:
    names = ("input_ids", "token_type_ids", "labels")
    return {**values, **{name: given(values, name)[:, :tokens] for name in names}}


def labelled(values: Sample, *places: int) -> Sample:
    labels = torch.full_like(given(values, "labels"), -100)
    labels[0, list(places)] = given(values, "input_ids")[0, list(places)]
    return {**values, "labels": labels}


def packed(
    samples: Sequence[Sample], targets: str, acts_on: str
) -> tuple[float, dict[str, Tensor]]:
    return loss_and_gradients(
        CHECKPOINT, samples, adapter=golden(f"{targets}/init"), alpha=8.0, acts_on=acts_on
    )


def separate(
    samples: Sequence[Sample], targets: str, acts_on: str
) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients from one call per sample."""
    counts = [int((given(each, "labels")[0, 1:] != -100).sum()) for each in samples]
    total, sums = 0.0, {n: torch.zeros_like(t) for n, t in golden(f"{targets}/init").items()}
    for each, count in zip(samples, counts, strict=True):
        if count:
            loss, gradients = packed([each], targets, acts_on)
            total += loss * count / sum(counts)
            for name, gradient in gradients.items():
                sums[name] += gradient * (count / sum(counts))
    return total, sums


def assert_equal(samples: Sequence[Sample], targets: str, acts_on: str = "all") -> None:
    loss, gradients = packed(samples, targets, acts_on)
    expected_loss, expected = separate(samples, targets, acts_on)
    assert abs(loss - expected_loss) < 2e-6
    for name, gradient in expected.items():
        assert float((gradients[name] - gradient).abs().max()) < CLOSE, name
        assert gradient.any() or not gradients[name].any(), name


@pytest.mark.parametrize("targets", ["language", "experts"])
def test_packed_gradients_are_those_of_the_released_code(targets: str) -> None:
    _, gradients = packed([sample(case) for case in TALKS], targets, "all")
    for name, expected in golden(f"{targets}/talks_grad").items():
        assert float((gradients[name] - expected).abs().max()) < CLOSE, name


@pytest.mark.parametrize("acts_on", ACTS_ON)
@pytest.mark.parametrize("targets", ["language", "experts", "demo"])
def test_packed_gradients_are_those_of_separate_samples(targets: str, acts_on: str) -> None:
    cases = ("talk1", "t1", "s2", "talk2", "s1", "talk3", "t1", "cut")
    assert_equal([sample(case) for case in cases], targets, acts_on)


def test_a_trained_tower_gets_the_gradients_of_all_its_samples() -> None:
    cases = ("talk1", "s2", "talk2")
    loss, gradients = packed([sample(case) for case in cases], "tower", "all")
    expected_loss, expected = separate([sample(case) for case in cases], "tower", "all")
    assert abs(loss - expected_loss) < 2e-6
    for name, gradient in expected.items():
        assert float((gradients[name] - gradient).norm()) <= 1e-4 * float(gradient.norm()), name


@pytest.mark.parametrize("acts_on", ACTS_ON)
def test_the_size_of_packs_spans_and_slices_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, acts_on: str
) -> None:
    samples = [sample(case) for case in (*TALKS, "s1", "t1", *TALKS)]
    _, expected = packed(samples, "experts", acts_on)
    for rows in (1, 30, 45):
        monkeypatch.setattr(passes, "LOGIT_ROWS", 3)
        monkeypatch.setattr(talks, "SPAN_ROWS", rows)
        monkeypatch.setattr(blocks, "MLP_ROWS", 7)
        for name, gradient in packed(samples, "experts", acts_on)[1].items():
            assert float((gradient - expected[name]).abs().max()) < CLOSE, name


@pytest.mark.parametrize("acts_on", ACTS_ON)
def test_labels_may_be_anywhere(acts_on: str) -> None:
    talk, text = sample("talk1"), sample("t1")
    end = int(given(talk, "token_type_ids")[0].nonzero().max()) + 1
    cases = [
        labelled(talk, end),  # the first token behind the picture
        labelled(sample("talk2"), 5, end + 3),  # a token of the picture itself
        cut(labelled(talk, end), end + 1),  # nothing but one token behind the picture
        cut(labelled(talk, 3, end - 1), end),  # ends with the picture
        labelled(talk),
        labelled(text, 1),
        sample("talk3"),
    ]
    assert_equal(cases, "experts", acts_on)


def test_samples_of_one_picture_with_other_tokens_before_it_share_nothing() -> None:
    talk = sample("talk1")
    ids = given(talk, "input_ids").clone()
    ids[0, 0] = 7
    assert_equal([talk, {**talk, "input_ids": ids}], "experts")


def test_a_prefix_is_computed_once() -> None:
    samples = training_samples(*TALKS)
    [pack], prefixes = make_packs(samples, limits=PackLimits(), stored=False)
    end = int(samples[0].token_type_ids[0].nonzero().max()) + 1
    assert pack.rows == end + sum(each.input_ids.shape[1] - end for each in samples)
    assert not prefixes
    [behind], prefixes = make_packs(samples, limits=PackLimits(), stored=True)
    assert behind.rows == pack.rows - end
    assert [prefix.pack.rows for prefix in prefixes.values()] == [end]
    for most in (1, pack.rows - 1):
        split, _ = make_packs(samples, limits=PackLimits(talk=most, pack=most), stored=False)
        assert len(split) == (3 if most == 1 else 2)
        assert sum(each.rows for each in split) == pack.rows + end * (len(split) - 1)
    [whole], _ = make_packs(samples, limits=PackLimits(talk=1000, pack=1), stored=False)
    assert whole.rows == pack.rows


def test_nothing_behind_the_last_block_reads_the_picture() -> None:
    [pack], _ = make_packs(training_samples(*TALKS), limits=PackLimits(), stored=False)
    wanted = pack.wanted
    assert wanted is not None
    assert len(wanted) == sum(len(target.rows) for target in pack.targets) < pack.rows
    _, gradients = packed([sample(case) for case in TALKS], "experts", "all")
    last = max(int(name.split(".layers.")[1].split(".")[0]) for name in gradients)
    unused = [
        name
        for name in gradients
        if f".layers.{last}." in name and "vision" in name and "query_key_value" not in name
    ]
    assert len(unused) == 8
    assert not any(gradients[name].any() for name in unused)


def test_the_vision_tower_is_trained_with_an_attention_that_has_a_gradient() -> None:
    cases = [sample("s1"), sample("s2")]
    with replaced(CpuBackend(has_bf16=True, has_amx=False)):
        _, gradients = loss_and_gradients(
            CHECKPOINT, cases, adapter=golden("tower/init"), alpha=8.0, dtype="bfloat16"
        )
    for name, expected in golden("tower/grad").items():
        if expected.any():
            same = torch.nn.functional.cosine_similarity(
                gradients[name].flatten(), expected.flatten(), dim=0
            )
            assert float(same) > 0.97, name


# --- finite differences in float64 ----------------------------------------------------------------


def trained_pairs(targets: str) -> TrainedPairs:
    found, rank = pairs_of(golden(f"{targets}/init"), read_config(CHECKPOINT))
    pairs = {}
    for name, (down, up) in found.items():
        leaves = [each.double().requires_grad_() for each in (down, up)]
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf)
        pairs[name] = TrainedPair(down=leaves[0], up=leaves[1])
    return TrainedPairs(pairs, scale=8 / rank, dtype=torch.float64)


def check_differences(piece: HasSlots, x: Tensor, halves: Halves, pairs: TrainedPairs) -> None:
    """Compare the gradients along random directions with differences of the output."""
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    def output(at: Tensor) -> Tensor:
        with torch.no_grad(), pairs.beside(piece, torch.device("cpu")):
            out = halves.mix(at)
            second = torch.zeros_like(out) if halves.adds else None
            parts = [(rows, run(out[:, rows].clone())) for rows, run in halves.parts(out, None)]
            if second is None:
                return torch.cat([part for _, part in parts], dim=1)
            for rows, part in parts:
                second[:, rows] = part
            return out + second

    gradient = noise(output(x))
    sums: GradientSums
    with pairs.learning(piece, torch.device("cpu")) as sums:
        found = halves.backward(x, gradient, sums, deeper=True)
    step = 1e-5
    moved = noise(x)
    ahead, back = (float((output(x + s * step * moved) * gradient).sum()) for s in (1, -1))
    assert (ahead - back) / (2 * step) == pytest.approx(float((found * moved).sum()), rel=1e-6)
    for linear in pairs.of(piece):
        for leaf in (pairs.pairs[linear.name].down, pairs.pairs[linear.name].up):
            assert leaf.grad is not None
            moved = noise(leaf)
            values = []
            for sign in (1, -1):
                leaf.data.add_(sign * step * moved)
                values.append(float((output(x) * gradient).sum()))
                leaf.data.sub_(sign * step * moved)
            expected = float((leaf.grad * moved).sum())
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(
                expected, rel=1e-5, abs=1e-7
            ), linear.name


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MLP_ROWS", 7)


def whole_model() -> tuple[WeightLoader, ModelParts]:
    config, device = read_config(CHECKPOINT), torch.device("cpu")
    loader = WeightLoader(Catalog.open(CHECKPOINT, config), device=device, dtype=torch.float64)
    parts = assemble(config, device=device, dtype=torch.float64, rope=RopeMode.REFERENCE)
    return loader, parts


def fill(piece: HasSlots, loader: WeightLoader) -> None:
    for slot in piece.slots():
        loader.fill(slot)


def fixed_numbers(*shape: int) -> Tensor:
    """Return the same float64 numbers in every run: a difference of small sums is not exact."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("last", [False, True])
def test_a_decoder_block_has_the_gradients_of_its_differences(last: bool) -> None:
    loader, parts = whole_model()
    block = parts.decoder.blocks[0]
    fill(block, loader)
    fill(parts.rotary, loader)
    packs, _ = make_packs(
        training_samples("talk1", "t1", "talk2"), limits=PackLimits(), stored=False
    )
    step = PackStep(
        packs[0], parts.rotary, 0 if last else 9, prefixes={}, adapted=Adapted(name=NAME)
    )
    x = fixed_numbers(1, packs[0].rows, parts.config.hidden_size)
    check_differences(block, x, step.halves(block), trained_pairs("experts"))


@pytest.mark.usefixtures("slices")
def test_the_vision_tower_has_the_gradients_of_its_differences() -> None:
    loader, parts = whole_model()
    vision, pairs = parts.config.vision, trained_pairs("tower")
    x = fixed_numbers(1, vision.num_positions, vision.hidden_size)
    for piece, halves in (
        (parts.tower.blocks[0], vision_halves(parts.tower.blocks[0])),
        (parts.projector, projector_halves(parts.projector)),
    ):
        fill(piece, loader)
        check_differences(piece, x, halves, pairs)


# --- the product with a stored weight -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantized_matrix_has_the_gradient_of_the_dequantized_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a whole, and in chunks of rows as lm_head."""
    folder = tmp_path / kind
    kept = () if kind == "nf4" else (Keep(pattern="*", kind=kind),)
    quantize(CHECKPOINT, folder, replace(SMALL_SHARDS, keep=kept, lm_head=kind))
    config, device = read_config(folder), torch.device("cpu")
    loader = WeightLoader(Catalog.open(folder, config), device=device, dtype=torch.float32)
    head = assemble(
        config, device=device, dtype=torch.float32, rope=RopeMode.REFERENCE
    ).decoder.head.lm_head
    loader.fill(head)
    stored = head.stored
    assert stored is not None
    assert stored.kind == kind
    y = torch.randn(1, 5, head.out_features)
    expected = y @ stored.dequantize(torch.float32)
    assert torch.equal(stored.multiply_transposed(y), expected)
    monkeypatch.setattr(quantized, "WHOLE_NUMBERS", 1)
    for rows in (1, 17, 64, 10_000):
        monkeypatch.setattr(quantized, "CHUNK_NUMBERS", rows * head.in_features)
        found = stored.multiply_transposed(y)
        assert float((found - expected).norm()) < 1e-6 * float(expected.norm())
        low = stored.multiply_transposed(y.bfloat16())
        assert low.dtype == torch.bfloat16
        assert float((low.float() - expected).norm()) < 0.01 * float(expected.norm())
