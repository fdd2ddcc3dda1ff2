"""Chooses the kernels of a device: lists in order of preference, and the reason for `doctor`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.kernels.bitsandbytes_cpu import (
    BitsandbytesCpu,
    BitsandbytesDequantizer,
    open_bitsandbytes,
)
from cogvlm2_lite.weights.kernels.bitsandbytes_cuda import CudaDequantizer, CudaKernel
from cogvlm2_lite.weights.kernels.bitsandbytes_xpu import XpuDequantizer, XpuKernel
from cogvlm2_lite.weights.kernels.byte_products import ByteKernel
from cogvlm2_lite.weights.kernels.cuda.check import check_kernels
from cogvlm2_lite.weights.kernels.cuda.kernels import OwnDense, OwnFourBit, OwnInt8
from cogvlm2_lite.weights.kernels.cuda_self_test import rows_together
from cogvlm2_lite.weights.kernels.dense import TorchLinear
from cogvlm2_lite.weights.kernels.dense_rows import DenseRows
from cogvlm2_lite.weights.kernels.dequantize import ChunkBytes, QuantizedKernels, gpu_chunks
from cogvlm2_lite.weights.kernels.gemm_amx import GemmAmxKernel, open_gemm_amx
from cogvlm2_lite.weights.kernels.gemv import GemvDequantizer, GemvKernel, IntegerKernel
from cogvlm2_lite.weights.kernels.int8 import Int8Dequantizer
from cogvlm2_lite.weights.kernels.interface import Dequantizer, Dequantizers, Kernel, KernelList
from cogvlm2_lite.weights.kernels.library import AVX512, AVX512_VNNI, AVX_VNNI, open_library
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.nf4 import dequantize_reference, quantize_nf4
from cogvlm2_lite.weights.kernels.packed import PackedKernel
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.kernels.torch_dequantizer import TorchDequantizer

_WORKS = "bitsandbytes works on this GPU"
GPU_KERNELS = "COGVLM2_LITE_GPU_KERNELS"

_PROBE_ROWS, _PROBE_COLUMNS, _GROUP = 32, 128, 64


@dataclass(frozen=True, kw_only=True)
class KernelChoice:
    """The kernels that multiply on a device, one list for each storage kind.

    name    "gemv"          our C kernel on the stored matrix; for many rows another one of ours if
                            the CPU has AMX
            "packed"        few rows: bitsandbytes' AVX512-BF16 kernel on a second, packed copy;
                            many rows: as "bitsandbytes"
            "bitsandbytes"  bitsandbytes' dequantizing into reused buffers, and torch's
                            multiplication
            "torch"         the same with torch's dequantizing
            "cuda"          bitsandbytes' kernels for NVIDIA's and AMD's GPUs
            "xpu"           bitsandbytes' kernels for Intel's GPUs
    reason  why they were chosen, for `doctor`
    pack    creates the kernel with a packed copy of a matrix used in decoding; None: no copies
    """

    name: str
    reason: str
    four_bit: QuantizedKernels[FourBitMatrix]
    int8: QuantizedKernels[Int8Matrix]
    dense: KernelList[Tensor]
    pack: Callable[[FourBitMatrix], PackedKernel] | None = None

    @property
    def packs(self) -> bool:
        """True if matrices used in decoding get a second, packed copy."""
        return self.pack is not None

    @property
    def multiplies_bytes(self) -> bool:
        """True if quantized matrices can be multiplied by inputs of 8 bits (Linear.input_bits)."""
        return self.four_bit.in_bytes is not None


def choose_kernels(device: torch.device, dtype: torch.dtype, name: str = "auto") -> KernelChoice:
    """Return the fastest kernels that work here, or the named ones.

    dtype  the compute dtype: float32, bfloat16 or float16
    name   "auto" or one of KernelChoice.name; on a GPU the environment variable GPU_KERNELS names
           them instead of "auto"

    Raises UsageError if the named ones do not work here.
    """
    backend = backend_of(device)
    if name == "auto" and not backend.uses_ram:
        asked = os.environ.get(GPU_KERNELS) or name
        # An answer that float16 can't hold is computed in float32, which our kernels do not take.
        name = name if asked == "own" and dtype == torch.float32 else asked
    if name not in KERNELS:
        raise UsageError(
            "Unknown kernel {name!r}.",
            hint="Use one of {names}.",
            name=name,
            names=", ".join(KERNELS),
        )
    failures: list[str] = []
    candidates = (*backend.four_bit_kernels, *backend.asked_kernels)
    for candidate in backend.four_bit_kernels if name == "auto" else candidates:
        if name not in ("auto", candidate):
            continue
        try:
            found = _CANDIDATES[candidate](device, dtype)
        except OSError as error:
            if str(error) not in failures:
                failures.insert(0, str(error))
            continue
        reasons = [found.reason] if found.reason else []
        reasons += failures or ([] if name == "auto" or reasons else [f"{name} was asked for"])
        return replace(found, reason="; ".join(reasons))
    why = failures[0] if failures else f"they do not run on {device.type}"
    raise UsageError("The {name} kernels don't work here: {why}.", name=name, why=why)


def uses_own_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether our CUDA kernels were asked for; `choose_kernels` checks that they work."""
    asked = os.environ.get(GPU_KERNELS) == "own" and dtype != torch.float32
    return asked and "own" in backend_of(device).asked_kernels


# --- the candidates: each raises OSError with the reason if it is not usable ----------------------


def _open_gemv(device: torch.device, dtype: torch.dtype) -> KernelChoice:
    """Return our C kernels, with the one for many rows if the CPU has AMX."""
    bitsandbytes = _open_dequantizing_bitsandbytes()
    library = open_library()
    integer, dequantizer = IntegerKernel(library), GemvDequantizer(library)
    kernels: list[Kernel[FourBitMatrix]] = [integer]
    right = _integer_is_right(integer) and _dequantizer_is_right(dequantizer, dtype)
    if library.level >= AVX512 and dtype != torch.bfloat16:
        kernels = [GemvKernel(library)]
        right = right and _multiplies_right(kernels[0], dtype)
    if not right:
        raise OSError("our C kernel gives other numbers than it should")
    reason = f"our C kernel was built, and the CPU has {_instructions(library.level, dtype)}"
    if library.level < AVX512:
        reason += ", which multiplies integers faster than float32"
    amx = None
    if dtype == torch.bfloat16:
        amx = open_gemm_amx(library, bitsandbytes.expand_scales)
    if amx is not None:
        reason += " and AMX"
        if _gemm_amx_is_right(amx):
            kernels.append(amx)
        else:
            reason += ", whose kernel gives other numbers than it should"
    found = _choice(
        "gemv",
        reason,
        kernels,
        [dequantizer, *_dequantizers(bitsandbytes)],
        dense=[DenseRows(library)],
    )
    found = replace(found, int8=found.int8.preferring(integer))
    in_bytes = ByteKernel(library)
    if not _bytes_are_right(in_bytes):
        return found
    return replace(
        found,
        four_bit=found.four_bit.with_bytes(in_bytes),
        int8=found.int8.with_bytes(in_bytes),
    )


def _instructions(level: int, dtype: torch.dtype) -> str:
    """Return the names of the instructions that our C kernels use, for `doctor`."""
    if level >= AVX512 and dtype == torch.bfloat16:
        return "AVX512-BF16"
    if level >= AVX512:
        return "AVX2"
    return {AVX_VNNI: "AVX-VNNI", AVX512_VNNI: "AVX512-VNNI"}.get(level, "AVX2")


def _open_packed(device: torch.device, dtype: torch.dtype) -> KernelChoice:
    """Return bitsandbytes' kernel for few rows, which needs packed copies."""
    bitsandbytes = _open_dequantizing_bitsandbytes()
    if not bitsandbytes.has_packed:
        raise OSError("the CPU has no AVX512-BF16")
    if dtype != torch.bfloat16:
        raise OSError(
            f"AVX512-BF16 computes in bfloat16, and this is {str(dtype).removeprefix('torch.')}"
        )
    if not _packed_is_right(bitsandbytes):
        raise OSError("bitsandbytes' AVX512-BF16 kernel gives other numbers than it should")
    found = _choice("packed", "the CPU has AVX512-BF16", [], _dequantizers(bitsandbytes))
    return replace(found, pack=partial(PackedKernel, bitsandbytes))


def _open_bitsandbytes(device: torch.device, dtype: torch.dtype) -> KernelChoice:
    return _choice("bitsandbytes", "", [], _dequantizers(_open_dequantizing_bitsandbytes()))


def _open_cuda(device: torch.device, dtype: torch.dtype) -> KernelChoice:
    together = _check_bitsandbytes(device, dtype)
    kernel = CudaKernel(device, together=together)
    shared = f"{together} answers read a matrix" if together > 1 else "each answer reads a matrix"
    reason = f"{_WORKS}; {shared} once"
    return _choice("cuda", reason, [kernel], [CudaDequantizer()], chunks=_chunks(device))


def _open_own(device: torch.device, dtype: torch.dtype) -> KernelChoice:
    check_kernels(device, dtype)
    try:
        others = _open_cuda(device, dtype)
    except OSError:
        others = _open_torch(device, dtype)
    return KernelChoice(
        name="own",
        reason="our CUDA kernels gave the right numbers on this GPU",
        four_bit=others.four_bit.preferring(OwnFourBit()),
        int8=others.int8.preferring(OwnInt8()),
        dense=KernelList(OwnDense(), *others.dense.kernels),
    )


def _open_xpu(device: torch.device, dtype: torch.dtype) -> KernelChoice:
    _check_bitsandbytes(device, dtype)
    kernel = XpuKernel(device)
    return _choice("xpu", _WORKS, [kernel], [XpuDequantizer()], chunks=_chunks(device))


def _check_bitsandbytes(device: torch.device, dtype: torch.dtype) -> int:
    """Return the most rows of a product in which each row has the same bits as alone."""
    # Silenced: on CPUs with AVX512-BF16 the import warns to install a package that downloads code.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401  (registers its operators with torch)

        right = _bitsandbytes_dequantizes_right(device)
        together = rows_together(device, dtype)
    except (ImportError, RuntimeError) as error:  # a build without this GPU's CUDA version raises
        first_line = str(error).strip().partition("\n")[0]
        raise OSError(f"bitsandbytes does not work here: {first_line}") from error
    if not right or not together:
        raise OSError("bitsandbytes' kernels for this GPU give other numbers than they should")
    return together


def _open_torch(device: torch.device, dtype: torch.dtype) -> KernelChoice:
    return _choice("torch", "", [], [TorchDequantizer()], chunks=_chunks(device))


def _chunks(device: torch.device) -> ChunkBytes:
    backend = backend_of(device)
    return ChunkBytes() if backend.uses_ram else gpu_chunks(backend.cache_bytes(device))


Open = Callable[[torch.device, torch.dtype], KernelChoice]

_CANDIDATES: Mapping[str, Open] = MappingProxyType(
    {
        "gemv": _open_gemv,
        "packed": _open_packed,
        "bitsandbytes": _open_bitsandbytes,
        "torch": _open_torch,
        "cuda": _open_cuda,
        "own": _open_own,
        "xpu": _open_xpu,
    }
)
"""By name; a backend's `four_bit_kernels` has the names in order of preference, and its
`asked_kernels` those that are used only if asked for."""

KERNELS = ("auto", *_CANDIDATES)


def _choice(
    name: str,
    reason: str,
    four_bit: Sequence[Kernel[FourBitMatrix]],
    dequantizers: Sequence[Dequantizer[FourBitMatrix]],
    *,
    dense: Sequence[Kernel[Tensor]] = (),
    chunks: ChunkBytes = ChunkBytes(),  # noqa: B008 - immutable
) -> KernelChoice:
    return KernelChoice(
        name=name,
        reason=reason,
        four_bit=QuantizedKernels(
            *four_bit, dequantizers=Dequantizers(*dequantizers), chunk_bytes=chunks
        ),
        int8=QuantizedKernels(dequantizers=Dequantizers(Int8Dequantizer()), chunk_bytes=chunks),
        dense=KernelList(*dense, TorchLinear()),
    )


def _open_dequantizing_bitsandbytes() -> BitsandbytesCpu:
    library = open_bitsandbytes()
    if not _dequantizes_right(library):
        raise OSError("bitsandbytes' CPU library gives other numbers than it should")
    return library


def _dequantizers(library: BitsandbytesCpu) -> list[Dequantizer[FourBitMatrix]]:
    return [BitsandbytesDequantizer(library), TorchDequantizer(library.expand_scales)]


# --- self-tests: another version of a library may have other arguments ----------------------------


def _probe() -> FourBitMatrix:
    """Return a small matrix with all codes and many different scales."""
    count = _PROBE_ROWS * _PROBE_COLUMNS
    # No random numbers and no sine: torch's sine may differ from call to call (model/rotary.py).
    weight = (torch.arange(count) * 1201 % 4093 / 2046.5 - 1).view(_PROBE_ROWS, -1)
    weight *= torch.linspace(0.01, 2.0, _PROBE_ROWS).view(-1, 1)
    return quantize_nf4(weight, group=_GROUP, double_quant=False)


def _reference() -> Tensor:
    probe, out = _probe(), torch.empty(_PROBE_ROWS, _PROBE_COLUMNS)
    return dequantize_reference(
        probe.codes, probe.absmax, levels=probe.levels, group=_GROUP, out=out
    )


def _inputs(dtype: torch.dtype) -> Tensor:
    """Return the identity matrix, whose products are the columns of the matrix."""
    return torch.eye(_PROBE_COLUMNS, dtype=dtype)


def _scratch() -> Scratch:
    return Scratch(torch.device("cpu"))


def _multiplies_right(kernel: Kernel[FourBitMatrix], dtype: torch.dtype) -> bool:
    out = kernel.multiply(_inputs(dtype), _probe(), None, _scratch())
    return torch.allclose(out.float().t(), _reference(), rtol=0.01, atol=0.0)


def _dequantizer_is_right(dequantizer: GemvDequantizer, dtype: torch.dtype) -> bool:
    if not dequantizer.takes(columns=_PROBE_COLUMNS, group=_GROUP, dtype=dtype):
        return True
    out = torch.empty(_PROBE_ROWS, _PROBE_COLUMNS, dtype=dtype)
    dequantizer.dequantize(_probe(), 0, out)
    return torch.equal(out, _reference().to(dtype))


def _integer_is_right(kernel: IntegerKernel) -> bool:
    """Multiply all rows at once and one alone: a version may have other functions for few rows."""
    matrix, inputs = _probe(), _inputs(torch.float32)
    out = kernel.multiply(inputs, matrix, None, _scratch())
    alone = kernel.multiply(inputs[:1], matrix, None, _scratch())
    right = torch.allclose(out.t(), _reference(), rtol=0.01, atol=0.0)
    return right and torch.equal(out[:1], alone)


def _bytes_are_right(kernel: ByteKernel) -> bool:
    """The inputs are exact, and an error of a weight is at most half a step of its row."""
    out = kernel.multiply(_inputs(torch.float32), _probe(), None, _scratch())
    exact = _reference()
    most = exact.abs().amax(dim=1, keepdim=True) / 127 * 0.51
    return bool(((out.t() - exact).abs() <= most).all())


def _gemm_amx_is_right(kernel: GemmAmxKernel) -> bool:
    out = kernel.multiply(_inputs(torch.bfloat16), _probe(), None, _scratch())
    return torch.equal(out.t(), _reference().to(torch.bfloat16))


def _packed_is_right(library: BitsandbytesCpu) -> bool:
    matrix = _probe()
    kernel = PackedKernel(library, matrix)
    out = kernel.multiply(_inputs(torch.bfloat16), matrix, None, _scratch())
    return torch.allclose(out.float().t(), _reference(), rtol=0.02, atol=0.0)


def _dequantizes_right(library: BitsandbytesCpu) -> bool:
    probe, out = _probe(), torch.empty(_PROBE_ROWS, _PROBE_COLUMNS)
    library.dequantize(probe.codes, probe.absmax, out, quant_type="nf4", group=_GROUP)
    return torch.equal(out, _reference())


def _bitsandbytes_dequantizes_right(device: torch.device) -> bool:
    probe = _probe()
    out: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
        probe.codes.to(device), probe.absmax.to(device), _GROUP, "nf4",
        [_PROBE_ROWS, _PROBE_COLUMNS], torch.float32,
    )  # fmt: skip
    return torch.equal(out.cpu(), _reference())
