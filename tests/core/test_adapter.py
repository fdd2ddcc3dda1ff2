"""Adapters: peft's folders are read and checked, used in answers, and written for peft."""

from __future__ import annotations

import importlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.cli.parser import load_options
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.errors import AdapterError, CogVLM2LiteError, DoesNotFitError
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.weights.adapter import read_adapter, write_adapter
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE, CONFIG_NAME, OWN_NAME, WEIGHTS_NAME
from cogvlm2_lite.weights.identity import Base, identify_model
from tests.helpers.finetune import FINETUNE, LOGIT_TOLERANCE, golden
from tests.helpers.goldens import CHECKPOINT, load_golden

PATTERNS, DEMO = FINETUNE / "adapter_patterns", FINETUNE / "adapter_demo"


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return read_config(CHECKPOINT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "adapter"))


def written(folder: Path, tensors: dict[str, Tensor], **facts: Any) -> Path:
    write_adapter(folder, tensors, alpha=8, base_name="golden_a", facts=facts)
    return folder


def difference(model: Model, case: str, expected: Tensor) -> float:
    inputs = load_golden()
    features = None if case == "text_only" else model.encode_image(inputs["in.image"])
    ids, types = inputs[f"{case}.input_ids"], inputs[f"{case}.token_type_ids"]
    logits = model.forward(ids, types, image_features=features)
    return float((logits - expected).abs().max())


def loaded(adapter: Path | None) -> Model:
    return cogvlm2_lite.load(CHECKPOINT, device="cpu", dtype="float32", adapter=adapter)


@pytest.mark.parametrize(
    ("targets", "step"), [("language", "step3"), ("tower", "step3")], ids=["language", "tower"]
)
def test_an_adapter_gives_the_logits_of_the_released_code_with_peft(
    targets: str, step: str, tmp_path: Path
) -> None:
    model = loaded(written(tmp_path / "out", golden(f"{targets}/{step}")))
    for name, expected in golden(f"{targets}/adapted").items():
        assert difference(model, name.removesuffix(".logits"), expected) < LOGIT_TOLERANCE


def test_patterns_ranks_and_rank_stabilised_scales_are_those_of_peft() -> None:
    model = loaded(PATTERNS)
    (expected,) = golden("patterns/adapted").values()
    assert difference(model, "multi_turn", expected) < LOGIT_TOLERANCE


def test_an_adapter_behind_the_picture_leaves_bos_and_picture_as_they_are(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", golden("language/step3"), acts_on=BEHIND_PICTURE)
    model = loaded(folder)
    for name, expected in golden("behind/adapted").items():
        assert difference(model, name.removesuffix(".logits"), expected) < LOGIT_TOLERANCE


def test_a_zero_adapter_changes_no_bit_and_says_so(tmp_path: Path) -> None:
    tensors = {n: t if "lora_A" in n else t * 0 for n, t in golden("language/step3").items()}
    plain, adapted = loaded(None), loaded(written(tmp_path / "out", tensors))
    inputs = load_golden()
    ids, types = inputs["text_only.input_ids"], inputs["text_only.token_type_ids"]
    assert torch.equal(plain.forward(ids, types), adapted.forward(ids, types))
    assert any("changes nothing" in str(remark) for remark in adapted.remarks)


def test_streamed_weights_and_adapters_give_the_same_logits(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", golden("language/step3"))
    adapter = read_adapter(folder, read_config(CHECKPOINT))

    def within(nbytes: int) -> Model:
        return open_model(
            CHECKPOINT,
            compute=choose_compute("cpu", "float32"),
            budgets=[DeviceBudget(device="cpu:0", in_ram=True, device_bytes=nbytes)],
            context=64,
            adapters=[adapter],
        )

    roomy = within(1 << 30)
    with pytest.raises(DoesNotFitError):
        within(1 << 20)
    tight = next(
        model for mib in range(2, 64, 2) if (model := _fitting(within, mib << 20)) is not None
    )
    assert any(phase.streamed for phase in tight.plan.devices[0].phases)
    inputs = load_golden()
    ids, types = inputs["one_image.input_ids"], inputs["one_image.token_type_ids"]
    logits = [
        model.forward(ids, types, image_features=model.encode_image(inputs["in.image"]))
        for model in (roomy, tight)
    ]
    assert torch.equal(*logits)


def _fitting(within: Callable[[int], Model], nbytes: int) -> Model | None:
    try:
        return within(nbytes)
    except DoesNotFitError:
        return None


def test_adapters_take_the_bytes_that_the_plan_gives_them(tmp_path: Path) -> None:
    tensors = golden("language/step3")
    plain, adapted = loaded(None), loaded(written(tmp_path / "out", tensors))
    added = sum(tensor.nbytes for tensor in tensors.values())
    for model in (plain, adapted):
        list(model.runtime.residency.preload())
    assert adapted.runtime.held_bytes - plain.runtime.held_bytes == added


def test_an_adapter_counts_as_a_part_of_the_model(folder: Path) -> None:
    plain, adapted = identify_model(CHECKPOINT), identified(folder)
    tensors = {n: t * 2 for n, t in load_file(folder / WEIGHTS_NAME).items()}
    save_file(tensors, folder / WEIGHTS_NAME)
    weaker = identified(folder, 0.5)
    assert len({plain, adapted, identified(folder), weaker}) == 4


def identified(folder: Path, weight: float = 1.0) -> str:
    choice = AdapterChoice(name="mine", folder=folder, weight=weight)
    return identify_model(CHECKPOINT, [choice])


@pytest.mark.parametrize("command", ["ask", "chat", "batch", "serve", "mcp"])
def test_commands_take_an_adapter(command: str) -> None:
    module = importlib.import_module(f"cogvlm2_lite.cli.{command}")
    parser = module.build_parser()
    needed = {
        "ask": ["What?"],
        "batch": [".", "--question", "What?"],
        "mcp": ["--folder", "."],
    }.get(command, [])
    given = ["--adapter", "mine", "--adapter", "runs/other:0.5", "--any-base"]
    options = load_options(parser.read(["demo", *needed, *given]), CHECKPOINT)
    names = ["mine", "other"] if command in ("chat", "serve", "mcp") else ["mine+other"] * 2
    assert options.adapters == (
        AdapterChoice(name=names[0], folder=Path("mine")),
        AdapterChoice(name=names[1], folder=Path("runs/other"), weight=0.5),
    )
    assert options.any_base


def test_what_we_write_is_peft_s_form(tmp_path: Path, config: ModelConfig) -> None:
    tensors = golden("language/step3")
    folder = written(tmp_path / "out", tensors, acts_on=BEHIND_PICTURE, base={})
    theirs = json.loads((DEMO / CONFIG_NAME).read_text())
    ours = json.loads((folder / CONFIG_NAME).read_text())
    assert set(ours) == set(theirs)  # peft 0.12's keys: older and newer versions read them
    assert sorted(ours["target_modules"]) == [
        "language_expert_dense", "language_expert_query_key_value", "language_mlp.down_proj",
        "language_mlp.gate_proj", "language_mlp.up_proj",
    ]  # fmt: skip
    stored = load_file(folder / WEIGHTS_NAME)
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())
    adapter = read_adapter(folder, config, name="mine")
    assert (adapter.name, adapter.acts_on) == ("mine", BEHIND_PICTURE)
    assert {pair.scale for pair in adapter.pairs.values()} == {2.0}


def test_the_longest_form_of_today_s_peft_is_read(folder: Path, config: ModelConfig) -> None:
    shutil.copy(FINETUNE / "adapter_config.peft-0.21.2.json", folder / CONFIG_NAME)
    assert len(read_adapter(folder, config).pairs) == 2


def test_an_adapter_name_inside_the_tensors_names_is_accepted(
    folder: Path, config: ModelConfig
) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    renamed = {name.replace(".weight", ".default.weight"): t for name, t in tensors.items()}
    save_file(renamed, folder / WEIGHTS_NAME)
    assert len(read_adapter(folder, config).pairs) == 2


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    "dora": ({"use_dora": True}, "use_dora is True"),
    "bias": ({"bias": "all"}, "bias is 'all'"),
    "saved modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "fan in": ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    "replication": ({"layer_replication": [[0, 2]]}, "layer_replication"),
    "parameters": ({"target_parameters": ["x"]}, "target_parameters"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    "alora": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    "qalora": ({"use_qalora": True}, "use_qalora"),
    "velora": ({"velora_config": {"a": 1}}, "velora_config"),
    "a future key": ({"use_next_year": 3}, "use_next_year is 3"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "also changes the base model"),
    "loftq": ({"init_lora_weights": "loftq"}, "also changes the base model"),
    "another rank": ({"r": 8}, "has the rank 4, but the settings say 8"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha must be a positive number"),
    "a word as rank": ({"r": "4"}, "r must be a positive number"),
    "a pattern without an end": ({"alpha_pattern": {"(a+)+b": 1}}, "alpha_pattern has a pattern"),
    "many repeats": ({"rank_pattern": {".*.*.*.*x": 4}}, "rank_pattern has a pattern"),
    "no pattern": ({"rank_pattern": {"(": 4}}, "rank_pattern has a pattern"),
    "many patterns": ({"rank_pattern": {f"a{n}": 4 for n in range(101)}}, "rank_pattern"),
}


@pytest.mark.parametrize("changed", REFUSED, ids=str)
def test_what_is_no_plain_lora_is_refused_by_name(
    changed: str, folder: Path, config: ModelConfig
) -> None:
    settings, message = REFUSED[changed]
    file = folder / CONFIG_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    with pytest.raises(AdapterError) as found:
        read_adapter(folder, config)
    assert message in str(found.value)


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
A, B = (
    f"base_model.model.model.layers.0.self_attn.vision_expert_query_key_value.lora_{side}.weight"
    for side in "AB"
)
UNKNOWN = A.replace("vision", "hearing")
EMBEDDING = "base_model.model.model.embed_tokens.lora_A.weight"
BROKEN: dict[str, tuple[Change, str]] = {
    "an unknown matrix": (lambda t: {**t, UNKNOWN: t[A].clone()}, "no part of an"),
    "the embedding": (lambda t: {EMBEDDING: t[A]}, "of the embedding are not supported"),
    "one side only": (lambda t: {n: v for n, v in t.items() if n != B}, "only one of the two"),
    "another width": (lambda t: {**t, A: torch.zeros(4, 127)}, "made for another model"),
    "integers": (lambda t: {**t, A: t[A].to(torch.int8)}, "adapters are float32"),
    "not finite": (lambda t: {**t, B: t[B] * float("inf")}, "not finite"),
    "two adapters": (
        lambda t: {**t, A.replace(".weight", ".x.weight"): t[A].clone()}, "several adapters"
    ),
    "nothing": (lambda _: {}, "has no tensors"),
}  # fmt: skip


@pytest.mark.parametrize("changed", BROKEN, ids=str)
def test_tensors_that_do_not_belong_to_the_model_are_named(
    changed: str, folder: Path, config: ModelConfig
) -> None:
    change, message = BROKEN[changed]
    save_file(change(load_file(folder / WEIGHTS_NAME)), folder / WEIGHTS_NAME)
    with pytest.raises(AdapterError) as found:
        read_adapter(folder, config)
    assert message in found.value.text


def test_missing_files_and_pickles_are_named(folder: Path, config: ModelConfig) -> None:
    (folder / WEIGHTS_NAME).rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError) as found:
        read_adapter(folder, config)
    assert "can run programs" in found.value.hint
    assert "torch.load('adapter_model.bin', weights_only=True)" in found.value.hint
    (folder / CONFIG_NAME).unlink()
    with pytest.raises(AdapterError, match=f"has no {CONFIG_NAME}"):
        read_adapter(folder, config)
    with pytest.raises(AdapterError, match="There is no adapter folder"):
        read_adapter(folder / "nowhere", config)


def test_an_adapter_of_another_model_of_the_same_shape_is_refused(
    folder: Path, config: ModelConfig
) -> None:
    own = {"format_version": 1, "base": {"source_fingerprint": "other"}}
    (folder / OWN_NAME).write_text(json.dumps(own))
    with pytest.raises(AdapterError, match="another model of the same shape"):
        read_adapter(folder, config, base=Base(source="this"))
    assert read_adapter(folder, config, base=Base(source="this"), any_base=True).base == "other"
    (folder / OWN_NAME).write_text(json.dumps({**own, "format_version": 2}))
    with pytest.raises(AdapterError, match="format version 2"):
        read_adapter(folder, config)


def mutated(raw: bytes, chance: random.Random) -> Iterator[bytes]:
    for _ in range(150):
        data = bytearray(raw)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[place] = chance.randrange(256)
                case 1:
                    del data[place : place + chance.randint(1, 40)]
                case _:
                    data[place:place] = chance.randbytes(chance.randint(1, 8))
            if not data:
                break
        yield bytes(data)


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_damaged_files_end_in_an_error_of_ours(
    name: str, folder: Path, config: ModelConfig
) -> None:
    file = folder / name
    # The header is where damage is interesting; values may be any finite numbers.
    raw = file.read_bytes()
    head, tail = raw[:600], raw[600:]
    for part in mutated(head, random.Random(7)):
        file.write_bytes(part + tail)
        with suppress(CogVLM2LiteError):
            read_adapter(folder, config)
