"""An architecture that a test registers is used everywhere; no other line of code is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import cogvlm2_lite
from cogvlm2_lite.architectures import ARCHITECTURES
from cogvlm2_lite.architectures.architecture import (
    Architecture,
    ModelConfig,
    Part,
    Phase,
    Released,
    Template,
    TensorSpec,
)
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import CheckpointError, UsageError
from cogvlm2_lite.forecast.text import find_subject
from cogvlm2_lite.inputs.prompt import build_prompt, encode_prompt
from cogvlm2_lite.memory.inventory import list_units
from cogvlm2_lite.memory.plan import DeviceBudget, Workload, plan_memory
from cogvlm2_lite.units import GIB
from cogvlm2_lite.weights.catalog import Catalog
from quantize.pipeline import Effort, convert
from quantize.recipe import QuantizeOptions, make_recipe
from tests.helpers.checkpoints import CHECKPOINT, golden_tensors, write_folder


def renamed_tensors(config: ModelConfig) -> Iterator[TensorSpec]:
    return (replace(spec, name=f"other.{spec.name}") for spec in COGVLM2.tensors(config))


OTHER = replace(
    COGVLM2,
    name="OtherForCausalLM",
    tensors=renamed_tensors,
    # It scores tokens in no phase, so its lm_head is never needed.
    phases={phase: parts - {Part.LM_HEAD} for phase, parts in COGVLM2.phases.items()},
    keep_order=COGVLM2.keep_order[::-1],
    templates={
        "chat": Template(question="Q {question} A", past="Q {question} A {answer} "),
        "vqa": Template(question="{question}?"),
    },
    pictures_per_conversation=2,
    released=Released(word="other", title="Another model", raw=COGVLM2.released.raw),
)


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Architecture:
    monkeypatch.setitem(ARCHITECTURES, OTHER.name, OTHER)
    return OTHER


@pytest.fixture
def folder(other: Architecture, tmp_path: Path) -> Path:
    """The golden checkpoint as the other architecture names its tensors."""
    raw = json.loads((CHECKPOINT / "config.json").read_text())
    raw["architectures"] = [other.name]
    tensors = {f"other.{name}": tensor for name, tensor in golden_tensors().items()}
    return write_folder(tmp_path / "source", tensors, shards=2, config=raw)


def test_a_config_names_its_architecture(folder: Path) -> None:
    assert read_config(folder).architecture is OTHER
    assert read_config(CHECKPOINT).architecture is COGVLM2


def test_an_unknown_or_missing_name_is_checked_as_cogvlm2(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    for names in (["TunedForCausalLM"], [], "CogVLMForCausalLM", None):
        (folder / "config.json").write_text(json.dumps(raw | {"architectures": names}))
        assert read_config(folder).architecture is COGVLM2


def test_a_folder_is_opened_with_its_tensor_names(folder: Path) -> None:
    catalog = Catalog.open(folder, read_config(folder))
    assert all(name.startswith("other.") for name in catalog.tensors)
    with pytest.raises(CheckpointError, match=r"other\."):
        Catalog.open(folder, read_config(CHECKPOINT))


def test_a_plan_follows_its_phases_and_its_order_of_keeping(folder: Path) -> None:
    subject = find_subject(str(folder), None)
    sizes = subject.weigh(itemsize=2, packed=False, on_gpu=False)
    budget = DeviceBudget(device="cpu", device_bytes=GIB)
    plan = plan_memory(subject.config, sizes, [budget], Workload(context=64))
    (device,) = plan.devices
    assert device.phase(Phase.DECODE).parts == OTHER.phases[Phase.DECODE]
    kept = [unit.part for unit in device.phase(Phase.ENCODE).resident]
    assert list(dict.fromkeys(kept)) == [p for p in OTHER.keep_order if p is not Part.LM_HEAD]
    first = list_units(sizes, OTHER.keep_order)[0]
    assert first.part is OTHER.keep_order[0] is not COGVLM2.keep_order[0]


def test_its_released_model_is_planned_by_its_word(other: Architecture) -> None:
    subject = find_subject("other", "nf4")
    assert subject.name == "Another model"
    assert find_subject("19b", None).name == COGVLM2.released.title


def test_a_recipe_and_a_quantized_folder_have_its_names(folder: Path, tmp_path: Path) -> None:
    catalog = Catalog.open(folder, read_config(folder))
    recipe = make_recipe(catalog, QuantizeOptions())
    assert {tensor.kind for tensor in recipe.tensors} == {"dense", "nf4"}
    result = tmp_path / "result"
    assert list(convert(folder, result, QuantizeOptions(), Effort(threads=1)))
    made = Catalog.open(result, read_config(result))
    assert list(made.tensors) == list(catalog.tensors)
    assert {name: stored.kind for name, stored in made.tensors.items()} == {
        tensor.name: tensor.kind for tensor in recipe.tensors
    }


class Bytes:
    """A tokenizer with one id per byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def test_a_prompt_is_written_with_its_templates(folder: Path) -> None:
    config, past = read_config(folder), [("a", "b")]
    prompt = encode_prompt(Bytes(), config, "c", history=past)
    assert bytes(prompt.input_ids[0, 1:].tolist()) == b"Q a A b Q c A"
    short = encode_prompt(Bytes(), config, "c", history=past, template="vqa")
    assert bytes(short.input_ids[0, 1:].tolist()) == b"c?"
    with pytest.raises(UsageError) as caught:
        build_prompt("c", template="base", architecture=OTHER)
    assert caught.value.hint == "Choose one of chat, vqa."


def test_its_number_of_pictures_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The names are CogVLM2's again: they are written in model/ too, beside the layers they fill.
    monkeypatch.setitem(ARCHITECTURES, OTHER.name, replace(COGVLM2, pictures_per_conversation=2))
    raw = json.loads((CHECKPOINT / "config.json").read_text()) | {"architectures": [OTHER.name]}
    folder = write_folder(tmp_path / "model", golden_tensors(), config=raw)
    model = cogvlm2_lite.load(folder, device="cpu")
    with pytest.raises(UsageError, match="one conversation: 3; the model takes 2"):
        model.answer("Which?", image=["a", "b", "c"])  # type: ignore[arg-type]
