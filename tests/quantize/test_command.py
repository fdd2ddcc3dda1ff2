"""The two commands as a person or a program uses them."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cogvlm2_lite.backends.registry import replaced
from cogvlm2_lite.units import GIB
from quantize.command import (
    choose_calibration,
    main,
    quantize_parser,
    run,
    verify_main,
    verify_parser,
)
from quantize.events import (
    Damaged,
    Event,
    Failed,
    Finished,
    KeptRow,
    PartRow,
    Planned,
    Progress,
    Verified,
)
from quantize.screen import JsonLines, Screen
from tests.helpers.conversion import CHECKPOINT
from tests.helpers.fake_backends import FakeCuda, gpu

ROOT = Path(__file__).parents[2]
SOURCE = str(CHECKPOINT)
DEMO = str(ROOT / "cogvlm2_lite" / "demo" / "checkpoint")


def test_a_person_sees_the_plan_the_end_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([SOURCE, str(tmp_path / "q"), "--keep", "projector=int8"]) == 0
    shown = capsys.readouterr()
    for words in (
        "vision tower        418 KiB    205 KiB   8 NF4",
        "lm_head.weight: as in SRC (--lm-head bf16).",
        "and 3 more: int8 (--keep projector=int8).",
        "Note: int8 is CogVLM2 Lite's own storage kind",
        "free on its disk.",
        "Finished in",
        f'cogvlm2-lite verify "{tmp_path / "q"}"',
    ):
        assert words in shown.out, words
    assert "100.0%   3.17 MiB of 3.17 MiB" in shown.err
    assert verify_main([str(tmp_path / "q")]) == 0
    assert "is intact" in capsys.readouterr().out
    assert main([SOURCE, str(tmp_path / "q"), "--keep", "projector=int8"]) == 0
    assert "is already finished" in capsys.readouterr().out


def test_a_program_gets_one_json_event_per_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([SOURCE, str(tmp_path / "q"), "--json", "--shard-size", "300KB"]) == 0
    shown = capsys.readouterr()
    events = [json.loads(line) for line in shown.out.splitlines()]
    names = [e["event"] for e in events]
    assert names == ["plan", *["progress"] * (len(names) - 2), "finished"]
    assert events[-2]["share"] == 1.0
    assert sum(p["source_bytes"] for p in events[0]["parts"]) == events[0]["source_bytes"]
    assert shown.err == ""
    assert verify_main([str(tmp_path / "q"), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["event"] == "verified"
    assert events[-1]["ok"]


def test_demo_is_the_included_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", str(tmp_path / "q"), "--plan"]) == 0
    assert "vision tower       4.48 MiB" in capsys.readouterr().out


def test_plan_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([SOURCE, str(tmp_path / "q"), "--plan"]) == 0
    assert "language expert" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_damage_gives_exit_code_1_and_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([SOURCE, str(tmp_path / "q")])
    shard = tmp_path / "q/model-00001-of-00001.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)
    capsys.readouterr()
    assert verify_main([str(tmp_path / "q")]) == 1
    shown = capsys.readouterr().out
    assert "DAMAGED  model-00001-of-00001.safetensors: lm_head.weight: sha256 differs" in shown
    assert "is damaged: 2 problems found" in shown


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["nowhere", "x"], 2, "There is no folder nowhere"),
        ([SOURCE, SOURCE], 2, "both the source and the destination"),
        ([SOURCE], 2, "DST"),
        ([SOURCE, "x", "--kepe", "a=int8"], 2, "has no option '--kepe'"),
        ([SOURCE, "x", "--keep", "a=fp4"], 2, "'a=fp4' does not have the form vision-tower=int8"),
        ([SOURCE, "x", "--keep", "a=int8"], 2, "matches none of the 33 linear matrices"),
        ([SOURCE, "x", "--threads", "0"], 2, "'0' is not a whole number above 0"),
        ([SOURCE, "x", "--shard-size", "big"], 2, "'big' is not a size"),
        ([SOURCE, "x", "--budget", "3%"], 2, "like +5%, 4.6bits or 12.0GiB."),
        ([SOURCE, "x", "--shard-size", "0"], 2, "the size of a file can't be 0"),
        ([SOURCE, str(CHECKPOINT.parent)], 1, "is not empty"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_mistake_gives_a_sentence_and_an_exit_code(
    options: list[str], code: int, words: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, *(["--json"] if as_json else [])]) == code
    shown = capsys.readouterr()
    if as_json:
        event = json.loads(shown.out)
        assert event["event"] == "error"
        assert words in event["message"]
        assert ".." not in event["message"]
        assert event["hint"]
    else:
        assert shown.err.startswith("Error: ")
        assert words in shown.err
        assert shown.out == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_say_how_to_go_on(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(options: argparse.Namespace, show: object) -> int:
        signal.raise_signal(number)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert run(work, verify_parser(), ["x"], after_stop="Do this.") == 130
    assert capsys.readouterr().err == "Error: Stopped.\n  Do this.\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_help_and_mistakes_load_no_torch() -> None:
    program = (
        "import sys; from quantize.command import main, verify_main\n"
        "assert main(['nowhere']) == 2\n"
        "assert not {'torch', 'bitsandbytes', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)


def test_progress_is_one_line_that_changes_only_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen()
    for share in range(101):
        screen(
            Progress(
                done_bytes=share,
                total_bytes=100,
                share=share / 100,
                bytes_per_s=1,
                seconds_left=100 - share,
                tensor="t",
            )
        )
    lines = capsys.readouterr().err.splitlines()
    assert 9 <= len(lines) <= 12
    assert "\r" not in "".join(lines)


def test_a_file_name_can_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen(Damaged(file="a\x1b]0;owned\x07.safetensors", tensor="", problem="It is cut off."))
    screen(Failed(kind="k", message="There is no folder 'a\x1b[2Jb'.", hint=""))
    shown = capsys.readouterr()
    assert shown.out == "DAMAGED  a]0;owned.safetensors: It is cut off.\n"
    assert shown.err == "Error: There is no folder 'a[2Jb'.\n"


def test_json_lines_are_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Pipe:
        def write(self, text: str) -> None:
            calls.append(text)

        def flush(self) -> None:
            calls.append("flush")

    monkeypatch.setattr(sys, "stdout", Pipe())
    JsonLines()(Failed(kind="k", message="m", hint=""))
    assert calls[-1] == "flush"
    assert calls[0].endswith("}\n")


def test_every_event_and_field_is_in_the_manual() -> None:
    page = (ROOT / "docs/format.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if "| `" in line}
    kinds: list[type[Event]] = [Planned, Progress, Finished, Damaged, Verified, Failed]
    for kind in kinds:
        row = rows[f"`{kind.event}`"]
        for field in fields(kind):
            assert f"`{field.name}`" in row, f"{kind.event}: {field.name}"
    for inner in (PartRow, KeptRow):
        assert all(f"`{field.name}`" in rows["`plan`"] for field in fields(inner))


# --- calibrating without being told to ------------------------------------------------------------


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return the plan event of `quantize ... --plan --json`."""
    assert main([*words, "--plan", "--json"]) == 0
    event: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[0])
    return event


def test_a_program_on_a_cpu_gets_plain_nf4_and_is_told_what_calibrating_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (note,) = planned(capsys, DEMO, str(tmp_path / "q"))["notes"]
    assert note.startswith("Rounded to nearest. --calibrate with built-in")
    assert "on this CPU that takes about" in note


def test_yes_calibrates_with_the_built_in_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [DEMO, str(tmp_path / "q"), "--yes", "--samples", "8"]
    notes = " ".join(planned(capsys, *words)["notes"])
    assert "Calibrated with the built-in set" in notes
    assert "Calibrating takes about" in notes
    assert "The budget leaves" in notes
    assert "(5.0%)" in notes


def test_a_gpu_calibrates_without_being_asked_and_none_forbids_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = SimpleNamespace(is_bf16_supported=lambda **_: True, device=lambda device: nullcontext())
    card = gpu("RTX 4060", free_bytes=7 * GIB, total_bytes=8 * GIB)
    monkeypatch.setattr("quantize.calibration.estimate.flops_per_s", lambda device, dtype: 1e13)
    words = [DEMO, str(tmp_path / "q"), "--samples", "8"]
    with replaced(FakeCuda(card, torch=SimpleNamespace(cuda=cuda))):
        assert "Calibrated with the built-in set" in " ".join(planned(capsys, *words)["notes"])
        assert planned(capsys, *words, "--calibrate", "none")["notes"] == []


@pytest.mark.parametrize("answer", ["n", ""])
def test_a_person_on_a_cpu_is_asked_and_may_say_no(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    asked = []
    monkeypatch.setattr("quantize.command._is_person", lambda _: True)

    def reply(question: str) -> str:
        asked.append(question)
        return answer if "Calibrate on" in question else "y"

    monkeypatch.setattr("builtins.input", reply)
    assert main([SOURCE, str(tmp_path / "q")]) == 0
    assert len(asked) == 2
    assert "on this CPU" in asked[0]
    assert "Rounded to nearest." in capsys.readouterr().out
    assert (tmp_path / "q").exists()


def test_a_person_who_says_yes_sees_the_plan_of_a_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantize.command._is_person", lambda _: True)
    monkeypatch.setattr("builtins.input", lambda q: "y" if "Calibrate on" in q else "n")
    assert main([DEMO, str(tmp_path / "q"), "--samples", "8"]) == 0
    assert "Calibrating takes about" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rounding", "word"), [("nearest", "none"), ("calibrated: 64 samples, x", "built-in")]
)
def test_unfinished_work_goes_on_as_it_began(tmp_path: Path, rounding: str, word: str) -> None:
    (tmp_path / "q.partial").mkdir()
    job = {"tool": "t", "source": {}, "settings": {"rounding": rounding}}
    (tmp_path / "q.partial" / "job.json").write_text(json.dumps(job))
    options = quantize_parser().parse_args([SOURCE, str(tmp_path / "q")])
    assert choose_calibration(options) == ""
    assert options.calibrate == word
