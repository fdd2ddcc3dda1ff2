"""`cogvlm2-lite doctor`: a report that can be pasted, and that never fails."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.cli.doctor import main
from cogvlm2_lite.doctor.report import DoctorReport, gather, gpus, problems, short_path
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.units import GIB
from tests.helpers.fake_backends import DrivenCuda
from tests.helpers.fake_torch import Cuda, OldDriver, fake_torch
from tests.helpers.scripted_model import ScriptedModel, small_plan

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def report() -> DoctorReport:
    return gather()


def test_the_report_covers_everything_a_bug_report_needs(report: DoctorReport) -> None:
    assert list(report.sections) == [
        "Program", "Packages", "Processor", "Memory", "GPUs", "Disk", "Kernels", "Demo model",
        "Plan now",
    ]  # fmt: skip
    assert "torch" in report.sections["Packages"]
    assert "available of" in report.sections["Memory"]["RAM"]
    assert all(value for rows in report.sections.values() for value in rows.values())


def test_the_plan_of_this_moment_is_told_in_a_line_each(report: DoctorReport) -> None:
    plans = report.sections["Plan now"]
    assert list(plans) == ["planned for", "demo", "19b, 4 bits"]
    assert "free now" in plans["planned for"]
    assert "tokens/s" in plans["demo"]
    assert "tokens/s" in plans["19b, 4 bits"] or "missing" in plans["19b, 4 bits"]


def test_the_chosen_kernels_come_with_their_reason(report: DoctorReport) -> None:
    kernels = report.sections["Kernels"]
    for name in ("cpu: numbers", "cpu: 4-bit"):
        choice, _, reason = kernels[name].partition(": ")
        assert choice
        assert len(reason) > 10


def test_the_report_does_not_name_the_user(report: DoctorReport) -> None:
    assert str(Path.home()) not in report.text()
    assert short_path(Path("/home/me/a/b"), lambda: Path("/home/me")) == str(Path("~/a/b"))
    assert short_path(Path("/opt/a"), lambda: Path("/home/me")) == str(Path("/opt/a"))


def test_a_gpu_is_described_with_its_free_memory() -> None:
    cuda = CudaBackend(fake_torch(Cuda(("Big GPU", (9, 0), 10 * GIB, 16 * GIB, 0, 0))))
    assert gpus([cuda]) == {
        "cuda:0": "Big GPU, 10.0 GiB free of 16.0 GiB, compute capability 9.0, CUDA 13.0",
        "cuda:0: evidence": "untested on real hardware: this GPU path has not been measured on "
        "your kind of card",
    }


def test_a_card_that_vanished_or_is_too_old_is_named_and_the_others_described() -> None:
    old = ("GTX 1060", (6, 1), 6 * GIB, 6 * GIB, 0, 0)
    good = ("RTX 4060", (8, 9), 7 * GIB, 8 * GIB, 0, 0)
    cuda = DrivenCuda(fake_torch(Cuda("CUDA error: lost", old, good)))
    rows = gpus([cuda])
    assert list(rows) == ["cuda:2", "cuda:2: evidence", "not used"]
    assert "cuda:0 does not respond: CUDA error: lost" in rows["not used"]
    assert "cuda:1 (GTX 1060) has compute capability 6.1" in rows["not used"]
    (said,) = problems([cuda])
    assert said.startswith("Not every GPU is used: cuda:0 does not respond")
    assert gpus([DrivenCuda(fake_torch(Cuda("CUDA error: lost")))]) == {
        "none": "cuda:0 does not respond: CUDA error: lost"
    }


def test_a_driver_that_torch_can_not_use_is_a_problem_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cogvlm2_lite.doctor.report.free_ram_bytes", lambda: 64 * GIB)
    assert list(problems([DrivenCuda(fake_torch(Cuda(), built=None))])) == [
        "A GPU driver is installed, but no GPU is used: torch is a CPU build. Install torch's "
        "CUDA wheel (see README)."
    ]
    assert list(problems([DrivenCuda(fake_torch(OldDriver()))])) == [
        "A GPU driver is installed, but no GPU is used: The NVIDIA driver on your system is too "
        "old (found version 11040). Install a newer driver."
    ]


def test_a_missing_gpu_is_explained() -> None:
    nowhere = SimpleNamespace(is_available=lambda: False)
    cpu = SimpleNamespace(version=SimpleNamespace(cuda=None, hip=None), cuda=nowhere)
    cuda = SimpleNamespace(version=SimpleNamespace(cuda="13.0", hip=None), cuda=nowhere)
    assert gpus([CudaBackend(cpu)]) == {"none": "torch is a CPU build"}
    assert gpus([CudaBackend(cuda)]) == {"none": "torch is built for CUDA 13.0 and finds no GPU"}
    assert gpus([]) == {"none": "torch can't be imported"}


def test_text_and_json_say_the_same(report: DoctorReport, capsys: Capture) -> None:
    found = json.loads(json.dumps(report.as_dict()))
    text = report.text()
    for title, rows in found["sections"].items():
        assert title in text
        for name, value in rows.items():
            assert any(name in line and value in line for line in text.splitlines())


def test_problems_are_listed_and_their_absence_is_said() -> None:
    sections = {"Memory": {"RAM": "1 B"}}
    assert "No problems found." in DoctorReport(sections=sections, problems=()).text()
    assert "  - Too small." in DoctorReport(sections=sections, problems=("Too small.",)).text()


def test_the_command_prints_the_report(capsys: Capture) -> None:
    assert main([]) == 0
    shown = capsys.readouterr()
    assert "Packages\n" in shown.out
    assert shown.err == ""


def test_json_is_one_object_with_the_plan_of_a_model(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path), "--json"], load=ScriptedModel().load) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["plan"]["peak_bytes"] == small_plan().peak_bytes
    assert found["sections"]["Program"]["CogVLM2 Lite"]


def test_a_model_that_does_not_fit_is_told_with_what_to_do(tmp_path: Path, capsys: Capture) -> None:
    def load(options: LoadOptions) -> ScriptedModel:
        raise DoesNotFitError("3 GiB are missing.", hint="Make it 4-bit.")

    assert main([str(tmp_path)], load=load) == 0
    assert "3 GiB are missing.\nMake it 4-bit." in capsys.readouterr().out


def test_a_model_that_fits_is_told_with_its_plan(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path)], load=ScriptedModel().load) == 0
    assert "language expert" in capsys.readouterr().out
