"""`merge`: an adapter becomes a part of the weights, in every storage kind."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import expected_tensors
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import AdapterError, CogVLM2LiteError, ConversionError, UsageError
from cogvlm2_lite.rows.held_out import read_held_out, write_held_out
from cogvlm2_lite.rows.read import Row, Turn
from cogvlm2_lite.weights.adapter import Pair, peft_name, read_adapter, write_adapter
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE, CONFIG_NAME, WEIGHTS_NAME
from cogvlm2_lite.weights.identity import source_fingerprint
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dequantize_reference, quantize_nf4
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.reader import Reader
from cogvlm2_lite.weights.storage import WeightTarget, checked_pieces, make_weight
from quantize.command import main as quantize_main
from quantize.command import verify_main
from quantize.events import Event, Planned, Progress
from quantize.job import partial_folder
from quantize.merge import BLOCK_ROWS, Merge, add_pair
from quantize.merge_command import main
from quantize.merged_rounding import keep_directions
from quantize.pipeline import Effort, convert
from quantize.recipe import TO_BF16, TO_SAME, Keep, QuantizeOptions
from tests.helpers.checkpoints import four_bit, golden_tensors, write_folder
from tests.helpers.conversion import (
    CHECKPOINT,
    QUICK,
    SMALL_SHARDS,
    hashes,
    load_all,
    open_catalog,
    quantize,
)
from tests.helpers.crashes import Crash, Fuse, crash, disk_full
from tests.helpers.finetune import FINETUNE, LOGIT_TOLERANCE, golden
from tests.helpers.goldens import load_golden

DEMO = FINETUNE / "adapter_demo"
SAME = replace(SMALL_SHARDS, matrices=TO_SAME)
BF16 = replace(SMALL_SHARDS, matrices=TO_BF16)
PREFIX = "model.layers.{}.self_attn.vision_expert_query_key_value.weight"
MERGED_BF16 = {
    PREFIX.format(0): "ddf0468812f274c2cd037520",
    PREFIX.format(1): "a3ea650dc8c2ea5eb1379c01",
}
"""Beginning of the sha256 of peft's merged matrices of the set `demo`, rounded to bfloat16."""


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of peft's third step: of the language experts, and of all linear layers."""
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("language", "tower"):
        write_adapter(
            folder / name, golden(f"{name}/step3"), alpha=8, base_name="golden_a", facts={}
        )
    return folder


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "nf4"
    quantize(CHECKPOINT, folder, replace(SMALL_SHARDS, keep=(Keep(pattern="*.1.*", kind="int8"),)))
    return folder


def chosen(adapter: Path, **options: bool) -> Merge:
    return Merge(adapters=(AdapterChoice(name=adapter.name, folder=adapter),), **options)


def merge(
    source: Path,
    adapter: Path,
    destination: Path,
    settings: QuantizeOptions = SAME,
    effort: Effort = QUICK,
    **options: bool,
) -> list[Event]:
    choice = chosen(adapter, **options)
    return list(convert(source, destination, settings, effort, merge=choice))


def plain(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a folder in float32, dequantized as the model does it."""
    catalog = open_catalog(folder)
    reader, cpu = Reader(catalog), torch.device("cpu")
    target = WeightTarget(
        device=cpu,
        dtype=torch.float32,
        kernels=choose_kernels(cpu, torch.float32, "torch"),
        scratch=Scratch(cpu),
    )
    return {
        name: make_weight(stored, checked_pieces(stored, reader.read(stored)), target, packed=False)
        .dequantize(torch.float32)
        .clone()
        for name, stored in catalog.tensors.items()
    }


def pairs_of(adapter: Path) -> dict[str, Pair]:
    return dict(read_adapter(adapter, read_config(CHECKPOINT)).pairs)


def nearest_nf4(weight: Tensor) -> Tensor:
    """Return a matrix rounded to NF4 and dequantized."""
    rounded = quantize_nf4(weight, double_quant=False)
    return dequantize_reference(
        rounded.codes,
        rounded.absmax,
        levels=torch.tensor(NF4_LEVELS),
        group=64,
        out=torch.empty_like(weight),
    )


def add(weight: Tensor, pair: Pair) -> Tensor:
    return weight + pair.scale * (pair.up @ pair.down)


def pieces_of(folder: Path, without: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes of all tensors but some matrices and their companions."""
    return {
        name: tensor.contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in load_all(folder).items()
        if not any(name == matrix or name.startswith(f"{matrix}.") for matrix in without)
    }


def logits(folder: Path, case: str, adapter: Path | None = None) -> Tensor:
    model = cogvlm2_lite.load(folder, device="cpu", dtype="float32", adapter=adapter)
    inputs = load_golden()
    features = None if case == "text_only" else model.encode_image(inputs["in.image"])
    ids, types = inputs[f"{case}.input_ids"], inputs[f"{case}.token_type_ids"]
    return model.forward(ids, types, image_features=features)


# --- the numbers ----------------------------------------------------------------------------------


def test_a_merged_checkpoint_gives_the_logits_of_the_adapter_and_of_peft(
    tmp_path: Path, adapters: Path
) -> None:
    merge(CHECKPOINT, adapters / "tower", tmp_path / "out")
    for name, expected in golden("tower/adapted").items():
        ours = logits(tmp_path / "out", name.removesuffix(".logits"))
        assert float((ours - expected).abs().max()) < LOGIT_TOLERANCE
    beside = logits(CHECKPOINT, "one_image", adapters / "tower")
    assert float((logits(tmp_path / "out", "one_image") - beside).abs().max()) < LOGIT_TOLERANCE
    touched = pairs_of(adapters / "tower")
    assert pieces_of(tmp_path / "out", [*touched]) == pieces_of(CHECKPOINT, [*touched])
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_bfloat16_the_bits_are_those_of_peft(tmp_path: Path, dtype: torch.dtype) -> None:
    source = write_folder(tmp_path / "source", golden_tensors(dtype), shards=2)
    merge(source, DEMO, tmp_path / "out", BF16)
    found = load_all(tmp_path / "out")
    assert {t.dtype for t in found.values()} == {torch.bfloat16}
    for name, expected in MERGED_BF16.items():
        raw = found[name].view(torch.uint8).numpy().tobytes()
        assert hashlib.sha256(raw).hexdigest().startswith(expected)
    if dtype is torch.bfloat16:
        merge(source, DEMO, tmp_path / "same")
        assert pieces_of(tmp_path / "same", []) == pieces_of(tmp_path / "out", [])


def test_quantized_matrices_are_rounded_to_their_kind_again_and_others_copied(
    tmp_path: Path, nf4: Path, adapters: Path
) -> None:
    merge(nf4, adapters / "language", tmp_path / "out")
    touched = pairs_of(adapters / "language")
    kinds = {n: t.kind for n, t in open_catalog(nf4).tensors.items()}
    assert {n: t.kind for n, t in open_catalog(tmp_path / "out").tensors.items()} == kinds
    assert {kinds[name] for name in touched} == {"nf4", "int8"}
    assert pieces_of(tmp_path / "out", [*touched]) == pieces_of(nf4, [*touched])
    before, after, stored = plain(nf4), plain(tmp_path / "out"), load_all(tmp_path / "out")
    for name, pair in touched.items():
        expected = add(before[name], pair)
        if kinds[name] == "nf4":
            rounded = quantize_nf4(keep_directions(expected, pair))
            assert torch.equal(stored[name].view(-1), rounded.codes.view(-1))
            assert torch.equal(stored[f"{name}.absmax"], rounded.absmax)
        else:
            step = stored[f"{name}.scale"].repeat_interleave(64, dim=1)
            assert bool(((after[name] - expected).abs() <= 0.5001 * step).all())
    config = json.loads((nf4 / "config.json").read_text())
    assert json.loads((tmp_path / "out/config.json").read_text()) == config


@pytest.mark.parametrize(("rows", "columns", "rank"), [(130, 192, 4), (7, 640, 16), (64, 4096, 16)])
def test_rounding_keeps_what_the_adapter_reads(rows: int, columns: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    base = nearest_nf4(noise(rows, columns))
    pair = Pair(down=noise(rank, columns), up=0.02 * noise(rows, rank) / rank**0.5, scale=2.0)
    merged = add(base, pair)
    followed = keep_directions(merged, pair)
    nearest = nearest_nf4(merged)
    # Rounded again, nothing changes: the codes that are written are these.
    again = nearest_nf4(followed)
    assert torch.allclose(again, followed, atol=1e-6, rtol=1e-6)
    read = [float(((each - merged) @ pair.down.t()).norm()) for each in (followed, nearest)]
    assert read[0] < 0.4 * read[1]
    assert read[1] > 0.7 * float((pair.scale * pair.up @ pair.down @ pair.down.t()).norm())
    whole = [float((each - merged).norm()) for each in (followed, nearest)]
    assert whole[0] < 1.6 * whole[1]


def test_rounding_is_to_nearest_where_groups_cross_rows() -> None:
    weight = torch.randn(4, 96)
    pair = Pair(down=torch.randn(2, 96), up=torch.randn(4, 2), scale=1.0)
    assert keep_directions(weight, pair) is weight


def test_a_merged_4_bit_model_answers_like_the_model_with_its_adapter(
    tmp_path: Path, nf4: Path, adapters: Path
) -> None:
    merge(nf4, adapters / "language", tmp_path / "bf16", BF16)
    merge(nf4, adapters / "language", tmp_path / "nf4")
    merge(CHECKPOINT, adapters / "language", tmp_path / "other")
    beside = logits(nf4, "one_image", adapters / "language")
    off = {
        name: float((logits(tmp_path / name, "one_image") - beside).norm() / beside.norm())
        for name in ("bf16", "nf4", "other")
    }
    assert off["bf16"] < 0.012  # the specification's limit for bfloat16 rounding
    assert off["nf4"] < off["other"]
    config = json.loads((tmp_path / "bf16/config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    assert "quantization_config" not in config


@pytest.mark.parametrize("group", [64, 256])
def test_folders_of_other_programs_with_groups_across_rows_and_fp4(
    tmp_path: Path, adapters: Path, group: int
) -> None:
    dense = golden_tensors()
    base = write_folder(
        tmp_path / "base",
        four_bit(dense, quant_type="fp4", group=group, double_quant=group == 64),
    )
    events = merge(base, adapters / "tower", tmp_path / "out")
    touched, catalog = pairs_of(adapters / "tower"), open_catalog(tmp_path / "out")
    assert {catalog.tensors[name].kind for name in touched} == {"nf4"}
    assert any(t.kind == "fp4" for t in catalog.tensors.values()) == (
        any(t.kind == "fp4" and n not in touched for n, t in open_catalog(base).tensors.items())
    )
    assert "FP4 can be read, not written" in {str(row.reason) for row in planned(events).kept}
    assert pieces_of(tmp_path / "out", [*touched]) == pieces_of(base, [*touched])
    before, stored = plain(base), load_all(tmp_path / "out")
    for name, pair in touched.items():
        expected = keep_directions(add(before[name], pair), pair)
        rounded = quantize_nf4(expected, double_quant=group == 64)
        assert torch.equal(stored[name].view(-1), rounded.codes.view(-1))
    assert verify_main([str(tmp_path / "out")]) == 0


def test_quantize_with_an_adapter_is_merge_and_then_quantize(
    tmp_path: Path, adapters: Path
) -> None:
    settings = replace(SMALL_SHARDS, keep=(Keep(pattern="*dense*", kind="int8"),))
    source = write_folder(tmp_path / "source", golden_tensors())
    merge(source, adapters / "tower", tmp_path / "merged")
    quantize(tmp_path / "merged", tmp_path / "two", settings)
    merge(source, adapters / "tower", tmp_path / "one", settings)
    assert pieces_of(tmp_path / "one", []) == pieces_of(tmp_path / "two", [])
    first, second = (
        json.loads((tmp_path / name / "cogvlm2_lite_manifest.json").read_text())
        for name in ("one", "two")
    )
    assert first["tensors"] == second["tensors"]
    # An adapter that is trained on one of them later belongs to the other, too, not to the base.
    assert first["source"]["fingerprint"] == second["source"]["fingerprint"]
    assert first["source"]["fingerprint"] != first["source"]["base"]


def test_keep_stores_matrices_of_the_adapter_in_more_bits(
    tmp_path: Path, nf4: Path, adapters: Path
) -> None:
    name = "model.layers.0.self_attn.language_expert_dense.weight"
    keep = (Keep(pattern="*.0.*language_expert_dense", kind="bf16"),)
    merge(nf4, adapters / "language", tmp_path / "out", replace(SAME, keep=keep))
    expected = add(plain(nf4)[name], pairs_of(adapters / "language")[name])
    assert torch.equal(load_all(tmp_path / "out")[name], expected.bfloat16())
    config = json.loads((tmp_path / "out/config.json").read_text())
    skipped = config["quantization_config"]["llm_int8_skip_modules"]
    assert name.removesuffix(".weight") in skipped
    with pytest.raises(UsageError, match=r"none of the \d+ matrices of the adapter"):
        merge(nf4, DEMO, tmp_path / "none", replace(SAME, keep=keep))
    for source, settings in ((CHECKPOINT, SAME), (nf4, BF16)):
        with pytest.raises(UsageError, match="this one has 16 bits"):
            merge(source, adapters / "language", tmp_path / "x", replace(settings, keep=keep))


def test_blocks_of_rows_make_the_result_independent_of_runs() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(200, 96, generator=generator)
    pair = Pair(
        down=torch.randn(16, 96, generator=generator),
        up=torch.randn(200, 16, generator=generator),
        scale=0.5,
    )
    whole, parts = weight.clone(), weight.clone()
    add_pair(whole, pair, 0)
    for first in range(0, 200, BLOCK_ROWS):
        add_pair(parts[first : first + BLOCK_ROWS], pair, first)
    assert torch.equal(whole, parts)
    assert torch.allclose(whole, add(weight, pair), atol=1e-5)


# --- stopping -------------------------------------------------------------------------------------


def test_killed_at_any_write_and_event_it_ends_in_the_same_bytes(
    tmp_path: Path, nf4: Path, adapters: Path
) -> None:
    merge(nf4, adapters / "tower", tmp_path / "reference")
    reference = hashes(tmp_path / "reference")
    other = Effort(threads=3, run_bytes=3_333)
    merge(nf4, adapters / "tower", tmp_path / "runs", effort=other)
    assert hashes(tmp_path / "runs") == reference
    crashes = 0
    for _ in range(100):
        try:
            fused = replace(QUICK, writer=Fuse(25, crash), sync_bytes=1)
            merge(nf4, adapters / "tower", tmp_path / "out", effort=fused)
            break
        except Crash:
            crashes += 1
            assert not (tmp_path / "out").exists()
    assert crashes > 5
    assert hashes(tmp_path / "out") == reference
    for events in (1, 2, 3):
        steps = convert(nf4, tmp_path / "e", SAME, QUICK, merge=chosen(adapters / "tower"))
        for _ in range(events):
            next(steps, None)
        steps.close()
    merge(nf4, adapters / "tower", tmp_path / "e")
    assert hashes(tmp_path / "e") == reference


def test_a_full_disk_keeps_the_work_and_another_adapter_does_not_continue_it(
    tmp_path: Path, nf4: Path, adapters: Path
) -> None:
    fused = replace(QUICK, writer=Fuse(100, disk_full), sync_bytes=1)
    with pytest.raises(ConversionError, match="is full"):
        merge(nf4, adapters / "tower", tmp_path / "out", effort=fused)
    assert partial_folder(tmp_path / "out").exists()
    with pytest.raises(ConversionError, match="was started from another source"):
        merge(nf4, adapters / "language", tmp_path / "out")
    scaled = shutil.copytree(adapters / "tower", tmp_path / "tower")
    settings = json.loads((scaled / CONFIG_NAME).read_text()) | {"lora_alpha": 4}
    (scaled / CONFIG_NAME).write_text(json.dumps(settings))
    with pytest.raises(ConversionError, match="was started from another source"):
        merge(nf4, scaled, tmp_path / "out")
    plan = planned(merge(nf4, adapters / "tower", tmp_path / "out"))
    assert plan.ready_bytes > 0


def planned(events: list[Event]) -> Planned:
    assert isinstance(events[0], Planned)
    assert isinstance(events[-2], Progress)
    assert events[-2].share == 1
    return events[0]


# --- what is refused, and what is said ------------------------------------------------------------


def own_adapter(folder: Path, model: Path, **facts: Any) -> Path:
    base = {"source_fingerprint": source_fingerprint(open_catalog(model), model)}
    tensors = golden("language/step3")
    write_adapter(folder, tensors, alpha=8, base_name="a", facts={"base": base, **facts})
    return folder


def test_an_adapter_of_another_base_is_refused_unless_allowed(tmp_path: Path, nf4: Path) -> None:
    mine = own_adapter(tmp_path / "mine", nf4, acts_on=BEHIND_PICTURE)
    plan = planned(merge(nf4, mine, tmp_path / "out"))
    notes = [str(note) for note in plan.notes]
    assert sum("only behind the picture" in note for note in notes) == 1
    assert any("is added to 10 matrices" in note or "(rank 4)" in note for note in notes)
    manifest = json.loads((tmp_path / "out/cogvlm2_lite_manifest.json").read_text())
    source = manifest["source"]
    assert (
        source["base"]
        == json.loads((nf4 / "cogvlm2_lite_manifest.json").read_text())["source"]["fingerprint"]
    )
    assert source["adapter"] == hashlib.sha256((mine / WEIGHTS_NAME).read_bytes()).hexdigest()
    assert source["adapter_name"] == "mine"
    # The merged model is another one.
    with pytest.raises(AdapterError, match="trained on another model"):
        merge(tmp_path / "out", mine, tmp_path / "twice")
    merge(tmp_path / "out", mine, tmp_path / "twice", any_base=True)
    assert (tmp_path / "twice").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("to_nf4", [False, True])
def test_a_result_that_is_not_finite_names_its_matrix(
    tmp_path: Path, dtype: torch.dtype, to_nf4: bool
) -> None:
    source = write_folder(tmp_path / "source", golden_tensors(dtype))
    adapter = shutil.copytree(DEMO, tmp_path / "adapter")
    tensors = load_file(adapter / WEIGHTS_NAME)
    name = next(n for n in tensors if "layers.1" in n and "lora_B" in n)
    tensors[name][77] = torch.finfo(dtype).max / 4
    tensors[name.replace("lora_B", "lora_A")].mul_(1000)
    save_file(tensors, adapter / WEIGHTS_NAME)
    with pytest.raises(ConversionError) as caught:
        merge(source, adapter, tmp_path / "out", SMALL_SHARDS if to_nf4 else SAME)
    assert PREFIX.format(1) in caught.value.message
    assert "inf at row 77, column" in caught.value.message
    assert "values are too large" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_the_command_shows_and_reports_everything(
    tmp_path: Path, nf4: Path, adapters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(nf4), str(adapters / "language"), str(tmp_path / "out")]
    assert main([*words, "--plan"]) == 0
    assert "The adapter language (rank 4) is added to" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*words, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events[:1] + events[-1:]] == ["plan", "finished"]
    assert verify_main([str(tmp_path / "out")]) == 0
    assert main(words) == 0
    assert "already finished" in capsys.readouterr().out
    assert main([*words[:2], str(nf4)]) == 2
    assert "both the source and the destination" in capsys.readouterr().err
    assert main([str(nf4), str(tmp_path / "none"), str(tmp_path / "x")]) != 0
    assert "There is no adapter folder" in capsys.readouterr().err


def test_quantize_refuses_calibration_with_an_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(CHECKPOINT), str(tmp_path / "q"), "--adapter", str(DEMO)]
    assert quantize_main([*words, "--calibrate", "built-in"]) == 2
    assert "--calibrate and --adapter can't be used together" in capsys.readouterr().err
    assert quantize_main([*words, "--budget", "+5%"]) == 2
    assert quantize_main(words) == 0
    assert "with --adapter there is no calibration" in capsys.readouterr().out


def test_an_adapter_for_other_shapes_writes_nothing(tmp_path: Path, nf4: Path) -> None:
    tensors = {name: tensor[:, :8].clone() for name, tensor in golden("language/step3").items()}
    write_adapter(tmp_path / "a", tensors, alpha=8, base_name="x", facts={})
    with pytest.raises(CogVLM2LiteError, match="have the shapes"):
        merge(nf4, tmp_path / "a", tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


# --- compared with the adapter --------------------------------------------------------------------

ROW = {"question": "Say green.", "answer": "green"}


def demo_adapter(folder: Path, base: dict[str, Any] | None = None, acts_on: str = "all") -> Path:
    """Return an adapter of one matrix of the demo model."""
    generator = torch.Generator().manual_seed(1)
    name = "model.layers.0.self_attn.language_expert_dense.weight"
    rows, columns = expected_tensors(read_config(model_folder("demo")))[name].shape
    tensors = {
        peft_name(name, "A"): torch.randn(2, columns, generator=generator) * 0.05,
        peft_name(name, "B"): torch.randn(rows, 2, generator=generator) * 0.05,
    }
    facts = {"answer_space": True, "acts_on": acts_on, "base": base or {}}
    write_adapter(folder, tensors, alpha=4, base_name="demo", facts=facts)
    return folder


def checked(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    event: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return event


def test_check_compares_the_result_with_the_adapter_on_held_out_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = demo_adapter(tmp_path / "a", acts_on=BEHIND_PICTURE)
    words = ["demo", str(adapter), str(tmp_path / "out"), "--check"]
    assert main([*words, str(tmp_path / "none.jsonl")]) == 2
    assert "There is no folder or file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    found = checked([*words, str(tmp_path / "rows.jsonl")], capsys)
    assert (found["event"], found["answers"], found["asked"]) == ("checked", 1, 1)
    assert found["tokens"] == 2
    assert found["merged_loss"] > 0
    assert abs(found["merged_loss"] - found["adapter_loss"]) < 0.02 * found["adapter_loss"]
    # Without a picture, all tokens but the first one are behind it.
    assert abs(found["all_rows_loss"] - found["merged_loss"]) < 0.02 * found["merged_loss"]
    assert 0 <= found["kl"] < 1e-3
    assert found["same_first"] == 1
    assert found["original_loss"] is None
    assert found["merged_right"] == found["adapter_right"]
    assert main([*words, str(tmp_path / "rows.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "Loss of 1 answers of" in shown
    assert "At 100.0% of their 2 tokens, both have the same first choice" in shown
    assert "on all tokens, as it is merged, its loss is" in shown


def test_rows_that_the_training_held_out_are_compared_unless_that_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = demo_adapter(tmp_path / "a")
    rows = [Row(source="x", line=n, turns=(Turn(f"Say {n}.", "green"),)) for n in range(3)]
    (adapter / "training").mkdir()
    file = adapter / "training" / "held_out.jsonl"
    write_held_out(file, rows, upright=True)
    words = ["demo", str(adapter), str(tmp_path / "out")]
    assert main([*words, "--plan"]) == 0
    assert f"Afterwards, 3 answers of {file} are compared" in capsys.readouterr().out
    found = checked(words, capsys)
    assert (found["event"], found["answers"], found["data"]) == ("checked", 3, str(file))
    assert checked([*words, "--check", "none"], capsys)["event"] == "finished"
    file.write_text("{")
    assert checked(words, capsys)["event"] == "finished"


def test_held_out_rows_come_back_as_they_were_and_none_from_other_machines(tmp_path: Path) -> None:
    turns = (Turn("一？", "a"), Turn("b", "c", trained=False))
    rows = [
        Row(source="x", line=1, turns=turns, picture=tmp_path / "p.png"),
        Row(source="x", line=2, turns=turns, picture=b"\x00\xff"),
        Row(source="x", line=3, turns=turns),
    ]
    file = tmp_path / "held_out.jsonl"
    write_held_out(file, [rows[0], *rows], upright=False)
    assert read_held_out(file) == (rows, False)
    remote = Row(source="x", line=4, turns=turns, picture=Path("//other/share/p.png"))
    write_held_out(file, [remote, rows[2]], upright=True)
    assert read_held_out(file) == (rows[2:], True)
    assert read_held_out(tmp_path / "missing.jsonl") == ([], True)


def test_the_original_is_measured_too_and_must_be_the_base_s_own(
    tmp_path: Path, nf4: Path, adapters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize_main(["demo", str(tmp_path / "nf4"), "--calibrate", "none"]) == 0
    adapter = demo_adapter(tmp_path / "a")
    demo = "demo"
    words = [str(tmp_path / "nf4"), str(adapter), str(tmp_path / "out"), "--original"]
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    assert main([*words, demo]) == 2
    assert "--original needs rows" in capsys.readouterr().err
    check = ["--check", str(tmp_path / "rows.jsonl")]
    found = checked([*words, demo, *check], capsys)
    assert found["original"] == str(model_folder("demo"))
    assert found["original_loss"] > 0
    assert found["original_loss"] != found["merged_loss"]
    assert main([*words, demo, *check]) == 0
    better = found["original"] if found["original_loss"] < found["merged_loss"] else "MODEL"
    assert f": merge into {better}." in capsys.readouterr().out
    assert main([*words, str(CHECKPOINT), *check]) == 2
    assert "was not made from" in capsys.readouterr().err


def test_drawn_pictures_are_a_check_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantize.merge_check._MOST_LOSSES", 5)
    monkeypatch.setattr("quantize.merge_check._MOST_ANSWERS", 1)
    adapter = demo_adapter(tmp_path / "a", acts_on=BEHIND_PICTURE)
    words = ["demo", str(adapter), str(tmp_path / "out"), "--check", "built-in"]
    found = checked(words, capsys)
    assert (found["data"], found["answers"], found["asked"]) == ("built-in", 5, 1)
    assert found["kl"] < 0.01
    assert found["same_first"] > 0.95


# --- several adapters -----------------------------------------------------------------------------


def test_several_adapters_are_added_with_their_weights(
    tmp_path: Path, nf4: Path, adapters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = str(adapters / "language"), str(adapters / "tower")
    words = [str(nf4), one, f"{other}:0.5", str(tmp_path / "out")]
    assert main([*words, "--to", "bf16"]) == 0
    assert "The adapter language+tower (rank 4, 8) is added to" in capsys.readouterr().out
    before, after = plain(nf4), plain(tmp_path / "out")
    first, second = pairs_of(adapters / "language"), pairs_of(adapters / "tower")
    for name, weight in before.items():
        expected = weight.clone()
        if name in first:
            expected = add(expected, first[name])
        if name in second:
            expected = add(expected, replace(second[name], scale=second[name].scale * 0.5))
        assert torch.allclose(after[name], expected, rtol=2**-8, atol=1e-6), name
    # Another weight is another model.
    words[2] = f"{other}:0.25"
    assert main([*words, "--to", "bf16"]) != 0
    assert "already exists and was made from another source" in capsys.readouterr().err
    # Options may stand between the folders.
    assert main([str(nf4), one, "--plan", str(tmp_path / "x")]) == 0
    both = ["--adapter", one, "--adapter", f"{other}:0.5", "--calibrate", "none"]
    assert quantize_main([str(CHECKPOINT), str(tmp_path / "q"), *both]) == 0
    assert "language+tower" in capsys.readouterr().out
    assert main([str(nf4), str(tmp_path / "x")]) == 2  # DST is missing


# --- the limits of the specification --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "most"), [("language", 0.012), ("patterns", 0.012), ("tower", 0.04)]
)
def test_merged_weights_are_within_the_limits(
    name: str, most: float, tmp_path: Path, adapters: Path
) -> None:
    adapter = FINETUNE / "adapter_patterns" if name == "patterns" else adapters / name
    merge(CHECKPOINT, adapter, tmp_path / "same")
    merge(CHECKPOINT, adapter, tmp_path / "bf16", BF16)
    for case, expected in golden(f"{name}/adapted").items():
        exact, rounded = (
            logits(tmp_path / folder, case.removesuffix(".logits")) for folder in ("same", "bf16")
        )
        assert float((exact - expected).abs().max()) < LOGIT_TOLERANCE
        assert float((rounded - expected).norm() / expected.norm()) < most
