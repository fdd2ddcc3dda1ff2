"""`cogvlm2-lite plan`: what a person is told before anything is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cogvlm2_lite.backends.registry import replaced
from cogvlm2_lite.cli.main import main as program
from cogvlm2_lite.cli.plan import main
from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.units import GIB
from tests.helpers.fake_backends import FakeCuda, gpu
from tests.helpers.folders import random_folder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def no_gpu() -> Iterator[None]:
    with replaced(FakeCuda(driver=False)):
        yield


@pytest.fixture
def one_gpu() -> Iterator[None]:
    card = gpu("NVIDIA GeForce RTX 4060", free_bytes=7 * GIB, total_bytes=8 * GIB)
    with replaced(FakeCuda(card)):
        yield


@pytest.mark.parametrize(
    "options", [["--vram", "8GiB"], ["--device", "cpu"], ["--card", "RTX 3080", "--json"]]
)
def test_the_released_model_is_planned_without_torch_and_without_a_file(
    options: list[str], tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from cogvlm2_lite.cli.main import main\n"
        f"assert main(['plan', '19b', *{options}]) == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'tokenizers', 'transformers', 'quantize'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    environ = os.environ | {"PYTHONWARNINGS": "error", "PYTHONPATH": str(Path.cwd())}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, cwd=tmp_path, env=environ
    )
    assert found.stderr == b""
    assert found.returncode == 0
    assert b"CogVLM2 19B in 4 bits" in found.stdout


def test_a_sentence_comes_before_the_table_and_the_table_before_the_notes(capsys: Capture) -> None:
    assert main(["19b", "--vram", "8GiB", "--ram", "32GiB"]) == 0
    sentence, table, notes = capsys.readouterr().out.split("\n\n")
    assert " ".join(sentence.split()).startswith(
        "CogVLM2 19B in 4 bits on a GPU with 8.00 GiB. Decoding runs entirely on the GPU, about "
    )
    assert "8.00 GiB given, 384 MiB left for the driver and other programs" in table
    assert "from RAM: vision tower" in table
    assert "calculated from rates (stated: a card like RTX 4060 8 GB; " in " ".join(notes.split())
    assert "are in RAM" in notes


@pytest.mark.usefixtures("no_gpu")
def test_the_cpu_is_planned_where_there_is_no_gpu(capsys: Capture) -> None:
    assert main(["19b", "--ram", "64GiB"]) == 0
    shown = capsys.readouterr().out
    assert "on the CPU. Everything stays in RAM" in shown
    assert "64.0 GiB given, 384 MiB left for other programs" in shown
    main(["19b", "--ram", "900TiB"])
    assert "This computer has only " in capsys.readouterr().out


def test_the_copies_that_a_processor_needs_are_told(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = frozenset({"avx512f", "avx512_bf16"})
    monkeypatch.setattr("cogvlm2_lite.forecast.machine.cpu_flags", lambda: flags)
    monkeypatch.setattr("cogvlm2_lite.forecast.machine.built_kernel", lambda: None)
    main(["19b", "--device", "cpu", "--ram", "64GiB"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "are in RAM twice, as stored and packed for this processor: 3.45 GiB more." in shown
    monkeypatch.setattr("cogvlm2_lite.forecast.machine.cpu_flags", lambda: frozenset({"avx2"}))
    main(["19b", "--device", "cpu", "--ram", "64GiB", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["packed_bytes"] == 0
    # It computes in float32: cached keys and values take twice the bytes.
    assert found["plan"]["devices"][0]["phases"][-1]["cache_bytes"] == 2 * GIB


@pytest.mark.usefixtures("one_gpu")
def test_the_gpu_of_this_computer_is_planned_with_what_it_has_free(capsys: Capture) -> None:
    assert main(["19b"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "on cuda:0 (NVIDIA GeForce RTX 4060)." in shown
    assert "7.00 GiB free now" in shown
    assert "rates (stated: RTX 4060 8 GB; " in shown


def test_a_card_stands_for_its_memory_and_its_rates(capsys: Capture) -> None:
    main(["19b", "--card", "rtx 4090", "--json"])
    own = json.loads(capsys.readouterr().out)
    main(["19b", "--card", "rtx 4090", "--vram", "6GiB", "--json"])
    capped = json.loads(capsys.readouterr().out)
    assert own["machine"] == "a GPU with 24.0 GiB"
    assert capped["machine"] == "a GPU with 6.00 GiB"
    for found in (own, capped):
        assert found["plan"]["expected"]["rates"][0]["source"] == "stated: RTX 4090 24 GB"
    assert own["plan"]["expected"]["first_word_s"] <= capped["plan"]["expected"]["first_word_s"]


def test_two_gpus_are_shown_in_one_plan(capsys: Capture) -> None:
    assert main(["19b", "--vram", "6GiB,8GiB"]) == 0
    shown = capsys.readouterr().out
    assert "on 2 GPUs with 6.00 GiB and 8.00 GiB." in shown
    assert "GPU 0: " in shown
    assert "GPU 1: " in shown
    main(["19b", "--vram", "24GiB,24GiB"])
    assert "GPU 1: " not in capsys.readouterr().out  # the first one suffices


def test_json_is_one_object_with_everything(capsys: Capture) -> None:
    main(["19b", "--vram", "4GiB", "--ram", "4GiB", "--context", "4096", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["summary"].startswith("For each token ")
    assert found["plan"]["context"] == 4096
    assert found["plan"]["expected"]["read_from_disk_bytes"] > 0
    assert any("others stay on disk" in remark for remark in found["remarks"])


def test_what_is_left_for_kept_pictures_is_said(capsys: Capture) -> None:
    def shown(*options: str) -> str:
        assert main(["19b", "--vram", "8GiB", *options]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "are kept in up to 1.00 GiB of RAM, 288 MiB each" in shown("--ram", "32GiB")
    assert "No RAM is left for earlier pictures" in shown("--ram", "5GiB")
    assert "ictures" not in shown("--ram", "32GiB", "--no-picture")


def test_options_change_the_plan(capsys: Capture) -> None:
    def peak(*options: str) -> int:
        assert main(["19b", "--vram", "24GiB", "--json", *options]) == 0
        peak_bytes: int = json.loads(capsys.readouterr().out)["plan"]["peak_bytes"]
        return peak_bytes

    everything = peak()
    assert everything - peak("--context", "4096") == GIB // 2
    assert everything - peak("--lm-head", "nf4") > 0.7 * GIB
    assert 0.3 * GIB < everything - peak("--kv", "int8") < GIB // 2
    assert peak("--no-picture") < everything - 5 * GIB


def test_several_conversations_are_planned_and_too_many_are_lowered(capsys: Capture) -> None:
    def shown(*options: str) -> str:
        assert main(["19b", "--vram", "6GiB", "--ram", "16GiB", *options]) == 0
        return " ".join(capsys.readouterr().out.split())

    two = shown("--parallel", "2")
    assert "tokens/s for each of 2 conversations" in two
    assert "2 conversations of 8192 tokens" in two
    assert "conversations" not in shown()
    assert "Memory suffices for 4 conversations at once, not for 8" in shown("--parallel", "8")


def test_forbidden_offloading_is_refused_with_numbers(capsys: Capture) -> None:
    assert program(["plan", "19b", "--vram", "8GiB", "--offload", "never"]) == 1
    shown = capsys.readouterr().err
    assert "--offload is never" in shown
    assert "8.00 GiB given" in shown


def test_what_can_not_be_is_refused_with_the_bytes_that_are_missing() -> None:
    with pytest.raises(DoesNotFitError, match=r"needs at least .* more is needed"):
        main(["19b", "--vram", "1GiB"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vram", "8G B"], "'8G B' is not a size for --vram."),
        (["--vram", "-8GiB"], "'-8GiB' is not a size for --vram."),
        (["--ram", "-1"], "'-1' is not a size for --ram."),
        (["--device", "gpu"], "Unknown device 'gpu'."),
        (["--device", "cpu", "--vram", "8GiB"], "--device cpu uses none"),
        (["--measure", "--vram", "8GiB"], "this plan is for a GPU"),
        (["--card", "abacus"], "'abacus' are not known"),
        (["--parallel", "0"], "--parallel must be between 1 and 32, not 0."),
        (["--context", "0"], "A context of 0 tokens is not possible"),
        (["--context", "2000"], "A picture takes 2307 of the 2000 tokens"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(options: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        main(["19b", *options])
    assert message in caught.value.message
    assert caught.value.hint


def test_a_folder_is_planned_from_its_headers(tmp_path: Path, capsys: Capture) -> None:
    folder = random_folder(tmp_path / "model")
    assert main([str(folder), "--vram", "1GiB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == str(folder)
    stored = sum(
        sum(phase["resident_bytes"].values())
        for phase in found["plan"]["devices"][0]["phases"]
        if phase["phase"] == "decode"
    )
    assert 0 < stored < sum(path.stat().st_size for path in folder.iterdir())
    with pytest.raises(UsageError, match="--lm-head works only with `19b`"):
        main([str(folder), "--lm-head", "nf4"])


def test_a_file_is_no_model(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.touch()
    assert program(["plan", str(path)]) == 1
    assert "is a file, but a model is a folder" in capsys.readouterr().err


def test_a_folder_named_19b_is_that_folder(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_folder(tmp_path / "19b")
    monkeypatch.chdir(tmp_path)
    main(["19b", "--vram", "1GiB"])
    assert capsys.readouterr().out.startswith("19b on a GPU")
