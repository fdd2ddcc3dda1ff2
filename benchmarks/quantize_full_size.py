"""Measure `quantize` on a checkpoint of the released size, and test killing it many times.

    python benchmarks/synthetic_19b.py SCRATCH/source
    python benchmarks/quantize_full_size.py SCRATCH/source SCRATCH/result --kills 25

Needs 39 GB for the source and 12 GB for one result. Writes
benchmarks/results/quantize_full_size.json and docs/quantize_full_size.md, and deletes the result;
it does not delete the source. Earlier runs with the same bytes as result are kept in both files,
and so is their kill test if there is no new one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
GIB = 1024**3
RESULTS = ROOT / "benchmarks/results/quantize_full_size.json"
PAGE = ROOT / "docs/quantize_full_size.md"
_SAMPLE_S = 0.05


@dataclass
class Run:
    """One process: its time, memory and events."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    exit_code: int = 0
    max_rss_bytes: int = 0
    """Peak as reported by the kernel."""
    peak: dict[str, int] = field(default_factory=dict)
    """Largest sample of each kind of resident memory (Linux)."""
    written_bytes: int = 0
    read_bytes: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)


def measure(command: list[str], kill_after_s: float | None = None) -> Run:
    """Run a command that prints JSON events, sample its memory, and kill it if a time is given."""
    run = Run()
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, run, done))
    watcher.start()
    if kill_after_s is not None:
        timer = threading.Timer(kill_after_s, process.send_signal, [signal.SIGKILL])
        timer.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):  # a killed process may leave half a line
            run.events.append(json.loads(line))
    _, status, usage = os.wait4(process.pid, 0)
    done.set()
    watcher.join()
    if kill_after_s is not None:
        timer.cancel()
    process.returncode = run.exit_code = os.waitstatus_to_exitcode(status)
    run.wall_s = time.monotonic() - started
    run.cpu_s = usage.ru_utime + usage.ru_stime
    run.max_rss_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return run


def _watch(number: int, run: Run, done: threading.Event) -> None:
    """Sample resident memory, split into the process's own and mapped files."""
    process = psutil.Process(number)
    while not done.wait(_SAMPLE_S):
        try:
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
            counters = process.io_counters()
        except (OSError, psutil.Error):
            return
        run.written_bytes = max(run.written_bytes, counters.write_bytes)
        run.read_bytes = max(run.read_bytes, counters.read_bytes)
        for name in ("VmRSS", "RssAnon", "RssFile"):
            for line in lines:
                if line.startswith(name + ":"):
                    size = int(line.split()[1]) * 1024
                    run.peak[name] = max(run.peak.get(name, 0), size)


def hash_folder(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file."""
    hashes = {}
    for file in sorted(folder.iterdir()):
        digest = hashlib.sha256()
        with file.open("rb", buffering=0) as stream:
            while data := stream.read(8 * 1024**2):
                digest.update(data)
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        hashes[file.name] = digest.hexdigest()
    return hashes


def kill_test(
    command: list[str],
    result: Path,
    reference: dict[str, str],
    kills: int,
    seed: int,
    wall_s: float,
) -> dict[str, Any]:
    """Kill `kills` runs at random times, then finish, and compare every file.

    A kill comes between the start of a process and a few seconds later, so that some hit the start
    or the resume, and most hit the work.
    """
    chance = random.Random(seed)
    longest = max(2.4 * wall_s / kills, 8.0)
    times_s: list[float] = []
    shares: list[float | None] = []
    finished, equal = 0, True
    while len(times_s) < kills:
        time_s = chance.uniform(0.2, longest)
        run = measure(command, kill_after_s=time_s)
        if run.exit_code == -signal.SIGKILL:
            times_s.append(round(time_s, 2))
            done = [e["share"] for e in run.events if e["event"] == "progress"]
            shares.append(done[-1] if done else None)
            print(f"kill {len(times_s)} after {time_s:.1f} s, share {shares[-1]}", flush=True)
            continue
        assert run.exit_code == 0, run.events
        finished += 1
        equal &= hash_folder(result) == reference
        print(f"finished between kills, equal so far: {equal}", flush=True)
        shutil.rmtree(result)
    last = measure(command)
    assert last.exit_code == 0, last.events
    equal &= hash_folder(result) == reference
    leftovers = sorted(p.name for p in result.parent.glob(result.name + ".*"))
    return {
        "seed": seed,
        "kills": len(times_s),
        "killed_after_s": times_s,
        "share_at_kill": shares,
        "finished_folders": finished + 1,
        "bit_identical": equal,
        "left_behind": leftovers,
    }


def machine() -> str:
    """Return processor, cores and memory in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        name = names[0] if names else name
    memory = psutil.virtual_memory().total / GIB
    return f"{psutil.cpu_count()} cores of {name}, {memory:.0f} GiB of memory, {platform.system()}"


def merge_earlier(content: dict[str, Any]) -> dict[str, Any]:
    """Return content with the runs and the kill test of earlier calls with the same result."""
    if not RESULTS.exists():
        return content
    earlier = json.loads(RESULTS.read_text())
    if earlier["sha256"] != content["sha256"]:
        return content
    kills = content["kill_test"] or earlier["kill_test"]
    return content | {"runs": earlier["runs"] + content["runs"], "kill_test": kills}


def write_report(content: dict[str, Any]) -> None:
    """Write the JSON file and the page."""
    for file in (RESULTS, PAGE):
        file.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    plan, kills = content["plan"], content["kill_test"]
    runs = [
        f"| {r['wall_s']:.0f} s | {r['cpu_s']:.0f} s | "
        f"{plan['source_bytes'] / r['wall_s'] / 1e6:.0f} MB/s | {_gib(r['max_rss_bytes'])} | "
        f"{_gib(r['peak'].get('RssAnon', 0))} | {r['written_bytes']:,} | {r['verify_s']:.0f} s | "
        f"{r['load']} |"
        for r in content["runs"]
    ]
    parts = [
        f"| {p['part']} | {p['source_bytes']:,} | {p['result_bytes']:,} | "
        f"{p['bits_per_weight']:.3f} |"
        for p in plan["parts"]
    ]
    text = [
        "# quantize at full size",
        "",
        "Measured on a full-size synthetic checkpoint: the names, shapes and bytes of the released "
        "model with random weights (`benchmarks/synthetic_19b.py`). Written by "
        "`benchmarks/quantize_full_size.py`.",
        "",
        f"Source: {plan['source_bytes']:,} bytes in 1221 tensors. Result: "
        f"{plan['result_bytes']:,} bytes in {content['shards']} files.",
        "",
        f"Machine: {content['machine']}. {content['remark']}".rstrip(),
        "",
        "| wall time | CPU time | source per second | peak memory | of that not mapped files | "
        "bytes written | `verify` | load before, after |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *runs,
        "",
        "Peak memory is the kernel's high-water mark of the whole process; the part that is not "
        "mapped files was sampled every 50 ms. All runs gave the same bytes.",
        "",
        *(_kill_lines(kills) if kills else []),
        "| part | bytes before | bytes after | bits per weight |",
        "| --- | --- | --- | --- |",
        *parts,
        "",
    ]
    PAGE.write_text("\n".join(text))


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"


def _kill_lines(kills: dict[str, Any]) -> list[str]:
    """Return the lines about the kill test."""
    shares = [s for s in kills["share_at_kill"] if s is not None]
    verdict = "bit-identical to the undisturbed one" if kills["bit_identical"] else "DIFFERENT"
    early = kills["kills"] - len(shares)
    return [
        f"Killed with SIGKILL {kills['kills']} times at random times (seed {kills['seed']}): "
        f"{early} times before the first sign of progress, otherwise between {min(shares):.0%} "
        f"and {max(shares):.1%} of the work. The {kills['finished_folders']} folders that were "
        f"finished in this way are {verdict}, every file of them.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--remark", default="", help="a sentence about the machine for the page")
    options = parser.parse_args()
    source, result = options.source.resolve(), options.result.resolve()
    command = [sys.executable, "-m", "quantize", str(source), str(result), "--json"]
    before = os.getloadavg()[0]
    run = measure(command)
    assert run.exit_code == 0, run.events
    after = os.getloadavg()[0]
    print(f"converted in {run.wall_s:.0f} s, {run.max_rss_bytes / GIB:.2f} GiB", flush=True)
    program = "import sys; from quantize.command import verify_main; sys.exit(verify_main(None))"
    verified = measure([sys.executable, "-c", program, str(result), "--json"])
    assert verified.exit_code == 0, verified.events
    reference = hash_folder(result)
    numbers = {k: v for k, v in asdict(run).items() if k != "events"}
    numbers |= {"verify_s": round(verified.wall_s, 1), "load": f"{before:.1f}, {after:.1f}"}
    content: dict[str, Any] = {
        "what": "full-size synthetic checkpoint",
        "machine": machine(),
        "remark": options.remark,
        "shards": sum(name.endswith(".safetensors") for name in reference),
        "plan": {k: v for k, v in run.events[0].items() if k not in ("source", "destination")},
        "runs": [numbers],
        "sha256": reference,
        "kill_test": None,
    }
    content = merge_earlier(content)
    write_report(content)
    if options.kills:
        shutil.rmtree(result)
        content["kill_test"] = kill_test(
            command, result, reference, options.kills, options.seed, run.wall_s
        )
        write_report(content)
        print(json.dumps(content["kill_test"]), flush=True)
    shutil.rmtree(result)


if __name__ == "__main__":
    main()
