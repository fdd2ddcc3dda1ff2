"""The speed of common GPUs and CPUs: memory, bus and matrix products.

The rates of a GPU are its manufacturer's figures times an assumed efficiency: no GPU was available
to measure them. They show whether an answer takes seconds or minutes, and are not meant for
comparing two cards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.text import Text, join
from cogvlm2_lite.units import GIB


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The rates of one device.

    matmul_flops        operations per second of large multiplications, 2 per multiply-add
    memory_bytes_per_s  rate at which a decode step reads stored weights
    bus_bytes_per_s     from RAM to the device; on the CPU unused
    disk_bytes_per_s    from disk
    pack_bytes_per_s    stored bytes that are packed after copying (on some CPUs)
    block_s             overhead of starting the operations of one block
    source              of the numbers: "stated: ..." or "measured ..."
    """

    matmul_flops: float
    memory_bytes_per_s: float
    bus_bytes_per_s: float
    disk_bytes_per_s: float
    source: str
    pack_bytes_per_s: float = math.inf
    block_s: float = 0.0


DISK_BYTES_PER_S = 2.0e9
"""Sequential reads of a common NVMe disk."""

_MATMUL_SHARE, _MEMORY_SHARE, _BUS_SHARE = 0.5, 0.6, 0.8
_GPU_BLOCK_S = 0.15e-3  # about 20 kernels
_GEN3_X16 = _GEN4_X8 = 15.75e9
_GEN4_X16 = _GEN5_X8 = 31.5e9
_GEN5_X16 = 63.0e9


@dataclass(frozen=True, kw_only=True)
class Card:
    """A common GPU, with its manufacturer's figures.

    tflops  16-bit with 32-bit sums, without sparsity. For GeForce cards with tensor cores this is
            twice the float32 rate.
    """

    name: str
    gib: int
    tflops: float
    memory_gb_per_s: float
    bus_bytes_per_s: float
    typical: bool = False
    """Used for all cards with at most this much memory, if only the size is known."""

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16: those of 2018 and before do not."""
        return self.name not in _WITHOUT_BFLOAT16

    @property
    def rates(self) -> Rates:
        """The figures times the assumed efficiency."""
        return Rates(
            matmul_flops=self.tflops * 1e12 * _MATMUL_SHARE,
            memory_bytes_per_s=self.memory_gb_per_s * 1e9 * _MEMORY_SHARE,
            bus_bytes_per_s=self.bus_bytes_per_s * _BUS_SHARE,
            disk_bytes_per_s=DISK_BYTES_PER_S,
            block_s=_GPU_BLOCK_S,
            source=Text("stated: {card}", card=f"{self.name} {self.gib} GB"),
        )


_WITHOUT_BFLOAT16 = frozenset({"GTX 1650", "RTX 2060", "Tesla T4"})


def _card(
    name: str, gib: int, tflops: float, gb_per_s: float, bus: float, *, typical: bool = False
) -> Card:
    return Card(
        name=name,
        gib=gib,
        tflops=tflops,
        memory_gb_per_s=gb_per_s,
        bus_bytes_per_s=bus,
        typical=typical,
    )


CARDS = (
    _card("GTX 1650", 4, 6.0, 128, _GEN3_X16, typical=True),
    _card("RTX 2060", 6, 25.8, 336, _GEN3_X16),
    _card("RTX 3050", 6, 13.5, 168, _GEN4_X8, typical=True),
    _card("RTX 3060", 12, 25.5, 360, _GEN4_X16, typical=True),
    _card("RTX 3080", 10, 59.5, 760, _GEN4_X16),
    _card("RTX 3090", 24, 71.0, 936, _GEN4_X16, typical=True),
    _card("RTX 4060", 8, 30.2, 272, _GEN4_X8, typical=True),
    _card("RTX 4060 Ti", 16, 44.1, 288, _GEN4_X8),
    _card("RTX 4070", 12, 58.3, 504, _GEN4_X16),
    _card("RTX 4080", 16, 97.5, 717, _GEN4_X16),
    _card("RTX 4090", 24, 165.2, 1008, _GEN4_X16),
    _card("RTX 5060 Ti", 16, 47.4, 448, _GEN5_X8, typical=True),
    _card("RTX 5080", 16, 112.6, 960, _GEN5_X16),
    _card("RTX 5090", 32, 209.5, 1792, _GEN5_X16, typical=True),
    _card("Tesla T4", 16, 65.0, 320, _GEN3_X16),
    _card("A100", 40, 312.0, 1555, _GEN4_X16, typical=True),
    _card("H100", 80, 989.0, 3350, _GEN5_X16, typical=True),
)


def named_card(name: str) -> Card:
    """Return a card by its common name: "4090", "rtx 4060 ti". UsageError for an unknown one."""
    known = {_key(card.name): card for card in CARDS}
    asked = _key(name)
    found = known.get(asked) or next(
        (card for key, card in known.items() if asked and key.endswith(asked)), None
    )
    if found is None:
        near = get_close_matches(asked, known, n=1, cutoff=0.7)
        names = ", ".join(card.name for card in CARDS)
        meant = Text("Did you mean {name}?", name=known[near[0]].name) if near else Text()
        hint = Text(
            "The known cards are {names}. For others state their memory: --vram 8GiB.", names=names
        )
        raise UsageError(
            "The rates of the card {name!r} are not known.",
            hint=join(meant, hint),
            param="card",
            name=name,
        )
    return found


def _key(name: str) -> str:
    words = name.lower().replace("nvidia", " ").replace("geforce", " ").split()
    return "".join(words)


def gpu_rates(name: str, total_bytes: int) -> Rates:
    """Return the rates of a GPU by its name, or those of a typical card of its size.

    name  as the driver reports it; "" if only the size is known
    """
    key = _key(name)
    fitting = [card for card in CARDS if name and _key(card.name) in key]
    if fitting:
        return max(fitting, key=lambda card: len(card.name)).rates
    typical = sorted((card for card in CARDS if card.typical), key=lambda card: card.gib)
    # The driver of an 8 GB card reports a little more or less than 8 GiB.
    card = next((c for c in typical if total_bytes <= (c.gib + 0.5) * GIB), typical[-1])
    return replace(
        card.rates, source=Text("stated: a card like {card}", card=f"{card.name} {card.gib} GB")
    )


@dataclass(frozen=True, kw_only=True)
class CpuClass:
    """The rates of one core, measured on one CPU of its class.

    AMX was measured on a Xeon of 2023 and AVX512-BF16 on an EPYC of 2024, both with the whole model
    (docs/performance.md); the other two classes on the EPYC, and their products of integers on the
    Xeon.

    decode_bytes_per_s  one row times NF4 weights: with a packed copy as fast as memory, else each
                        weight is dequantized first
    gemv_bytes_per_s    the same with our C kernel, in stored bytes
    integer_flops       matrix products and attention together, if our C kernel multiplies in
                        integers; 0: it does not
    """

    name: str
    matmul_flops: float
    decode_bytes_per_s: float
    gemv_bytes_per_s: float
    integer_flops: float = 0


_AMX = CpuClass(name="AMX", matmul_flops=550e9, decode_bytes_per_s=7.5e9, gemv_bytes_per_s=9.6e9)
_AVX512_BF16 = CpuClass(
    name="AVX512-BF16", matmul_flops=300e9, decode_bytes_per_s=18e9, gemv_bytes_per_s=20e9
)
_AVX512 = CpuClass(
    name="AVX512", matmul_flops=80e9, decode_bytes_per_s=2.2e9, gemv_bytes_per_s=7.4e9
)
_OTHER = CpuClass(
    name="no AVX512",
    matmul_flops=50e9,
    decode_bytes_per_s=0.6e9,
    gemv_bytes_per_s=7.4e9,
    integer_flops=75e9,
)

_PACK_BYTES_PER_S = 0.6e9
"""Stored bytes per second that one core packs."""

_CPU_BLOCK_S = 0.2e-3

RAM_BYTES_PER_S = 50e9
"""Two channels of DDR5: the limit of all cores together."""


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The features of a CPU that a plan depends on.

    has_bf16  AVX512-BF16: it computes in bfloat16
    has_amx   AMX for bfloat16
    has_gemv  our C kernel was built and runs here; without it, NF4 matrices used in decoding get a
              second, packed copy on a CPU with AVX512-BF16
    """

    cores: int
    has_bf16: bool
    has_avx512: bool
    has_amx: bool = False
    has_gemv: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of the compute dtype that "auto" chooses."""
        return 2 if self.has_bf16 else 4

    @property
    def packs(self) -> bool:
        """True when matrices used in decoding get a packed copy."""
        return self.has_bf16 and not self.has_gemv

    @property
    def rates(self) -> Rates:
        """The stated rates of this CPU."""
        if self.has_bf16:
            kind = _AMX if self.has_amx else _AVX512_BF16
        else:
            kind = _AVX512 if self.has_avx512 else _OTHER
        decode = kind.gemv_bytes_per_s if self.has_gemv else kind.decode_bytes_per_s
        flops = (kind.integer_flops if self.has_gemv else 0) or kind.matmul_flops
        return Rates(
            matmul_flops=flops * self.cores,
            memory_bytes_per_s=min(decode * self.cores, RAM_BYTES_PER_S),
            bus_bytes_per_s=RAM_BYTES_PER_S,
            disk_bytes_per_s=DISK_BYTES_PER_S,
            pack_bytes_per_s=_PACK_BYTES_PER_S,
            block_s=_CPU_BLOCK_S,
            source=Text(
                "stated: one core, {kind}" if self.cores == 1 else "stated: {count} cores, {kind}",
                count=self.cores,
                kind=kind.name,
            ),
        )
