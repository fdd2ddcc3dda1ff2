"""Decode, prefill and encode beside llama.cpp, ik_llama.cpp and OpenVINO, in turn on the same core.

    python -m benchmarks.beside_peers [--mainline BUILD ...] [--ik BUILD ...] [--openvino PYTHON]
        [--level LEVEL ...] [--peer NAME ...] [--phase PHASE ...] [--threads N] [--repeats N]

None of them runs CogVLM2. They run a Llama with the language path's shapes, and mainline llama.cpp
also CogVLM's vision tower with CogVLM2's shapes, all in random weights. Ours are random NF4
weights. Everything runs with two numbers of layers (decode and prefill 1 and 3, encode 1 and 2);
the difference, divided, is the time of a layer without the rest of the model. Both take turns, in
CPU time; a ratio is the median of the pairs. Ours is limited to a level of instructions by
environment variables, a peer by the options of its build. Products of the peers take inputs of
8 bits, except OpenVINO's in bfloat16 and where that is turned off, and those of towers in F16; ours
take 13 bits or bfloat16.

phases  decode   one token after 8
        rows     one token of each of 8 conversations after 8
        prefill  512 tokens
        encode   a picture of 1,344 x 1,344 (9,217 tokens), mainline only

Mainline llama.cpp: its source is in the source package of llama-cpp-python (`pip download
--no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36`), in vendor/llama.cpp. Each level
is a build folder; only the first needs more than the library for the CPU:

    cmake -S llama.cpp -B mainline-avx2 -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF
        -DGGML_BACKEND_DL=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON
        (mainline-avx512: also -DGGML_AVX512=ON, and the same with _VBMI, _VNNI and _BF16;
        mainline-amx: also -DGGML_AMX_TILE=ON, _INT8 and _BF16; with GCC 12 also
        -DCMAKE_CXX_FLAGS="-fno-dse -fno-tree-dse", else it crashes at the first token)
    ninja -C mainline-avx2 bin/libmtmd.so bin/libggml-cpu.so
    ninja -C mainline-avx512 bin/libggml-cpu.so

ik_llama.cpp: a CMake build folder with its libraries, as its own page describes; for AVX2 with
GGML_NATIVE off, for AVX512 with GGML_NATIVE on a processor that has it. The script compiles its own
small program, peers/llama_layers.cpp, against the libraries of the folders.

OpenVINO: `pip install openvino-genai` in a virtual environment, and the Python of that.

Each run adds its figures to benchmarks/results/peers.json, or replaces those of the same level,
peer, phase and number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.peers.gguf import write_decoder, write_tower  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "peers.json"
PROGRAM = ROOT / "benchmarks" / "peers" / "llama_layers.cpp"
LAYERS, TOWER_LAYERS = (1, 3), (1, 2)
PHASES = ("decode", "rows", "prefill", "encode")

LEVELS: Mapping[str, Mapping[str, str]] = {
    "avx2": {
        "COGVLM2_LITE_CPU_LEVEL": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "avx512": {"COGVLM2_LITE_CPU_LEVEL": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "amx": {},
}
"""The environment that limits ours; from the lowest level."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program beside ours, at one level of instructions.

    name     such as "mainline Q4_K_M"
    version  its commit, or its version
    command  the program that answers; its models are in a folder that is made first
    """

    name: str
    version: str
    level: str
    phases: Sequence[str]
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Answers:
    """A process that answers lines like "decode 3 1" with seconds of the CPU and of the clock."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self.greeting = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended with {self._process.wait()}")
        return line.strip()

    def ask(self, phase: str, layers: int, threads: int) -> tuple[float, float]:
        """Return the seconds of the CPU and of the clock."""
        assert self._process.stdin is not None
        print(phase, layers, threads, file=self._process.stdin, flush=True)
        cpu, wall = map(float, self._line().split())
        return cpu, wall

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# --- the peers ------------------------------------------------------------------------------------


def mainline(folders: Sequence[Path], work: Path) -> Iterator[Peer]:
    """Compile our program against mainline's libraries; return a peer per build and kind."""
    if not folders:
        return
    source, libraries = _cache(folders[0])["CMAKE_HOME_DIRECTORY"], folders[0] / "bin"
    program = work / "mainline_layers"
    places = [f"{source}/include", f"{source}/ggml/include", f"{source}/tools/mtmd"]
    _compile(program, places, libraries, ("mtmd", "llama", "ggml", "ggml-base"))
    for folder in folders:
        for kind in ("Q4_K_M", "Q4_0", "F16"):
            models = _models(work, kind)
            phases = PHASES if kind != "F16" else ("encode",)
            command = [str(program), str(folder / "bin" / "libggml-cpu.so"), "1", str(models)]
            yield Peer(
                name=f"mainline {kind}",
                version=_commit(Path(source), "."),
                level=_level(folder),
                phases=phases,
                command=command,
            )


def ik(folders: Sequence[Path], work: Path, version: str) -> Iterator[Peer]:
    """Compile our program against ik_llama.cpp's libraries; return a peer per build and kind."""
    if not folders:
        return
    source = _cache(folders[0])["CMAKE_HOME_DIRECTORY"]
    program = work / "ik_layers"
    places = [f"{source}/include", f"{source}/ggml/include"]
    found = [folders[0] / "src", folders[0] / "ggml" / "src"]
    _compile(program, places, found[0], ("llama", "ggml"), "-DIK_LLAMA", f"-L{found[1]}")
    for folder in folders:
        paths = ":".join(str(path) for path in (folder / "ggml" / "src", *found))
        for name, kind, reorder in (
            ("ik Q4_K_M", "Q4_K_M", "0"),
            ("ik Q4_K_M, reordered", "Q4_K_M", "1"),
            ("ik IQ4_KS", "IQ4_KS", "0"),
        ):
            yield Peer(
                name=name,
                version=version,
                level=_level(folder),
                phases=("decode", "rows", "prefill"),
                command=[str(program), "-", reorder, str(_models(work, kind))],
                environment={"LD_LIBRARY_PATH": paths},
            )


def openvino(python: str | None) -> Iterator[Peer]:
    """Return OpenVINO with all instructions of this processor: its code can't be limited."""
    if not python:
        return
    program = str(ROOT / "benchmarks" / "peers" / "openvino_layers.py")
    show = [python, "-c", "import openvino; print(openvino.__version__)"]
    version = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    for name, precision in (
        ("OpenVINO", "default"),
        ("OpenVINO float32", "f32"),
        ("OpenVINO float32, inputs too", "f32-inputs"),
    ):
        yield Peer(
            name=name,
            version=version,
            level="amx",
            phases=("decode", "rows", "prefill"),
            command=[python, program, precision, *map(str, LAYERS)],
        )


def _cache(folder: Path) -> dict[str, str]:
    """Return the variables of a CMake build folder."""
    text = (folder / "CMakeCache.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+):\w+=(.*)$", text, re.MULTILINE))


def _level(folder: Path) -> str:
    variables = _cache(folder)
    on = {name for name, value in variables.items() if value == "ON"}
    if "GGML_AMX_TILE" in on:
        return "amx"
    return "avx512" if on & {"GGML_AVX512", "GGML_NATIVE"} else "avx2"


def _compile(
    program: Path, include: Sequence[str], libraries: Path, names: Sequence[str], *more: str
) -> None:
    command = ["g++", "-std=c++17", "-O2", str(PROGRAM), "-o", str(program), *more]
    command += [f"-I{place}" for place in include] + [f"-L{libraries}"]
    command += [f"-l{name}" for name in names] + [f"-Wl,-rpath,{libraries}"]
    command += [f"-Wl,-rpath-link,{libraries}"]
    subprocess.run(command, check=True)


def _models(work: Path, kind: str) -> Path:
    """Return the folder with the models of a kind; write them if they are missing."""
    folder = work / kind
    if not folder.exists():
        folder.mkdir()
        for layers in LAYERS:
            write_decoder(folder / f"{layers}.gguf", layers, kind)
        if kind != "IQ4_KS":
            for layers in TOWER_LAYERS:
                write_tower(folder / f"tower{layers}.gguf", layers, kind)
    return folder


# --- measuring ------------------------------------------------------------------------------------


def compare(
    ours: Answers, theirs: Answers, phase: str, threads: int, repeats: int
) -> dict[str, Any]:
    """Return the median time of a layer of both, in milliseconds, and the median ratios."""
    few, many = TOWER_LAYERS if phase == "encode" else LAYERS
    pairs = []
    ours.ask(phase, few, threads)  # it loads weights and warms up
    if phase != "encode":  # theirs loads outside of the measured time, and takes minutes
        ours.ask(phase, many, threads)
        theirs.ask(phase, few, threads)
        theirs.ask(phase, many, threads)
    for _ in range(repeats):
        pair = []
        for each in (ours, theirs):
            small, large = (each.ask(phase, layers, threads) for layers in (few, many))
            pair.append([1000 * (b - a) / (many - few) for a, b in zip(small, large, strict=True)])
        pairs.append(pair)
    ratios = [other[0] / mine[0] for mine, other in pairs]
    return {
        "ours_ms": statistics.median(mine[0] for mine, _ in pairs),
        "theirs_ms": statistics.median(other[0] for _, other in pairs),
        "times_as_fast": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "clock_times_as_fast": statistics.median(other[1] / mine[1] for mine, other in pairs),
        "repeats": repeats,
    }


def main() -> int:
    """Measure what was asked for and add it to the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mainline", type=Path, nargs="+", default=[], help="build folders")
    parser.add_argument("--ik", type=Path, nargs="+", default=[], help="build folders")
    parser.add_argument("--ik-version", default="unknown", help="its commit, for the result")
    parser.add_argument("--openvino", help="a Python with openvino")
    parser.add_argument("--level", nargs="+", default=[*LEVELS], choices=[*LEVELS])
    parser.add_argument("--peer", nargs="+", help="only peers whose names begin with one of these")
    parser.add_argument("--phase", nargs="+", default=[*PHASES], choices=PHASES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder that keeps the models")
    options = parser.parse_args()
    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers = [
            *mainline(options.mainline, work),
            *ik(options.ik, work, options.ik_version),
            *openvino(options.openvino),
        ]
        for peer in peers:
            wanted = not options.peer or peer.name.startswith(tuple(options.peer))
            phases = [phase for phase in peer.phases if phase in options.phase]
            if wanted and phases and peer.level in options.level:
                measure(peer, phases, options.threads, options.repeats)
    return 0


def measure(peer: Peer, phases: Sequence[str], threads: int, repeats: int) -> None:
    """Measure the phases of a peer and add them to the result."""
    threaded = {"OMP_NUM_THREADS": str(threads)}
    limited = {"OMP_WAIT_POLICY": "PASSIVE", **threaded, **LEVELS[peer.level]}
    mine = [sys.executable, "-m", "benchmarks.peers.ours"]
    with (
        Answers(mine, limited) as ours,
        Answers(peer.command, {**threaded, **peer.environment}) as theirs,
    ):
        for phase in phases:
            load = os.getloadavg()[0]
            figure = compare(ours, theirs, phase, threads, repeats)
            figure |= {"level": peer.level, "peer": peer.name, "phase": phase, "threads": threads}
            figure |= {
                "version": peer.version,
                "commit": _commit(ROOT, "cogvlm2_lite"),
                "load": load,
            }
            figure |= {"kernel": ours.greeting.removeprefix("ready ")}
            keep(figure)
            print(
                f"{peer.level:7} {threads} {peer.name:24} {phase:8} theirs "
                f"{figure['theirs_ms']:9.2f} ours {figure['ours_ms']:9.2f} times "
                f"{figure['times_as_fast']:.2f} ({figure['lowest']:.2f} to "
                f"{figure['highest']:.2f})",
                flush=True,
            )


def keep(figure: dict[str, Any]) -> None:
    """Add a figure to the result, in place of the one of the same level, peer, phase, threads."""

    def key(one: dict[str, Any]) -> list[Any]:
        order = (*LEVELS,).index(one["level"]), PHASES.index(one["phase"])
        return [one["threads"], *order, one["peer"]]

    old = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"figures": []}
    figures = [one for one in old["figures"] if key(one) != key(figure)]
    report = {"machine": describe_machine(), "figures": sorted([*figures, figure], key=key)}
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _commit(folder: Path, part: str) -> str:
    """Return the last commit that changed a part of a repository."""
    command = ["git", "log", "-1", "--format=%h", "--abbrev=10", "--", part]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
