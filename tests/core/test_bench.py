"""The benchmark: made-up weights weigh what real ones weigh, and its figures follow from times."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from cogvlm2_lite.architectures.architecture import Part
from cogvlm2_lite.bench.measure import (
    BenchedModel,
    BenchResult,
    folder_subject,
    layers_of,
    measure,
)
from cogvlm2_lite.bench.probe import MachineLimits
from cogvlm2_lite.bench.report import as_dict, as_text
from cogvlm2_lite.bench.synthetic import NoiseReader, released_config, synthetic_catalog
from cogvlm2_lite.cli.bench import main
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.config import parse_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.events import Progress
from cogvlm2_lite.memory.inventory import sizes_of_quantized, unit_sizes
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.weights.adapter_choice import read_choices
from tests.helpers.adapters import random_adapter
from tests.helpers.goldens import CHECKPOINT

PLENTY = 1 << 30
LIMITS = MachineLimits(read_bytes_per_s=1e9, flops_per_s=1e12)


def small_subject(*, keep: bool = True) -> BenchedModel:
    """Made-up weights of a small model, with the demo model's tokenizer."""
    raw = json.loads((CHECKPOINT / "config.json").read_text())
    raw |= {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    demo = json.loads((checkpoint_folder() / "config.json").read_text())
    raw["vocab_size"] = max(raw["vocab_size"], demo["vocab_size"])
    catalog = synthetic_catalog(parse_config(raw), lm_head_nf4=True)
    return BenchedModel(
        name="small",
        folder=checkpoint_folder(),
        catalog=catalog,
        reader=NoiseReader(keep=keep),
        full_layers=layers_of(catalog.config),
    )


def run(subject: BenchedModel, budget: int = PLENTY) -> BenchResult:
    compute = choose_compute("cpu", "bfloat16")
    given = DeviceBudget(device="cpu", in_ram=True, device_bytes=budget)
    *progress, result = measure(subject, compute, given, tokens=4, rounds=1, limits=LIMITS)
    assert isinstance(result, BenchResult)
    assert all(isinstance(step, Progress) for step in progress)
    return result


@pytest.mark.parametrize("packed", [False, True])
def test_made_up_weights_of_the_real_shapes_weigh_what_quantize_would_write(packed: bool) -> None:
    config = released_config(None, None)
    made_up = unit_sizes(synthetic_catalog(config), itemsize=2, packed=packed)
    planned = sizes_of_quantized(config, packed=packed)
    assert made_up.keys() == planned.keys()
    for key, nbytes in planned.items():
        assert abs(made_up[key] - nbytes) <= 0.001 * nbytes, key


def test_reading_noise_again_gives_the_same_bytes_whether_kept_or_not() -> None:
    catalog = small_subject().catalog
    kept, fresh = NoiseReader(keep=True), NoiseReader(keep=False)
    for stored in catalog.tensors.values():
        pieces = kept.read(stored)
        for other in (kept.read(stored), fresh.read(stored)):
            assert all(torch.equal(pieces[role], other[role]) for role in pieces)
        for role, piece in pieces.items():
            if stored.spec.part is not Part.EMBEDDING:
                assert piece.numel() == torch.Size(stored.pieces[role].shape).numel()
    first, second = (
        kept.read(catalog.tensors[f"model.layers.{i}.mlp.vision_mlp.up_proj.weight"])["weight"]
        for i in (0, 1)
    )
    assert not torch.equal(first, second)


def test_one_answer_is_measured_phase_by_phase() -> None:
    result = run(small_subject())
    assert [phase.name for phase in result.phases] == ["encode", "prefill", "decode"]
    assert not result.is_extrapolated
    assert result.streamed_bytes == 0
    assert result.phases[2].tokens == 3
    for phase in result.phases:
        assert phase.full_seconds == phase.seconds > 0
        assert phase.flops > 0
        assert phase.bytes_read > 0
        assert phase.accounted_bytes <= phase.planned_bytes
    report = as_dict(result)
    json.dumps(report)
    assert report["phases"][2]["tokens_per_s"] == result.phases[2].tokens_per_s
    assert "extrapolated to" not in as_text(result)


def test_tokens_are_measured_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def noted(*args: Any, **options: Any) -> Model:
        opened.append(options["speculation"])
        return open_model(*args, **options)

    monkeypatch.setattr("cogvlm2_lite.bench.measure.open_model", noted)
    run(small_subject())
    assert opened == [False]


def test_the_cost_of_an_adapter_is_measured_and_counted(tmp_path: Path) -> None:
    demo = checkpoint_folder()
    random_adapter(tmp_path / "words", demo, seed=1, rank=4)
    subject = folder_subject(
        demo, name="demo", adapters=read_choices([f"{tmp_path / 'words'}:0.5"], add_up=True)
    )
    assert subject.adapter is not None
    numbers = sum(pair.numel for pair in subject.adapter.pairs.values())
    result = run(subject)
    found = as_dict(result)
    cost, (encode, prefill, decode) = found["adapter"], found["phases"]
    assert cost["name"] == "words"
    assert cost["held_bytes"] == cost["token_bytes"] == 2 * numbers
    base = cost["base"][2]
    steps = base["tokens"]
    assert steps == decode["tokens"]
    assert decode["bytes_read"] - base["bytes_read"] == 2 * numbers * steps
    assert decode["flops"] - base["flops"] == 2 * numbers * steps
    assert cost["share_of_token"] == pytest.approx(decode["bytes_read"] / base["bytes_read"] - 1)
    assert [phase["name"] for phase in cost["base"]] == ["encode", "prefill", "decode"]
    assert encode["flops"] == cost["base"][0]["flops"]  # the adapter has nothing for the tower
    assert prefill["flops"] > cost["base"][1]["flops"]
    assert f"({cost['share_of_token']:.1%}); without it" in as_text(result)


def test_layers_that_were_left_out_are_added_and_said() -> None:
    subject = small_subject()
    vision, decoder = subject.full_layers
    result = run(replace(subject, full_layers=(10 * vision, 10 * decoder)))
    assert result.is_extrapolated
    for phase in result.phases:
        assert phase.seconds < phase.full_seconds <= 10 * phase.seconds
    assert "extrapolated to" in as_text(result)


def test_made_up_weights_stream_to_the_same_scores() -> None:
    subject = small_subject()
    compute = choose_compute("cpu", "bfloat16")

    def scores(budget: int) -> tuple[torch.Tensor, int]:
        model = open_model(
            subject.folder,
            compute=compute,
            budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=budget)],
            weights=(subject.catalog, subject.reader),
        )
        return model.forward(torch.tensor([[3, 5, 8, 13]])), model.runtime.residency.streamed_bytes

    wide, none = scores(PLENTY)
    assert torch.isfinite(wide).all()
    tight, streamed = scores(smallest(subject))
    assert none == 0 < streamed
    assert torch.equal(tight, wide)


def smallest(subject: BenchedModel) -> int:
    low, high = 0, PLENTY
    while high - low > 1:
        middle = (low + high) // 2
        try:
            open_model(
                subject.folder,
                compute=choose_compute("cpu", "bfloat16"),
                budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=middle)],
                weights=(subject.catalog, subject.reader),
            )
            high = middle
        except DoesNotFitError:
            low = middle
    return high


def test_warming_up_brings_in_what_decoding_needs_and_nothing_else() -> None:
    subject = small_subject()
    model = open_model(
        subject.folder,
        compute=choose_compute("cpu", "bfloat16"),
        budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=PLENTY)],
        weights=(subject.catalog, subject.reader),
    )
    steps = list(model.warm_up())
    assert [step.done for step in steps] == list(range(1, len(steps) + 1))
    held = model.runtime.residency.resident_bytes
    assert held[Part.LANGUAGE_EXPERT] > 0
    assert held[Part.LM_HEAD] > 0
    assert held[Part.VISION] == held[Part.VISION_EXPERT] == 0
    assert (
        steps[-1].held_bytes == sum(held.values()) + model.plan.devices[0].phases[-1].scratch_bytes
    )


def test_the_command_measures_the_demo_model_as_json() -> None:
    out = StringIO()
    arguments = ["demo", "--device", "cpu", "--tokens", "3", "--rounds", "1", "--json"]
    assert main(arguments, console=Console(out, StringIO())) == 0
    report = json.loads(out.getvalue())
    assert report["device"] == "cpu"
    assert len(report["phases"]) == 3
    assert report["limits"]["read_bytes_per_s"] > 0


@pytest.mark.parametrize(
    "arguments",
    [["demo", "--layers", "2"], ["19b", "--layers", "0"], ["19b", "--layers", "few"],
     ["demo", "--tokens", "1"], ["demo", "--vram", "8G B"], ["19b", "--adapter", "a"]],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        main([*arguments, "--device", "cpu"], console=Console(StringIO(), StringIO()))


def test_shares_are_of_the_limits() -> None:
    decode = as_dict(run(small_subject()))["phases"][2]
    assert decode["share_of_reading"] == pytest.approx(decode["bytes_per_s"] / 1e9)
    assert decode["share_of_matmul"] == pytest.approx(decode["flops_per_s"] / 1e12)


def test_the_tokenizer_of_made_up_weights_is_the_demo_models() -> None:
    assert Path(small_subject().folder, "tokenizer.json").is_file()


@pytest.mark.cuda
def test_uploaded_weights_are_the_bytes_of_the_file() -> None:
    from cogvlm2_lite.backends.base import Outgoing
    from cogvlm2_lite.backends.pinned import RING_BYTES, PinnedUpload

    upload = PinnedUpload(torch.device("cuda"))
    noise = torch.randint(0, 256, (3 * RING_BYTES + 5,), dtype=torch.uint8)
    pieces = (noise[:7], noise, torch.randn(3, 5), torch.randn(4).bfloat16(), torch.tensor(2.5))
    with upload:
        there = upload.send([Outgoing(tensor=piece, dtype=piece.dtype) for piece in pieces])
        (rounded,) = upload.send([Outgoing(tensor=pieces[2], dtype=torch.bfloat16)])
    for copy, piece in zip(there, pieces, strict=True):
        assert copy.dtype == piece.dtype
        assert torch.equal(copy.cpu(), piece)
    assert torch.equal(rounded.cpu(), pieces[2].bfloat16())
