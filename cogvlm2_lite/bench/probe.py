"""Measures the best rates of a device: reading memory, and matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cogvlm2_lite.backends.registry import backend_of

_READ_BYTES = 256 << 20
_ROWS, _COLUMNS, _TOKENS = 14336, 4096, 2304
"""One matrix of the 19B model's MLP, and the tokens of one picture."""
_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class MachineLimits:
    """The best of several runs.

    read_bytes_per_s   memory: reading on the CPU (the largest of 2^25 numbers), copying on a GPU
                       (each byte counted twice, once read and once written)
    flops_per_s        a plain matrix product in the compute dtype, 2 operations per multiply-add
    upload_bytes_per_s from pinned host memory to a GPU; 0 on the CPU
    """

    read_bytes_per_s: float
    flops_per_s: float
    upload_bytes_per_s: float = 0.0


def probe(device: torch.device, dtype: torch.dtype) -> MachineLimits:
    """Measure a device; takes about two seconds and 0.5 GiB of its memory."""
    if backend_of(device).uses_ram:
        return MachineLimits(
            read_bytes_per_s=_read_rate(), flops_per_s=_multiply_rate(device, dtype)
        )
    return MachineLimits(
        read_bytes_per_s=_copy_rate(device),
        flops_per_s=_multiply_rate(device, dtype),
        upload_bytes_per_s=_upload_rate(device),
    )


def _read_rate() -> float:
    numbers = torch.ones(_READ_BYTES // 8, dtype=torch.int64)
    return numbers.nbytes / _best(lambda: numbers.amax(), numbers.device)


def _copy_rate(device: torch.device) -> float:
    source = torch.zeros(_READ_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def _upload_rate(device: torch.device) -> float:
    source = backend_of(device).staged(torch.zeros(_READ_BYTES, dtype=torch.uint8))
    target = torch.empty_like(source, device=device)
    return source.nbytes / _best(lambda: target.copy_(source, non_blocking=True), device)


def _multiply_rate(device: torch.device, dtype: torch.dtype) -> float:
    matrix = torch.full((_ROWS, _COLUMNS), 0.5, dtype=dtype, device=device)
    x = torch.full((_TOKENS, _COLUMNS), 0.5, dtype=dtype, device=device)
    out = torch.empty(_TOKENS, _ROWS, dtype=dtype, device=device)
    seconds = _best(lambda: torch.mm(x, matrix.t(), out=out), device)
    return 2 * _ROWS * _COLUMNS * _TOKENS / seconds


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Return the shortest of several times, in seconds, after one warm-up run.

    With one thread it is CPU time, which other programs hardly affect.
    """
    backend = backend_of(device)
    clock = (
        time.process_time
        if backend.uses_ram and torch.get_num_threads() == 1
        else time.perf_counter
    )
    times = []
    for _ in range(_REPEATS + 1):
        backend.synchronize(device)
        began = clock()
        work()
        backend.synchronize(device)
        times.append(clock() - began)
    return min(times[1:])
