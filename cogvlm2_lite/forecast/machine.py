"""Describes the computer to plan for: this one now, or one given by options."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cogvlm2_lite.backends.cpu import cpu_flags
from cogvlm2_lite.backends.cpu_level import AMX, AVX512, highest_level
from cogvlm2_lite.backends.measured import remark_on
from cogvlm2_lite.devices import choose_gpus, parse_device, prepare_threads, thread_count
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.forecast.rates import Card, Cpu, Rates, gpu_rates
from cogvlm2_lite.memory.budget import (
    Allowance,
    assumed_budgets,
    cpu_budget,
    free_ram_bytes,
    gpu_budgets,
)
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, format_bytes
from cogvlm2_lite.weights.kernels.built import built_kernel


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The computer to plan for.

    label     a short name: "cuda:0 (RTX 4060)", "the CPU"
    budgets   one per device
    rates     one per device
    itemsize  bytes of the compute dtype
    packed    whether 4-bit matrices used in decoding get a second, packed copy
    remarks   sentences for the user
    """

    label: str
    budgets: tuple[DeviceBudget, ...]
    rates: tuple[Rates, ...]
    itemsize: int = 2
    packed: bool = False
    remarks: tuple[Text, ...] = ()

    @property
    def in_ram(self) -> bool:
        return self.budgets[0].in_ram


def find_machine(
    device: str, allowance: Allowance, *, card: Card | None = None, measure: bool = False
) -> Machine:
    """Return the computer that --device, --vram, --ram and --card describe.

    device   as for choose_gpus
    card     use the rates of this card and, without --vram, its memory
    measure  measure the CPU instead of using stated rates

    A size of video memory or a card means GPUs of that size, whatever is in this computer; torch is
    not imported then. Raises UsageError for contradictions, and the errors of choose_gpus.
    """
    described = allowance.vram or ((card.gib * GIB,) if card else None)
    word = parse_device(device)
    if described and word.backend is not None and word.backend.uses_ram:
        raise UsageError(
            "--vram and --card describe a GPU, but --device cpu uses none.",
            hint="Leave --device out, or limit the CPU with --ram.",
        )
    if described:
        _reject_measure(measure)
        return _described_gpus(described, allowance, card)
    gpus, trouble = choose_gpus(device)
    remarks: tuple[Text, ...] = ()
    if trouble:
        not_used = "Not every GPU is used: {why}." if gpus else "No GPU is used: {why}."
        remarks = (Text(not_used, why=trouble),)
    if not gpus:
        machine = cpu_machine(allowance, measure=measure)
        return replace(machine, remarks=(*remarks, *machine.remarks))
    _reject_measure(measure)
    budgets = gpu_budgets(gpus, allowance, free_ram_bytes())
    return Machine(
        label=", ".join(f"{gpu.device} ({gpu.name})" for gpu in gpus),
        budgets=budgets,
        rates=tuple(gpu_rates(gpu.name, gpu.total_bytes) for gpu in gpus),
        remarks=(*remarks, *filter(None, map(remark_on, gpus))),
    )


def _reject_measure(measure: bool) -> None:
    if measure:
        raise UsageError(
            "--measure measures the processor, but this plan is for a GPU.",
            hint="Add --device cpu, or leave --measure out.",
        )


def _described_gpus(vram: tuple[int, ...], allowance: Allowance, card: Card | None) -> Machine:
    sizes = " and ".join(format_bytes(size) for size in vram)
    return Machine(
        label=Text(
            "a GPU with {sizes}" if len(vram) == 1 else "{count} GPUs with {sizes}",
            count=len(vram),
            sizes=sizes,
        ),
        budgets=assumed_budgets(vram, allowance, free_ram_bytes()),
        rates=tuple(card.rates if card else gpu_rates("", size) for size in vram),
    )


def cpu_machine(allowance: Allowance, *, measure: bool = False) -> Machine:
    """Return this computer without its GPUs."""
    cpu, free = this_cpu(), free_ram_bytes()
    remarks: tuple[Text, ...] = ()
    if allowance.ram is not None and allowance.ram > free:
        remarks = (Text("This computer has only {size} of RAM free now.", size=format_bytes(free)),)
    return Machine(
        label=Text("the CPU"),
        budgets=(cpu_budget(allowance, free, assumed=True),),
        remarks=remarks,
        rates=(measure_cpu(cpu) if measure else cpu.rates,),
        itemsize=cpu.itemsize,
        packed=cpu.packs,
    )


def this_cpu() -> Cpu:
    """Return the features of this CPU. Features that are not reported count as missing.

    CPU_LEVEL limits them.
    """
    flags, level = cpu_flags(), highest_level()
    return Cpu(
        cores=thread_count(),
        has_bf16="avx512_bf16" in flags and level >= AVX512,
        has_avx512="avx512f" in flags,
        has_amx="amx_bf16" in flags and level >= AMX,
        has_gemv=built_kernel() is not None and "avx2" in flags,
    )


def measure_cpu(cpu: Cpu) -> Rates:
    """Measure matrix products and decoding on this CPU, in half a second, with torch.

    The rate of the disk stays the stated one: a measurement would read from the page cache.
    """
    prepare_threads()
    from cogvlm2_lite.forecast.measure import decode_rate, matmul_rate

    return replace(
        cpu.rates,
        matmul_flops=matmul_rate(cpu.itemsize),
        memory_bytes_per_s=decode_rate(itemsize=cpu.itemsize, packed=cpu.packs),
        source=Text("measured on this processor, {count} cores, disk stated", count=cpu.cores),
    )
