"""Folders that are not a model, or not yet: what they are is named, with what to do."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cogvlm2_lite.cli.main import main as program
from cogvlm2_lite.config import parse_config, read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.folders.downloads import unfinished_downloads
from cogvlm2_lite.folders.explain import INDEX_NAME, SINGLE_NAME, models_below
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.weights.catalog import Catalog
from tests.helpers.checkpoints import CHECKPOINT, golden_tensors, write_folder
from tests.helpers.folders import write_tokenizer
from tests.helpers.hub import served_hub
from tests.helpers.shapes import REAL_JSON

Capture = pytest.CaptureFixture[str]

SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 4976698672\n"
)
HTML = "<!DOCTYPE html>\n<html class=''>\n<head><title>Sign in</title></head></html>"
LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(CHECKPOINT, tmp_path / "model")


def refusal(folder: Path) -> CheckpointError:
    """Return the error that every command gets from a folder, through the same two steps."""
    with pytest.raises(CheckpointError) as caught:
        Catalog.open(folder, read_config(folder))
    assert caught.value.hint
    assert "damaged" not in caught.value.text
    return caught.value


# --- one file that is something else --------------------------------------------------------------


def write_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cogvlm2/config.json", "{}")


def write_tar(file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        archive.add(CHECKPOINT / "config.json", "config.json")


def write_sparse_zeros(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(100_000)


@pytest.mark.parametrize(
    ("write", "says", "advice"),
    [
        (lambda f: f.write_text(LFS), "is a Git LFS pointer of 135 bytes", "git lfs pull"),
        (lambda f: f.write_text(LFS), "the file itself (4.63 GiB) was not downloaded", ""),
        (lambda f: f.write_text(HTML), "is a web page", "sign in"),
        (lambda f: f.write_text('<?xml version="1.0"?><Error/>'), "HTML or XML", "Download"),
        (
            lambda f: f.write_text('{"error":"Repository not found"}'),
            "contains a message of the server instead of the file: Repository not found",
            "sign in",
        ),
        (lambda f: f.write_text("Entry not found"), "server instead of the file: Entry not", ""),
        (lambda f: f.write_text("Invalid username or password."), "Invalid username", "sign in"),
        (lambda f: f.write_bytes(b"GGUF\3\0\0\0" + bytes(64)), "is a GGUF file", "safetensors"),
        (lambda f: torch.save({"a": torch.ones(3)}, f), "is a pickle file", "never opens pickle"),
        (
            lambda f: torch.save({"a": torch.ones(3)}, f, _use_new_zipfile_serialization=False),
            "is a pickle file",
            "never opens pickle",
        ),
        (write_zip, "is a packed archive", "Unpack it"),
        (write_tar, "is a packed archive", "Unpack it"),
        (lambda f: f.write_bytes(gzip.compress(b"x" * 99)), "is a packed archive", "Unpack it"),
        (write_sparse_zeros, "begins with 4096 zero bytes", "Continue or repeat its download"),
    ],
)
def test_a_weight_file_that_is_something_else_is_named(
    folder: Path, write: Callable[[Path], object], says: str, advice: str
) -> None:
    write(folder / SHARDS[1])
    error = refusal(folder)
    assert SHARDS[1] in error.message
    assert says in error.message
    assert advice in error.hint


@pytest.mark.parametrize("name", ["config.json", INDEX_NAME])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LFS, "is a Git LFS pointer"),
        (HTML, "is a web page"),
        ('{"error": {"message": "Access to model is restricted"}}', "server instead"),
        ("Entry not found", "server instead of the file: Entry not found"),
    ],
)
def test_a_small_file_that_is_something_else_is_named(
    folder: Path, name: str, content: str, says: str
) -> None:
    (folder / name).write_text(content)
    error = refusal(folder)
    assert name in error.message
    assert says in error.message


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("kept", "says", "advice"),
    [(0, "is empty", "repeat its download"), (100, "can't be read", "is not complete")],
)
def test_a_small_file_that_was_not_downloaded_completely_is_named(
    folder: Path, name: str, kept: int, says: str, advice: str
) -> None:
    write_tokenizer(folder)
    text = (folder / name).read_text()
    (folder / name).write_text(text[: min(kept, len(text) // 2)])
    error = refusal(folder) if name == "config.json" else tokenizer_error(folder)
    assert f"{name} {says}" in error.message
    assert advice in error.hint


def tokenizer_error(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.from_folder(folder)
    return caught.value


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("tokenizer.json.part", "downloads that have not finished: 1 (tokenizer.json.part"),
        ("tokenizer (1).json", "has tokenizer (1).json, but no tokenizer.json"),
        ("gone", "has no tokenizer.json, so text can't be turned into tokens"),
    ],
)
def test_a_tokenizer_under_another_name_is_found(folder: Path, other: str, says: str) -> None:
    write_tokenizer(folder)
    (folder / "tokenizer.json").rename(folder / other)
    assert says in tokenizer_error(folder).message


def test_a_file_that_ends_early_is_counted_in_bytes(folder: Path) -> None:
    file = folder / SHARDS[2]
    size = file.stat().st_size
    os.truncate(file, size - 4096)
    error = refusal(folder)
    assert (
        f"{SHARDS[2]} is incomplete: it has {size - 4096} of the {size} bytes that its header "
        "lists (4.00 KiB are missing)." in error.message
    )
    assert "Continue it, or download the file again" in error.hint


def test_every_file_that_can_not_be_used_is_in_one_error(folder: Path) -> None:
    for name in SHARDS[:2]:
        os.truncate(folder / name, 30_000)
    message = refusal(folder).message
    assert "2 of 3" in message
    assert all(f"{name} is incomplete" in message for name in SHARDS[:2])


# --- downloads that have not finished -------------------------------------------------------------


def test_a_file_with_its_control_file_is_not_complete_whatever_its_size(folder: Path) -> None:
    (folder / f"{SHARDS[0]}.aria2").write_bytes(b"\0\1")
    error = refusal(folder)
    assert f"The download of {folder / SHARDS[0]} has not finished" in error.message
    assert f"until {SHARDS[0]}.aria2 disappears" in error.hint


@pytest.mark.parametrize(
    "name",
    [
        "{shard}.aria2", "{shard}.part", "{shard}.crdownload", "{shard}.incomplete", "{shard}.tmp",
        "{shard}.download", "{shard}.!qB", "Unconfirmed 12345.crdownload", ".{shard}.q9R2bc",
        ".cache/huggingface/download/{shard}.4d7a21.incomplete", "._____temp/{shard}",
        "{shard}.download/{shard}",
    ],
)  # fmt: skip
def test_a_missing_file_is_named_with_the_download_that_has_not_finished(
    folder: Path, name: str
) -> None:
    part = folder / name.format(shard=SHARDS[1])
    part.parent.mkdir(parents=True, exist_ok=True)
    (folder / SHARDS[1]).rename(part)
    error = refusal(folder)
    assert f"lacks files: 1 of 3 ({SHARDS[1]}). Downloads that have not finished" in error.message
    assert SHARDS[1] in error.message.partition("finished")[2] or part.name in error.message
    assert "Continue the download" in error.hint


@pytest.mark.parametrize("gone", ["config.json", INDEX_NAME])
def test_a_folder_with_only_parts_is_not_finished(folder: Path, gone: str) -> None:
    for name in SHARDS:
        (folder / name).rename(folder / f"{name}.part")
    (folder / gone).unlink()
    error = refusal(folder)
    assert "downloads that have not finished: 3" in error.message
    assert f"{SHARDS[0]}.part" in error.message


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        (SHARDS[0], f"{SHARDS[0][:-12]} (1).safetensors"),
        (SHARDS[0], f"{SHARDS[0]}?download=true"),
        (SHARDS[0], f"{SHARDS[0]}.txt"),
        (SHARDS[0], f"{SHARDS[0][:-12]} - Copy.safetensors"),
        ("config.json", "config (1).json"),
        ("config.json", "config.json.txt"),
        ("config.json", "Config.json"),
        (INDEX_NAME, "model.safetensors.index (2).json"),
    ],
)
def test_a_file_under_another_name_is_found(folder: Path, name: str, saved: str) -> None:
    (folder / name).rename(folder / saved)
    error = refusal(folder)
    assert f"has {saved}, but no {name}." in error.message
    assert f"rename {saved} to {name}" in error.hint


def test_the_only_weight_file_under_another_name_is_found(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", golden_tensors())
    (folder / SINGLE_NAME).rename(folder / "model (1).safetensors")
    assert "has model (1).safetensors, but no model.safetensors." in refusal(folder).message


def test_files_without_an_index_are_counted(folder: Path) -> None:
    (folder / INDEX_NAME).unlink()
    assert f"no {INDEX_NAME} that lists their tensors" in refusal(folder).message
    (folder / SHARDS[2]).unlink()
    assert "has 2 of 3 weight files" in refusal(folder).message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cogvlm2-Q4_K_M.gguf", "has its weights as GGUF (cogvlm2-Q4_K_M.gguf)"),
        ("pytorch_model-00001-of-00008.bin", "only as pickle files"),
        ("model.ckpt", "only as pickle files"),
        ("model.pt", "only as pickle files"),
        ("cogvlm2.zip", "has only packed archives (cogvlm2.zip)"),
        ("cogvlm2.tar.gz", "has only packed archives"),
        ("model.onnx", "has its weights as ONNX"),
    ],
)
@pytest.mark.parametrize("with_config", [True, False])
def test_weights_in_another_format_are_named(
    tmp_path: Path, name: str, says: str, with_config: bool
) -> None:
    (tmp_path / name).write_bytes(b"x")
    if with_config:
        shutil.copy(CHECKPOINT / "config.json", tmp_path)
    assert says in refusal(tmp_path).message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("job.json", "is an unfinished conversion"),
        ("adapter_config.json", "is a LoRA adapter"),
        ("model_index.json", "is a pipeline of diffusers"),
        ("model_config.json", "SwissArmyTransformer"),
    ],
)
def test_folders_of_other_kinds_are_named(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_text("{}")
    assert says in refusal(tmp_path).message


def test_weights_without_config_are_told_apart_from_no_model(tmp_path: Path) -> None:
    assert "is not a model folder" in refusal(tmp_path).message
    (tmp_path / SHARDS[0]).touch()
    assert "has weights, but no config.json" in refusal(tmp_path).message


def test_a_folder_that_can_not_be_listed_has_no_downloads(tmp_path: Path) -> None:
    assert unfinished_downloads(tmp_path / "none") == []


# --- which model it is ----------------------------------------------------------------------------

VISION = REAL_JSON["vision_config"]
SMALL = {**VISION, "image_size": 224, "num_positions": 257}
VICUNA = {
    "vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
VIDEO = {
    "max_position_embeddings": 2048, "template_version": "base", "eos_token_id": 128001,
    "num_multi_query_heads": 8, "tie_word_embeddings": False, "vision_config": SMALL,
}  # fmt: skip
GLM = {
    "model_type": "chatglm", "architectures": ["ChatGLMModel"], "hidden_size": 4096,
    "num_layers": 40, "padded_vocab_size": 151552, "seq_length": 8192, "kv_channels": 128,
    "boi_token_id": 151339, "eoi_token_id": 151340,
}  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (REAL_JSON | VICUNA | {"vision_config": {**VISION, "image_size": 490}}, "CogVLM1"),
        (REAL_JSON | VICUNA | {"vision_config": SMALL}, "CogVLM1"),
        (REAL_JSON | VIDEO | {"architectures": ["CogVLMVideoForCausalLM"]}, "CogVLM2-Video"),
        (REAL_JSON | VIDEO | {"architectures": None}, "cogvlm2-llama3-caption"),
        (
            REAL_JSON | VICUNA | {"architectures": ["CogAgentForCausalLM"], "vision_config": SMALL},
            "CogAgent",
        ),
        (REAL_JSON | VICUNA | {"cross_image_size": 1120, "cross_hidden_size": 1024}, "CogAgent"),
        (GLM | {"vision_config": {**VISION, "image_size": 1120}}, "GLM-4V"),
        (GLM, "ChatGLM / GLM-4 (text only)"),
        ({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"}, "LLaVA"),
        ({"architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava_llama"}, "LLaVA"),
        ({"model_type": "llava_next"}, "LLaVA"),
        ({"architectures": ["Qwen2VLForConditionalGeneration"]}, "Qwen2-VL"),
        ({"architectures": ["Qwen2_5_VLForConditionalGeneration"]}, "Qwen2.5-VL"),
        ({"model_type": "qwen2_5_vl"}, "Qwen2.5-VL"),
        ({"architectures": ["QWenLMHeadModel"], "visual": {"layers": 48}}, "Qwen-VL"),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "Llama (text only)"),
        ({"model_type": "llama"}, "Llama (text only)"),
        ({"architectures": ["MiniCPMV"], "model_type": "minicpmv"}, "MiniCPM-V"),
        ({"architectures": ["NewVLForCausalLM"], "hidden_size": 2}, "NewVLForCausalLM"),
    ],
)
def test_another_model_is_named(raw: dict[str, Any], name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_config(raw)
    assert name in caught.value.message.partition("this is ")[2]
    assert "which CogVLM2 Lite does not run" in caught.value.message
    assert "cogvlm2-llama3-chat-19B" in caught.value.hint


@pytest.mark.parametrize("names", [["CogVLMForCausalLM"], ["MyTunedForCausalLM"], [], None])
def test_cogvlm2_under_any_name_is_taken(names: object) -> None:
    assert parse_config({**REAL_JSON, "architectures": names}).vocab_size == 128256


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantized with gptq"),
        ({"quant_method": "awq"}, "quantized with awq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
    ],
)
def test_weights_quantized_in_another_way_are_named(how: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        parse_config({**REAL_JSON, "quantization_config": how})


# --- folders above the model ----------------------------------------------------------------------


def make_cache(
    hub: Path, *, snapshots: tuple[str, ...] = ("0ld", "n3w"), main: str = "0ld"
) -> Path:
    """Make a Hugging Face cache with links from the snapshots to the blobs; return the entry."""
    entry = hub / "models--THUDM--cogvlm2-llama3-chat-19B"
    (entry / "blobs").mkdir(parents=True)
    (entry / "refs").mkdir()
    (entry / "refs/main").write_text(main)
    for number, file in enumerate(sorted(CHECKPOINT.iterdir())):
        shutil.copy(file, entry / f"blobs/{number:064x}")
        for name in snapshots:
            (entry / "snapshots" / name).mkdir(parents=True, exist_ok=True)
            link = Path("../../blobs") / f"{number:064x}"
            (entry / "snapshots" / name / file.name).symlink_to(link)
    return entry


@LINKS
@pytest.mark.parametrize(
    "place", ["", "hub", "hub/{entry}", "hub/{entry}/snapshots", "hub/{entry}/blobs"]
)
def test_a_folder_of_the_hugging_face_cache_points_to_the_snapshot(
    tmp_path: Path, place: str
) -> None:
    entry = make_cache(tmp_path / "hub")
    error = refusal(tmp_path / place.format(entry=entry.name))
    assert "is a folder of the Hugging Face cache, not a model folder" in error.message
    assert error.hint == f"Use {entry / 'snapshots/0ld'}."
    path = Path(error.hint.removeprefix("Use ").removesuffix("."))
    assert Catalog.open(path, read_config(path)).nbytes > 0


@LINKS
def test_without_a_main_revision_the_newest_snapshot_counts(tmp_path: Path) -> None:
    entry = make_cache(tmp_path, main="g0ne")
    os.utime(entry / "snapshots/0ld", (1, 1))
    assert models_below(entry) == [entry / "snapshots/n3w"]


@LINKS
def test_a_cache_that_was_not_finished_is_not_a_model(tmp_path: Path) -> None:
    entry = make_cache(tmp_path, snapshots=("0ld",))
    blob = (entry / "snapshots/0ld" / SHARDS[1]).resolve()
    blob.rename(f"{blob}.incomplete")
    error = refusal(entry / "snapshots/0ld")
    assert f"1 of 3 ({SHARDS[1]}). Downloads that have not finished are in it" in error.message
    Path(f"{blob}.incomplete").unlink()
    assert "is a link to ../../blobs/" in refusal(entry / "snapshots/0ld").message
    shutil.rmtree(entry / "snapshots/0ld")
    assert "Run the download again" in refusal(entry).hint


@LINKS
def test_a_link_to_another_snapshot_of_the_same_model_is_taken(tmp_path: Path) -> None:
    entry = make_cache(tmp_path)
    link = entry / "snapshots/0ld" / SHARDS[0]
    link.unlink()
    link.symlink_to(Path("../n3w") / SHARDS[0])
    shutil.move((entry / "snapshots/n3w" / SHARDS[0]).resolve(), entry / "moved")
    (entry / "snapshots/n3w" / SHARDS[0]).unlink()
    shutil.move(entry / "moved", entry / "snapshots/n3w" / SHARDS[0])
    assert Catalog.open(entry / "snapshots/0ld", read_config(entry / "snapshots/0ld")).nbytes > 0


@LINKS
def test_a_link_out_of_a_snapshot_is_rejected(tmp_path: Path) -> None:
    entry = make_cache(tmp_path / "hub", snapshots=("0ld",))
    other = shutil.copy(CHECKPOINT / SHARDS[0], tmp_path)
    link = entry / "snapshots/0ld" / SHARDS[0]
    link.unlink()
    link.symlink_to(other)
    assert "is a link to a file outside of the folder" in refusal(entry / "snapshots/0ld").message


@LINKS
def test_what_huggingface_hub_downloads_is_found_and_its_rest_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with served_hub(CHECKPOINT) as endpoint:
        made = hub.snapshot_download("o/m", cache_dir=tmp_path / "cache", endpoint=endpoint)
        part = hub.snapshot_download(
            "o/m", local_dir=tmp_path / "part", endpoint=endpoint, ignore_patterns="*2-of-00003*"
        )
    assert refusal(tmp_path / "cache").hint == f"Use {made}."
    assert Catalog.open(Path(made), read_config(Path(made))).nbytes > 0
    error = refusal(Path(part))
    assert f"lacks files: 1 of 3 ({SHARDS[1]})." in error.message
    assert error.hint == "Run the same download again: it fetches only what is missing."


def test_a_folder_above_the_model_points_to_it(folder: Path) -> None:
    error = refusal(folder.parent)
    assert "the model is in a folder below it" in error.message
    assert error.hint == f"Use {folder}."
    shutil.copytree(folder, folder.parent / "second")
    assert "Use one of" in refusal(folder.parent).hint


# --- every command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["ask", "{}", "What is it?"], ["chat", "{}"], ["plan", "{}"],
        pytest.param(["serve", "{}", "--port", "0"], marks=pytest.mark.slow),
        ["bench", "{}"], ["verify", "{}"], ["quantize", "{}", "{}-q"],
        ["compare", "{}", "{}"],
    ],
    ids=["ask", "chat", "plan", "serve", "bench", "verify", "quantize", "compare"],
)  # fmt: skip
def test_every_command_names_it_with_exit_code_1(
    folder: Path, capsys: Capture, words: list[str]
) -> None:
    write_tokenizer(folder)
    for name in SHARDS:
        (folder / name).write_text(LFS)
    assert program([word.format(folder) for word in words]) == 1
    shown = capsys.readouterr()
    assert "is a Git LFS pointer" in shown.err
    assert "git lfs pull" in shown.err
    assert "amaged" not in shown.out + shown.err


def test_a_file_in_place_of_a_folder_is_named(folder: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "cogvlm2.gguf"
    gguf.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(CheckpointError, match="is a GGUF file"):
        model_folder(str(gguf))
    with pytest.raises(CheckpointError) as caught:
        model_folder(str(folder / SHARDS[0]))
    assert caught.value.hint == f"Use its folder, {folder}."


def test_verify_of_another_model_does_not_call_it_damaged(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GLM))
    assert program(["verify", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "this is ChatGLM / GLM-4 (text only), which CogVLM2 Lite does not run" in shown.err
    assert "amaged" not in shown.out + shown.err
