"""Which code multiplies 4-bit matrices on a device, decided once, with the reason for `doctor`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.kernels.gemm_amx import TileKernels, open_tiles
from cogvlm2_lite.weights.kernels.gemv import RowKernels, StoredMatrix, open_rows
from cogvlm2_lite.weights.kernels.native import NativeKernels, open_native
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dequantize_reference, quantize_rows
from cogvlm2_lite.weights.kernels.packed import pack, pack_scales
from cogvlm2_lite.weights.kernels.scratch import Scratch

KERNELS = ("auto", "rows", "packed", "native", "plain", "cuda")

PACKED_MAX_ROWS = 48
"""Up to this many rows the packed kernel is faster than dequantizing and multiplying; measured,
they meet at 64 rows."""


@dataclass(frozen=True, kw_only=True)
class KernelChoice:
    """How 4-bit matrices are multiplied.

    name    "rows"    few rows: our C kernel on the matrix as it is stored; many: another one with
                      AMX, else it makes the matrix plain, in float16 as "native"
            "packed"  few rows: bitsandbytes' AVX512-BF16 kernel on a packed copy; else as "native"
            "native"  bitsandbytes' dequantization into reused buffers, then torch's multiplication
            "plain"   the same in plain torch
            "cuda"    bitsandbytes' CUDA kernels
    reason  why, for `doctor`
    """

    name: str
    reason: str
    native: NativeKernels | None = None
    rows: RowKernels | None = None
    tiles: TileKernels | None = None
    packed_max_rows: int = 0

    @property
    def packs(self) -> bool:
        """True when parts used in decoding get a second, packed copy."""
        return self.packed_max_rows > 0


def choose_kernels(device: torch.device, dtype: torch.dtype, name: str = "auto") -> KernelChoice:
    """Pick the fastest kernels that work here, or the named ones.

    dtype  the compute dtype: float32, bfloat16 or float16
    name   one of KERNELS
    Raises UsageError when the named ones do not work here.
    """
    if name not in KERNELS:
        raise UsageError(
            "{name!r} is no kernel.",
            hint="Use one of {names}.",
            name=name,
            names=", ".join(KERNELS),
        )
    best = _best_cuda(device) if device.type == "cuda" else _best_cpu(dtype)
    if name in ("auto", best.name):
        return best
    if name == "packed" and best.rows is not None:
        best = _best_of_bitsandbytes(dtype)
        if best.name == name:
            return best
    reason = f"{name} was asked for"
    if name == "plain":
        return KernelChoice(name="plain", reason=reason)
    if name == "native" and best.native is not None:
        return KernelChoice(name="native", reason=reason, native=best.native)
    raise UsageError("The {name} kernels don't work here: {why}.", name=name, why=best.reason)


def _best_cuda(device: torch.device) -> KernelChoice:
    # On import it tells every user with AVX512-BF16 to install a package that downloads code.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401  (registers its operators with torch)

        right = _dequantizes_right_on(device)
    except (ImportError, RuntimeError) as error:  # a build without this GPU's CUDA version raises
        first_line = str(error).strip().partition("\n")[0]
        return KernelChoice(name="plain", reason=f"bitsandbytes does not work here: {first_line}")
    if not right:
        reason = "bitsandbytes' CUDA kernels give other numbers than they should"
        return KernelChoice(name="plain", reason=reason)
    return KernelChoice(name="cuda", reason="bitsandbytes works on this GPU")


def _best_cpu(dtype: torch.dtype) -> KernelChoice:
    other = _best_of_bitsandbytes(dtype)
    if other.native is None:
        return other  # whoever lacks bitsandbytes has worse trouble than a slow kernel
    try:
        rows = open_rows()
    except OSError as error:
        return replace(other, reason=f"{other.reason}; {error}")
    if not _rows_multiply_right(rows, dtype):
        wrong = "our C kernel gives other numbers than it should"
        return replace(other, reason=f"{other.reason}; {wrong}")
    uses = "AVX512-BF16" if rows.level == 2 and dtype == torch.bfloat16 else "AVX2"
    tiles = open_tiles() if dtype == torch.bfloat16 else None
    reason = f"our C kernel was built, and the CPU has {uses}"
    if tiles is not None:
        reason += " and AMX"
        if not _tiles_multiply_right(tiles):
            tiles = None
            reason += ", whose kernel gives other numbers than it should"
    return KernelChoice(name="rows", reason=reason, native=other.native, rows=rows, tiles=tiles)


def _best_of_bitsandbytes(dtype: torch.dtype) -> KernelChoice:
    try:
        native = open_native()
    except OSError as error:
        return KernelChoice(name="plain", reason=str(error))
    if not _dequantizes_right(native):
        return KernelChoice(
            name="plain", reason="bitsandbytes' CPU library gives other numbers than it should"
        )
    if not native.has_packed:
        return KernelChoice(name="native", reason="the CPU has no AVX512-BF16", native=native)
    if dtype != torch.bfloat16:
        reason = (
            f"AVX512-BF16 computes in bfloat16, and this is {str(dtype).removeprefix('torch.')}"
        )
        return KernelChoice(name="native", reason=reason, native=native)
    if not _multiplies_right(native):
        reason = "bitsandbytes' AVX512-BF16 kernel gives other numbers than it should"
        return KernelChoice(name="native", reason=reason, native=native)
    return KernelChoice(
        name="packed",
        reason="the CPU has AVX512-BF16",
        native=native,
        packed_max_rows=PACKED_MAX_ROWS,
    )


_PROBE_ROWS, _PROBE_COLUMNS, _GROUP = 32, 128, 64


def _probe() -> tuple[torch.Tensor, torch.Tensor]:
    """Give the codes and scales of a small matrix that has every code and many scales."""
    count = _PROBE_ROWS * _PROBE_COLUMNS
    # Not random and not a sine, which in torch may differ from call to call (model/rotary.py).
    weight = (torch.arange(count) * 1201 % 4093 / 2046.5 - 1).view(_PROBE_ROWS, -1)
    weight *= torch.linspace(0.01, 2.0, _PROBE_ROWS).view(-1, 1)
    return quantize_rows(weight, group=_GROUP)


def _reference() -> torch.Tensor:
    codes, absmax = _probe()
    out = torch.empty(_PROBE_ROWS, _PROBE_COLUMNS)
    levels = torch.tensor(NF4_LEVELS)
    return dequantize_reference(codes, absmax, levels=levels, group=_GROUP, out=out)


def _dequantizes_right(native: NativeKernels) -> bool:
    """Compare the library with the reference: another version may have changed its arguments."""
    codes, absmax = _probe()
    out = torch.empty(_PROBE_ROWS, _PROBE_COLUMNS)
    native.dequantize(codes, absmax, out, quant_type="nf4", group=_GROUP)
    return torch.equal(out, _reference())


def _dequantizes_right_on(device: torch.device) -> bool:
    codes, absmax = _probe()
    out: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit(
        codes.to(device), absmax.to(device), _GROUP, "nf4",
        [_PROBE_ROWS, _PROBE_COLUMNS], torch.float32,
    )  # fmt: skip
    return torch.equal(out.cpu(), _reference())


def _rows_multiply_right(rows: RowKernels, dtype: torch.dtype) -> bool:
    codes, absmax = _probe()
    matrix = StoredMatrix(
        rows=_PROBE_ROWS, columns=_PROBE_COLUMNS, group=_GROUP, codes=codes.view(-1),
        levels=torch.tensor(NF4_LEVELS), absmax=absmax,
    )  # fmt: skip
    out, plain = rows.four_bit(torch.eye(_PROBE_COLUMNS, dtype=dtype), matrix), _reference()
    if not torch.allclose(out.float().t(), plain, rtol=0.01, atol=0.0):
        return False
    if not rows.can_dequantize(columns=_PROBE_COLUMNS, group=_GROUP, dtype=dtype):
        return True
    out = torch.empty(_PROBE_ROWS, _PROBE_COLUMNS, dtype=dtype)
    rows.dequantize(matrix, 0, out)
    return torch.equal(out, plain.to(dtype))


def _tiles_multiply_right(tiles: TileKernels) -> bool:
    codes, absmax = _probe()
    out = tiles.four_bit(
        torch.eye(_PROBE_COLUMNS, dtype=torch.bfloat16), codes.view(-1), absmax,
        torch.tensor(NF4_LEVELS), None, group=_GROUP, scratch=Scratch(torch.device("cpu")),
    )  # fmt: skip
    return torch.equal(out.t(), _reference().to(torch.bfloat16))


def _multiplies_right(native: NativeKernels) -> bool:
    codes, absmax = _probe()
    x = torch.eye(_PROBE_COLUMNS, dtype=torch.bfloat16)
    out = torch.empty(_PROBE_COLUMNS, _PROBE_ROWS, dtype=torch.bfloat16)
    packed = pack(codes, _PROBE_ROWS, _PROBE_COLUMNS)
    scales = pack_scales(absmax, _PROBE_ROWS)
    native.multiply_packed(x, packed, scales, out, quant_type="nf4", group=_GROUP)
    return torch.allclose(out.float().t(), _reference(), rtol=0.02, atol=0.0)
