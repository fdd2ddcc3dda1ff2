"""Adapters as other programs write them, and as nobody should: what loads, and what is rejected.

The configs are written by hand after what each program saves: the released demo with peft 0.11, the
oldest and the newest peft, ms-swift (a pattern of names, and a file of its own beside it),
LLaMA-Factory and axolotl (peft's own form, often for all linear layers), unsloth (its mark in
auto_mapping).
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.cli.main import main
from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import AdapterError, CheckpointError
from cogvlm2_lite.weights.adapter import read_adapter, write_adapter
from cogvlm2_lite.weights.adapter_names import CONFIG_NAME, OWN_NAME, WEIGHTS_NAME
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.identity import Base, identify_base
from tests.helpers.conversion import quantize
from tests.helpers.finetune import FINETUNE, golden
from tests.helpers.goldens import CHECKPOINT

DEMO = FINETUNE / "adapter_demo"

OLDEST: dict[str, Any] = {
    "base_model_name_or_path": "THUDM/cogvlm2-llama3-chat-19B", "bias": "none",
    "enable_lora": None, "fan_in_fan_out": False, "inference_mode": True, "lora_alpha": 8,
    "lora_dropout": 0.1, "merge_weights": False, "modules_to_save": None, "peft_type": "LORA",
    "r": 4, "target_modules": ["vision_expert_query_key_value"], "task_type": "CAUSAL_LM",
}  # fmt: skip
COMMON: dict[str, Any] = {
    **OLDEST, "alpha_pattern": {}, "auto_mapping": None, "init_lora_weights": True,
    "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
    "loftq_config": {}, "megatron_config": None, "megatron_core": "megatron.core",
    "rank_pattern": {}, "revision": None, "use_dora": False, "use_rslora": False,
}  # fmt: skip
NEW: dict[str, Any] = {
    **COMMON, "corda_config": None, "eva_config": None, "exclude_modules": None,
    "lora_bias": False, "peft_version": "0.19.1", "qalora_group_size": 16,
    "target_parameters": None, "trainable_token_indices": None, "use_qalora": False,
    "ensure_weight_tying": False, "arrow_config": None, "alora_invocation_tokens": None,
}  # fmt: skip
EVERY_LAYER = r"^(model\.layers(?=\.).*\.(vision_expert_query_key_value|language_expert_dense))$"
FORMS: dict[str, dict[str, Any]] = {
    "oldest peft": OLDEST,
    "released demo": {**COMMON, "target_modules": "vision_expert_query_key_value"},
    "ms-swift": {**COMMON, "modules_to_save": [], "target_modules": EVERY_LAYER},
    "LLaMA-Factory": {**NEW, "target_modules": "^(?!.*vision.trans).*(?:query_key_value|dense).*"},
    "axolotl": {**NEW, "target_modules": "all-linear", "lora_dropout": 0.05, "task_type": None},
    "unsloth": {
        **NEW,
        "auto_mapping": {
            "base_model_class": "CogVLMForCausalLM",
            "parent_library": "transformers_modules.modeling_cogvlm",
            "unsloth_fixed": True,
        },
        "target_modules": [".*?(?:language|text).*?(?:self_attn|mlp).*?"],
    },
    "layers of one's choice": {**NEW, "layers_to_transform": [0], "layers_pattern": "layers"},
    "gaussian start": {**NEW, "init_lora_weights": "gaussian"},
    "eva start": {**NEW, "init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
}
MORE_FILES = (
    "additional_config.json", "args.json", "README.md", "trainer_state.json", "training_args.bin",
    "optimizer.pt", "tokenizer_config.json",
)  # fmt: skip
"""What the programs put into the folder, too."""


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return read_config(CHECKPOINT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "adapter"))


def set_config(folder: Path, settings: dict[str, Any]) -> None:
    (folder / CONFIG_NAME).write_text(json.dumps(settings), encoding="utf-8")


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_lora_of_other_programs_loads(
    form: str, dtype: torch.dtype, folder: Path, config: ModelConfig
) -> None:
    set_config(folder, FORMS[form])
    for name in MORE_FILES:
        (folder / name).write_text('{"lora_dtype": "bf16"}')
    tensors = {n: t.to(dtype) for n, t in load_file(folder / WEIGHTS_NAME).items()}
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    adapter = read_adapter(folder, config, base=Base(source="any"))
    assert len(adapter.pairs) == 2
    assert {pair.scale for pair in adapter.pairs.values()} == {2.0}
    assert adapter.acts_on == "all"
    assert ["does not say for which model" in str(each) for each in adapter.remarks] == [True]
    pair = adapter.pairs["model.layers.0.self_attn.vision_expert_query_key_value.weight"]
    assert pair.up.dtype == torch.float32


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "ia3": ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    "adalora": ({"peft_type": "ADALORA"}, "peft_type is 'ADALORA'"),
    "no type": ({"peft_type": None}, "peft_type is None"),
    "dora": ({"use_dora": True}, "use_dora is True"),
    "lora bias": ({"lora_bias": True}, "lora_bias is True"),
    "saved embedding": ({"modules_to_save": ["embed_tokens", "lm_head"]}, "modules_to_save"),
    "bdlora": ({"use_bdlora": {"a": 1}}, "use_bdlora"),
    "arrow": ({"arrow_config": {"top_k": 2}}, "arrow_config"),
    "kasa": ({"kasa_config": {"beta": 1}}, "kasa_config"),
    "monteclora": ({"monteclora_config": {"n": 4}}, "monteclora_config"),
    "swift's own tuner": ({"swift_type": "LORA"}, "swift_type"),
    "olora": ({"init_lora_weights": "olora"}, "init_lora_weights olora"),
    "corda": ({"init_lora_weights": "corda"}, "init_lora_weights corda"),
    "lora-ga": ({"init_lora_weights": "lora_ga"}, "init_lora_weights lora_ga"),
    "PISSA": ({"init_lora_weights": "PISSA"}, "init_lora_weights PISSA"),
    "a word for rslora": ({"use_rslora": "false"}, "use_rslora is 'false'"),
    "infinite alpha": ({"lora_alpha": 1e999}, "lora_alpha must be a positive number"),
    "huge alpha": ({"lora_alpha": 10**400}, "lora_alpha must be a positive number"),
    "a truth as rank": ({"r": True}, "r must be a positive number"),
    "a truth in a pattern": ({"rank_pattern": {"x": True}}, "rank_pattern has a pattern"),
    "a huge pattern": ({"alpha_pattern": {"x": 10**400}}, "alpha_pattern has a pattern"),
    "a list of patterns": ({"alpha_pattern": ["x"]}, "alpha_pattern has a pattern"),
    "a long pattern": ({"rank_pattern": {"x" * 201: 4}}, "rank_pattern has a pattern"),
    "another rank in a pattern": (
        {"rank_pattern": {"vision_expert_query_key_value": 8}}, "the settings say 8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("changed", REFUSED, ids=str)
def test_what_is_no_plain_lora_is_refused_by_name(
    changed: str, folder: Path, config: ModelConfig
) -> None:
    settings, message = REFUSED[changed]
    text = json.dumps({**NEW, **settings}).replace("Infinity", "1e999")
    (folder / CONFIG_NAME).write_text(text)
    with pytest.raises(AdapterError) as found:
        read_adapter(folder, config)
    assert message in str(found.value)


SLOW = (
    "(a+)+b", "(.|.)" * 40, ".?" * 90 + "x", "(?x:(a+) +)+", r"[\][](a+)+[]]", "(a{1,40}){40}",
    ".*.*.*.*x", "(?:a|a?)" * 20, "(?P<n>a)(?P=n)", "(?i:a)", "(?(1)a|b)", "((a|b)|(c|d)|e?)" * 10,
)  # fmt: skip
FINE = (
    r"layers\.1\.mlp\.vision_mlp\.down_proj", r".*\.self_attn\..*", "(?:up|down|gate)_proj",
    r"model\.layers\.[0-9]+\.mlp\.(a|b|c|d)", r"^model\.layers(?=\.).*\.down_proj$", "[]]x", "a?",
)  # fmt: skip


@pytest.mark.parametrize("pattern", [*SLOW, *FINE], ids=str)
def test_patterns_that_could_take_long_are_refused_at_once(
    pattern: str, folder: Path, config: ModelConfig
) -> None:
    set_config(folder, {**NEW, "alpha_pattern": {pattern: 3}})
    began = time.perf_counter()
    if pattern in FINE:
        read_adapter(folder, config)
    else:
        with pytest.raises(AdapterError, match="alpha_pattern has a pattern"):
            read_adapter(folder, config)
    assert time.perf_counter() - began < 10


def test_the_slowest_patterns_that_are_allowed_are_quick(
    tmp_path: Path, config: ModelConfig
) -> None:
    write_adapter(tmp_path / "a", golden("tower/step3"), alpha=8, base_name="golden_a", facts={})
    settings = json.loads((tmp_path / "a" / CONFIG_NAME).read_text())
    patterns = {f".*(.|.|.)(.|.){n}" for n in range(10)} | {f"n{n}" for n in range(80)}
    set_config(tmp_path / "a", {**settings, "alpha_pattern": dict.fromkeys(patterns, 3)})
    began = time.perf_counter()
    read_adapter(tmp_path / "a", config)
    assert time.perf_counter() - began < 10


A, B = (
    f"base_model.model.model.layers.0.self_attn.vision_expert_query_key_value.lora_{side}.weight"
    for side in "AB"
)
HEAD, EMBEDDING = "base_model.model.lm_head", "base_model.model.model.embed_tokens"
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
BROKEN: dict[str, tuple[Change, str]] = {
    "lm_head": (lambda t: {**t, f"{HEAD}.lora_A.weight": t[A].clone()}, "lm_head"),
    "embedding": (lambda t: {**t, f"{EMBEDDING}.lora_embedding_A": t[A].clone()}, "embed_tokens"),
    "saved lm_head": (lambda t: {**t, f"{HEAD}.weight": t[A].clone()}, "lm_head"),
    "magnitudes": (
        lambda t: {**t, A.replace("lora_A.weight", "lora_magnitude_vector"): t[A][0].clone()},
        "lora_magnitude_vector",
    ),
    "bias of B": (lambda t: {**t, B.replace("weight", "bias"): t[B][:, 0].clone()}, "lora_B.bias"),
    "the same matrix twice": (
        lambda t: {**t, A.removeprefix("base_model.model."): t[A].clone()}, "twice"
    ),
    "A and B of two adapters": (
        lambda t: {n.replace("lora_A", "lora_A.x"): v for n, v in t.items()}, "several adapters"
    ),
    "integers": (lambda t: {**t, B: t[B].to(torch.int8)}, "has the type I8"),
    "8-bit floats": (lambda t: {**t, B: t[B].to(torch.float8_e4m3fn)}, "unknown type 'F8_E4M3'"),
    "float64": (lambda t: {**t, B: t[B].double()}, "unknown type 'F64'"),
    "not a number": (lambda t: {**t, A: t[A] * float("nan")}, "not finite"),
    "too large with its scale": (lambda t: {**t, B: t[B].sign() * 3e38}, "not finite"),
    "turned": (lambda t: {**t, A: t[A].T.contiguous()}, "this model needs"),
    "flat": (lambda t: {**t, A: t[A].flatten()}, "this model needs"),
    "a number": (lambda t: {**t, A: torch.tensor(1.0)}, "this model needs"),
    "ranks of A and B": (lambda t: {**t, B: t[B][:, :2].clone()}, "this model needs"),
}  # fmt: skip


@pytest.mark.parametrize("changed", BROKEN, ids=str)
def test_tensors_that_do_not_belong_are_named(
    changed: str, folder: Path, config: ModelConfig
) -> None:
    change, message = BROKEN[changed]
    save_file(change(load_file(folder / WEIGHTS_NAME)), folder / WEIGHTS_NAME)
    with pytest.raises((AdapterError, CheckpointError)) as found:
        read_adapter(folder, config)
    assert message in found.value.text


def test_files_that_zero_3_left_empty_are_explained(folder: Path, config: ModelConfig) -> None:
    empty = {name: torch.zeros(0) for name in load_file(folder / WEIGHTS_NAME)}
    save_file(empty, folder / WEIGHTS_NAME)
    with pytest.raises(AdapterError) as found:
        read_adapter(folder, config)
    assert "stage3_gather_16bit_weights_on_model_save" in found.value.hint


def test_a_folder_beside_the_right_one_is_explained(tmp_path: Path, config: ModelConfig) -> None:
    run = tmp_path / "run"
    shutil.copytree(DEMO, run / "checkpoint-100")
    with pytest.raises(AdapterError) as found:
        read_adapter(run, config)
    assert found.value.hint == f"Did you mean {run / 'checkpoint-100'}?"
    with pytest.raises(AdapterError) as found:
        read_adapter(CHECKPOINT, config)
    assert "the folder of a model" in found.value.hint
    with pytest.raises(AdapterError, match="no adapter folder"):
        read_adapter(DEMO / WEIGHTS_NAME, config)


@pytest.mark.parametrize("command", ["ask M Hi", "merge M", "quantize M"])
def test_commands_refuse_it_before_they_start(
    command: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_config(folder, {**NEW, "use_dora": True})
    given = [str(CHECKPOINT) if word == "M" else word for word in command.split()]
    out = str(tmp_path / "out")
    more = {
        "ask": ["--adapter", str(folder)],
        "merge": [str(folder), out],
        "quantize": [out, "--adapter", str(folder)],
    }
    assert main([*given, *more[given[0]]]) != 0
    shown = capsys.readouterr().err
    assert "use_dora is True" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "out").exists()


# --- the model that an adapter belongs to ---------------------------------------------------------


def test_another_quantization_and_another_tokenizer_are_remarked(
    tmp_path: Path, config: ModelConfig
) -> None:
    quantize(CHECKPOINT, tmp_path / "nf4")
    nf4 = identify_base(Catalog.open(tmp_path / "nf4", config), tmp_path / "nf4")
    dense = identify_base(Catalog.open(CHECKPOINT, config), CHECKPOINT)
    assert nf4.source == dense.source
    tensors = golden("language/step3")
    write_adapter(tmp_path / "a", tensors, alpha=8, base_name="x", facts={"base": nf4.to_json()})

    def remarks(base: Base) -> list[str]:
        return [str(each) for each in read_adapter(tmp_path / "a", config, base=base).remarks]

    assert remarks(nf4) == []
    (remark,) = remarks(dense)
    assert "was trained on the NF4 weights of this model" in remark
    assert "These are its 16-bit weights" in remark
    assert "98.7 %" in remark
    assert "94.7 %" in remark
    calibrated = Base(source=nf4.source, weights="other", kinds=nf4.kinds)
    assert "These are its other NF4 weights" in remarks(calibrated)[0]
    own = json.loads((tmp_path / "a" / OWN_NAME).read_text())
    own["base"]["tokenizer_sha256"] = "of another"
    (tmp_path / "a" / OWN_NAME).write_text(json.dumps(own))
    same = Base(source=nf4.source, weights=nf4.weights, tokenizer="of this")
    assert "another tokenizer.json" in remarks(same)[0]
    save_file({n: t * 2 for n, t in tensors.items()}, tmp_path / "a" / WEIGHTS_NAME)
    assert "were changed after it was trained" in remarks(nf4)[0]


# --- damage ---------------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 4, 8, 1e-300, 1e999, 10**400, -0.0, "", "none", "LORA",
    "x" * 300, [], {}, [[]], {"a": 1}, {"(": 4}, {".*": 4}, {"(a+)+": 1}, "all", "\ud800",
    "pissa", [1, 2],
)  # fmt: skip


def changed_settings(chance: random.Random, config: dict[str, Any]) -> bytes:
    """Return a config with some keys gone, some values changed, some keys new, or cut anywhere."""
    settings = dict(config)
    for _ in range(chance.randint(1, 3)):
        key = chance.choice([*settings, "use_next", "adapter_name", "use_rslora"])
        settings[key] = chance.choice(VALUES)
        if chance.random() < 0.2:
            del settings[key]
    raw = json.dumps(settings).replace("Infinity", "1e999").encode()
    return damaged(chance, raw) if chance.random() < 0.3 else raw


def damaged(chance: random.Random, raw: bytes, most: int = 1 << 30) -> bytes:
    """Return bytes with some changed, removed or inserted among the first ones."""
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(min(len(data), most))
        match chance.randrange(4):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                data[place] ^= 1 << chance.randrange(8)
            case 2:
                del data[place : place + chance.randint(1, 40)]
            case _:
                data[place:place] = chance.randbytes(chance.randint(1, 8))
        if not data:
            return b""
    return bytes(data)


def changed_tensors(chance: random.Random, tensors: dict[str, Tensor]) -> bytes:
    """Return a file in which names, shapes, types or values are others."""
    found = dict(tensors)
    for _ in range(chance.randint(1, 2)):
        name = chance.choice(list(found))
        tensor = found[name]
        match chance.randrange(7):
            case 0:
                del found[name]
                found[damaged_name(chance, name)] = tensor
            case 1:
                found[name] = tensor.to(chance.choice([torch.int8, torch.float16, torch.float64]))
            case 2:
                found[name] = tensor[: chance.randrange(len(tensor) + 1)].clone()
            case 3:
                found[name] = tensor.clone().view(-1).contiguous()
            case 4:
                found[name] = tensor * chance.choice([0.0, 1e38, float("inf"), float("nan"), -2.0])
            case 5:
                del found[name]
            case _:
                found[name.replace(".weight", chance.choice(["", ".x.weight", ".bias"]))] = tensor
        if not found:
            break
    return save({name: tensor.clone() for name, tensor in found.items()})


def damaged_name(chance: random.Random, name: str) -> str:
    place = chance.randrange(len(name))
    return (
        name[:place] + chance.choice(["", "A", "B", ".", "/", "\u4e2d", "\x00"]) + name[place + 1 :]
    )


def mutations(chance: random.Random, folder: Path, count: int) -> Iterator[None]:
    """Damage one file of an adapter at a time; yield after each."""
    config = json.loads((DEMO / CONFIG_NAME).read_text())
    tensors = load_file(DEMO / WEIGHTS_NAME)
    own = {"format_version": 1, "acts_on": "all", "answer_space": True, "base": {
        "source_fingerprint": "s", "folder_fingerprint": "f", "kinds": {"nf4": 3}}}  # fmt: skip
    originals = {
        CONFIG_NAME: json.dumps(config).encode(),
        WEIGHTS_NAME: (DEMO / WEIGHTS_NAME).read_bytes(),
        OWN_NAME: json.dumps(own).encode(),
    }
    for _ in range(count):
        for name, raw in originals.items():
            (folder / name).write_bytes(raw)
        match chance.randrange(4):
            case 0:
                (folder / CONFIG_NAME).write_bytes(changed_settings(chance, config))
            case 1:
                (folder / WEIGHTS_NAME).write_bytes(changed_tensors(chance, tensors))
            case 2:
                raw = damaged(chance, originals[WEIGHTS_NAME], most=700)
                (folder / WEIGHTS_NAME).write_bytes(raw)
            case _:
                (folder / OWN_NAME).write_bytes(changed_settings(chance, own))
        yield


def try_mutations(folder: Path, seed: int, count: int) -> tuple[int, int]:
    """Return how many damaged adapters were read, and how many rejected.

    What is read must be a whole adapter with finite numbers.
    """
    config, read, rejected = read_config(CHECKPOINT), 0, 0
    for _ in mutations(random.Random(seed), folder, count):
        began = time.perf_counter()
        try:
            adapter = read_adapter(folder, config, base=Base(source="s"))
        except (AdapterError, CheckpointError) as error:
            str(error).encode()
            rejected += 1
        else:
            read += 1
            assert adapter.acts_on in ("all", "behind the picture")
            for pair in adapter.pairs.values():
                assert pair.rank == pair.up.shape[1]
                assert 0 < pair.scale < 1e10
                assert bool(torch.isfinite(pair.up * pair.scale).all())
            [str(remark) for remark in adapter.remarks]
        assert time.perf_counter() - began < 20
    return read, rejected


def test_damaged_adapters_are_rejected_or_whole(tmp_path: Path) -> None:
    # 10,000 of these, with seeds 0 to 9, were run once.
    read, rejected = try_mutations(tmp_path, seed=11, count=400)
    assert read > 40
    assert rejected > 200
