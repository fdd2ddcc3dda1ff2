"""Loads compiled kernels into a GPU and launches them on torch's current stream, through ctypes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

import torch

from cogvlm2_lite.weights.kernels.cuda.compiler import Nvrtc
from cogvlm2_lite.weights.kernels.cuda.sources import FILES, KERNELS

Launch = Callable[[str, ctypes.Structure, tuple[int, int]], None]
"""Queues a kernel: its name, its arguments, and the numbers of blocks."""


class DriverError(RuntimeError):
    """A call of the CUDA driver failed."""


class Driver:
    """All kernels for one device and one type of 16 bits.

    Raises OSError if NVRTC or the driver's library is missing, DriverError if loading fails.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        major, minor = torch.cuda.get_device_capability(device)
        compiler = Nvrtc()
        self._modules: dict[str, ctypes.c_void_p] = {}
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # torch's context is the current one now
            for file in FILES:
                cubin = compiler.compile(
                    file, architecture=10 * major + minor, bf16=dtype == torch.bfloat16
                ).cubin
                module = ctypes.c_void_p()
                self._check("cuModuleLoadData", ctypes.byref(module), cubin)
                self._modules[file] = module
        self._functions = {name: self._function(name) for name in KERNELS}

    def _function(self, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        module = self._modules[KERNELS[name].file]
        self._check("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def launch(self, name: str, arguments: ctypes.Structure, grid: tuple[int, int]) -> None:
        """Queue a kernel on the current stream. Nothing waits, so a graph may capture it."""
        kernel = KERNELS[name]
        assert isinstance(arguments, kernel.arguments)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        with torch.cuda.device(self._device):
            torch.cuda.set_device(self._device)  # a new thread may have no context yet
            stream = torch.cuda.current_stream().cuda_stream
            self._check(
                "cuLaunchKernel", self._functions[name], *grid, 1, kernel.threads, 1, 1,
                kernel.shared_bytes, ctypes.c_void_p(stream), parameters, None,
            )  # fmt: skip

    def _check(self, name: str, *arguments: object) -> None:
        error = getattr(self._cuda, name)(*arguments)
        if error:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(error, ctypes.byref(text))
            raise DriverError(f"{name} failed: {(text.value or b'unknown error').decode()}")


@cache
def launcher(device: torch.device, dtype: torch.dtype) -> Launch:
    """Return the function that launches kernels on a GPU; the first call compiles them.

    Raises what Driver raises.
    """
    return Driver(device, dtype).launch
