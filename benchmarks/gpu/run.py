"""Run all GPU measurements within a time limit; see `python3 -m benchmarks.gpu.run --help`.

Each step is a process with its own time limit. A step that fails, hangs, crashes or runs out of
memory is a row in the table, with the end of its output. After every step OUT has

    gpu.json      all results so far
    summary.txt   the table of them
    output.txt    what the steps printed
    junit.xml     the tests
    profile.txt   the kernels of a step, by time

These are few files on purpose: a rented machine may return only a few. Only the standard library is
used here, so that this program works however little is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.steps import CONSUMER, STEPS, Step, choose
from benchmarks.gpu.table import render

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "benchmarks" / "results" / "gpu"
REHEARSED = ROOT / "build" / "gpu-rehearsal"
PACKAGES = ROOT / "build" / "gpu-packages"
"""Where tools/pack_gpu.py puts what the other machine lacks."""

Row = dict[str, Any]

_ENDING_S = 4.0
"""Kept at the end for the table."""

_GRACE_S = 2.0
"""A process that was asked to end is killed after this time."""

_TAIL_LINES, _KEPT_BYTES = 12, 1 << 18
_STACKS = ("Timeout (", "Fatal Python error")
_WORK_BYTES = 8 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return 0 if none of them failed."""
    options = parse(arguments)
    try:
        steps = choose(options.steps)
        out = _folder(options.out or default_out(options.rehearse))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    report = Report(out, rehearsal=options.rehearse, fresh=options.fresh)
    signal.signal(signal.SIGTERM, _interrupt)
    work = _work_folder()
    try:
        link_missing(options.packages, work / "packages")
        run_all(steps, report, options, work)
    except KeyboardInterrupt:
        print("Stopped. The results so far are saved.", file=sys.stderr)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(report.table())
    print(f"\nResults: {out}")
    return 0 if all(row["status"] in ("ok", "skipped") for row in report.rows.values()) else 1


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    names = ", ".join(step.name for step in STEPS)
    parser = argparse.ArgumentParser(
        prog="gpu.sh", description="Measure everything that needs a GPU, within a time limit."
    )
    parser.add_argument(
        "--seconds", type=float, default=560, help="time limit of the whole run (default: 560)"
    )
    parser.add_argument(
        "--steps", default="", help=f"only these, separated by commas; all: {names}"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the results (default: $OUT, or benchmarks/results/gpu)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="forget the results of earlier runs in that folder"
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run every step with tiny sizes on an emulated GPU, to see that it works",
    )
    parser.add_argument(
        "--packages",
        type=Path,
        default=PACKAGES,
        help="folder with Python packages that are not installed (default: build/gpu-packages)",
    )
    return parser.parse_args(arguments)


def default_out(rehearse: bool) -> Path:
    """Return the folder of the results if none is chosen."""
    chosen = os.environ.get("OUT")
    if chosen:
        return Path(chosen)
    return REHEARSED if rehearse else OUT


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "gpu.json.part").touch()
        (path / "gpu.json.part").unlink()
    except OSError as error:
        raise OSError(f"Results can't be written to {path} ({error}). Choose --out.") from error
    return path.resolve()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _work_folder() -> Path:
    """Return a new folder, in memory if there is room: random weights are mapped from it."""
    memory = Path("/dev/shm")
    with contextlib.suppress(OSError):
        if shutil.disk_usage(memory).free > _WORK_BYTES and os.access(memory, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="cogvlm2-gpu-", dir=memory))
    return Path(tempfile.mkdtemp(prefix="cogvlm2-gpu-"))


def link_missing(packages: Path, target: Path) -> list[str]:
    """Link the packages of a folder that are not installed; return their names.

    Those that are installed stay in use: the folder may be for another version of Python.
    """
    target.mkdir(parents=True, exist_ok=True)
    if not packages.is_dir():
        return []
    entries = sorted(packages.resolve().iterdir())
    missing = [e.name for e in entries if "." not in e.name and find_spec(e.name) is None]
    for entry in entries:
        if entry.name.partition("-")[0] in missing:  # the package, and what is known of it
            (target / entry.name).symlink_to(entry)
    return missing


# --- running --------------------------------------------------------------------------------------


def run_all(steps: Sequence[Step], report: Report, options: argparse.Namespace, work: Path) -> None:
    """Run the steps one after another until the time is over.

    A rehearsal runs all of them in one process, because importing torch takes most of its time.
    """
    until = time.monotonic() + options.seconds - _ENDING_S
    groups = [list(steps)] if options.rehearse else [[step] for step in steps]
    for group in groups:
        left = until - time.monotonic()
        if left < min(step.least_s for step in group):
            for step in group:
                reason = f"{max(0, left):.0f} s were left, and it needs {step.least_s:.0f} s"
                report.add(_row(step, "skipped", reason=reason))
            continue
        for row in run_group(group, options, work, report.out, left):
            report.add(row)
            print(f"{row['name']:<14} {row['status']:<9} {row['seconds']:6.1f} s  {row['reason']}")
            sys.stdout.flush()


def run_group(
    steps: Sequence[Step], options: argparse.Namespace, work: Path, out: Path, left: float
) -> Iterator[Row]:
    """Run steps in one process and yield their rows.

    left  seconds until the whole run must end
    """
    # A rehearsal measures nothing, and may take its time on a busy machine.
    limit = left if options.rehearse else min(sum(step.seconds for step in steps), left)
    ended = supervise(
        _command(steps, options, work, out, limit),
        environment=_environment(steps, options, work),
        limit_s=limit,
        log=out / "output.txt",
    )
    for step in steps:
        yield _judge(step, ended, work / f"{step.name}.json", limit, alone=len(steps) == 1)
    if ended.stopped:
        raise KeyboardInterrupt


def _command(
    steps: Sequence[Step], options: argparse.Namespace, work: Path, out: Path, limit: float
) -> list[str]:
    (first, *others) = steps
    if first.command and not others:
        return [sys.executable, *first.command]
    command = [sys.executable, "-m", "benchmarks.gpu.work", *(step.name for step in steps)]
    command += ["--work", str(work), "--out", str(out), "--seconds", f"{limit:.1f}"]
    return [*command, "--rehearse"] if options.rehearse else command


def _environment(steps: Sequence[Step], options: argparse.Namespace, work: Path) -> dict[str, str]:
    environment = {
        **os.environ,
        **CONSUMER,
        # Threads of torch that spin slow down the thread that starts kernels.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "HF_HUB_OFFLINE": "1",
        "COGVLM2_LITE_CACHE": str(work / "cache"),
        "TMPDIR": str(work),
    }
    places = [str(ROOT), str(work / "packages"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
    if len(steps) == 1:
        for name, value in steps[0].environment.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
    return environment


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended.

    exit     its exit code, negative for a signal
    tail     the last lines that it printed
    stopped  the user, or a time limit outside, ended the whole run
    """

    exit: int
    timed_out: bool
    seconds: float
    tail: tuple[str, ...]
    stopped: bool = False


def supervise(
    command: Sequence[str], *, environment: Mapping[str, str], limit_s: float, log: Path
) -> Ended:
    """Run a process and all that it starts, and end them after limit_s.

    log  what it prints is added to this file, up to 256 KiB from the beginning
    """
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return Ended(exit=-1, timed_out=False, seconds=0, tail=(str(error),))
    with contextlib.suppress(OSError):
        # If memory runs out, the system ends the step and not this program.
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("900")
    assert process.stdout is not None
    output = Output(process.stdout, log, " ".join(command[1:4]))
    timed_out = stopped = False
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        timed_out = True
    except KeyboardInterrupt:
        stopped = True
    _end(process)
    return Ended(
        exit=process.returncode,
        timed_out=timed_out,
        seconds=time.monotonic() - began,
        tail=output.tail(),
        stopped=stopped,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


class Output:
    """What a process prints: the beginning goes into a file, the end is kept."""

    def __init__(self, pipe: IO[bytes], log: Path, title: str) -> None:
        self._pipe, self._log, self._title = pipe, log, title
        self._end = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        left = _KEPT_BYTES
        with self._pipe, self._log.open("ab") as log:
            log.write(f"\n== {self._title}\n".encode())
            while data := os.read(self._pipe.fileno(), 1 << 16):
                log.write(data[:left])
                log.flush()
                left = max(0, left - len(data))
                self._end = (self._end + data)[-(1 << 14) :]

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, without control characters."""
        self._thread.join(_GRACE_S)
        text = self._end.decode("utf-8", errors="replace")
        lines = ("".join(c for c in line if c.isprintable()) for line in text.splitlines())
        kept = [line[:300] for line in lines if line.strip()]
        # Python prints stacks with the innermost call first.
        stacks = [n for n, line in enumerate(kept) if line.startswith(_STACKS)]
        return tuple(kept[stacks[-1] :][:_TAIL_LINES] if stacks else kept[-_TAIL_LINES:])


# --- results --------------------------------------------------------------------------------------


def _row(step: Step, status: str, **values: Any) -> Row:
    empty = {"reason": "", "seconds": 0.0, "limit_s": 0.0, "exit": 0, "tail": [], "values": {}}
    return {"name": step.name, "what": step.what, "status": status, **empty, **values}


def _judge(step: Step, ended: Ended, file: Path, limit: float, *, alone: bool) -> Row:
    """Return the row of a step: "ok", "wrong" (a result is not what it must be), or "failed"."""
    saved = read_saved(file)
    values = saved.get("values")
    values = values if isinstance(values, dict) else {}
    seconds = saved.get("seconds")
    if alone or not isinstance(seconds, int | float):
        seconds = ended.seconds if alone else 0.0
    row = _row(
        step,
        "ok",
        seconds=float(seconds),
        limit_s=limit,
        exit=ended.exit,
        values=values,
    )
    skipped = values.get("skipped")
    missing = [] if skipped else [key for key in step.keys if key not in values]
    wrong = values.get("wrong")
    if not saved.get("done"):
        row["status"], row["reason"] = "failed", _why(ended, saved, limit)
    elif saved.get("error"):
        row["status"], row["reason"] = "failed", str(saved["error"]).strip()[:300]
    elif alone and ended.exit:
        row["status"], row["reason"] = "failed", f"exit code {ended.exit}"
    elif missing:
        row["status"], row["reason"] = "failed", f"no result for {', '.join(missing)}"
    elif skipped:
        row["status"], row["reason"] = "skipped", str(skipped)
    elif wrong:
        row["status"] = "wrong"
        row["reason"] = "; ".join(map(str, wrong if isinstance(wrong, list) else [wrong]))
    if row["status"] not in ("ok", "skipped"):
        tail = saved.get("tail")
        row["tail"] = [str(line) for line in tail] if isinstance(tail, list) and tail else []
        row["tail"] = row["tail"] or list(ended.tail)
    return row


def _why(ended: Ended, saved: Mapping[str, Any], limit: float) -> str:
    """Return why a step did not come to its end."""
    if ended.stopped:
        return "the run was stopped"
    if ended.timed_out:
        return f"it took longer than {limit:.0f} s"
    if ended.exit < 0:
        name = signal.Signals(-ended.exit).name if -ended.exit in signal.valid_signals() else "?"
        hint = ", perhaps because memory ran out" if ended.exit == -signal.SIGKILL else ""
        return f"ended by signal {-ended.exit} ({name}){hint}"
    if saved.get("unreadable"):
        return f"its results can't be read ({saved['unreadable']}), exit code {ended.exit}"
    return f"it ended without results, exit code {ended.exit}"


def read_saved(file: Path) -> dict[str, Any]:
    """Return what a step saved; {"unreadable": why} if that is damaged, {} if it saved nothing."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        return {"unreadable": str(error)}
    return saved if isinstance(saved, dict) else {"unreadable": "it is not an object"}


class Report:
    """The results of all steps, saved whenever one is added.

    rows  by the name of the step; those of an earlier run stay until their step runs again
    """

    def __init__(self, out: Path, *, rehearsal: bool, fresh: bool = False) -> None:
        self.out, self._rehearsal = out, rehearsal
        self.rows: dict[str, Row] = {}
        before = {} if fresh else read_saved(out / "gpu.json")
        rows = before.get("steps")
        if before.get("rehearsal") is rehearsal and isinstance(rows, list):
            known = {step.name for step in STEPS}
            rows = [row for row in rows if isinstance(row, dict) and row.get("name") in known]
            self.rows = {row["name"]: row for row in rows}
        if not self.rows:
            for name in ("output.txt", "junit.xml", "profile.txt"):
                (out / name).unlink(missing_ok=True)

    def add(self, row: Row) -> None:
        """Add the row of a step and save everything."""
        self.rows[row["name"]] = row
        self._write("gpu.json", json.dumps(self.as_dict(), indent=1) + "\n")
        self._write("summary.txt", self.table() + "\n")

    def as_dict(self) -> dict[str, Any]:
        """Return what gpu.json contains."""
        rows = [self.rows[step.name] for step in STEPS if step.name in self.rows]
        return {"rehearsal": self._rehearsal, "steps": rows}

    def table(self) -> str:
        """Return the table of all results."""
        return render(self.as_dict())

    def _write(self, name: str, text: str) -> None:
        """Replace a file at once, so that a reader never sees half of it."""
        part = self.out / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(self.out / name)


if __name__ == "__main__":
    sys.exit(main())
