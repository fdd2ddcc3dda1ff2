"""Compiles our CUDA kernels for the CPU and runs them there; see emulation.h."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from cogvlm2_lite.weights.kernels.cuda import sources
from cogvlm2_lite.weights.kernels.cuda.driver import Launch
from cogvlm2_lite.weights.kernels.cuda.operators import register
from cogvlm2_lite.weights.kernels.cuda.sources import FILES, KERNELS

COMPILER = shutil.which("g++") or shutil.which("c++")
_EMULATION = Path(__file__).parent / "emulation.h"


def compiled(
    folder: Path, dtype: torch.dtype, files: Sequence[str] = FILES
) -> Mapping[str, ctypes.CDLL]:
    """Compile files into a folder; return the libraries by file."""
    return {file: _compiled(folder, dtype, file) for file in files}


def _compiled(folder: Path, dtype: torch.dtype, file: str) -> ctypes.CDLL:
    text = sources.source(file, primitives=_EMULATION.read_text(encoding="utf-8"))
    text += "".join(
        f"EMULATED_KERNEL({name}, {kernel.arguments.__name__})\n"
        for name, kernel in KERNELS.items()
        if kernel.file == file
    )
    code = folder / f"{file}.cpp"
    code.write_text(text, encoding="utf-8")
    library = code.with_suffix(".so")
    assert COMPILER is not None
    command = [
        COMPILER, "-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Werror",
        "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE", f"-DBF16={int(dtype == torch.bfloat16)}",
        "-o", str(library), str(code),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def launch(
    libraries: Mapping[str, ctypes.CDLL],
    name: str,
    arguments: ctypes.Structure,
    grid: tuple[int, int],
    *,
    seed: int = 0,
) -> None:
    """Run a kernel. Raises AssertionError if its threads wait for each other wrongly."""
    kernel = KERNELS[name]
    assert isinstance(arguments, kernel.arguments)
    run = getattr(libraries[kernel.file], f"run_{name}")
    run.restype = ctypes.c_char_p
    fault = run(ctypes.byref(arguments), *grid, kernel.threads, kernel.shared_bytes, seed)
    assert fault is None, f"{name}: {fault.decode()}"


@contextmanager
def on_cpu(libraries: Mapping[str, ctypes.CDLL]) -> Iterator[None]:
    """Let torch's operator run the compiled kernels, also on an emulated GPU's numbers."""

    def launcher(device: torch.device, dtype: torch.dtype) -> Launch:
        return lambda name, arguments, grid: launch(libraries, name, arguments, grid)

    library = torch.library.Library("cogvlm2_lite", "IMPL")
    register(launcher, "CPU", library)
    try:
        yield
    finally:
        library._destroy()
