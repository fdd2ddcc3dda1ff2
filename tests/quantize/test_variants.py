"""Many forms of a model in one walk: the numbers are those of whole models, and come again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.activations import FolderActivations, Key
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import run as run_steps
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.evaluate.score import Reference, prepare
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.samples.samples import Sample
from cogvlm2_lite.units import GIB
from quantize.calibration.gptq import round_to_nearest
from quantize.calibration.network import Network
from quantize.calibration.variants import INT8, NEAREST, Variant, VariantWalk
from quantize.int8 import int8_values
from tests.helpers.calibration import ByteTokenizer, made_samples
from tests.helpers.conversion import CHECKPOINT, open_catalog

FIRST = "model.vision.transformer.layers.0.mlp.fc1.weight"
GATE = "model.vision.linear_proj.gate_proj.weight"
LAST = "model.layers.1.mlp.language_mlp.down_proj.weight"
HEAD = "lm_head.weight"
FORMS = [
    Variant("source", {}),
    Variant("first", {FIRST: NEAREST}),
    Variant("gate", {GATE: INT8}),
    Variant("last", {LAST: NEAREST}),
    Variant("head", {HEAD: NEAREST}),
    Variant("three", {FIRST: NEAREST, GATE: INT8, LAST: NEAREST}),
]


def shape(name: str, form: str, weight: Tensor) -> tuple[Tensor, Tensor | None]:
    if form == INT8:
        return int8_values(weight), None
    return round_to_nearest(weight, double_quant=True).values, None


def network(samples: list[Sample] | None = None) -> Network:
    return Network(
        open_catalog(CHECKPOINT),
        samples or made_samples(10),
        ByteTokenizer(),  # type: ignore[arg-type]
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def walk(folder: Path, forms: list[Variant] = FORMS, identity: str = "a test") -> VariantWalk:
    return VariantWalk(network(), forms, shape, folder, identity)


def open_with(forms: dict[str, str], target: Path) -> Model:
    """Write the variant as a whole checkpoint of its own, and open it."""
    target.mkdir()
    for file in CHECKPOINT.iterdir():
        if file.suffix == ".json":
            (target / file.name).write_bytes(file.read_bytes())
            continue
        tensors = {
            name: shape(name, forms[name], tensor.float())[0] if name in forms else tensor.float()
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, target / file.name, {"format": "pt"})
    budget = DeviceBudget(device="cpu", in_ram=True, device_bytes=GIB)
    return open_model(target, compute=choose_compute("cpu", "float32"), budgets=[budget])


def test_each_variant_says_what_a_model_of_its_own_says(tmp_path: Path) -> None:
    one = walk(tmp_path / "walk")
    assert [event.done for event in one.run()] == list(range(1, 9))
    found = one.comparisons()
    config = open_catalog(CHECKPOINT).config
    asked = prepare(made_samples(10), ByteTokenizer(), config)  # type: ignore[arg-type]
    with Reference(asked, config) as kept:
        run_steps(kept.fill(open_with({}, tmp_path / "source")))
        for variant in FORMS[1:]:
            whole = run_steps(kept.compare(open_with(dict(variant.forms), tmp_path / variant.name)))
            ours = found[variant.name]
            order = np.argsort(whole.answer, kind="stable")
            assert (ours.answer == whole.answer[order]).all()
            assert ours.kl.max() > 1e-7, variant.name
            np.testing.assert_allclose(ours.kl, whole.kl[order], rtol=5e-3, atol=1e-8)
            assert (ours.agree == whole.agree[order]).all()
            assert (ours.other_right == whole.other_right[order]).all()
            assert (ours.reference_right == whole.reference_right[order]).all()


def test_the_words_of_questions_count_where_they_are_asked_for(tmp_path: Path) -> None:
    forms = [FORMS[0], Variant("last", {LAST: NEAREST})]
    answers = walk(tmp_path / "answers", forms)
    every = VariantWalk(network(), forms, shape, tmp_path / "every", "a test", questions=True)
    for one in (answers, every):
        list(one.run())
    few, many = answers.comparisons()["last"], every.comparisons()["last"]
    for number, sample in enumerate(made_samples(10)):
        text = f"Question: {sample.question} Answer:{sample.answer}"
        ours = many.kl[many.answer == number]
        # Every byte has one before it that says it, and so has the end.
        assert len(ours) == len(text) + 1
        end = few.kl[few.answer == number]
        np.testing.assert_allclose(ours[-len(end) :], end, rtol=1e-3, atol=1e-9)


def test_a_sample_without_an_answer_counts_where_its_answer_would_begin(tmp_path: Path) -> None:
    samples = [replace(sample, answer="") for sample in made_samples(4)]
    one = VariantWalk(network(samples), FORMS[:2], shape, tmp_path / "walk", "a test")
    list(one.run())
    assert one.comparisons()["first"].answer.tolist() == [0, 1, 2, 3]
    assert one.comparisons()["first"].reference_right.all()


def test_what_variants_share_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[int] = Counter()
    write = FolderActivations.write

    def count(self: FolderActivations, stage: int, key: Key, hidden: Tensor) -> None:
        seen[stage] += key[0] == 0
        write(self, stage, key, hidden)

    monkeypatch.setattr(FolderActivations, "write", count)
    list(walk(tmp_path / "walk").run())
    # Embedding, 2 vision layers, projector, words, 2 decoder layers: a state for each difference.
    assert [seen[n] for n in range(1, 8)] == [1, 2, 2, 4, 4, 4, 5]


def test_a_stopped_walk_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    whole = walk(tmp_path / "whole")
    list(whole.run())
    stopped = walk(tmp_path / "walk").run()
    for _ in range(3):
        next(stopped)
    del stopped
    (tmp_path / "walk" / "activations-4").write_bytes(b"torn")
    again = walk(tmp_path / "walk")
    assert [event.done for event in again.run()] == [4, 5, 6, 7, 8]
    for name, tokens in whole.comparisons().items():
        assert (tokens.kl == again.comparisons()[name].kl).all()
    assert list(again.run()) == []
    assert {p.name for p in (tmp_path / "walk").iterdir()} == {"state.json", "found"}


def test_another_identity_begins_anew(tmp_path: Path) -> None:
    list(walk(tmp_path / "walk").run())
    before = json.loads((tmp_path / "walk" / "state.json").read_text())
    assert len(list(walk(tmp_path / "walk", identity="other weights").run())) == 8
    assert json.loads((tmp_path / "walk" / "state.json").read_text()) != before


def test_a_disk_without_room_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(DoesNotFitError, match=r"Measuring 6 variants needs .* of scratch"):
        next(walk(tmp_path / "walk").run())


def test_products_are_counted_for_every_distinct_state(tmp_path: Path) -> None:
    alone = walk(tmp_path / "a", FORMS[:1]).flops
    both = walk(tmp_path / "b", [FORMS[0], Variant("x", {LAST: NEAREST})]).flops
    assert alone < both < 1.5 * alone
    early = walk(tmp_path / "c", [FORMS[0], Variant("x", {FIRST: NEAREST})]).flops
    assert both < early <= 2 * alone
