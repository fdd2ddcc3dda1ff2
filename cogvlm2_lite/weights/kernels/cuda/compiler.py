"""Compiles our CUDA kernels with NVRTC, NVIDIA's compiler library, which comes with torch.

It is reached through ctypes, on Linux and Windows. It needs no headers, no other compiler and no
GPU.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.weights.kernels.cuda.sources import source


class CompileError(OSError):
    """NVRTC is missing or refused a kernel; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """Machine code of one file for one GPU architecture.

    cubin  an ELF file that the driver loads
    log    what the compiler said; registers and spilled bytes if it was asked for them
    """

    cubin: bytes
    log: str


def find_nvrtc() -> Path | None:
    """Return the newest NVRTC that torch or the system has, or None."""
    found: list[Path] = []
    for package, pattern in (
        ("nvidia", "*/lib/libnvrtc.so.*"),
        ("nvidia", "*/bin/**/nvrtc64_*_0.dll"),
        ("torch", "lib/libnvrtc*.so*"),
        ("torch", "lib/nvrtc64_*_0.dll"),
    ):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            found += [file for file in Path(place).glob(pattern) if "builtins" not in file.name]
    if found:
        return max(found, key=lambda file: (file.name, str(file)))
    name = ctypes.util.find_library("nvrtc")
    return Path(name) if name else None


class Nvrtc:
    """NVRTC, loaded. Raises CompileError if it can't be.

    file  None: the one that `find_nvrtc` returns
    """

    def __init__(self, file: Path | None = None) -> None:
        file = file or find_nvrtc()
        if file is None:
            raise CompileError("NVRTC is not installed; it comes with torch's CUDA wheel")
        if sys.platform == "win32" and file.parent.is_dir():
            os.add_dll_directory(str(file.parent))
        try:
            self._library = ctypes.CDLL(str(file))
        except OSError as error:
            raise CompileError(f"NVRTC can't be loaded: {error}") from error

    def compile(
        self, file: str, *, architecture: int, bf16: bool, report: bool = False
    ) -> Compiled:
        """Compile one of sources.FILES. Raises CompileError with the compiler's first line.

        architecture  10 * major + minor of the compute capability: 89
        bf16          numbers of 16 bits are bfloat16, otherwise float16
        report        the log has the registers and spilled bytes of each kernel
        """
        options = [f"--gpu-architecture=sm_{architecture}", "--std=c++17", f"-DBF16={int(bf16)}"]
        options += ["--ptxas-options=-v"] if report else []
        program = ctypes.c_void_p()
        text = source(file).encode()
        self._check(
            "nvrtcCreateProgram", ctypes.byref(program), text, f"{file}.cu".encode(), 0, None, None
        )
        try:
            encoded = [option.encode() for option in options]
            failed = self._library.nvrtcCompileProgram(
                program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded)
            )
            log = self._bytes("nvrtcGetProgramLog", program).decode(errors="replace").strip("\0\n ")
            if failed:
                raise CompileError(f"NVRTC refused {file}.cu: {log.partition(chr(10))[0]}")
            return Compiled(cubin=self._bytes("nvrtcGetCUBIN", program), log=log)
        finally:
            self._check("nvrtcDestroyProgram", ctypes.byref(program))

    def _bytes(self, name: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(f"{name}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(name, program, buffer)
        return buffer.raw

    def _check(self, name: str, *arguments: object) -> None:
        error = getattr(self._library, name)(*arguments)
        if error:
            raise CompileError(f"{name} failed with NVRTC's error {error}")
