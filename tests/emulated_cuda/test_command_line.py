"""The commands with --device cuda, on emulated GPUs in this process.

One answer is the measure of all of them: every command, budget, number of GPUs and of parallel
answers must give the text that `ask` gives with everything resident. Work on the emulated streams
runs as late as possible, and freed memory is overwritten.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
from safetensors.torch import load_file, save_file

from cogvlm2_lite.backends import pinned
from cogvlm2_lite.backends.registry import replaced
from cogvlm2_lite.bench import probe
from cogvlm2_lite.cli.main import main
from cogvlm2_lite.memory import budget, work
from tests.emulated_cuda.in_process import engine_in_this_process
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Order
from tests.helpers.answers import picture
from tests.helpers.evaluating import text_vqa
from tests.helpers.fake_backends import DrivenCuda
from tests.helpers.fake_torch import Cuda, OldDriver, fake_torch
from tests.helpers.folders import random_folder

QUESTION = "What?"
SHORT = ("--max-new-tokens", "4")
STREAMS = ("--vram", "2.2MiB")


@pytest.fixture(scope="module", autouse=True)
def small_sizes() -> Iterator[None]:
    """Let budgets mean something for a small model, and `bench` measure a small matrix."""
    with (
        patch.object(pinned, "RING_BYTES", 1 << 14),
        patch.object(work, "KERNEL_SCRATCH_BYTES", 1 << 14),
        patch.object(budget, "RESERVE_BYTES", 0),
        patch.multiple(probe, _READ_BYTES=1 << 16, _ROWS=64, _COLUMNS=64, _TOKENS=8),
    ):
        yield


def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
    """Run a command; return its exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch("sys.stdin", io.StringIO(stdin)),
    ):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A 4-bit folder that `quantize` wrote where there is an (emulated) GPU."""
    root = tmp_path_factory.mktemp("models")
    source, made = random_folder(root / "random"), root / "nf4"
    with emulated_cuda():
        code, _, err = run(
            "quantize", str(source), str(made), "--calibrate", "none", "--device", "cuda"
        )
    assert code == 0, err
    return str(made)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("pictures") / "photo.png"
    picture(1).save(file)
    return str(file)


@pytest.fixture(scope="module")
def expected(folder: str, photo: str) -> str:
    """What `ask` answers with everything on one GPU."""
    return ask(folder, photo, order=Order.NOW)


def ask(folder: str, photo: str, *options: str, devices: int = 1, order: Order = Order.LATE) -> str:
    with emulated_cuda(devices=devices, order=order) as machine:
        code, out, err = run(
            "ask", folder, photo, QUESTION, "--device", "cuda", "--json", *SHORT, *options
        )
    assert code == 0, out + err
    assert min(machine.peak) > 0
    return str(json.loads(out.splitlines()[-1])["text"])


@pytest.mark.parametrize(
    ("options", "devices"),
    [
        (STREAMS, 1),
        (("--vram", "1.9MiB,1.9MiB"), 2),
        (("--context", "128", "--vram", "auto"), 1),
    ],
    ids=["streamed", "two", "short"],
)
def test_ask_answers_the_same_with_every_plan(
    folder: str, photo: str, expected: str, options: tuple[str, ...], devices: int
) -> None:
    assert ask(folder, photo, *options, devices=devices) == expected


def test_ask_with_an_int8_cache_answers_the_same_streamed(folder: str, photo: str) -> None:
    resident = ask(folder, photo, "--kv", "int8", order=Order.NOW)
    assert ask(folder, photo, "--kv", "int8", *STREAMS) == resident


def test_chat_answers_as_ask_does(folder: str, photo: str, expected: str) -> None:
    with emulated_cuda():
        code, out, err = run(
            "chat", folder, "--image", photo, "--device", "cuda", *SHORT,
            stdin=f"{QUESTION}\n/exit\n",
        )  # fmt: skip
    assert code == 0, err
    assert _visible(expected) in out


def test_batch_answers_three_pictures_at_once_as_ask_does(
    folder: str, photo: str, expected: str, tmp_path: Path
) -> None:
    for number in range(3):
        picture(number).save(tmp_path / f"p{number}.png")
    with engine_in_this_process(), emulated_cuda(order=Order.LATE) as machine:
        code, _, err = run(
            "batch", folder, str(tmp_path), "--question", QUESTION, "--device", "cuda",
            "--parallel", "3", *SHORT,
        )  # fmt: skip
    assert code == 0, err
    assert machine.launches
    assert (tmp_path / "p1.txt").read_text().rstrip("\n") == expected.rstrip("\n")


def test_evaluate_asks_on_the_gpu(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text_vqa(tmp_path, pictures=1, each=2)
    with engine_in_this_process(), emulated_cuda() as machine:
        code, _, err = run(
            "evaluate", folder, "textvqa", "--data", "TextVQA_VAL.tsv", "--output", "out",
            "--device", "cuda", "--parallel", "2", "--max-new-tokens", "3",
        )  # fmt: skip
    assert code == 0, err
    assert machine.launches


def test_serve_answers_a_request_as_ask_does(folder: str, expected: str) -> None:
    found: list[str] = []

    def use(address: str) -> None:
        try:
            with httpx.Client(base_url=address, timeout=60) as client:
                while client.get("/health").status_code != 200:
                    threading.Event().wait(0.05)
                reply = client.post(
                    "/v1/chat/completions",
                    json={
                        "model": "nf4",
                        "max_tokens": 4,
                        "messages": [{"role": "user", "content": _parts()}],
                    },
                ).json()
                found.append(str(reply))  # seen if it has no answer
                found[:] = [reply["choices"][0]["message"]["content"]]
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    class Output(io.StringIO):
        """Starts the client when the server prints its address."""

        def write(self, text: str) -> int:
            if address := re.search(r"http://[\d.:]+", text):
                threading.Thread(target=use, args=(address[0],), daemon=True).start()
            return len(text)

    with (
        engine_in_this_process(),
        emulated_cuda(order=Order.LATE) as machine,
        contextlib.redirect_stdout(Output()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        code = main(
            ["serve", folder, "--port", "0", "--device", "cuda", "--parallel", "3", "--kv", "full"]
        )
    assert code == 130
    assert machine.launches
    assert found == [expected]


def _visible(text: str) -> str:
    """Return what a terminal gets of a text: no control characters."""
    return "".join(letter for letter in text if letter.isprintable())


def _parts() -> list[dict[str, object]]:
    file = io.BytesIO()
    picture(1).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": QUESTION},
    ]


@pytest.mark.parametrize(
    ("tokens", "steps"),
    [("2", "launched one by one, because there were too few for"), ("5", "CUDA graphs")],
)
def test_bench_says_how_steps_were_launched(folder: str, tokens: str, steps: str) -> None:
    with emulated_cuda():
        code, out, err = run(
            "bench", folder, "--device", "cuda", "--tokens", tokens, "--rounds", "1"
        )
    assert code == 0, err
    assert f"decode steps are {steps}" in " ".join(out.split())


@pytest.fixture(scope="module")
def too_large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder one matrix of which gives numbers beyond float16."""
    root = tmp_path_factory.mktemp("large")
    folder = random_folder(root / "random", layers=1)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.vision.transformer.layers.0.mlp.fc2.weight"] *= 3e5
    save_file(tensors, folder / "model.safetensors")
    return str(folder)


def test_every_command_reports_once_that_float16_is_too_small(
    too_large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text_vqa(tmp_path, pictures=1, each=2)
    for number in range(2):
        picture(number).save(tmp_path / f"p{number}.png")
    options = ("--device", "cuda", "--dtype", "float16", "--max-new-tokens", "2")
    for words in (
        ("ask", too_large, "p0.png", QUESTION, *options),
        ("batch", too_large, ".", "--question", QUESTION, *options),
        (
            "evaluate",
            too_large,
            "textvqa",
            "--data",
            "TextVQA_VAL.tsv",
            "--output",
            "out",
            *options,
        ),
    ):
        with engine_in_this_process(), emulated_cuda():
            code, _, err = run(*words)
        assert code == 0, err
        told = " ".join(err.split())
        assert told.count("so it computes in float32 from now on") == 1, words[0]


def test_plan_and_doctor_report_that_the_card_is_not_measured(folder: str) -> None:
    words = "this GPU path has not been measured on your kind of card"
    with emulated_cuda(devices=2):
        code, out, _ = run("plan", folder, "--device", "cuda:1")
        assert code == 0
        assert f"cuda:1 (Emulated GPU): untested on real hardware: {words}." in " ".join(
            out.split()
        )
        code, out, _ = run("doctor", folder, "--device", "cuda", "--json")
        assert code == 0
    report = json.loads(out)
    assert report["sections"]["GPUs"]["cuda:1: evidence"] == f"untested on real hardware: {words}"
    assert report["model"]["plan"]["devices"][0]["device"].startswith("cuda:")


# --- words of errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "cuda:7"), ("There is no GPU cuda:7.", "Available GPUs: cuda:0, cuda:1.")),
        (("--device", "gpu"), ("Unknown device 'gpu'.", "auto, cpu, cuda, xpu, mps, or cuda:1")),
        (("--device", "xpu"), ("No Intel GPU can be used: torch is not built for XPU.",)),
        (("--device", "mps"), ("No Apple GPU can be used: torch is not built for MPS.",)),
        (("--device", "cuda:0", "--vram", "1MiB"), ("on cuda:0, where 1.00 MiB can be used",)),
        (("--device", "cuda", "--vram", "1GiB,1GiB,1GiB"), ("number of usable GPUs is 2",)),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_errors_of_two_gpus(
    folder: str, photo: str, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with emulated_cuda(devices=2):
        code, out, err = run("ask", folder, photo, QUESTION, *options)
    told = " ".join(err.split())
    assert (code in (1, 2), out) == (True, "")
    assert all(word in told for word in words), told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (fake_torch(Cuda(), built=None), "torch is a CPU build. Use --device cpu, or install the"),
        (fake_torch(OldDriver()), "The NVIDIA driver on your system is too old (found version"),
        (fake_torch(Cuda()), "torch is built for CUDA 13.0 and finds no GPU. Use --device cpu"),
        (fake_torch(Cuda("CUDA error: lost")), "cuda:0 does not respond: CUDA error: lost."),
        (
            fake_torch(Cuda(("GTX 1060", (6, 1), 1, 1, 0, 0))),
            "cuda:0 (GTX 1060) has compute capability 6.1, but this torch needs 7.5 or more",
        ),
    ],
    ids=["cpu build", "old driver", "none", "lost", "old card"],
)
def test_errors_of_a_computer_whose_gpu_can_not_be_used(
    folder: str, photo: str, module: object, words: str
) -> None:
    with replaced(DrivenCuda(module)):
        for command in (
            ["ask", folder, photo, QUESTION], ["chat", folder], ["doctor", folder],
            ["plan", folder], ["bench", folder],
        ):  # fmt: skip
            code, out, err = run(*command, "--device", "cuda")
            told = " ".join((out + err).split())
            assert words in told, command
            assert "Traceback" not in told
            assert code == (0 if command[0] == "doctor" else 1)


def test_memory_that_another_program_takes_is_an_error_with_what_to_do(
    folder: str, photo: str
) -> None:
    with emulated_cuda(total_bytes=16 << 20) as machine:
        machine.foreign_bytes[0] = (16 << 20) - (1 << 20)
        code, _, err = run("ask", folder, photo, QUESTION, "--device", "cuda")
    assert code == 1
    assert "1.00 MiB free now" in " ".join(err.split())
    assert "Close other programs" in err
