"""The run on a GPU survives every step, saves results at once, and works on an emulated GPU."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu import ballast, caps, features, profile, pytests, run
from benchmarks.gpu.steps import STEPS, Step, choose
from benchmarks.gpu.table import measured_card, render
from benchmarks.gpu.work import Run
from cogvlm2_lite.backends.measured import MeasuredCard
from tests.emulated_cuda.install import emulated_cuda
from tools import pack_gpu

ROOT = Path(__file__).resolve().parents[2]

SAVE = """
import json, os, pathlib, sys, time
work = pathlib.Path(os.environ["TMPDIR"])
def save(name, **saved):
    (work / f"{name}.json").write_text(json.dumps({"seconds": 1, **saved}))
"""


def step(name: str, program: str, **values: Any) -> Step:
    """Return a step that runs a Python program and must write the result `speed`."""
    options = {"what": "a test", "seconds": 20, "least_s": 0, "keys": ("speed",)}
    return Step(name=name, command=("-S", "-c", SAVE + program), **{**options, **values})


def good(name: str) -> Step:
    return step(name, f'save("{name}", done=True, values={{"speed": 1}})')


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs steps and returns their rows by name."""
    monkeypatch.setattr(run, "_GRACE_S", 0.3)

    def rows(steps: Sequence[Step], *arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(run, "STEPS", tuple(steps))
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        options = run.parse(["--out", str(out), *arguments])
        report = run.Report(out, rehearsal=False, fresh=options.fresh)
        run.run_all(steps, report, options, work)
        saved = json.loads((out / "gpu.json").read_text())
        assert (out / "summary.txt").read_text().strip() == report.table()
        assert not list(out.glob("*.part"))
        return {row["name"]: row for row in saved["steps"]}

    return rows


BROKEN = {
    "crash": ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "killed": ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "memory ran out"),
    "memory": ("x = bytearray(1 << 62)", "exit code 1"),
    "silent": ("", "without results, exit code 0"),
    "import": ("import no_such_module", "exit code 1"),
    "garbage": (
        'os.write(1, os.urandom(1 << 16)); (work / "garbage.json").write_bytes(b"\\xff{")',
        "can't be read",
    ),
    "list": ('(work / "list.json").write_text("[1]")', "not an object"),
    "deep": ('(work / "deep.json").write_text("[" * 200000)', "can't be read"),
    "partly": ('save("partly", done=True, values={"other": 1})', "no result for speed"),
    "values": ('save("values", done=True, values=[1])', "no result for speed"),
    "error": ('save("error", done=True, values={"speed": 1}, error="no card")', "no card"),
    "exit": ('save("exit", done=True, values={"speed": 1}); sys.exit(3)', "exit code 3"),
}


def test_a_step_that_fails_is_a_row_and_the_others_run(ran: Any) -> None:
    steps = [step(name, program) for name, (program, _) in BROKEN.items()]
    rows = ran([*steps, good("last")])
    for name, (_, reason) in BROKEN.items():
        assert rows[name]["status"] == "failed", name
        assert reason in rows[name]["reason"], rows[name]
    assert "no_such_module" in rows["import"]["tail"][-1]
    assert all(text.isprintable() for text in rows["garbage"]["tail"])
    assert rows["last"]["status"] == "ok"


def test_a_step_that_hangs_is_ended_with_all_it_started(ran: Any, tmp_path: Path) -> None:
    program = f"""
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
pathlib.Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
save("hang", done=False, values={{"speed": 7}})
print("before", flush=True)
time.sleep(60)
"""
    rows = ran([step("hang", program, seconds=1), good("last")])
    assert rows["hang"]["status"] == "failed"
    assert rows["hang"]["reason"] == "it took longer than 1 s"
    assert rows["hang"]["values"] == {"speed": 7}
    assert rows["hang"]["tail"] == ["before"]
    assert rows["hang"]["seconds"] < 10
    assert rows["last"]["status"] == "ok"
    child = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_child_that_keeps_the_output_open_does_not_stop_the_run(ran: Any) -> None:
    program = """
import subprocess
subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
save("child", done=True, values={"speed": 1})
"""
    rows = ran([step("child", program)])
    assert rows["child"]["status"] == "ok"
    assert rows["child"]["seconds"] < 10


def test_much_output_is_kept_short(ran: Any, tmp_path: Path) -> None:
    program = """
for _ in range(300): print("x" * 9999)
save("much", done=True, values={"speed": 1, "wrong": ["too much"]})
"""
    row = ran([step("much", program)])["much"]
    assert (row["status"], row["reason"]) == ("wrong", "too much")
    assert len("".join(row["tail"])) < 5000
    assert (tmp_path / "out" / "output.txt").stat().st_size < 300_000


def test_a_step_may_find_that_it_does_not_apply(ran: Any) -> None:
    program = 'save("cap", done=True, values={"skipped": "only 7.1 GiB of the card are free"})'
    row = ran([step("cap", program)])["cap"]
    assert (row["status"], row["reason"]) == ("skipped", "only 7.1 GiB of the card are free")


def test_a_cap_that_the_card_does_not_have_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (sys.executable, "-S", "-c", HOLDER.replace("print(free", "print(7 << 30", 1))
    monkeypatch.setattr(caps, "BallastProcess", partial(ballast.BallastProcess, command=command))
    step = Run("cap8", work=tmp_path, out=tmp_path, rehearse=False, until=0.0)
    caps.measure(step)
    assert step.values["skipped"] == "only 7.0 GiB of the card are free"


def test_without_time_later_steps_are_skipped_with_the_reason(ran: Any) -> None:
    first, later = good("first"), step("later", "", least_s=900)
    rows = ran([first, later], "--seconds", "60")
    assert rows["first"]["status"] == "ok"
    assert rows["later"]["status"] == "skipped"
    assert "it needs 900 s" in rows["later"]["reason"]
    assert ran([first], "--seconds", "0", "--fresh")["first"]["status"] == "skipped"


def test_a_second_run_continues(ran: Any, tmp_path: Path) -> None:
    first, second = good("first"), step("second", "sys.exit(5)")
    monkey = (first, second)
    assert ran(monkey)["second"]["status"] == "failed"
    (tmp_path / "work" / "first.json").unlink()
    better = good("second")
    options = run.parse(["--out", str(tmp_path / "out")])
    report = run.Report(tmp_path / "out", rehearsal=False)
    run.run_all([better], report, options, tmp_path / "work")
    assert {name: row["status"] for name, row in report.rows.items()} == {
        "first": "ok",
        "second": "ok",
    }
    (tmp_path / "out" / "gpu.json").write_text("{damaged")
    assert run.Report(tmp_path / "out", rehearsal=False).rows == {}


def test_a_run_that_is_stopped_saves_what_it_has(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys, threading
from pathlib import Path
from benchmarks.gpu import run
from benchmarks.gpu.steps import Step
values = {{"what": "", "seconds": 60, "least_s": 0, "keys": ()}}
first = Step(name="first", command=("-S", "-c", "import time; time.sleep(60)"), **values)
second = Step(name="second", **values)
run.STEPS = (first, second)
run.choose = lambda names: run.STEPS
run._GRACE_S = 0.3
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
sys.exit(run.main(["--out", {str(tmp_path)!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "The results so far are saved" in done.stderr
    (row,) = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert (row["name"], row["reason"]) == ("first", "the run was stopped")


def test_wrong_options_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--steps", "environment,speed", "--out", str(tmp_path)]) == 2
    assert "Unknown step 'speed'. The steps are environment" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run.main(["--out", str(tmp_path / "file" / "out")]) == 2
    assert "Choose --out" in capsys.readouterr().err


# --- the rehearsal --------------------------------------------------------------------------------

BLOCKED = (
    "hypothesis", "xdist", "pytestqt", "pytest_timeout", "starlette", "uvicorn", "transformers",
    "accelerate", "peft", "PySide6", "llguidance", "httpx", "openai", "pyarrow", "slipcover",
    "cogvlm2_lite.weights.kernels._kernels_14",
)  # fmt: skip

SITE = f"""
import sys
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.startswith({BLOCKED!r}):
            return None
        return self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""
"""Imported when Python starts: the blocked modules seem not to be installed."""


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run all steps on an emulated GPU, with no more installed than a rented machine has."""
    site, out = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("out")
    (site / "sitecustomize.py").write_text(SITE)
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(site),
        "OUT": str(out),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["/bin/sh", str(ROOT / "benchmarks" / "gpu.sh"), "--rehearse"],
        cwd=out, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (out / "gpu.json").exists(), done.stderr
    report: dict[str, Any] = json.loads((out / "gpu.json").read_text())
    report["output"] = done.stdout + done.stderr + (out / "output.txt").read_text()
    report["exit"] = done.returncode
    report["files"] = [file.name for file in out.rglob("*")]
    return report


def test_every_step_runs_on_an_emulated_gpu(rehearsed: dict[str, Any]) -> None:
    """One test: workers of a parallel run would each rehearse for tests of their own."""
    rows = {row["name"]: row for row in rehearsed["steps"]}
    assert list(rows) == [step.name for step in STEPS]
    troubles = {n: (r["reason"], r["tail"]) for n, r in rows.items() if r["status"] != "ok"}
    assert not troubles, rehearsed["output"][-6000:]
    assert rehearsed["exit"] == 0
    assert len(rehearsed["files"]) <= 8  # a rented machine returned no more
    for known in STEPS:
        values = rows[known.name]["values"]
        errors = {key: value for key, value in values.items() if is_error(value)}
        assert not errors, known.name
        assert set(known.keys) <= set(values), known.name
    check_what_happened({name: row["values"] for name, row in rows.items()})
    check_tables(rehearsed)


def check_what_happened(rows: dict[str, Any]) -> None:
    assert [rows[f"cap{gib}"]["streams"] for gib in (16, 4)] == [False, True]
    replans = [rows["cap8"]["recovery"][phase]["replans"] for phase in ("encode", "decode")]
    assert min(replans) > 0
    assert rows["cap4"]["long_answers"]["text"]["bits"]
    assert rows["resident"]["replays"] > 0
    assert rows["questions"]["captures"] > 0
    assert rows["profile"]["decode"]["kernels"] > 0
    assert rows["tests"]["passed"] > 0
    assert len(rows["tests"]["files"]) >= 4
    assert rows["tests"]["exit"] == 0  # all files can be imported
    assert all(rows["gemm"]["equal_rows"]["qkv"].values())
    assert rows["own"]["available"] is False  # there is no compiler for an emulated GPU
    assert len(rows["calibration"]["blocks"]) == 11  # parts of two blocks and of the projector


def check_tables(rehearsed: dict[str, Any]) -> None:
    for title in (
        "4-bit products, GB/s", "Attention of a decode step", "Copies, GB/s", "decode: ",
        "Memory, MiB", "Another program took memory", "Speed with a new picture",
        "The same bits as with all memory", "Correctness", "MeasuredCard(name=", "Steps",
    ):  # fmt: skip
        assert title in rehearsed["output"]
    assert "incomplete" not in rehearsed["output"]
    # A step that was ended early has only its first results, or none.
    for keep in range(4):
        steps = [
            {**row, "values": dict(list(row["values"].items())[:keep])}
            for row in rehearsed["steps"]
        ]
        assert render({"rehearsal": False, "steps": steps})
    damaged = [{**row, "values": dict.fromkeys(row["values"], 7)} for row in rehearsed["steps"]]
    assert "results are incomplete" in render({"rehearsal": False, "steps": damaged})
    assert render({"rehearsal": False, "steps": []})
    line = measured_card({row["name"]: row for row in rehearsed["steps"]}, date="2026-12-24")
    card = eval(line.rstrip(","), {"MeasuredCard": MeasuredCard})
    assert card.total_bytes == 16 << 30
    assert card.date == "2026-12-24"
    assert card.decode_tokens_per_s > 0


def is_error(value: object) -> bool:
    return isinstance(value, dict) and "error" in value


# --- what travels to another machine --------------------------------------------------------------


def test_the_entry_needs_only_the_standard_library() -> None:
    """Python 3.12 on a rented machine has other packages, or none."""
    program = "import sys; import benchmarks.gpu.run; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"


def test_steps_are_chosen_by_name() -> None:
    assert [step.name for step in choose(" environment ,")] == ["environment"]
    assert choose("") == STEPS
    assert isinstance(run.parse([]), argparse.Namespace)


def test_the_process_that_holds_memory_does_what_it_is_told() -> None:
    lines, out = StringIO("take 5000000\ngive\ntake 0\n"), StringIO()
    with emulated_cuda(total_bytes=1 << 30) as machine:
        ballast.main([str(100 << 20)], lines, out)
        assert machine.held == [0]
    left, taken, given, all_taken = map(int, out.getvalue().split())
    assert 100 << 20 <= left < 103 << 20
    assert 5_000_000 <= taken < 5_000_000 + (3 << 20)
    assert given == left
    assert all_taken < 3 << 20


def test_packages_that_are_installed_stay_in_use(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    for name in ("json", "not_there_1", "not_there_1-2.0.dist-info", "json-1.dist-info"):
        (packages / name).mkdir(parents=True)
    assert run.link_missing(packages, tmp_path / "links") == ["not_there_1"]
    linked = sorted(entry.name for entry in (tmp_path / "links").iterdir())
    assert linked == ["not_there_1", "not_there_1-2.0.dist-info"]
    assert run.link_missing(tmp_path / "none", tmp_path / "other") == []


def test_what_travels_is_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, files in {
        "bitsandbytes": ("__init__.py", "libbitsandbytes_cuda130.so", "libbitsandbytes_cuda128.so",
                         "libbitsandbytes_cpu.so", "libbitsandbytes_rocm70.so"),
        "msgspec": ("__init__.py", "_core.cpython-312-x86_64-linux-gnu.so", "__init__.pyi"),
        "platformdirs": ("__init__.py", "py.typed"),
    }.items():  # fmt: skip
        with zipfile.ZipFile(wheels / f"{name}-1.whl", "w") as archive:
            for file in files:
                archive.writestr(f"{name}/{file}", "x" * 1000)
            archive.writestr(f"{name}-1.dist-info/METADATA", f"Name: {name}")
    to = tmp_path / "packed"
    assert pack_gpu.main(["--wheels", str(wheels), "--to", str(to)]) == 0
    assert f"sh benchmarks/gpu.sh --packages {to}" in capsys.readouterr().out
    packed = {file.relative_to(to).as_posix() for file in to.rglob("*.*") if file.is_file()}
    assert packed == {
        "bitsandbytes/__init__.py",
        "bitsandbytes/libbitsandbytes_cuda130.so",
        "bitsandbytes/libbitsandbytes_cpu.so",
        "msgspec/__init__.py",
        "msgspec/_core.cpython-312-x86_64-linux-gnu.so",
        "platformdirs/__init__.py",
        "platformdirs/py.typed",
    }
    with pytest.raises(ValueError, match="no library for CUDA 999"):
        pack_gpu.main(["--wheels", str(wheels), "--to", str(to), "--cuda", "999"])
    (wheels / "msgspec-1.whl").unlink()
    assert pack_gpu.main(["--wheels", str(wheels), "--to", str(to)]) == 1


def test_the_source_tree_leaves_room_for_the_packages() -> None:
    """They are 5.7 MB."""
    assert sum(pack_gpu.tree_sizes().values()) < pack_gpu.MOST_BYTES - 8_000_000


HOLDER = """
import sys, time
free = int(sys.argv[1])
print(free, flush=True)
for line in sys.stdin:
    word, _, leave = line.partition(" ")
    if int(leave or 1) == 13:
        sys.exit(1)
    print(int(leave) if word == "take" else free, flush=True)
"""


def test_the_step_talks_to_the_process_that_holds_memory() -> None:
    command = (sys.executable, "-S", "-c", HOLDER)
    with ballast.BallastProcess(700, command) as other:
        assert other.free_bytes == 700
        other.take(3)
        assert other.free_bytes == 3
        other.give()
        assert other.free_bytes == 700
        with pytest.raises(RuntimeError, match="ended or hangs"):
            other.take(13)
    with pytest.raises(RuntimeError, match="ended or hangs"):
        ballast.BallastProcess(700, (sys.executable, "-S", "-c", "1 / 0"))


def test_what_compute_sanitizer_reports_is_in_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text('#!/bin/sh\necho "ERROR SUMMARY for $2"\n[ "$2" = memcheck ] || exit 86\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    until = time.monotonic() + 60
    step = Run("sanitizer", work=tmp_path, out=tmp_path, rehearse=False, until=until)
    features.sanitizer(step)
    tools = step.values["tools"]
    assert (tools["memcheck"]["exit"], tools["memcheck"]["errors"]) == (0, False)
    assert tools["racecheck"]["errors"]
    assert tools["racecheck"]["end"] == ["ERROR SUMMARY for racecheck"]
    assert step.values["wrong"] == ["compute-sanitizer racecheck reports errors"]


def test_kernels_of_the_profiler_are_sorted_by_time() -> None:
    events = [
        SimpleNamespace(key=key, count=2, self_device_time_total=us)
        for key, us in (("a", 1), ("host", 0), ("b", 5.5))
    ]
    assert [row["kernel"] for row in profile.kernels_of(events)] == ["b", "a"]
    text = profile.as_text("decode", profile.kernels_of(events), 2)
    assert text.splitlines()[0] == "decode: 2 kernels, 3 us for each of 2"


def test_values_that_json_lacks_do_not_end_a_step(tmp_path: Path) -> None:
    step = Run("gemm", work=tmp_path, out=tmp_path, rehearse=False, until=0.0)
    step.put(rate=float("inf"), names=("a", Path("b")), nested={1: float("nan")})
    saved = run.read_saved(tmp_path / "gemm.json")
    assert saved["values"] == {"rate": None, "names": ["a", "b"], "nested": {"1": None}}
    assert saved["done"] is False
    assert step.attempt("broken", lambda: 1 / 0) is None
    assert step.values["broken"] == {"error": "ZeroDivisionError: division by zero"}


def test_results_of_pytest_are_read(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    file.write_text(
        "<testsuites><testsuite><testcase classname='a' name='b'/>"
        "<testcase classname='a' name='c'><failure message='no&#10;more'/></testcase>"
        "<testcase classname='a' name='d'><skipped/></testcase></testsuite></testsuites>"
    )
    assert pytests.read_junit(file) == {"passed": 1, "skipped": 1, "failed": ["a::c: no"]}
    assert pytests.read_junit(tmp_path / "none")["failed"] == ["pytest wrote no results"]
