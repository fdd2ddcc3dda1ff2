"""Closed, full and broken standard streams, and arguments and input that are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cogvlm2_lite.demo.shipped import checkpoint_folder, sample_pictures
from tests.helpers.programs import streams

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="streams of POSIX")
PICTURE = str(sample_pictures()[0].path)
ASK = ["ask", "demo", PICTURE, "How many shapes are there?"]
HOW = ("closed", "broken", "full") if Path("/dev/full").exists() else ("closed", "broken")
MODES = (
    *({name: how} for name in ("stdout", "stderr") for how in HOW),
    {"stdout": "closed", "stderr": "closed"},
    {"stdout": "broken", "stderr": "broken"},
    {"stdin": "closed"},
)
CODES = {
    ("--help",): 0,
    ("ask", "--help"): 0,
    ("plan", "19b", "--vram", "8GiB", "--json"): 0,
    ("verify", "nowhere", "--json"): 2,
    ("ask", "nowhere", "What?", "--json"): 2,
    ("bogus",): 2,
}
LIGHT = ("cogvlm2_lite.cli.plan", "cogvlm2_lite.cli.ask", "quantize.verify", "quantize.command")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The exit code of a command and what it wrote to files, with bytes as surrogates."""

    code: int
    out: str
    err: str


def run(folder: Path, cases: list[dict[str, Any]], *modules: str) -> list[Outcome]:
    """Run cases with the program `streams`, which imports the modules first."""
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    command = [sys.executable, "-m", streams.__name__, str(file), *modules]
    found = subprocess.run(command, capture_output=True, check=True, text=True)
    return [Outcome(**json.loads(line)) for line in found.stdout.splitlines()]


def test_no_stream_makes_a_traceback(tmp_path: Path) -> None:
    """The exit code is that of the work, or 1 if its result could not be written."""
    cases = [{"argv": list(argv), **mode} for argv in CODES for mode in MODES]
    for case, found in zip(cases, run(tmp_path, cases, *LIGHT), strict=True):
        code = CODES[tuple(case["argv"])]
        assert found.code == code or (found.code == 1 and case.get("stdout")), case
        for text in (found.out, found.err):
            assert "Traceback" not in text, case
            assert "Exception ignored" not in text, case
        if code == 0 and "stdout" in case:
            assert found.code == 1, case
        if code == 0 and case.get("stdout") in ("closed", "full") and "stderr" not in case:
            assert found.err.startswith("Error: "), case
            assert len(found.err.splitlines()) == 2, case
        if code == 0 and "stdout" not in case:
            assert found.out, case


def test_answers_and_files_when_streams_are_missing(tmp_path: Path) -> None:
    source, target = str(checkpoint_folder()), tmp_path / "q"
    closed = {"stdin": "closed", "stdout": "closed", "stderr": "closed"}
    quantize = ["quantize", source, str(target), "--yes", "--calibrate", "none"]
    made, deaf, broken, lost = run(
        tmp_path,
        [
            {"argv": quantize, **closed},
            {"argv": ASK, "stderr": "broken"},
            {"argv": ASK, "stdout": "broken"},
            {"argv": [*ASK, "--json"], "stdout": HOW[-1]},
        ],
        "cogvlm2_lite.engine.model",
        "quantize.pipeline",
    )
    assert made.code == 0
    assert (target / "config.json").exists()
    assert (deaf.code, deaf.out) == (0, "4\n")
    assert (broken.code, broken.err) == (1, "")
    assert lost.code == 1
    assert len(lost.err.splitlines()) == 2


def test_texts_and_file_names_of_any_encoding(tmp_path: Path) -> None:
    named = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m\nx.png")
    Path(named).write_bytes(Path(PICTURE).read_bytes())
    saved = tmp_path / os.fsdecode(b"\xe9.json")
    hello = os.fsdecode("你好".encode("gbk"))
    lines = [
        "\ufeffHow many shapes are there?",
        hello,
        f"file://{tmp_path}/%FF%1B%5B31m%0Ax.png",
        "What is in the picture?",
        f"/save {saved}",
    ]
    other = tmp_path / "gbk.json"
    chat, gbk, asked, refused, demo, batch = run(
        tmp_path,
        [
            {"argv": ["chat", "demo"], "input": "\n".join(lines), "env": {"LC_ALL": "C"}},
            {
                "argv": ["chat", "demo"],
                "input": f"{hello}\n/save {other}",
                "env": {"LC_ALL": "zh_CN.GBK"},
            },
            {"argv": ["ask", "demo", named, "How many shapes are there?", "--json"]},
            {"argv": ["ask", "demo", named, hello, "--json"], "env": {"LC_ALL": "C"}},
            {"argv": ["demo", "sign", hello], "env": {"LC_ALL": "C"}},
            {
                "argv": ["batch", "demo", str(tmp_path), "--question", hello],
                "env": {"LC_ALL": "C"},
            },
        ],
        "cogvlm2_lite.engine.model",
    )
    assert (chat.code, gbk.code, asked.code) == (0, 0, 0)
    assert questions(saved) == ["How many shapes are there?", "What is in the picture?"]
    assert questions(other) == ["你好"]
    assert "The text '\\xc4\\xe3\\xba\\xc3' can't be read" in chat.err
    assert "\\xff\\x1b[31m\\x0ax.png, 448 x 448 PNG" in chat.err
    assert json.loads(asked.out.splitlines()[-1])["event"] == "finished"
    assert (refused.code, demo.code, batch.code) == (2, 2, 2)
    assert "\\xc4\\xe3" in json.loads(refused.out)["message"]
    for found in (chat, gbk, asked, refused, demo, batch):
        assert "Traceback" not in found.err
        assert "\x1b" not in found.out + found.err
        (found.out + found.err).encode()  # no bytes that are not UTF-8


def questions(file: Path) -> list[str]:
    conversations = json.loads(file.read_bytes())["conversations"]
    return [turn["question"] for one in conversations for turn in one["turns"]]


def test_a_real_shell_sees_the_same(tmp_path: Path) -> None:
    command = f"{sys.executable} -m cogvlm2_lite --help"
    script = f"{command} >&-; echo $?; {command} 2>&- | head -n 1; echo $?"
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.splitlines() == ["1", "usage: cogvlm2-lite COMMAND ...", "0"]
    assert found.stderr.startswith("Error: Standard output is closed")
