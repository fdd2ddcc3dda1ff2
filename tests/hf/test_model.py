"""The model itself: logits, what it refuses, and what its import changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
)

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import CheckpointError, CogVLM2LiteError, NoFolderError, UsageError
from cogvlm2_lite.hf import CogVLM2ForConditionalGeneration, register
from cogvlm2_lite.hf.__main__ import main
from cogvlm2_lite.hf.arguments import read_arguments
from tests.helpers.conversion import CHECKPOINT, GOLDEN

DEMO = checkpoint_folder()
TOLERANCE = 2e-4
"""As for our own interface (tests/core/test_goldens.py)."""


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "golden_fp32.safetensors")


@pytest.fixture(scope="module")
def model() -> Any:
    """Return the golden checkpoint, which names remote code and has no tokenizer."""
    return AutoModelForImageTextToText.from_pretrained(
        CHECKPOINT, dtype=torch.float32, device_map={"": "cpu"}
    )


def pixels(golden: dict[str, torch.Tensor], case: str) -> torch.Tensor | None:
    """Return the pictures of a golden case."""
    if case == "text_only":
        return None
    if case == "two_images":
        return torch.cat((golden["in.image"], golden["in.image2"]))
    return golden["in.image"]


@pytest.mark.parametrize(
    "case", ["one_image", "text_only", "multi_turn", "image_mid", "two_images"]
)
def test_forward_gives_the_released_models_logits(
    model: Any, golden: dict[str, torch.Tensor], case: str
) -> None:
    given = {
        "input_ids": golden[f"{case}.input_ids"],
        "token_type_ids": golden[f"{case}.token_type_ids"],
        "pixel_values": pixels(golden, case),
    }
    output = model(**given)
    assert (output.logits - golden[f"{case}.logits"]).abs().max() < TOLERANCE
    last = model(**given, logits_to_keep=1).logits
    assert last.shape[1] == 1
    assert (last[:, 0] - output.logits[:, -1]).abs().max() < TOLERANCE
    chosen = model(**given, logits_to_keep=torch.tensor([0, 3])).logits
    assert torch.equal(chosen, output.logits[:, [0, 3]])
    assert model(**given, return_dict=False)[0].shape == output.logits.shape


@pytest.mark.parametrize("case", ["one_image", "text_only", "multi_turn"])
def test_generate_gives_the_released_models_tokens(
    model: Any, golden: dict[str, torch.Tensor], case: str
) -> None:
    ids = golden[f"{case}.input_ids"]
    output = model.generate(
        input_ids=ids,
        token_type_ids=golden[f"{case}.token_type_ids"],
        pixel_values=pixels(golden, case),
        do_sample=False,
        max_new_tokens=12,
    )
    assert output[0, ids.shape[1] :].tolist() == golden[f"{case}.greedy_tokens"].flatten().tolist()


def test_rows_with_padding_give_the_released_models_logits(
    model: Any, golden: dict[str, torch.Tensor]
) -> None:
    mask = golden["leftpad.attention_mask"]
    output = model(
        input_ids=golden["leftpad.input_ids"],
        token_type_ids=golden["leftpad.token_type_ids"],
        attention_mask=mask,
        pixel_values=golden["in.image"].repeat(
            int((golden["leftpad.token_type_ids"] == 1).sum()) // 11, 1, 1, 1
        ),
    )
    real = mask == 1
    difference = (output.logits - golden["leftpad.logits"])[real]
    assert difference.abs().max() < TOLERANCE


def test_the_loss_is_that_of_the_next_tokens(model: Any, golden: dict[str, torch.Tensor]) -> None:
    ids = golden["text_only.input_ids"]
    labels = ids.clone()
    labels[:, :3] = -100
    logits = golden["text_only.logits"]
    expected = torch.nn.functional.cross_entropy(logits[0, 2:-1], ids[0, 3:])
    assert torch.allclose(model(ids, labels=labels).loss, expected, atol=1e-3)


def test_a_cache_takes_more_tokens_and_gives_them_back(
    model: Any, golden: dict[str, torch.Tensor]
) -> None:
    ids, logits = golden["text_only.input_ids"], golden["text_only.logits"]
    begun = model(ids[:, :4])
    more = model(ids[:, 4:], cache=begun.cache)
    assert (more.logits - logits[:, 4:]).abs().max() < TOLERANCE
    more.cache.crop(-2)
    again = model(ids[:, -2:], past_key_values=more.cache)
    assert torch.equal(again.logits, more.logits[:, -2:])
    assert again.cache.get_seq_length() == ids.shape[1]


def test_calls_within_inference_mode_leave_a_model_for_calls_without(
    golden: dict[str, torch.Tensor],
) -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype="float32", device="cpu")
    ids: Any = golden["text_only.input_ids"]
    with torch.inference_mode():
        first = model(ids).logits
    assert torch.equal(model(ids).logits, first)
    assert not first.requires_grad


def test_memory_of_finished_rows_is_released(model: Any, golden: dict[str, torch.Tensor]) -> None:
    ids = golden["text_only.input_ids"]
    model(ids)
    before = model.get_memory_footprint()
    for _ in range(3):
        model.generate(ids, max_new_tokens=3, do_sample=False)
    assert model.get_memory_footprint() == before


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs_embeds": torch.zeros(1, 2, 3)}, "inputs_embeds"),
        ({"input_ids": torch.tensor([[5, 600]])}, "between 0 and 511"),
        ({"input_ids": torch.tensor([[5, 6]]), "position_ids": torch.zeros(1, 2)}, "position_ids"),
        ({"input_ids": torch.tensor([[5, 6]]), "output_attentions": True}, "attentions"),
        ({"input_ids": torch.tensor([[5, 6]]), "cache": {}}, "cache"),
        ({"input_ids": torch.tensor([[5, 502, 6]])}, "1 image tokens"),
        (
            {"input_ids": torch.tensor([[5, 6]]), "pixel_values": torch.zeros(1, 3, 84, 84)},
            "0 image tokens; 1 pictures",
        ),
        (
            {
                "input_ids": torch.tensor([[500, *[502] * 11, 6]]),
                "pixel_values": torch.zeros(1, 3, 8, 8),
            },
            "shape",
        ),
        ({"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(2, 2)}, "shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_inputs_get_a_sentence(model: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model(**given)


def test_the_model_is_neither_moved_nor_converted_nor_saved(model: Any, tmp_path: Path) -> None:
    assert model.to("cpu").to(torch.float32).float().cpu() is model
    with pytest.raises(UsageError, match="can't be converted to"):
        model.half()
    with pytest.raises(UsageError, match="can't be moved to meta"):
        model.to("meta")
    with pytest.raises(UsageError, match="can't be saved"):
        model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="without weights"):
        AutoModelForImageTextToText.from_config(model.config)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantization_config": BitsAndBytesConfig(load_in_4bit=True)}, "quantization_config"),
        ({"load_in_8bit": True}, "load_in_8bit"),
        ({"vramm": "8GiB"}, "vramm"),
        ({"device_map": {"model.layers.0": 0, "lm_head": "cpu"}}, "single modules"),
        ({"device_map": "cpu", "device": "cuda:1"}, "different devices"),
        ({"device_map": "tpu"}, "Unknown device 'tpu'"),
        ({"max_memory": 8}, "max_memory"),
        ({"state_dict": {"a": 1}}, "state_dict"),
        ({"vram": "much"}, "'much' is not a size"),
        ({"dtype": torch.int8}, "int8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_without_their_effect_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(CogVLM2LiteError, match=message):
        AutoModelForImageTextToText.from_pretrained(DEMO, **given)


def test_arguments_become_options_of_our_loader() -> None:
    options = read_arguments(
        DEMO,
        {
            "device_map": {"": 0},
            "max_memory": {1: "9GiB", 0: 8 << 30, "cpu": "30GiB"},
            "torch_dtype": torch.bfloat16,
            "context": 2048,
            "kv": "int8",
            "trust_remote_code": True,
            "low_cpu_mem_usage": True,
            "load_in_4bit": False,
            "revision": "main",
        },
    ).options
    assert (options.device, options.dtype, options.context) == ("cuda:0", "bfloat16", 2048)
    assert (options.vram, options.ram, options.kv) == (f"{8 << 30},9GiB", "30GiB", "int8")
    automatic = read_arguments(
        DEMO, {"device_map": "auto", "dtype": "auto", "device": None}
    ).options
    assert (automatic.device, automatic.dtype, automatic.vram) == ("auto", "auto", None)


def test_four_bits_may_be_requested_for_a_folder_that_has_them(tmp_path: Path) -> None:
    content = json.loads((DEMO / "config.json").read_text())
    content["quantization_config"] = {"load_in_4bit": True, "quant_method": "bitsandbytes"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    given = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True)}
    assert read_arguments(tmp_path, given).options.folder == tmp_path
    with pytest.raises(UsageError):
        read_arguments(tmp_path, {"load_in_8bit": True})


def test_a_model_of_the_cache_is_found_and_nothing_is_downloaded(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--THUDM--small" / "snapshots" / ("0" * 40)
    shutil.copytree(DEMO, snapshot)
    refs = tmp_path / "models--THUDM--small" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    found = read_arguments("THUDM/small", {"cache_dir": tmp_path}).options.folder
    assert found == snapshot
    with pytest.raises(NoFolderError, match="cache does not have"):
        read_arguments("THUDM/other", {"cache_dir": tmp_path})


# --- what the import changes --------------------------------------------------------------------


def test_remote_code_is_neither_asked_for_nor_run(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "m"))
    mark = tmp_path / "ran"
    for name in ("configuration_cogvlm.py", "modeling_cogvlm.py"):
        (folder / name).write_text(f"open({str(mark)!r}, 'w').close()\n")
    for trust in (None, False, True):
        assert not hasattr(AutoConfig.from_pretrained(folder, trust_remote_code=trust), "auto_map")
        AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=trust)
    assert not mark.exists()


def test_folders_of_other_models_are_read_as_before(tmp_path: Path) -> None:
    register()  # a second time
    LlamaConfig(hidden_size=64, num_hidden_layers=1).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is LlamaConfig
    content = json.loads((CHECKPOINT / "config.json").read_text())
    other = tmp_path / "config.json"
    other.write_text(json.dumps(content | {"architectures": ["CogAgentForCausalLM"]}))
    with pytest.raises(ValueError, match="custom code"):
        AutoConfig.from_pretrained(tmp_path, trust_remote_code=False)
    other.write_text(json.dumps(content | {"rope_scaling": {"factor": 2}}))
    with pytest.raises(CheckpointError, match="unknown keys: rope_scaling"):
        AutoConfig.from_pretrained(tmp_path)
    assert CogVLM2ForConditionalGeneration.config_class.model_type == "cogvlm2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("import sys; sys.modules['transformers'] = None", "not installed"),
        ("import importlib.metadata as m; m.version = lambda _: '4.57.1'", "4.57.1 is installed"),
    ],
    ids=["missing", "old"],
)
def test_without_a_new_transformers_the_import_says_what_to_install(
    change: str, message: str
) -> None:
    failed = subprocess.run(
        [sys.executable, "-c", f"{change}; import cogvlm2_lite.hf"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert failed.returncode == 1
    assert message in failed.stderr
    assert 'pip install "cogvlm2-lite[hf]"' in failed.stderr


def test_a_program_runs_with_the_classes_registered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from transformers import AutoConfig\n"
        "print(type(AutoConfig.from_pretrained(sys.argv[1])).__name__, sys.argv[2:], __name__)\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in (str(program), "program"):
        monkeypatch.setattr(sys, "argv", ["hf", name, str(DEMO), "--x"])
        main()
        assert capsys.readouterr().out == "CogVLM2Config ['--x'] __main__\n"
    monkeypatch.setattr(sys, "argv", ["hf"])
    with pytest.raises(SystemExit, match="Usage:"):
        main()
