"""Steps that use the model in other ways.

int8_cache   keys and values in int8
parallel     three answers at once: their bits, and tokens in the same time
demo         the demo model answers as on the CPU
sanitizer    compute-sanitizer around a short answer of the demo model, if it is installed
calibration  quantize with calibration, two blocks of real width
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import cogvlm2_lite
from benchmarks.gpu.model import (
    QUESTION,
    ask,
    describe_plan,
    forget,
    load,
    long_text,
    new_folder,
    open_random,
    picture,
    sizes,
    tiny_config,
)
from benchmarks.gpu.rehearsal import not_emulated
from benchmarks.gpu.work import Run, describe
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.events import Cancel, Finished
from cogvlm2_lite.sampling import Sampling

PICTURES = Path(cogvlm2_lite.__file__).parent / "demo" / "pictures"
DEMO = (
    ("sign.png", "Read the word."),
    ("number.png", "What is the number?"),
    ("chart.png", "What is shown in the chart?"),
    ("shapes.png", "Which shapes are there?"),
    ("shapes.png", "图里有什么?"),
)

ROOT = Path(__file__).resolve().parents[2]


def int8_cache(run: Run) -> None:
    """Measure an int8 cache: its speed with a short and a long context."""
    size = sizes(run)
    model, _ = open_random(run, kv="int8")
    load(model)
    first = ask(model, image=picture(1), tokens=size.bits, bits=True, watch=True)
    run.put(bits=first.bits, plan=describe_plan(model), laps=first.as_dict()["laps"])
    run.put(decode_tokens_per_s=ask(model, image=picture(2), tokens=size.tokens).tokens_per_s)
    long = ask(
        model,
        long_text(model, size.context - model.config.vision.image_tokens),
        picture(3),
        tokens=size.tokens,
    )
    run.put(long={"prompt_tokens": long.prompt_tokens, "tokens_per_s": long.tokens_per_s})


# --- several answers at once ----------------------------------------------------------------------


def parallel(run: Run) -> None:
    """Compare three answers at once with each alone."""
    tokens = sizes(run).tokens
    model, _ = open_random(run, parallel=3)
    load(model)
    run.put(slots=model.plan.parallel)
    questions = [QUESTION + word * 3 for word in ("And colours? ", "And letters? ", "And a sign? ")]
    alone = [_together(model, [question], tokens) for question in questions]
    both = _together(model, questions, tokens)
    same = [a["ids"][0] == ids for a, ids in zip(alone, both["ids"], strict=True)]
    if not all(same):
        run.wrong("an answer next to others differs from the same answer alone")
    run.put(
        same=same,
        alone_tokens_per_s=sum(a["tokens"] for a in alone) / sum(a["decode_s"] for a in alone),
        together_tokens_per_s=both["tokens"] / both["decode_s"],
        graphs=model.runtime.graphs.describe() if model.runtime.graphs else "none",
    )


def _together(model: Model, questions: list[str], tokens: int) -> dict[str, Any]:
    """Ask at once; return the tokens of each answer, and the time of decoding all of them."""
    forget(model)
    sampling = Sampling(max_new_tokens=tokens, repetition_guard=False)
    for number, question in enumerate(questions):
        model.engine.begin(number, Request(question=question, sampling=sampling), Cancel())
    found: dict[int, Finished] = {}
    while model.engine.busy:
        for number, event in model.engine.turn():
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Finished):
                found[number] = event
    return {
        "ids": [found[number].token_ids for number in range(len(questions))],
        "tokens": sum(each.completion_tokens - 1 for each in found.values()),
        "decode_s": max(each.decode_s for each in found.values()),
    }


# --- the demo model -------------------------------------------------------------------------------


def demo(run: Run) -> None:
    """Compare answers of the demo model with those of the CPU: as shipped, and in NF4."""
    folders = {"bf16": checkpoint_folder()}
    if not run.rehearse:
        run.attempt("quantize", lambda: _quantized(run, folders))
    questions = DEMO[:1] if run.rehearse else DEMO
    found = {}
    for name, folder in folders.items():
        texts = {
            device: demo_answers(folder, device, questions, 6 if run.rehearse else 40)
            for device in ("cuda", "cpu")
        }
        same = sum(a == b for a, b in zip(texts["cuda"], texts["cpu"], strict=True))
        found[name] = {"same": same, "of": len(questions), **texts}
        if same < len(questions):
            run.wrong(f"{len(questions) - same} answers of the demo model ({name}) differ")
        run.put(answers=found)


def _quantized(run: Run, folders: dict[str, Path]) -> dict[str, Any]:
    target = run.work / "demo-nf4"
    done = subprocess.run(
        [sys.executable, "-m", "quantize", "demo", str(target), "--yes", "--calibrate", "none"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    folders["nf4"] = target
    return {"exit": done.returncode}


def demo_answers(
    folder: Path, device: str, questions: tuple[tuple[str, str], ...], tokens: int
) -> list[str]:
    """Return the texts of some answers in float32, in which devices differ least."""
    model = cogvlm2_lite.load(folder, device=device, dtype="float32")
    texts = []
    for image, question in questions:
        sampling = Sampling(max_new_tokens=tokens)
        *_, last = model.answer(question, PICTURES / image, sampling=sampling)
        assert isinstance(last, Finished)
        texts.append(last.text)
    return texts


def sanitizer(run: Run) -> None:
    """Run a short answer of the demo model under compute-sanitizer."""
    program = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    run.put(program=program or "not installed")
    found: dict[str, Any] = {}
    for tool in ("memcheck", "racecheck"):
        if program is None or run.left_s < 5:
            found[tool] = "not run"
            continue
        found[tool] = _checked(program, tool, run)
        if found[tool].get("errors"):
            run.wrong(f"compute-sanitizer {tool} reports errors")
        run.put(tools=found)
    run.put(tools=found)


def _checked(program: str, tool: str, run: Run) -> dict[str, Any]:
    answer = [sys.executable, "-c", "from benchmarks.gpu.features import one; one()"]
    # Without torch's cache a graph can't be captured: a call that fails, but no wrong access.
    quiet = ["--report-api-errors", "no"] if tool == "memcheck" else []
    command = [program, "--tool", tool, *quiet, "--error-exitcode", "86", *answer]
    # With torch's cache of memory, a wrong address mostly hits another tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    share = run.left_s / (2 if tool == "memcheck" else 1) - 1
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=share, check=False, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"result": f"not finished within {share:.0f} s"}
    lines = (done.stdout + done.stderr).splitlines()
    return {"exit": done.returncode, "errors": done.returncode == 86, "end": lines[-4:]}


def one() -> None:
    """Answer one question with the demo model, a few tokens long."""
    demo_answers(checkpoint_folder(), "cuda", DEMO[:1], 4)


# --- calibration ----------------------------------------------------------------------------------


def calibration(run: Run) -> None:
    """Calibrate the first blocks of a checkpoint with the real widths."""
    from benchmarks.calibrate_real_width import write_samples

    source, target = new_folder(run, "source"), run.work / "made"
    began = time.perf_counter()
    _write_source(run, source)
    samples = write_samples(run.work / "samples", 1 if run.rehearse else 2, 7)
    run.put(write_s=time.perf_counter() - began)
    arguments = [str(source), str(target), "--json", "--yes"]
    # On the emulated GPU it would take minutes; tests/quantize runs a part of it there.
    device = "cpu" if run.rehearse else "cuda"
    arguments += ["--calibrate", str(samples), "--budget", "+0%", "--device", device]
    began = time.perf_counter()
    exit_code, text = _quantize(run, arguments)
    run.put(
        exit=exit_code,
        seconds=time.perf_counter() - began,
        peak_bytes=torch.cuda.max_memory_allocated(),
    )
    if exit_code:
        raise RuntimeError(f"quantize ended with exit code {exit_code}: {text[-300:]}")


class _Events(io.StringIO):
    """What `quantize --json` prints; saves the time of each block when it is done."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run, self._blocks = run, list[dict[str, Any]]()

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if '"event": "calibration"' in line:
                event = json.loads(line)
                self._blocks.append({key: event[key] for key in ("block", "look_s", "round_s")})
                self._run.put(blocks=self._blocks)
        return super().write(text)


def _write_source(run: Run, folder: Path) -> None:
    from benchmarks.synthetic_19b import released_config as released_json
    from benchmarks.synthetic_19b import write_checkpoint

    write_checkpoint(folder, tiny_config(1, 1) if run.rehearse else released_json(1, 1), seed=1)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (checkpoint_folder() / name).exists():
            shutil.copy(checkpoint_folder() / name, folder)


def _quantize(run: Run, arguments: list[str]) -> tuple[int, str]:
    """Run `quantize` in this process, whose memory is measured."""
    from quantize.command import main

    out = _Events(run)
    torch.cuda.reset_peak_memory_stats()
    with contextlib.redirect_stdout(out), not_emulated():
        try:
            code = main(arguments)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except Exception as error:  # noqa: BLE001 - its row says so
            return 1, describe(error)
    return code, out.getvalue()
