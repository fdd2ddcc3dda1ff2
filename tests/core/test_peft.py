"""peft itself reads our adapters, and we read the ones that it writes.

Skipped only where peft is not installed; the extra `dev` has it. With peft 0.12 and 0.21 the same
numbers come out.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import AdapterError, UsageError
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.finetune.prepare import prepare
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.finetune.task import TrainingTask
from cogvlm2_lite.hf import CogVLM2ForConditionalGeneration
from cogvlm2_lite.weights.adapter import read_adapter
from cogvlm2_lite.weights.adapter_names import CONFIG_NAME, OWN_NAME, WEIGHTS_NAME
from tests.helpers.finetune import FINETUNE, LOGIT_TOLERANCE, golden
from tests.helpers.goldens import CHECKPOINT, load_golden
from tests.helpers.peft_model import PeftModelOfFolder

peft: Any = pytest.importorskip("peft")

DEMO = model_folder("demo")
LANGUAGE = ["language_expert_query_key_value", "language_mlp.down_proj"]


def set_up(folder: Path, adapter: Path) -> PeftModelOfFolder:
    """Return a model with an adapter that peft read; it must have found every tensor."""
    model = PeftModelOfFolder(folder)
    wrapped = peft.PeftModel.from_pretrained(model.tree, str(adapter))
    stored = load_file(adapter / WEIGHTS_NAME)
    placed = {
        name.replace(".default", ""): parameter
        for name, parameter in wrapped.named_parameters()
        if ".lora_" in name
    }
    assert placed.keys() == stored.keys()
    assert all(torch.equal(placed[name].float(), t.float()) for name, t in stored.items())
    wrapped.eval()
    return model


def wrapped(config: Any) -> tuple[PeftModelOfFolder, Any]:
    """Return the golden checkpoint with a new adapter of peft, whose lora_B are not zero."""
    model = PeftModelOfFolder(CHECKPOINT)
    with_adapter = peft.get_peft_model(model.tree, config)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in with_adapter.named_parameters():
        if ".lora_B." in name:
            noise = torch.randn(parameter.shape, generator=generator) * 0.05
            parameter.data.copy_(noise)
    with_adapter.eval()
    return model, with_adapter


def ours(folder: Path, adapter: Path, ids: Tensor, types: Tensor, pixels: Tensor | None) -> Tensor:
    model = cogvlm2_lite.load(folder, device="cpu", dtype="float32", adapter=adapter)
    features = None if pixels is None else model.encode_image(pixels)
    return model.forward(ids, types, image_features=features)


def golden_inputs(case: str) -> tuple[Tensor, Tensor, Tensor | None]:
    inputs = load_golden()
    pixels = None if case == "text_only" else inputs["in.image"]
    return inputs[f"{case}.input_ids"], inputs[f"{case}.token_type_ids"], pixels


def off(first: Tensor, second: Tensor) -> float:
    return float((first.double() - second.double()).abs().max())


# --- ours in peft ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    with tarfile.open(FINETUNE / "rows.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    file = folder / "rows" / "train.jsonl"
    file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[:4]), "utf-8")
    return file


def demo_prompt() -> tuple[Tensor, Tensor, Tensor]:
    config = read_config(DEMO)
    picture = config.vision.image_tokens
    ids = torch.arange(picture + 9)[None] % 90 + 10
    types = torch.tensor([[0] + [1] * picture + [0] * 8])
    side = config.vision.image_size
    pixels = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(2))
    return ids, types, pixels


@pytest.mark.parametrize("preset", ["words", "tower"])
def test_an_adapter_that_finetune_wrote_gives_the_same_logits_in_peft(
    preset: str, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = TrainingSettings(preset=preset, rank=2, epochs=1, step=2, rate=0.02)
    task = TrainingTask(
        model=DEMO, data=data, out=out, settings=settings, held_out="0", answer_space="yes"
    )
    list(prepare(task).run.go(Cancel()))
    theirs, prompt = set_up(DEMO, out), demo_prompt()
    expected = theirs.answer(*prompt)
    base = PeftModelOfFolder(DEMO).answer(*prompt)
    assert off(base, expected) > 0.05  # the adapter does something
    if preset == "words":
        # peft has no "behind the picture": there the adapter acts on all tokens.
        behind = ours(DEMO, out, *prompt)
        assert off(behind, expected) > 100 * LOGIT_TOLERANCE
        (out / OWN_NAME).unlink()
    assert off(ours(DEMO, out, *prompt), expected) < LOGIT_TOLERANCE


def test_the_model_of_transformers_takes_an_adapter_when_it_is_loaded() -> None:
    adapter = FINETUNE / "adapter_patterns"
    ids, types, pixels = golden_inputs("multi_turn")
    model: Any = CogVLM2ForConditionalGeneration.from_pretrained(
        CHECKPOINT, dtype=torch.float32, device="cpu", adapter=str(adapter)
    )
    logits = model(input_ids=ids, token_type_ids=types, pixel_values=pixels).logits
    expected = set_up(CHECKPOINT, adapter).answer(ids, types, pixels)
    assert off(logits, expected) < LOGIT_TOLERANCE
    with pytest.raises(UsageError, match="can't be added to a loaded model"):
        model.load_adapter(str(adapter))
    with pytest.raises(UsageError, match="can't be trained through transformers"):
        model.add_adapter(peft.LoraConfig(target_modules=LANGUAGE))


# --- peft's in ours -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adapter_demo", "adapter_patterns"])
def test_folders_of_the_goldens_are_the_same_adapters_in_peft_and_ours(name: str) -> None:
    inputs = golden_inputs("multi_turn")
    expected = set_up(CHECKPOINT, FINETUNE / name).answer(*inputs)
    assert off(ours(CHECKPOINT, FINETUNE / name, *inputs), expected) < LOGIT_TOLERANCE
    if name == "adapter_patterns":
        (released,) = golden("patterns/adapted").values()
        assert off(released, expected) < LOGIT_TOLERANCE


WRITTEN: dict[str, dict[str, Any]] = {
    "list": {"target_modules": LANGUAGE, "r": 3, "lora_alpha": 5},
    "regex": {"target_modules": r".*layers\.1\.(self_attn|mlp)\..*(dense|proj|value)", "r": 2},
    "every linear of the tower": {
        "target_modules": ["attention.query_key_value", "attention.dense", "mlp.fc1", "mlp.fc2",
                           "linear_proj.linear_proj", "linear_proj.dense_4h_to_h"],
    },
    "rank-stabilised": {"target_modules": LANGUAGE, "r": 4, "use_rslora": True},
    "patterns": {
        "target_modules": LANGUAGE, "r": 4, "lora_alpha": 6,
        "rank_pattern": {"language_mlp.down_proj": 7}, "alpha_pattern": {"down_proj": 3},
    },
    "one layer": {"target_modules": LANGUAGE, "layers_to_transform": [1]},
    "dropout, gaussian": {
        "target_modules": LANGUAGE, "lora_dropout": 0.1, "init_lora_weights": "gaussian",
    },
}  # fmt: skip


@pytest.mark.parametrize("form", WRITTEN, ids=str)
def test_what_peft_writes_gives_the_same_logits_here(form: str, tmp_path: Path) -> None:
    settings = dict(WRITTEN[form])
    if form == "patterns" and peft.__version__.startswith("0.12."):
        # peft 0.12 takes rank and alpha from the first pattern of either that matches.
        settings["alpha_pattern"] = {"language_mlp.down_proj": 3}
    model, adapter = wrapped(peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    adapter.save_pretrained(str(tmp_path))
    inputs = golden_inputs("one_image")
    expected = model.answer(*inputs)
    assert off(PeftModelOfFolder(CHECKPOINT).answer(*inputs), expected) > 0.005
    assert off(ours(CHECKPOINT, tmp_path, *inputs), expected) < LOGIT_TOLERANCE


def test_an_adapter_with_a_name_is_in_a_folder_of_its_own(tmp_path: Path) -> None:
    _, adapter = wrapped(peft.LoraConfig(target_modules=LANGUAGE, r=2))
    adapter.add_adapter("second", peft.LoraConfig(target_modules=LANGUAGE, r=3))
    adapter.save_pretrained(str(tmp_path))
    config = read_config(CHECKPOINT)
    assert {pair.rank for pair in read_adapter(tmp_path, config).pairs.values()} == {2}
    second = read_adapter(tmp_path / "second", config)
    assert {pair.rank for pair in second.pairs.values()} == {3}


def other(kind: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(peft, kind)(target_modules=LANGUAGE, **settings)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "IA3": (other("IA3Config", feedforward_modules=[]), "peft_type is 'IA3'"),
    "LoHa": (other("LoHaConfig"), "peft_type is 'LOHA'"),
    "VeRA": (other("VeraConfig", r=4), "peft_type is 'VERA'"),
    "DoRA": (other("LoraConfig", use_dora=True), "use_dora is True"),
    "biases": (other("LoraConfig", bias="lora_only"), "bias is 'lora_only'"),
    "saved modules": (other("LoraConfig", modules_to_save=["lm_head"]), "modules_to_save is ["),
    "PiSSA": (other("LoraConfig", init_lora_weights="pissa"), "init_lora_weights pissa"),
    "OLoRA": (other("LoraConfig", init_lora_weights="olora"), "init_lora_weights olora"),
    "the output matrix": (lambda: peft.LoraConfig(target_modules=["lm_head"]), "lm_head"),
}


@pytest.mark.parametrize("method", REFUSED, ids=str)
def test_other_methods_of_peft_are_refused_by_name(method: str, tmp_path: Path) -> None:
    make, message = REFUSED[method]
    adapter = peft.get_peft_model(PeftModelOfFolder(CHECKPOINT).tree, make())
    adapter.save_pretrained(str(tmp_path), save_embedding_layers=False)
    with pytest.raises(AdapterError) as found:
        read_adapter(tmp_path, read_config(CHECKPOINT))
    assert message in str(found.value)


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights")
def test_pissa_that_peft_converted_is_plain_lora(tmp_path: Path) -> None:
    model = PeftModelOfFolder(CHECKPOINT)
    config = peft.LoraConfig(target_modules=LANGUAGE, r=2, init_lora_weights="pissa")
    adapter = peft.get_peft_model(model.tree, config)
    adapter.peft_config["default"].init_lora_weights = True
    adapter.save_pretrained(str(tmp_path / "start"))
    adapter.peft_config["default"].init_lora_weights = "pissa"
    for name, parameter in adapter.named_parameters():
        if ".lora_B." in name:
            parameter.data.add_(torch.ones_like(parameter) * 0.01)
    inputs = golden_inputs("text_only")
    expected = model.answer(*inputs)
    adapter.save_pretrained(
        str(tmp_path / "plain"), path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    settings = json.loads((tmp_path / "plain" / CONFIG_NAME).read_text())
    assert settings["r"] == 4
    assert off(ours(CHECKPOINT, tmp_path / "plain", *inputs), expected) < LOGIT_TOLERANCE
